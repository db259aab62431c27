"""What decides about mails: which days people are reminded on, when a mail is tried again, when it is not needed."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from types import MappingProxyType
from zoneinfo import ZoneInfo

from ledger.billing_settings.mail_kinds import MailKind
from ledger.errors import RuleBroken
from ledger.invoices.rules import InvoiceStatus


class MailStatus(StrEnum):
    """The states of a mail; `MAIL_STATUS_PHRASES` says what each means."""

    WAITING = "waiting"
    HANDED_OVER = "handed_over"
    SENT = "sent"
    FAILED = "failed"
    SKIPPED = "skipped"


MAIL_STATUS_PHRASES: Mapping[MailStatus, str] = {
    MailStatus.WAITING: "to be sent now, or to be tried again",
    MailStatus.HANDED_OVER: "being given to the mail server at this moment",
    MailStatus.SENT: "the mail server took it",
    MailStatus.FAILED: "given up; the error says why",
    MailStatus.SKIPPED: "not needed any more, or nobody to send it to",
}

# The running total stands beside each step.
RETRY_AFTER = (
    timedelta(seconds=30),  # 30 s
    timedelta(minutes=2),  # 2 min 30 s
    timedelta(minutes=10),  # 12 min 30 s
    timedelta(hours=1),  # 1 h 12 min 30 s
    timedelta(hours=6),  # 7 h 12 min 30 s
    timedelta(hours=24),  # 31 h 12 min 30 s
)
# Counting the first.
ATTEMPTS_MAX = len(RETRY_AFTER) + 1

REMINDED_AFTER_DUE: Mapping[MailKind, timedelta] = MappingProxyType(
    {MailKind.REMINDER_DUE: timedelta(0), MailKind.REMINDER_OVERDUE: timedelta(days=7)}
)
# A reminder that could not be made on its day (nothing ran) is made on the next. Older ones are not: whoever switches
# reminders on does not want to remind of years of old invoices.
_REMINDED_LATE = timedelta(days=1)


class MailCannotBeSentAgain(RuleBroken):
    """Only what was given up or not needed is sent again."""


def next_try(*, now: datetime, attempts: int) -> datetime | None:
    """When to try again after `attempts` attempts failed; None when it is given up."""
    return now + RETRY_AFTER[attempts - 1] if attempts < ATTEMPTS_MAX else None


def check_can_send_again(status: MailStatus) -> None:
    """Failed and skipped mails can be sent again. Raises `MailCannotBeSentAgain`."""
    if status is MailStatus.SENT:
        raise MailCannotBeSentAgain("This mail was sent; the mail server took it")
    if status not in (MailStatus.FAILED, MailStatus.SKIPPED):
        raise MailCannotBeSentAgain("This mail is on its way already; wait for how that ends")


def due_day(due_at: datetime, zone: ZoneInfo) -> date:
    """The day an invoice is due where the books are kept.

    A due date that came without a time is kept as its midnight in UTC (`invoices.rules.is_overdue`): it is that day,
    in whatever zone.
    """
    due = due_at.astimezone(UTC)
    return due.date() if due.time() == time.min else due.astimezone(zone).date()


def reminded_days(kind: MailKind, *, today: date) -> tuple[date, date]:
    """The first and the last due day of the invoices that are reminded of today."""
    last = today - REMINDED_AFTER_DUE[kind]
    return last - _REMINDED_LATE, last


def is_reminded(
    kind: MailKind, *, due_at: datetime, created_at: datetime, total_minor: int, now: datetime, zone: ZoneInfo
) -> bool:
    """Whether an open invoice is to be reminded of now.

    Who got the invoice itself on that day, or later, is not reminded of it: they have just been told.
    """
    due = due_day(due_at, zone)
    first, last = reminded_days(kind, today=now.astimezone(zone).date())
    created_before = created_at.astimezone(zone).date() < due + REMINDED_AFTER_DUE[kind]
    return first <= due <= last and created_before and total_minor > 0


def not_needed(
    kind: MailKind, *, status: InvoiceStatus, still_open_minor: int, is_payment_under_way: bool
) -> str | None:
    """Why a mail about an invoice in this state need not be sent any more, in words; None when it is needed."""
    about_debt = kind in (MailKind.REMINDER_DUE, MailKind.REMINDER_OVERDUE, MailKind.PAYMENT_FAILED)
    if status is InvoiceStatus.CANCELLED and (about_debt or kind is MailKind.INVOICE_CREATED):
        return "The invoice was cancelled meanwhile"
    if about_debt and still_open_minor <= 0:
        return "The invoice was paid meanwhile"
    if about_debt and is_payment_under_way:
        return "A payment of the invoice is on its way"
    return None
