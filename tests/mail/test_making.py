"""Mails are made of what happened, once each, and only where somebody wants them sent."""

from datetime import timedelta

import pytest

from ledger.database.transaction import NewEvent
from ledger.events import FannedEvent
from ledger.invoices.actions import invoice_event
from ledger.invoices.settling import fail_attempt
from ledger.invoices.store import lock_invoice, update_failed_at
from ledger.mail.making import make_mails
from ledger.providers.store import list_connections
from tests.api.paid_invoice import add_account, paid_invoice
from tests.api.subscribed import add_period, add_subscription
from tests.installation import Installation
from tests.mail.mailing import Mailing


async def test_an_invoice_and_its_payment_are_two_mails(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    await mailing.pay(invoice_id)
    await mailing.fan_out()

    rows = await mailing.rows()
    assert [(row["kind"], row["occasion"], str(row["invoice_id"])) for row in rows] == [
        ("invoice_created", f"invoice_created:{invoice_id}", invoice_id),
        ("payment_received", f"payment_received:{invoice_id}", invoice_id),
    ]


async def test_a_part_of_a_payment_is_no_payment_yet(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    await mailing.pay(invoice_id, 1000)
    await mailing.fan_out()
    assert await mailing.kinds() == ["invoice_created"]
    await mailing.pay(invoice_id, 4950)
    await mailing.fan_out()
    assert await mailing.kinds() == ["invoice_created", "payment_received"]


async def test_what_a_subscriptions_period_cost_is_told_once_as_paid(mailing: Mailing) -> None:
    subscription = await add_subscription(mailing.ledger)
    invoice_id = await mailing.invoice()
    await mailing.pay(invoice_id)
    await add_period(mailing.ledger, subscription, invoice_id=invoice_id)
    await mailing.fan_out()
    assert await mailing.kinds() == ["payment_received"]


async def test_nobody_is_told_of_invoices_over_nothing(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice(items=[{"description": "Helper ticket", "unitPrice": 0}])
    await mailing.pay(invoice_id)
    await mailing.fan_out()
    assert await mailing.kinds() == []


async def test_a_failed_attempt_is_one_mail_though_it_is_two_events(mailing: Mailing) -> None:
    await add_account(mailing.ledger)
    invoice_id = await mailing.invoice()
    await fail(mailing, invoice_id)
    await mailing.fan_out()
    types = await mailing.ledger.sql("select type from event where type like '%.payment_failed' order by type")
    assert [row["type"] for row in types] == ["invoice.payment_failed", "subscription.payment_failed"]
    assert await mailing.kinds() == ["invoice_created", "payment_failed"]


async def test_each_failed_attempt_is_a_mail_of_its_own(mailing: Mailing) -> None:
    await add_account(mailing.ledger)
    invoice_id = await mailing.invoice()
    for _ in range(2):
        await fail(mailing, invoice_id)
        async with mailing.ledger.services.database.transaction_by(kind="system", name="test") as tx:
            # Another attempt begins.
            await update_failed_at(tx.connection, invoice_id=invoice_id, failed_at=None)
            await tx.connection.execute("update invoice set status = 'pending' where id = $1", invoice_id)
        mailing.later(minutes=1)
    await mailing.fan_out()
    assert await mailing.kinds() == ["invoice_created", "payment_failed", "payment_failed"]


async def fail(mailing: Mailing, invoice_id: str) -> None:
    async with mailing.ledger.services.database.transaction_by(kind="provider", name="stripe") as tx:
        connection_id = (await list_connections(tx.connection))[0].id
        await fail_attempt(
            tx, invoice_id=invoice_id, connection_id=connection_id, checkout_remote_id=None, failed_at=tx.now
        )


async def test_a_subscription_that_could_not_be_charged_and_one_that_ended_are_told_of(mailing: Mailing) -> None:
    unpaid = await add_subscription(mailing.ledger, status="past_due")
    ended = await add_subscription(mailing.ledger, status="cancelled")
    data = {"invoiceId": None, "subscriptionId": unpaid}
    person = await mailing.ledger.value("select person_id from subscription limit 1")
    await mailing.publish(
        [NewEvent(type="subscription.payment_failed", subject_id=unpaid, person_id=person, data=data)]
    )
    await mailing.about_subscription("subscription.cancelled", ended)
    await mailing.about_subscription("subscription.cancelled", ended)
    await mailing.fan_out()

    rows = await mailing.rows()
    assert [(row["kind"], str(row["subscription_id"]), row["invoice_id"]) for row in rows] == [
        ("payment_failed", unpaid, None),
        ("subscription_cancelled", ended, None),
    ]


async def test_each_refund_is_a_mail_with_its_amount(mailing: Mailing) -> None:
    paid = await paid_invoice(mailing.ledger, connection_id=await add_account(mailing.ledger))
    async with mailing.ledger.services.database.transaction_by(kind="system", name="test") as tx:
        invoice = await lock_invoice(tx.connection, invoice_id=paid.id)
        for amount_minor in (1000, 1000, 3000):
            tx.publish(invoice_event("invoice.refunded", invoice, amount_minor=amount_minor))
    await mailing.fan_out()
    refunds = [row["amount_minor"] for row in await mailing.rows() if row["kind"] == "refund"]
    assert refunds == [1000, 1000, 3000]


async def test_the_same_event_makes_its_mail_once(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.fan_out()
    await mailing.ledger.sql("update event set is_fanned_out = false")
    await mailing.fan_out()
    assert len(await mailing.rows()) == 1


async def test_what_nobody_needs_to_be_written_about_makes_no_mail(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    assert (await mailing.ledger.staff.post(f"/api/invoices/{invoice_id}/cancel")).status == 200
    await mailing.about_subscription("subscription.created", await add_subscription(mailing.ledger))
    await mailing.fan_out()
    assert await mailing.kinds() == ["invoice_created"]


async def test_without_a_mail_server_no_mail_is_made_and_that_is_no_error(ledger: Installation) -> None:
    """Nor is it made later: nobody wants the mails of a year when they set up a mail server."""
    created = await ledger.create_invoice()
    assert created.status == 201
    assert await ledger.value("select count(*) from mail") == 0
    event = FannedEvent(
        id=ledger.services.ids.new(),
        type="invoice.created",
        subject_id=created.body["id"],
        person_id=1,
        data={"total": 5000},
        created_at=ledger.clock.now(),
    )
    for settings in ({}, {"smtpHost": "mail.example.org"}, {"smtpHost": "-", "smtpFrom": "a@example.org"}):
        await ledger.staff.put("/api/settings", settings)
        async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
            await make_mails(tx, events=[event])
        assert await ledger.value("select count(*) from mail") == 0
        assert await ledger.value("select count(*) from pgqueuer where entrypoint = 'mail.send'") == 0


SWITCH_OF = {
    "invoice_created": "mailInvoiceCreated",
    "payment_received": "mailPaymentReceived",
    "payment_failed": "mailPaymentFailed",
    "refund": "mailRefund",
    "subscription_cancelled": "mailSubscriptionCancelled",
}


@pytest.mark.parametrize("kind", SWITCH_OF)
async def test_a_kind_that_is_switched_off_is_not_made(mailing: Mailing, kind: str) -> None:
    await add_account(mailing.ledger)
    await mailing.configure(**{SWITCH_OF[kind]: False})
    failed = await mailing.invoice()
    await fail(mailing, failed)
    paid = await mailing.invoice()
    await mailing.pay(paid)
    async with mailing.ledger.services.database.transaction_by(kind="system", name="test") as tx:
        tx.publish(
            invoice_event("invoice.refunded", await lock_invoice(tx.connection, invoice_id=paid), amount_minor=5)
        )
    await mailing.about_subscription(
        "subscription.cancelled", await add_subscription(mailing.ledger, status="cancelled")
    )
    await mailing.fan_out()

    assert set(await mailing.kinds()) == set(SWITCH_OF) - {kind}


async def test_somebody_ledger_let_go_of_is_not_written_to(mailing: Mailing) -> None:
    await mailing.publish(
        [NewEvent(type="invoice.created", subject_id=None, person_id=None, data={"total": 5000})],
    )
    await mailing.fan_out()
    assert await mailing.kinds() == []


async def test_a_mail_is_made_in_the_transaction_of_the_fan_out(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    event = FannedEvent(
        id=mailing.ledger.services.ids.new(),
        type="invoice.created",
        subject_id=invoice_id,
        person_id=await mailing.ledger.value("select id from person limit 1"),
        data={"total": 5000},
        created_at=mailing.ledger.clock.now() - timedelta(minutes=1),
    )
    database = mailing.ledger.services.database

    async def break_off() -> None:
        async with database.transaction_by(kind="system", name="test") as tx:
            await make_mails(tx, events=[event])
            assert await tx.connection.fetchval("select count(*) from mail") == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_off()
    assert await mailing.rows() == []
