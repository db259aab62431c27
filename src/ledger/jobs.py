"""Every job and schedule of the worker, by name: what runs, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import structlog

from ledger.audit.actions import SEALED_AT_ONCE, seal_entries
from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.errors import LedgerError
from ledger.inbound.actions import APPLY_JOB, apply_event
from ledger.inbound.store import list_due_event_ids
from ledger.invoices.jobs import look_at_checkout
from ledger.mail.making import REMIND_SCHEDULE, SEND_JOB, make_reminders
from ledger.mail.sending import MailSender
from ledger.payments.checkout_store import list_due_checkout_ids
from ledger.payments.checkouts import SETTLE_JOB as SETTLE_CHECKOUT
from ledger.products.actions import SYNC_ALL_JOB, SYNC_JOB, read_sync_payload
from ledger.products.jobs import queue_due_syncs, sync_all_products, sync_product
from ledger.providers.connections import Connections
from ledger.reconciling import reconcile_all
from ledger.refunds.actions import SETTLE_JOB as SETTLE_REFUND
from ledger.refunds.actions import look_at_refund
from ledger.refunds.store import list_due_refund_ids
from ledger.retention.erasing import ERASE_JOB, finish_erasure
from ledger.retention.jobs import RETENTION_SCHEDULE, Stopping, apply_retention
from ledger.subscriptions.change_settling import SETTLE_CHANGE_JOB, look_at_change
from ledger.subscriptions.change_store import list_due_change_ids
from ledger.subscriptions.settling import LOOK_JOB, look_at_subscription
from ledger.subscriptions.store import list_due_subscription_ids
from ledger.system.jobs import purge_idempotency_records, purge_queue_log
from ledger.system.schedules import Schedule, Sweep
from ledger.web.call import Services

log = structlog.get_logger("ledger.jobs")

# How many things one sweep takes up, and how many of them at once.
SWEPT_MAX = 500
SWEPT_AT_ONCE = 10

Job = Callable[[Services, str], Awaitable[None]]
"""Does one piece of work; the text names it (an id)."""


async def _look_at_checkout(services: Services, checkout_id: str) -> None:
    await look_at_checkout(services.database, services.get(Connections), checkout_id=checkout_id)


async def _look_at_refund(services: Services, refund_id: str) -> None:
    await look_at_refund(services.database, services.get(Connections), refund_id=refund_id)


async def _apply_event(services: Services, event_id: str) -> None:
    await apply_event(services.database, services.get(Connections), services.settings, event_id=event_id)


async def _look_at_subscription(services: Services, subscription_id: str) -> None:
    await look_at_subscription(services.database, services.get(Connections), subscription_id=subscription_id)


async def _look_at_change(services: Services, change_id: str) -> None:
    await look_at_change(services.database, services.get(Connections), change_id=change_id)


async def _sync_product(services: Services, payload: str) -> None:
    product_id, connection_id = read_sync_payload(payload.encode())
    await sync_product(services.database, services.get(Connections), product_id=product_id, connection_id=connection_id)


async def _sync_all_products(services: Services, connection_id: str) -> None:
    registry = services.get(Connections).registry
    await sync_all_products(services.database, registry, connection_id=connection_id)


async def _queue_due_syncs(services: Services) -> int:
    return await queue_due_syncs(services.database, services.get(Connections).registry)


async def _send_mails(services: Services, _payload: str) -> None:
    await services.get(MailSender).send_due()


async def _sweep_mails(services: Services) -> int:
    return await services.get(MailSender).send_due()


async def _make_reminders(services: Services) -> int:
    return await make_reminders(services.database, zone=services.settings.timezone)


async def _finish_erasure(services: Services, person_id: str) -> None:
    await finish_erasure(services.database, person_id=int(person_id), zone=services.settings.timezone)


JOBS: dict[str, Job] = {
    SYNC_JOB: _sync_product,
    SYNC_ALL_JOB: _sync_all_products,
    SETTLE_CHECKOUT: _look_at_checkout,
    SETTLE_REFUND: _look_at_refund,
    APPLY_JOB: _apply_event,
    LOOK_JOB: _look_at_subscription,
    SETTLE_CHANGE_JOB: _look_at_change,
    ERASE_JOB: _finish_erasure,
    SEND_JOB: _send_mails,
}


DueLister = Callable[..., Awaitable[Sequence[str]]]


async def reconcile(services: Services) -> int:
    """Takes up everything whose outcome is not known and whose next look is due. What fails stays for the next."""
    now = services.clock.now()
    # Side by side, so that one kind that is slow or broken does not keep the others waiting.
    counts = await asyncio.gather(
        _take_up(services, list_due_event_ids, _apply_event, now=now),
        _take_up(services, list_due_refund_ids, _look_at_refund, now=now),
        _take_up(services, list_due_checkout_ids, _look_at_checkout, now=now),
        _take_up(services, list_due_subscription_ids, _look_at_subscription, now=now),
        _take_up(services, list_due_change_ids, _look_at_change, now=now),
    )
    return sum(counts)


async def _take_up(services: Services, list_due: DueLister, job: Job, *, now: datetime) -> int:
    async with services.database.connection() as connection:
        due = await _list(list_due, connection, now=now)
    slots = asyncio.Semaphore(SWEPT_AT_ONCE)

    async def one(row_id: str) -> None:
        async with slots:
            try:
                await job(services, row_id)
            except LedgerError as error:
                # The row says why, and when the next look comes.
                log.warning("not settled yet", id=row_id, reason=type(error).__name__)
            except Exception as error:
                log.error("look failed", id=row_id, reason=type(error).__name__, exc_info=error)

    await asyncio.gather(*(one(row_id) for row_id in due))
    return len(due)


async def _list(list_due: DueLister, connection: Connection, *, now: datetime) -> Sequence[str]:
    return await list_due(connection, now=now, limit=SWEPT_MAX)


async def _seal(services: Services) -> int:
    sealed = 0
    while True:
        async with services.database.transaction_by(kind="system", name="audit.seal") as tx:
            now_sealed = await seal_entries(tx)
        sealed += now_sealed
        if now_sealed < SEALED_AT_ONCE:
            return sealed


async def _reconcile_all(services: Services) -> int:
    findings = await reconcile_all(services)
    for sentence in findings.mended:
        log.warning("mended", what=sentence)
    for sentence in findings.failed:
        log.error("not mended", what=sentence)
    return findings.mended_count


async def _apply_retention(services: Services) -> int:
    stopping = services.get(Stopping)
    retained = await apply_retention(services.database, zone=services.settings.timezone, is_stopping=stopping.is_set)
    return retained.total


def _on_database(run: Callable[[Database], Awaitable[int]]) -> Sweep:
    return lambda services: run(services.database)


SCHEDULES: tuple[Schedule, ...] = (
    Schedule("audit.seal", "* * * * *", _seal, "Seals new entries of the audit log, and counts them"),
    Schedule(
        "reconcile",
        "* * * * *",
        reconcile,
        "Asks providers what became of everything whose outcome is not known and whose next look is due",
    ),
    Schedule(
        "reconcile.nightly",
        "23 2 * * *",
        _reconcile_all,
        "Compares the last 30 days with the providers, and counts what it mended",
    ),
    Schedule("products.sweep", "* * * * *", _queue_due_syncs, "Brings products to the provider that are not there yet"),
    Schedule("mail.sweep", "* * * * *", _sweep_mails, "Sends mails that wait or are to be tried again"),
    Schedule(REMIND_SCHEDULE, "5 * * * *", _make_reminders, "Makes the reminders of invoices that are due"),
    Schedule(
        "idempotency.purge",
        "17 3 * * *",
        _on_database(purge_idempotency_records),
        "Deletes answers kept for repeated requests after their 30 days",
    ),
    Schedule(
        RETENTION_SCHEDULE,
        "11 4 * * *",
        _apply_retention,
        "Lets go of people whose data need not be kept any more, and purges what is kept for a while only",
    ),
    Schedule(
        "queue.purge",
        "47 3 * * *",
        _on_database(purge_queue_log),
        "Deletes what the job queue noted about jobs that are done, after 14 days",
    ),
)
