"""Sends mails: claim, ask Lanyard for the address, render, hand over, settle. Once, also when a process dies meanwhile.

Before the message itself is handed to the mail server, the row says so (`handed_over`). Whoever dies before that has
sent nothing, and the mail is tried again. A mail that is found handed over by somebody who died may have arrived: it
is given up with that sentence, and staff decides.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import msgspec
import structlog
from prometheus_client import Counter

from ledger.billing_settings.mailboxes import Mailbox
from ledger.billing_settings.store import BillingSettings, get_settings
from ledger.crypto import Vault
from ledger.database.transaction import AuditEntry, Database, Tx
from ledger.errors import BadRequest, LedgerError
from ledger.lanyard import LanyardSilent
from ledger.mail.addressees import Addressees, NoAddress
from ledger.mail.composing import compose
from ledger.mail.letters import Letter, NotNeeded, read_letter, values_of_test_mail
from ledger.mail.making import SEND_JOB, send_job
from ledger.mail.rendering import TEST_MAIL, Templates
from ledger.mail.rules import ATTEMPTS_MAX, MailStatus, check_can_send_again, next_try
from ledger.mail.server import (
    ArrivalUnknown,
    MailServer,
    MessageRefused,
    ServerRefused,
    ServerUnreachable,
    conversation,
)
from ledger.mail.server_settings import mail_server
from ledger.mail.store import (
    Mail,
    claim_due_mail,
    has_due_mail,
    lock_mail,
    update_forgotten,
    update_handed_over,
    update_postponed,
    update_settled,
    update_waiting,
)
from ledger.mail.words import language_of
from ledger.providers.connections import Connections
from ledger.settings import Settings
from ledger.web.metrics import registry

log = structlog.get_logger("ledger.mail")
mails = Counter("ledger_mails_total", "Mails, by how an attempt ended", ["kind", "outcome"], registry=registry)

# Lanyard compares a password hash for each question, and mail servers count connections.
SENT_AT_ONCE = 4
# One job sends for so long and leaves the rest to the next, so that a process can end at any time.
STINT_S = 5.0
SERVER_TIMEOUT_S = 10.0
# Lanyard, the mail server and the database, each at its slowest, need less.
CLAIMED_FOR = timedelta(seconds=60)
# Pauses between tries to record that a mail was sent, when the database went away in that moment.
RECORDED_AGAIN_S = (1.0, 3.0, 9.0)
# The proxy of the Dashboard gives up after 10 s; the answer has to come in 8, whatever Lanyard takes of it.
TEST_TIMEOUT_S = 7.0

FORGOTTEN = "Ledger was interrupted while the mail server was given this mail, so it may have arrived; ask the person"
WORN_OUT = "Ledger was interrupted each time it tried to send this mail"
# What keeps every mail from being sent, not only this one.
_OUTAGES = (LanyardSilent, ServerUnreachable, ServerRefused)


class MailSender:
    """Sends the mails of one installation from this process."""

    def __init__(
        self,
        *,
        database: Database,
        connections: Connections,
        settings: Settings,
        vault: Vault,
        addressees: Addressees,
        templates: Templates,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.templates = templates
        self._database = database
        self._connections = connections
        self._settings = settings
        self._vault = vault
        self._addressees = addressees
        self._monotonic = monotonic
        self._is_sending = False

    async def send_due(self) -> int:
        """Sends what is due, a few mails at a time; returns how many attempts there were.

        While this process is at it already, there is nothing to do. What is left when the stint is over is left to
        another job; when the mail server or Lanyard is away, to the sweep of the next minute.
        """
        if self._is_sending:
            return 0
        self._is_sending = True
        try:
            await self._give_up_forgotten()
            stint = _Stint()
            # One alone finds out whether the server is there: a wrong password is not tried more often than needed.
            if await self._send_next(stint):
                stint.ends_s = self._monotonic() + STINT_S
                await asyncio.gather(*(self._send_one_by_one(stint) for _ in range(SENT_AT_ONCE)))
        finally:
            self._is_sending = False
        if not stint.has_outage:
            await self._leave_the_rest()
        return stint.attempts

    async def send_test(self, *, user_id: str) -> str:
        """Sends a test mail to a person now; returns what came of it in a sentence.

        Raises `NoMailServer`, `PasswordUnreadable`, `LanyardSilent`, `BadRequest` for a person without an address,
        and what `server` raises.
        """
        began_s = self._monotonic()
        async with self._database.connection() as connection:
            billing = await get_settings(connection)
        server = mail_server(billing, self._vault)
        language = language_of(billing.language)
        values = values_of_test_mail(language=language, billing=billing, settings=self._settings)
        try:
            recipient = await self._addressees.get(user_id=user_id)
        except NoAddress as error:
            raise BadRequest(f"{error}, so there is nowhere to send a test mail to") from None
        message = compose(
            self.templates.render(TEST_MAIL, language, {**values, "name": recipient.name}),
            mail_id=self._database.ids.new(),
            sender=server.sender,
            recipient=recipient,
            language=language,
            now=self._database.clock.now(),
        )
        left_s = max(1.0, TEST_TIMEOUT_S - (self._monotonic() - began_s))
        async with conversation(server, timeout_s=left_s) as spoken:
            await spoken.offer(recipient=recipient)
            await spoken.hand_over(message)
        return f"The mail server {server.place} took the test mail; it should arrive at your address soon"

    async def _give_up_forgotten(self) -> None:
        async with self._database.connection() as connection:
            now = self._database.clock.now()
            for mail_id in await update_forgotten(connection, error=FORGOTTEN, now=now):
                log.warning("mail may have arrived", id=mail_id, reason="interrupted")

    async def _leave_the_rest(self) -> None:
        async with self._database.transaction_by(kind="system", name=SEND_JOB) as tx:
            if await has_due_mail(tx.connection, now=tx.now):
                tx.defer(send_job(now=tx.now))

    async def _send_one_by_one(self, stint: "_Stint") -> None:
        while not stint.has_outage and self._monotonic() < stint.ends_s and await self._send_next(stint):
            pass

    async def _send_next(self, stint: "_Stint") -> bool:
        """Takes the next mail that is due and tries to send it; False when there is none, or the server is away."""
        async with self._database.connection() as connection:
            now = self._database.clock.now()
            mail = await claim_due_mail(connection, now=now, until=now + CLAIMED_FOR)
        if mail is None:
            return False
        stint.attempts += 1
        stint.has_outage |= await self._attempt(mail)
        return not stint.has_outage

    async def _attempt(self, mail: Mail) -> bool:
        """Tries to send a claimed mail and stores how that ended; returns whether others would fare the same."""
        failure: LedgerError | None = None
        try:
            if mail.attempts > ATTEMPTS_MAX:
                await self._settle(mail, MailStatus.FAILED, mail.error or WORN_OUT)
            else:
                await self._send(mail)
        except (NotNeeded, NoAddress) as reason:
            await self._settle(mail, MailStatus.SKIPPED, str(reason))
        except MessageRefused as error:
            failure = error
            await self._fail(mail, error.sentence, is_final=error.is_final)
        except ArrivalUnknown as error:
            failure = error
            await self._fail(mail, error.sentence, is_final=True)
        except LedgerError as error:
            failure = error
            await self._fail(mail, error.sentence, is_final=False)
        except Exception as error:
            log.error("mail failed", id=mail.id, kind=mail.kind.value, reason=type(error).__name__, exc_info=error)
            sentence = "Ledger could not make or send this mail; its log says why"
            await self._fail(mail, sentence, is_final=False)
        return isinstance(failure, _OUTAGES)

    async def _send(self, mail: Mail) -> None:
        """Raises what keeps it from being sent; nothing was sent then, but after `ArrivalUnknown`."""
        async with self._database.connection() as connection:
            billing = await get_settings(connection)
        if not billing.wants(mail.kind):
            raise NotNeeded("This kind of mail was switched off meanwhile")
        if not billing.has_mail_server:
            raise NotNeeded("The mail server was removed from the settings meanwhile")
        server = mail_server(billing, self._vault)
        letter = await read_letter(self._database, self._connections, self._settings, mail=mail, billing=billing)
        message, recipient = await self._message(mail, letter, server, billing)
        async with conversation(server, timeout_s=SERVER_TIMEOUT_S) as spoken:
            await spoken.offer(recipient=recipient)
            if not await self._say_handed_over(mail):
                log.warning("mail taken over by another process", id=mail.id)
                return
            await spoken.hand_over(message)
            await self._record_sent(mail)

    async def _record_sent(self, mail: Mail) -> None:
        """It is sent, whatever happens to the database now: nothing may make it be sent again."""
        for wait_s in (*RECORDED_AGAIN_S, None):
            try:
                await self._settle(mail, MailStatus.SENT, None)
            except Exception as error:
                log.warning("mail sent, and not recorded yet", id=mail.id, reason=type(error).__name__)
                if wait_s is not None:
                    await asyncio.sleep(wait_s)
            else:
                return

    async def _message(
        self, mail: Mail, letter: Letter, server: MailServer, billing: BillingSettings
    ) -> tuple[bytes, Mailbox]:
        recipient = await self._addressees.get(user_id=letter.user_id)
        language = language_of(billing.language)
        message = compose(
            self.templates.render(mail.kind, language, {**letter.values, "name": recipient.name}),
            mail_id=mail.id,
            sender=server.sender,
            recipient=recipient,
            language=language,
            now=self._database.clock.now(),
        )
        return message, recipient

    async def _say_handed_over(self, mail: Mail) -> bool:
        async with self._database.transaction_by(kind="system", name=SEND_JOB) as tx:
            return await update_handed_over(tx.connection, mail=mail, until=tx.now + CLAIMED_FOR)

    async def _settle(self, mail: Mail, status: MailStatus, error: str | None) -> None:
        async with self._database.transaction_by(kind="system", name=SEND_JOB) as tx:
            await update_settled(tx.connection, mail=mail, status=status, error=error, now=tx.now)
        mails.labels(mail.kind.value, status.value).inc()
        log.info(
            "mail settled", id=mail.id, kind=mail.kind.value, status=status.value, attempts=mail.attempts, reason=error
        )

    async def _fail(self, mail: Mail, sentence: str, *, is_final: bool) -> None:
        async with self._database.transaction_by(kind="system", name=SEND_JOB) as tx:
            again_at = None if is_final else next_try(now=tx.now, attempts=mail.attempts)
            if again_at is not None:
                await update_postponed(tx.connection, mail=mail, error=sentence, next_try_at=again_at)
                tx.defer(send_job(now=tx.now, at=again_at))
        if again_at is None:
            await self._settle(mail, MailStatus.FAILED, sentence)
            return
        mails.labels(mail.kind.value, "postponed").inc()
        log.warning("mail postponed", id=mail.id, kind=mail.kind.value, attempts=mail.attempts, reason=sentence)


class _Stint(msgspec.Struct):
    """One go at sending, shared by those who send side by side."""

    ends_s: float = 0.0
    attempts: int = 0
    has_outage: bool = False


async def send_again(tx: Tx, *, mail_id: str) -> None:
    """Sends a mail once more that was given up or not needed. Raises `NotFound` and `MailCannotBeSentAgain`."""
    mail = await lock_mail(tx.connection, mail_id=mail_id)
    check_can_send_again(mail.status)
    await update_waiting(tx.connection, mail_id=mail.id, now=tx.now)
    tx.defer(send_job(now=tx.now))
    tx.audit(
        AuditEntry(action="mail.sent_again", entity_type="mail", entity_id=mail.id, details={"kind": mail.kind.value})
    )
