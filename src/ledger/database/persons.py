"""The one table that holds Lanyard user ids."""

from datetime import datetime

from ledger.database.connection import Connection


async def find_person_id(connection: Connection, *, user_id: str) -> int | None:
    """The row of a Lanyard user, or None when Ledger holds nothing about them."""
    row_id: int | None = await connection.fetchval("select id from person where lanyard_user_id = $1", user_id)
    return row_id


async def ensure_persons(connection: Connection, *, user_ids: set[str], now: datetime) -> dict[str, int]:
    """Returns the row of every user, making those that are missing.

    Rows that exist are not locked, and new ones are made in order, so that transactions that bill the same people do
    not wait for each other in a circle.
    """
    rows = await _find_persons(connection, user_ids)
    missing = sorted(user_ids - rows.keys())
    if missing:
        # Waits for others who are making the same rows. Once they have, these are there for the next statement.
        inserted = await connection.fetch(
            """
            insert into person (lanyard_user_id, created_at)
            select user_id, $2 from unnest($1::text[]) as user_id
            on conflict (lanyard_user_id) do nothing
            returning id, lanyard_user_id
            """,
            missing,
            now,
        )
        rows |= {row["lanyard_user_id"]: row["id"] for row in inserted}
        if len(rows) < len(user_ids):
            rows |= await _find_persons(connection, user_ids - rows.keys())
    return rows


async def _find_persons(connection: Connection, user_ids: set[str]) -> dict[str, int]:
    found = await connection.fetch(
        "select id, lanyard_user_id from person where lanyard_user_id = any($1::text[])", list(user_ids)
    )
    return {row["lanyard_user_id"]: row["id"] for row in found}


async def list_user_ids(connection: Connection, *, person_ids: set[int]) -> dict[int, str]:
    """The Lanyard ids of rows, for asking their names."""
    rows = await connection.fetch(
        "select id, lanyard_user_id from person where id = any($1::bigint[])", sorted(person_ids)
    )
    return {row["id"]: row["lanyard_user_id"] for row in rows}
