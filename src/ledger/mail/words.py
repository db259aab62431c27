"""Amounts and days as people of each language write them in a letter."""

from collections.abc import Mapping
from datetime import date
from typing import Literal

from ledger.money import format_money

Language = Literal["en", "de"]
LANGUAGES: tuple[Language, ...] = ("en", "de")

# fmt: off
_MONTHS: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
        "December",
    ),
    "de": (
        "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November",
        "Dezember",
    ),
}
# fmt: on


def language_of(text: str) -> Language:
    """The language of a setting; English for one that there are no templates of."""
    return text if text in LANGUAGES else "en"


def money(minor: int, currency: str, language: Language) -> str:
    """An amount with its code: `59.50 EUR`, in German `59,50 EUR`."""
    text = format_money(minor, currency)
    return text.replace(".", ",") if language == "de" else text


def day(value: date, language: Language) -> str:
    """A day: `5 March 2026`, in German `5. März 2026`."""
    dot = "." if language == "de" else ""
    return f"{value.day}{dot} {_MONTHS[language][value.month - 1]} {value.year}"


def in_groups_of_four(compact: str) -> str:
    """As IBANs are printed, so that people can type them."""
    return " ".join(compact[start : start + 4] for start in range(0, len(compact), 4))
