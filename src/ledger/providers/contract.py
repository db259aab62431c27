"""What a payment provider is to Ledger, in Ledger's words: what it can do, what it is asked, and what it answers.

`provider.py` has what it is asked with, `subscription_contract.py` the words about subscriptions. Adding a provider
means one file that implements `provider.Provider`, its tests' fixtures and its document. A provider's own words
(session, intent, price id) stop at its file. Amounts are integers in minor units with their currency; ids of the
provider's things are opaque text (`remote_id`).

Every call carries the id of the row that asks (`intent_id`). A provider derives its idempotency key from it, so that
asking twice has one effect, also after a crash.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Literal

import msgspec

from ledger.errors import BadRequest, Unavailable


class Capability(StrEnum):
    """What a provider can do; the manifest and the buttons follow it."""

    INVOICES = "invoices"
    """Take payments of single invoices."""
    SUBSCRIPTIONS = "subscriptions"
    """Keep subscriptions."""
    CHECKOUT = "checkout"
    """Has a page of its own where people pay."""
    REFUNDS = "refunds"
    """Send money back the way it came."""
    RECURRING_BILLING = "recurringBilling"
    """Charge again by itself when a period ends."""


# What can go wrong


class ProviderRefused(BadRequest):
    """The provider said no, and nothing happened. The sentence says why, in words for a treasurer."""

    title = "The payment provider refused"


class ProviderUnreachable(Unavailable):
    """The provider could not be asked, or asked to come back later; nothing happened there."""

    title = "The payment provider cannot be reached"


class OutcomeUnknown(Unavailable):
    """The request may or may not have had its effect; the reconciler will ask the provider and settle it."""

    title = "The payment provider did not answer in time"


class UnknownHere(ProviderRefused):
    """What an event is about is not stored here: it is another installation's on the same account, or not yet there."""


class SettingsRefused(BadRequest):
    """A connection's settings cannot be used; `fields` says which and why."""


class SignatureWrong(BadRequest):
    """What claims to come from a provider is not signed by it, or too old. Nothing is stored."""

    title = "Bad signature"


# Settings


class SettingField(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an administrator tells Ledger about a provider."""

    key: str
    label: str
    kind: Literal["text", "password", "select", "textarea"] = "text"
    is_secret: bool = False
    is_required: bool = False
    options: tuple[tuple[str, str], ...] = ()
    """For a select: (value, label)."""
    placeholder: str | None = None


Settings = Mapping[str, str]


# Payments


class PaymentLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as the payer shall see it. `unit_price_minor * quantity` is what it adds to the total."""

    description: str
    unit_price_minor: int
    quantity: int


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays: the row of the person, never the Lanyard id, and what the provider calls them, once it knows them."""

    person_id: int
    remote_id: str | None = None


class WantedPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment to be started. The lines and the tax add up to `amount_minor`."""

    intent_id: str
    invoice_id: str
    invoice_number: str
    amount_minor: int
    currency: str
    lines: tuple[PaymentLine, ...]
    tax_minor: int
    tax_label: str
    payer: Payer
    payment_reference: str
    """ISO 11649 creditor reference, `RF16INV20260001`."""
    due_at: datetime | None
    success_url: str
    cancel_url: str


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """A page where the payer can pay."""

    remote_id: str
    url: str
    expires_at: datetime
    customer_remote_id: str | None = None
    """What the provider calls the payer, when it was made with this checkout."""
    tax_remote_id: str | None = None
    """What the provider calls the wanted tax, when the checkout is for a subscription that has one."""


class Instructions(msgspec.Struct, frozen=True, kw_only=True):
    """What the payer has to do, as multi-line plain text."""

    text: str


StartedPayment = Checkout | Instructions


HOLDER_CHARACTERS_MAX = 70
"""Neither banks nor the QR code of a transfer have room for a longer name."""


class BankAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The account payers are told to transfer money to."""

    holder: str
    """As the bank knows it; one line of at most `HOLDER_CHARACTERS_MAX` characters."""
    iban: str
    """Without spaces, in upper case, its check digits verified."""
    bic: str | None = None


class MoneyArrived(msgspec.Struct, frozen=True, kw_only=True):
    """A payment the provider vouches for."""

    remote_id: str
    """The provider's own name of the payment; unique, and what a refund is asked for with."""
    amount_minor: int
    currency: str
    method: str
    received_at: datetime


class CheckoutState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a checkout stands at the provider. `pending` means: submitted, and the money is still on its way."""

    status: Literal["open", "pending", "paid", "expired", "failed", "unknown"]
    """`unknown`: the provider knows of no such checkout."""
    checkout: Checkout | None = None
    payment: MoneyArrived | None = None


class WantedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """Money to be sent back."""

    intent_id: str
    payment_remote_id: str
    amount_minor: int
    currency: str
    reason: str | None


class RefundState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a refund stands at the provider. `unknown`: it knows of no such refund."""

    status: Literal["requested", "succeeded", "failed", "unknown"]
    remote_id: str | None = None
    failure: str | None = None


# Products


class WantedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product as the provider shall know it."""

    intent_id: str
    """Changes with every version, so that a retry is one effect and a change is another."""
    product_id: str
    price_id: str
    name: str
    description: str | None
    amount_minor: int
    currency: str
    interval: Literal["month", "year"] | None
    is_active: bool
    product_remote_id: str | None
    price_remote_id: str | None
    """The present price at the provider, or None when this version is new there."""
    old_price_remote_ids: tuple[str, ...]
    """Prices that are to be archived."""


class SyncedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider calls a product and its price now."""

    product_remote_id: str
    price_remote_id: str


# Events


class CheckoutCompleted(msgspec.Struct, frozen=True, kw_only=True, tag="checkout.completed"):
    """A payer went through a checkout. Without `payment` the money is still on its way."""

    checkout_remote_id: str
    invoice_id: str | None
    payment: MoneyArrived | None
    intent_id: str | None = None
    """The row that asked for the checkout, when the event tells: so it is found even if its opening was never
    acknowledged."""


class CheckoutExpired(msgspec.Struct, frozen=True, kw_only=True, tag="checkout.expired"):
    """A checkout can no longer be used."""

    checkout_remote_id: str


class PaymentFailed(msgspec.Struct, frozen=True, kw_only=True, tag="payment.failed"):
    """An attempt to pay failed; another may follow."""

    invoice_id: str | None
    checkout_remote_id: str | None
    reason: str | None


class SubscriptionTouched(msgspec.Struct, frozen=True, kw_only=True, tag="subscription.touched"):
    """Something happened to a subscription: its present state is to be asked for. At least one of the ids is there."""

    remote_id: str | None = None
    intent_id: str | None = None
    """The subscription's row, when the event tells."""
    checkout_remote_id: str | None = None


class PeriodBilled(msgspec.Struct, frozen=True, kw_only=True, tag="period.billed"):
    """A bill was paid that belongs to a subscription: it is to be asked for, and booked."""

    remote_id: str
    subscription_remote_id: str | None = None


class RemoteRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund as the provider has it, whoever asked for it. `intent_id` is the row that did, if it was Ledger."""

    remote_id: str
    amount_minor: int
    currency: str
    status: Literal["requested", "succeeded", "failed"]
    failure: str | None
    created_at: datetime
    intent_id: str | None = None


class RefundsChanged(msgspec.Struct, frozen=True, kw_only=True, tag="refunds.changed"):
    """All refunds of a payment as they stand now."""

    payment_remote_id: str
    refunds: tuple[RemoteRefund, ...]


class DisputeChanged(msgspec.Struct, frozen=True, kw_only=True, tag="dispute.changed"):
    """The payer disputes a payment at their bank, as it stands now."""

    payment_remote_id: str
    remote_id: str
    amount_minor: int
    currency: str
    reason: str
    """Why, in words for a treasurer."""
    status: Literal["needs_response", "under_review", "won", "lost"]
    respond_by: datetime | None
    created_at: datetime


class NothingToDo(msgspec.Struct, frozen=True, kw_only=True, tag="ignored"):
    """An event that Ledger has no use for."""


EventMeaning = (
    CheckoutCompleted
    | CheckoutExpired
    | PaymentFailed
    | SubscriptionTouched
    | PeriodBilled
    | RefundsChanged
    | DisputeChanged
    | NothingToDo
)


class ProviderEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A verified event, not yet understood."""

    remote_id: str
    type: str
    created_at: datetime


class ListedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event from the provider's own list, with the bytes that `understand_event` takes."""

    event: ProviderEvent
    body: bytes
    is_expected: bool = True
    """Whether administrators are told to have it sent, so that Ledger should have got it already."""


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the provider's list of events, newest first; `next_after` asks for the next part, if there is one."""

    events: tuple[ListedEvent, ...]
    next_after: str | None = None
