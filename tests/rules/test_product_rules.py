"""Products: what staff can enter, what a change of one means, and what is refused in which words."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import UNIT_PRICE_MAX
from ledger.products.rules import (
    INTERVAL_PHRASES,
    PRODUCT_KIND_PHRASES,
    SYNC_STATE_PHRASES,
    Interval,
    ProductDraft,
    ProductKind,
    ProductRefused,
    ProductWish,
    SyncState,
    Terms,
    change_draft,
    changed_fields,
    draft_product,
)

TICKET = ProductWish(name="Ticket", price=5000, kind=ProductKind.ONE_TIME)
MEMBERSHIP = ProductWish(name="Membership", price="1200", kind=ProductKind.RECURRING, interval="year")


def drafted(wish: ProductWish) -> ProductDraft:
    return draft_product(wish, default_currency="EUR")


def refusal(wish: ProductWish, *, of: ProductWish | None = None) -> dict[str, str]:
    with pytest.raises(ProductRefused) as refused:
        change_draft(drafted(of), wish) if of else drafted(wish)
    assert all(each.message in str(refused.value) for each in refused.value.fields) or "required" in str(refused.value)
    return {each.field: each.message for each in refused.value.fields}


def test_a_product_has_the_configured_currency_and_no_rate_of_its_own_unless_somebody_says_so() -> None:
    assert drafted(TICKET) == ProductDraft(
        name="Ticket",
        description=None,
        kind=ProductKind.ONE_TIME,
        tax_rate_bp=None,
        prorate_on_change=True,
        terms=Terms(amount_minor=5000, currency="EUR", interval=None),
    )


def test_everything_can_come_as_text() -> None:
    draft = drafted(
        ProductWish(
            name="  Membership ",
            price=" 1200 ",
            kind=ProductKind.RECURRING,
            description=" For one\nyear ",
            currency="CHF",
            interval="month",
            prorate_on_change=False,
            tax_rate="700",
        )
    )
    assert draft == ProductDraft(
        name="Membership",
        description="For one\nyear",
        kind=ProductKind.RECURRING,
        tax_rate_bp=700,
        prorate_on_change=False,
        terms=Terms(amount_minor=1200, currency="CHF", interval=Interval.MONTH),
    )


@pytest.mark.parametrize(
    ("wish", "missing"),
    [
        (ProductWish(), {"name", "price", "type"}),
        (ProductWish(name=" ", price=1, kind=ProductKind.ONE_TIME), {"name"}),
        (ProductWish(name="Ticket", price="", kind=ProductKind.ONE_TIME), {"price"}),
        (ProductWish(name="Ticket", price=0), {"type"}),
    ],
)
def test_a_product_without_name_price_or_type_is_refused_with_the_published_sentence(
    wish: ProductWish, missing: set[str]
) -> None:
    with pytest.raises(ProductRefused) as refused:
        drafted(wish)
    assert str(refused.value) == "Name, price, and type are required"
    assert {each.field for each in refused.value.fields} == missing


@pytest.mark.parametrize("price", [0, "0", 1, "00012", UNIT_PRICE_MAX, str(UNIT_PRICE_MAX)])
@pytest.mark.parametrize("of", [TICKET, MEMBERSHIP])
def test_a_price_from_nothing_to_the_limit_is_accepted_for_every_type(of: ProductWish, price: int | str) -> None:
    assert change_draft(drafted(of), ProductWish(price=price)).terms.amount_minor == int(price)


@pytest.mark.parametrize("price", ["abc", "50.00", "12.0", "12,5", "1e3", "+5", "1_000", "٣", "0x10", "-", "5 €"])
def test_a_price_that_is_no_whole_number_is_refused_since_it_could_mean_another_amount(price: str) -> None:
    assert refusal(ProductWish(price=price), of=TICKET) == {
        "price": "must be a whole number of the currency's smallest unit, for example 1250 for 12.50 EUR"
    }


@pytest.mark.parametrize("price", [-1, UNIT_PRICE_MAX + 1, str(UNIT_PRICE_MAX + 1), 10**400])
def test_a_price_beyond_the_limits_is_refused(price: int | str) -> None:
    assert refusal(ProductWish(price=price), of=TICKET) == {"price": "must be from 0 to 10000000000 minor units"}


def test_digits_without_end_are_refused_without_being_read() -> None:
    assert "price" in refusal(ProductWish(price="9" * 100_000), of=TICKET)


def test_a_recurring_product_needs_an_interval_and_a_one_time_product_must_have_none() -> None:
    needs = {"interval": "is required for a recurring product: month or year"}
    has_none = {"interval": "must be left out for a one-time product, or be none"}
    recurring = ProductWish(name="Membership", price=1, kind=ProductKind.RECURRING)
    assert refusal(recurring) == needs
    for nothing in ("none", "", "-", "—"):
        assert refusal(ProductWish(interval=nothing), of=MEMBERSHIP) == needs
        assert change_draft(drafted(TICKET), ProductWish(interval=nothing)) == drafted(TICKET)
    assert refusal(ProductWish(interval="month"), of=TICKET) == has_none
    assert refusal(ProductWish(interval="week"), of=TICKET) == {"interval": "must be one of month, year"}


def test_the_type_of_a_product_cannot_change() -> None:
    wish = ProductWish(kind=ProductKind.ONE_TIME)
    assert list(refusal(wish, of=MEMBERSHIP)) == ["type"]
    assert change_draft(drafted(TICKET), wish) == drafted(TICKET)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wish = ProductWish(name=" ", price="abc", kind=ProductKind.RECURRING, interval="year", tax_rate="19 %")
    assert set(refusal(wish, of=TICKET)) == {"name", "price", "type", "interval", "taxRate"}


@pytest.mark.parametrize("rate", [-1, 10_001, "19.0", "19 %", "abc"])
def test_a_tax_rate_that_is_none_is_refused(rate: int | str) -> None:
    assert refusal(ProductWish(tax_rate=rate), of=TICKET) == {
        "taxRate": "must be a whole number of basis points from 0 to 10000, for example 1900 for 19 %"
    }


@pytest.mark.parametrize("clearing", ["", "-", "—", " - "])
def test_a_description_and_a_tax_rate_are_removed_by_a_dash(clearing: str) -> None:
    described = change_draft(drafted(TICKET), ProductWish(description="Two days", tax_rate=0))
    assert (described.description, described.tax_rate_bp) == ("Two days", 0)
    assert change_draft(described, ProductWish(description=clearing, tax_rate=clearing)) == drafted(TICKET)


def test_a_dash_inside_a_description_stays() -> None:
    assert change_draft(drafted(TICKET), ProductWish(description="Two days - or one")).description


def test_a_wish_that_says_nothing_new_changes_nothing() -> None:
    before = drafted(MEMBERSHIP)
    same = ProductWish(name="Membership ", price=1200, kind=ProductKind.RECURRING, currency="EUR", interval="year")
    assert change_draft(before, ProductWish()) == change_draft(before, same) == before
    assert changed_fields(before, before) == []


def test_what_changed_is_named_as_the_api_names_it() -> None:
    before = drafted(MEMBERSHIP)
    wish = ProductWish(
        name="Club",
        price=1300,
        description="All of it",
        currency="USD",
        interval="month",
        prorate_on_change=False,
        tax_rate=1900,
    )
    assert changed_fields(before, change_draft(before, wish)) == [
        "name",
        "description",
        "price",
        "currency",
        "interval",
        "prorateOnChange",
        "taxRate",
    ]


def test_every_state_and_every_choice_has_a_phrase() -> None:
    assert set(PRODUCT_KIND_PHRASES) == set(ProductKind)
    assert set(INTERVAL_PHRASES) == set(Interval)
    assert set(SYNC_STATE_PHRASES) == set(SyncState)


@given(price=st.one_of(st.integers(), st.text(max_size=40)), rate=st.one_of(st.integers(), st.text(max_size=10)))
def test_whatever_is_entered_is_either_refused_or_within_the_limits(price: int | str, rate: int | str) -> None:
    with contextlib.suppress(ProductRefused):
        draft = change_draft(drafted(TICKET), ProductWish(price=price, tax_rate=rate))
        assert 0 <= draft.terms.amount_minor <= UNIT_PRICE_MAX
        assert draft.tax_rate_bp is None or 0 <= draft.tax_rate_bp <= 10_000
