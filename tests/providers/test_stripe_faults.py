"""Stripe refuses connections, hangs, breaks off, is busy or ill: what Ledger then says and does (guarantee M7)."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
import stripe

from ledger.errors import Unavailable
from ledger.providers import stripe_calls
from ledger.providers.contract import OutcomeUnknown, ProviderRefused, ProviderUnreachable, WantedPayment, WantedRefund
from ledger.providers.stripe import StripeProvider, StripeType
from tests.fakes.stripe import SECRET_KEY, FakeStripe, Kind
from tests.providers.wanted import one_line, wanted_payment, wanted_product, wanted_refund

SESSIONS = "/checkout/sessions$"


@pytest.fixture
async def refund(provider: StripeProvider, fake: FakeStripe) -> WantedRefund:
    """A refund that could be made."""
    checkout = await provider.start_payment(one_line(5950, "EUR"))
    fake.pay(checkout.remote_id)
    return wanted_refund(fake.of("payment_intent")[0]["id"], 2000)


class TestTryingAgain:
    @pytest.mark.parametrize("kind", ["429", "500_before", "reset_before", "reset_after", "garbage"])
    async def test_a_passing_fault_is_not_noticed_and_has_no_double_effect(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund, kind: Kind
    ) -> None:
        fake.fault(kind, "/refunds$")
        assert (await provider.refund(refund)).status == "succeeded"
        assert len(fake.of("refund")) == 1
        keys = [one.idempotency_key for one in fake.requests_to("/refunds$", "POST")]
        assert keys == [f"ledger-refund-{refund.intent_id}"] * 2

    async def test_a_hung_request_is_asked_again_in_time(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund, hurry: None
    ) -> None:
        slow_start = StripeType(fake.url).connect({"secretKey": SECRET_KEY})
        fake.fault("hang_after", "/refunds$")
        assert (await slow_start.refund(refund)).status == "succeeded"
        assert len(fake.of("refund")) == 1
        await slow_start.close()

    async def test_stripe_says_when_to_come_back(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.fault("429", SESSIONS, retry_after_s=1)
        began = time.monotonic()
        await provider.start_payment(wanted_payment())
        assert time.monotonic() - began >= 1.0

    async def test_a_wait_longer_than_a_request_is_handed_on(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.fault("429", SESSIONS, retry_after_s=90)
        began = time.monotonic()
        with pytest.raises(ProviderUnreachable) as refused:
            await provider.start_payment(wanted_payment())
        assert refused.value.retry_after_s == 90
        assert time.monotonic() - began < 2

    async def test_stripe_says_that_trying_again_is_useless(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.fault("500_before", SESSIONS, should_retry="false")
        with pytest.raises(OutcomeUnknown):
            await provider.start_payment(wanted_payment())
        assert len(fake.requests_to(SESSIONS)) == 1

    async def test_a_wrong_key_is_not_tried_again(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.keys.clear()
        with pytest.raises(ProviderRefused):
            await provider.start_payment(wanted_payment())
        assert len(fake.requests) == 1


@pytest.mark.usefixtures("hurry")
class TestGivingUp:
    async def test_nothing_was_sent_so_nothing_happened(self, provider: StripeProvider, fake: FakeStripe) -> None:
        async with fake.refusing():
            for attempt in attempts(provider, wanted_refund("pi_1", 100)):
                with pytest.raises(ProviderUnreachable, match="nothing was changed") as refused:
                    await attempt()
                assert (refused.value.retry_after_s or 0) > 0

    async def test_stripe_is_busy_all_the_time_so_nothing_happened(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund
    ) -> None:
        fake.fault("429", times=-1)
        for attempt in attempts(provider, refund):
            with pytest.raises(ProviderUnreachable):
                await attempt()

    @pytest.mark.parametrize("kind", ["hang", "hang_after", "reset_before", "reset_after", "500_before", "500_after"])
    async def test_nobody_knows_whether_it_happened_until_it_is_looked_up(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund, kind: Kind
    ) -> None:
        fault = fake.fault(kind, "/refunds$", method="POST", times=-1)
        with pytest.raises(OutcomeUnknown) as unknown:
            await provider.refund(refund)
        assert (unknown.value.retry_after_s or 0) > 0
        fault.times = 0
        happened = kind.endswith("_after")
        state = await provider.look_up_refund(refund, remote_id=None)
        assert state.status == ("succeeded" if happened else "unknown")
        assert len(fake.of("refund")) == happened

    @pytest.mark.parametrize("kind", ["hang", "hang_after", "reset_before", "reset_after", "500_before", "500_after"])
    async def test_a_checkout_of_unknown_outcome_is_found_by_its_intent(
        self, provider: StripeProvider, fake: FakeStripe, kind: Kind
    ) -> None:
        wanted = wanted_payment()
        fault = fake.fault(kind, SESSIONS, method="POST", times=-1)
        with pytest.raises(OutcomeUnknown):
            await provider.start_payment(wanted)
        fault.times = 0
        state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=None)
        assert state.status == ("open" if kind.endswith("_after") else "unknown")
        assert state.checkout is None or state.checkout.url.startswith(fake.url)

    async def test_a_later_refusal_to_connect_does_not_hide_an_earlier_doubt(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund
    ) -> None:
        fake.fault("reset_after", "/refunds$")
        first = asyncio.create_task(provider.refund(refund))
        while not fake.of("refund"):
            await asyncio.sleep(0)
        async with fake.refusing():
            with pytest.raises(OutcomeUnknown):
                await first

    async def test_a_key_that_stopped_working_does_not_hide_an_earlier_doubt(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund
    ) -> None:
        fake.fault("reset_after", "/refunds$")
        first = asyncio.create_task(provider.refund(refund))
        while not fake.of("refund"):
            await asyncio.sleep(0)
        fake.keys.clear()
        with pytest.raises(OutcomeUnknown):
            await first

    async def test_a_customer_of_unknown_outcome_is_no_payment_of_unknown_outcome(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        fake.fault("hang_after", "/customers$", times=-1)
        with pytest.raises(ProviderUnreachable):
            await provider.start_payment(wanted_payment())
        assert not fake.of("checkout.session")

    @pytest.mark.parametrize("kind", ["hang", "reset_before", "500_before", "429", "garbage"])
    async def test_looking_up_changes_nothing_so_it_only_cannot_be_reached(
        self, provider: StripeProvider, fake: FakeStripe, refund: WantedRefund, kind: Kind
    ) -> None:
        fake.fault(kind, times=-1)
        for remote_id in (None, "cs_test_1"):
            with pytest.raises(ProviderUnreachable):
                await provider.look_up_checkout(intent_id="-", remote_id=remote_id)
            with pytest.raises(ProviderUnreachable):
                await provider.look_up_refund(refund, remote_id=remote_id)


async def test_an_answer_is_out_within_eight_seconds(provider: StripeProvider, fake: FakeStripe) -> None:
    """With the real figures: everything hangs."""
    fake.fault("hang", times=-1)
    attempt_s = []

    async def timed(attempt: Callable[[], Awaitable[object]]) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await attempt()
        attempt_s.append(time.monotonic() - began)

    await asyncio.gather(*(timed(attempt) for attempt in attempts(provider, wanted_refund("pi_1", 100))))
    assert max(attempt_s) < 8


async def test_the_library_is_loaded_without_holding_up_others(fake: FakeStripe) -> None:
    """The longest time the event loop stands still while a connection is used for the first time."""
    provider = StripeType(fake.url).connect({"secretKey": SECRET_KEY})
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            longest_s = max(longest_s, time.monotonic() - began)

    watching = asyncio.create_task(watch())
    await provider.test()
    watching.cancel()
    await provider.close()
    assert longest_s < 0.5


def attempts(provider: StripeProvider, refund: WantedRefund) -> list[Callable[[], Awaitable[object]]]:
    """Everything that asks Stripe."""
    payment: WantedPayment = wanted_payment()
    return [
        provider.test,
        lambda: provider.start_payment(payment),
        lambda: provider.look_up_checkout(intent_id=payment.intent_id, remote_id=None),
        lambda: provider.look_up_checkout(intent_id=payment.intent_id, remote_id="cs_test_1"),
        lambda: provider.expire_checkout(remote_id="cs_test_1"),
        lambda: provider.refund(refund),
        lambda: provider.look_up_refund(refund, remote_id=None),
        lambda: provider.look_up_refund(refund, remote_id="re_1"),
        lambda: provider.sync_product(wanted_product()),
    ]


def test_no_sentence_carries_a_key() -> None:
    message = f"You used {SECRET_KEY} and whsec_abc123 and pk_live_abc, which is wrong"
    errors: list[stripe.StripeError] = [
        stripe.InvalidRequestError(message, None, http_status=400),  # type: ignore[no-untyped-call]
        stripe.InvalidRequestError(message, "id", http_status=404),  # type: ignore[no-untyped-call]
        stripe.AuthenticationError(message, http_status=401),
    ]
    refusals = [stripe_calls._refusal(error) for error in errors]
    for refusal in refusals:
        assert not any(part in refusal.sentence for part in ("sk_", "whsec_", "pk_"))
    assert refusals[0].sentence == "Stripe refused: You used (key) and (key) and (key), which is wrong"


async def test_nothing_secret_is_logged(
    provider: StripeProvider, fake: FakeStripe, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await provider.start_payment(wanted_payment())
        fake.keys.clear()
        with pytest.raises(ProviderRefused):
            await provider.test()
    # The fake repeats the whole key in its refusal, which the real Stripe does not: only that line may hold it.
    assert caplog.messages
    assert not any(SECRET_KEY in line for line in caplog.messages if "Invalid API Key" not in line)
