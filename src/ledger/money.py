"""Amounts of money as text, and which currencies Ledger knows: the only formatter of the whole program.

An amount is an integer in its currency's minor unit and always travels beside its ISO 4217 code.
How many decimals a currency has comes from ISO 4217's own table (package `iso4217`), not from Unicode's CLDR:
`docs/decisions/0002-currency-decimals-from-iso-4217.md` says why.
"""

from collections.abc import Mapping
from types import MappingProxyType

from iso4217 import Currency, raw_xml

from ledger.errors import BadRequest, FieldError

UNIT_PRICE_MAX = 10**10
"""The largest price of one unit, in minor units."""
QUANTITY_MAX = 10**6
"""The largest quantity of one line."""
TOTAL_MAX = 10**12
"""The largest total of an invoice, tax included, in minor units. A `bigint` holds a million of them."""
ITEMS_MAX = 500
"""The most items an invoice can have."""

_SHOWN_CHARACTERS = 12


class UnknownCurrency(BadRequest):
    """The text is not the code of a currency an invoice can be issued in. `field` is the refused field's path."""

    def __init__(self, text: str, *, field: str = "currency") -> None:
        shown = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
        sentence = f"Unknown currency {shown!r}: use a three-letter ISO 4217 code such as EUR"
        super().__init__(sentence, fields=[FieldError(field, sentence)])


def _active_exponents() -> dict[str, int]:
    """Returns the decimals of every currency of the table that money is counted in.

    Metals, test codes and units of account have no minor unit there; funds (`IsFund`) are bookkeeping units
    that nobody can pay in.
    """
    names = [(entry.findtext("Ccy"), entry.find("CcyNm")) for entry in raw_xml.iterfind("CcyTbl/CcyNtry")]
    funds = {code for code, name in names if name is not None and name.get("IsFund") == "true"}
    return {
        currency.code: currency.exponent
        for currency in Currency
        if currency.exponent is not None and currency.code not in funds
    }


# A code that leaves the table moves here: no new invoice can use it, but old ones must stay readable.
_WITHDRAWN_EXPONENTS = {"ANG": 2, "BGN": 2, "HRK": 2}

CURRENCY_EXPONENTS: Mapping[str, int] = MappingProxyType(_active_exponents())
"""The decimals of every currency an invoice can be issued in, by its upper-case code."""

_KNOWN_EXPONENTS = {**_WITHDRAWN_EXPONENTS, **CURRENCY_EXPONENTS}


def is_currency(code: str) -> bool:
    """Tells whether an invoice can be issued in `code`: an active ISO 4217 code, in upper case."""
    return code in CURRENCY_EXPONENTS


def normalise_currency(text: str, *, field: str = "currency") -> str:
    """Returns the code that `text` means (` eur` is `EUR`). Raises `UnknownCurrency`, naming `field`."""
    # `upper` turns some foreign letters into ASCII ones (a dotless i into I), which nobody meant.
    code = text.strip().upper() if text.isascii() else ""
    if not is_currency(code):
        raise UnknownCurrency(text, field=field)
    return code


def currency_exponent(code: str) -> int:
    """Returns how many decimals `code` has: JPY 0, EUR 2, KWD 3. Withdrawn codes keep theirs.

    Raises `UnknownCurrency`.
    """
    exponent = _KNOWN_EXPONENTS.get(code)
    if exponent is None:
        raise UnknownCurrency(code)
    return exponent


def format_decimal(minor: int, currency: str) -> str:
    """Returns an amount in major units with the currency's own decimals, without its code: `59.50`, `5000`.

    Raises `UnknownCurrency`.
    """
    exponent = currency_exponent(currency)
    if exponent == 0:
        return str(minor)
    sign = "-" if minor < 0 else ""
    whole, fraction = divmod(abs(minor), 10**exponent)
    return f"{sign}{whole}.{fraction:0{exponent}d}"


def format_money(minor: int, currency: str) -> str:
    """Returns an amount with its code: `59.50 EUR`, `5000 JPY`, `-1.234 KWD`. Raises `UnknownCurrency`."""
    return f"{format_decimal(minor, currency)} {currency}"
