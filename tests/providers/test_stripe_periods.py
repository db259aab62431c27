"""Stripe's bills of subscriptions, in Ledger's words: every one adds up, and is paid in full or says by what else."""

from typing import Any

import pytest

from ledger.providers import stripe_calls
from ledger.providers.contract import MoneyArrived
from ledger.providers.stripe import StripeProvider
from ledger.providers.subscription_contract import BilledLine, BilledPeriod, BilledTax, WantedSubscription
from tests.fakes.stripe import FakeStripe
from tests.providers.bills import billed
from tests.providers.wanted_subscriptions import VAT, at, opened, priced, wanted_change, wanted_subscription

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


def line_of(invoice: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = invoice["lines"]["data"][0]
    return line


class TestAPaidPeriod:
    async def test_is_told_with_its_lines_tax_and_payment(
        self,
        provider: StripeProvider,
        fake: FakeStripe,
        wanted: WantedSubscription,
        subscription: dict[str, Any],
        invoice: dict[str, Any],
    ) -> None:
        [intent] = fake.of("payment_intent")
        assert await billed(provider, invoice) == BilledPeriod(
            remote_id=invoice["id"],
            subscription_remote_id=subscription["id"],
            intent_id=wanted.intent_id,
            is_paid=True,
            currency="EUR",
            lines=(
                BilledLine(
                    description="1 × Club 4000 (at €40.00 / month)",
                    quantity=1,
                    unit_price_minor=4000,
                    total_minor=4000,
                    tax_rate_bp=1900,
                    price_remote_id=wanted.price_remote_id,
                ),
            ),
            taxes=(BilledTax(rate_bp=1900, net_minor=4000, tax_minor=760),),
            subtotal_minor=4000,
            tax_minor=760,
            total_minor=4760,
            payments=(
                MoneyArrived(
                    remote_id=intent["id"], amount_minor=4760, currency="EUR", method="card", received_at=at(MARCH)
                ),
            ),
            credit_minor=0,
            period_start=at(MARCH),
            period_end=at(APRIL),
        )

    async def test_one_that_never_was_is_none(self, provider: StripeProvider) -> None:
        assert await provider.look_up_period(remote_id="in_gone") is None

    async def test_one_that_is_not_paid_says_so(self, provider: StripeProvider, invoice: dict[str, Any]) -> None:
        invoice["status"] = "open"
        period = await billed(provider, invoice)
        assert (period.is_paid, period.payments, period.credit_minor) == (False, (), 0)

    async def test_a_bank_debit_arrives_when_its_charge_was_made(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any]
    ) -> None:
        fake.take_days(subscription["id"])
        fake.travel(APRIL)
        debited = fake.objects[subscription["latest_invoice"]]
        assert not (await billed(provider, debited)).is_paid
        fake.advance(3 * DAY_S)
        fake.settle_invoice(debited["id"])
        [payment] = (await billed(provider, debited)).payments
        assert (payment.method, payment.received_at) == ("sepa_debit", at(APRIL))

    @pytest.mark.parametrize("currency", ["JPY", "ISK", "KWD"])
    async def test_other_currencies_are_counted_as_ledger_counts(
        self, provider: StripeProvider, fake: FakeStripe, currency: str
    ) -> None:
        tax = None if currency == "ISK" else VAT
        checkout = await opened(provider, wanted_subscription(await priced(provider, 9000, currency), tax=tax))
        fake.pay(checkout.remote_id)
        period = await billed(provider, fake.of("invoice")[-1])
        assert (period.subtotal_minor, period.currency) == (9000, currency)
        assert period.tax_minor == (0 if tax is None else 1710)


class TestChanges:
    async def test_unused_time_is_a_negative_line(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any]
    ) -> None:
        fake.now = MARCH + 10 * DAY_S
        dearer = await priced(provider, 9000)
        await provider.change_subscription(wanted_change(subscription["id"], dearer, prorate_at=at(fake.now), tax=VAT))
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        unused, rest = period.lines
        assert unused.total_minor < 0 < rest.total_minor
        assert (unused.quantity, rest.price_remote_id) == (1, dearer)
        # There is no line for a whole period, so it is the invoice's own.
        assert (period.period_start, period.period_end) == (at(fake.now), at(fake.now))

    async def test_one_below_zero_needs_no_payment_and_is_credit_for_the_next(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any]
    ) -> None:
        fake.now = MARCH + 10 * DAY_S
        cheaper = await priced(provider, 1000)
        await provider.change_subscription(wanted_change(subscription["id"], cheaper, prorate_at=at(fake.now), tax=VAT))
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        assert (period.total_minor, period.is_paid, period.payments, period.credit_minor) == (-2419, True, (), 0)
        fake.travel(APRIL)
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        assert (period.total_minor, period.credit_minor, period.payments) == (1190, 1190, ())
        fake.travel(APRIL + 61 * DAY_S)
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        assert (period.credit_minor, [one.amount_minor for one in period.payments]) == (39, [1151])

    async def test_with_old_time_and_a_new_period_the_period_is_the_new_one(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any]
    ) -> None:
        fake.now = MARCH + 10 * DAY_S
        yearly = await priced(provider, 40_000, interval="year")
        await provider.change_subscription(wanted_change(subscription["id"], yearly, prorate_at=at(fake.now), tax=VAT))
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        assert (period.period_start, period.period_end) == (at(fake.now), at(fake.now + 365 * DAY_S))


class TestWhatPaidIt:
    async def test_too_little_to_be_charged_is_carried_to_the_next(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        fake.smallest["eur"] = 0
        checkout = await opened(provider, wanted_subscription(await priced(provider, 30)))
        fake.pay(checkout.remote_id)
        fake.smallest["eur"] = 50
        subscription = fake.subscription_of(checkout.remote_id)
        fake.travel(APRIL)
        period = await billed(provider, fake.objects[subscription["latest_invoice"]])
        assert (period.total_minor, period.credit_minor, period.payments) == (30, 30, ())
        fake.travel(APRIL + 30 * DAY_S)
        invoice = fake.objects[subscription["latest_invoice"]]
        assert (invoice["total"], invoice["amount_due"]) == (30, 60)
        # 60 were taken, of which 30 settle what the earlier one had left open.
        period = await billed(provider, invoice)
        assert [one.amount_minor for one in period.payments] == [30]

    async def test_what_did_not_go_through_stripe_is_external(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        fake.of("invoice_payment")[0]["status"] = "canceled"
        invoice["status_transitions"]["paid_at"] = MARCH + DAY_S
        period = await billed(provider, invoice)
        assert period.payments == (
            MoneyArrived(
                remote_id=invoice["id"],
                amount_minor=4760,
                currency="EUR",
                method="external",
                received_at=at(MARCH + DAY_S),
            ),
        )

    async def test_what_was_forgiven_is_external_too(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        fake.of("invoice_payment")[0]["amount_paid"] = 4000
        payments = (await billed(provider, invoice)).payments
        assert [(one.method, one.amount_minor) for one in payments] == [("card", 4000), ("external", 760)]

    async def test_several_payments_are_told_one_by_one(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        [first], [intent] = fake.of("invoice_payment"), fake.of("payment_intent")
        first["amount_paid"] = 4000
        second = {**intent, "id": "pi_second", "latest_charge": None}
        fake.objects["pi_second"] = second
        payment = {**first["payment"], "payment_intent": "pi_second"}
        fake.objects["inpay_second"] = {**first, "id": "inpay_second", "amount_paid": 760, "payment": payment}
        payments = (await billed(provider, invoice)).payments
        assert [(one.remote_id, one.amount_minor) for one in payments] == [(intent["id"], 4000), ("pi_second", 760)]
        assert payments[1].method == "online"

    async def test_a_payment_recorded_by_hand_is_external(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        payment = fake.of("invoice_payment")[0]["payment"]
        payment.update(type="payment_record", payment_intent=None, payment_record="pr_1")
        [one] = (await billed(provider, invoice)).payments
        assert (one.method, one.remote_id) == ("external", invoice["id"])


class TestManyLines:
    @pytest.mark.parametrize("count", [11, 250])
    async def test_the_lines_beyond_the_first_page_are_fetched(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any], count: int
    ) -> None:
        lines = [{**line_of(invoice), "id": f"il_{n}", "amount": 100, "taxes": []} for n in range(count)]
        invoice["_lines"] = lines
        invoice["lines"].update(data=lines[:10], has_more=True)
        invoice.update(total=100 * count, total_taxes=[])
        fake.of("invoice_payment")[0]["amount_paid"] = 100 * count
        period = await billed(provider, invoice)
        assert len(period.lines) == count
        assert fake.requests_to("/tax_rates/", "GET") == []

    async def test_each_rate_is_asked_for_once(
        self, provider: StripeProvider, fake: FakeStripe, invoice: dict[str, Any]
    ) -> None:
        line = line_of(invoice)
        invoice["lines"]["data"] = [{**line, "id": f"il_{n}"} for n in range(5)]
        invoice.update(total=5 * 4760, total_taxes=[{**line["taxes"][0], "amount": 5 * 760}])
        await billed(provider, invoice)
        assert len(fake.requests_to("/tax_rates/", "GET")) == 1


class TestListing:
    async def test_paid_ones_are_listed_oldest_first(
        self,
        provider: StripeProvider,
        fake: FakeStripe,
        subscription: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(stripe_calls, "PAGE", 2)
        fake.travel(MARCH + 160 * DAY_S)
        fake.decline(subscription["id"])
        fake.travel(MARCH + 190 * DAY_S)
        every = [one["id"] for one in fake.of("invoice")]
        assert len(every) == 7
        listed = await provider.list_paid_periods(subscription_remote_id=subscription["id"], since=at(MARCH))
        assert list(listed) == every[:-1]
        since = await provider.list_paid_periods(subscription_remote_id=subscription["id"], since=at(APRIL))
        assert list(since) == every[1:-1]

    async def test_what_is_unknown_has_none(self, provider: StripeProvider) -> None:
        assert list(await provider.list_paid_periods(subscription_remote_id="sub_gone", since=at(MARCH))) == []
