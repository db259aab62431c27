"""Brings a subscription to what its provider says. Everything about one goes this way: events, looks, own requests.

The provider is asked for the present state outside any transaction. What it answered is stored only if nobody stored
another answer meanwhile (`version`), else it is asked again: so an answer that is older never overwrites a newer one,
and neither order nor repetition of events matters.
"""

import msgspec

from ledger.database.transaction import AuditEntry, Database, NewEvent, NewJob, Tx
from ledger.errors import Conflict, LedgerError
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import ProviderRefused
from ledger.providers.subscription_contract import SubscriptionState
from ledger.subscriptions.rules import BEGUN, SubscriptionStatus
from ledger.subscriptions.store import (
    AgreedPrice,
    Subscription,
    find_live_subscription,
    find_price_by_remote_id,
    get_subscription,
    lock_subscription,
    update_subscription,
)
from ledger.web.shapes import iso

LOOK_JOB = "subscriptions.look"
# Two answers that cross are rare; one that is overtaken this often is left to the next look.
ASKED_MAX = 5


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """What an event tells about where a subscription is to be found at the provider."""

    remote_id: str | None = None
    checkout_remote_id: str | None = None


NO_HINT = Hint()


def look_job(subscription_id: str) -> NewJob:
    """The job that asks the provider about a subscription at once."""
    return NewJob(name=LOOK_JOB, payload=subscription_id.encode())


async def look_at_subscription(
    database: Database, connections: Connections, *, subscription_id: str, hint: Hint = NO_HINT
) -> Subscription:
    """Asks where a subscription stands (and closes a payment page that nobody wants), and stores the answer.

    Raises what keeps it from being asked; that is stored, and the next look comes later.
    """
    try:
        for _ in range(ASKED_MAX):
            async with database.connection() as connection:
                before = await get_subscription(connection, subscription_id=subscription_id)
                connected = await connections.get(connection, connection_id=before.connection_id)
            state = await _ask(connected, before, hint)
            async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
                locked = await lock_subscription(tx.connection, subscription_id=subscription_id)
                if locked.version == before.version:
                    return await apply_state(tx, locked, state)
        raise Conflict("This subscription changes too often just now; Ledger asks again in a minute", retry_after_s=60)
    except LedgerError as error:
        await _postpone(database, subscription_id=subscription_id, error=error)
        raise


async def _ask(connected: Connected, before: Subscription, hint: Hint) -> SubscriptionState:
    remote_id = before.remote_id or hint.remote_id
    checkout_remote_id = before.checkout_remote_id or hint.checkout_remote_id

    async def look_up() -> SubscriptionState:
        return await connected.provider.look_up_subscription(
            intent_id=before.id, remote_id=remote_id, checkout_remote_id=checkout_remote_id
        )

    state = await look_up()
    is_unwanted = before.is_unwanted or before.status is SubscriptionStatus.CANCELLED
    if is_unwanted and state.checkout is not None:
        await connected.provider.expire_checkout(remote_id=state.checkout.remote_id)
        # It may have been paid in the same moment.
        state = await look_up()
    return state


async def _postpone(database: Database, *, subscription_id: str, error: LedgerError) -> None:
    async with database.transaction_by(kind="system", name=LOOK_JOB) as tx:
        before = await lock_subscription(tx.connection, subscription_id=subscription_id)
        looks = before.looks + 1
        later = msgspec.structs.replace(
            before, looks=looks, next_look_at=next_look(now=tx.now, looks=looks), problem=error.sentence
        )
        await update_subscription(tx.connection, subscription=later)


async def apply_state(tx: Tx, before: Subscription, state: SubscriptionState) -> Subscription:
    """Stores where a locked subscription stands, and announces what became different.

    Raises `ProviderRefused` when the provider does not know a subscription any more that it knew before.
    """
    if state.status == "unknown" and (before.remote_id is not None or before.checkout_remote_id is not None):
        raise ProviderRefused("The provider does not know this subscription any more; was the account changed?")
    status = _status_of(before, state)
    after = msgspec.structs.replace(
        before,
        status=status,
        cancels_at_period_end=state.cancels_at_period_end and status is not SubscriptionStatus.CANCELLED,
        remote_id=before.remote_id or state.remote_id,
        period_start=state.period_start or before.period_start,
        period_end=state.period_end or before.period_end,
        activated_at=before.activated_at or (tx.now if status in BEGUN else None),
        cancelled_at=(state.ended_at or before.cancelled_at or tx.now)
        if status is SubscriptionStatus.CANCELLED
        else None,
        problem=None,
        version=before.version + 1,
        looks=before.looks + 1,
        next_look_at=next_look(now=tx.now, looks=before.looks + 1) if status is SubscriptionStatus.INCOMPLETE else None,
    )
    after = await _fitting(tx, before, _with_page(after, state), state)
    await update_subscription(tx.connection, subscription=after)
    _announce(tx, before, after)
    return after


def _status_of(before: Subscription, state: SubscriptionState) -> SubscriptionStatus:
    if state.status == "unknown":
        # Nobody can have paid at a page that was never opened.
        return SubscriptionStatus.CANCELLED
    if state.status == "incomplete" and before.status is SubscriptionStatus.CANCELLED:
        # It was given up, and another one may be open by now.
        return SubscriptionStatus.CANCELLED
    if state.status == "incomplete" and before.activated_at is not None:
        return SubscriptionStatus.PAST_DUE
    return SubscriptionStatus(state.status)


def _with_page(subscription: Subscription, state: SubscriptionState) -> Subscription:
    checkout = state.checkout
    if checkout is not None:
        return msgspec.structs.replace(
            subscription,
            checkout_remote_id=checkout.remote_id,
            checkout_url=checkout.url,
            checkout_expires_at=checkout.expires_at,
        )
    # The page is closed, or was used; a bill that is past due has a page of its own.
    return msgspec.structs.replace(subscription, checkout_url=state.pay_url, checkout_expires_at=None)


async def _fitting(tx: Tx, before: Subscription, after: Subscription, state: SubscriptionState) -> Subscription:
    """The subscription with the product the provider charges for, as far as Ledger can say it; else staff is told."""
    charged: AgreedPrice | None = None
    if state.price_remote_id is not None:
        charged = await find_price_by_remote_id(
            tx.connection, connection_id=after.connection_id, remote_id=state.price_remote_id
        )
        if charged is None:
            problem = "The provider charges a price that no product here has; look at the subscription there"
            after = msgspec.structs.replace(after, problem=problem)
    product_id = after.product_id if charged is None else charged.product_id
    if after.status is not SubscriptionStatus.CANCELLED and after.person_id is not None:
        other = await find_live_subscription(tx.connection, person_id=after.person_id, product_id=product_id)
        if other is not None and other.id != after.id and after.status in BEGUN:
            other = None if await _make_room(tx, subscription_id=other.id) else other
        if other is not None and other.id != after.id:
            # There can only be one; what was over here stays so, though the provider charges for it.
            problem = f"The provider charges this person twice for one product (see {other.id}); cancel one of the two"
            status = SubscriptionStatus.CANCELLED if before.status is SubscriptionStatus.CANCELLED else after.status
            return msgspec.structs.replace(
                after,
                status=status,
                cancelled_at=before.cancelled_at if status is SubscriptionStatus.CANCELLED else None,
                problem=problem,
            )
    if charged is None:
        return after
    return msgspec.structs.replace(after, product_id=product_id, price_id=charged.price_id)


async def _make_room(tx: Tx, *, subscription_id: str) -> bool:
    """Gives up a wish for a product that is charged for already, before it is paid a second time.

    The look that follows closes its page. Returns False when it was paid, or its debit is on the way.
    """
    other = await lock_subscription(tx.connection, subscription_id=subscription_id)
    if other.status is not SubscriptionStatus.INCOMPLETE or other.remote_id is not None:
        return other.status is SubscriptionStatus.CANCELLED
    given_up = msgspec.structs.replace(
        other,
        status=SubscriptionStatus.CANCELLED,
        is_unwanted=True,
        cancelled_at=tx.now,
        version=other.version + 1,
        next_look_at=tx.now,
    )
    await update_subscription(tx.connection, subscription=given_up)
    tx.defer(look_job(other.id))
    _announce(tx, other, given_up)
    return True


def _announce(tx: Tx, before: Subscription, after: Subscription) -> None:
    if after.problem is not None and after.problem != before.problem:
        tx.audit(_entry("subscription.problem", after))
    if after.status is SubscriptionStatus.CANCELLED and before.status is not SubscriptionStatus.CANCELLED:
        if after.activated_at is None:
            # It never began, so nobody was told of it.
            tx.audit(_entry("subscription.expired", after))
            return
        tx.audit(_entry("subscription.ended", after))
        tx.publish(subscription_event("subscription.cancelled", after))
        return
    if after.activated_at is not None and before.activated_at is None:
        tx.audit(_entry("subscription.activated", after))
        tx.publish(subscription_event("subscription.created", after))
        return
    if after.status is SubscriptionStatus.PAST_DUE and before.status is not SubscriptionStatus.PAST_DUE:
        tx.audit(_entry("subscription.payment_failed", after))
        tx.publish(_payment_failed_event(after))
    if _told(after) != _told(before) and after.activated_at is not None:
        tx.audit(_entry("subscription.updated", after))
        tx.publish(subscription_event("subscription.updated", after))


def _told(subscription: Subscription) -> tuple[object, ...]:
    """What others are told when it changes."""
    return (
        subscription.status,
        subscription.price_id,
        subscription.cancels_at_period_end,
        subscription.period_start,
        subscription.period_end,
    )


def _entry(action: str, subscription: Subscription) -> AuditEntry:
    return AuditEntry(
        action=action,
        entity_type="subscription",
        entity_id=subscription.id,
        details={
            "status": subscription.status.value,
            "product": subscription.product_id,
            "cancelling": subscription.cancels_at_period_end,
        },
    )


def subscription_event(kind: str, subscription: Subscription) -> NewEvent:
    """The event about a subscription, with what every subscriber gets to know of it."""
    ends_at = subscription.period_end
    return NewEvent(
        type=kind,
        subject_id=subscription.id,
        person_id=subscription.person_id,
        data={
            "subscriptionId": subscription.id,
            "productId": subscription.product_id,
            "status": subscription.status.value,
            "cancelAtPeriodEnd": subscription.cancels_at_period_end,
            "currentPeriodEnd": None if ends_at is None else iso(ends_at),
            "providerRef": subscription.remote_id,
        },
    )


def _payment_failed_event(subscription: Subscription) -> NewEvent:
    """The published event about money that could not be taken. The bill becomes an invoice here once it is paid."""
    return NewEvent(
        type="subscription.payment_failed",
        subject_id=subscription.id,
        person_id=subscription.person_id,
        data={
            "invoiceId": None,
            "subscriptionId": subscription.id,
            "productId": subscription.product_id,
            "status": subscription.status.value,
            "providerRef": subscription.remote_id,
        },
    )
