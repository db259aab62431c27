"""A mail server of our own: real SMTP on loopback, with or without encryption and login, and faults on request."""

import asyncio
import email
import logging
import ssl
from collections.abc import Callable
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default as parsing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import msgspec
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Stage = Literal["greeting", "MAIL", "RCPT", "DATA", "after the message"]
Security = Literal["none", "starttls", "tls"]

USER, PASSWORD = "ledger", "swordfish"


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A mail as it arrived."""

    sender: str
    recipients: list[str]
    content: bytes
    was_encrypted: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        return cast("EmailMessage", email.message_from_bytes(self.content, policy=cast("Any", parsing)))

    @property
    def subject(self) -> str:
        return self.header("Subject")

    def header(self, name: str) -> str:
        """A header as people see it. (The newer parser puts blanks between encoded words, where there are none.)"""
        return str(make_header(decode_header(email.message_from_bytes(self.content)[name])))

    @property
    def plain(self) -> str:
        return self._part("plain")

    @property
    def html(self) -> str:
        return self._part("html")

    def _part(self, kind: Literal["plain", "html"]) -> str:
        part = self.message.get_body((kind,))
        assert part is not None
        content: str = part.get_content()
        return content.replace("\r\n", "\n")


class FakeMailServer:
    """Public attributes may be changed at any time and count for the next command."""

    def __init__(self, *, security: Security = "none", certificate: Path | None = None, needs_login: bool = False):
        """`certificate` is a PEM file with a key and a certificate chain."""
        self.security = security
        self.received: list[Received] = []
        # What is answered instead of 250, by command: `{"RCPT": "550 5.1.1 no such user"}`.
        self.answers: dict[str, str] = {}
        # Where it says nothing more until it is let go, and where it breaks the connection off.
        self.hangs_at: Stage | None = None
        self.breaks_at: Stage | None = None
        self.connections = 0
        self.commands: list[str] = []
        self.most_at_once = 0
        self.is_hanging = asyncio.Event()
        self.on_connection: Callable[[], None] | None = None
        self._needs_login = needs_login
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._released = asyncio.Event()
        self._open: set[SMTP] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        return self._port

    def settings(self, **changes: object) -> dict[str, object]:
        """What staff would enter to send through it."""
        login = {"smtpUser": USER, "smtpPass": PASSWORD} if self._needs_login else {}
        return {
            "smtpHost": "localhost" if self._context else "127.0.0.1",
            "smtpPort": self.port,
            "smtpFrom": "billing@club.example",
            "smtpSecurity": self.security,
            **login,
            **changes,
        }

    async def start(self) -> None:
        """Listens, again on the same port when it was stopped before."""
        # It tells of every command, and of the lack of encryption.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        loop = asyncio.get_running_loop()
        self._released = asyncio.Event()
        self._server = await loop.create_server(
            self._protocol,
            "127.0.0.1",
            self._port,
            ssl=self._context if self.security == "tls" else None,
            reuse_address=True,
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuses connections from now on, and breaks off those that are open."""
        self._released.set()
        if self._server is None:
            return
        self._server.close()
        for protocol in list(self._open):
            if protocol.transport is not None:
                cast("asyncio.Transport", protocol.transport).abort()
        self._server = None
        # Their ends are dealt with.
        await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _protocol(self) -> SMTP:
        self.connections += 1
        protocol = _Protocol(
            self,
            _Handler(self),
            hostname="mail.club.example",
            tls_context=self._context if self.security == "starttls" else None,
            require_starttls=self.security == "starttls",
            # Encrypted from the first byte on is not known to the library as encrypted.
            auth_require_tls=self.security == "starttls",
            authenticator=_authenticate if self._needs_login else None,
            auth_exclude_mechanism=None if self._needs_login else ["LOGIN", "PLAIN"],
            loop=asyncio.get_running_loop(),
        )
        self._open.add(protocol)
        self.most_at_once = max(self.most_at_once, len(self._open))
        return protocol

    def forget(self, protocol: SMTP) -> None:
        self._open.discard(protocol)

    async def reach(self, stage: Stage, protocol: SMTP) -> None:
        """Does what was asked for at this point."""
        if self.hangs_at == stage:
            self.is_hanging.set()
            await self._released.wait()
        if self.breaks_at == stage and protocol.transport is not None:
            cast("asyncio.Transport", protocol.transport).abort()


class _Protocol(SMTP):
    def __init__(self, server: FakeMailServer, handler: object, **options: Any) -> None:
        super().__init__(handler, **options)
        self._fake = server

    def connection_lost(self, error: Exception | None) -> None:
        self._fake.forget(self)
        super().connection_lost(error)

    async def _handle_client(self) -> None:
        await self._fake.reach("greeting", self)
        await super()._handle_client()


class _Handler:
    def __init__(self, server: FakeMailServer) -> None:
        self._fake = server

    async def handle_MAIL(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await self._fake.reach("MAIL", server)
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._fake.answers.get("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._fake.commands.append(f"RCPT {address}")
        await self._fake.reach("RCPT", server)
        answer = self._fake.answers.get("RCPT", "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        await self._fake.reach("DATA", server)
        answer = self._fake.answers.get("DATA", "250 OK: queued as 1")
        if answer.startswith("250"):
            login = session.auth_data if isinstance(session.auth_data, LoginPassword) else None
            assert isinstance(envelope.content, bytes)
            self._fake.received.append(
                Received(
                    sender=envelope.mail_from or "",
                    recipients=list(envelope.rcpt_tos),
                    content=envelope.content,
                    was_encrypted=session.ssl is not None or self._fake.security == "tls",
                    user=login.login.decode() if login else None,
                )
            )
        await self._fake.reach("after the message", server)
        return answer


def _authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=False, auth_data=data)
