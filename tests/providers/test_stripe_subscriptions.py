"""Subscriptions at Stripe: started and looked up, against the project's own fake of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from ledger.providers.contract import Checkout, Payer, ProviderRefused
from ledger.providers.stripe import StripeProvider
from ledger.providers.subscription_contract import SubscriptionState, WantedSubscription, WantedTax
from tests.fakes.stripe import FakeStripe
from tests.providers.wanted import wanted_payment
from tests.providers.wanted_subscriptions import VAT, at, opened, priced, wanted_subscription

# 5 March 2030, 12:00 UTC: months of 31, 30 and 31 days follow. Later than the ids of intents, which tell when.
MARCH = 1_898_942_400
DAY_S = 86_400


@pytest.fixture(autouse=True)
def _time(fake: FakeStripe) -> None:
    fake.now = MARCH


@pytest.fixture
async def wanted(provider: StripeProvider) -> WantedSubscription:
    """40.00 EUR a month."""
    return wanted_subscription(await priced(provider, 4000), tax=VAT)


Look = Callable[[], Awaitable[SubscriptionState]]


@pytest.fixture
def look(provider: StripeProvider, wanted: WantedSubscription) -> Look:
    async def look() -> SubscriptionState:
        return await provider.look_up_subscription(intent_id=wanted.intent_id, remote_id=None, checkout_remote_id=None)

    return look


@pytest.fixture
async def active(provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look) -> str:
    """A subscription whose first month is paid; returns its remote id."""
    fake.pay((await opened(provider, wanted)).remote_id)
    return remote_id_of(await look())


def remote_id_of(state: SubscriptionState) -> str:
    assert state.remote_id is not None
    return state.remote_id


def session_of(fake: FakeStripe, checkout: Checkout) -> dict[str, Any]:
    return fake.objects[checkout.remote_id]


class TestStarting:
    async def test_it_is_a_page_for_the_price_with_the_tax_on_top(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        checkout = await opened(provider, wanted)
        session = session_of(fake, checkout)
        [rate] = fake.of("tax_rate")
        assert (session["amount_total"], session["currency"]) == (4760, "eur")
        assert (rate["percentage"], rate["inclusive"], rate["display_name"]) == (19.0, False, "VAT 19 %")
        assert rate["metadata"] == {"rate_bp": "1900"}
        assert checkout.tax_remote_id == rate["id"]
        assert checkout.customer_remote_id == session["customer"]
        assert checkout.url == session["url"]
        [request] = fake.requests_to("/checkout/sessions$", "POST")
        assert request.idempotency_key == f"ledger-subscribe-{wanted.intent_id}"
        for name in ("adaptive_pricing", "automatic_tax"):
            assert request.params[name] == {"enabled": "false"}
        assert request.params["allow_promotion_codes"] == "false"

    async def test_the_session_and_the_subscription_tell_what_they_are_for(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        checkout = await opened(provider, wanted)
        told = {"intent_id": wanted.intent_id, "subscription_id": wanted.intent_id, "person": "7"}
        assert session_of(fake, checkout)["metadata"] == told
        assert session_of(fake, checkout)["client_reference_id"] == wanted.intent_id
        fake.pay(checkout.remote_id)
        assert fake.subscription_of(checkout.remote_id)["metadata"] == told

    async def test_without_tax_there_is_no_tax_rate(self, provider: StripeProvider, fake: FakeStripe) -> None:
        checkout = await opened(provider, wanted_subscription(await priced(provider, 4000)))
        assert session_of(fake, checkout)["amount_total"] == 4000
        assert checkout.tax_remote_id is None
        assert fake.of("tax_rate") == []

    async def test_the_same_intent_is_the_same_page(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        fake.delay_s = 0.05
        checkouts = await asyncio.gather(*(opened(provider, wanted) for _ in range(5)))
        assert len(set(checkouts)) == 1
        # By now it is known what Stripe calls the payer and the tax.
        assert wanted.tax is not None
        known = msgspec.structs.replace(
            wanted,
            payer=Payer(person_id=7, remote_id=checkouts[0].customer_remote_id),
            tax=msgspec.structs.replace(wanted.tax, remote_id=checkouts[0].tax_remote_id),
        )
        assert await opened(provider, known) == checkouts[0]
        assert [len(fake.of(kind)) for kind in ("checkout.session", "customer", "tax_rate")] == [1, 1, 1]

    async def test_a_page_that_was_used_meanwhile_answers_with_the_subscription(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        checkout = await opened(provider, wanted)
        fake.pay(checkout.remote_id)
        again = await provider.start_subscription(wanted)
        assert isinstance(again, SubscriptionState)
        assert again.status == "active"
        assert again.tax_remote_id == checkout.tax_remote_id
        assert msgspec.structs.replace(again, tax_remote_id=None) == await look()

    async def test_a_page_that_is_closed_meanwhile_says_so(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        fake.expire((await opened(provider, wanted)).remote_id)
        again = await provider.start_subscription(wanted)
        assert isinstance(again, SubscriptionState)
        assert again.status == "cancelled"

    async def test_payments_and_subscriptions_of_a_person_have_one_customer(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        await provider.start_payment(wanted_payment())
        await opened(provider, wanted)
        assert len(fake.of("customer")) == 1

    async def test_customer_and_tax_deleted_at_stripe_are_both_replaced(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        first = await opened(provider, wanted)
        assert (first.customer_remote_id, first.tax_remote_id) != (None, None)
        fake.objects[str(first.customer_remote_id)]["deleted"] = True
        gone = WantedTax(rate_bp=1900, label="VAT 19 %", remote_id="txr_of_another_account")
        anew = wanted_subscription(
            wanted.price_remote_id, tax=gone, payer=Payer(person_id=7, remote_id=first.customer_remote_id)
        )
        second = await opened(provider, anew)
        assert second.customer_remote_id not in (None, first.customer_remote_id)
        assert second.tax_remote_id not in (None, "txr_of_another_account")
        assert session_of(fake, second)["amount_total"] == 4760
        assert await opened(provider, anew) == second

    async def test_an_archived_tax_rate_is_replaced(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription
    ) -> None:
        first = await opened(provider, wanted)
        fake.objects[str(first.tax_remote_id)]["active"] = False
        # Whether its name is known here, or Stripe still gives it for the key it was made with.
        for remote_id in (first.tax_remote_id, None):
            tax = WantedTax(rate_bp=1900, label="VAT 19 %", remote_id=remote_id)
            second = await opened(provider, wanted_subscription(wanted.price_remote_id, tax=tax))
            assert fake.objects[str(second.tax_remote_id)]["active"]
        assert len(fake.of("tax_rate")) == 2

    @pytest.mark.parametrize(
        ("rate_bp", "percentage"), [(1, "0.01"), (700, "7.0"), (810, "8.1"), (1925, "19.25"), (10_000, "100.0")]
    )
    async def test_a_rate_is_told_exactly(
        self, provider: StripeProvider, fake: FakeStripe, rate_bp: int, percentage: str
    ) -> None:
        tax = WantedTax(rate_bp=rate_bp, label="T" * 60)
        await opened(provider, wanted_subscription(await priced(provider, 4000), tax=tax))
        [request] = fake.requests_to("/tax_rates$", "POST")
        assert (request.params["percentage"], request.params["display_name"]) == (percentage, "T" * 50)

    async def test_a_price_that_is_gone_is_refused(self, provider: StripeProvider) -> None:
        with pytest.raises(ProviderRefused, match="does not know this"):
            await provider.start_subscription(wanted_subscription("price_gone"))


class TestLookingUp:
    async def test_open_then_active_by_every_id(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        checkout = await opened(provider, wanted)
        state = await look()
        assert state.status == "incomplete"
        assert state.checkout == msgspec.structs.replace(checkout, tax_remote_id=None)
        fake.pay(checkout.remote_id)
        state = await look()
        assert state == SubscriptionState(
            status="active",
            remote_id=fake.subscription_of(checkout.remote_id)["id"],
            price_remote_id=wanted.price_remote_id,
            period_start=at(MARCH),
            period_end=at(MARCH + 31 * DAY_S),
            customer_remote_id=checkout.customer_remote_id,
        )
        for ids in ((state.remote_id, None), (None, checkout.remote_id), (state.remote_id, checkout.remote_id)):
            by_ids = await provider.look_up_subscription(
                intent_id=wanted.intent_id, remote_id=ids[0], checkout_remote_id=ids[1]
            )
            assert by_ids == state

    async def test_an_abandoned_page_is_cancelled(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        await opened(provider, wanted)
        fake.advance(2 * DAY_S)
        state = await look()
        assert (state.status, state.ended_at, state.remote_id) == ("cancelled", None, None)

    async def test_what_never_was_is_unknown(self, provider: StripeProvider) -> None:
        for remote_id, checkout_id in ((None, None), ("sub_gone", None), (None, "cs_gone")):
            state = await provider.look_up_subscription(
                intent_id="-", remote_id=remote_id, checkout_remote_id=checkout_id
            )
            assert state == SubscriptionState(status="unknown")

    async def test_a_bank_debit_on_its_way_is_not_active(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        checkout = await opened(provider, wanted)
        fake.pay(checkout.remote_id, method="sepa_debit", status="unpaid")
        assert fake.subscription_of(checkout.remote_id)["status"] == "active"
        state = await look()
        assert (state.status, state.checkout) == ("incomplete", None)
        assert state.remote_id is not None
        fake.settle(checkout.remote_id)
        assert (await look()).status == "active"

    async def test_a_first_bank_debit_that_failed_leaves_it_incomplete(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        checkout = await opened(provider, wanted)
        fake.pay(checkout.remote_id, method="sepa_debit", status="unpaid")
        fake.fail(checkout.remote_id)
        assert (await look()).status == "incomplete"
        fake.end(fake.subscription_of(checkout.remote_id)["id"])
        assert (await look()).status == "cancelled"

    async def test_a_page_where_a_card_was_declined_can_still_be_used(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, look: Look
    ) -> None:
        checkout = await opened(provider, wanted)
        fake.fail(checkout.remote_id)
        [left_behind] = fake.of("subscription")

        async def look_closely(checkout_id: str | None) -> SubscriptionState:
            return await provider.look_up_subscription(
                intent_id=wanted.intent_id, remote_id=left_behind["id"], checkout_remote_id=checkout_id
            )

        for checkout_id in (checkout.remote_id, None):
            assert await look_closely(checkout_id) == await look()
        assert (await look()).checkout is not None
        # What the first card left behind ends before the page does; another card begins a subscription of its own.
        fake.advance(DAY_S - 1)
        assert left_behind["status"] == "incomplete_expired"
        assert (await look_closely(checkout.remote_id)).status == "incomplete"
        fake.pay(checkout.remote_id)
        state = await look_closely(checkout.remote_id)
        assert (state.status, state.remote_id) == ("active", fake.subscription_of(checkout.remote_id)["id"])
        assert state.remote_id != left_behind["id"]

    async def test_renewed_with_the_invoice_still_a_draft_it_stays_active(
        self, fake: FakeStripe, active: str, look: Look
    ) -> None:
        fake.draft_s = 3600
        fake.advance(31 * DAY_S + 60)
        assert fake.objects[fake.objects[active]["latest_invoice"]]["status"] == "draft"
        state = await look()
        assert (state.status, state.period_start) == ("active", at(MARCH + 31 * DAY_S))

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"status": "trialing"}, "active"),
            ({"status": "past_due"}, "past_due"),
            ({"status": "unpaid"}, "past_due"),
            ({"status": "paused"}, "paused"),
            ({"pause_collection": {"behavior": "void", "resumes_at": None}}, "paused"),
            ({"status": "canceled", "pause_collection": {"behavior": "void"}}, "cancelled"),
            ({"status": "something_new"}, "incomplete"),
        ],
    )
    async def test_every_status_of_stripe_is_one_of_ledger(
        self, fake: FakeStripe, active: str, look: Look, changes: dict[str, object], status: str
    ) -> None:
        fake.objects[active].update(changes)
        assert (await look()).status == status

    async def test_until_2025_the_period_stood_in_the_subscription(
        self, fake: FakeStripe, active: str, look: Look
    ) -> None:
        subscription = fake.objects[active]
        item = subscription["items"]["data"][0]
        subscription.update(
            current_period_start=item.pop("current_period_start"), current_period_end=item.pop("current_period_end")
        )
        assert (await look()).period_end == at(MARCH + 31 * DAY_S)
