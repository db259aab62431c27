"""Speaks with the mail server, and puts what goes wrong into words for whoever set it up.

A conversation has two parts. In the first one (greeting, encryption, password, sender, recipient) nothing was sent yet,
so whatever happens, it can be tried again. In the second one the message itself is handed over, and when its end is
not heard of, it may have arrived.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal

import aiosmtplib
import msgspec

from ledger.billing_settings.mailboxes import Mailbox
from ledger.errors import BadRequest, Unavailable
from ledger.settings import Secret

Security = Literal["starttls", "tls", "none"]

DEFAULT_PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}
QUIT_TIMEOUT_S = 2.0
ANSWER_CHARACTERS_MAX = 200
BROKEN_OFF = "broke off the connection; trying again may help"
_ADDRESS = re.compile(r"[^\s<>()\",;:]*@[^\s<>()\",;:]*")
# Shorter parts of names are words of their own.
_NAME_PART_MIN = 3
_FULL_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


class MailServer(msgspec.Struct, frozen=True, kw_only=True):
    """Where mails are handed over, and from whom they come."""

    host: str
    port: int
    security: Security
    user: str | None
    password: Secret[str] | None
    sender: Mailbox

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


class ServerUnreachable(Unavailable):
    """The mail server could not be asked; nothing was sent."""

    title = "The mail server cannot be reached"


class ServerRefused(BadRequest):
    """The mail server takes no mail at all with these settings; nothing was sent."""

    title = "The mail server refused"


class MessageRefused(BadRequest):
    """The mail server does not take this mail. `is_final`: nor will it later."""

    title = "The mail server refused"

    def __init__(self, sentence: str, *, is_final: bool) -> None:
        super().__init__(sentence)
        self.is_final = is_final


class ArrivalUnknown(Unavailable):
    """The mail was handed over and the answer was not heard: it may have arrived."""

    title = "The mail server did not answer"


class Conversation:
    """An open connection to a mail server that knows who we are."""

    def __init__(self, server: MailServer, client: aiosmtplib.SMTP, *, deadline_s: float) -> None:
        self._server = server
        self._client = client
        self._deadline_s = deadline_s
        self._recipient: Mailbox | None = None

    async def offer(self, *, recipient: Mailbox) -> None:
        """Names sender and recipient. Raises `ServerUnreachable`, `ServerRefused`, `MessageRefused`."""
        self._recipient = recipient
        with _in_words(self._server, recipient=recipient):
            async with asyncio.timeout_at(self._deadline_s):
                await self._client.mail(self._server.sender.address)
                await self._client.rcpt(recipient.address)

    async def hand_over(self, message: bytes) -> None:
        """Hands the message over.

        Raises `ServerUnreachable` when the connection was gone before, `MessageRefused`, and `ArrivalUnknown` when the
        answer was not heard.
        """
        if not self._client.is_connected:
            raise _unreachable(self._server, BROKEN_OFF)
        try:
            async with asyncio.timeout_at(self._deadline_s):
                await self._client.data(message)
        except aiosmtplib.SMTPDataError as error:
            if not 400 <= error.code < 600:
                raise _unknown(self._server) from None
            sentence = (
                f"The mail server {self._server.place} does not take this mail ({_answer(error, self._recipient)})"
            )
            raise MessageRefused(sentence, is_final=error.code >= 500) from None
        except Exception:
            # Whatever it is, the server may have had all it needs.
            raise _unknown(self._server) from None


@asynccontextmanager
async def conversation(server: MailServer, *, timeout_s: float) -> AsyncIterator[Conversation]:
    """Connects, encrypts and logs in. All that follows has to be done within `timeout_s` of now, too.

    Raises `ServerUnreachable` and `ServerRefused`.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.user,
        password=server.password.reveal() if server.password is not None and server.user is not None else None,
        local_hostname=_own_name(server),
        timeout=timeout_s,
        use_tls=server.security == "tls",
        start_tls=server.security == "starttls",
        validate_certs=True,
    )
    try:
        with _in_words(server):
            async with asyncio.timeout_at(deadline_s):
                await client.connect()
        yield Conversation(server, client, deadline_s=deadline_s)
        # What was said is said; how the farewell goes does not matter.
        with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            async with asyncio.timeout_at(min(loop.time() + QUIT_TIMEOUT_S, deadline_s)):
                await client.quit()
    finally:
        client.close()


def _own_name(server: MailServer) -> str:
    """Many servers want a full name, and a container's is none; the sender's domain is ours at least."""
    name = socket.gethostname()
    return name if _FULL_NAME.fullmatch(name) else server.sender.domain


@contextmanager
def _in_words(server: MailServer, *, recipient: Mailbox | None = None) -> Iterator[None]:
    """Turns what goes wrong before the message is handed over into words."""
    try:
        yield
    except aiosmtplib.SMTPRecipientRefused as error:
        sentence = (
            f"The mail server {server.place} does not take mail for this person's address ({_answer(error, recipient)})"
        )
        raise MessageRefused(sentence, is_final=error.code >= 500) from None
    except aiosmtplib.SMTPSenderRefused as error:
        raise _refused(
            server, f"does not take mail from this sender ({_answer(error, recipient)}): check SMTP From"
        ) from None
    except aiosmtplib.SMTPAuthenticationError as error:
        what = f"refuses the login ({_answer(error)}): check SMTP User and SMTP Password"
        raise _refused(server, what) from None
    except aiosmtplib.SMTPResponseException as error:
        raise _refused(server, f"answered {_answer(error, recipient)}") from None
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        raise _explained(server, error) from None


def _explained(server: MailServer, error: BaseException) -> ServerRefused | ServerUnreachable:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _refused(
                server,
                f"shows a certificate that is not trusted ({cause.verify_message}): enter the name the certificate "
                "is for as SMTP Host, or have the server's certificate put right",
            )
        if isinstance(cause, ssl.SSLError):
            return _refused(
                server,
                "does not speak TLS the way SMTP Security says: TLS is usually at port 465, STARTTLS at port 587",
            )
        if isinstance(cause, socket.gaierror):
            return _unreachable(server, "was not found: check SMTP Host")
        if isinstance(cause, ConnectionRefusedError):
            return _unreachable(server, "takes no connections: check SMTP Host and SMTP Port")
        if isinstance(cause, TimeoutError):
            return _unreachable(
                server,
                "did not answer in time: check SMTP Host, SMTP Port and SMTP Security (TLS is usually at port 465, "
                "STARTTLS at port 587)",
            )
    if isinstance(error, aiosmtplib.SMTPConnectError):
        return _unreachable(server, "cannot be connected to: check SMTP Host and SMTP Port")
    text = str(error)
    if "STARTTLS extension not supported" in text:
        return _refused(server, "does not offer STARTTLS: choose TLS (usually port 465) or another server")
    if "AUTH extension" in text or "authentication method" in text:
        return _refused(server, "offers no login that Ledger knows: check SMTP Security, or remove SMTP User")
    return _unreachable(server, BROKEN_OFF)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _refused(server: MailServer, what: str) -> ServerRefused:
    return ServerRefused(f"The mail server {server.place} {what}")


def _unreachable(server: MailServer, what: str) -> ServerUnreachable:
    return ServerUnreachable(f"The mail server {server.place} {what}", retry_after_s=60)


def _unknown(server: MailServer) -> ArrivalUnknown:
    return ArrivalUnknown(
        f"The mail server {server.place} did not say whether it took the mail, so it may have arrived; "
        "it is not sent again by itself"
    )


def _answer(error: aiosmtplib.SMTPResponseException, recipient: Mailbox | None = None) -> str:
    """What the server said, on one line and without addresses and the recipient's name: servers like to repeat them."""
    text = "".join(character if character.isprintable() else " " for character in error.message)
    text = _ADDRESS.sub("…", text)
    if recipient is not None:
        text = _naming(recipient).sub("…", text)
    text = " ".join(text.split())
    shown = text if len(text) <= ANSWER_CHARACTERS_MAX else f"{text[:ANSWER_CHARACTERS_MAX]}…"
    return f"{error.code} {shown}".strip()


def _naming(recipient: Mailbox) -> re.Pattern[str]:
    """Whatever names the recipient: what stands before the @, the name, and its parts."""
    name = recipient.name or ""
    parts = [part for part in re.split(r"[^\w'-]+", name) if len(part) >= _NAME_PART_MIN]
    texts = {recipient.address.rpartition("@")[0], *([name] if name else []), *parts}
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)
