"""Real mail servers of every kind: encrypted or not, with and without login, slow, refusing; and "Send Test Mail"."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from ledger.mail import sending
from ledger.mail.addressees import Addressees, NoAddress
from tests.fakes.certificates import Certificates
from tests.fakes.smtp import FakeMailServer, Security
from tests.installation import STAFF, Answer, Installation, free_port
from tests.mail.mailing import Mailing

TEST = "/api/settings/test-mail"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def try_out(ledger: Installation, server: FakeMailServer, **settings: object) -> Answer:
    """Sends a test mail through a server, as staff would set it up."""
    mailing = Mailing(ledger, server)
    await mailing.configure(**settings)
    began_s = time.monotonic()
    answer = await ledger.staff.post(TEST)
    assert time.monotonic() - began_s < 8
    return answer


@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
@pytest.mark.parametrize("needs_login", [False, True], ids=["open", "with login"])
async def test_mail_goes_through_a_server_of_each_kind(
    ledger: Installation, trusted: Certificates, stack: AsyncExitStack, security: Security, needs_login: bool
) -> None:
    certificate = None if security == "none" else trusted.localhost
    server = await stack.enter_async_context(
        FakeMailServer(security=security, certificate=certificate, needs_login=needs_login)
    )

    answer = await try_out(ledger, server)

    place = f"{'127.0.0.1' if security == 'none' else 'localhost'}:{server.port}"
    assert (answer.status, answer.body) == (
        200,
        {
            "success": True,
            "message": f"The mail server {place} took the test mail; it should arrive at your address soon",
        },
    )
    (received,) = server.received
    assert received.recipients == ["ada@example.org"]
    assert received.was_encrypted == (security != "none")
    assert received.user == ("ledger" if needs_login else None)
    assert received.subject == "Test mail from Ledger"
    assert "Hello Ada Admin,\n\nThis is the test mail" in received.plain
    assert "https://dashboard.example.org/ledger/settings" in received.plain

    mailing = Mailing(ledger, server)
    await mailing.invoice()
    assert len(await mailing.send()) == 1


async def test_the_test_mail_speaks_the_chosen_language(mailing: Mailing) -> None:
    await mailing.ledger.staff.put("/api/settings", {"language": "de", "companyName": "Ruderclub"})
    assert (await mailing.ledger.staff.post(TEST)).status == 200
    (received,) = mailing.post.received
    assert received.subject == "Testmail von Ledger"
    assert "Freundliche Grüße\nRuderclub" in received.plain


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_nobody_vouches_for_is_refused(
    ledger: Installation, certificates: Certificates, stack: AsyncExitStack, security: Security
) -> None:
    server = await stack.enter_async_context(
        FakeMailServer(security=security, certificate=certificates.localhost, needs_login=True)
    )
    answer = await try_out(ledger, server)
    assert answer.status == 400
    assert answer.error.startswith(f"The mail server localhost:{server.port} shows a certificate that is not trusted (")
    assert "unable to get local issuer certificate" in answer.error
    assert server.received == []

    mailing = Mailing(ledger, server)
    await mailing.invoice()
    assert await mailing.send() == []
    assert "certificate that is not trusted" in (await mailing.only())["error"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_of_another_server_is_refused(
    ledger: Installation, trusted: Certificates, stack: AsyncExitStack, security: Security
) -> None:
    server = await stack.enter_async_context(FakeMailServer(security=security, certificate=trusted.stranger))
    answer = await try_out(ledger, server)
    assert answer.status == 400
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in answer.error


async def test_a_wrong_password_is_said_so_and_does_not_appear(
    ledger: Installation, trusted: Certificates, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await stack.enter_async_context(
        FakeMailServer(security="starttls", certificate=trusted.localhost, needs_login=True)
    )
    answer = await try_out(ledger, server, smtpPass="carp-with-scales")
    assert (answer.status, answer.error) == (
        400,
        f"The mail server localhost:{server.port} refuses the login (535 5.7.8 Authentication credentials invalid): "
        "check SMTP User and SMTP Password",
    )
    assert "carp-with-scales" not in capsys.readouterr().out


async def test_a_password_that_would_travel_in_the_clear_is_not_asked_for(
    ledger: Installation, stack: AsyncExitStack
) -> None:
    """The server offers no encryption, so what was set up as encrypted is not sent."""
    server = await stack.enter_async_context(FakeMailServer(needs_login=True))
    answer = await try_out(ledger, server, smtpSecurity="starttls")
    assert answer.status == 400
    assert "does not offer STARTTLS: choose TLS (usually port 465) or another server" in answer.error
    assert server.received == []


@pytest.mark.parametrize(("kind", "chosen"), [("none", "tls"), ("starttls", "tls"), ("tls", "starttls")])
async def test_the_wrong_kind_of_encryption_is_said_so(
    ledger: Installation, trusted: Certificates, stack: AsyncExitStack, kind: Security, chosen: Security
) -> None:
    certificate = None if kind == "none" else trusted.localhost
    server = await stack.enter_async_context(FakeMailServer(security=kind, certificate=certificate))
    answer = await try_out(ledger, server, smtpSecurity=chosen)
    assert answer.status in (400, 503)
    assert "TLS is usually at port 465, STARTTLS at port 587" in answer.error


async def test_a_login_the_server_does_not_have_is_said_so(ledger: Installation, post: FakeMailServer) -> None:
    answer = await try_out(ledger, post, smtpUser="ledger", smtpPass="swordfish")
    assert answer.status == 400
    assert "offers no login that Ledger knows: check SMTP Security, or remove SMTP User" in answer.error


async def test_a_server_that_is_not_there_is_said_so(ledger: Installation, post: FakeMailServer) -> None:
    closed = await try_out(ledger, post, smtpPort=free_port())
    assert closed.status == 503
    assert "takes no connections: check SMTP Host and SMTP Port" in closed.error
    unknown = await try_out(ledger, post, smtpHost="mail.invalid")
    assert (unknown.status, unknown.headers["Retry-After"]) == (503, "60")
    assert "was not found: check SMTP Host" in unknown.error


async def test_a_server_that_refuses_says_why(ledger: Installation, post: FakeMailServer) -> None:
    post.answers["MAIL"] = "553 5.7.1 <billing@club.example>: not yours"
    sender = await try_out(ledger, post)
    assert sender.status == 400
    assert sender.error.endswith("does not take mail from this sender (553 5.7.1 <…>: not yours): check SMTP From")

    post.answers = {"RCPT": "550 5.1.1 <ada@example.org>: unknown"}
    recipient = await try_out(ledger, post)
    assert recipient.status == 400
    assert recipient.error.endswith("does not take mail for this person's address (550 5.1.1 <…>: unknown)")

    post.answers = {"DATA": "554 5.7.1 spam\r\n"}
    assert "does not take this mail (554 5.7.1 spam)" in (await try_out(ledger, post)).error


@pytest.mark.parametrize("stage", ["greeting", "RCPT", "DATA"])
async def test_a_slow_server_is_given_up_in_time(ledger: Installation, post: FakeMailServer, stage: str) -> None:
    post.hangs_at = stage  # type: ignore[assignment]
    answer = await try_out(ledger, post)
    assert answer.status == 503
    assert f"127.0.0.1:{post.port}" in answer.error


async def test_a_slow_lanyard_leaves_less_time_for_the_server(
    ledger: Installation, post: FakeMailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.staff.get("/api/settings")
    ledger.lanyard.delay_s = 1.0
    monkeypatch.setattr(sending, "TEST_TIMEOUT_S", 2.0)
    post.hangs_at = "MAIL"
    began_s = time.monotonic()
    answer = await try_out(ledger, post)
    assert answer.status == 503
    assert time.monotonic() - began_s < 3


async def test_a_server_that_answers_nonsense_is_survived(ledger: Installation) -> None:
    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff\x00" * 30_000)
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0, family=socket.AF_INET)
    port = listening.sockets[0].getsockname()[1]
    settings = {"smtpHost": "127.0.0.1", "smtpPort": port, "smtpFrom": "a@club.example", "smtpSecurity": "none"}
    await ledger.staff.put("/api/settings", settings)
    answer = await ledger.staff.post(TEST)
    assert answer.status in (400, 503)
    assert f"127.0.0.1:{port}" in answer.error
    assert "\x00" not in answer.error
    listening.close()


async def test_a_test_mail_needs_a_mail_server_and_an_address(ledger: Installation, post: FakeMailServer) -> None:
    nothing = await ledger.staff.post(TEST)
    assert (nothing.status, nothing.error) == (400, "No mail server is set up: enter SMTP Host and SMTP From")

    ledger.lanyard.add_person(STAFF, "token-staff", ["ledger:manage"], "Ada Admin", None)
    nowhere = await try_out(ledger, post)
    assert (nowhere.status, nowhere.error) == (
        400,
        "Lanyard has no e-mail address of this person, so there is nowhere to send a test mail to",
    )


async def test_a_password_that_cannot_be_opened_is_said_so(ledger: Installation, post: FakeMailServer) -> None:
    await Mailing(ledger, post).configure(smtpUser="ledger", smtpPass="swordfish")
    await ledger.sql("update billing_settings set smtp_password_sealed = 'nonsense'")
    answer = await ledger.staff.post(TEST)
    assert answer.status == 503
    assert answer.error.startswith("The SMTP password cannot be opened: check ENCRYPTION_KEY")


async def test_a_test_mail_with_a_key_is_sent_once(mailing: Mailing) -> None:
    first = await mailing.ledger.staff.post(TEST, key="test-1")
    second = await mailing.ledger.staff.post(TEST, key="test-1")
    assert (first.status, second.status, first.body) == (200, 200, second.body)
    assert len(mailing.post.received) == 1


async def test_standalone_there_are_no_addresses() -> None:
    with pytest.raises(NoAddress, match="without Lanyard"):
        await Addressees(None).get(user_id="standalone-user")
