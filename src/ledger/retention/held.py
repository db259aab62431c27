"""The shape of an export: one JSON document with everything that Ledger holds about a person.

Amounts are integers in minor units, times are ISO 8601 in UTC, as everywhere in the API. It is made for the person
(articles 15 and 20 of the GDPR), so it names things as the API does.
"""

from collections.abc import Sequence

import msgspec

NOT_HELD = (
    "Names, e-mail addresses and pictures: Lanyard has them. Ledger asks for them when they are needed and keeps them "
    "for minutes, in memory only.",
    "Card numbers, bank accounts and billing addresses: the payment provider has them. What it reports to Ledger is "
    "kept for 90 days and is in this document.",
    "What was written in mails: only their kind and time are kept, for 90 days.",
    "Backups of the database are the administrator's and are not looked through.",
)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the document: every field is always there, null when it is empty."""


class ExportedLine(_Part, frozen=True, kw_only=True, rename="camel"):
    """A line of an invoice."""

    description: str
    quantity: int
    unit_price: int
    total: int
    tax_rate: int


class ExportedTax(_Part, frozen=True, kw_only=True, rename="camel"):
    """The tax of all lines of one rate, in basis points."""

    rate: int
    net: int
    tax: int


class ExportedRefund(_Part, frozen=True, kw_only=True, rename="camel"):
    """Money that went back, or was asked to."""

    amount: int
    status: str
    reason: str | None
    provider_reference: str | None
    created_at: str
    settled_at: str | None


class ExportedDispute(_Part, frozen=True, kw_only=True, rename="camel"):
    """A dispute that the payer began at their bank."""

    amount: int
    currency: str
    reason: str
    status: str
    created_at: str


class ExportedPayment(_Part, frozen=True, kw_only=True, rename="camel"):
    """Money that arrived."""

    amount: int
    currency: str
    provider: str
    method: str
    provider_reference: str | None
    reference: str | None
    received_at: str
    refunds: Sequence[ExportedRefund]
    disputes: Sequence[ExportedDispute]


class ExportedInvoice(_Part, frozen=True, kw_only=True, rename="camel"):
    """An invoice with all that belongs to it."""

    id: str
    invoice_number: str
    status: str
    currency: str
    subtotal: int
    tax: int
    total: int
    tax_label: str
    created_at: str
    due_date: str | None
    paid_at: str | None
    cancelled_at: str | None
    failed_at: str | None
    provider: str | None
    payment_reference: str
    payment_instructions: str | None
    notes: str | None
    metadata: dict[str, object] | None
    created_by_service: str | None
    lines: Sequence[ExportedLine]
    taxes: Sequence[ExportedTax]
    payments: Sequence[ExportedPayment]


class ExportedChange(_Part, frozen=True, kw_only=True, rename="camel"):
    """What somebody wanted of a subscription."""

    kind: str
    status: str
    failure: str | None
    created_at: str


class ExportedSubscription(_Part, frozen=True, kw_only=True, rename="camel"):
    """A subscription and what was wanted of it."""

    id: str
    product: str
    status: str
    cancels_at_period_end: bool
    provider_reference: str | None
    period_start: str | None
    period_end: str | None
    activated_at: str | None
    cancelled_at: str | None
    created_at: str
    changes: Sequence[ExportedChange]


class ExportedMail(_Part, frozen=True, kw_only=True, rename="camel"):
    """A mail to the person: what it was about, not what it said."""

    kind: str
    status: str
    invoice_id: str | None
    subscription_id: str | None
    created_at: str
    settled_at: str | None


class ExportedAuditEntry(_Part, frozen=True, kw_only=True, rename="camel"):
    """Something the person did."""

    action: str
    entity_type: str
    entity_id: str
    details: dict[str, object] | None
    created_at: str


class ExportedEvent(_Part, frozen=True, kw_only=True, rename="camel"):
    """What was announced about the person, and to whom."""

    type: str
    data: dict[str, object] | None
    sent_to: Sequence[str]
    created_at: str


class ExportedProviderName(_Part, frozen=True, kw_only=True, rename="camel"):
    """What a payment provider calls the person."""

    provider: str
    name: str
    created_at: str


class ExportedProviderEvent(_Part, frozen=True, kw_only=True, rename="camel"):
    """What a payment provider sent about the person, as it came."""

    type: str
    received_at: str
    payload: object


class PersonExport(_Part, frozen=True, kw_only=True, rename="camel"):
    """Everything that Ledger holds about a person, the newest first in each list.

    `incomplete` names each list that was cut because it is long; the rest is got with shorter spans (`from`, `to`).
    """

    user_id: str
    exported_at: str
    known_since: str
    restricted_since: str | None
    invoices: Sequence[ExportedInvoice]
    subscriptions: Sequence[ExportedSubscription]
    mails: Sequence[ExportedMail]
    audit_entries: Sequence[ExportedAuditEntry]
    events: Sequence[ExportedEvent]
    provider_names: Sequence[ExportedProviderName]
    provider_events: Sequence[ExportedProviderEvent]
    stored_answers: int
    """How many answers to requests of theirs are kept, so that equal requests get the same; 30 days each."""
    incomplete: Sequence[str]
    not_held: Sequence[str]
