"""The one row of settings, and the copy each process keeps for a second."""

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec

from ledger.billing_settings.mail_kinds import MailKind
from ledger.database.connection import Connection
from ledger.database.transaction import Database

# How long a process may work with settings that another process just changed.
KEPT_S = 1.0
TABLE, ROW = "billing_settings", "1"


class BillingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What staff set. `tax_rate_bp` is in basis points (1900 = 19 %), the SMTP password is sealed.

    `mails_off` holds the kinds of mail that are switched off.
    """

    default_currency: str
    tax_rate_bp: int
    tax_label: str
    data_retention_days: int
    allow_self_cancel: bool
    smtp_host: str | None
    smtp_port: int | None
    smtp_user: str | None
    smtp_password_sealed: bytes | None
    smtp_from: str | None
    smtp_security: str
    language: str
    company_name: str | None
    mails_off: list[str]
    updated_at: datetime

    @property
    def has_mail_server(self) -> bool:
        """Whether mails can be sent at all."""
        return self.smtp_host is not None and self.smtp_from is not None

    def wants(self, kind: MailKind) -> bool:
        """Whether this kind of mail is switched on."""
        return kind.value not in self.mails_off


COLUMNS = tuple(field.name for field in msgspec.structs.fields(BillingSettings))
_SELECT = f"select {', '.join(COLUMNS)} from billing_settings where id = 1"


async def get_settings(connection: Connection, *, lock: bool = False) -> BillingSettings:
    """The settings as they are stored; with `lock`, nobody else changes them until the transaction ends."""
    row = await connection.fetchrow(_SELECT + (" for update" if lock else ""))
    assert row is not None, "a migration inserts the row"
    return BillingSettings(**dict(row))


async def update_settings(connection: Connection, *, changes: Mapping[str, object], now: datetime) -> None:
    """Stores changed columns, by their names."""
    assert set(changes) <= set(COLUMNS), "only columns of the table can be changed"
    assignments = ", ".join(f"{name} = ${index}" for index, name in enumerate(changes, start=2))
    await connection.execute(
        f"update billing_settings set updated_at = $1, {assignments} where id = 1",
        now,
        *changes.values(),
    )


class SettingsReader:
    """Reads the settings at most once a second in each process, since every new invoice needs them."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._monotonic = monotonic
        self._kept: BillingSettings | None = None
        self._kept_until = 0.0

    async def get(self) -> BillingSettings:
        """The settings, at most a second old."""
        if self._kept is None or self._monotonic() >= self._kept_until:
            async with self._database.connection() as connection:
                self._kept = await get_settings(connection)
            self._kept_until = self._monotonic() + KEPT_S
        return self._kept

    def forget(self) -> None:
        """Makes the next `get` read again; called after this process changed them."""
        self._kept = None
