"""Housekeeping that belongs to no feature."""

from datetime import timedelta

from ledger.database.transaction import Database

IDEMPOTENCY_KEPT = timedelta(days=30)
PURGED_AT_ONCE = 5_000


async def purge_idempotency_records(database: Database) -> int:
    """Deletes answers that were kept for their 30 days, in small steps; returns how many."""
    before = database.clock.now() - IDEMPOTENCY_KEPT
    purged = 0
    while True:
        async with database.connection() as connection:
            status = await connection.execute(
                """
                delete from idempotency_record where (caller, operation, key) in (
                    select caller, operation, key from idempotency_record where created_at < $1 limit $2
                )
                """,
                before,
                PURGED_AT_ONCE,
            )
        count = int(status.removeprefix("DELETE "))
        purged += count
        if count < PURGED_AT_ONCE:
            return purged
