"""What Stripe's events mean, and its own list of them.

An event tells that something happened; how things stand now is asked where that matters, since events come late, more
than once and in any order. Payloads of all versions of the API since 2020 are understood.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ledger.providers.contract import (
    CheckoutCompleted,
    CheckoutExpired,
    EventMeaning,
    EventPage,
    ListedEvent,
    NothingToDo,
    PaymentFailed,
    PeriodBilled,
    ProviderEvent,
    ProviderRefused,
    SubscriptionTouched,
)
from ledger.providers.stripe_billing import Bill
from ledger.providers.stripe_calls import PAGE, Calls
from ledger.providers.stripe_checkout import fetch_session
from ledger.providers.stripe_payloads import Event, Identified, PaymentIntent, Session, id_of, payment_of, time_of
from ledger.providers.stripe_refunds import look_up_dispute, refunds_of

if TYPE_CHECKING:
    from stripe.params import EventListParams

Begin = Callable[[], Awaitable[Calls]]
_Thing = TypeVar("_Thing")


async def understand_event(body: bytes, begin: Begin) -> EventMeaning:
    """See `Provider.understand_event`. `begin` is called when Stripe has to be asked."""
    try:
        event = msgspec.json.decode(body, type=Event)
        meaning = _MEANINGS.get(event.type) or _group_meaning(event.type)
        return await meaning(event, begin) if meaning else NothingToDo()
    except msgspec.ValidationError as error:
        raise ProviderRefused(f"An event of Stripe cannot be read: {error}") from error


def _thing_of(event: Event, shape: type[_Thing]) -> _Thing:
    return msgspec.json.decode(event.data.object, type=shape)


# Checkouts and payments


async def _session_completed(event: Event, begin: Begin) -> EventMeaning:
    session = _thing_of(event, Session)
    if session.mode == "subscription":
        return _touched_by(session)
    if session.invoice_id is None or session.mode not in (None, "payment"):
        return NothingToDo()
    invoice_id = session.invoice_id
    if not session.says_enough:
        session = await fetch_session(await begin(), session.id)
    return CheckoutCompleted(
        checkout_remote_id=session.id,
        invoice_id=invoice_id,
        intent_id=session.intent_id,
        payment=payment_of(session, heard_at=time_of(event.created)),
    )


async def _session_debit_failed(event: Event, _: Begin) -> EventMeaning:
    session = _thing_of(event, Session)
    if session.mode == "subscription":
        return _touched_by(session)
    if session.invoice_id is None:
        return NothingToDo()
    return PaymentFailed(
        invoice_id=session.invoice_id, checkout_remote_id=session.id, reason="The bank did not pay the direct debit"
    )


async def _session_expired(event: Event, _: Begin) -> EventMeaning:
    session = _thing_of(event, Session)
    if session.mode == "subscription":
        return _touched_by(session)
    return CheckoutExpired(checkout_remote_id=session.id) if session.invoice_id else NothingToDo()


def _touched_by(session: Session) -> EventMeaning:
    if not session.starts_our_subscription:
        return NothingToDo()
    return SubscriptionTouched(
        remote_id=id_of(session.subscription), intent_id=session.intent_id, checkout_remote_id=session.id
    )


async def _attempt_failed(event: Event, _: Begin) -> EventMeaning:
    intent = _thing_of(event, PaymentIntent)
    invoice_id = (intent.metadata or {}).get("invoice_id")
    if invoice_id is None:
        return NothingToDo()
    reason = intent.last_payment_error.message if intent.last_payment_error else None
    return PaymentFailed(invoice_id=invoice_id, checkout_remote_id=None, reason=reason)


# Subscriptions and their bills


class _Tagged(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    metadata: dict[str, str] | None = None


async def _subscription_touched(event: Event, _: Begin) -> EventMeaning:
    subscription = _thing_of(event, _Tagged)
    intent_id = (subscription.metadata or {}).get("intent_id")
    return SubscriptionTouched(remote_id=subscription.id, intent_id=intent_id)


async def _bill_paid(event: Event, _: Begin) -> EventMeaning:
    bill = _thing_of(event, Bill)
    if bill.subscription_id is None:
        return NothingToDo()
    return PeriodBilled(remote_id=bill.id, subscription_remote_id=bill.subscription_id)


async def _bill_touched(event: Event, _: Begin) -> EventMeaning:
    bill = _thing_of(event, Bill)
    if bill.subscription_id is None:
        return NothingToDo()
    return SubscriptionTouched(remote_id=bill.subscription_id, intent_id=bill.intent_id)


# Money that goes back


class _OfPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A charge, or a refund."""

    payment_intent: str | Identified | None = None


async def _refunds_changed(event: Event, begin: Begin) -> EventMeaning:
    payment = id_of(_thing_of(event, _OfPayment).payment_intent)
    return await refunds_of(await begin(), payment) if payment is not None else NothingToDo()


async def _dispute_changed(event: Event, begin: Begin) -> EventMeaning:
    dispute = _thing_of(event, Identified)
    return await look_up_dispute(await begin(), dispute.id) or NothingToDo()


# Which is which

_Meaning = Callable[[Event, Begin], Awaitable[EventMeaning]]

_MEANINGS: Mapping[str, _Meaning] = {
    "checkout.session.completed": _session_completed,
    "checkout.session.async_payment_succeeded": _session_completed,
    "checkout.session.async_payment_failed": _session_debit_failed,
    "checkout.session.expired": _session_expired,
    "payment_intent.payment_failed": _attempt_failed,
    "invoice.paid": _bill_paid,
    "invoice.payment_succeeded": _bill_paid,
    "invoice.payment_failed": _bill_touched,
    "invoice.payment_action_required": _bill_touched,
    "invoice.voided": _bill_touched,
    "invoice.marked_uncollectible": _bill_touched,
    "invoice.finalized": _bill_touched,
    "invoice.updated": _bill_touched,
    "charge.refunded": _refunds_changed,
    "charge.refund.updated": _refunds_changed,
}
_GROUPS: Mapping[str, _Meaning] = {
    "customer.subscription.": _subscription_touched,
    "refund.": _refunds_changed,
    "charge.dispute.": _dispute_changed,
}


def _group_meaning(event_type: str) -> _Meaning | None:
    return next((meaning for group, meaning in _GROUPS.items() if event_type.startswith(group)), None)


LISTED_TYPES = (
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.payment_failed",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "invoice.paid",
    "invoice.payment_succeeded",
    "invoice.payment_failed",
    "invoice.voided",
    "invoice.marked_uncollectible",
    "charge.refunded",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
)
"""What is asked for in Stripe's own list. It takes 20 types at most; what is left out comes with one of these."""

EXPECTED_TYPES = frozenset(
    {
        "checkout.session.completed",
        "payment_intent.payment_failed",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "invoice.payment_succeeded",
    }
)
"""What administrators are told to enable; the others are used when they come."""


class _EventList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[dict[str, object], ...] = ()
    has_more: bool = False


async def list_events(calls: Calls, *, is_live: bool, since: datetime, after: str | None) -> EventPage:
    """See `Provider.list_events`."""
    params: EventListParams = {
        "types": list(LISTED_TYPES),
        "created": {"gte": int(since.timestamp())},
        "limit": PAGE,
    }
    if after is not None:
        params["starting_after"] = after
    page = await calls.ask(lambda: calls.v1.events.list_async(params), _EventList)
    listed = [_listed(one) for one in page.data]
    return EventPage(
        events=tuple(event for event, livemode in listed if livemode == is_live),
        next_after=listed[-1][0].event.remote_id if page.has_more and listed else None,
    )


def _listed(thing: dict[str, object]) -> tuple[ListedEvent, bool]:
    body = msgspec.json.encode(thing)
    try:
        event = msgspec.json.decode(body, type=Event)
    except msgspec.ValidationError as error:
        raise ProviderRefused(f"Stripe lists an event that cannot be read: {error}") from error
    is_expected = event.type in EXPECTED_TYPES
    return ListedEvent(event=provider_event(event), body=body, is_expected=is_expected), event.livemode


def provider_event(event: Event) -> ProviderEvent:
    return ProviderEvent(remote_id=event.id, type=event.type, created_at=time_of(event.created))
