"""Stripe's bills of subscriptions, that have discounts and taxes of every kind: they add up, or are refused."""

from typing import Any

import msgspec
import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as some

from ledger.providers.contract import ProviderRefused
from ledger.providers.stripe import StripeProvider
from ledger.providers.stripe_billing import Bill, BillPayment, Line
from ledger.providers.stripe_periods import _billed_period
from ledger.providers.subscription_contract import BilledTax, WantedSubscription
from tests.fakes.stripe import FakeStripe
from tests.providers.bills import adds_up, billed
from tests.providers.wanted_subscriptions import VAT, opened, priced, wanted_subscription

# 5 March 2030, 12:00 UTC. The month has 31 days.
MARCH = 1_898_942_400
DAY_S = 86_400
APRIL = MARCH + 31 * DAY_S


@pytest.fixture(autouse=True)
def _time(fake: FakeStripe) -> None:
    fake.now = MARCH


@pytest.fixture
async def wanted(provider: StripeProvider) -> WantedSubscription:
    """40.00 EUR a month, and 19 % tax."""
    return wanted_subscription(await priced(provider, 4000), tax=VAT)


@pytest.fixture
async def subscription(provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription) -> dict[str, Any]:
    checkout = await opened(provider, wanted)
    fake.pay(checkout.remote_id)
    return fake.subscription_of(checkout.remote_id)


@pytest.fixture
async def invoice(fake: FakeStripe, subscription: dict[str, Any]) -> dict[str, Any]:
    """The first one, paid. Tests change it to what else Stripe may have made of it."""
    [invoice] = fake.of("invoice")
    return invoice


def new_rate(fake: FakeStripe, percentage: float, *, inclusive: bool = False, **more: object) -> str:
    values = {"effective_percentage": None, **more}
    return str(fake.new(stripe.TaxRate, "txr", percentage=percentage, inclusive=inclusive, **values)["id"])


def tax(rate: str, amount: int, *, inclusive: bool = False, taxable: int | None = 1) -> dict[str, Any]:
    return {
        "amount": amount,
        "tax_behavior": "inclusive" if inclusive else "exclusive",
        "tax_rate_details": {"tax_rate": rate},
        "taxability_reason": "not_available",
        "taxable_amount": taxable,
        "type": "tax_rate_details",
    }


def line_of(invoice: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = invoice["lines"]["data"][0]
    return line


class TestTaxesAndDiscounts:
    async def test_discounts_lower_the_net(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        [rate] = fake.of("tax_rate")
        line_of(invoice).update(
            quantity=2,
            discount_amounts=[{"amount": 900, "discount": "di_1"}, {"amount": 101, "discount": "di_2"}],
            # Stripe says the same again here; only credit that was granted comes on top.
            pretax_credit_amounts=[
                {"amount": 900, "type": "discount"},
                {"amount": 101, "type": "discount"},
                {"amount": 1000, "type": "credit_balance_transaction"},
            ],
            taxes=[tax(rate["id"], 380)],
        )
        invoice.update(total=2379, total_taxes=[tax(rate["id"], 380)])
        fake.of("invoice_payment")[0]["amount_paid"] = 2379
        [line] = (await billed(provider, invoice)).lines
        # 19.99 cannot be two equal halves.
        assert (line.quantity, line.unit_price_minor, line.total_minor) == (1, 1999, 1999)

    async def test_a_quantity_stays_where_it_divides(self, provider: StripeProvider, invoice: dict[str, Any]) -> None:
        line_of(invoice)["quantity"] = 4
        [line] = (await billed(provider, invoice)).lines
        assert (line.quantity, line.unit_price_minor) == (4, 1000)

    @pytest.mark.parametrize("quantity", [0, None])
    async def test_without_a_quantity_there_is_one(
        self, provider: StripeProvider, invoice: dict[str, Any], quantity: int | None
    ) -> None:
        line_of(invoice)["quantity"] = quantity
        assert (await billed(provider, invoice)).lines[0].quantity == 1

    async def test_inclusive_taxes_are_taken_out_of_the_price(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        rate = new_rate(fake, 19.0, inclusive=True)
        line_of(invoice)["taxes"] = [tax(rate, 639, inclusive=True)]
        # On the sum, Stripe may round otherwise; the lines decide what is in them.
        invoice.update(total=4000, total_taxes=[tax(rate, 638, inclusive=True)])
        fake.of("invoice_payment")[0]["amount_paid"] = 4000
        period = await billed(provider, invoice)
        assert period.taxes == (BilledTax(rate_bp=1900, net_minor=3361, tax_minor=639),)

    async def test_an_icelandic_tax_is_counted_in_crowns(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        rate = new_rate(fake, 24.0)
        line_of(invoice).update(amount=500_000, taxes=[tax(rate, 120_000)])
        payment = fake.of("invoice_payment")[0]
        payment["amount_paid"] = 620_000
        invoice.update(currency="isk", total=620_000, total_taxes=[tax(rate, 120_000)])
        period = await billed(provider, invoice)
        assert (period.total_minor, period.tax_minor, period.payments[0].amount_minor) == (6200, 1200, 6200)

    async def test_several_rates_on_a_line_add_up(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        gst, pst = new_rate(fake, 5.0), new_rate(fake, 9.975)
        line_of(invoice)["taxes"] = [tax(gst, 200), tax(pst, 399)]
        invoice.update(total=4599, total_taxes=[tax(gst, 200), tax(pst, 399)])
        fake.of("invoice_payment")[0]["amount_paid"] = 4599
        period = await billed(provider, invoice)
        assert period.taxes == (BilledTax(rate_bp=1498, net_minor=4000, tax_minor=599),)

    async def test_the_rate_that_was_applied_counts(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        fake.of("tax_rate")[0].update(percentage=25.0, effective_percentage=19.0)
        assert (await billed(provider, invoice)).lines[0].tax_rate_bp == 1900

    async def test_who_is_exempt_has_no_rate(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        [rate] = fake.of("tax_rate")
        line_of(invoice)["taxes"] = [tax(rate["id"], 0, taxable=0)]
        invoice.update(total=4000, total_taxes=[tax(rate["id"], 0, taxable=0)])
        fake.of("invoice_payment")[0]["amount_paid"] = 4000
        assert (await billed(provider, invoice)).taxes == (BilledTax(rate_bp=0, net_minor=4000, tax_minor=0),)

    async def test_tax_that_was_rounded_on_the_sum_is_the_sum_that_was_charged(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        [rate] = fake.of("tax_rate")
        reduced = new_rate(fake, 7.0)
        lines = [{**line_of(invoice), "id": f"il_{n}", "amount": 103, "taxes": [tax(rate["id"], 20)]} for n in range(3)]
        lines.append({**line_of(invoice), "id": "il_3", "amount": 100, "taxes": [tax(reduced, 7)]})
        invoice["lines"]["data"] = lines
        invoice.update(total=409 + 59 + 7, total_taxes=[tax(rate["id"], 59), tax(reduced, 7)])
        period = await billed(provider, invoice)
        assert period.taxes == (
            BilledTax(rate_bp=1900, net_minor=309, tax_minor=59),
            BilledTax(rate_bp=700, net_minor=100, tax_minor=7),
        )

    async def test_the_taxes_of_the_lines_count_where_the_sum_says_nothing(
        self, provider: StripeProvider, invoice: dict[str, Any]
    ) -> None:
        invoice["total_taxes"] = None
        assert (await billed(provider, invoice)).tax_minor == 760

    @pytest.mark.parametrize("total", [4759, 4761, 0, -4760])
    async def test_what_does_not_add_up_is_refused(
        self, provider: StripeProvider, invoice: dict[str, Any], total: int
    ) -> None:
        invoice["total"] = total
        with pytest.raises(ProviderRefused, match="do not add up to its total"):
            await provider.look_up_period(remote_id=invoice["id"])

    async def test_what_is_less_than_the_smallest_unit_is_refused(
        self, provider: StripeProvider, invoice: dict[str, Any]
    ) -> None:
        invoice["currency"] = "isk"
        with pytest.raises(ProviderRefused, match="less than the smallest unit"):
            await provider.look_up_period(remote_id=invoice["id"])


rate_ids = some.sampled_from(("a", "b", "c"))
line_taxes = some.dictionaries(rate_ids, some.integers(-500, 500), max_size=2)


@given(
    amounts=some.lists(
        some.tuples(some.integers(-100_000, 100_000), some.integers(0, 7), some.integers(0, 300), line_taxes),
        max_size=8,
    ),
    inclusive=some.sets(rate_ids),
    rounding=some.dictionaries(rate_ids, some.integers(-2, 2)),
    balances=some.tuples(some.integers(-50_000, 50_000), some.integers(-50_000, 50_000)),
    paid=some.lists(some.integers(0, 100_000), max_size=3),
)
def test_whatever_stripe_charged_adds_up(
    amounts: list[tuple[int, int, int, dict[str, int]]],
    inclusive: set[str],
    rounding: dict[str, int],
    balances: tuple[int, int],
    paid: list[int],
) -> None:
    lines = [
        {
            "id": f"il_{place}",
            "amount": amount,
            "quantity": quantity,
            "discount_amounts": [{"amount": discount}],
            "taxes": [tax(rate, charged, inclusive=rate in inclusive) for rate, charged in taxes.items()],
        }
        for place, (amount, quantity, discount, taxes) in enumerate(amounts)
    ]
    sums: dict[str, int] = {}
    for *_, taxes in amounts:
        for rate, charged in taxes.items():
            sums[rate] = sums.get(rate, 0) + charged
    for rate in sums:
        sums[rate] += rounding.get(rate, 0)
    net = sum(amount - discount for amount, _, discount, _ in amounts)
    bill = msgspec.convert(
        {
            "id": "in_1",
            "status": "paid",
            "currency": "eur",
            "total": net + sum(charged for rate, charged in sums.items() if rate not in inclusive),
            "starting_balance": balances[0],
            "ending_balance": balances[1],
            "total_taxes": [tax(rate, charged, inclusive=rate in inclusive) for rate, charged in sums.items()],
        },
        Bill,
    )
    payments = [
        msgspec.convert(
            {"id": f"inpay_{place}", "amount_paid": amount, "payment": {"payment_intent": f"pi_{place}"}}, BillPayment
        )
        for place, amount in enumerate(paid)
    ]
    rates = {"a": 1900, "b": 700, "c": 0}
    adds_up(_billed_period(bill, [msgspec.convert(line, Line) for line in lines], rates, payments))
