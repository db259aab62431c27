"""What Stripe takes is the invoice's total, in every currency, whatever the lines and the tax are (guarantee M4)."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ledger.money import CURRENCY_EXPONENTS, format_money
from ledger.providers.contract import PaymentLine, ProviderRefused, WantedPayment
from ledger.providers.stripe import StripeProvider
from ledger.providers.stripe_amounts import from_stripe_amount, to_stripe_amount
from ledger.providers.stripe_checkout import LINES_MAX, session_lines
from tests.fakes.stripe import FakeStripe
from tests.providers.wanted import one_line, wanted_payment, wanted_refund

# From https://docs.stripe.com/currencies, written down again here so that the program does not check itself.
ZERO_DECIMALS = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
HUNDREDTHS_ALWAYS_00 = {"ISK", "UGX"}
NOT_AT_STRIPE = {"IQD", "LYD", "UYW"}


def decimals_at_stripe(currency: str) -> int:
    return 0 if currency in ZERO_DECIMALS else 3 if currency in THREE_DECIMALS else 2


def as_payers_see_it(amount: int, currency: str) -> Decimal:
    return Decimal(amount).scaleb(-decimals_at_stripe(currency))


def as_the_invoice_says(amount_minor: int, currency: str) -> Decimal:
    return Decimal(amount_minor).scaleb(-CURRENCY_EXPONENTS[currency])


@pytest.mark.parametrize(
    ("amount_minor", "currency", "at_stripe"),
    [
        (5950, "EUR", 5950),
        (5000, "JPY", 5000),
        (5, "ISK", 500),
        (5000, "UGX", 500_000),
        (1230, "KWD", 1230),
        (120_000, "MGA", 1200),
        (595_000, "RSD", 595_000),
        (10_000, "HUF", 10_000),
        (10_050, "TWD", 10_050),
    ],
)
def test_an_amount_is_counted_as_stripe_counts_and_back(amount_minor: int, currency: str, at_stripe: int) -> None:
    assert to_stripe_amount(amount_minor, currency) == at_stripe
    assert from_stripe_amount(at_stripe, currency.lower()) == (amount_minor, currency)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "words"),
    [
        (1234, "KWD", "that end in 0, so 1.234 KWD cannot be paid"),
        (1050, "MGA", "whole MGA, so 10.50 MGA cannot be paid"),
        (1000, "IQD", "takes no payments in IQD"),
        (1000, "UYW", "takes no payments in UYW"),
    ],
)
async def test_what_would_have_to_be_rounded_is_refused_and_stripe_not_asked(
    provider: StripeProvider, fake: FakeStripe, amount_minor: int, currency: str, words: str
) -> None:
    with pytest.raises(ProviderRefused, match=words):
        await provider.start_payment(one_line(amount_minor, currency))
    with pytest.raises(ProviderRefused, match=words):
        await provider.refund(wanted_refund("pi_1", amount_minor, currency))
    assert not fake.requests


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENTS))
def test_no_currency_is_charged_more_or_less_than_the_invoice_says(currency: str) -> None:
    accepted = 0
    for amount_minor in (1, 7, 10, 99, 100, 1000, 1010, 12_345, 100_000, 7_777_700):
        try:
            amount = to_stripe_amount(amount_minor, currency)
        except ProviderRefused:
            continue
        accepted += 1
        assert as_payers_see_it(amount, currency) == as_the_invoice_says(amount_minor, currency)
        assert currency not in THREE_DECIMALS or amount % 10 == 0
        assert currency not in HUNDREDTHS_ALWAYS_00 or amount % 100 == 0
    assert accepted >= (0 if currency in NOT_AT_STRIPE else 4)
    assert accepted == 0 or currency not in NOT_AT_STRIPE


@pytest.mark.parametrize("currency", sorted(set(CURRENCY_EXPONENTS) - NOT_AT_STRIPE - {"KPW"}))
async def test_a_checkout_takes_the_total_with_its_tax(
    provider: StripeProvider, fake: FakeStripe, currency: str
) -> None:
    """Each unit price is awkward for Stripe (ends in 3), the total is not."""
    lines = (
        PaymentLine(description="Membership", unit_price_minor=28_433, quantity=3),
        PaymentLine(description="Locker", unit_price_minor=1, quantity=1),
    )
    wanted = wanted_payment(currency=currency, lines=lines, tax_minor=14_700, amount_minor=100_000)
    checkout = await provider.start_payment(wanted)
    session = fake.objects[checkout.remote_id]
    assert as_payers_see_it(session["amount_total"], currency) == as_the_invoice_says(100_000, currency)
    fake.pay(checkout.remote_id)
    state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=checkout.remote_id)
    assert state.payment is not None
    assert (state.payment.amount_minor, state.payment.currency) == (100_000, currency)
    refund = await provider.refund(wanted_refund(state.payment.remote_id, 50_000, currency))
    assert refund.status == "succeeded"
    assert as_payers_see_it(fake.of("refund")[0]["amount"], currency) == as_the_invoice_says(50_000, currency)


LINES = some.lists(
    some.builds(
        PaymentLine,
        description=some.text(min_size=1, max_size=500),
        unit_price_minor=some.integers(0, 10**7),
        quantity=some.integers(1, 10**6),
    ),
    min_size=1,
    max_size=500,
)


@given(lines=LINES, tax_minor=some.integers(0, 10**6), currency=some.sampled_from(sorted(CURRENCY_EXPONENTS)))
def test_whatever_the_lines_are_they_add_up(lines: list[PaymentLine], tax_minor: int, currency: str) -> None:
    wanted = payment_of(lines, tax_minor, currency)
    try:
        shown = session_lines(wanted)
    except ProviderRefused:
        return
    assert 1 <= len(shown) <= LINES_MAX
    total = sum(line["price_data"].get("unit_amount", 0) * line.get("quantity", 0) for line in shown)
    assert total == to_stripe_amount(wanted.amount_minor, currency)
    names = [line["price_data"]["product_data"]["name"] for line in shown]
    assert all(0 < len(name) <= 250 for name in names)


def payment_of(lines: list[PaymentLine], tax_minor: int, currency: str) -> WantedPayment:
    net = sum(line.unit_price_minor * line.quantity for line in lines)
    return wanted_payment(lines=tuple(lines), amount_minor=net + tax_minor, tax_minor=tax_minor, currency=currency)


@pytest.mark.parametrize("amount_minor", [0, -1, 10**12])
async def test_an_impossible_total_is_refused_before_anything_is_asked(
    provider: StripeProvider, fake: FakeStripe, amount_minor: int
) -> None:
    with pytest.raises(ProviderRefused, match=f"payment of {format_money(amount_minor, 'EUR')}"):
        await provider.start_payment(one_line(amount_minor, "EUR"))
    assert not fake.requests
