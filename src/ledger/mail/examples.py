"""Values as mails have them, for trying a template: with everything there is, and with as little as there can be."""

from collections.abc import Mapping
from datetime import date

from ledger.billing_settings.mail_kinds import MailKind
from ledger.mail.words import Language, day, money

Values = Mapping[str, object]

# What every template may use, in every mail; what a mail does not have is None.
VARIABLES = (
    *("language", "company", "name", "link", "number", "total", "open", "amount", "due_date", "reference", "account"),
    *("instructions", "pays_online", "product", "ended_on"),
)
_ABOUT_DEBT = (MailKind.INVOICE_CREATED, MailKind.REMINDER_DUE, MailKind.REMINDER_OVERDUE)
_ABOUT_SUBSCRIPTIONS = (MailKind.SUBSCRIPTION_CANCELLED, MailKind.PAYMENT_FAILED)
_LINK = "https://dashboard.example.org/ledger/my/invoices/1"


def filled(values: Values) -> dict[str, object]:
    """Values with None for each variable that is missing."""
    return {**dict.fromkeys(VARIABLES), **values}


def examples(name: str, language: Language) -> list[dict[str, object]]:
    """Values of several mails of one kind, or of the test mail."""
    people: Values = {"company": "Ruderclub Beispiel e. V.", "name": "Ben Buyer"}
    subjects = [_subscription(language)] if name in _ABOUT_SUBSCRIPTIONS else []
    if name in tuple(MailKind) and name != MailKind.SUBSCRIPTION_CANCELLED:
        subjects += [_invoice(name, language)]
    if name in _ABOUT_DEBT:
        account = {"holder": "Ruderclub Beispiel e. V.", "iban": "DE89 3704 0044 0532 0130 00", "bic": "COBADEFFXXX"}
        ways: list[Values] = [
            {"account": account},
            {"account": {**account, "bic": None}},
            {"instructions": "Pay at the desk."},
            {"pays_online": True},
        ]
        subjects += [{**_invoice(name, language), **way} for way in ways]
    if name == MailKind.INVOICE_CREATED:
        subjects += [{**_invoice(name, language), "open": None}, {**_invoice(name, language), "due_date": None}]
    subjects = subjects or [{}]
    return [
        filled({"language": language, **each, **also}) for each in subjects for also in ({}, {**people, "link": _LINK})
    ]


def _invoice(name: str, language: Language) -> Values:
    return {
        "number": "INV-2026-0001",
        "total": money(5950, "EUR", language),
        "open": money(3950, "EUR", language) if name in _ABOUT_DEBT or name == MailKind.PAYMENT_FAILED else None,
        "amount": money(2000, "EUR", language) if name == MailKind.REFUND else None,
        "due_date": day(date(2026, 3, 31), language),
        "reference": "RF16 INV2 0260 001",
        "pays_online": False,
    }


def _subscription(language: Language) -> Values:
    return {"product": "Membership", "ended_on": day(date(2026, 3, 31), language)}
