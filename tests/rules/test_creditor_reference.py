"""Payment references: ISO 11649 creditor references made from invoice numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schwifty.checksum import ISO7064_mod97_10

from ledger.invoices.rules import invoice_number
from ledger.payments.reference import (
    REFERENCE_CHARACTERS_MAX,
    creditor_reference,
    format_reference,
    is_creditor_reference,
    normalise_reference,
)

# Published by others: the standard's usual example, and those of the Finnish and Swiss guidelines and of libraries.
PUBLISHED = [
    "RF18539007547034",
    "RF18000000000539007547034",
    "RF185390075470Y",
    "RF712348231",
    "RF45G72UUR",
    "RF471234567890",
    "RF08B3700321",
    "RF49N73GBST73AKL38ZX",
    "RF2012345678",
]

years = st.integers(min_value=1000, max_value=9999)
counts = st.integers(min_value=1, max_value=10**12)


@pytest.mark.parametrize("reference", PUBLISHED)
def test_published_references_are_valid(reference: str) -> None:
    assert is_creditor_reference(reference)


@pytest.mark.parametrize("reference", PUBLISHED)
def test_published_check_digits_are_the_ones_ledger_computes(reference: str) -> None:
    assert creditor_reference(reference[4:]) == reference


@pytest.mark.parametrize(
    ("number", "reference"),
    [
        ("INV-2026-0001", "RF16INV20260001"),
        ("INV-2026-10001", "RF27INV202610001"),
        ("inv 2026/0001", "RF16INV20260001"),
        ("A" * 21, "RF47" + "A" * 21),
    ],
)
def test_a_reference_is_the_number_without_punctuation(number: str, reference: str) -> None:
    assert creditor_reference(number) == reference
    assert is_creditor_reference(reference)


@pytest.mark.parametrize("number", ["", "-/-", "A" * 22, "RÉ-1", "INV-2026-٠٠٠١"])
def test_a_number_that_makes_no_reference_is_a_mistake_of_the_program(number: str) -> None:
    with pytest.raises(ValueError, match="payment reference"):
        creditor_reference(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "RF18",
        "RF17539007547034",
        "RF1853900754703",
        "DE89370400440532013000",
        "18539007547034",
        "RF16INV2026-0001",
        "RF18539007547034\n5",
        "RF47" + "A" * 22,
        "RF١٨539007547034",
        "rf16ınv20260001",
        "RF18" + "0" * 100_000,
    ],
)
def test_anything_else_is_not_a_reference(text: str) -> None:
    assert not is_creditor_reference(text)


def test_check_digits_that_only_leave_the_right_remainder_are_not_accepted() -> None:
    """97 and 00, 98 and 01, 02 and 99 leave the same remainder; only the first of each is ever computed."""
    bodies = {creditor_reference(str(n))[2:4]: str(n) for n in range(2000)}
    for digits, alias in (("97", "00"), ("98", "01"), ("02", "99")):
        assert is_creditor_reference(f"RF{digits}{bodies[digits]}")
        assert not is_creditor_reference(f"RF{alias}{bodies[digits]}")


@pytest.mark.parametrize(
    "typed", ["RF16INV20260001", "rf16 inv2 0260 001", " RF16 INV20260001\t", "RF16\u00a0INV20260001"]
)
def test_spaces_and_case_do_not_matter_to_people_who_type(typed: str) -> None:
    assert normalise_reference(typed) == "RF16INV20260001"
    assert is_creditor_reference(typed)


def test_other_characters_stay_when_a_search_is_normalised() -> None:
    assert normalise_reference("Müller ı") == "Müllerı"


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("RF16INV20260001", "RF16 INV2 0260 001"),
        ("RF18539007547034", "RF18 5390 0754 7034"),
        ("RF45G72UUR", "RF45 G72U UR"),
        ("", ""),
    ],
)
def test_people_see_groups_of_four(reference: str, shown: str) -> None:
    assert format_reference(reference) == shown
    assert normalise_reference(shown) == reference


@given(year=years, count=counts)
def test_every_invoice_number_makes_a_valid_reference(year: int, count: int) -> None:
    reference = creditor_reference(invoice_number(year, count))
    assert is_creditor_reference(reference)
    assert len(reference) <= REFERENCE_CHARACTERS_MAX


@given(body=st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=1, max_size=21))
def test_check_digits_are_those_of_another_program(body: str) -> None:
    assert creditor_reference(body)[2:4] == ISO7064_mod97_10().compute([body, "RF"])


@given(first=st.tuples(years, counts), second=st.tuples(years, counts))
def test_two_invoices_never_share_a_reference(first: tuple[int, int], second: tuple[int, int]) -> None:
    references = [creditor_reference(invoice_number(year, count)) for year, count in (first, second)]
    assert (references[0] == references[1]) == (first == second)


def test_every_wrong_digit_and_every_swap_is_noticed() -> None:
    reference = creditor_reference("INV-2026-0193")
    for place in range(2, len(reference)):
        for digit in "0123456789":
            if reference[place].isdigit() and digit != reference[place]:
                assert not is_creditor_reference(reference[:place] + digit + reference[place + 1 :])
        swapped = reference[: place - 1] + reference[place] + reference[place - 1] + reference[place + 1 :]
        assert swapped == reference or not is_creditor_reference(swapped)
