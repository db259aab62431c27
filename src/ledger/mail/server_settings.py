"""The mail server as the billing settings describe it."""

import msgspec
import structlog

from ledger.billing_settings.mailboxes import find_mailbox
from ledger.billing_settings.store import ROW, TABLE, BillingSettings
from ledger.crypto import SealBroken, Vault
from ledger.errors import BadRequest, Unavailable
from ledger.mail.server import DEFAULT_PORTS, MailServer, Security
from ledger.settings import Secret

log = structlog.get_logger("ledger.mail")


class NoMailServer(BadRequest):
    """The settings do not say where mails are sent."""


class PasswordUnreadable(Unavailable):
    """The stored SMTP password cannot be opened (503)."""


def mail_server(billing: BillingSettings, vault: Vault) -> MailServer:
    """Where mails are handed over. Raises `NoMailServer` and `PasswordUnreadable`."""
    if billing.smtp_host is None or billing.smtp_from is None:
        raise NoMailServer("No mail server is set up: enter SMTP Host and SMTP From")
    sender = find_mailbox(billing.smtp_from)
    if sender is None:
        raise NoMailServer("SMTP From is not an address that mails can come from: correct it")
    security: Security = msgspec.convert(billing.smtp_security, Security)
    return MailServer(
        host=billing.smtp_host,
        port=billing.smtp_port or DEFAULT_PORTS[security],
        security=security,
        user=billing.smtp_user,
        password=_open_password(billing, vault),
        # An address alone tells people little; the association's name tells them who writes.
        sender=msgspec.structs.replace(sender, name=sender.name or billing.company_name),
    )


def _open_password(billing: BillingSettings, vault: Vault) -> Secret[str] | None:
    if billing.smtp_password_sealed is None:
        return None
    try:
        return Secret(vault.open(billing.smtp_password_sealed, table=TABLE, row=ROW, column="smtp_password_sealed"))
    except SealBroken as broken:
        log.error("smtp settings cannot be opened", reason=str(broken))
        raise PasswordUnreadable(
            "The SMTP password cannot be opened: check ENCRYPTION_KEY and ENCRYPTION_KEY_PREVIOUS, or enter the "
            "password anew",
            retry_after_s=60,
        ) from None
