"""D6: a mail is sent once, tried again as often as promised, and nothing that fails about it reaches anybody else."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ledger.mail import sending
from ledger.mail.store import update_settled
from tests.fakes.smtp import Stage
from tests.mail.mailing import Mailing

RETRIES = [
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(hours=24),
]


async def test_a_mail_goes_to_the_person_who_is_billed(mailing: Mailing) -> None:
    await mailing.ledger.staff.put("/api/settings", {"companyName": "Ruderclub Grün-Weiß e. V."})
    invoice_id = await mailing.invoice()

    (received,) = await mailing.send()

    assert (received.sender, received.recipients) == ("billing@club.example", ["ben@example.org"])
    headers = received.message
    assert received.header("From") == "Ruderclub Grün-Weiß e. V. <billing@club.example>"
    assert received.header("To") == "Ben Buyer <ben@example.org>"
    assert headers["Subject"] == "Invoice INV-2026-0001 over 59.50 EUR"
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Content-Language"] == "en"
    assert headers["Reply-To"] is None
    assert headers["Date"].datetime == mailing.ledger.clock.now().replace(microsecond=0)
    stored = await mailing.only()
    assert headers["Message-ID"] == f"<{stored['id']}@club.example>"
    assert headers.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in headers.iter_parts()] == ["text/plain", "text/html"]
    link = f"https://dashboard.example.org/ledger/my/invoices/{invoice_id}"
    assert link in received.plain
    assert f'href="{link}"' in received.html
    assert (stored["status"], stored["error"], stored["attempts"]) == ("sent", None, 1)
    assert stored["settled_at"] == mailing.ledger.clock.now()


async def test_a_mail_is_sent_once_however_many_send_at_once(mailing: Mailing) -> None:
    for _ in range(10):
        await mailing.invoice()
    await mailing.fan_out()
    others = [mailing.sender, *(another(mailing) for _ in range(4))]

    await asyncio.gather(*(each.send_due() for each in others))

    assert len(mailing.post.received) == 10
    assert len({received.message["Message-ID"] for received in mailing.post.received}) == 10
    assert {row["status"] for row in await mailing.rows()} == {"sent"}
    assert await mailing.send() == []


def another(mailing: Mailing) -> sending.MailSender:
    """A worker process of its own, as far as mails go."""
    known = vars(mailing.sender)
    return sending.MailSender(
        database=known["_database"],
        connections=known["_connections"],
        settings=known["_settings"],
        vault=known["_vault"],
        addressees=known["_addressees"],
        templates=known["templates"],
    )


async def test_a_few_mails_are_sent_at_once_and_the_rest_is_left_to_the_next_job(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(13):
        await mailing.invoice()
    await mailing.fan_out()
    await mailing.ledger.sql("delete from pgqueuer")
    monkeypatch.setattr(sending, "STINT_S", 0.0)
    assert await mailing.sender.send_due() == 1
    assert await mailing.ledger.value("select count(*) from pgqueuer where entrypoint = 'mail.send'") == 1

    monkeypatch.setattr(sending, "STINT_S", 10.0)
    mailing.ledger.lanyard.delay_s = 0.05
    assert await mailing.sender.send_due() == 12

    # How many of them meet at the mail server depends on how fast it is.
    assert 1 <= mailing.post.most_at_once <= sending.SENT_AT_ONCE
    assert mailing.ledger.lanyard.most_user_calls_at_once == sending.SENT_AT_ONCE
    assert await mailing.ledger.value("select count(*) from pgqueuer where entrypoint = 'mail.send'") == 1


async def test_making_a_mail_leaves_a_job_that_sends_it(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.invoice()
    await mailing.fan_out()

    jobs = await mailing.ledger.sql("select entrypoint from pgqueuer where entrypoint like 'mail.%'")
    assert [job["entrypoint"] for job in jobs] == ["mail.send"]


async def test_a_server_that_is_away_is_tried_again_for_31_hours(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.post.stop()
    tries = [mailing.ledger.clock.now()]
    await mailing.send()

    for wait in RETRIES:
        waiting = await mailing.only()
        assert (waiting["status"], waiting["attempts"]) == ("waiting", len(tries))
        assert waiting["next_try_at"] == tries[-1] + wait
        assert waiting["error"] == (
            f"The mail server 127.0.0.1:{mailing.post.port} takes no connections: check SMTP Host and SMTP Port"
        )
        mailing.ledger.clock.move(wait - timedelta(seconds=1))
        await mailing.send()
        assert (await mailing.only())["attempts"] == len(tries)
        mailing.later(seconds=1)
        tries.append(mailing.ledger.clock.now())
        await mailing.send()

    failed = await mailing.only()
    assert (failed["status"], failed["attempts"], failed["next_try_at"]) == ("failed", 7, None)
    assert "takes no connections" in failed["error"]
    assert tries[-1] - tries[0] == timedelta(hours=31, minutes=12, seconds=30)


async def test_each_retry_has_a_job_at_its_time(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.post.stop()
    await mailing.fan_out()
    await mailing.ledger.sql("delete from pgqueuer")

    await mailing.sender.send_due()

    (job,) = await mailing.ledger.sql("select entrypoint, execute_after - created as wait from pgqueuer")
    assert job["entrypoint"] == "mail.send"
    assert abs(job["wait"] - timedelta(seconds=30)) < timedelta(seconds=2)


async def test_a_server_that_is_back_gets_the_mail_once(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.post.stop()
    assert await mailing.send() == []
    await mailing.post.start()
    assert await mailing.send() == []

    mailing.later(seconds=30)

    assert len(await mailing.send()) == 1
    assert (await mailing.only())["error"] is None


async def test_while_the_server_is_away_one_mail_tries_it_for_all(mailing: Mailing) -> None:
    for _ in range(20):
        await mailing.invoice()
    await mailing.post.stop()
    await mailing.send()

    attempts = [row["attempts"] for row in await mailing.rows()]
    assert sum(attempts) == 1
    await mailing.post.start()
    assert len(await mailing.send()) == 19


async def test_a_refused_recipient_is_given_up_at_once_and_the_address_is_not_kept(mailing: Mailing) -> None:
    mailing.post.answers["RCPT"] = "550 5.1.1 <ben@example.org>: Recipient address rejected: no such user"
    await mailing.invoice()

    assert await mailing.send() == []

    failed = await mailing.only()
    assert (failed["status"], failed["attempts"]) == ("failed", 1)
    assert failed["error"] == (
        f"The mail server 127.0.0.1:{mailing.post.port} does not take mail for this person's address "
        "(550 5.1.1 <…>: Recipient address rejected: no such user)"
    )


async def test_a_refused_message_is_given_up_at_once(mailing: Mailing) -> None:
    mailing.post.answers["DATA"] = "554 5.7.1 looks like spam"
    await mailing.invoice()
    assert await mailing.send() == []
    failed = await mailing.only()
    assert failed["status"] == "failed"
    assert failed["error"].endswith("does not take this mail (554 5.7.1 looks like spam)")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("MAIL", "451 4.3.0 try later"),
        ("MAIL", "550 5.7.1 not allowed to send as this"),
        ("RCPT", "450 4.2.0 greylisted, come back in a minute"),
        ("DATA", "452 4.3.1 no space left"),
    ],
)
async def test_what_may_be_different_later_is_tried_again(mailing: Mailing, command: str, answer: str) -> None:
    mailing.post.answers[command] = answer
    await mailing.invoice()
    assert await mailing.send() == []
    waiting = await mailing.only()
    assert (waiting["status"], waiting["attempts"]) == ("waiting", 1)
    assert answer in waiting["error"]

    mailing.post.answers.clear()
    mailing.later(seconds=30)
    assert len(await mailing.send()) == 1


async def test_one_refused_recipient_does_not_keep_the_others_waiting(mailing: Mailing) -> None:
    for _ in range(8):
        await mailing.invoice()
    mailing.post.answers["RCPT"] = "550 no"
    assert await mailing.send() == []
    assert [row["status"] for row in await mailing.rows()] == ["failed"] * 8


BEFORE: list[Stage] = ["greeting", "MAIL", "RCPT"]
AFTER: list[Stage] = ["DATA", "after the message"]


@pytest.mark.parametrize("stage", BEFORE)
async def test_who_dies_before_handing_over_has_sent_nothing_and_another_sends(mailing: Mailing, stage: Stage) -> None:
    await mailing.invoice()
    await die_at(mailing, stage)
    assert (await mailing.only())["status"] == "waiting"
    # Until the claim is over, nobody else takes it.
    assert await mailing.send() == []

    mailing.later(seconds=60)

    assert len(await mailing.send()) == 1
    assert await mailing.send() == []
    assert (await mailing.only())["attempts"] == 2


@pytest.mark.parametrize("stage", AFTER)
async def test_who_dies_while_handing_over_may_have_sent_it_so_nobody_sends_it_again(
    mailing: Mailing, stage: Stage
) -> None:
    await mailing.invoice()
    await die_at(mailing, stage)
    arrived = len(mailing.post.received)
    assert (await mailing.only())["status"] == "handed_over"
    assert await mailing.send() == []

    for _ in range(3):
        mailing.later(hours=30)
        assert await mailing.send() == []

    given_up = await mailing.only()
    assert (given_up["status"], given_up["error"]) == ("failed", sending.FORGOTTEN)
    assert "it may have arrived" in sending.FORGOTTEN
    assert len(mailing.post.received) == arrived


async def die_at(mailing: Mailing, stage: Stage) -> None:
    """Stops the one who sends in the middle, without a chance to do anything more."""
    mailing.post.hangs_at = stage
    await mailing.fan_out()
    running = asyncio.create_task(mailing.sender.send_due())
    async with asyncio.timeout(5):
        await mailing.post.is_hanging.wait()
    # In the very moment of connecting, Python 3.11 loses a cancellation.
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    mailing.post.hangs_at = None


@pytest.mark.parametrize("stage", BEFORE)
async def test_a_connection_that_breaks_before_the_message_is_tried_again(mailing: Mailing, stage: Stage) -> None:
    mailing.post.breaks_at = stage
    await mailing.invoice()
    assert await mailing.send() == []
    waiting = await mailing.only()
    assert waiting["status"] == "waiting"
    assert "127.0.0.1" in waiting["error"]

    mailing.post.breaks_at = None
    mailing.later(seconds=30)
    assert len(await mailing.send()) == 1


@pytest.mark.parametrize("stage", AFTER)
async def test_a_connection_that_breaks_with_the_message_is_not_tried_again(mailing: Mailing, stage: Stage) -> None:
    mailing.post.breaks_at = stage
    await mailing.invoice()
    await mailing.send()

    mailing.post.breaks_at = None
    mailing.later(hours=30)
    await mailing.send()

    failed = await mailing.only()
    assert failed["status"] == "failed"
    assert "so it may have arrived; it is not sent again by itself" in failed["error"]
    assert len(mailing.post.received) == 1


async def test_a_server_that_says_nothing_costs_its_time_and_no_more(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "SERVER_TIMEOUT_S", 0.3)
    mailing.post.hangs_at = "greeting"
    await mailing.invoice()

    async with asyncio.timeout(2):
        assert await mailing.send() == []

    assert "did not answer in time: check SMTP Host" in (await mailing.only())["error"]


async def test_a_process_that_dies_each_time_does_not_try_for_ever(mailing: Mailing) -> None:
    await mailing.invoice()
    await mailing.fan_out()
    await mailing.ledger.sql("update mail set attempts = 7")
    assert await mailing.send() == []
    assert (await mailing.only())["error"] == sending.WORN_OUT


async def test_a_mail_that_was_sent_is_not_sent_again_when_that_cannot_be_stored(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the database went away")

    monkeypatch.setattr(sending, "RECORDED_AGAIN_S", (0.01, 0.01))
    await mailing.invoice()
    with monkeypatch.context() as broken:
        broken.setattr(sending, "update_settled", fails)
        assert len(await mailing.send()) == 1
    assert (await mailing.only())["status"] == "handed_over"

    mailing.later(hours=30)
    assert await mailing.send() == []
    assert (await mailing.only())["status"] == "failed"


async def test_a_database_that_is_back_in_time_learns_that_the_mail_was_sent(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [ConnectionResetError(), ConnectionResetError()]

    async def fails_twice(*arguments: Any, **named: Any) -> None:
        if failures:
            raise failures.pop()
        await update_settled(*arguments, **named)

    monkeypatch.setattr(sending, "RECORDED_AGAIN_S", (0.01, 0.01))
    monkeypatch.setattr(sending, "update_settled", fails_twice)
    await mailing.invoice()
    assert len(await mailing.send()) == 1
    assert (await mailing.only())["status"] == "sent"


def test_the_retries_take_as_long_as_promised() -> None:
    assert sum(RETRIES, timedelta()) == timedelta(hours=31, minutes=12, seconds=30)
