"""Stripe's payment pages (checkout sessions): what opens one, and what became of it."""

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from ledger.money import format_money
from ledger.providers.contract import Checkout, CheckoutState, OutcomeUnknown, ProviderRefused, WantedPayment
from ledger.providers.stripe_amounts import AMOUNT_MAX, from_stripe_amount, to_stripe_amount
from ledger.providers.stripe_calls import Calls, Listed, NotKnown
from ledger.providers.stripe_payloads import Identified, Session, checkout_of, checkout_state_of, made_at_s
from ledger.providers.subscription_contract import WantedSubscription

if TYPE_CHECKING:
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsLineItem, SessionListParams

LINES_MAX = 100
"""The most lines a checkout can have (reference of `checkout.sessions.create`, `line_items`)."""

_NAME_CHARACTERS_MAX = 250
_QUANTITY_MAX = 999_999
_CLOCK_SKEW_S = 300
_WITH_CHARGE = ["payment_intent.latest_charge"]


async def start_payment(calls: Calls, *, secrets: tuple[str, str], wanted: WantedPayment) -> Checkout:
    """See `Provider.start_payment`. `secrets` are the connection's: they tell its customers from others."""
    params = session_params(wanted)
    key = f"ledger-checkout-{wanted.intent_id}"
    session, customer = await open_session(calls, secrets=secrets, wanted=wanted, params=params, key=key)
    await _insist_on_total(calls, session, wanted)
    checkout = checkout_of(session)
    if checkout is None:
        raise ProviderRefused("Stripe opened no payment page; try again")
    return msgspec.structs.replace(checkout, customer_remote_id=customer)


async def open_session(
    calls: Calls,
    *,
    secrets: tuple[str, str],
    wanted: WantedPayment | WantedSubscription,
    params: "SessionCreateParams",
    key: str,
) -> tuple[Session, str]:
    """Returns a session for the payer, and what Stripe calls the payer. Raises like `Provider.start_payment`."""
    known = wanted.payer.remote_id
    customer = known or await _make_customer(calls, secrets, wanted)
    try:
        return await _create_session(calls, {**params, "customer": customer}, key), customer
    except NotKnown as error:
        if known is None or error.param != "customer":
            raise
    # Somebody deleted the customer in the Stripe Dashboard. The refusal is kept under the key that got it.
    customer = await _make_customer(calls, secrets, wanted)
    return await _create_session(calls, {**params, "customer": customer}, f"{key}-{customer}"), customer


async def _create_session(calls: Calls, params: "SessionCreateParams", key: str) -> Session:
    return await calls.ask(
        lambda: calls.v1.checkout.sessions.create_async(params, {"idempotency_key": key}),
        Session,
        doubt=OutcomeUnknown,
    )


async def _make_customer(calls: Calls, secrets: tuple[str, str], wanted: WantedPayment | WantedSubscription) -> str:
    """Returns the customer of a person: the same one when two checkouts ask for it at once.

    Row ids of persons begin at 1 in every installation, so the key also holds what differs between two
    installations on one Stripe account; else they would share customers, and with them e-mail addresses.
    """
    person = str(wanted.payer.person_id)
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(wanted.success_url))
    parts = (*secrets, origin, person, wanted.payer.remote_id or "")
    key = f"ledger-customer-{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"
    # A customer too many does no harm, so an unknown outcome here only means that Stripe cannot be reached.
    customer = await calls.ask(
        lambda: calls.v1.customers.create_async({"metadata": {"person": person}}, {"idempotency_key": key}),
        Identified,
    )
    return customer.id


async def _insist_on_total(calls: Calls, session: Session, wanted: WantedPayment) -> None:
    """Closes a checkout that would take another amount, whatever the reason. Raises `ProviderRefused`."""
    due = to_stripe_amount(wanted.amount_minor, wanted.currency)
    if (session.amount_total, session.currency) == (due, wanted.currency.lower()):
        return
    with suppress(ProviderRefused):
        await calls.ask(lambda: calls.v1.checkout.sessions.expire_async(session.id), Session)
    would = "another amount"
    if session.amount_total is not None and session.currency is not None:
        would = format_money(*from_stripe_amount(session.amount_total, session.currency))
    due_text = format_money(wanted.amount_minor, wanted.currency)
    raise ProviderRefused(
        f"Stripe would have taken {would} instead of {due_text}, so the payment was not started; "
        "check the tax and currency settings of the Stripe account"
    )


# Looking up


async def look_up_checkout(calls: Calls, *, intent_id: str, remote_id: str | None) -> CheckoutState:
    """See `Provider.look_up_checkout`."""
    if remote_id is None:
        found = await find_session(calls, intent_id)
        remote_id = found.id if found else None
    if remote_id is None:
        return CheckoutState(status="unknown")
    return await _fetch_state(calls, remote_id)


async def find_session(calls: Calls, intent_id: str) -> Session | None:
    """Returns the session that was opened for an intent.

    It is looked for among those that are not older than the intent, newest first. Stripe cannot search sessions, and
    asking to create it again would open a second one once Stripe has forgotten the key. Nobody can have paid one that
    is overlooked: its address was never shown.
    """
    made_at = made_at_s(intent_id)
    params: SessionListParams = {"created": {"gte": max(0, (made_at or 0) - _CLOCK_SKEW_S)}}
    return await calls.find(
        calls.v1.checkout.sessions.list_async, params, Listed[Session], lambda session: session.intent_id == intent_id
    )


async def fetch_session(calls: Calls, remote_id: str) -> Session:
    """Returns a session with its payment. Raises `NotKnown`."""
    return await calls.ask(
        lambda: calls.v1.checkout.sessions.retrieve_async(remote_id, {"expand": _WITH_CHARGE}), Session
    )


async def _fetch_state(calls: Calls, remote_id: str) -> CheckoutState:
    try:
        return checkout_state_of(await fetch_session(calls, remote_id))
    except NotKnown:
        return CheckoutState(status="unknown")


async def expire_checkout(calls: Calls, *, remote_id: str) -> CheckoutState:
    """See `Provider.expire_checkout`."""
    try:
        # No key of our own: repeating it is harmless, and a kept refusal would hide that it works by now.
        session = await calls.ask(
            lambda: calls.v1.checkout.sessions.expire_async(remote_id), Session, doubt=OutcomeUnknown
        )
    except ProviderRefused:
        # It is not open any more (or not yet again, while a payment is under way); its state says which.
        return await _fetch_state(calls, remote_id)
    return checkout_state_of(session)


# What is sent


def session_params(wanted: WantedPayment) -> "SessionCreateParams":
    """Returns what opens a checkout, but for the customer. Nothing depends on the time, so that a retry is the same.

    Prices in the payer's own currency, Stripe's own tax and discounts stay off: the total must be the invoice's.
    Raises `ProviderRefused` for an amount that Stripe cannot take.
    """
    metadata = {
        "invoice_id": wanted.invoice_id,
        "invoice_number": wanted.invoice_number,
        "intent_id": wanted.intent_id,
        "person": str(wanted.payer.person_id),
    }
    return {
        "mode": "payment",
        "ui_mode": "hosted_page",
        "client_reference_id": wanted.invoice_id,
        "line_items": session_lines(wanted),
        "metadata": metadata,
        # Metadata does not travel from the session to the payment, and a failed payment's event carries the payment.
        "payment_intent_data": {"metadata": metadata, "description": f"Invoice {wanted.invoice_number}"},
        "adaptive_pricing": {"enabled": False},
        "automatic_tax": {"enabled": False},
        "allow_promotion_codes": False,
        "success_url": wanted.success_url,
        "cancel_url": wanted.cancel_url,
    }


def session_lines(wanted: WantedPayment) -> "list[SessionCreateParamsLineItem]":
    """Returns lines that add up to the total exactly, the tax as one of its own.

    Lines beyond Stripe's limit become one. When the lines cannot be said in Stripe's amounts (1.234 KWD five times is
    6.170 KWD, which can), or do not add up to what is asked for, there is one line with the total.
    Raises `ProviderRefused`.
    """
    total = to_stripe_amount(wanted.amount_minor, wanted.currency)
    if not 0 < total <= AMOUNT_MAX:
        raise ProviderRefused(f"Stripe cannot take a payment of {format_money(wanted.amount_minor, wanted.currency)}")
    lines = [_fitting(line.description, line.unit_price_minor, line.quantity) for line in wanted.lines]
    tax = [(wanted.tax_label, wanted.tax_minor, 1)] if wanted.tax_minor else []
    room = LINES_MAX - len(tax)
    if len(lines) > room:
        rest = lines[room - 1 :]
        folded = sum(price * quantity for _, price, quantity in rest)
        lines[room - 1 :] = [(f"{len(rest)} further items", folded, 1)]
    try:
        priced = [(name, to_stripe_amount(price, wanted.currency), count) for name, price, count in lines + tax]
    except ProviderRefused:
        priced = []
    if sum(price * quantity for _, price, quantity in priced) != total:
        priced = [(f"Invoice {wanted.invoice_number}", total, 1)]
    return [_line_item(name, price, quantity, wanted.currency) for name, price, quantity in priced]


def _fitting(name: str, price: int, quantity: int) -> tuple[str, int, int]:
    if quantity > _QUANTITY_MAX:
        return f"{quantity} × {name}", price * quantity, 1
    return name, price, quantity


def _line_item(name: str, price: int, quantity: int, currency: str) -> "SessionCreateParamsLineItem":
    name = name.strip() or "Item"
    if len(name) > _NAME_CHARACTERS_MAX:
        name = f"{name[: _NAME_CHARACTERS_MAX - 1]}…"
    return {
        "quantity": quantity,
        "price_data": {"currency": currency.lower(), "unit_amount": price, "product_data": {"name": name}},
    }
