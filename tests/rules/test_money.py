"""Currencies and amounts as text."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iso4217 import Currency

from ledger.money import (
    CURRENCY_EXPONENTS,
    TOTAL_MAX,
    UnknownCurrency,
    currency_exponent,
    format_decimal,
    format_money,
    is_currency,
    normalise_currency,
)

# Every currency an invoice could ever be issued in, with its decimals. Stored amounts mean what they mean by this
# list, so an update of the table must not change it in silence: see the two tests that use it.
DECIMALS_EVER_USED: dict[int, str] = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF",
    2: "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY "
    "COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR "
    "ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN "
    "MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS "
    "SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW "
    "ZWG",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "UYW",
}
DECIMALS_BY_CODE = {code: decimals for decimals, codes in DECIMALS_EVER_USED.items() for code in codes.split()}


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (5950, "EUR", "59.50 EUR"),
        (-5950, "EUR", "-59.50 EUR"),
        (0, "EUR", "0.00 EUR"),
        (5, "EUR", "0.05 EUR"),
        (-5, "EUR", "-0.05 EUR"),
        (100, "EUR", "1.00 EUR"),
        (5000, "JPY", "5000 JPY"),
        (-5000, "JPY", "-5000 JPY"),
        (0, "JPY", "0 JPY"),
        (1234, "KWD", "1.234 KWD"),
        (1, "KWD", "0.001 KWD"),
        (12345, "UYW", "1.2345 UYW"),
        (TOTAL_MAX, "EUR", "10000000000.00 EUR"),
    ],
)
def test_an_amount_is_shown_with_the_decimals_of_its_currency(minor: int, currency: str, text: str) -> None:
    assert format_money(minor, currency) == text


@pytest.mark.parametrize(("currency", "decimals"), [("RSD", 2), ("ALL", 2), ("MGA", 2), ("LBP", 2), ("IQD", 3)])
def test_currencies_that_cldr_rounds_for_daily_use_keep_their_minor_unit(currency: str, decimals: int) -> None:
    assert currency_exponent(currency) == decimals


def test_an_amount_can_be_shown_without_its_code() -> None:
    assert format_decimal(5950, "EUR") == "59.50"
    assert format_decimal(5000, "JPY") == "5000"


@settings(deadline=None, database=None)
@given(minor=st.integers(-TOTAL_MAX, TOTAL_MAX), currency=st.sampled_from(sorted(DECIMALS_BY_CODE)))
def test_the_text_of_an_amount_is_exact_in_every_currency(minor: int, currency: str) -> None:
    text = format_decimal(minor, currency)
    decimals = currency_exponent(currency)
    assert Fraction(text) * 10**decimals == minor
    assert len(text.partition(".")[2]) == decimals


def test_no_update_of_the_table_changes_what_a_stored_amount_means() -> None:
    # When this fails after an update of `iso4217`: a withdrawn code moves to `_WITHDRAWN_EXPONENTS`; changed
    # decimals need a decision about the amounts that are stored already.
    assert {code: currency_exponent(code) for code in DECIMALS_BY_CODE} == DECIMALS_BY_CODE


def test_every_currency_of_the_table_is_in_the_list_of_this_test() -> None:
    # When this fails after an update of `iso4217`: add the new code to the list.
    assert set(CURRENCY_EXPONENTS) <= set(DECIMALS_BY_CODE)


def test_decimals_are_those_of_the_package() -> None:
    assert all(Currency(code).exponent == decimals for code, decimals in CURRENCY_EXPONENTS.items())


@pytest.mark.parametrize("code", ["XAU", "XAG", "XXX", "XTS", "XDR", "XSU", "XUA", "XBA"])
def test_metals_test_codes_and_units_of_account_are_no_currency(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize("code", ["BOV", "CHE", "CHW", "CLF", "COU", "MXV", "USN", "UYI"])
def test_funds_are_no_currency(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize("code", ["eur", "Eur", "EURO", "EU", "", " EUR", "EUR\n", "978", "€", "ABC"])
def test_only_active_codes_in_upper_case_are_currencies(code: str) -> None:
    assert not is_currency(code)


@pytest.mark.parametrize("code", ["ANG", "BGN", "HRK"])
def test_a_withdrawn_currency_is_refused_for_new_invoices_and_still_shown_on_old_ones(code: str) -> None:
    assert not is_currency(code)
    with pytest.raises(UnknownCurrency):
        normalise_currency(code)
    assert format_money(5950, code) == f"59.50 {code}"


@pytest.mark.parametrize("text", ["EUR", "eur", "Eur", " eur ", "EUR\n"])
def test_a_code_is_understood_in_any_case_and_with_blanks_around_it(text: str) -> None:
    assert normalise_currency(text) == "EUR"


# In upper case the dotless i of "ınr" is an ordinary I.
@pytest.mark.parametrize("text", ["", " ", "EURO", "XAU", "CHW", "E UR", "€", "\u0131nr", "'; --", "\x00"])
def test_an_unknown_currency_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(UnknownCurrency) as refused:
        normalise_currency(text, field="defaultCurrency")
    assert [error.field for error in refused.value.fields] == ["defaultCurrency"]


def test_the_refusal_names_the_code_and_says_what_to_do() -> None:
    with pytest.raises(UnknownCurrency) as refused:
        normalise_currency("EURO")
    assert str(refused.value) == "Unknown currency 'EURO': use a three-letter ISO 4217 code such as EUR"
    assert refused.value.status == 400


def test_the_refusal_does_not_repeat_a_long_text() -> None:
    with pytest.raises(UnknownCurrency) as refused:
        normalise_currency("E" * 100_000)
    assert len(str(refused.value)) < 100


def test_an_amount_in_an_unknown_currency_is_not_shown() -> None:
    with pytest.raises(UnknownCurrency):
        format_money(1, "eur")
