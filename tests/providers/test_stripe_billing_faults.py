"""Stripe hangs, breaks off or is away while a subscription is started, changed or looked up (guarantee M7)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from ledger.errors import Unavailable
from ledger.providers.contract import Checkout, OutcomeUnknown, ProviderUnreachable
from ledger.providers.stripe import StripeProvider
from ledger.providers.subscription_contract import SubscriptionState, WantedChange, WantedSubscription
from tests.fakes.stripe import FakeStripe, Kind
from tests.providers.wanted_subscriptions import VAT, at, opened, priced, wanted_change, wanted_subscription

# 5 March 2030, 12:00 UTC. The month has 31 days.
MARCH = 1_898_942_400
DAY_S = 86_400

IN_DOUBT = ["hang", "hang_after", "reset_before", "reset_after", "500_before", "500_after"]
SESSIONS = "/checkout/sessions$"
SUBSCRIPTIONS = "/subscriptions/"


@pytest.fixture(autouse=True)
def _time(fake: FakeStripe) -> None:
    fake.now = MARCH


@pytest.fixture
async def wanted(provider: StripeProvider) -> WantedSubscription:
    return wanted_subscription(await priced(provider, 4000), tax=VAT)


@pytest.fixture
async def subscription(provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription) -> dict[str, Any]:
    checkout = await opened(provider, wanted)
    fake.pay(checkout.remote_id)
    return fake.subscription_of(checkout.remote_id)


@pytest.fixture
async def upgrade(provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any]) -> WantedChange:
    fake.now = MARCH + 10 * DAY_S
    return wanted_change(subscription["id"], await priced(provider, 9000), prorate_at=at(fake.now), tax=VAT)


@pytest.mark.usefixtures("hurry")
class TestStarting:
    @pytest.mark.parametrize("kind", IN_DOUBT)
    async def test_a_page_of_unknown_outcome_is_found_by_its_intent(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, kind: Kind
    ) -> None:
        fault = fake.fault(kind, SESSIONS, method="POST", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.start_subscription(wanted)
        fault.times = 0
        state = await provider.look_up_subscription(intent_id=wanted.intent_id, remote_id=None, checkout_remote_id=None)
        happened = kind.endswith("_after")
        assert state.status == ("incomplete" if happened else "unknown")
        assert (state.checkout is not None) == happened
        if kind != "500_after":
            # Stripe keeps a 500 under the key; the look above has the truth.
            assert isinstance(await provider.start_subscription(wanted), Checkout)
            assert len(fake.of("checkout.session")) == 1

    @pytest.mark.parametrize("kind", ["hang", "reset_after", "500_before", "429"])
    async def test_an_opened_page_that_cannot_be_read_is_in_doubt(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, kind: Kind
    ) -> None:
        fake.fault(kind, "/checkout/sessions/", method="GET", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.start_subscription(wanted)

    @pytest.mark.parametrize("path", ["/customers$", "/tax_rates$"])
    async def test_before_the_page_nothing_is_in_doubt(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, path: str
    ) -> None:
        fault = fake.fault("hang_after", path, times=-1)
        with pytest.raises(ProviderUnreachable, match="nothing was changed"):
            await provider.start_subscription(wanted)
        assert fake.of("checkout.session") == []
        fault.times = 0
        await provider.start_subscription(wanted)
        assert (len(fake.of("customer")), len(fake.of("tax_rate"))) == (1, 1)


@pytest.mark.usefixtures("hurry")
class TestChanging:
    @pytest.mark.parametrize("kind", IN_DOUBT)
    async def test_a_change_of_unknown_outcome_is_settled_by_asking_again(
        self, provider: StripeProvider, fake: FakeStripe, upgrade: WantedChange, kind: Kind
    ) -> None:
        fault = fake.fault(kind, SUBSCRIPTIONS, method="POST", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.change_subscription(upgrade)
        fault.times = 0
        assert len(fake.of("invoice")) == (2 if kind.endswith("_after") else 1)
        state = await provider.change_subscription(upgrade)
        assert (state.status, state.price_remote_id) == ("active", upgrade.price_remote_id)
        assert len(fake.of("invoice")) == 2

    @pytest.mark.parametrize("kind", ["reset_after", "500_before", "429"])
    async def test_a_passing_fault_is_not_noticed_and_charges_once(
        self, provider: StripeProvider, fake: FakeStripe, upgrade: WantedChange, kind: Kind
    ) -> None:
        fake.fault(kind, SUBSCRIPTIONS, method="POST")
        assert (await provider.change_subscription(upgrade)).price_remote_id == upgrade.price_remote_id
        assert len(fake.of("invoice")) == 2
        keys = {one.idempotency_key for one in fake.requests_to(SUBSCRIPTIONS, "POST")}
        assert keys == {f"ledger-change-{upgrade.intent_id}"}

    async def test_many_at_once_charge_once(
        self, provider: StripeProvider, fake: FakeStripe, upgrade: WantedChange
    ) -> None:
        fake.delay_s = 0.02
        states = await asyncio.gather(*(provider.change_subscription(upgrade) for _ in range(5)))
        assert {one.price_remote_id for one in states} == {upgrade.price_remote_id}
        assert len(fake.of("invoice")) == 2

    async def test_done_but_not_read_afterwards_is_in_doubt_and_settled_later(
        self, provider: StripeProvider, fake: FakeStripe, upgrade: WantedChange, subscription: dict[str, Any]
    ) -> None:
        attempts: list[Callable[[], Awaitable[SubscriptionState]]] = [
            lambda: provider.change_subscription(upgrade),
            lambda: provider.cancel_subscription(intent_id="c", remote_id=subscription["id"]),
        ]
        for attempt in attempts:
            fault = gone_after_a_change(fake)
            with pytest.raises(OutcomeUnknown, match="asks again by itself"):
                await attempt()
            fault.times = 0
            await attempt()
        assert subscription["cancel_at_period_end"]
        assert len(fake.of("invoice")) == 2


def gone_after_a_change(fake: FakeStripe) -> Any:
    """From the next change of a subscription on, it cannot be read."""
    fault = fake.fault("reset_before", SUBSCRIPTIONS, method="GET", times=0)

    async def go_away(request: Any) -> None:
        if request.method == "POST" and SUBSCRIPTIONS in request.path:
            fake.on_answer = None
            fault.times = -1

    fake.on_answer = go_away
    return fault


@pytest.mark.usefixtures("hurry")
class TestEnding:
    @pytest.mark.parametrize("kind", IN_DOUBT)
    async def test_an_end_of_unknown_outcome_is_settled_by_asking_again(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any], kind: Kind
    ) -> None:
        fault = fake.fault(kind, SUBSCRIPTIONS, method="POST", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.cancel_subscription(intent_id="c", remote_id=subscription["id"])
        fault.times = 0
        if kind == "500_after":
            fake.forget_keys()
        state = await provider.cancel_subscription(intent_id="c", remote_id=subscription["id"])
        assert state.cancels_at_period_end

    @pytest.mark.parametrize("kind", IN_DOUBT)
    async def test_collecting_takes_the_money_once(
        self, provider: StripeProvider, fake: FakeStripe, subscription: dict[str, Any], kind: Kind
    ) -> None:
        fake.decline(subscription["id"])
        fake.travel(MARCH + 31 * DAY_S)
        fake.accept(subscription["id"])
        fault = fake.fault(kind, "/pay$", method="POST", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.reactivate_subscription(intent_id="r", remote_id=subscription["id"])
        fault.times = 0
        state = await provider.reactivate_subscription(intent_id="r", remote_id=subscription["id"])
        assert state.status == "active"
        charged = [one for one in fake.of("charge") if one["status"] == "succeeded"]
        assert [one["amount"] for one in charged] == [4760, 4760]


@pytest.mark.usefixtures("hurry")
class TestReading:
    @pytest.mark.parametrize("kind", ["hang", "reset_before", "500_before", "429", "garbage"])
    async def test_looking_changes_nothing_so_it_only_cannot_be_reached(
        self, provider: StripeProvider, fake: FakeStripe, upgrade: WantedChange, kind: Kind
    ) -> None:
        fake.fault(kind, times=-1)
        attempts = [attempt() for attempt in readings(provider, upgrade)]
        for end in await asyncio.gather(*attempts, return_exceptions=True):
            assert isinstance(end, ProviderUnreachable)

    async def test_nothing_was_sent_so_nothing_happened(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, upgrade: WantedChange
    ) -> None:
        async with fake.refusing():
            attempts = [attempt() for attempt in readings(provider, upgrade) + writings(provider, wanted, upgrade)]
            for end in await asyncio.gather(*attempts, return_exceptions=True):
                assert isinstance(end, ProviderUnreachable)
                assert "nothing was changed" in end.sentence


async def test_an_answer_is_out_within_eight_seconds(
    provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, upgrade: WantedChange
) -> None:
    """With the real figures: everything hangs."""
    fake.fault("hang", times=-1)

    async def timed(attempt: Callable[[], Awaitable[object]]) -> float:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await attempt()
        return time.monotonic() - began

    attempts = readings(provider, upgrade) + writings(provider, wanted, upgrade)
    assert max(await asyncio.gather(*(timed(attempt) for attempt in attempts))) < 8


def readings(provider: StripeProvider, change: WantedChange) -> list[Callable[[], Awaitable[object]]]:
    remote_id = change.subscription_remote_id

    def look(remote_id: str | None, checkout_remote_id: str | None) -> Awaitable[SubscriptionState]:
        return provider.look_up_subscription(intent_id="-", remote_id=remote_id, checkout_remote_id=checkout_remote_id)

    return [
        lambda: look(remote_id, None),
        lambda: look(None, "cs_test_1"),
        lambda: look(None, None),
        lambda: provider.preview_change(change),
        lambda: provider.look_up_period(remote_id="in_1"),
        lambda: provider.list_paid_periods(subscription_remote_id=remote_id, since=at(MARCH)),
        lambda: provider.list_events(since=at(MARCH), after=None),
    ]


def writings(
    provider: StripeProvider, wanted: WantedSubscription, change: WantedChange
) -> list[Callable[[], Awaitable[object]]]:
    """Everything that changes something; with nothing known of payer and tax, that they are made first."""
    new = msgspec.structs.replace(wanted, intent_id="new")
    return [
        lambda: provider.start_subscription(new),
        lambda: provider.change_subscription(change),
        lambda: provider.cancel_subscription(intent_id="c", remote_id=change.subscription_remote_id),
        lambda: provider.reactivate_subscription(intent_id="r", remote_id=change.subscription_remote_id),
    ]
