"""The one table that holds Lanyard user ids."""

from datetime import datetime

from ledger.database.connection import Connection

RESTRICTED = "(restricted)"
"""Stands for the Lanyard id of somebody whose erasure was asked for: they are not asked after any more."""


async def find_person_id(connection: Connection, *, user_id: str) -> int | None:
    """The row of a Lanyard user, or None when Ledger holds nothing about them."""
    row_id: int | None = await connection.fetchval("select id from person where lanyard_user_id = $1", user_id)
    return row_id


async def ensure_persons(connection: Connection, *, user_ids: set[str], now: datetime) -> dict[str, int]:
    """Returns the row of every user, making those that are missing.

    Rows that exist are held, as a row that points at them would hold them: retention does not take them away before
    this transaction ends. Nobody else waits for that, and new rows are made in order, so that transactions that bill
    the same people do not wait for each other in a circle.
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
        "select id, lanyard_user_id from person where lanyard_user_id = any($1::text[]) for key share", list(user_ids)
    )
    return {row["lanyard_user_id"]: row["id"] for row in found}


async def list_user_ids(connection: Connection, *, person_ids: set[int]) -> dict[int, str]:
    """The Lanyard ids of rows, for asking their names; `RESTRICTED` for those who are not to be asked after."""
    rows = await connection.fetch(
        "select id, lanyard_user_id, restricted_at from person where id = any($1::bigint[])", sorted(person_ids)
    )
    return {row["id"]: row["lanyard_user_id"] if row["restricted_at"] is None else RESTRICTED for row in rows}
