"""SQL about the installation itself: schema, workers, the heartbeat."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from ledger.database.connection import Connection


async def get_revision(connection: Connection) -> str | None:
    """The schema's revision, or None when nothing was migrated yet."""
    exists = await connection.fetchval("select to_regclass('alembic_version') is not null")
    if not exists:
        return None
    revision: str | None = await connection.fetchval("select max(version_num) from alembic_version")
    return revision


async def find_worker_seen_at(connection: Connection) -> datetime | None:
    """When any worker last reported, or None."""
    seen_at: datetime | None = await connection.fetchval("select max(seen_at) from worker_seen")
    return seen_at


async def upsert_worker(
    connection: Connection, *, worker_id: str, version: str, now: datetime, counted: Sequence[object] = ()
) -> None:
    """A worker reports, with what it counted for the metrics, and sweeps what has not reported for a day."""
    await connection.execute(
        """
        insert into worker_seen (worker_id, version, started_at, seen_at, counted) values ($1, $2, $3, $3, $4)
        on conflict (worker_id) do update set seen_at = excluded.seen_at, counted = excluded.counted
        """,
        worker_id,
        version,
        now,
        counted,
    )
    await connection.execute("delete from worker_seen where seen_at < $1", now - timedelta(days=1))


async def delete_worker(connection: Connection, *, worker_id: str) -> None:
    """A worker says goodbye."""
    await connection.execute("delete from worker_seen where worker_id = $1", worker_id)


class HeartbeatClaim(msgspec.Struct, frozen=True):
    """The right to send the heartbeat that was due at `due_at`, after `attempts` failures."""

    due_at: datetime
    attempts: int


async def request_heartbeat(connection: Connection, *, now: datetime, apart: timedelta = timedelta(0)) -> None:
    """Makes the heartbeat due: at a start, and in the transaction that changes what Ledger can do.

    It is due `apart` from the last one at the earliest, and once more where one is just being sent.
    """
    await connection.execute(
        """
        update lanyard_heartbeat set
            due_at = case
                when claimed_until is null then least(due_at, greatest($1, accepted_at + $2::interval))
                else $1 + $2::interval end,
            attempts = 0
        where id = 1
        """,
        now,
        apart,
    )


async def claim_heartbeat(connection: Connection, *, now: datetime, for_how_long: timedelta) -> HeartbeatClaim | None:
    """Claims the heartbeat when it is due and nobody is sending it; a claim lapses when its process died."""
    row = await connection.fetchrow(
        """
        update lanyard_heartbeat set claimed_until = $2
        where id = 1 and due_at <= $1 and (claimed_until is null or claimed_until < $1)
        returning due_at, attempts
        """,
        now,
        now + for_how_long,
    )
    return None if row is None else HeartbeatClaim(row["due_at"], row["attempts"])


async def release_heartbeat(
    connection: Connection, *, claim: HeartbeatClaim, next_at: datetime, accepted_at: datetime | None, error: str | None
) -> None:
    """Stores the outcome. When somebody made it due again meanwhile, it stays due."""
    await connection.execute(
        """
        update lanyard_heartbeat set
            claimed_until = null,
            due_at = case when due_at = $1 then $2 else due_at end,
            attempts = case when $3::timestamptz is null then attempts + 1 else 0 end,
            accepted_at = coalesce($3, accepted_at),
            last_error = $4
        where id = 1
        """,
        claim.due_at,
        next_at,
        accepted_at,
        error,
    )
