"""Subscriptions at Stripe: ended, taken up again, and paid for when they are behind."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ledger.providers.contract import Checkout, ProviderRefused
from ledger.providers.stripe import StripeProvider
from ledger.providers.subscription_contract import SubscriptionState, WantedSubscription
from tests.fakes.stripe import FakeStripe
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


class TestEnding:
    async def test_it_ends_with_its_period_and_can_be_taken_back_until_then(
        self, provider: StripeProvider, fake: FakeStripe, active: str
    ) -> None:
        state = await provider.cancel_subscription(intent_id="first", remote_id=active)
        assert (state.status, state.cancels_at_period_end) == ("active", True)
        assert fake.requests_to("/subscriptions/", "POST")[0].idempotency_key == "ledger-cancel-first"
        state = await provider.reactivate_subscription(intent_id="second", remote_id=active)
        assert (state.status, state.cancels_at_period_end) == ("active", False)
        assert fake.requests_to("/subscriptions/", "POST")[1].idempotency_key == "ledger-reactivate-second"
        await provider.cancel_subscription(intent_id="third", remote_id=active)
        fake.advance(31 * DAY_S)
        state = await provider.look_up_subscription(intent_id="-", remote_id=active, checkout_remote_id=None)
        assert (state.status, state.cancels_at_period_end) == ("cancelled", False)
        assert state.ended_at == at(MARCH + 31 * DAY_S)

    async def test_an_old_answer_does_not_hide_what_happened_since(self, provider: StripeProvider, active: str) -> None:
        await provider.cancel_subscription(intent_id="first", remote_id=active)
        await provider.reactivate_subscription(intent_id="second", remote_id=active)
        # Stripe answers the same key as it did the first time, and does nothing.
        again = await provider.cancel_subscription(intent_id="first", remote_id=active)
        assert not again.cancels_at_period_end

    async def test_one_that_is_over_says_so(self, provider: StripeProvider, fake: FakeStripe, active: str) -> None:
        fake.end(active)
        state = await provider.cancel_subscription(intent_id="-", remote_id=active)
        assert (state.status, state.ended_at) == ("cancelled", at(MARCH))
        unknown = SubscriptionState(status="unknown")
        assert await provider.cancel_subscription(intent_id="-", remote_id="sub_gone") == unknown

    async def test_one_that_is_over_cannot_be_taken_up_again(
        self, provider: StripeProvider, fake: FakeStripe, active: str
    ) -> None:
        fake.end(active)
        with pytest.raises(ProviderRefused, match="cannot be reactivated, subscribe again"):
            await provider.reactivate_subscription(intent_id="-", remote_id=active)
        with pytest.raises(ProviderRefused):
            await provider.reactivate_subscription(intent_id="-", remote_id="sub_gone")

    async def test_an_end_on_a_certain_day_counts_and_is_taken_back(
        self, provider: StripeProvider, fake: FakeStripe, active: str, look: Look
    ) -> None:
        fake.objects[active]["cancel_at"] = MARCH + 10 * DAY_S
        assert (await look()).cancels_at_period_end
        state = await provider.reactivate_subscription(intent_id="-", remote_id=active)
        assert not state.cancels_at_period_end
        assert fake.objects[active]["cancel_at"] is None


class TestCollecting:
    @pytest.fixture
    async def behind(self, fake: FakeStripe, active: str) -> str:
        fake.decline(active)
        fake.advance(31 * DAY_S)
        assert fake.objects[active]["status"] == "past_due"
        return active

    async def test_what_is_past_due_is_collected(
        self, provider: StripeProvider, fake: FakeStripe, behind: str, look: Look
    ) -> None:
        assert (await look()).status == "past_due"
        fake.accept(behind)
        assert (await provider.reactivate_subscription(intent_id="i", remote_id=behind)).status == "active"
        [request] = fake.requests_to("/pay$", "POST")
        assert request.idempotency_key == "ledger-collect-i"
        paid = [one for one in fake.of("invoice") if one["status"] == "paid"]
        assert len(paid) == 2

    async def test_a_declined_card_is_refused_in_words_and_nothing_is_changed(
        self, provider: StripeProvider, fake: FakeStripe, behind: str, look: Look
    ) -> None:
        await provider.cancel_subscription(intent_id="-", remote_id=behind)
        with pytest.raises(ProviderRefused, match="The bank declined the payment; nothing was taken"):
            await provider.reactivate_subscription(intent_id="i", remote_id=behind)
        state = await look()
        assert (state.status, state.cancels_at_period_end) == ("past_due", True)

    async def test_the_money_may_come_from_elsewhere_in_the_same_moment(
        self, provider: StripeProvider, fake: FakeStripe, behind: str
    ) -> None:
        async def be_faster(request: object) -> None:
            fake.on_answer = None
            fake.accept(behind)
            fake.retry(behind)

        fake.on_answer = be_faster
        assert (await provider.reactivate_subscription(intent_id="i", remote_id=behind)).status == "active"

    async def test_one_that_is_behind_and_ending_is_both_collected_and_kept(
        self, provider: StripeProvider, fake: FakeStripe, behind: str
    ) -> None:
        await provider.cancel_subscription(intent_id="-", remote_id=behind)
        fake.accept(behind)
        state = await provider.reactivate_subscription(intent_id="i", remote_id=behind)
        assert (state.status, state.cancels_at_period_end) == ("active", False)

    async def test_without_anything_to_do_nothing_is_done(
        self, provider: StripeProvider, fake: FakeStripe, active: str
    ) -> None:
        assert (await provider.reactivate_subscription(intent_id="i", remote_id=active)).status == "active"
        assert fake.requests_to("/subscriptions/|/pay$", "POST") == []
