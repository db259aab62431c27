"""Drafts: which rate a line gets, and what cannot be billed."""

from collections.abc import Callable

import pytest

from ledger.invoices.rules import (
    DraftLine,
    InvoiceDraft,
    InvoiceRefused,
    TaxShare,
    WantedLine,
    draft_invoice,
)
from ledger.money import ITEMS_MAX, QUANTITY_MAX, TOTAL_MAX, UNIT_PRICE_MAX


def line(
    *,
    description: str = "Hosting",
    price: int = 5000,
    quantity: int = 1,
    rate: int | None = None,
    product_rate: int | None = None,
) -> WantedLine:
    return WantedLine(
        description=description,
        unit_price_minor=price,
        quantity=quantity,
        tax_rate_bp=rate,
        product_tax_rate_bp=product_rate,
    )


def draft(*lines: WantedLine, currency: str = "EUR", default_rate: int = 1900, skip_tax: bool = False) -> InvoiceDraft:
    return draft_invoice(lines=lines, currency=currency, default_tax_rate_bp=default_rate, skip_tax=skip_tax)


def refusal(make: Callable[[], InvoiceDraft]) -> InvoiceRefused:
    with pytest.raises(InvoiceRefused) as refused:
        make()
    return refused.value


def refused_fields(*lines: WantedLine, currency: str = "EUR", default_rate: int = 1900) -> list[str]:
    refused = refusal(lambda: draft(*lines, currency=currency, default_rate=default_rate))
    return [error.field for error in refused.fields]


def test_a_draft_has_lines_tax_per_rate_and_totals() -> None:
    hosting = WantedLine(description="Hosting", unit_price_minor=5000, product_id="p1")
    book = line(description="Book", price=950, quantity=3, rate=700)
    assert draft(hosting, book) == InvoiceDraft(
        currency="EUR",
        lines=(
            DraftLine(
                description="Hosting",
                quantity=1,
                unit_price_minor=5000,
                total_minor=5000,
                tax_rate_bp=1900,
                product_id="p1",
            ),
            DraftLine(
                description="Book",
                quantity=3,
                unit_price_minor=950,
                total_minor=2850,
                tax_rate_bp=700,
                product_id=None,
            ),
        ),
        tax_shares=(
            TaxShare(rate_bp=700, net_minor=2850, tax_minor=200),
            TaxShare(rate_bp=1900, net_minor=5000, tax_minor=950),
        ),
        subtotal_minor=7850,
        tax_minor=1150,
        total_minor=9000,
        skip_tax=False,
    )


@pytest.mark.parametrize(
    ("item_rate", "product_rate", "rate"),
    [(None, None, 1900), (None, 700, 700), (None, 0, 0), (500, 700, 500), (0, 700, 0), (0, None, 0)],
)
def test_the_rate_is_the_items_else_the_products_else_the_default(
    item_rate: int | None, product_rate: int | None, rate: int
) -> None:
    assert draft(line(rate=item_rate, product_rate=product_rate)).lines[0].tax_rate_bp == rate


def test_untaxed_lines_have_a_share_too_so_that_the_nets_add_up() -> None:
    made = draft(line(price=100, rate=0), line(price=100, rate=1900))
    assert made.tax_shares == (
        TaxShare(rate_bp=0, net_minor=100, tax_minor=0),
        TaxShare(rate_bp=1900, net_minor=100, tax_minor=19),
    )


def test_skipping_tax_sets_every_rate_to_zero() -> None:
    made = draft(line(rate=700), line(product_rate=1900), line(), skip_tax=True)
    assert [drafted.tax_rate_bp for drafted in made.lines] == [0, 0, 0]
    assert made.tax_shares == (TaxShare(rate_bp=0, net_minor=15_000, tax_minor=0),)
    assert (made.tax_minor, made.total_minor, made.skip_tax) == (0, 15_000, True)


def test_an_invoice_over_nothing_is_allowed() -> None:
    assert draft(line(price=0)).total_minor == 0


def test_the_currency_is_kept_in_upper_case() -> None:
    assert draft(line(), currency="jpy").currency == "JPY"


def test_the_largest_values_are_accepted() -> None:
    assert draft(line(price=UNIT_PRICE_MAX, quantity=100), default_rate=0).total_minor == TOTAL_MAX
    assert draft(line(price=1, quantity=QUANTITY_MAX)).subtotal_minor == QUANTITY_MAX
    assert draft(line(rate=10_000)).tax_minor == 5000
    assert len(draft(*[line()] * ITEMS_MAX).lines) == ITEMS_MAX
    assert draft(line(description="x" * 500)).lines[0].description == "x" * 500


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (line(price=-1), "items[0].unitPrice"),
        (line(price=UNIT_PRICE_MAX + 1), "items[0].unitPrice"),
        (line(quantity=0), "items[0].quantity"),
        (line(quantity=-1), "items[0].quantity"),
        (line(quantity=QUANTITY_MAX + 1), "items[0].quantity"),
        (line(description=""), "items[0].description"),
        (line(description=" \t\n\u00a0"), "items[0].description"),
        (line(description="x" * 501), "items[0].description"),
        (line(description="a\x00b"), "items[0].description"),
        (line(rate=-1), "items[0].taxRate"),
        (line(rate=10_001), "items[0].taxRate"),
        (line(product_rate=10_001), "items[0].productId"),
        (line(price=10**400), "items[0].unitPrice"),
    ],
)
def test_a_bad_line_is_refused_with_its_field(wanted: WantedLine, field: str) -> None:
    assert refused_fields(wanted) == [field]


def test_a_configured_rate_that_is_no_rate_is_refused_unless_tax_is_skipped() -> None:
    assert refused_fields(line(), default_rate=10_001) == ["items[0].taxRate"]
    assert draft(line(), default_rate=10_001, skip_tax=True).tax_minor == 0


def test_a_rate_that_was_sent_is_checked_even_when_tax_is_skipped() -> None:
    refused = refusal(lambda: draft(line(rate=10_001), skip_tax=True))
    assert [error.field for error in refused.fields] == ["items[0].taxRate"]


def test_every_refused_field_is_named() -> None:
    bad = line(description=" ", price=-1, quantity=0, rate=20_000)
    assert refused_fields(bad, line(), line(quantity=0), currency="EURO") == [
        "currency",
        "items[0].description",
        "items[0].unitPrice",
        "items[0].quantity",
        "items[0].taxRate",
        "items[2].quantity",
    ]


def test_the_sentence_tells_people_what_is_wrong() -> None:
    refused = refusal(lambda: draft(line(price=-1), line(quantity=0)))
    assert str(refused) == (
        "The invoice was refused: the unit price of item 1 must be from 0 to 10000000000 minor units; "
        "the quantity of item 2 must be from 1 to 1000000"
    )
    assert refused.status == 400


def test_the_sentence_stays_short_while_the_fields_stay_complete() -> None:
    refused = refusal(lambda: draft(*[line(quantity=0)] * ITEMS_MAX))
    assert len(refused.fields) == ITEMS_MAX
    assert str(refused).endswith("; and 495 more")
    assert len(str(refused)) < 400


def test_no_items_are_refused_with_the_published_sentence() -> None:
    assert str(refusal(draft)) == "userId and at least one item are required"
    assert refused_fields() == ["items"]
    assert refused_fields(currency="EURO") == ["currency", "items"]


def test_too_many_items_are_refused() -> None:
    assert refused_fields(*[line()] * (ITEMS_MAX + 1)) == ["items"]


def test_a_total_beyond_the_limit_is_refused() -> None:
    assert refused_fields(line(price=UNIT_PRICE_MAX, quantity=100), line(price=1), default_rate=0) == ["items"]


def test_the_limit_of_the_total_includes_the_tax() -> None:
    half = line(price=UNIT_PRICE_MAX, quantity=50, rate=10_000)
    assert draft(half).total_minor == TOTAL_MAX
    assert refused_fields(half, line(price=1, rate=0)) == ["items"]


def test_the_largest_price_times_the_largest_quantity_is_refused_and_not_cut_off() -> None:
    refused = refusal(lambda: draft(line(price=UNIT_PRICE_MAX, quantity=QUANTITY_MAX), default_rate=0))
    assert "the items add up to 10000000000000000, more than 1000000000000 minor units" in str(refused)
