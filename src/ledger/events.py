"""The catalogue of what Ledger tells others: every event, when it is sent, and what its data holds.

An event is a row, written in the transaction that made it true. The row's data has everything but `userId`: who the
person is at Lanyard is joined when it is sent, and null once Ledger has let go of the person. The JSON Schemas in
`docs/events/` are generated from here by `python -m ledger.events_docs`.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

InvoiceStatusName = Literal["pending", "paid", "failed", "cancelled", "refunded"]
SubscriptionStatusName = Literal["incomplete", "active", "past_due", "paused", "cancelled"]
DisputeStatusName = Literal["needs_response", "under_review", "won", "lost"]

_InvoiceId = Annotated[
    str,
    Meta(
        description="The invoice, as `GET /api/invoices/{id}` has it.",
        examples=["019b2f6c-0f1a-7c3e-9d52-1f8a60c4b7e1"],
    ),
]
_Number = Annotated[str, Meta(description="The invoice's number.", examples=["INV-2026-0001"])]
_UserId = Annotated[
    str | None,
    Meta(
        description="The person's id at Lanyard; null when Ledger has let go of the person.",
        examples=["V1StGXR8_Z5jdHi6B-myT1234"],
    ),
]
_InvoiceStatus = Annotated[
    InvoiceStatusName, Meta(description="The invoice's state right after what happened.", examples=["pending"])
]
_Total = Annotated[
    int, Meta(description="The invoice's total, tax included, in minor units: 5000 is 50.00 EUR.", examples=[5000])
]
_Currency = Annotated[str, Meta(description="The invoice's currency, an ISO 4217 code.", examples=["EUR"])]
_Amount = Annotated[
    int, Meta(description="How much money this is about, in minor units and never negative.", examples=[5000])
]
_AmountCurrency = Annotated[
    str, Meta(description="The currency of `amount`, which need not be the invoice's.", examples=["EUR"])
]
_SubscriptionId = Annotated[
    str,
    Meta(
        description="The subscription, as `GET /api/subscriptions/{id}` has it.",
        examples=["019b2f6c-0f1a-7c3e-9d52-2b7d31f0a9c8"],
    ),
]
_ProductId = Annotated[
    str, Meta(description="The product subscribed to.", examples=["019b2f6c-0f1a-7c3e-9d52-4c1e88d2f5b3"])
]
_SubscriptionStatus = Annotated[
    SubscriptionStatusName,
    Meta(description="The subscription's state, as far as the provider has told it.", examples=["active"]),
]
_SubscriptionRef = Annotated[
    str | None, Meta(description="The subscription's name at its provider.", examples=["sub_1Pgc6x2eZvKYlo2C"])
]
_PaymentRef = Annotated[
    str | None, Meta(description="The payment's name at its provider.", examples=["pi_3Pgc6x2eZvKYlo2C"])
]


class EventData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every event's data has."""

    user_id: _UserId


class InvoiceData(EventData, frozen=True, kw_only=True, rename="camel"):
    """The data of an event about an invoice. Money is in minor units of `currency`."""

    invoice_id: _InvoiceId
    invoice_number: _Number
    status: _InvoiceStatus
    total: _Total
    currency: _Currency


class InvoiceCreated(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """A new invoice."""

    status: Literal["pending"]


class InvoicePaid(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """A paid invoice; `amount` is the payment that completed it."""

    status: Literal["paid"]
    amount: _Amount


class InvoicePaymentFailed(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """An invoice whose last attempt to be paid failed; it stays `pending` when a part of it is paid already."""

    status: Literal["failed", "pending"]


class InvoiceCancelled(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """A withdrawn invoice."""

    status: Literal["cancelled"]


class InvoiceRefunded(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """An invoice money went back for; `amount` is this refund. It is `refunded` once everything went back."""

    status: Annotated[InvoiceStatusName, Meta(examples=["refunded"])]
    amount: _Amount
    amount_currency: _AmountCurrency


class PaymentUnexpected(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """An invoice that money arrived for which it did not ask for; `amount` is that payment."""

    status: Annotated[InvoiceStatusName, Meta(examples=["paid"])]
    amount: _Amount
    amount_currency: _AmountCurrency


class PaymentDisputed(InvoiceData, frozen=True, kw_only=True, rename="camel"):
    """An invoice whose payer disputes the payment at their bank; `amount` is what they dispute."""

    status: Annotated[InvoiceStatusName, Meta(examples=["paid"])]
    amount: _Amount
    amount_currency: _AmountCurrency
    dispute_status: Annotated[
        DisputeStatusName, Meta(description="Where the dispute stands.", examples=["needs_response"])
    ]


class SubscriptionData(EventData, frozen=True, kw_only=True, rename="camel"):
    """The data of an event about how a subscription stands."""

    subscription_id: _SubscriptionId
    product_id: _ProductId
    status: _SubscriptionStatus
    provider_ref: _SubscriptionRef
    cancel_at_period_end: Annotated[
        bool, Meta(description="Whether it ends with the present period.", examples=[False])
    ]
    current_period_end: Annotated[
        str | None, Meta(description="When the present period ends, in UTC.", examples=["2026-02-01T00:00:00.000Z"])
    ]


class SubscriptionCreated(SubscriptionData, frozen=True, kw_only=True, rename="camel"):
    """A subscription that began."""


class SubscriptionUpdated(SubscriptionData, frozen=True, kw_only=True, rename="camel"):
    """A subscription that changed."""


class SubscriptionCancelled(SubscriptionData, frozen=True, kw_only=True, rename="camel"):
    """A subscription that is over."""

    status: Literal["cancelled"]


class SubscriptionPaid(EventData, frozen=True, kw_only=True, rename="camel"):
    """What was paid. All about a subscription is null for an invoice on its own.

    With the first payment a subscription is `incomplete` still: `subscription.created` follows.
    """

    invoice_id: _InvoiceId
    subscription_id: _SubscriptionId | None
    product_id: _ProductId | None
    status: _SubscriptionStatus | None
    provider_ref: _PaymentRef


class SubscriptionPaymentFailed(EventData, frozen=True, kw_only=True, rename="camel"):
    """What was to be paid. All about a subscription is null for an invoice on its own.

    A subscription's period becomes an invoice when it is paid, so its `invoiceId` is null here.
    """

    invoice_id: _InvoiceId | None
    subscription_id: _SubscriptionId | None
    product_id: _ProductId | None
    status: Annotated[_SubscriptionStatus | None, Meta(examples=["past_due"])]
    provider_ref: Annotated[
        str | None,
        Meta(description="The subscription's name at its provider.", examples=["sub_1Pgc6x2eZvKYlo2C"]),
    ]


class Ping(EventData, frozen=True, kw_only=True, rename="camel"):
    """A test; nothing happened, and `userId` is null."""

    user_id: None
    subscriber_id: Annotated[
        str, Meta(description="The subscriber that is tested.", examples=["019b2f6c-0f1a-7c3e-9d52-7e905ab1c6d4"])
    ]


class EventKind(msgspec.Struct, frozen=True):
    """A type of event: its name, a sentence saying when it is sent, and its data as it is sent."""

    name: str
    when: str
    data: type[EventData]


_KINDS = (
    EventKind("invoice.created", "An invoice was issued.", InvoiceCreated),
    EventKind("invoice.paid", "An invoice was paid in full, by hand, by transfer or by card.", InvoicePaid),
    EventKind(
        "invoice.payment_failed",
        "An attempt to pay an invoice failed. Another attempt may follow.",
        InvoicePaymentFailed,
    ),
    EventKind("invoice.cancelled", "An invoice was withdrawn. Nothing is owed any more.", InvoiceCancelled),
    EventKind(
        "invoice.refunded",
        "Money went back for an invoice: all of it or a part. The provider has confirmed it.",
        InvoiceRefunded,
    ),
    EventKind(
        "payment.unexpected",
        "Money arrived that the invoice did not ask for: too much, twice, or in another currency. Staff looks at it.",
        PaymentUnexpected,
    ),
    EventKind(
        "payment.disputed",
        "A payer disputes a payment at their bank, or the dispute moved on.",
        PaymentDisputed,
    ),
    EventKind("subscription.created", "A subscription began: its first payment arrived.", SubscriptionCreated),
    EventKind(
        "subscription.paid",
        "A provider took money for an invoice: for a subscription's period, or for one invoice on its own.",
        SubscriptionPaid,
    ),
    EventKind(
        "subscription.payment_failed",
        "A provider could not take money: for a subscription's period, or for one invoice on its own.",
        SubscriptionPaymentFailed,
    ),
    EventKind(
        "subscription.updated",
        "A subscription's state, product, period or coming end changed.",
        SubscriptionUpdated,
    ),
    EventKind("subscription.cancelled", "A subscription is over.", SubscriptionCancelled),
    EventKind("ping", "Staff sent a test to a subscriber.", Ping),
)

EVENTS: Mapping[str, EventKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every type of event by its name, in the order they are documented."""

EVENT_TYPES: tuple[str, ...] = tuple(EVENTS)


class FannedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that deliveries and mails are being made of. `data` is the row's: camelCase, without `userId`."""

    id: str
    type: str
    subject_id: str | None
    person_id: int | None
    data: Mapping[str, object]
    created_at: datetime
