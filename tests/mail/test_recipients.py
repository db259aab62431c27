"""Whom a mail goes to: asked from Lanyard when it is sent, harmless in its headers, never stored or logged."""

import pytest

from tests.installation import USER
from tests.mail.mailing import Mailing


async def test_lanyard_that_does_not_answer_is_asked_again(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.fan_out()
    mailing.ledger.lanyard.mode = "500"
    assert await mailing.send() == []
    waiting = await mailing.only()
    assert (waiting["status"], waiting["attempts"]) == ("waiting", 1)
    assert "Lanyard" in waiting["error"]
    assert mailing.post.connections == 0

    mailing.ledger.lanyard.mode = "ok"
    mailing.later(seconds=30)
    assert len(await mailing.send()) == 1


async def test_somebody_lanyard_does_not_know_gets_no_mail(mailing: Mailing) -> None:
    await mailing.invoice()
    mailing.ledger.lanyard.delete_person(USER)
    assert await mailing.send() == []
    skipped = await mailing.only()
    assert (skipped["status"], skipped["error"]) == ("skipped", "Lanyard does not know this person any more")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (None, "Lanyard has no e-mail address of this person"),
        ("ben", "The e-mail address that Lanyard has of this person cannot be used"),
        (
            "ben@example.org\r\nBcc: all@example.org",
            "The e-mail address that Lanyard has of this person cannot be used",
        ),
        ("ben@example.org, all@example.org", "The e-mail address that Lanyard has of this person cannot be used"),
        ("<ben@example.org>", "The e-mail address that Lanyard has of this person cannot be used"),
    ],
)
async def test_an_address_that_is_none_is_not_sent_to(mailing: Mailing, address: str | None, reason: str) -> None:
    mailing.ledger.lanyard.add_person(USER, "token-user", [], "Ben Buyer", address)
    await mailing.invoice()
    assert await mailing.send() == []
    skipped = await mailing.only()
    assert (skipped["status"], skipped["error"]) == ("skipped", reason)


async def test_a_name_cannot_break_out_of_its_header(mailing: Mailing) -> None:
    name = 'Ben "the boat"\r\nBcc: all@example.org\r\n\r\n<b>hello</b> \u2028 Jürgen'
    mailing.ledger.lanyard.add_person(USER, "token-user", [], name, "ben@example.org")
    await mailing.ledger.staff.put("/api/settings", {"companyName": "A <b> & Söhne, GmbH"})
    await mailing.invoice()

    (received,) = await mailing.send()

    assert received.recipients == ["ben@example.org"]
    assert [each.addr_spec for each in received.message["To"].addresses] == ["ben@example.org"]
    assert received.header("To") == 'Ben "the boat" Bcc: all@example.org <b>hello</b> Jürgen <ben@example.org>'
    assert received.message["Bcc"] is None
    assert received.header("From") == "A <b> & Söhne, GmbH <billing@club.example>"
    assert "&lt;b&gt;hello&lt;/b&gt; Jürgen," in received.html
    assert "<b>" not in received.html
    assert "A &lt;b&gt; &amp; Söhne, GmbH" in received.html


async def test_a_long_name_with_a_comma_stays_one_name(mailing: Mailing) -> None:
    """Python's own library forgets the quotes when it folds such a header, and makes two addresses of it."""
    name = "The Association for Rowing, Canoeing and Sailing on the River and its Lakes, founded 1892"
    mailing.ledger.lanyard.add_person(USER, "token-user", [], f"{name} <x@evil.example>,", "ben@example.org")
    await mailing.ledger.staff.put("/api/settings", {"companyName": name})
    await mailing.invoice()

    (received,) = await mailing.send()

    assert [each.addr_spec for each in received.message["To"].addresses] == ["ben@example.org"]
    assert [each.addr_spec for each in received.message["From"].addresses] == ["billing@club.example"]
    assert received.header("From") == f"{name} <billing@club.example>"
    assert max(len(line) for line in received.content.split(b"\r\n\r\n")[0].splitlines()) <= 78


async def test_an_address_with_umlauts_in_its_domain_is_sent_to_in_its_encoded_form(mailing: Mailing) -> None:
    mailing.ledger.lanyard.add_person(USER, "token-user", [], "Ben", "ben@ruderclub-münchen.de")
    await mailing.invoice()
    (received,) = await mailing.send()
    assert received.recipients == ["ben@xn--ruderclub-mnchen-tzb.de"]


async def test_whoever_asked_to_be_erased_or_was_freed_gets_no_mail(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.fan_out()
    await mailing.ledger.sql("update person set restricted_at = now()")
    assert await mailing.send() == []
    assert (await mailing.only())["error"] == "This person asked to be erased"

    await mailing.ledger.sql("update mail set status = 'waiting', person_id = null, next_try_at = created_at")
    assert await mailing.send() == []
    assert (await mailing.only())["error"] == "Ledger has let go of this person"


async def test_what_was_switched_off_meanwhile_is_not_sent(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.fan_out()
    await mailing.ledger.staff.put("/api/settings", {"mailInvoiceCreated": False})
    assert await mailing.send() == []
    assert (await mailing.only())["error"] == "This kind of mail was switched off meanwhile"

    await mailing.ledger.staff.put("/api/settings", {"mailInvoiceCreated": True, "smtpHost": "-"})
    await mailing.ledger.sql("update mail set status = 'waiting', next_try_at = created_at")
    await mailing.send()
    assert (await mailing.only())["error"] == "The mail server was removed from the settings meanwhile"


async def test_neither_address_nor_name_is_stored_or_logged(
    mailing: Mailing, capsys: pytest.CaptureFixture[str]
) -> None:
    mailing.post.answers["RCPT"] = "450 <ben@example.org> (Ben Buyer) ist heute nicht da"
    await mailing.invoice()
    await mailing.send()
    mailing.post.answers.clear()
    mailing.later(seconds=30)
    assert len(await mailing.send()) == 1

    logged = capsys.readouterr()
    stored = str(await mailing.rows())
    jobs = str(await mailing.ledger.sql("select * from pgqueuer"))
    for text in (logged.out, logged.err, stored, jobs):
        assert "ben@example.org" not in text
        assert "swordfish" not in text
