"""Saves what providers send, and applies it. Applying twice changes nothing; order does not matter."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import structlog

from ledger.database.connection import is_database_away
from ledger.database.transaction import Database, NewJob, Tx
from ledger.errors import Gone, LedgerError
from ledger.ids import is_id
from ledger.inbound.store import InboundEvent, get_event, insert_event, lock_event, update_event
from ledger.invoices.settling import fail_attempt, find_checkout_of_event, settle_checkout
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import (
    CheckoutCompleted,
    CheckoutExpired,
    CheckoutState,
    EventMeaning,
    NothingToDo,
    PaymentFailed,
    ProviderEvent,
    ProviderRefused,
    SignatureWrong,
)

log = structlog.get_logger("ledger.inbound")

APPLY_JOB = "inbound.apply"
# An event that could not be applied for this long is left to staff.
GIVE_UP_AFTER = timedelta(days=30)


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
        return await _save(database, connected, event, body=body)
    raise SignatureWrong("The signature does not fit any configured provider")


async def _save(database: Database, connected: Connected, event: ProviderEvent, *, body: bytes) -> bool:
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
    return is_new


async def apply_event(database: Database, connections: Connections, *, event_id: str) -> None:
    """Applies a saved event. What keeps it from being applied is stored with it, and it is tried again later."""
    async with database.connection() as connection:
        event = await get_event(connection, event_id=event_id)
    if event.state in ("applied", "ignored"):
        return
    try:
        if event.payload is None:
            raise Gone("What this event said was purged before it could be applied")
        async with database.connection() as connection:
            connected = await connections.get(connection, connection_id=event.connection_id)
        meaning = await connected.provider.understand_event(event.payload)
        async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
            locked = await lock_event(tx.connection, event_id=event_id)
            if locked.state in ("applied", "ignored"):
                return
            await _apply(tx, connected, locked, meaning)
            await update_event(
                tx.connection,
                event_id=event_id,
                state="ignored" if isinstance(meaning, NothingToDo) else "applied",
                error=None,
                attempts=locked.attempts + 1,
                applied_at=tx.now,
                next_try_at=None,
            )
    except LedgerError as error:
        await _postpone(database, event_id=event_id, sentence=error.sentence, reason=type(error).__name__)
    except Exception as error:
        if is_database_away(error):
            raise
        # Whatever is wrong with one event must not keep the others waiting.
        log.error("event not understood", id=event_id, type=event.type, exc_info=error)
        sentence = "Ledger could not apply this event; its log says why"
        await _postpone(database, event_id=event_id, sentence=sentence, reason=type(error).__name__)


async def _apply(tx: Tx, connected: Connected, event: InboundEvent, meaning: EventMeaning) -> None:
    match meaning:
        case CheckoutCompleted():
            checkout = await find_checkout_of_event(
                tx, connection_id=event.connection_id, remote_id=meaning.checkout_remote_id, intent_id=meaning.intent_id
            )
            if checkout is None:
                if meaning.intent_id is None:
                    # A checkout that somebody made in the provider's own dashboard is none of our invoices.
                    return
                raise ProviderRefused(
                    f"There is no checkout {meaning.intent_id} here that this payment could belong to"
                )
            state = CheckoutState(status="pending" if meaning.payment is None else "paid", payment=meaning.payment)
            await settle_checkout(
                tx,
                checkout_id=checkout.id,
                provider=connected.type.name,
                state=state,
                remote_id=meaning.checkout_remote_id,
            )
        case CheckoutExpired():
            checkout = await find_checkout_of_event(
                tx, connection_id=event.connection_id, remote_id=meaning.checkout_remote_id, intent_id=None
            )
            if checkout is not None:
                state = CheckoutState(status="expired")
                await settle_checkout(tx, checkout_id=checkout.id, provider=connected.type.name, state=state)
        case PaymentFailed():
            # What is no id of ours is another program's that shares the account.
            if meaning.invoice_id is not None and is_id(meaning.invoice_id):
                await fail_attempt(
                    tx,
                    invoice_id=meaning.invoice_id,
                    checkout_remote_id=meaning.checkout_remote_id,
                    connection_id=event.connection_id,
                    failed_at=event.sent_at,
                )
        case NothingToDo():
            return


async def _postpone(database: Database, *, event_id: str, sentence: str, reason: str) -> None:
    async with database.transaction_by(kind="system", name=APPLY_JOB) as tx:
        event = await lock_event(tx.connection, event_id=event_id)
        if event.state in ("applied", "ignored"):
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
