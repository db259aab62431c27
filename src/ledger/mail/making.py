"""Makes mails of events, in the transaction that fans the events out, and reminders of the days invoices are due.

A mail is a row that says to whom and about what. What it says is read when it is sent.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ledger.billing_settings.mail_kinds import MailKind
from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Database, NewJob, Tx
from ledger.events import FannedEvent
from ledger.mail.rules import REMINDED_AFTER_DUE, is_reminded, reminded_days
from ledger.mail.store import NewMail, OpenInvoice, insert_mails, list_booked_periods, list_open_invoices
from ledger.web.paging import Position

SEND_JOB = "mail.send"
REMIND_SCHEDULE = "mail.reminders"
REMINDED_AT_ONCE = 500

_FIRST_ID = "00000000-0000-0000-0000-000000000000"


def send_job(*, now: datetime, at: datetime | None = None) -> NewJob:
    """The job that sends what is due, now or at a later time; at any one second it comes once."""
    if at is None:
        return NewJob(name=SEND_JOB, payload=b"")
    key = f"{SEND_JOB}:{at.astimezone(UTC).isoformat(timespec='seconds')}"
    return NewJob(name=SEND_JOB, payload=b"", delay=at - now, dedupe_key=key)


async def make_mails(tx: Tx, *, events: Sequence[FannedEvent]) -> None:
    """Stores the mails that events give reason for, to be sent when the transaction is committed.

    None is made while no mail server is configured, of kinds that are switched off, and twice of one occasion.
    """
    wanted = [mail for event in events if (mail := _mail_of(tx, event)) is not None]
    if not wanted:
        return
    billing = await get_settings(tx.connection)
    wanted = [mail for mail in wanted if billing.has_mail_server and billing.wants(mail.kind)]
    created = [mail.invoice_id for mail in wanted if mail.kind is MailKind.INVOICE_CREATED and mail.invoice_id]
    if created:
        # What a subscription's period cost is created and paid in one go; that it was paid is told.
        booked = await list_booked_periods(tx.connection, invoice_ids=created)
        wanted = [mail for mail in wanted if mail.kind is not MailKind.INVOICE_CREATED or mail.invoice_id not in booked]
    await _store(tx, wanted)


def _mail_of(tx: Tx, event: FannedEvent) -> NewMail | None:
    """The mail an event gives reason for, or None. The occasion of an invoice is created or paid once; everything
    else can happen again, and then its event is another."""
    if event.person_id is None or event.subject_id is None:
        return None
    subject = {"invoice_id": event.subject_id}
    amount, currency = event.data.get("amount"), event.data.get("amountCurrency")
    match event.type:
        case "invoice.created" if _is_about_money(event):
            kind, occasion = MailKind.INVOICE_CREATED, event.subject_id
        case "invoice.paid" if _is_about_money(event):
            kind, occasion = MailKind.PAYMENT_RECEIVED, event.subject_id
        case "invoice.payment_failed":
            kind, occasion = MailKind.PAYMENT_FAILED, event.id
        case "subscription.payment_failed" if event.data.get("subscriptionId") is not None:
            # About an invoice on its own it is the twin of `invoice.payment_failed`.
            kind, occasion, subject = MailKind.PAYMENT_FAILED, event.id, {"subscription_id": event.subject_id}
        case "invoice.refunded":
            kind, occasion = MailKind.REFUND, event.id
        case "subscription.cancelled":
            kind, occasion = MailKind.SUBSCRIPTION_CANCELLED, event.subject_id
            subject = {"subscription_id": event.subject_id}
        case _:
            return None
    return NewMail(
        id=tx.ids.new(),
        kind=kind,
        occasion=f"{kind}:{occasion}",
        person_id=event.person_id,
        amount_minor=amount if isinstance(amount, int) and kind is MailKind.REFUND else None,
        amount_currency=currency if isinstance(currency, str) and kind is MailKind.REFUND else None,
        **subject,
    )


def _is_about_money(event: FannedEvent) -> bool:
    """Nobody has to pay an invoice over nothing, or over less."""
    total = event.data.get("total")
    return isinstance(total, int) and total > 0


async def _store(tx: Tx, mails: Sequence[NewMail]) -> int:
    made = await insert_mails(tx.connection, mails=mails, now=tx.now) if mails else 0
    if made:
        tx.defer(send_job(now=tx.now))
    return made


async def make_reminders(database: Database, *, zone: ZoneInfo) -> int:
    """Makes the reminders of today, each once; returns how many. Can be interrupted and repeated."""
    return sum([await _make_reminders(database, kind, zone=zone) for kind in REMINDED_AFTER_DUE])


async def _make_reminders(database: Database, kind: MailKind, *, zone: ZoneInfo) -> int:
    first, last = reminded_days(kind, today=database.clock.now().astimezone(zone).date())
    # A day in any zone begins and ends at most a day from where it does in UTC; the rule is exact.
    after = Position(datetime.combine(first - timedelta(days=1), time.min, UTC), _FIRST_ID)
    due_before = datetime.combine(last + timedelta(days=2), time.min, UTC)
    made = 0
    while True:
        async with database.transaction_by(kind="system", name=REMIND_SCHEDULE) as tx:
            billing = await get_settings(tx.connection)
            if not (billing.has_mail_server and billing.wants(kind)):
                return made
            found = await list_open_invoices(
                tx.connection, due_from=after.at, due_before=due_before, after=after, limit=REMINDED_AT_ONCE
            )
            made += await _store(tx, [_reminder(tx, kind, each) for each in found if _is_due(tx, kind, each, zone)])
        if len(found) < REMINDED_AT_ONCE:
            return made
        after = Position(found[-1].due_at, found[-1].id)


def _is_due(tx: Tx, kind: MailKind, invoice: OpenInvoice, zone: ZoneInfo) -> bool:
    return is_reminded(
        kind,
        due_at=invoice.due_at,
        created_at=invoice.created_at,
        total_minor=invoice.total_minor,
        now=tx.now,
        zone=zone,
    )


def _reminder(tx: Tx, kind: MailKind, invoice: OpenInvoice) -> NewMail:
    return NewMail(
        id=tx.ids.new(),
        kind=kind,
        occasion=f"{kind}:{invoice.id}",
        person_id=invoice.person_id,
        invoice_id=invoice.id,
    )
