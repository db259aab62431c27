"""`ledger reconcile`, and each night: compares what is stored with what the providers have, and mends the difference.

It does nothing of its own: events that were missed are saved and applied like those that came, and everything that is
open is looked at as the sweep would. Running it twice, or beside anything else, changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog

from ledger.database.connection import Connection, is_database_away
from ledger.database.transaction import AuditEntry
from ledger.errors import LedgerError
from ledger.inbound.actions import apply_event, save_listed_event
from ledger.inbound.store import get_event
from ledger.invoices.jobs import look_at_checkout
from ledger.payments.checkout_store import get_checkout, list_unsettled_checkout_ids
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import Capability, EventPage
from ledger.providers.store import list_connections
from ledger.subscriptions.booking import book_period
from ledger.subscriptions.change_settling import look_at_change
from ledger.subscriptions.change_store import get_change, list_booked, list_open_change_ids
from ledger.subscriptions.settling import look_at_subscription
from ledger.subscriptions.store import Subscription, get_subscription, list_reconciled_subscription_ids
from ledger.web.call import Services

log = structlog.get_logger("ledger.reconcile")

DAYS = 30
"""How far back is looked; providers list their events for this long."""

_AT_ONCE = 5
_PAGE = 200
_PAGES_MAX = 200
_TOLD_MAX = 200


class Findings(msgspec.Struct, kw_only=True):
    """What a run looked at, what it mended and what it could not; sentences for an administrator."""

    looked: int = 0
    mended_count: int = 0
    failed_count: int = 0
    mended: list[str] = msgspec.field(default_factory=list)
    failed: list[str] = msgspec.field(default_factory=list)

    def mend(self, sentence: str) -> None:
        self.mended_count += 1
        if len(self.mended) < _TOLD_MAX:
            self.mended.append(sentence)

    def fail(self, sentence: str) -> None:
        self.failed_count += 1
        if len(self.failed) < _TOLD_MAX:
            self.failed.append(sentence)


async def reconcile_all(services: Services, *, days: int = DAYS) -> Findings:
    """Compares events, bills, subscriptions, changes and payment pages of the last days; audits what it mended."""
    findings = Findings()
    since = services.clock.now() - timedelta(days=days)
    for connected in await _connections(services, findings):
        await _fetch_missed_events(services, findings, connected, since=since)
    await _each(services, findings, "subscription", _subscription_ids(since), _look_at_subscription)
    await _each(services, findings, "requested change", list_open_change_ids, _look_at_change)
    await _each(services, findings, "payment page", list_unsettled_checkout_ids, _look_at_checkout)
    async with services.database.transaction_by(kind="system", name="reconcile") as tx:
        tx.audit(
            AuditEntry(
                action="reconciled",
                entity_type="system",
                entity_id="reconcile",
                details={
                    "days": days,
                    "looked": findings.looked,
                    "mended": findings.mended_count,
                    "failed": findings.failed_count,
                },
            )
        )
        for sentence in findings.mended:
            tx.audit(
                AuditEntry(
                    action="reconcile.mended",
                    entity_type="system",
                    entity_id="reconcile",
                    details={"what": sentence},
                )
            )
    return findings


async def _connections(services: Services, findings: Findings) -> list[Connected]:
    connections = services.get(Connections)
    async with services.database.connection() as connection:
        stored = await list_connections(connection)
    connected = []
    for each in stored:
        kind = connections.registry.find(each.type)
        if kind is None or Capability.CHECKOUT not in kind.capabilities or each.settings_sealed is None:
            continue
        try:
            connected.append(connections.connect(each))
        except LedgerError as error:
            findings.fail(f"{each.name}: {error.sentence}")
    return connected


async def _fetch_missed_events(
    services: Services, findings: Findings, connected: Connected, *, since: datetime
) -> None:
    """Saves what the provider announced and Ledger never got, and applies it, the oldest first."""
    missed: list[tuple[str, bool]] = []
    after: str | None = None
    try:
        for _ in range(_PAGES_MAX):
            page: EventPage = await connected.provider.list_events(since=since, after=after)
            findings.looked += len(page.events)
            for listed in page.events:
                event_id = await save_listed_event(services.database, connected, listed)
                if event_id is not None:
                    missed.append((event_id, listed.is_expected))
            after = page.next_after
            if after is None:
                break
    except LedgerError as error:
        findings.fail(f"The events of {connected.stored.name} could not be listed: {error.sentence}")
    if after is not None:
        findings.fail(f"There are too many events of {connected.stored.name} to look at all of them; use fewer --days")
    for event_id, is_expected in reversed(missed):
        await apply_event(services.database, services.get(Connections), services.settings, event_id=event_id)
        async with services.database.connection() as connection:
            event = await get_event(connection, event_id=event_id)
        if event.state == "applied" and is_expected:
            findings.mend(f"The event {event.remote_id} ({event.type}) had not arrived; it was fetched and applied.")
        elif event.state == "failed":
            findings.fail(f"The event {event.remote_id} ({event.type}) cannot be applied: {event.error}")


Lister = Callable[..., Awaitable[Sequence[str]]]
Look = Callable[[Services, Findings, str], Awaitable[None]]


def _subscription_ids(since: datetime) -> Lister:
    async def list_ids(connection: Connection, *, after: str | None, limit: int) -> Sequence[str]:
        return await list_reconciled_subscription_ids(connection, ended_since=since, after=after, limit=limit)

    return list_ids


async def _each(services: Services, findings: Findings, what: str, list_ids: Lister, look: Look) -> None:
    """Looks at everything that is listed, a page at a time, a few of them at once."""
    after: str | None = None
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(row_id: str) -> None:
        async with slots:
            try:
                await look(services, findings, row_id)
            except LedgerError as error:
                findings.fail(f"The {what} {row_id}: {error.sentence}")
            except Exception as error:
                if is_database_away(error):
                    raise
                log.error("reconcile failed", id=row_id, exc_info=error)
                findings.fail(f"The {what} {row_id}: something is wrong here; the log says what")

    while True:
        async with services.database.connection() as connection:
            ids = await list_ids(connection, after=after, limit=_PAGE)
        findings.looked += len(ids)
        await asyncio.gather(*(one(row_id) for row_id in ids))
        if len(ids) < _PAGE:
            return
        after = ids[-1]


async def _look_at_subscription(services: Services, findings: Findings, subscription_id: str) -> None:
    connections = services.get(Connections)
    async with services.database.connection() as connection:
        before = await get_subscription(connection, subscription_id=subscription_id)
    after = await look_at_subscription(services.database, connections, subscription_id=subscription_id)
    if _summary(after) != _summary(before):
        findings.mend(f"The subscription {after.id} was {_summary(before)} here and is {_summary(after)}.")
    await _book_missed(services, findings, after)


async def _book_missed(services: Services, findings: Findings, subscription: Subscription) -> None:
    """Books what was paid and never heard of since the subscription is there, however long ago."""
    if subscription.remote_id is None:
        return
    # The provider's clock may go a little differently.
    since = subscription.created_at - timedelta(days=1)
    async with services.database.connection() as connection:
        connected = await services.get(Connections).get(connection, connection_id=subscription.connection_id)
    paid = await connected.provider.list_paid_periods(subscription_remote_id=subscription.remote_id, since=since)
    async with services.database.connection() as connection:
        booked = await list_booked(connection, connection_id=subscription.connection_id, remote_ids=list(paid))
    for remote_id in paid:
        if remote_id not in booked:
            await book_period(services.database, services.settings, connected, period_remote_id=remote_id)
            findings.mend(f"The bill {remote_id} of the subscription {subscription.id} was paid and is booked now.")


def _summary(subscription: Subscription) -> str:
    cancelling = ", cancelling" if subscription.cancels_at_period_end else ""
    until = f" until {subscription.period_end:%Y-%m-%d}" if subscription.period_end is not None else ""
    return f"{subscription.status.value}{cancelling}{until} at price {subscription.price_id}"


async def _look_at_change(services: Services, findings: Findings, change_id: str) -> None:
    await look_at_change(services.database, services.get(Connections), change_id=change_id)
    async with services.database.connection() as connection:
        change = await get_change(connection, change_id=change_id)
    if change.status != "requested":
        findings.mend(f"The {change.kind} of the subscription {change.subscription_id} {change.status}.")


async def _look_at_checkout(services: Services, findings: Findings, checkout_id: str) -> None:
    async with services.database.connection() as connection:
        before = await get_checkout(connection, checkout_id=checkout_id)
    await look_at_checkout(services.database, services.get(Connections), checkout_id=checkout_id)
    async with services.database.connection() as connection:
        after = await get_checkout(connection, checkout_id=checkout_id)
    if after.status != before.status:
        findings.mend(f"A payment page of the invoice {after.invoice_id} was {before.status} and is {after.status}.")
