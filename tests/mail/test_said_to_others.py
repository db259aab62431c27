"""Mails that would reach somebody else, say a wrong amount, or leave a name behind."""

import msgspec
import pytest

from ledger.billing_settings.mailboxes import find_address
from ledger.providers.contract import RefundState
from ledger.refunds.actions import settle_refund
from tests.installation import USER
from tests.mail.mailing import Mailing


@pytest.mark.parametrize(
    ("domain", "encoded"),
    [
        ("fußball.example", "xn--fuball-cta.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("ruderclub-münchen.example", "xn--ruderclub-mnchen-tzb.example"),
        ("RUDERCLUB.example", "ruderclub.example"),
    ],
)
def test_a_domain_with_a_sharp_s_is_not_taken_for_another(domain: str, encoded: str) -> None:
    """Since 2010 these are domains of their own; the encoding of 2003 writes to whoever has the one with `ss`."""
    address = find_address(f"ben@{domain}")
    assert address is not None
    assert address.lower() == f"ben@{encoded}"


@pytest.mark.parametrize("code", [450, 550])
async def test_what_the_server_repeats_of_a_person_is_not_stored(
    mailing: Mailing, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    mailing.ledger.lanyard.add_person(USER, "token-user", [], "Anna O'Neill", "anna.o'neill@example.org")
    mailing.post.answers["RCPT"] = f"{code} <anna.o'neill@example.org> Anna O'Neill: no mailbox anna.o'neill here"
    await mailing.invoice()
    await mailing.send()

    logged = capsys.readouterr()
    stored = str((await mailing.only())["error"])
    for text in (stored, logged.out, logged.err):
        assert "anna" not in text.lower(), text
    assert str(code) in stored
    assert "no mailbox" in stored


async def test_a_refund_in_another_currency_is_told_in_that_currency(mailing: Mailing) -> None:
    invoice_id = await mailing.invoice()
    await mailing.pay(invoice_id)
    await mailing.send()
    ledger, new = mailing.ledger, mailing.ledger.services.ids.new
    payment_id, refund_id, now = new(), new(), ledger.clock.now()
    await ledger.sql(
        """
        insert into payment (id, invoice_id, amount_minor, currency, provider, method, provider_reference,
            is_unexpected, received_at, created_at)
        values ($1, $2, 700, 'JPY', 'stripe', 'card', 'pi_yen', true, $3, $3)
        """,
        payment_id,
        invoice_id,
        now,
    )
    await ledger.sql(
        """
        insert into refund (id, payment_id, amount_minor, currency, status, created_at, looks)
        values ($1, $2, 700, 'JPY', 'requested', $3, 1)
        """,
        refund_id,
        payment_id,
        now,
    )
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        await settle_refund(tx, refund_id=refund_id, state=RefundState(remote_id="re_yen", status="succeeded"))

    (received,) = await mailing.send()

    assert "7.00 EUR" not in received.plain
    assert "700 JPY" in received.plain
    data = msgspec.json.decode(await ledger.value("select data from event where type = 'invoice.refunded'"))
    assert (data["currency"], data["amount"], data["amountCurrency"]) == ("EUR", 700, "JPY")
