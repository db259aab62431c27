"""Saves what providers send, and applies it. Applying twice changes nothing; order does not matter."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from ledger.database.connection import is_database_away
from ledger.database.transaction import AuditEntry, Database, NewJob, Tx
from ledger.errors import Gone, LedgerError, NotFound, RuleBroken
from ledger.ids import is_id
from ledger.inbound.store import (
    InboundEvent,
    InboundState,
    get_event,
    insert_event,
    is_saved,
    lock_event,
    update_event,
)
from ledger.invoices.settling import fail_attempt, find_checkout_of_event, settle_checkout
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import (
    CheckoutCompleted,
    CheckoutExpired,
    CheckoutState,
    DisputeChanged,
    ListedEvent,
    NothingToDo,
    PaymentFailed,
    PeriodBilled,
    ProviderEvent,
    RefundsChanged,
    SignatureWrong,
    SubscriptionTouched,
    UnknownHere,
)
from ledger.refunds.disputes import apply_dispute
from ledger.refunds.elsewhere import apply_refunds
from ledger.settings import Settings
from ledger.subscriptions.events import apply_subscription_event

log = structlog.get_logger("ledger.inbound")

APPLY_JOB = "inbound.apply"
# An event that could not be applied for this long is left to staff.
GIVE_UP_AFTER = timedelta(days=30)
DONE: tuple[InboundState, ...] = ("applied", "ignored")
# How long a payment is waited for that an event is about: longer than until the nightly search for what was missed.
PAYMENT_AWAITED_FOR = timedelta(days=2)
_PAYMENT_AWAITED_FIRST = timedelta(seconds=30)

BookedMeaning = CheckoutCompleted | CheckoutExpired | PaymentFailed | RefundsChanged | DisputeChanged | NothingToDo
"""What an event can mean that is applied in one transaction."""


class NothingToRetry(RuleBroken):
    """The event is done with."""


class PayloadPurged(Gone):
    """What the event said is not kept any more (410)."""

    def __init__(self) -> None:
        super().__init__("What this event said was deleted in time, so it cannot be applied; look at it in Stripe")


async def receive_event(
    database: Database, candidates: Sequence[Connected], *, body: bytes, headers: Mapping[str, str]
) -> bool:
    """Verifies an event against each candidate's secret and saves it once; returns whether it is new.

    Raises `SignatureWrong` when no candidate signed it; nothing is stored then.
    """
    for connected in candidates:
        try:
            # In a thread, since a provider may have a library to load first.
            event = await asyncio.to_thread(connected.provider.read_event, body, dict(headers))
        except SignatureWrong:
            continue
        return await _save(database, connected, event, body=body) is not None
    raise SignatureWrong("The signature does not fit any configured provider")


async def save_listed_event(database: Database, connected: Connected, listed: ListedEvent) -> str | None:
    """Saves an event from the provider's own list; returns its id, or None when it had arrived before."""
    async with database.connection() as connection:
        if await is_saved(connection, connection_id=connected.stored.id, remote_id=listed.event.remote_id):
            return None
    return await _save(database, connected, listed.event, body=listed.body)


async def _save(database: Database, connected: Connected, event: ProviderEvent, *, body: bytes) -> str | None:
    async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
        saved = InboundEvent(
            id=tx.ids.new(),
            connection_id=connected.stored.id,
            remote_id=event.remote_id,
            type=event.type,
            payload=body,
            state="received",
            error=None,
            attempts=0,
            sent_at=event.created_at,
            received_at=tx.now,
            applied_at=None,
            # The job applies it at once; this is for the sweep that finds what a lost job left behind.
            next_try_at=next_look(now=tx.now, looks=0),
        )
        is_new = await insert_event(tx.connection, event=saved)
        if is_new:
            tx.defer(NewJob(name=APPLY_JOB, payload=saved.id.encode()))
    return saved.id if is_new else None


async def apply_event(database: Database, connections: Connections, settings: Settings, *, event_id: str) -> None:
    """Applies a saved event. What keeps it from being applied is stored with it, and it is tried again later."""
    async with database.connection() as connection:
        event = await get_event(connection, event_id=event_id)
    if event.state in DONE:
        return
    try:
        await _understand_and_apply(database, connections, settings, event)
    except UnknownHere:
        async with database.transaction_by(kind="system", name=APPLY_JOB) as tx:
            await _wait_for_it(tx, await lock_event(tx.connection, event_id=event_id))
    except LedgerError as error:
        await _postpone(database, event_id=event_id, sentence=error.sentence, reason=type(error).__name__)
    except Exception as error:
        if is_database_away(error):
            raise
        # Whatever is wrong with one event must not keep the others waiting.
        log.error("event not understood", id=event_id, type=event.type, exc_info=error)
        sentence = "Ledger could not apply this event; its log says why"
        await _postpone(database, event_id=event_id, sentence=sentence, reason=type(error).__name__)


async def _understand_and_apply(
    database: Database, connections: Connections, settings: Settings, event: InboundEvent
) -> None:
    if event.payload is None:
        raise PayloadPurged
    async with database.connection() as connection:
        connected = await connections.get(connection, connection_id=event.connection_id)
    meaning = await connected.provider.understand_event(event.payload)
    if isinstance(meaning, SubscriptionTouched | PeriodBilled):
        # It asks the provider again, which no transaction may wait for.
        is_ours = await apply_subscription_event(database, connections, settings, connected, meaning)
        async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
            await _finish(tx, await lock_event(tx.connection, event_id=event.id), is_ours=is_ours)
        return
    async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
        locked = await lock_event(tx.connection, event_id=event.id)
        if locked.state in DONE:
            return
        is_ours = await _apply(tx, connected, locked, meaning)
        if is_ours or not isinstance(meaning, RefundsChanged | DisputeChanged):
            await _finish(tx, locked, is_ours=is_ours)
        else:
            await _wait_for_it(tx, locked)


async def _finish(tx: Tx, event: InboundEvent, *, is_ours: bool) -> None:
    if event.state in DONE:
        return
    await update_event(
        tx.connection,
        event_id=event.id,
        state="applied" if is_ours else "ignored",
        error=None,
        attempts=event.attempts + 1,
        applied_at=tx.now,
        next_try_at=None,
    )


async def _wait_for_it(tx: Tx, event: InboundEvent) -> None:
    """Keeps an event about something that Ledger does not know: it may be another program's on the same account, or
    not be booked yet.

    Each wait is as long as all before it together. Only who waited is given up, so that a provider that could not be
    asked for long does not make its events look late.
    """
    if event.state in DONE:
        return
    age = tx.now - event.received_at
    has_waited = event.state == "received" and event.error is not None
    if has_waited and age >= PAYMENT_AWAITED_FOR:
        await _finish(tx, event, is_ours=False)
        return
    await update_event(
        tx.connection,
        event_id=event.id,
        state="received",
        error="It is about something that Ledger does not know; if that does not change, it is ignored in some days",
        attempts=event.attempts + 1,
        applied_at=None,
        next_try_at=tx.now + max(age, _PAYMENT_AWAITED_FIRST),
    )


async def retry_event(tx: Tx, *, event_id: str) -> None:
    """Has an event that was not applied yet tried again now, also one that was given up.

    Raises `NotFound`, `NothingToRetry`, `PayloadPurged`.
    """
    event = await lock_event(tx.connection, event_id=event_id)
    check_can_retry(event.state, has_payload=event.payload is not None)
    await update_event(
        tx.connection,
        event_id=event.id,
        state="received",
        error=None,
        attempts=event.attempts,
        applied_at=None,
        next_try_at=tx.now,
    )
    tx.defer(NewJob(name=APPLY_JOB, payload=event.id.encode()))
    tx.audit(
        AuditEntry(
            action="stripe_event.retried",
            entity_type="stripe_event",
            entity_id=event.id,
            details={"type": event.type, "state": event.state},
        )
    )


def check_can_retry(state: InboundState, *, has_payload: bool) -> None:
    """Raises `NothingToRetry` for what is done with, and `PayloadPurged`."""
    if state == "applied":
        raise NothingToRetry("This event was applied already, so there is nothing to retry")
    if state == "ignored":
        raise NothingToRetry("Ledger has no use for this event, so there is nothing to retry")
    if not has_payload:
        raise PayloadPurged


async def _apply(tx: Tx, connected: Connected, event: InboundEvent, meaning: BookedMeaning) -> bool:
    """Brings an event into the books; returns whether it was about something of ours."""
    match meaning:
        case CheckoutCompleted():
            checkout = await find_checkout_of_event(
                tx, connection_id=event.connection_id, remote_id=meaning.checkout_remote_id, intent_id=meaning.intent_id
            )
            if checkout is None:
                if meaning.intent_id is None:
                    # A checkout that somebody made in the provider's own dashboard is none of our invoices.
                    return False
                raise UnknownHere(f"There is no checkout {meaning.intent_id} here that this payment could belong to")
            state = CheckoutState(status="pending" if meaning.payment is None else "paid", payment=meaning.payment)
            await settle_checkout(
                tx,
                checkout_id=checkout.id,
                provider=connected.type.name,
                state=state,
                remote_id=meaning.checkout_remote_id,
            )
            return True
        case CheckoutExpired():
            checkout = await find_checkout_of_event(
                tx, connection_id=event.connection_id, remote_id=meaning.checkout_remote_id, intent_id=None
            )
            if checkout is None:
                return False
            state = CheckoutState(status="expired")
            await settle_checkout(tx, checkout_id=checkout.id, provider=connected.type.name, state=state)
            return True
        case PaymentFailed():
            # What is no id of ours is another program's that shares the account.
            if meaning.invoice_id is None or not is_id(meaning.invoice_id):
                return False
            try:
                await fail_attempt(
                    tx,
                    invoice_id=meaning.invoice_id,
                    checkout_remote_id=meaning.checkout_remote_id,
                    connection_id=event.connection_id,
                    failed_at=event.sent_at,
                )
            except NotFound:
                raise UnknownHere(f"There is no invoice {meaning.invoice_id} here") from None
            return True
        case RefundsChanged():
            return await apply_refunds(tx, provider=connected.type.name, meaning=meaning)
        case DisputeChanged():
            return await apply_dispute(tx, provider=connected.type.name, meaning=meaning)
        case NothingToDo():
            return False


async def _postpone(database: Database, *, event_id: str, sentence: str, reason: str) -> None:
    async with database.transaction_by(kind="system", name=APPLY_JOB) as tx:
        event = await lock_event(tx.connection, event_id=event_id)
        if event.state in DONE:
            return
        gives_up = tx.now - event.received_at > GIVE_UP_AFTER or event.payload is None
        await update_event(
            tx.connection,
            event_id=event_id,
            state="failed",
            error=sentence,
            attempts=event.attempts + 1,
            applied_at=None,
            next_try_at=None if gives_up else next_look(now=tx.now, looks=event.attempts + 1),
        )
    log.warning("event not applied", id=event_id, type=event.type, reason=reason)
