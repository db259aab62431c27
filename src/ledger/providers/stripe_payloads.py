"""Stripe's formats: amounts, what is sent to open a checkout, and what its objects mean in Ledger's words.

Objects are read into structs that name only what Ledger needs, all of it optional but the id. So answers of the
pinned API version and event payloads of older ones (an endpoint keeps the version it was created with) go the same way.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from ledger.errors import BadRequest
from ledger.money import currency_exponent, format_money
from ledger.providers.contract import (
    Checkout,
    CheckoutState,
    MoneyArrived,
    ProviderRefused,
    RefundState,
    WantedPayment,
)

if TYPE_CHECKING:
    from stripe.params.checkout import SessionCreateParams, SessionCreateParamsLineItem

LINES_MAX = 100
"""The most lines a checkout can have (reference of `checkout.sessions.create`, `line_items`)."""
AMOUNT_MAX = 10**12 - 1
"""Twelve digits: more is allowed in no currency. The real limit of a currency is Stripe's to know."""
UNKNOWN_METHOD = "online"
"""The method of a payment when the event does not say whether it was a card or something else."""

_NAME_CHARACTERS_MAX = 250
_QUANTITY_MAX = 999_999

# https://docs.stripe.com/currencies, "Special cases" and "Three-decimal currencies". Everything else is counted in the
# minor unit of ISO 4217. `docs/decisions/0006-stripe-calls.md` says what was checked.
_DECIMALS_AT_STRIPE = {"ISK": 2, "UGX": 2, "MGA": 0}
_SMALLEST_STEP = {"ISK": 100, "UGX": 100, "BHD": 10, "JOD": 10, "KWD": 10, "OMR": 10, "TND": 10}


def to_stripe_amount(amount_minor: int, currency: str) -> int:
    """Returns an amount as Stripe counts it: 5 ISK is 500, 10.00 MGA is 10, all other minor units are the same.

    Raises `ProviderRefused` for a currency whose counting at Stripe is not known, and for an amount that Stripe would
    have to round.
    """
    exponent = currency_exponent(currency)
    step = _SMALLEST_STEP.get(currency, 1)
    if exponent > 2 and step == 1:
        raise ProviderRefused(f"Stripe takes no payments in {currency}; choose another way to pay")
    ours: int = 10**exponent
    stripes: int = 10 ** _DECIMALS_AT_STRIPE.get(currency, exponent)
    amount, rest = divmod(amount_minor * stripes, ours)
    if rest or amount % step:
        unit = f"whole {currency}" if exponent < 3 else f"amounts in {currency} that end in 0"
        shown = format_money(amount_minor, currency)
        raise ProviderRefused(f"Stripe takes only {unit}, so {shown} cannot be paid or returned with it")
    return amount


def from_stripe_amount(amount: int, stripe_currency: str) -> tuple[int, str]:
    """Returns Ledger's minor units and the ISO 4217 code. Raises `ProviderRefused` when it cannot be said in them."""
    currency = stripe_currency.upper()
    try:
        exponent = currency_exponent(currency)
    except BadRequest as error:
        raise ProviderRefused(f"Stripe reports an amount in {currency}, which Ledger does not know") from error
    ours: int = 10**exponent
    stripes: int = 10 ** _DECIMALS_AT_STRIPE.get(currency, exponent)
    minor, rest = divmod(amount * ours, stripes)
    if rest:
        raise ProviderRefused(f"Stripe reports {amount} in {currency}, which is less than the smallest unit of it")
    return minor, currency


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


# What is read


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """A customer, a product or a price, of which only the id matters."""

    id: str


class IdentifiedList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Identified, ...] = ()


class _MethodDetails(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One successful or failed movement of money of a payment intent."""

    id: str
    created: int | None = None
    payment_method_details: _MethodDetails | None = None


class _Charges(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Charge, ...] = ()


class _PaymentError(msgspec.Struct, frozen=True, kw_only=True):
    message: str | None = None


class PaymentIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment, from its first attempt until it succeeds. Before 2022-11 its charges were listed in it."""

    id: str
    status: str | None = None
    metadata: dict[str, str] | None = None
    last_payment_error: _PaymentError | None = None
    latest_charge: str | Charge | None = None
    charges: _Charges | None = None

    @property
    def charge(self) -> Charge | None:
        if isinstance(self.latest_charge, Charge):
            return self.latest_charge
        return self.charges.data[0] if self.charges and self.charges.data else None


class _CurrencyConversion(msgspec.Struct, frozen=True, kw_only=True):
    amount_total: int
    source_currency: str


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A checkout session. `payment_status` and `amount_total` are missing before 2020-05, `status` before 2021-11."""

    id: str
    mode: str | None = None
    status: str | None = None
    payment_status: str | None = None
    url: str | None = None
    created: int | None = None
    expires_at: int | None = None
    amount_total: int | None = None
    currency: str | None = None
    currency_conversion: _CurrencyConversion | None = None
    """Until 2025-03: the amount before it was turned into the payer's own currency."""
    customer: str | Identified | None = None
    metadata: dict[str, str] | None = None
    payment_intent: str | PaymentIntent | None = None
    payment_method_types: tuple[str, ...] | None = None

    @property
    def invoice_id(self) -> str | None:
        """Whose checkout it is; None for one that another program opened in the same Stripe account."""
        return (self.metadata or {}).get("invoice_id")

    @property
    def says_enough(self) -> bool:
        """Whether it can be told from this payload alone if and what was paid."""
        if self.payment_status != "paid":
            return self.payment_status is not None
        return None not in (self.payment_intent, self.amount_total, self.currency)


class SessionList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Session, ...] = ()
    has_more: bool = False


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way back."""

    id: str
    status: str | None = None
    failure_reason: str | None = None
    metadata: dict[str, str] | None = None


class RefundList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[Refund, ...] = ()
    has_more: bool = False


class _DashboardSettings(msgspec.Struct, frozen=True, kw_only=True):
    display_name: str | None = None


class _AccountSettings(msgspec.Struct, frozen=True, kw_only=True):
    dashboard: _DashboardSettings | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The Stripe account that a key belongs to."""

    id: str
    charges_enabled: bool = True
    settings: _AccountSettings | None = None

    @property
    def shown_name(self) -> str:
        dashboard = self.settings.dashboard if self.settings else None
        return f"{dashboard.display_name} ({self.id})" if dashboard and dashboard.display_name else self.id


class _EventData(msgspec.Struct, frozen=True, kw_only=True):
    object: msgspec.Raw


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What Stripe sends to the webhook: something happened to `data.object`."""

    id: str
    type: str
    created: int
    livemode: bool
    data: _EventData


# What it means


def time_of(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def checkout_of(session: Session) -> Checkout | None:
    """The page where people pay; None when the session has none any more."""
    if session.url is None or session.expires_at is None:
        return None
    customer = session.customer.id if isinstance(session.customer, Identified) else session.customer
    return Checkout(
        remote_id=session.id,
        url=session.url,
        expires_at=time_of(session.expires_at),
        customer_remote_id=customer,
    )


def total_of(session: Session) -> tuple[int, str] | None:
    """What a session charges, in Ledger's minor units with the currency. Raises `ProviderRefused`."""
    if session.currency_conversion is not None:
        conversion = session.currency_conversion
        return from_stripe_amount(conversion.amount_total, conversion.source_currency)
    if session.amount_total is None or session.currency is None:
        return None
    return from_stripe_amount(session.amount_total, session.currency)


def payment_of(session: Session, *, heard_at: datetime) -> MoneyArrived | None:
    """The payment of a session; None unless Stripe says `paid`. Raises `ProviderRefused`."""
    total = total_of(session)
    if session.payment_status != "paid" or session.payment_intent is None or total is None:
        return None
    intent = session.payment_intent
    charge = intent.charge if isinstance(intent, PaymentIntent) else None
    return MoneyArrived(
        remote_id=intent.id if isinstance(intent, PaymentIntent) else intent,
        amount_minor=total[0],
        currency=total[1],
        method=_method_of(session, charge),
        received_at=time_of(charge.created) if charge and charge.created else heard_at,
    )


def _method_of(session: Session, charge: Charge | None) -> str:
    if charge and charge.payment_method_details and charge.payment_method_details.type:
        return charge.payment_method_details.type
    offered = session.payment_method_types or ()
    return offered[0] if len(offered) == 1 else UNKNOWN_METHOD


def checkout_state_of(session: Session) -> CheckoutState:
    """Where a session stands that was fetched with its payment intent. Raises `ProviderRefused`."""
    if session.status == "open":
        return CheckoutState(status="open", checkout=checkout_of(session))
    if session.status == "expired":
        return CheckoutState(status="expired")
    payment = payment_of(session, heard_at=time_of(session.created or 0))
    if payment is not None:
        return CheckoutState(status="paid", payment=payment)
    intent = session.payment_intent
    # A bank debit that did not work out ends here; the session stays complete for ever.
    failed = isinstance(intent, PaymentIntent) and intent.status in ("requires_payment_method", "canceled")
    return CheckoutState(status="failed" if failed else "pending")


_REFUND_FAILURES = {
    "lost_or_stolen_card": "the card was reported lost or stolen",
    "expired_or_canceled_card": "the card has expired or was cancelled",
    "charge_for_pending_refund_disputed": "the payer disputed the payment in the meantime",
    "insufficient_funds": "the balance of the Stripe account was too low",
    "declined": "the payer's bank declined it",
    "merchant_request": "it was cancelled in the Stripe Dashboard",
}


def refund_state_of(refund: Refund) -> RefundState:
    """`pending` and `requires_action` are on their way; `canceled` did not and will not arrive."""
    if refund.status == "succeeded":
        return RefundState(status="succeeded", remote_id=refund.id)
    if refund.status not in ("failed", "canceled"):
        return RefundState(status="requested", remote_id=refund.id)
    default = "it was cancelled" if refund.status == "canceled" else "Stripe gives no reason"
    reason = _REFUND_FAILURES.get(refund.failure_reason or "", default)
    return RefundState(status="failed", remote_id=refund.id, failure=f"The refund did not arrive: {reason}")


def made_at_s(intent_id: str) -> int | None:
    """When an intent was stored, in Unix seconds, if its id tells (UUID version 7)."""
    try:
        uuid = UUID(intent_id)
    except ValueError:
        return None
    return (uuid.int >> 80) // 1000 if uuid.version == 7 else None
