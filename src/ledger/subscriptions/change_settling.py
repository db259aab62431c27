"""Carries out a stored change of a subscription: provider asked outside any transaction, outcome stored.

The subscription's own connection is asked, whatever is active now. What is not known stays `requested`; the
reconciler asks the provider for the same once more, with the same key, and so learns how it ended.
"""

import msgspec

from ledger.database.transaction import AuditEntry, Database, Tx
from ledger.errors import LedgerError, Unavailable
from ledger.identity import Person
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import OutcomeUnknown, ProviderRefused, ProviderUnreachable
from ledger.providers.store import find_remote_id
from ledger.providers.subscription_contract import SubscriptionState, WantedChange, WantedTax
from ledger.subscriptions.change_store import (
    ChangeKind,
    SubscriptionChange,
    get_change,
    lock_change,
    update_change,
)
from ledger.subscriptions.settling import apply_state, look_job
from ledger.subscriptions.store import Subscription, get_subscription, lock_subscription
from ledger.subscriptions.taxes import keep_tax, tax_at

SETTLE_CHANGE_JOB = "subscriptions.settle_change"
# After about a quarter of an hour without a clear answer; a provider that cannot be reached is asked for longer.
LOOKS_MAX = 7
_DONE_ACTIONS: dict[ChangeKind, str] = {
    "change": "subscription.changed",
    "cancel": "subscription.cancelled",
    "reactivate": "subscription.reactivated",
}


class PreparedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A stored change, and all that is needed to ask the provider for it."""

    connected: Connected
    subscription: Subscription
    change: SubscriptionChange
    wanted: WantedChange | None
    is_new: bool
    """Whether nobody asked the provider for it before."""


async def ready(
    tx: Tx, connected: Connected, subscription: Subscription, change: SubscriptionChange, *, is_new: bool
) -> PreparedChange:
    """A stored change with what the provider is asked for: the same words for the same change."""
    wanted = await wanted_change(tx, connected, subscription, change) if change.kind == "change" else None
    return PreparedChange(connected=connected, subscription=subscription, change=change, wanted=wanted, is_new=is_new)


async def wanted_change(
    tx: Tx, connected: Connected, subscription: Subscription, change: SubscriptionChange
) -> WantedChange:
    """The words for another product. Raises `Unavailable` while the provider does not know its price."""
    assert change.price_id is not None
    price_remote_id = await find_remote_id(
        tx.connection, connection_id=subscription.connection_id, kind="price", local_id=change.price_id
    )
    if price_remote_id is None:
        raise Unavailable(
            "The payment provider of this subscription does not know that product yet; try again in a minute",
            retry_after_s=60,
        )
    return WantedChange(
        intent_id=change.id,
        subscription_remote_id=_remote_id(subscription),
        price_remote_id=price_remote_id,
        tax=await tax_at(tx, connected, rate_bp=change.tax_rate_bp, label=change.tax_label),
        prorates=change.prorates,
        prorate_at=change.prorate_at,
    )


def _remote_id(subscription: Subscription) -> str:
    assert subscription.remote_id is not None, "a subscription that was ever paid has the provider's name"
    return subscription.remote_id


async def _ask(prepared: PreparedChange) -> SubscriptionState:
    state = await _ask_provider(prepared)
    if state.status == "unknown":
        # Nothing can come of it, so it must not stay open and keep everything else from being asked.
        raise ProviderRefused("The provider does not know this subscription any more; was the account changed?")
    return state


async def _ask_provider(prepared: PreparedChange) -> SubscriptionState:
    provider, change = prepared.connected.provider, prepared.change
    if prepared.wanted is not None:
        return await provider.change_subscription(prepared.wanted)
    remote_id = _remote_id(prepared.subscription)
    if change.kind == "cancel":
        return await provider.cancel_subscription(intent_id=change.id, remote_id=remote_id)
    return await provider.reactivate_subscription(intent_id=change.id, remote_id=remote_id)


async def carry_out(database: Database, caller: Person, prepared: PreparedChange) -> None:
    """Asks the provider for what was just stored, and stores its answer.

    A refusal or a provider out of reach means that nothing happened, unless an earlier try of the same went out: then
    it is left to the reconciler.
    """
    try:
        state = await _ask(prepared)
    except ProviderRefused as refused:
        await _fail(database, prepared, failure=refused.sentence)
        raise
    except ProviderUnreachable as away:
        if prepared.is_new:
            await _fail(database, prepared, failure=away.sentence)
        raise
    async with database.transaction_of(caller) as tx:
        await _settle(tx, prepared, state)


async def _settle(tx: Tx, prepared: PreparedChange, state: SubscriptionState) -> None:
    """Stores that the provider did it, and where the subscription stands."""
    before = await lock_subscription(tx.connection, subscription_id=prepared.subscription.id)
    change = await lock_change(tx.connection, change_id=prepared.change.id)
    if change.status == "requested":
        done = msgspec.structs.replace(change, status="succeeded", failure=None, settled_at=tx.now, next_look_at=None)
        await update_change(tx.connection, change=done)
        tx.audit(change_entry(_DONE_ACTIONS[change.kind], before, change))
    tax: WantedTax | None = prepared.wanted.tax if prepared.wanted is not None else None
    await keep_tax(tx, connection_id=before.connection_id, tax=tax, remote_id=state.tax_remote_id)
    if before.version == prepared.subscription.version:
        await apply_state(tx, before, state)
    # Somebody may have stored another state meanwhile; the present one settles that.
    tx.defer(look_job(before.id))


async def _fail(database: Database, prepared: PreparedChange, *, failure: str) -> None:
    async with database.transaction_by(kind="provider", name=prepared.connected.type.name) as tx:
        before = await lock_subscription(tx.connection, subscription_id=prepared.subscription.id)
        change = await lock_change(tx.connection, change_id=prepared.change.id)
        if change.status != "requested":
            return
        failed = msgspec.structs.replace(change, status="failed", failure=failure, settled_at=tx.now, next_look_at=None)
        await update_change(tx.connection, change=failed)
        tx.audit(change_entry(f"subscription.{change.kind}_failed", before, change))
        # The refusal may tell that something is different there than it is known here.
        tx.defer(look_job(before.id))


async def look_at_change(database: Database, connections: Connections, *, change_id: str) -> None:
    """Learns how a change ended, by asking for the same once more with the same key.

    Raises what keeps the provider from answering; the change stays `requested` then, and the next look comes later.
    """
    async with database.transaction_by(kind="system", name=SETTLE_CHANGE_JOB) as tx:
        change = await get_change(tx.connection, change_id=change_id)
        if change.status != "requested":
            return
        subscription = await get_subscription(tx.connection, subscription_id=change.subscription_id)
        connected = await connections.get(tx.connection, connection_id=subscription.connection_id)
        prepared = await ready(tx, connected, subscription, change, is_new=False)
    try:
        state = await _ask(prepared)
    except ProviderRefused as refused:
        await _fail(database, prepared, failure=refused.sentence)
        return
    except LedgerError as error:
        if isinstance(error, OutcomeUnknown) and change.looks >= LOOKS_MAX:
            # The same answer for the same key, whatever happens: it must not keep everything else from being asked.
            sentence = "The provider never said whether this worked; what is shown is what it says now"
            await _fail(database, prepared, failure=sentence)
            return
        await _postpone(database, change_id=change_id, error=error)
        raise
    async with database.transaction_by(kind="system", name=SETTLE_CHANGE_JOB) as tx:
        await _settle(tx, prepared, state)


async def _postpone(database: Database, *, change_id: str, error: LedgerError) -> None:
    async with database.transaction_by(kind="system", name=SETTLE_CHANGE_JOB) as tx:
        change = await lock_change(tx.connection, change_id=change_id)
        if change.status == "requested":
            looks = change.looks + 1
            later = msgspec.structs.replace(
                change, looks=looks, next_look_at=next_look(now=tx.now, looks=looks), failure=error.sentence
            )
            await update_change(tx.connection, change=later)


def change_entry(action: str, subscription: Subscription, change: SubscriptionChange | None = None) -> AuditEntry:
    details: dict[str, str | int | bool] = {"product": subscription.product_id}
    if change is not None:
        details["change"] = change.id
        if change.price_id is not None:
            details["price"] = change.price_id
            details["prorates"] = change.prorates
    return AuditEntry(action=action, entity_type="subscription", entity_id=subscription.id, details=details)
