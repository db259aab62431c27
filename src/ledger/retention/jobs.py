"""The daily run: frees what is due, purges what is kept for a while only, and lets people go whom nothing names."""

import asyncio
from collections.abc import Callable
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import structlog

from ledger.database.connection import Connection
from ledger.database.transaction import AuditEntry, Database
from ledger.retention import freeing, purging
from ledger.retention.erasing import erase_again
from ledger.retention.limits import find_limits
from ledger.retention.payloads import empty_payloads_of_restricted
from ledger.retention.walking import FIRST_ROW, Limits, Step

log = structlog.get_logger("ledger.retention")

RETENTION_SCHEDULE = "retention"
# One run at a time in the whole installation, whoever starts it: a number that nothing else locks.
_LOCK = 0x6C656467_72657400
_LOCK_QUERY, _UNLOCK_QUERY = "select pg_try_advisory_lock($1)", "select pg_advisory_unlock($1)"

# Whose counts the audit log keeps: what was about people. The rest is housekeeping.
_AUDITED = ("invoices", "subscriptions", "auditEntries", "persons")
STEPS: tuple[Step, ...] = (
    Step(name="invoices", phrase="invoices lose their person and every free text", walk=freeing.free_invoices),
    Step(name="subscriptions", phrase="subscriptions lose their person", walk=freeing.free_subscriptions),
    Step(
        name="auditEntries",
        phrase="entries of the audit log lose who acted",
        walk=freeing.free_audit_entries,
        beginning=FIRST_ROW,
    ),
    Step(name="payloads", phrase="events of payment providers lose what they said", walk=purging.empty_payloads),
    Step(name="deletedEvents", phrase="events go with their deliveries", walk=purging.delete_events),
    Step(name="events", phrase="events of Ledger lose what they said", walk=purging.empty_events),
    Step(
        name="attempts",
        phrase="attempts to deliver go",
        walk=purging.delete_attempts,
        beginning=FIRST_ROW,
    ),
    Step(name="deliveries", phrase="deliveries lose their errors", walk=purging.empty_deliveries),
    Step(name="mails", phrase="mails go", walk=purging.delete_mails),
    Step(name="answers", phrase="answers to requests with a key go", walk=purging.delete_answers),
    Step(
        name="restrictedPayloads",
        phrase="events of payment providers lose what they said about people who asked for erasure",
        walk=empty_payloads_of_restricted,
    ),
    Step(
        name="restricted",
        phrase="people who asked for erasure are looked at again",
        walk=erase_again,
        beginning=FIRST_ROW,
    ),
    Step(
        name="persons",
        phrase="people go at whom nothing points any more",
        walk=freeing.delete_persons,
        beginning=FIRST_ROW,
    ),
    Step(
        name="customers",
        phrase="names that providers have for people who are gone",
        walk=purging.delete_orphaned_customers,
    ),
)


class Stopping:
    """Whether this process is about to end, for work that takes minutes and can stop between two pages."""

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None

    def follow(self, event: asyncio.Event) -> None:
        """From now on it is `event` that says so."""
        self._event = event

    def is_set(self) -> bool:
        return self._event is not None and self._event.is_set()


class Retained(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did, or (a dry one) would do: how many of each step. It may have been stopped before its end."""

    counts: dict[str, int]
    was_stopped: bool = False
    runs_elsewhere: bool = False

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def _never() -> bool:
    return False


async def apply_retention(
    database: Database, *, zone: ZoneInfo, is_dry: bool = False, is_stopping: Callable[[], bool] = _never
) -> Retained:
    """Does what is due as of now, a page at a time; between two pages it asks whether it shall stop.

    What was done stays done, whatever interrupts it, and the next run goes on. While another run is under way anywhere
    in the installation, this one does nothing. A dry run changes nothing and locks nothing.
    """
    async with database.connection() as guard:
        if not is_dry and not await guard.fetchval(_LOCK_QUERY, _LOCK):
            log.info("retention runs elsewhere")
            return Retained(counts={}, runs_elsewhere=True)
        try:
            return await _run(database, guard, zone=zone, is_dry=is_dry, is_stopping=is_stopping)
        finally:
            if not is_dry:
                await _unlock(guard)


async def _unlock(guard: Connection) -> None:
    try:
        await guard.fetchval(_UNLOCK_QUERY, _LOCK)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        # A connection that is lost has given its locks back; one that may hold it still must not be used again.
        guard.terminate()


async def _run(
    database: Database, guard: Connection, *, zone: ZoneInfo, is_dry: bool, is_stopping: Callable[[], bool]
) -> Retained:
    limits = await find_limits(guard, now=database.clock.now(), zone=zone, is_dry=is_dry)
    counts = {step.name: 0 for step in STEPS}
    was_stopped = True
    try:
        was_stopped = not await _walk_all(database, limits, counts, is_stopping)
    finally:
        # What was done before something went wrong was done.
        if not is_dry and any(counts[name] for name in _AUDITED):
            await _audit(database, counts)
    return Retained(counts=counts, was_stopped=was_stopped)


async def _walk_all(
    database: Database, limits: Limits, counts: dict[str, int], is_stopping: Callable[[], bool]
) -> bool:
    """Goes through all steps; returns whether it came to the end."""
    for step in STEPS:
        after = step.beginning
        while True:
            if is_stopping():
                return False
            async with database.atomically() as connection:
                progress = await step.walk(connection, limits=limits, after=after)
            counts[step.name] += progress.count
            if progress.next is None:
                break
            after = progress.next
    return True


async def _audit(database: Database, counts: dict[str, int]) -> None:
    async with database.transaction_by(kind="system", name=RETENTION_SCHEDULE) as tx:
        tx.audit(
            AuditEntry(
                action="data_retention.anonymized",
                entity_type="retention",
                entity_id=tx.ids.new(),
                details={name: counts[name] for name in _AUDITED},
            )
        )
