"""`/api/settings`: shown, changed, and as a form with true values."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from ledger.billing_settings.mail_kinds import MAIL_KIND_OF, MAIL_PHRASES, MailKind, switched
from ledger.billing_settings.mailboxes import find_mailbox
from ledger.billing_settings.store import (
    ROW,
    TABLE,
    BillingSettings,
    SettingsReader,
    get_settings,
    update_settings,
)
from ledger.database.transaction import AuditEntry, Tx
from ledger.errors import FieldError
from ledger.web.bodies import LINE_PATTERN, Body, Currency, NoBody, refusal_of
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, acts, reads
from ledger.web.shapes import NOTHING, Cell, Detail, Done, Field, FieldType, Form, FormField, FormFieldType, Option

SECRET_MASK = "********"  # noqa: S105 - what is shown instead of a secret

ShortText = Annotated[str, Meta(max_length=200, pattern=LINE_PATTERN)]


class SettingsChange(Body, frozen=True, kw_only=True):
    """What can be changed; what is left out stays. A masked password leaves the stored one as it is.

    The texts about mail and the company's name are removed by sending them empty or as `-`.
    """

    default_currency: Currency | None = None
    tax_rate: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    tax_label: Annotated[str, Meta(min_length=1, max_length=50, pattern=LINE_PATTERN)] | None = None
    data_retention_days: Annotated[int, Meta(ge=1, le=36_525)] | None = None
    allow_self_cancel: bool | None = None
    smtp_host: ShortText | None = None
    smtp_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    smtp_user: ShortText | None = None
    smtp_pass: ShortText | None = None
    smtp_from: ShortText | None = None
    smtp_security: Literal["starttls", "tls", "none"] | None = None
    language: Literal["en", "de"] | None = None
    company_name: ShortText | None = None
    mail_invoice_created: bool | None = None
    mail_payment_received: bool | None = None
    mail_payment_failed: bool | None = None
    mail_refund: bool | None = None
    mail_subscription_cancelled: bool | None = None
    mail_reminder_due: bool | None = None
    mail_reminder_overdue: bool | None = None


_KEY_OF = {field.name: field.encode_name for field in msgspec.structs.fields(SettingsChange)}
_SWITCHES: tuple[tuple[str, str, str, FieldType, FormFieldType], ...] = tuple(
    (name, _KEY_OF[name], f"Mail: {MAIL_PHRASES[kind]}", "boolean", "select") for name, kind in MAIL_KIND_OF.items()
)
# Column in the database (or kind of mail) → key in the API, label, type in the detail view, type in the form.
_SHOWN: tuple[tuple[str, str, str, FieldType | None, FormFieldType], ...] = (
    ("default_currency", "defaultCurrency", "Default Currency", None, "text"),
    ("tax_rate_bp", "taxRate", "Tax Rate (basis points)", "number", "number"),
    ("tax_label", "taxLabel", "Tax Label", None, "text"),
    ("data_retention_days", "dataRetentionDays", "Data Retention (days)", "number", "number"),
    ("allow_self_cancel", "allowSelfCancel", "Allow Self-Cancel", "boolean", "select"),
    ("smtp_host", "smtpHost", "SMTP Host", None, "text"),
    ("smtp_port", "smtpPort", "SMTP Port", "number", "number"),
    ("smtp_user", "smtpUser", "SMTP User", None, "text"),
    ("smtp_password_sealed", "smtpPass", "SMTP Password", None, "password"),
    ("smtp_from", "smtpFrom", "SMTP From", None, "text"),
    ("smtp_security", "smtpSecurity", "SMTP Security", None, "select"),
    ("language", "language", "Language", None, "select"),
    ("company_name", "companyName", "Company Name", None, "text"),
    *_SWITCHES,
)
_YES_OR_NO = (Option(label="Yes", value="true"), Option(label="No", value="false"))
_OPTIONS = {
    "allowSelfCancel": _YES_OR_NO,
    **{key: _YES_OR_NO for _, key, _, _, _ in _SWITCHES},
    "smtpSecurity": (
        Option(label="STARTTLS (port 587)", value="starttls"),
        Option(label="TLS (port 465)", value="tls"),
        Option(label="None (only inside your own network)", value="none"),
    ),
    "language": (Option(label="English", value="en"), Option(label="Deutsch", value="de")),
}
_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")
# Where the field of the body and the column are not called the same.
_COLUMN_OF = {"tax_rate": "tax_rate_bp", "smtp_pass": "smtp_password_sealed"}
# Texts that may be removed.
_CLEARABLE = frozenset({"smtp_host", "smtp_user", "smtp_password_sealed", "smtp_from", "company_name"})
# A form leaves empty fields out of what it sends, so there is a text that means "nothing"; so does the dash we show.
_CLEARING = frozenset({"", "-", NOTHING})
_CLEARING_HINT = "Enter - to remove"


def _value(settings: BillingSettings, column: str) -> Cell:
    if column == "smtp_password_sealed":
        return SECRET_MASK if settings.smtp_password_sealed else None
    if column in MAIL_KIND_OF:
        return settings.wants(MAIL_KIND_OF[column])
    return cast("Cell", getattr(settings, column))


def _form_value(value: Cell) -> Cell:
    return str(value).lower() if isinstance(value, bool) else value


@reads("/api/settings", "Show the billing settings", callers=STAFF, answer=Detail)
async def show_settings(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
    return Detail(
        fields=[
            # The dash is no number, so it has no type.
            Field(key=key, label=label, value=NOTHING)
            if value is None
            else Field(key=key, label=label, type=kind, value=value)
            for column, key, label, kind, _ in _SHOWN
            for value in (_value(settings, column),)
        ]
    )


@reads("/api/settings/form", "The settings as a form with true values", callers=STAFF, answer=Form)
async def settings_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
    return Form(
        fields=[
            FormField(
                key=key,
                label=label,
                type=kind,
                value=_form_value(_value(settings, column)),
                placeholder=_CLEARING_HINT if column in _CLEARABLE else None,
                options=_OPTIONS.get(key),
            )
            for column, key, label, _, kind in _SHOWN
        ]
    )


@acts(
    "PUT",
    "/api/settings",
    "Change the billing settings",
    callers=STAFF,
    body=SettingsChange,
    answer=Done,
    is_form=True,
    errors=(400,),
    description="What is left out stays as it is. A new tax rate counts for invoices created from now on.",
)
async def change_settings(call: Call[SettingsChange, NoQuery]) -> Done:
    async with call.database.transaction_of(call.caller) as tx:
        await _change(call, tx)
    call.services.get(SettingsReader).forget()
    return Done()


def _stored(column: str, value: object, *, key: str) -> object:
    """What goes into the column for a value of the body; None removes a text. Raises `BadRequest` for a blank one."""
    if not isinstance(value, str):
        return value
    # A password is kept as it is typed, blanks included.
    text = value if column == "smtp_password_sealed" else value.strip()
    if column in _CLEARABLE and text in _CLEARING:
        return None
    if not text:
        raise refusal_of([FieldError(key, "must not be empty")])
    if column == "smtp_from" and find_mailbox(text) is None:
        raise refusal_of([FieldError(key, "must be one address, such as Ruderclub <billing@example.org>")])
    if column == "smtp_host" and not _HOST.fullmatch(text):
        raise refusal_of([FieldError(key, "must be a name or an address of a server, such as mail.example.org")])
    return text


def _check_password_stays_where_it_was_meant_to_go(before: BillingSettings, changed: Mapping[str, object]) -> None:
    """A stored password is handed to the server it was entered for, protected as it was then, and to no other."""
    is_moved = changed.get("smtp_host") is not None and before.smtp_host is not None
    if before.smtp_password_sealed is None or "smtp_password_sealed" in changed:
        return
    if is_moved or "smtp_security" in changed:
        problem = "must be entered again (or removed) when the mail server or its security changes"
        raise refusal_of([FieldError("smtpPass", problem)])


async def _change(call: Call[SettingsChange, NoQuery], tx: Tx) -> None:
    before = await get_settings(tx.connection, lock=True)
    changes: dict[str, object] = {}
    switches: dict[MailKind, bool] = {}
    for field in msgspec.structs.fields(SettingsChange):
        value = getattr(call.body, field.name)
        if value is None or value == SECRET_MASK:
            continue
        if field.name in MAIL_KIND_OF:
            switches[MAIL_KIND_OF[field.name]] = value
        else:
            column = _COLUMN_OF.get(field.name, field.name)
            changes[column] = _stored(column, value, key=field.encode_name)
    if switches:
        changes["mails_off"] = switched(before.mails_off, changes=switches)
    password = changes.get("smtp_password_sealed")
    if isinstance(password, str):
        changes["smtp_password_sealed"] = call.services.vault.seal(
            password, table=TABLE, row=ROW, column="smtp_password_sealed"
        )
    changed = {column: value for column, value in changes.items() if getattr(before, column) != value}
    if not changed:
        return
    _check_password_stays_where_it_was_meant_to_go(before, changed)
    await update_settings(tx.connection, changes=changed, now=tx.now)
    # Which settings changed is worth keeping; what they were set to can hold names and addresses.
    tx.audit(
        AuditEntry(
            action="settings.updated",
            entity_type="settings",
            entity_id="billing",
            details={"changed": ", ".join(sorted(changed))},
        )
    )


operations = [show_settings, settings_form, change_settings]
