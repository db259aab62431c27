"""The kinds of mail there are. Each can be switched off; what is off is stored, so a new kind is on by itself."""

from collections.abc import Collection, Mapping
from enum import StrEnum


class MailKind(StrEnum):
    """Why a mail is sent; `MAIL_PHRASES` says when each is."""

    INVOICE_CREATED = "invoice_created"
    PAYMENT_RECEIVED = "payment_received"
    PAYMENT_FAILED = "payment_failed"
    REFUND = "refund"
    SUBSCRIPTION_CANCELLED = "subscription_cancelled"
    REMINDER_DUE = "reminder_due"
    REMINDER_OVERDUE = "reminder_overdue"


MAIL_PHRASES: Mapping[MailKind, str] = {
    MailKind.INVOICE_CREATED: "Invoice Created",
    MailKind.PAYMENT_RECEIVED: "Payment Received",
    MailKind.PAYMENT_FAILED: "Payment Failed",
    MailKind.REFUND: "Refund",
    MailKind.SUBSCRIPTION_CANCELLED: "Subscription Cancelled",
    MailKind.REMINDER_DUE: "Reminder at the Due Date",
    MailKind.REMINDER_OVERDUE: "Reminder 7 Days After",
}

_FIELDS: Mapping[MailKind, str] = {kind: f"mail_{kind.value}" for kind in MailKind}
MAIL_KIND_OF: Mapping[str, MailKind] = {field: kind for kind, field in _FIELDS.items()}
"""The kind that a switch of the settings is about: `mail_invoice_created` → `MailKind.INVOICE_CREATED`."""


def switched(off: Collection[str], *, changes: Mapping[MailKind, bool]) -> list[str]:
    """The kinds that are off after some were switched on (True) or off, in the order of `MailKind`."""
    return [kind.value for kind in MailKind if not changes.get(kind, kind.value not in off)]
