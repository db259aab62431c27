"""The one table that holds Lanyard user ids."""

from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ledger.database.transaction import Connection


async def find_person_id(connection: "Connection", *, user_id: str) -> int | None:
    """The row of a Lanyard user, or None when Ledger holds nothing about them."""
    row_id: int | None = await connection.fetchval("select id from person where lanyard_user_id = $1", user_id)
    return row_id


async def ensure_persons(connection: "Connection", *, user_ids: set[str], now: datetime) -> dict[str, int]:
    """Returns the row of every user, making those that are missing. Ids are locked in order, so that two
    transactions that bill the same people do not wait for each other in a circle."""
    wanted = sorted(user_ids)
    rows = {
        row["lanyard_user_id"]: row["id"]
        for row in await connection.fetch(
            "select id, lanyard_user_id from person where lanyard_user_id = any($1::text[])", wanted
        )
    }
    missing = [user_id for user_id in wanted if user_id not in rows]
    if missing:
        # The no-op update makes a row that somebody else just inserted come back as well.
        inserted = await connection.fetch(
            """
            insert into person (lanyard_user_id, created_at)
            select user_id, $2 from unnest($1::text[]) as user_id
            on conflict (lanyard_user_id) do update set lanyard_user_id = excluded.lanyard_user_id
            returning id, lanyard_user_id
            """,
            missing,
            now,
        )
        rows.update({row["lanyard_user_id"]: row["id"] for row in inserted})
    return rows


async def list_user_ids(connection: "Connection", *, person_ids: set[int]) -> dict[int, str]:
    """The Lanyard ids of rows, for asking their names."""
    rows = await connection.fetch(
        "select id, lanyard_user_id from person where id = any($1::bigint[])", sorted(person_ids)
    )
    return {row["id"]: row["lanyard_user_id"] for row in rows}
