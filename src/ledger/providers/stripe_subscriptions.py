"""Subscriptions at Stripe: started on its payment page, then asked for, changed, ended and taken up again.

Stripe keeps the first answer to an idempotency key and gives it again. It says how things were then, so after every
change the subscription is looked at once more.
"""

from typing import TYPE_CHECKING

import msgspec

from ledger.providers.contract import Checkout, OutcomeUnknown, ProviderRefused, ProviderUnreachable
from ledger.providers.stripe_billing import BillBrief, Subscription, subscription_state_of
from ledger.providers.stripe_calls import Calls, Listed, NotKnown
from ledger.providers.stripe_checkout import fetch_session, find_session, open_session
from ledger.providers.stripe_payloads import Identified, Session, checkout_of, id_of
from ledger.providers.stripe_tax_rates import with_tax_rate
from ledger.providers.subscription_contract import SubscriptionState, WantedChange, WantedSubscription

if TYPE_CHECKING:
    from stripe.params import SubscriptionUpdateParams
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsSubscriptionData

_NOT_BEGUN = ("incomplete", "incomplete_expired")
_UNKNOWN = SubscriptionState(status="unknown")
_WITH_LATEST_BILL = ["latest_invoice"]
# While a bank debit is on its way, Stripe says `active`.
_FIRST_PAYMENT_FAILED = ("incomplete", "past_due", "unpaid")


# Starting


async def start_subscription(
    calls: Calls, *, secrets: tuple[str, str], wanted: WantedSubscription
) -> Checkout | SubscriptionState:
    """See `Provider.start_subscription`."""

    async def open_page(tax_id: str | None, key: str) -> tuple[Session, str]:
        params = _session_params(wanted, tax_id)
        return await open_session(calls, secrets=secrets, wanted=wanted, params=params, key=key)

    key = f"ledger-subscribe-{wanted.intent_id}"
    (session, customer), tax_id = await with_tax_rate(calls, wanted.tax, key=key, use=open_page)
    state = await _state_after(calls, session)
    checkout = state.checkout
    if checkout is not None:
        return msgspec.structs.replace(checkout, customer_remote_id=customer, tax_remote_id=tax_id)
    return msgspec.structs.replace(state, customer_remote_id=customer, tax_remote_id=tax_id)


def _session_params(wanted: WantedSubscription, tax_id: str | None) -> "SessionCreateParams":
    """Returns what opens a page, but for the customer. Nothing depends on the time, so that a retry is the same."""
    metadata = {
        "intent_id": wanted.intent_id,
        "subscription_id": wanted.intent_id,
        "person": str(wanted.payer.person_id),
    }
    # Metadata does not travel from the session to the subscription, whose events carry only its own.
    data: SessionCreateParamsSubscriptionData = {"metadata": metadata}
    if tax_id is not None:
        data["default_tax_rates"] = [tax_id]
    return {
        "mode": "subscription",
        "ui_mode": "hosted_page",
        "client_reference_id": wanted.intent_id,
        "line_items": [{"price": wanted.price_remote_id, "quantity": 1}],
        "metadata": metadata,
        "subscription_data": data,
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False},
        "allow_promotion_codes": False,
        "success_url": wanted.success_url,
        "cancel_url": wanted.cancel_url,
    }


async def _state_after(calls: Calls, session: Session) -> SubscriptionState:
    """Where a session that was just opened, or opened long ago with the same key, stands now."""
    try:
        return await _look_up_session(calls, await fetch_session(calls, session.id))
    except ProviderUnreachable as error:
        raise _in_doubt(error) from error


# Looking up


async def look_up_subscription(
    calls: Calls, *, intent_id: str, remote_id: str | None, checkout_remote_id: str | None
) -> SubscriptionState:
    """See `Provider.look_up_subscription`.

    A card that is declined on the page leaves an incomplete subscription behind, while the page can still be used and
    may begin another one. So the page has the last word until a subscription has come of it.
    """
    try:
        subscription = await _fetch(calls, remote_id) if remote_id is not None else None
        if subscription is not None and subscription.status not in _NOT_BEGUN:
            return await _state_of(calls, subscription)
        session = await _find_page(calls, intent_id, checkout_remote_id)
        if session is not None and (subscription is None or id_of(session.subscription) != subscription.id):
            return await _look_up_session(calls, session)
        return await _state_of(calls, subscription) if subscription is not None else _UNKNOWN
    except NotKnown:
        return _UNKNOWN


async def _find_page(calls: Calls, intent_id: str, checkout_remote_id: str | None) -> Session | None:
    if checkout_remote_id is not None:
        return await fetch_session(calls, checkout_remote_id)
    return await find_session(calls, intent_id)


async def _look_up(calls: Calls, remote_id: str) -> SubscriptionState:
    return await _state_of(calls, await _fetch(calls, remote_id))


async def _fetch(calls: Calls, remote_id: str) -> Subscription:
    """Returns a subscription with its latest bill. Raises `NotKnown`."""
    return await calls.ask(
        lambda: calls.v1.subscriptions.retrieve_async(remote_id, {"expand": _WITH_LATEST_BILL}), Subscription
    )


async def _state_of(calls: Calls, subscription: Subscription) -> SubscriptionState:
    was_paid = await _was_ever_paid(calls, subscription)
    return subscription_state_of(subscription, was_paid=was_paid)


async def _was_ever_paid(calls: Calls, subscription: Subscription) -> bool:
    if subscription.has_ended or subscription.status == "incomplete":
        return False
    latest = subscription.latest_bill
    if latest is not None and latest.status == "paid":
        return True
    paid = await calls.ask(
        lambda: calls.v1.invoices.list_async({"subscription": subscription.id, "status": "paid", "limit": 1}),
        Listed[BillBrief],
    )
    return bool(paid.data)


async def _look_up_session(calls: Calls, session: Session) -> SubscriptionState:
    customer = id_of(session.customer)
    if session.status == "expired":
        # When it closed is not known: Ledger may have closed it long before the time it would have expired at.
        return SubscriptionState(status="cancelled", customer_remote_id=customer)
    remote_id = id_of(session.subscription)
    if remote_id is not None:
        return await _look_up(calls, remote_id)
    return SubscriptionState(status="incomplete", checkout=checkout_of(session), customer_remote_id=customer)


# Changing


async def fetch_changeable(calls: Calls, remote_id: str) -> tuple[Subscription, str]:
    """Returns a subscription that can be changed, and what Stripe calls its item. Raises `ProviderRefused`."""
    subscription = await _fetch(calls, remote_id)
    item = subscription.item
    if subscription.has_ended or item is None:
        raise ProviderRefused("Stripe has already ended this subscription; subscribe again")
    return subscription, item.id


def check_can_prorate(subscription: Subscription, wanted: WantedChange) -> None:
    """Raises `ProviderRefused` while the latest bill is not paid.

    Stripe gives back unused time whether it was paid for or not, as credit that then pays for later periods.
    """
    bill = subscription.latest_bill
    if wanted.prorates and bill is not None and bill.status != "paid":
        raise ProviderRefused(
            "The last bill of this subscription is not paid yet, so its time cannot be set off against another "
            "product; change it once that is paid"
        )


def prorate_at(subscription: Subscription, wanted: WantedChange) -> int:
    """Returns from when on a change counts, in Unix seconds: within Stripe's present period, which may have just begun
    without Ledger having heard of it."""
    start, _ = subscription.period
    wanted_s = int(wanted.prorate_at.timestamp())
    return wanted_s if start is None else max(wanted_s, start)


async def change_subscription(calls: Calls, wanted: WantedChange) -> SubscriptionState:
    """See `Provider.change_subscription`. A cancellation at the period's end stays."""
    remote_id = wanted.subscription_remote_id
    subscription, item_id = await fetch_changeable(calls, remote_id)
    if subscription.price_id == wanted.price_remote_id:
        tax_id = wanted.tax.remote_id if wanted.tax else None
        return msgspec.structs.replace(await _state_of(calls, subscription), tax_remote_id=tax_id)
    check_can_prorate(subscription, wanted)
    prorate_at_s = prorate_at(subscription, wanted)

    async def change(tax_id: str | None, key: str) -> None:
        params: SubscriptionUpdateParams = {
            "items": [{"id": item_id, "price": wanted.price_remote_id}],
            "default_tax_rates": [tax_id] if tax_id is not None else "",
            "proration_behavior": "always_invoice" if wanted.prorates else "none",
            "payment_behavior": "error_if_incomplete",
        }
        if wanted.prorates:
            params["proration_date"] = prorate_at_s
        await _update(calls, remote_id, params, key)

    _, tax_id = await with_tax_rate(calls, wanted.tax, key=f"ledger-change-{wanted.intent_id}", use=change)
    return msgspec.structs.replace(await _look_up_afterwards(calls, remote_id), tax_remote_id=tax_id)


async def cancel_subscription(calls: Calls, *, intent_id: str, remote_id: str) -> SubscriptionState:
    """See `Provider.cancel_subscription`."""
    try:
        subscription = await _fetch(calls, remote_id)
        state = await _state_of(calls, subscription)
        if state.status == "cancelled" or state.cancels_at_period_end:
            return state
        if state.status == "incomplete" and subscription.status in _FIRST_PAYMENT_FAILED:
            # Nothing was paid and nothing is on its way, so there is no period to wait for.
            await _end(calls, remote_id, f"ledger-end-{intent_id}")
        else:
            await _update(calls, remote_id, {"cancel_at_period_end": True}, f"ledger-cancel-{intent_id}")
    except NotKnown:
        return _UNKNOWN
    except ProviderRefused:
        # Somebody, or Stripe itself, may have been faster.
        state = await _look_up(calls, remote_id)
        if state.status == "cancelled" or state.cancels_at_period_end:
            return state
        raise
    return await _look_up_afterwards(calls, remote_id)


async def _end(calls: Calls, remote_id: str, key: str) -> None:
    await calls.ask(
        lambda: calls.v1.subscriptions.cancel_async(remote_id, options={"idempotency_key": key}),
        Identified,
        doubt=OutcomeUnknown,
    )


async def reactivate_subscription(calls: Calls, *, intent_id: str, remote_id: str) -> SubscriptionState:
    """See `Provider.reactivate_subscription`. The money comes first: if the bank says no, nothing is changed."""
    subscription = await _fetch(calls, remote_id)
    if subscription.has_ended:
        raise ProviderRefused("Stripe has already ended this subscription; it cannot be reactivated, subscribe again")
    bill = subscription.latest_bill
    if subscription.status in ("past_due", "unpaid") and bill is not None and bill.status == "open":
        await _collect(calls, remote_id, bill.id, f"ledger-collect-{intent_id}")
    # Stripe takes only one of the two, and taking back the first clears the second.
    if subscription.cancel_at_period_end:
        await _update(calls, remote_id, {"cancel_at_period_end": False}, f"ledger-reactivate-{intent_id}")
    elif subscription.cancel_at is not None:
        await _update(calls, remote_id, {"cancel_at": ""}, f"ledger-reactivate-{intent_id}")
    return await _look_up_afterwards(calls, remote_id)


async def _collect(calls: Calls, remote_id: str, bill_id: str, key: str) -> None:
    try:
        await calls.ask(
            lambda: calls.v1.invoices.pay_async(bill_id, options={"idempotency_key": key}),
            Identified,
            doubt=OutcomeUnknown,
        )
    except ProviderRefused:
        # Somebody, or Stripe itself, may have been faster.
        bill = (await _fetch(calls, remote_id)).latest_bill
        if bill is None or bill.id != bill_id or bill.status != "paid":
            raise


async def _update(calls: Calls, remote_id: str, params: "SubscriptionUpdateParams", key: str) -> None:
    await calls.ask(
        lambda: calls.v1.subscriptions.update_async(remote_id, params, {"idempotency_key": key}),
        Identified,
        doubt=OutcomeUnknown,
    )


async def _look_up_afterwards(calls: Calls, remote_id: str) -> SubscriptionState:
    try:
        return await _look_up(calls, remote_id)
    except ProviderUnreachable as error:
        raise _in_doubt(error) from error


def _in_doubt(error: ProviderUnreachable) -> OutcomeUnknown:
    """Something was changed, so it must not be said that nothing was."""
    sentence = "Stripe did not say in time where this stands now; Ledger asks again by itself within a minute"
    return OutcomeUnknown(sentence, retry_after_s=error.retry_after_s)
