"""A schedule's run, written down: that it began, how long it took, how much it did or why it failed."""

import time

import structlog

from ledger.errors import LedgerError
from ledger.system.run_store import insert_run, update_run
from ledger.system.schedules import Schedule
from ledger.web.call import Services

log = structlog.get_logger("ledger.schedules")


async def run_schedule(schedule: Schedule, services: Services) -> int:
    """Runs a schedule and returns how much it did. Raises what the run raises, once that is written down."""
    async with services.database.connection() as connection:
        run_id = await insert_run(connection, name=schedule.name, now=services.clock.now())
    began_s = time.monotonic()
    try:
        count = await schedule.run(services)
    except Exception as error:
        await _end(services, run_id, began_s=began_s, count=None, error=_reason(error))
        raise
    await _end(services, run_id, began_s=began_s, count=count, error=None)
    return count


def _reason(error: Exception) -> str:
    """For staff. What other errors say can hold anything, so it stands in the log only."""
    if isinstance(error, LedgerError):
        return error.sentence
    return f"It failed unexpectedly ({type(error).__name__}); the worker's log says more"


async def _end(services: Services, run_id: int, *, began_s: float, count: int | None, error: str | None) -> None:
    duration_ms = round((time.monotonic() - began_s) * 1000)
    try:
        async with services.database.connection() as connection:
            await update_run(connection, run_id=run_id, duration_ms=duration_ms, count=count, error=error)
    except Exception as problem:
        # The work is done; that nobody can read of it is no reason to call it failed.
        log.warning("run not written down", run=run_id, reason=type(problem).__name__)
