"""Stripe's objects about payments, and what they mean in Ledger's words.

Objects are read into structs that name only what Ledger needs, all of it optional but the id. So answers of the
pinned API version and event payloads of older ones (an endpoint keeps the version it was created with) go the same way.
"""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from ledger.providers.contract import Checkout, CheckoutState, MoneyArrived, RefundState
from ledger.providers.stripe_amounts import from_stripe_amount

UNKNOWN_METHOD = "online"
"""The method of a payment when the event does not say whether it was a card or something else."""

# What is read


class Identified(msgspec.Struct, frozen=True, kw_only=True):
    """A customer, a product or a price, of which only the id matters."""

    id: str


def id_of(thing: str | Identified | None) -> str | None:
    """The id of something that stands in another thing by its id, or as a whole."""
    return thing.id if isinstance(thing, Identified) else thing


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
    subscription: str | Identified | None = None

    @property
    def intent_id(self) -> str | None:
        return (self.metadata or {}).get("intent_id")

    @property
    def invoice_id(self) -> str | None:
        """Whose checkout it is; None for one that another program opened in the same Stripe account."""
        return (self.metadata or {}).get("invoice_id")

    @property
    def starts_our_subscription(self) -> bool:
        """Whether a subscription is started with it, and Ledger asked for that."""
        return self.mode == "subscription" and {"intent_id", "subscription_id"} <= (self.metadata or {}).keys()

    @property
    def says_enough(self) -> bool:
        """Whether it can be told from this payload alone if and what was paid."""
        if self.payment_status != "paid":
            return self.payment_status is not None
        return None not in (self.payment_intent, self.amount_total, self.currency)


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way back."""

    id: str
    status: str | None = None
    failure_reason: str | None = None
    metadata: dict[str, str] | None = None
    amount: int = 0
    currency: str = ""
    created: int = 0
    payment_intent: str | Identified | None = None


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
    return Checkout(
        remote_id=session.id,
        url=session.url,
        expires_at=time_of(session.expires_at),
        customer_remote_id=id_of(session.customer),
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
        method=method_of(charge) or _method_offered(session),
        received_at=time_of(charge.created) if charge and charge.created else heard_at,
    )


def method_of(charge: Charge | None) -> str | None:
    """How somebody paid (`card`, `sepa_debit`), where the charge is known and says so."""
    return charge.payment_method_details.type if charge and charge.payment_method_details else None


def _method_offered(session: Session) -> str:
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
