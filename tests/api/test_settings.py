"""The billing settings: shown, offered as a form with true values, and changed with what a form sends."""

import asyncpg
import pytest

from tests.api.shown import labels, types
from tests.installation import Answer, Installation

FRESH = {
    "defaultCurrency": "EUR",
    "taxRate": 0,
    "taxLabel": "Tax",
    "dataRetentionDays": 2922,
    "allowSelfCancel": True,
    "smtpHost": "—",
    "smtpPort": "—",
    "smtpUser": "—",
    "smtpPass": "—",
    "smtpFrom": "—",
    "smtpSecurity": "starttls",
    "language": "en",
    "companyName": "—",
    "mailInvoiceCreated": True,
    "mailPaymentReceived": True,
    "mailPaymentFailed": True,
    "mailRefund": True,
    "mailSubscriptionCancelled": True,
    "mailReminderDue": True,
    "mailReminderOverdue": True,
}
SWITCHES = [key for key in FRESH if key.startswith("mail")]
MAIL = {
    "smtpHost": "mail.example.org",
    "smtpPort": "587",
    "smtpUser": "ledger",
    "smtpPass": "swordfish",
    "smtpFrom": "Ledger <ledger@example.org>",
    "companyName": "Ruderclub e.V.",
}


async def shown(ledger: Installation) -> dict[str, object]:
    return (await ledger.staff.get("/api/settings")).fields()


async def change(ledger: Installation, **changes: object) -> Answer:
    return await ledger.staff.put("/api/settings", changes)


async def test_a_fresh_installation_shows_its_defaults(ledger: Installation) -> None:
    answer = await ledger.staff.get("/api/settings")

    assert answer.status == 200
    assert [key for key, _ in labels(answer)] == list(FRESH)
    assert answer.fields() == FRESH
    # A dash is not a number.
    assert types(answer) == {
        "taxRate": "number",
        "dataRetentionDays": "number",
        "allowSelfCancel": "boolean",
        **dict.fromkeys(SWITCHES, "boolean"),
    }


async def test_a_form_changes_everything_by_sending_everything_as_text(ledger: Installation) -> None:
    answer = await change(
        ledger,
        defaultCurrency="chf",
        taxRate="810",
        taxLabel=" MWST ",
        dataRetentionDays="3653",
        allowSelfCancel="false",
        smtpSecurity="tls",
        language="de",
        mailRefund="false",
        mailReminderDue="false",
        **MAIL,
    )

    assert (answer.status, answer.body) == (200, {"success": True})
    seen = await ledger.staff.get("/api/settings")
    assert seen.fields() == {
        "defaultCurrency": "CHF",
        "taxRate": 810,
        "taxLabel": "MWST",
        "dataRetentionDays": 3653,
        "allowSelfCancel": False,
        "smtpHost": "mail.example.org",
        "smtpPort": 587,
        "smtpUser": "ledger",
        "smtpPass": "********",
        "smtpFrom": "Ledger <ledger@example.org>",
        "smtpSecurity": "tls",
        "language": "de",
        "companyName": "Ruderclub e.V.",
        **dict.fromkeys(SWITCHES, True),
        "mailRefund": False,
        "mailReminderDue": False,
    }
    assert types(seen)["smtpPort"] == "number"


async def test_numbers_and_booleans_may_also_be_sent_as_such(ledger: Installation) -> None:
    assert (await change(ledger, taxRate=1900, allowSelfCancel=False, smtpPort=25)).status == 200

    after = await shown(ledger)
    assert (after["taxRate"], after["allowSelfCancel"], after["smtpPort"]) == (1900, False, 25)


async def test_what_is_left_out_stays_as_it_is(ledger: Installation) -> None:
    await change(ledger, **MAIL)
    before = await shown(ledger)

    assert (await change(ledger)).status == 200
    assert (await change(ledger, smtpHost=None, taxRate=None, unknown="x")).status == 200

    assert await shown(ledger) == before


async def test_the_password_is_masked_and_the_mask_leaves_it_as_it_is(ledger: Installation) -> None:
    await change(ledger, **MAIL)
    sealed = await ledger.value("select smtp_password_sealed from billing_settings")
    assert b"swordfish" not in sealed

    await change(ledger, smtpPass="********", smtpHost="mail2.example.org")

    assert await ledger.value("select smtp_password_sealed from billing_settings") == sealed
    for path in ("/api/settings", "/api/settings/form", "/api/audit"):
        assert b"swordfish" not in (await ledger.staff.get(path)).content
    await change(ledger, smtpPass="tunafish")
    assert await ledger.value("select smtp_password_sealed from billing_settings") != sealed


async def test_optional_texts_are_removed_by_an_empty_text_or_a_dash(ledger: Installation) -> None:
    optional = ("smtpHost", "smtpUser", "smtpPass", "smtpFrom", "companyName")
    # The Dashboard leaves empty fields out, so a form needs something to send; and a dash is what it shows.
    for nothing in ("", "-", "—"):
        await change(ledger, **MAIL)
        assert (await change(ledger, **dict.fromkeys(optional, nothing))).status == 200
        after = await shown(ledger)
        assert {key: after[key] for key in optional} == dict.fromkeys(optional, "—"), nothing


async def test_the_form_has_true_values_and_says_how_to_remove_a_text(ledger: Installation) -> None:
    await change(ledger, smtpHost="mail.example.org", smtpPass="swordfish", allowSelfCancel=False)

    answer = await ledger.staff.get("/api/settings/form")

    fields = {field["key"]: field for field in answer.body["fields"]}
    assert list(fields) == list(FRESH)
    values = {key: field["value"] for key, field in fields.items() if "value" in field}
    assert values == {
        "defaultCurrency": "EUR",
        "taxRate": 0,
        "taxLabel": "Tax",
        "dataRetentionDays": 2922,
        "allowSelfCancel": "false",
        "smtpHost": "mail.example.org",
        "smtpPass": "********",
        "smtpSecurity": "starttls",
        "language": "en",
        **dict.fromkeys(SWITCHES, "true"),
    }
    assert {key: field["type"] for key, field in fields.items()} == {
        "defaultCurrency": "text",
        "taxRate": "number",
        "taxLabel": "text",
        "dataRetentionDays": "number",
        "allowSelfCancel": "select",
        "smtpHost": "text",
        "smtpPort": "number",
        "smtpUser": "text",
        "smtpPass": "password",
        "smtpFrom": "text",
        "smtpSecurity": "select",
        "language": "select",
        "companyName": "text",
        **dict.fromkeys(SWITCHES, "select"),
    }
    assert fields["smtpHost"]["placeholder"] == "Enter - to remove"
    assert [option["value"] for option in fields["smtpSecurity"]["options"]] == ["starttls", "tls", "none"]
    assert [option["value"] for option in fields["language"]["options"]] == ["en", "de"]
    assert [option["value"] for option in fields["allowSelfCancel"]["options"]] == ["true", "false"]


async def test_saving_the_form_as_it_was_shown_changes_nothing(ledger: Installation) -> None:
    await change(ledger, **MAIL)
    before = await shown(ledger)
    entries = (await ledger.staff.get("/api/audit")).body["total"]
    form = (await ledger.staff.get("/api/settings/form")).body["fields"]

    answer = await change(ledger, **{field["key"]: str(field["value"]) for field in form if "value" in field})

    assert answer.status == 200
    assert await shown(ledger) == before
    assert (await ledger.staff.get("/api/audit")).body["total"] == entries


async def test_a_change_is_in_the_audit_log_without_what_it_was_set_to(ledger: Installation) -> None:
    await change(ledger, taxRate="1900", **MAIL)

    entry = (await ledger.staff.get("/api/audit")).body["rows"][0]

    assert (entry["action"], entry["entityType"], entry["userId"]) == ("settings.updated", "settings", "Ada Admin")
    details = await ledger.value("select details::text from audit_entry where action = 'settings.updated'")
    assert "smtp_user" in details
    for value in ("swordfish", "mail.example.org", "ledger@", "Ruderclub", "1900"):
        assert value not in details


async def test_refused_settings_are_named_and_nothing_is_changed(ledger: Installation) -> None:
    refused: dict[str, list[object]] = {
        "defaultCurrency": ["XXX", "EURO", 5, ""],
        "taxRate": [-1, 10_001, "19%", "19.5", 19.5, "", "x"],
        "taxLabel": ["", "   ", "x" * 51, "two\nlines", 5],
        "dataRetentionDays": [0, -1, 36_526, "8 years"],
        "allowSelfCancel": ["perhaps", 2, []],
        "smtpHost": ["x" * 201, "a\r\nb", "nul\0", 5, "https://mail.example.org", "mail example org"],
        "smtpPort": [0, 65_536, "smtp", "-"],
        "smtpFrom": [
            "a@example.org\nBcc: b@example.org",
            "ledger",
            "a@b@",
            "a@example.org, b@example.org",
            "A <a@example.org> B <b@example.org>",
            "ä@example.org",
        ],
        "smtpSecurity": ["ssl", "STARTTLS", ""],
        "language": ["fr", "english"],
        "companyName": ["x" * 201, {}],
        "mailRefund": ["perhaps", 2, ""],
    }
    for field, values in refused.items():
        for value in values:
            answer = await change(ledger, **{field: value, "smtpUser": "changed"})
            assert (answer.status, list(answer.refused())) == (400, [field]), (field, value, answer.content)

    several = await change(ledger, taxRate="x", language="fr", smtpPort=0)
    assert several.error == (
        "taxRate: must be a whole number, written in digits only; smtpPort: must be a whole number of at least 1; "
        "language: must be one of en, de"
    )
    assert await shown(ledger) == FRESH


async def test_kinds_of_mail_are_switched_one_by_one(ledger: Installation) -> None:
    async def off() -> list[str]:
        stored: list[str] = await ledger.value("select mails_off from billing_settings")
        return stored

    await change(ledger, mailRefund=False, mailInvoiceCreated="false")
    assert await off() == ["invoice_created", "refund"]

    await change(ledger, mailInvoiceCreated="true", mailPaymentReceived=True, taxRate=5)
    assert await off() == ["refund"]
    after = await shown(ledger)
    assert [key for key in SWITCHES if not after[key]] == ["mailRefund"]

    details = await ledger.value("select details::text from audit_entry where action = 'settings.updated' limit 1")
    assert "mails_off" in details


async def test_a_kind_of_mail_that_does_not_exist_cannot_be_stored(ledger: Installation) -> None:
    assert (await change(ledger, mailGreetings=False)).status == 200
    assert await shown(ledger) == FRESH

    with pytest.raises(asyncpg.CheckViolationError):
        await ledger.sql("update billing_settings set mails_off = '{greetings}'")


async def test_a_sender_may_have_a_name_and_a_domain_with_umlauts(ledger: Installation) -> None:
    for sender in ("kasse@example.org", "Ruderclub München <kasse@ruderclub-münchen.de>", '"Club, e.V." <a@b.example>'):
        assert (await change(ledger, smtpFrom=sender)).status == 200
        assert (await shown(ledger))["smtpFrom"] == sender


async def test_settings_are_for_staff(ledger: Installation) -> None:
    for path in ("/api/settings", "/api/settings/form"):
        assert (await ledger.user.get(path)).status == 403
        assert (await ledger.shop.get(path)).status == 403
        assert (await ledger.nobody.get(path)).status == 401
    assert (await ledger.user.put("/api/settings", {"taxRate": 1})).status == 403
    assert await shown(ledger) == FRESH
