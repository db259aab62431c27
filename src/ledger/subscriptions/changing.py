"""What people can ask of a subscription: another product, its end, and to take that back.

Each is stored as a change first, and then carried out (`change_settling`).
"""

from datetime import datetime, timedelta

import msgspec

from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Database, NewJob, Tx
from ledger.errors import BadRequest, Conflict, FieldError
from ledger.identity import Person
from ledger.payments.looks import next_look
from ledger.products.rules import ProductKind
from ledger.products.store import Product, get_active_product
from ledger.providers.connections import Connections
from ledger.providers.subscription_contract import ChangePreview
from ledger.subscriptions.change_settling import (
    SETTLE_CHANGE_JOB,
    PreparedChange,
    carry_out,
    change_entry,
    ready,
    wanted_change,
)
from ledger.subscriptions.change_store import (
    ChangeKind,
    SubscriptionChange,
    find_open_change,
    insert_change,
)
from ledger.subscriptions.rules import (
    CannotChange,
    SelfServiceOff,
    SubscriptionStatus,
    check_can_cancel,
    check_can_change,
    check_can_reactivate,
    proration_time,
)
from ledger.subscriptions.settling import look_at_subscription, look_job
from ledger.subscriptions.store import (
    Subscription,
    find_live_subscription,
    get_agreed_price,
    get_subscription,
    get_subscription_of,
    lock_subscription,
    update_subscription,
)
from ledger.web.idempotency import Claim, claim_resumable

# How long a preview may be accepted with the proration it was made for.
PREVIEW_LASTS = timedelta(hours=2)


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would cost, and the moment it is prorated at."""

    preview: ChangePreview
    prorate_at: datetime


async def preview_change(
    database: Database,
    connections: Connections,
    *,
    owner: Person | None,
    subscription_id: str,
    product_id: str,
    prorate_at: datetime | None,
) -> Preview:
    """Asks the provider what a change would cost. Nothing is changed.

    Raises `NotFound`, `ProductNotOnSale`, `CannotChange`, `ProviderRefused`, `ProviderUnreachable`.
    """
    async with database.transaction_by(kind="system", name="subscriptions.preview") as tx:
        subscription = await _own(tx, owner=owner, subscription_id=subscription_id)
        product = await _target(tx, subscription, product_id=product_id)
        at = _prorate_at(prorate_at, subscription, now=tx.now)
        connected = await connections.get(tx.connection, connection_id=subscription.connection_id)
        change = await _intent(tx, subscription, kind="change", product=product, prorate_at=at)
        wanted = await wanted_change(tx, connected, subscription, change)
    return Preview(preview=await connected.provider.preview_change(wanted), prorate_at=at)


async def change_product(
    database: Database,
    connections: Connections,
    *,
    caller: Person,
    owner: Person | None,
    subscription_id: str,
    product_id: str,
    prorate_at: datetime | None,
    claim: Claim | None,
) -> None:
    """Gives a subscription another product, at the present price of that.

    Raises `NotFound`, `ProductNotOnSale`, `CannotChange`, `Conflict` while another change is not confirmed,
    `ProviderRefused`, `ProviderUnreachable`, `OutcomeUnknown`, `Replay`, `IdempotencyKeyReused`.
    """
    async with database.transaction_of(caller) as tx:
        is_again = await _claim(tx, claim)
        subscription = await _lock_own(tx, owner=owner, subscription_id=subscription_id)
        is_there = subscription.product_id == product_id.lower() and subscription.status in _RUNNING
        if is_again and is_there and await find_open_change(tx.connection, subscription_id=subscription.id) is None:
            # The first try of this request got there, and only its answer was lost.
            return
        product = await _target(tx, subscription, product_id=product_id)
        at = _prorate_at(prorate_at, subscription, now=tx.now)
        prepared = await _prepare(tx, connections, subscription, kind="change", product=product, prorate_at=at)
    await carry_out(database, caller, prepared)


async def cancel_subscription(
    database: Database,
    connections: Connections,
    *,
    caller: Person,
    owner: Person | None,
    subscription_id: str,
    claim: Claim | None,
) -> None:
    """Ends a subscription at the end of its period; one that is not paid yet ends now, with its payment page.

    Where a bank debit is on its way, it ends with the period that is paid with it.

    Raises `NotFound`, `Forbidden` for an owner who may not cancel, `AlreadyCancelled`, and what `change_product` does.
    """
    async with database.transaction_of(caller) as tx:
        is_again = await _claim(tx, claim)
        await _check_self_service(tx, owner=owner)
        subscription = await _lock_own(tx, owner=owner, subscription_id=subscription_id)
        if is_again and (subscription.cancels_at_period_end or subscription.status is SubscriptionStatus.CANCELLED):
            return
        check_can_cancel(subscription.status, cancels_at_period_end=subscription.cancels_at_period_end)
        if subscription.status is SubscriptionStatus.INCOMPLETE:
            await _leave(tx, subscription)
            prepared = None
        else:
            prepared = await _prepare(tx, connections, subscription, kind="cancel", product=None, prorate_at=tx.now)
    if prepared is None:
        left = await look_at_subscription(database, connections, subscription_id=subscription.id)
        if left.status is SubscriptionStatus.CANCELLED:
            return
        prepared = await _cancel_begun(database, connections, caller=caller, subscription_id=subscription.id)
    if prepared is not None:
        await carry_out(database, caller, prepared)


async def _cancel_begun(
    database: Database, connections: Connections, *, caller: Person, subscription_id: str
) -> PreparedChange | None:
    """For one that was paid in the moment it was given up, or whose bank debit is on its way: unless the provider is
    told, it goes on charging. None when it is over, or ends with its period, by now."""
    async with database.transaction_of(caller) as tx:
        begun = await lock_subscription(tx.connection, subscription_id=subscription_id)
        if begun.status is SubscriptionStatus.CANCELLED or begun.cancels_at_period_end:
            return None
        if begun.remote_id is None:
            raise Conflict("Its payment page is in use just now; try again in a minute", retry_after_s=60)
        return await _prepare(tx, connections, begun, kind="cancel", product=None, prorate_at=tx.now)


async def reactivate_subscription(
    database: Database,
    connections: Connections,
    *,
    caller: Person,
    owner: Person | None,
    subscription_id: str,
    claim: Claim | None,
) -> None:
    """Takes a cancellation back, and lets the provider collect what is past due once more.

    Raises `NotFound`, `Forbidden` like `cancel_subscription`, `CannotReactivate`, and what `change_product` does.
    """
    async with database.transaction_of(caller) as tx:
        is_again = await _claim(tx, claim)
        await _check_self_service(tx, owner=owner)
        subscription = await _lock_own(tx, owner=owner, subscription_id=subscription_id)
        is_running = subscription.status is SubscriptionStatus.ACTIVE and not subscription.cancels_at_period_end
        if is_again and is_running:
            return
        check_can_reactivate(subscription.status, cancels_at_period_end=subscription.cancels_at_period_end)
        prepared = await _prepare(tx, connections, subscription, kind="reactivate", product=None, prorate_at=tx.now)
    await carry_out(database, caller, prepared)


_RUNNING = (SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.PAUSED)


async def _claim(tx: Tx, claim: Claim | None) -> bool:
    """Whether an equal request came before and never got its answer."""
    if claim is None:
        return False
    return await claim_resumable(tx.connection, actor=tx.actor, claim=claim, now=tx.now) < tx.now


async def _own(tx: Tx, *, owner: Person | None, subscription_id: str) -> Subscription:
    if owner is None:
        return await get_subscription(tx.connection, subscription_id=subscription_id)
    return await get_subscription_of(tx.connection, subscription_id=subscription_id, user_id=owner.user_id)


async def _lock_own(tx: Tx, *, owner: Person | None, subscription_id: str) -> Subscription:
    own = await _own(tx, owner=owner, subscription_id=subscription_id)
    return await lock_subscription(tx.connection, subscription_id=own.id)


async def _check_self_service(tx: Tx, *, owner: Person | None) -> None:
    if owner is not None and not (await get_settings(tx.connection)).allow_self_cancel:
        raise SelfServiceOff


async def _target(tx: Tx, subscription: Subscription, *, product_id: str) -> Product:
    """The product a subscription may be changed to. Raises `ProductNotOnSale` and `CannotChange`."""
    product = await get_active_product(tx.connection, product_id=product_id)
    agreed = await get_agreed_price(tx.connection, price_id=subscription.price_id)
    check_can_change(
        subscription.status,
        product_id=subscription.product_id,
        currency=agreed.currency,
        new_product_id=product.id,
        new_is_recurring=product.draft.kind is ProductKind.RECURRING,
        new_currency=product.draft.terms.currency,
    )
    assert subscription.person_id is not None
    other = await find_live_subscription(tx.connection, person_id=subscription.person_id, product_id=product.id)
    if other is not None:
        raise CannotChange("There is a subscription of that product already; cancel one of the two instead")
    return product


def _prorate_at(wanted: datetime | None, subscription: Subscription, *, now: datetime) -> datetime:
    if wanted is None:
        return proration_time(now=now, period_start=subscription.period_start)
    begins = subscription.period_start or wanted
    if not max(begins, now - PREVIEW_LASTS) <= wanted <= now:
        sentence = "This preview is too old; ask for a new one"
        raise BadRequest(sentence, fields=[FieldError("prorationDate", "must be the one of a recent preview")])
    return wanted


async def _leave(tx: Tx, subscription: Subscription) -> None:
    """Nobody wants to start it any more; the look that follows closes its page."""
    unwanted = msgspec.structs.replace(subscription, is_unwanted=True, next_look_at=tx.now)
    await update_subscription(tx.connection, subscription=unwanted)
    tx.defer(look_job(subscription.id))
    tx.audit(change_entry("subscription.cancelled", subscription))


async def _intent(
    tx: Tx, subscription: Subscription, *, kind: ChangeKind, product: Product | None, prorate_at: datetime
) -> SubscriptionChange:
    billing = await get_settings(tx.connection)
    tax_rate_bp = 0
    if product is not None:
        tax_rate_bp = billing.tax_rate_bp if product.draft.tax_rate_bp is None else product.draft.tax_rate_bp
    return SubscriptionChange(
        id=tx.ids.new(),
        subscription_id=subscription.id,
        kind=kind,
        price_id=None if product is None else product.price_id,
        prorates=product is not None and product.draft.prorate_on_change,
        prorate_at=prorate_at,
        tax_rate_bp=tax_rate_bp,
        tax_label=billing.tax_label,
        status="requested",
        failure=None,
        created_at=tx.now,
        settled_at=None,
        next_look_at=next_look(now=tx.now, looks=0),
        looks=0,
    )


async def _prepare(
    tx: Tx,
    connections: Connections,
    subscription: Subscription,
    *,
    kind: ChangeKind,
    product: Product | None,
    prorate_at: datetime,
) -> PreparedChange:
    connected = await connections.get(tx.connection, connection_id=subscription.connection_id)
    change = await _intent(tx, subscription, kind=kind, product=product, prorate_at=prorate_at)
    open_change = await find_open_change(tx.connection, subscription_id=subscription.id)
    if open_change is None:
        await insert_change(tx.connection, change=change)
        tx.audit(change_entry(f"subscription.{kind}_requested", subscription, change))
        delay = next_look(now=tx.now, looks=0) - tx.now
        tx.defer(NewJob(name=SETTLE_CHANGE_JOB, payload=change.id.encode(), delay=delay))
    elif (open_change.kind, open_change.price_id) == (kind, change.price_id):
        # Wanted before, without an answer: it is asked for once more, with the same key.
        change = open_change
    else:
        raise Conflict(
            "An earlier change of this subscription is not confirmed by the provider yet; try again in two minutes",
            retry_after_s=120,
        )
    return await ready(tx, connected, subscription, change, is_new=open_change is None)
