"""Housekeeping that belongs to no feature."""

from datetime import datetime, timedelta

from ledger.database.transaction import Database

IDEMPOTENCY_KEPT = timedelta(days=30)
QUEUE_LOG_KEPT = timedelta(days=14)
PURGED_AT_ONCE = 5_000


async def purge_idempotency_records(database: Database) -> int:
    """Deletes answers that were kept for their 30 days, in small steps; returns how many."""
    before = database.clock.now() - IDEMPOTENCY_KEPT
    return await _purge(
        database,
        """
        delete from idempotency_record where (caller, operation, key) in (
            select caller, operation, key from idempotency_record where created_at < $1 limit $2
        )
        """,
        before,
    )


async def purge_queue_log(database: Database) -> int:
    """Deletes what the job queue noted about jobs long done; returns how many rows."""
    before = database.clock.now() - QUEUE_LOG_KEPT
    purged = 0
    for name in ("pgqueuer_log", "pgqueuer_statistics"):
        purged += await _purge(
            database,
            f"delete from {name} where id in (select id from {name} where created < $1 limit $2)",
            before,
        )
    return purged


async def _purge(database: Database, statement: str, before: datetime) -> int:
    """Repeats a bounded delete until nothing is left, so that no statement holds locks for long."""
    purged = 0
    while True:
        async with database.connection() as connection:
            status = await connection.execute(statement, before, PURGED_AT_ONCE)
        count = int(status.removeprefix("DELETE "))
        purged += count
        if count < PURGED_AT_ONCE:
            return purged
