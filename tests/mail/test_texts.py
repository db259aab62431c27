"""What people read: every kind of mail in both languages, as it arrives, word by word.

`expected/` holds the texts. After a wanted change, delete the file and run the test twice; then read what it says.
"""

from pathlib import Path

import pytest

from ledger.billing_settings.mail_kinds import MailKind
from ledger.database.transaction import NewEvent
from ledger.invoices.actions import invoice_event
from ledger.invoices.settling import fail_attempt
from ledger.invoices.store import lock_invoice
from tests.api.paid_invoice import add_account
from tests.api.subscribed import add_product, add_subscription
from tests.conftest import StartLedger
from tests.fakes.smtp import FakeMailServer, Received
from tests.installation import USER
from tests.mail.mailing import Mailing

EXPECTED = Path(__file__).with_name("expected")
COMPANY = "Ruderclub Grün-Weiß e. V."
LANGUAGES = ("en", "de")
IDS = "00000000-0000-0000-0000-000000000000"


async def sent(mailing: Mailing, language: str, kind: MailKind) -> Received:
    """Lets something happen, and returns the mail about it."""
    switches = {"".join(["mail", *(part.title() for part in each.value.split("_"))]): each is kind for each in MailKind}
    mailing.ledger.lanyard.add_person(USER, "token-user", [], "Jörg Müller", "ben@example.org")
    await mailing.configure(language=language, companyName=COMPANY, **switches)
    match kind:
        case MailKind.INVOICE_CREATED:
            await mailing.with_bank()
            await mailing.invoice(dueDate="2026-03-31")
        case MailKind.PAYMENT_RECEIVED:
            await mailing.pay(await mailing.invoice())
        case MailKind.PAYMENT_FAILED:
            await fail(mailing, await mailing.invoice())
        case MailKind.REFUND:
            await refund(mailing, await mailing.invoice(), amount_minor=2000)
        case MailKind.SUBSCRIPTION_CANCELLED:
            product = await add_product(mailing.ledger, "Mitgliedschaft Jugend & Familie")
            ended = await add_subscription(mailing.ledger, product_id=product, status="cancelled")
            await mailing.about_subscription("subscription.cancelled", ended)
        case MailKind.REMINDER_DUE | MailKind.REMINDER_OVERDUE:
            await mailing.with_bank()
            invoice_id = await mailing.invoice(dueDate="2026-03-31")
            await mailing.pay(invoice_id, 2000)
            mailing.later(days=16 if kind is MailKind.REMINDER_DUE else 23)
            assert await mailing.remind() == 1
    (received,) = await mailing.send()
    return received


async def fail(mailing: Mailing, invoice_id: str) -> None:
    account = await add_account(mailing.ledger)
    async with mailing.ledger.services.database.transaction_by(kind="provider", name="stripe") as tx:
        await fail_attempt(tx, invoice_id=invoice_id, connection_id=account, checkout_remote_id=None, failed_at=tx.now)


async def refund(mailing: Mailing, invoice_id: str, *, amount_minor: int) -> None:
    await mailing.pay(invoice_id)
    async with mailing.ledger.services.database.transaction_by(kind="system", name="test") as tx:
        invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
        tx.publish(invoice_event("invoice.refunded", invoice, amount_minor=amount_minor))


async def check(mailing: Mailing, received: Received, name: str) -> None:
    """Compares a mail with what is written down, ids aside."""
    rows = await mailing.rows()
    subject_id = str(rows[-1]["invoice_id"] or rows[-1]["subscription_id"])
    shown = f"{received.subject}\n\n{received.plain}".replace(subject_id, IDS)
    for path, text in ((EXPECTED / f"{name}.txt", shown), (EXPECTED / f"{name}.html", received.html)):
        text = text.replace(subject_id, IDS)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            pytest.fail(f"{path.name} was written: read it, then run this again")
        assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", MailKind)
async def test_a_mail_says_exactly_this(mailing: Mailing, language: str, kind: MailKind) -> None:
    await check(mailing, await sent(mailing, language, kind), f"{language}-{kind}")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_subscription_that_could_not_be_charged_is_told_of_in_its_own_words(
    mailing: Mailing, language: str
) -> None:
    await mailing.configure(language=language, companyName=COMPANY)
    unpaid = await add_subscription(mailing.ledger, status="past_due")
    person = await mailing.ledger.value("select person_id from subscription")
    data = {"invoiceId": None, "subscriptionId": unpaid}
    await mailing.publish(
        [NewEvent(type="subscription.payment_failed", subject_id=unpaid, person_id=person, data=data)]
    )
    (received,) = await mailing.send()
    await check(mailing, received, f"{language}-payment_failed-subscription")


async def test_without_a_provider_a_company_and_a_dashboard_only_the_facts_are_left(
    start_ledger: StartLedger, post: FakeMailServer
) -> None:
    mailing = Mailing(await start_ledger(DASHBOARD_URL=""), post)
    await mailing.configure()
    mailing.ledger.lanyard.add_person(USER, "token-user", [], None, "ben@example.org")
    await mailing.invoice()
    (received,) = await mailing.send()
    assert received.plain == (
        "Hello,\n\nHere is your invoice INV-2026-0001 over 59.50 EUR.\n\nThis message was sent automatically.\n"
    )


async def test_a_provider_with_a_page_for_paying_is_led_to_and_not_asked(mailing: Mailing) -> None:
    account = await add_account(mailing.ledger)
    assert (await mailing.ledger.staff.post(f"/api/providers/{account}/activate")).status == 200
    invoice_id = await mailing.invoice()
    (received,) = await mailing.send()
    link = f"https://dashboard.example.org/ledger/my/invoices/{invoice_id}"
    assert f"View and pay your invoice: {link}\n" in received.plain
    assert await mailing.ledger.value("select count(*) from checkout") == 0


@pytest.mark.parametrize(
    ("settings", "instructions"),
    [
        ({"paymentMethod": "cash"}, "Please pay invoice INV-2026-0001 in cash.\n\nAmount: 59.50 EUR\n"),
        (
            {"paymentMethod": "custom", "customInstructions": "Pay <{amount}> at the boathouse.\nName {reference}."},
            "Pay <59.50 EUR> at the boathouse.\nName RF16INV20260001.\n",
        ),
    ],
)
async def test_instructions_are_those_of_the_active_provider_and_are_not_stored(
    mailing: Mailing, settings: dict[str, str], instructions: str
) -> None:
    await mailing.with_bank(**settings)
    await mailing.invoice()
    (received,) = await mailing.send()
    assert f"\n\n{instructions}" in received.plain
    if "<" in instructions:
        assert "Pay &lt;59.50 EUR&gt; at the boathouse.\nName RF16INV20260001." in received.html
    assert await mailing.ledger.value("select payment_instructions from invoice") is None


async def test_instructions_are_those_of_the_provider_that_is_active_when_the_mail_is_sent(mailing: Mailing) -> None:
    await mailing.with_bank()
    await mailing.invoice()
    await mailing.fan_out()
    await mailing.with_bank(paymentMethod="cash")
    (received,) = await mailing.send()
    assert "in cash" in received.plain
    assert "IBAN" not in received.plain


async def test_an_invoice_that_was_paid_before_its_mail_went_out_does_not_ask_for_money(mailing: Mailing) -> None:
    await mailing.with_bank()
    await mailing.pay(await mailing.invoice())
    created, _ = sorted(await mailing.send(), key=lambda each: each.subject)
    assert "Nothing is left to be paid." in created.plain
    assert "IBAN" not in created.plain


async def test_an_invoice_that_was_cancelled_before_its_mail_went_out_is_not_sent(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    await mailing.ledger.staff.post(f"/api/invoices/{invoice_id}/cancel")
    assert await mailing.send() == []
    assert (await mailing.only())["error"] == "The invoice was cancelled meanwhile"


@pytest.mark.parametrize(
    ("currency", "amount", "english", "german"),
    [
        ("JPY", 5000, "5000 JPY", "5000 JPY"),
        ("KWD", 1234, "1.234 KWD", "1,234 KWD"),
        ("EUR", 123456789, "1234567.89 EUR", "1234567,89 EUR"),
    ],
)
async def test_amounts_have_the_decimals_of_their_currency(
    mailing: Mailing, currency: str, amount: int, english: str, german: str
) -> None:
    for language, expected in (("en", english), ("de", german)):
        await mailing.configure(language=language)
        await mailing.invoice(currency=currency, items=[{"description": "Fee", "unitPrice": amount}])
        (received,) = await mailing.send()
        assert received.subject.endswith(expected)
