"""What staff sees of mails, and sending one again."""

import pytest

from ledger.mail.rules import MailStatus
from tests.api.made_mails import SENTENCE, add_mail
from tests.api.shown import buttons, cells, columns
from tests.installation import Installation
from tests.mail.mailing import Mailing


async def test_staff_sees_what_became_of_mails_and_no_address(ledger: Installation) -> None:
    await add_mail(ledger)
    await add_mail(ledger, status=MailStatus.SENT)

    answer = await ledger.staff.get("/api/mails")

    assert columns(answer) == [
        ("createdAt", "Time"),
        ("kind", "Kind"),
        ("invoiceNumber", "Invoice"),
        ("status", "Status"),
        ("error", "Error"),
    ]
    assert answer.body["total"] == 2
    newest, first = answer.body["rows"]
    assert (newest["status"], newest["error"]) == ("sent", "—")
    assert (first["kind"], first["invoiceNumber"], first["status"], first["error"]) == (
        "Invoice Created",
        "INV-2026-0001",
        "failed",
        SENTENCE,
    )
    assert b"@example.org" not in answer.content


async def test_the_list_is_filtered_by_status_and_goes_on(ledger: Installation) -> None:
    for status in (MailStatus.FAILED, MailStatus.SENT, MailStatus.FAILED):
        await add_mail(ledger, status=status)
    failed = await ledger.staff.get("/api/mails?status=failed&limit=1")
    assert (failed.body["total"], len(failed.body["rows"])) == (2, 1)
    rest = await ledger.staff.get(f"/api/mails?status=failed&limit=1&cursor={failed.body['nextCursor']}")
    assert len(rest.body["rows"]) == 1
    assert "nextCursor" not in rest.body
    assert rest.body["rows"][0]["id"] != failed.body["rows"][0]["id"]
    assert (await ledger.staff.get("/api/mails?status=lost")).status == 400


async def test_a_failed_mail_is_sent_again_with_the_same_message_id(mailing: Mailing) -> None:
    mailing.post.answers["RCPT"] = "550 no such user"
    await mailing.invoice()
    await mailing.send()
    mail_id = (await mailing.only())["id"]
    mailing.post.answers.clear()
    assert await mailing.send() == []

    answer = await mailing.ledger.staff.post(f"/api/mails/{mail_id}/send")

    assert (answer.status, answer.body) == (200, {"success": True})
    (received,) = await mailing.send()
    assert received.message["Message-ID"] == f"<{mail_id}@club.example>"
    sent = await mailing.only()
    assert (sent["status"], sent["attempts"], sent["error"]) == ("sent", 1, None)
    entry = (await mailing.ledger.staff.get("/api/audit")).body["rows"][0]
    assert (entry["action"], entry["entityType"], entry["entityId"]) == ("mail.sent_again", "mail", str(mail_id))
    jobs = await mailing.ledger.value("select count(*) from pgqueuer where entrypoint = 'mail.send'")
    assert jobs >= 1


async def test_a_skipped_mail_can_be_sent_again_and_is_looked_at_anew(mailing: Mailing) -> None:
    mail_id = await add_mail(mailing.ledger, status=MailStatus.SKIPPED)
    assert (await mailing.ledger.staff.post(f"/api/mails/{mail_id}/send")).status == 200
    mailing.ledger.lanyard.delete_person("user-ben-0000000000001")
    await mailing.sender.send_due()
    assert await mailing.ledger.value("select status from mail where id = $1", mail_id) == "skipped"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (MailStatus.SENT, "This mail was sent; the mail server took it"),
        (MailStatus.WAITING, "This mail is on its way already; wait for how that ends"),
    ],
)
async def test_what_was_sent_or_is_on_its_way_is_not_sent_again(
    ledger: Installation, status: MailStatus, sentence: str
) -> None:
    mail_id = await add_mail(ledger, status=status)
    answer = await ledger.staff.post(f"/api/mails/{mail_id}/send")
    assert (answer.status, answer.error) == (400, sentence)


async def test_a_mail_that_is_none_is_not_found(ledger: Installation) -> None:
    for mail_id in (ledger.services.ids.new(), "x", "..%2f"):
        assert (await ledger.staff.post(f"/api/mails/{mail_id}/send")).status == 404


async def test_the_settings_say_whether_mails_are_sent(ledger: Installation) -> None:
    async def shown() -> list[object]:
        answer = await ledger.staff.get("/api/settings/mail")
        return [field["value"] for field in answer.body["fields"]]

    assert await shown() == ["No mails are sent: enter SMTP Host and SMTP From", "0", "built in"]
    assert buttons(await ledger.staff.get("/api/settings/actions")) == {}

    await ledger.staff.put("/api/settings", {"smtpHost": "mail.example.org", "smtpFrom": "a@example.org"})
    await add_mail(ledger, status=MailStatus.WAITING)
    assert await shown() == ["Mails are sent through mail.example.org", "1", "built in"]
    assert buttons(await ledger.staff.get("/api/settings/actions")) == {
        "Send Test Mail": ("POST", "/api/settings/test-mail")
    }


async def test_mail_that_cannot_be_sent_neither_fails_nor_delays_a_request(mailing: Mailing) -> None:
    await mailing.post.stop()
    created = await mailing.ledger.create_invoice()
    assert created.status == 201
    assert cells(await mailing.ledger.staff.get("/api/mails"), "status") == []
    await mailing.send()
    assert cells(await mailing.ledger.staff.get("/api/mails"), "status") == ["waiting"]
