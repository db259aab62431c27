"""The provider without a provider: people pay by bank transfer, in cash, or as a text of the association says.

It tells payers what to do and asks nobody; staff records the money when it is there. `docs/providers/manual.md` is its
document for administrators.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import msgspec

from ledger.errors import FieldError
from ledger.money import format_money
from ledger.providers.contract import (
    HOLDER_CHARACTERS_MAX,
    BankAccount,
    Capability,
    Instructions,
    SettingField,
    Settings,
    SettingsRefused,
    WantedPayment,
)
from ledger.providers.provider import ProviderDefaults

BANK_CHARACTERS_MAX = 100
INSTRUCTIONS_CHARACTERS_MAX = 5000

_METHODS = {"iban": "Bank transfer", "cash": "Cash", "custom": "Text of your own"}
_REQUIRED = {
    "ibanHolder": "Enter the account holder's name as the bank knows it",
    "ibanNumber": "Enter the IBAN of the account",
    "customInstructions": "Enter the text that tells people how to pay",
}
"""What is said when a setting is missing that its method needs."""
_FIELDS = (
    SettingField(
        key="paymentMethod",
        label="Payment Method",
        kind="select",
        is_required=True,
        options=tuple(_METHODS.items()),
    ),
    # Only the method is required of the form: the Dashboard would ask for the fields of the other methods, too.
    SettingField(key="ibanHolder", label="Account Holder (bank transfer)", placeholder="Sportverein Beispiel e. V."),
    SettingField(key="ibanNumber", label="IBAN (bank transfer)", placeholder="DE89 3704 0044 0532 0130 00"),
    SettingField(
        key="ibanBank",
        label="Bank and BIC (bank transfer, optional)",
        placeholder="Musterbank, COBADEFFXXX (enter - to remove)",
    ),
    SettingField(
        key="customInstructions",
        label="Instructions (text of your own)",
        kind="textarea",
        placeholder="Please pay {amount} with the reference {reference}.",
    ),
)

_PLACEHOLDER = re.compile(r"\{(amount|reference|invoiceId)\}")
_NOT_IN_IBANS = re.compile(r"[^A-Z0-9]")
_IBAN_BEGINNING = re.compile(r"[A-Z]{2}[0-9]{2}")
_BIC = re.compile(r"[A-Z]{4}([A-Z]{2})[A-Z0-9]{2}(?:[A-Z0-9]{3})?")
_WORD = re.compile(r"\w+")


class ManualType:
    """Payments that staff records by hand (implements `contract.ProviderType`)."""

    name: ClassVar[str] = "manual"
    label: ClassVar[str] = "Manual"
    syncs_products: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.INVOICES})

    def fields(self) -> Sequence[SettingField]:
        return _FIELDS

    def check(self, settings: Settings) -> Sequence[FieldError]:
        """Looks only at what the chosen method needs: the settings of another one may wait, unfinished."""
        method = settings.get("paymentMethod", "").strip()
        if method not in _METHODS:
            sentence = "Choose how people pay: iban (bank transfer), cash, or custom (a text of your own)"
            return [FieldError("paymentMethod", sentence)]
        faults = [FieldError(key, _REQUIRED[key]) for key in _missing(method, settings)]
        for key, check in _CHECKS[method].items():
            value = settings.get(key, "").strip()
            if value:
                faults += [FieldError(key, reason) for reason in check(value)]
        return faults

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """Nothing: what was paid to an account before stays paid."""
        return ()

    def connect(self, settings: Settings) -> "ManualProvider":
        """Raises `SettingsRefused` for settings that are not filled in yet."""
        method = settings.get("paymentMethod", "").strip()
        if method not in _METHODS or _missing(method, settings):
            raise SettingsRefused("Fill in the settings of this provider first")
        return ManualProvider(settings)


class ManualProvider(ProviderDefaults):
    """Tells payers how to pay (implements `contract.Provider`)."""

    def __init__(self, settings: Settings) -> None:
        self._method = settings["paymentMethod"].strip()
        self._bank = settings.get("ibanBank", "").strip()
        self._text = _unify_line_breaks(settings.get("customInstructions", "")).strip()
        self._account = _bank_account(settings) if self._method == "iban" else None
        self._words = _WORDS["en"]

    def bank_account(self) -> BankAccount | None:
        return self._account

    async def test(self) -> str:
        if self._account is not None:
            iban = _in_groups_of_four(self._account.iban)
            return f"Nothing to connect to: payers are asked to transfer to {iban}, {self._account.holder}"
        if self._method == "cash":
            return "Nothing to connect to: payers are asked to pay in cash"
        return "Nothing to connect to: payers are shown your own text"

    async def start_payment(self, wanted: WantedPayment) -> Instructions:
        """Says how to pay, the same whenever it is asked.

        The due date is the day of `due_at` in the zone it carries: hand it in in the zone of the books.
        """
        if self._account is not None:
            return Instructions(text=self._transfer_text(self._account, wanted))
        return Instructions(text=self._cash_text(wanted) if self._method == "cash" else self._custom_text(wanted))

    def _transfer_text(self, account: BankAccount, wanted: WantedPayment) -> str:
        words = self._words
        facts = {
            words.amount: format_money(wanted.amount_minor, wanted.currency),
            words.due: words.day(wanted.due_at),
            words.holder: account.holder,
            words.iban: _in_groups_of_four(account.iban),
            words.bank: self._bank,
            words.reference: _in_groups_of_four(wanted.payment_reference),
        }
        return _paragraphs(words.transfer.format(number=wanted.invoice_number), _lines(facts), words.transfer_end)

    def _cash_text(self, wanted: WantedPayment) -> str:
        words = self._words
        facts = {
            words.amount: format_money(wanted.amount_minor, wanted.currency),
            words.due: words.day(wanted.due_at),
            words.reference: _in_groups_of_four(wanted.payment_reference),
        }
        return _paragraphs(words.cash.format(number=wanted.invoice_number), _lines(facts), words.cash_end)

    def _custom_text(self, wanted: WantedPayment) -> str:
        """The text with every placeholder filled in; other braces are the author's own.

        The reference has no spaces here, so that it can be part of an address. A text that does not name it gets it as
        a last line: without one nobody can tell which invoice was paid.
        """
        values = {
            "amount": format_money(wanted.amount_minor, wanted.currency),
            "reference": wanted.payment_reference,
            "invoiceId": wanted.invoice_id,
        }
        text = _PLACEHOLDER.sub(lambda found: values[found[1]], self._text)
        if "{reference}" in self._text:
            return text
        return _paragraphs(text, _lines({self._words.reference: _in_groups_of_four(wanted.payment_reference)}))


# What payers read. Another language is another row of `_WORDS`.


class _Words(msgspec.Struct, frozen=True, kw_only=True):
    transfer: str
    transfer_end: str
    cash: str
    cash_end: str
    amount: str
    due: str
    holder: str
    iban: str
    bank: str
    reference: str
    date: str
    months: tuple[str, ...]

    def day(self, moment: datetime | None) -> str:
        """The day of a moment, empty for none."""
        if moment is None:
            return ""
        return self.date.format(day=moment.day, month=self.months[moment.month - 1], year=moment.year)


# fmt: off
_ENGLISH_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)
# fmt: on
_WORDS: Mapping[str, _Words] = {
    "en": _Words(
        transfer="Please pay invoice {number} by bank transfer.",
        transfer_end="Please enter the payment reference as shown. It tells us which invoice your payment is for.",
        cash="Please pay invoice {number} in cash.",
        cash_end="Please name the payment reference when you pay. It tells us which invoice your payment is for.",
        amount="Amount",
        due="Due date",
        holder="Account holder",
        iban="IBAN",
        bank="Bank",
        reference="Payment reference",
        date="{day} {month} {year}",
        months=_ENGLISH_MONTHS,
    ),
}


def _lines(facts: Mapping[str, str]) -> str:
    """One line for each fact that is known."""
    return "\n".join(f"{label}: {value}" for label, value in facts.items() if value)


def _paragraphs(*texts: str) -> str:
    return "\n\n".join(texts)


def _in_groups_of_four(compact: str) -> str:
    """As IBANs and creditor references are printed, so that people can type them."""
    return " ".join(compact[start : start + 4] for start in range(0, len(compact), 4))


def _unify_line_breaks(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


# The account


def _bank_account(settings: Settings) -> BankAccount:
    iban = _compact_iban(settings["ibanNumber"])
    bic = _find_bic(settings.get("ibanBank", ""), country=iban[:2])
    return BankAccount(holder=settings["ibanHolder"].strip(), iban=iban, bic=bic)


def _compact_iban(text: str) -> str:
    compact = "".join(text.split())
    # `upper` turns some foreign letters into ASCII ones (a dotless i into I), which nobody meant.
    return compact.upper() if compact.isascii() else compact


def _find_bic(bank: str, *, country: str) -> str | None:
    """The BIC in what was said about the bank, or None.

    Names of banks can look like BICs ("Postbank" would be one from Bosnia). So a word counts as a BIC only when it is
    in capital letters and of the country of the account.
    """
    for word in _WORD.findall(bank):
        form = _BIC.fullmatch(word)
        if form is not None and form[1] == country:
            return str(word)
    return None


# What can be wrong with settings. Each check yields reasons in words for a treasurer; an empty value is not asked.


def _missing(method: str, settings: Settings) -> list[str]:
    return [key for key in _CHECKS[method] if key in _REQUIRED and not settings.get(key, "").strip()]


def _check_holder(holder: str) -> Iterator[str]:
    if len(holder) > HOLDER_CHARACTERS_MAX:
        yield (
            f"The account holder's name has {len(holder)} characters, and banks accept {HOLDER_CHARACTERS_MAX}; "
            "shorten it"
        )
    if _has_unprintable(holder):
        yield "The account holder's name must be on one line, without control characters"


def _check_bank(bank: str) -> Iterator[str]:
    if len(bank) > BANK_CHARACTERS_MAX:
        yield f"The bank's name has {len(bank)} characters; shorten it to {BANK_CHARACTERS_MAX} at most"
    if _has_unprintable(bank):
        yield "The bank's name must be on one line, without control characters"


def _check_instructions(text: str) -> Iterator[str]:
    if len(text) > INSTRUCTIONS_CHARACTERS_MAX:
        yield (
            f"The instructions have {len(text)} characters, and {INSTRUCTIONS_CHARACTERS_MAX} are allowed; shorten them"
        )
    if _has_unprintable(text, allowed="\n\r\t"):
        yield "The instructions have control characters in them; type the text again instead of copying it"


def _check_iban(text: str) -> Iterator[str]:
    """One reason at most: what is wrong first explains the rest."""
    iban = _compact_iban(text)
    stranger = _NOT_IN_IBANS.search(iban)
    if stranger is not None:
        yield f"An IBAN has only letters A to Z and digits, and this one has {stranger[0]!r} in it; remove it"
        return
    if not _IBAN_BEGINNING.match(iban):
        yield (
            "An IBAN begins with two letters for the country and two check digits, for example DE89; "
            "an account number alone is not enough"
        )
        return
    # The import takes a tenth of a second, and only staff who enter an account need it.
    from schwifty import IBAN
    from schwifty.exceptions import InvalidChecksumDigits, InvalidCountryCode, InvalidLength, SchwiftyException

    country, compare = iban[:2], "compare it with your bank statement"
    known = IBAN(iban, allow_invalid=True)
    try:
        known.validate()
    except InvalidCountryCode:
        yield f"No country's IBANs begin with {country}; {compare}"
    except InvalidLength:
        length = known.spec.iban_length
        yield f"An IBAN that begins with {country} has {length} characters, and this one {len(iban)}; {compare}"
    except InvalidChecksumDigits:
        yield f"The check digits of the IBAN do not match: a character is wrong or two are swapped; {compare}"
    except SchwiftyException:
        yield f"An IBAN that begins with {country} has its letters and digits in other places; {compare}"


def _has_unprintable(text: str, *, allowed: str = "") -> bool:
    """Control characters, line breaks and halves of characters, apart from the allowed ones."""
    return any(
        unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} and character not in allowed for character in text
    )


_CHECKS: Mapping[str, Mapping[str, Callable[[str], Iterator[str]]]] = {
    "iban": {"ibanHolder": _check_holder, "ibanNumber": _check_iban, "ibanBank": _check_bank},
    "cash": {},
    "custom": {"customInstructions": _check_instructions},
}
"""The settings each method looks at, with what checks them."""
