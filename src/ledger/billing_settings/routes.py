"""`/api/settings`: shown, changed, and as a form with true values."""

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from ledger.billing_settings.store import (
    ROW,
    TABLE,
    BillingSettings,
    SettingsReader,
    get_settings,
    update_settings,
)
from ledger.database.transaction import AuditEntry, Tx
from ledger.web.bodies import Body, Currency, NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, acts, reads
from ledger.web.shapes import NOTHING, Cell, Detail, Done, Field, FieldType, Form, FormField, FormFieldType, Option

SECRET_MASK = "********"  # noqa: S105 - what is shown instead of a secret

ShortText = Annotated[str, Meta(max_length=200)]


class SettingsChange(Body, frozen=True, kw_only=True):
    """What can be changed; what is left out stays. A masked password leaves the stored one as it is."""

    default_currency: Currency | None = None
    tax_rate: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    tax_label: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
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


# Column in the database → key in the API, label, type in the detail view, type in the form.
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
)
_OPTIONS = {
    "allowSelfCancel": (Option(label="Yes", value="true"), Option(label="No", value="false")),
    "smtpSecurity": (
        Option(label="STARTTLS (port 587)", value="starttls"),
        Option(label="TLS (port 465)", value="tls"),
        Option(label="None (only inside your own network)", value="none"),
    ),
    "language": (Option(label="English", value="en"), Option(label="Deutsch", value="de")),
}
_COLUMN_OF = {key: column for column, key, _, _, _ in _SHOWN}
# Texts that may be emptied by sending them empty; the others keep their value then.
_CLEARABLE = frozenset({"smtp_host", "smtp_user", "smtp_password_sealed", "smtp_from", "company_name"})


def _value(settings: BillingSettings, column: str) -> Cell:
    if column == "smtp_password_sealed":
        return SECRET_MASK if settings.smtp_password_sealed else None
    return cast("Cell", getattr(settings, column))


def _form_value(value: Cell) -> Cell:
    return str(value).lower() if isinstance(value, bool) else value


@reads("/api/settings", "Show the billing settings", callers=STAFF, answer=Detail)
async def show_settings(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
    return Detail(
        fields=[
            Field(key=key, label=label, type=kind, value=NOTHING if value is None else value)
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
                key=key, label=label, type=kind, value=_form_value(_value(settings, column)), options=_OPTIONS.get(key)
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


async def _change(call: Call[SettingsChange, NoQuery], tx: Tx) -> None:
    before = await get_settings(tx.connection, lock=True)
    changes: dict[str, object] = {}
    for field in msgspec.structs.fields(SettingsChange):
        value = getattr(call.body, field.name)
        column = _COLUMN_OF[field.encode_name]
        if value is None or value == SECRET_MASK or (value == "" and column not in _CLEARABLE):
            continue
        changes[column] = None if value == "" else str(value) if isinstance(value, Currency) else value
    password = changes.get("smtp_password_sealed")
    if isinstance(password, str):
        changes["smtp_password_sealed"] = call.services.vault.seal(
            password, table=TABLE, row=ROW, column="smtp_password_sealed"
        )
    changed = {column: value for column, value in changes.items() if getattr(before, column) != value}
    if not changed:
        return
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
