"""People are reminded on the day an invoice is due and 7 days after, where the books are kept, once each."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from ledger.jobs import SCHEDULES
from ledger.mail import making
from tests.api.paid_invoice import add_account
from tests.conftest import StartLedger
from tests.fakes.smtp import FakeMailServer
from tests.installation import OTHER
from tests.mail.mailing import Mailing

# The clock of the tests starts on a Sunday, 2026-03-15, at 9:30 UTC.


@pytest.fixture
async def reminding(mailing: Mailing) -> Mailing:
    """Only reminders are switched on."""
    await mailing.configure(mailInvoiceCreated=False, mailPaymentReceived=False)
    return mailing


async def test_an_open_invoice_is_reminded_of_on_its_day_and_a_week_later(reminding: Mailing) -> None:
    invoice_id = await reminding.invoice(dueDate="2026-03-20")
    told: dict[str, list[str]] = {}
    for _ in range(24 * 20):
        if await reminding.remind():
            (received,) = await reminding.send()
            told.setdefault(reminding.ledger.clock.now().date().isoformat(), []).append(received.subject)
        reminding.later(hours=1)

    assert told == {
        "2026-03-20": ["Reminder: invoice INV-2026-0001 is due on 20 March 2026"],
        "2026-03-27": ["Overdue: invoice INV-2026-0001 was due on 20 March 2026"],
    }
    occasions = [row["occasion"] for row in await reminding.rows()]
    assert occasions == [f"reminder_due:{invoice_id}", f"reminder_overdue:{invoice_id}"]


async def test_the_day_begins_at_the_midnight_of_the_books(start_ledger: StartLedger, post: FakeMailServer) -> None:
    mailing = Mailing(await start_ledger(LEDGER_TIMEZONE="America/Los_Angeles"), post)
    await mailing.configure(mailInvoiceCreated=False)
    # A date is that day in whatever zone; a time is a moment, here the 17th in the evening over there.
    await mailing.invoice(dueDate="2026-03-18")
    await mailing.invoice(dueDate="2026-03-18T05:00:00Z")

    async def reminded_at(moment: datetime) -> list[str]:
        mailing.ledger.clock.move(moment - mailing.ledger.clock.now())
        await mailing.remind()
        return [received.subject for received in await mailing.send()]

    # Midnight is at 7:00 UTC there.
    assert await reminded_at(datetime(2026, 3, 17, 6, 59, tzinfo=UTC)) == []
    assert await reminded_at(datetime(2026, 3, 17, 7, 0, tzinfo=UTC)) == [
        "Reminder: invoice INV-2026-0002 is due on 17 March 2026"
    ]
    assert await reminded_at(datetime(2026, 3, 18, 6, 59, tzinfo=UTC)) == []
    assert await reminded_at(datetime(2026, 3, 18, 7, 0, tzinfo=UTC)) == [
        "Reminder: invoice INV-2026-0001 is due on 18 March 2026"
    ]


async def test_a_day_without_a_worker_is_made_up_for_and_old_invoices_are_left_alone(reminding: Mailing) -> None:
    for due in ("2026-03-18", "2026-03-19", "2026-03-20"):
        await reminding.invoice(dueDate=due)

    reminding.later(days=5)
    assert reminding.ledger.clock.now().date().isoformat() == "2026-03-20"
    assert await reminding.remind() == 2
    dues = [received.subject.rpartition(" on ")[2] for received in await reminding.send()]
    assert sorted(dues) == ["19 March 2026", "20 March 2026"]


async def test_switching_reminders_on_does_not_remind_of_years_of_old_invoices(mailing: Mailing) -> None:
    await mailing.configure(mailReminderDue=False, mailReminderOverdue=False, mailInvoiceCreated=False)
    for due in ("2026-03-20", "2026-03-25", "2026-04-01"):
        await mailing.invoice(dueDate=due)
    mailing.later(days=30)
    assert await mailing.remind() == 0

    await mailing.configure(mailReminderDue=True, mailReminderOverdue=True)
    assert await mailing.remind() == 0
    await mailing.configure(smtpHost="-")
    mailing.later(days=-9)
    assert await mailing.remind() == 0


async def test_each_kind_is_switched_by_itself(reminding: Mailing) -> None:
    await reminding.configure(mailReminderDue=False)
    await reminding.invoice(dueDate="2026-03-20")
    reminding.later(days=5)
    assert await reminding.remind() == 0
    reminding.later(days=7)
    assert await reminding.remind() == 1
    assert await reminding.kinds() == ["reminder_overdue"]


async def test_whoever_got_the_invoice_on_the_day_it_is_due_is_not_reminded_on_that_day(reminding: Mailing) -> None:
    await reminding.invoice(dueDate="2026-03-15")
    await reminding.invoice(dueDate="2026-03-08")
    await reminding.invoice(dueDate="2026-03-14")
    assert await reminding.remind() == 0
    reminding.later(days=1)
    assert await reminding.remind() == 0
    reminding.later(days=6)
    # A week after the 15th, and, a day late, after the 14th; that of the 8th was a week old when it was made.
    assert await reminding.remind() == 2


async def test_what_is_settled_or_has_no_due_date_is_not_reminded_of(reminding: Mailing) -> None:
    due = "2026-03-20"
    await reminding.pay(await reminding.invoice(dueDate=due))
    cancelled = await reminding.invoice(dueDate=due)
    await reminding.ledger.staff.post(f"/api/invoices/{cancelled}/cancel")
    await reminding.invoice()
    await reminding.invoice(dueDate=due, items=[{"description": "Free", "unitPrice": 0}])
    reminding.later(days=5)
    assert await reminding.remind() == 0


async def test_an_invoice_that_was_paid_meanwhile_is_not_reminded_of(reminding: Mailing) -> None:
    paid, cancelled = [await reminding.invoice(dueDate="2026-03-20") for _ in range(2)]
    reminding.later(days=5)
    assert await reminding.remind() == 2
    await reminding.pay(paid)
    await reminding.ledger.staff.post(f"/api/invoices/{cancelled}/cancel")

    assert await reminding.send() == []

    assert {str(row["invoice_id"]): (row["status"], row["error"]) for row in await reminding.rows()} == {
        paid: ("skipped", "The invoice was paid meanwhile"),
        cancelled: ("skipped", "The invoice was cancelled meanwhile"),
    }


async def test_an_invoice_whose_payment_is_on_its_way_is_not_reminded_of(reminding: Mailing) -> None:
    account = await add_account(reminding.ledger)
    invoice_id = await reminding.invoice(dueDate="2026-03-20")
    await reminding.ledger.sql(
        """
        insert into checkout (id, invoice_id, connection_id, amount_minor, currency, status, is_unwanted, created_at,
            looks)
        values (gen_random_uuid(), $1, $2, 5950, 'EUR', 'pending', false, now(), 0)
        """,
        invoice_id,
        account,
    )
    reminding.later(days=5)
    await reminding.remind()
    assert await reminding.send() == []
    assert (await reminding.only())["error"] == "A payment of the invoice is on its way"


async def test_a_partly_paid_invoice_is_reminded_of_what_is_left(reminding: Mailing) -> None:
    invoice_id = await reminding.invoice(dueDate="2026-03-20")
    await reminding.pay(invoice_id, 2000)
    reminding.later(days=5)
    await reminding.remind()
    (received,) = await reminding.send()
    assert "39.50 EUR of it is still to be paid." in received.plain


async def test_many_are_reminded_in_small_steps_and_once_by_several_at_a_time(
    reminding: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "REMINDED_AT_ONCE", 7)
    for number in range(30):
        await reminding.invoice(dueDate="2026-03-20" if number % 3 else "2026-03-19T15:00:00Z", userId=OTHER)
    reminding.later(days=5)

    made = await asyncio.gather(*(reminding.remind() for _ in range(4)))

    assert sum(made) == 30
    assert len(await reminding.rows()) == 30
    assert await reminding.remind() == 0


async def test_open_invoices_that_are_due_are_found_by_their_index(reminding: Mailing) -> None:
    async with reminding.ledger.services.database.atomically() as connection:
        await connection.execute("set local enable_seqscan = off")
        plan = await connection.fetch(
            """
            explain select id, person_id, due_at, created_at, total_minor from invoice
            where status in ('pending', 'failed') and due_at >= $1 and due_at < $1 + interval '4 days'
                and (due_at, id) > ($1, '00000000-0000-0000-0000-000000000000') and person_id is not null
            order by due_at, id limit 500
            """,
            reminding.ledger.clock.now(),
        )
    assert any("invoice_open_idx" in row[0] for row in plan), plan


def test_reminders_are_made_every_hour() -> None:
    schedule = next(each for each in SCHEDULES if each.name == "mail.reminders")
    assert schedule.interval == timedelta(hours=1)
