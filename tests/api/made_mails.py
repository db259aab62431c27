"""A mail as it was made and given up, stored for a test that does not need a mail server."""

from ledger.billing_settings.mail_kinds import MailKind
from ledger.mail.rules import MailStatus
from ledger.mail.store import NewMail, insert_mails, lock_mail, update_settled
from tests.installation import USER, Installation

SENTENCE = "The mail server mail.example.org:587 takes no connections: check SMTP Host and SMTP Port"


async def add_mail(ledger: Installation, *, status: MailStatus = MailStatus.FAILED) -> str:
    """A mail about a new invoice that was given up, or is in another state; returns its id."""
    invoice_id = (await ledger.create_invoice()).body["id"]
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        mail = NewMail(
            id=tx.ids.new(),
            kind=MailKind.INVOICE_CREATED,
            occasion=f"test:{invoice_id}",
            person_id=await tx.ensure_person(USER),
            invoice_id=invoice_id,
        )
        await insert_mails(tx.connection, mails=[mail], now=tx.now)
        if status is not MailStatus.WAITING:
            made = await lock_mail(tx.connection, mail_id=mail.id)
            error = SENTENCE if status is MailStatus.FAILED else None
            await update_settled(tx.connection, mail=made, status=status, error=error, now=tx.now)
    return mail.id
