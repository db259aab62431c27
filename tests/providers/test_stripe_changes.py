"""Up- and downgrades at Stripe: what a preview says is what is charged, to the minor unit."""

from datetime import datetime

import msgspec
import pytest

from ledger.providers.contract import ProviderRefused
from ledger.providers.stripe import StripeProvider
from ledger.providers.subscription_contract import ChangePreview, WantedChange, WantedTax
from tests.fakes.stripe import FakeStripe
from tests.providers.wanted_subscriptions import VAT, at, opened, priced, wanted_change, wanted_subscription

# 5 March 2030, 12:00 UTC. The month has 31 days.
MARCH = 1_898_942_400
DAY_S = 86_400
END = MARCH + 31 * DAY_S
# 15 days and an odd moment later: the shares do not come out even.
LATER = MARCH + 15 * DAY_S + 4711


@pytest.fixture(autouse=True)
def _time(fake: FakeStripe) -> None:
    fake.now = MARCH


async def subscribed(
    provider: StripeProvider,
    fake: FakeStripe,
    amount_minor: int = 4000,
    currency: str = "EUR",
    tax: WantedTax | None = VAT,
    interval: str = "month",
) -> str:
    """Has a subscription that began on 5 March; returns its remote id."""
    wanted = wanted_subscription(await priced(provider, amount_minor, currency, interval), tax=tax)
    checkout = await opened(provider, wanted)
    fake.pay(checkout.remote_id)
    return str(fake.subscription_of(checkout.remote_id)["id"])


async def charged(provider: StripeProvider, fake: FakeStripe, subscription_id: str) -> tuple[int, int]:
    """Total and payment of the latest bill."""
    period = await provider.look_up_period(remote_id=fake.objects[subscription_id]["latest_invoice"])
    assert period is not None
    return period.total_minor, sum(one.amount_minor for one in period.payments)


def total_of(preview: ChangePreview) -> int:
    assert sum(line.amount_minor for line in preview.lines) == preview.charge_minor - preview.credit_minor
    assert preview.credit_minor >= 0
    assert preview.charge_minor >= 0
    return preview.charge_minor - preview.credit_minor


class TestWithProration:
    @pytest.mark.parametrize(
        ("old", "new", "currency"),
        [(4000, 9000, "EUR"), (4001, 4003, "EUR"), (4000, 9000, "JPY"), (40_000, 90_010, "KWD")],
    )
    @pytest.mark.parametrize(
        "tax", [None, VAT, WantedTax(rate_bp=1925, label="VAT 19.25 %")], ids=["none", "19", "odd"]
    )
    async def test_an_upgrade_costs_what_the_preview_says(
        self, provider: StripeProvider, fake: FakeStripe, old: int, new: int, currency: str, tax: WantedTax | None
    ) -> None:
        subscription = await subscribed(provider, fake, old, currency, tax)
        fake.now = LATER
        wanted = wanted_change(subscription, await priced(provider, new, currency), prorate_at=at(LATER), tax=tax)
        preview = await provider.preview_change(wanted)
        assert fake.objects[subscription]["items"]["data"][0]["price"]["unit_amount"] != new
        state = await provider.change_subscription(wanted)
        assert (state.status, state.price_remote_id) == ("active", wanted.price_remote_id)
        total = total_of(preview)
        assert await charged(provider, fake, subscription) == (total, preview.amount_due_minor)
        assert (preview.currency, preview.effective_at) == (currency, at(LATER))
        assert 0 < preview.credit_minor < preview.charge_minor

    async def test_icelandic_crowns_are_counted_as_the_invoice_counts_them(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        subscription = await subscribed(provider, fake, 4000, "ISK", None)
        fake.now = MARCH + 31 * DAY_S // 2
        wanted = wanted_change(subscription, await priced(provider, 9000, "ISK"), prorate_at=at(fake.now))
        preview = await provider.preview_change(wanted)
        assert (preview.charge_minor, preview.credit_minor, preview.amount_due_minor) == (4500, 2000, 2500)
        await provider.change_subscription(wanted)
        assert await charged(provider, fake, subscription) == (2500, 2500)

    async def test_the_time_of_the_preview_counts(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        wanted = wanted_change(subscription, await priced(provider, 9000), prorate_at=at(LATER - 4711), tax=VAT)
        preview = await provider.preview_change(wanted)
        fake.now = LATER + 1800
        assert await provider.preview_change(wanted) == preview
        await provider.change_subscription(wanted)
        assert (await charged(provider, fake, subscription))[0] == total_of(preview)

    async def test_a_downgrade_becomes_credit_that_the_next_change_uses(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        subscription = await subscribed(provider, fake, 9000)
        fake.now = LATER
        down = wanted_change(subscription, await priced(provider, 4000), prorate_at=at(LATER), tax=VAT)
        preview = await provider.preview_change(down)
        assert (total_of(preview) < 0, preview.amount_due_minor) == (True, 0)
        await provider.change_subscription(down)
        assert await charged(provider, fake, subscription) == (total_of(preview), 0)
        up = wanted_change(subscription, await priced(provider, 20_000), prorate_at=at(LATER), tax=VAT)
        next_preview = await provider.preview_change(up)
        assert next_preview.amount_due_minor == total_of(next_preview) + total_of(preview)
        await provider.change_subscription(up)
        period = await provider.look_up_period(remote_id=fake.objects[subscription]["latest_invoice"])
        assert period is not None
        assert period.credit_minor == -total_of(preview)
        assert sum(one.amount_minor for one in period.payments) == next_preview.amount_due_minor

    async def test_from_months_to_years_counts_from_then_on(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        yearly = await priced(provider, 40_000, interval="year")
        wanted = wanted_change(subscription, yearly, prorate_at=at(LATER), tax=VAT)
        preview = await provider.preview_change(wanted)
        state = await provider.change_subscription(wanted)
        assert (await charged(provider, fake, subscription))[0] == total_of(preview)
        assert (preview.effective_at, state.period_start) == (at(LATER), at(LATER))
        assert state.period_end == at(LATER + 365 * DAY_S)


class TestWithoutProration:
    async def test_it_counts_from_the_next_period(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        wanted = wanted_change(
            subscription, await priced(provider, 2500), prorate_at=at(LATER), tax=VAT, prorates=False
        )
        preview = await provider.preview_change(wanted)
        assert preview == ChangePreview(
            amount_due_minor=2975,
            currency="EUR",
            credit_minor=0,
            charge_minor=2975,
            effective_at=at(END),
            lines=preview.lines,
        )
        assert [line.amount_minor for line in preview.lines] == [2975]
        await provider.change_subscription(wanted)
        assert len(fake.of("invoice")) == 1
        [request] = fake.requests_to("/subscriptions/", "POST")
        assert "proration_date" not in request.params
        fake.travel(END)
        assert await charged(provider, fake, subscription) == (2975, 2975)

    async def test_from_months_to_years_it_counts_at_once(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        yearly = await priced(provider, 40_000, interval="year")
        wanted = wanted_change(subscription, yearly, prorate_at=at(LATER - 4711), tax=VAT, prorates=False)
        preview = await provider.preview_change(wanted)
        assert (preview.effective_at, preview.amount_due_minor) == (at(LATER), 47_600)
        await provider.change_subscription(wanted)
        assert await charged(provider, fake, subscription) == (47_600, 47_600)

    async def test_when_it_ends_with_the_period_nothing_will_be_charged(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        subscription = await subscribed(provider, fake)
        await provider.cancel_subscription(intent_id="-", remote_id=subscription)
        wanted = wanted_change(
            subscription, await priced(provider, 2500), prorate_at=at(MARCH), tax=VAT, prorates=False
        )
        preview = await provider.preview_change(wanted)
        assert (preview.amount_due_minor, preview.lines, preview.effective_at) == (0, (), at(END))
        state = await provider.change_subscription(wanted)
        assert state.cancels_at_period_end


class TestTaxes:
    async def test_another_tax_counts_from_the_change_on(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        reduced = WantedTax(rate_bp=700, label="VAT 7 %")
        wanted = wanted_change(subscription, await priced(provider, 9000), prorate_at=at(LATER), tax=reduced)
        preview = await provider.preview_change(wanted)
        state = await provider.change_subscription(wanted)
        assert fake.objects[str(state.tax_remote_id)]["percentage"] == 7.0
        period = await provider.look_up_period(remote_id=fake.objects[subscription]["latest_invoice"])
        assert period is not None
        # Unused time comes back with the tax that was charged for it.
        assert [tax.rate_bp for tax in period.taxes] == [1900, 700]
        assert period.total_minor == total_of(preview)
        assert len(fake.of("tax_rate")) == 2

    async def test_without_a_tax_the_old_one_is_taken_off(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        wanted = wanted_change(subscription, await priced(provider, 9000), prorate_at=at(MARCH), prorates=False)
        preview = await provider.preview_change(wanted)
        state = await provider.change_subscription(wanted)
        assert (preview.amount_due_minor, state.tax_remote_id) == (9000, None)
        assert fake.objects[subscription]["default_tax_rates"] == []

    async def test_an_archived_rate_is_replaced(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        [rate] = fake.of("tax_rate")
        rate["active"] = False
        tax = msgspec.structs.replace(VAT, remote_id=rate["id"])
        wanted = wanted_change(subscription, await priced(provider, 9000), prorate_at=at(MARCH), tax=tax)
        preview = await provider.preview_change(wanted)
        state = await provider.change_subscription(wanted)
        assert state.tax_remote_id not in (None, rate["id"])
        assert (await charged(provider, fake, subscription))[0] == total_of(preview)
        assert len(fake.of("tax_rate")) == 2


class TestRefusals:
    @pytest.fixture
    async def wanted(self, provider: StripeProvider, fake: FakeStripe) -> WantedChange:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        return wanted_change(subscription, await priced(provider, 9000), prorate_at=at(LATER), tax=VAT)

    async def test_one_that_is_over_cannot_be_changed(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedChange
    ) -> None:
        fake.end(wanted.subscription_remote_id)
        for attempt in (provider.preview_change, provider.change_subscription):
            with pytest.raises(ProviderRefused, match="already ended this subscription; subscribe again"):
                await attempt(wanted)

    async def test_a_declined_card_leaves_everything_as_it_was(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedChange
    ) -> None:
        fake.decline(wanted.subscription_remote_id)
        with pytest.raises(ProviderRefused, match="The bank declined the payment; nothing was taken"):
            await provider.change_subscription(wanted)
        state = await provider.look_up_subscription(
            intent_id="-", remote_id=wanted.subscription_remote_id, checkout_remote_id=None
        )
        assert (state.status, state.price_remote_id != wanted.price_remote_id) == ("active", True)
        assert len(fake.of("invoice")) == 1

    async def test_another_currency_is_refused(self, provider: StripeProvider, wanted: WantedChange) -> None:
        other = msgspec.structs.replace(wanted, price_remote_id=await priced(provider, 9000, "USD"))
        with pytest.raises(ProviderRefused):
            await provider.change_subscription(other)

    async def test_a_price_that_is_gone_is_refused(self, provider: StripeProvider, wanted: WantedChange) -> None:
        gone = msgspec.structs.replace(wanted, price_remote_id="price_gone")
        for attempt in (provider.preview_change, provider.change_subscription):
            with pytest.raises(ProviderRefused, match="does not know this"):
                await attempt(gone)


class TestOnce:
    async def test_the_same_change_is_charged_once(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        wanted = wanted_change(subscription, await priced(provider, 9000), prorate_at=at(LATER), tax=VAT)
        state = await provider.change_subscription(wanted)
        [request] = fake.requests_to("/subscriptions/", "POST")
        assert request.idempotency_key == f"ledger-change-{wanted.intent_id}"
        assert request.params["payment_behavior"] == "error_if_incomplete"
        again = await provider.change_subscription(wanted)
        assert msgspec.structs.replace(again, tax_remote_id=state.tax_remote_id) == state
        fake.forget_keys()
        await provider.change_subscription(wanted)
        assert len(fake.of("invoice")) == 2
        assert len(fake.requests_to("/subscriptions/", "POST")) == 1

    async def test_what_it_has_already_is_not_asked_for(self, provider: StripeProvider, fake: FakeStripe) -> None:
        subscription = await subscribed(provider, fake)
        price = fake.objects[subscription]["items"]["data"][0]["price"]["id"]
        known = msgspec.structs.replace(VAT, remote_id="txr_1")
        state = await provider.change_subscription(wanted_change(subscription, price, prorate_at=at(MARCH), tax=known))
        assert (state.status, state.price_remote_id, state.tax_remote_id) == ("active", price, "txr_1")
        assert fake.requests_to("/subscriptions/", "POST") == []


class TestRounding:
    """Stripe may round the tax on the sum instead of each line; then the lines' taxes are not the invoice's."""

    @pytest.fixture
    async def wanted(self, provider: StripeProvider, fake: FakeStripe) -> WantedChange:
        subscription = await subscribed(provider, fake)
        fake.now = LATER
        return wanted_change(subscription, await priced(provider, 9000), prorate_at=at(LATER), tax=VAT)

    @pytest.mark.parametrize("difference", [-2, -1, 1, 2])
    async def test_a_difference_of_rounding_goes_to_the_largest_line(
        self,
        provider: StripeProvider,
        fake: FakeStripe,
        wanted: WantedChange,
        monkeypatch: pytest.MonkeyPatch,
        difference: int,
    ) -> None:
        before = await provider.preview_change(wanted)
        shift_total(monkeypatch, difference)
        after = await provider.preview_change(wanted)
        assert total_of(after) == total_of(before) + difference
        assert after.credit_minor == before.credit_minor

    async def test_more_than_that_is_not_shown_as_if_it_were_right(
        self, provider: StripeProvider, wanted: WantedChange, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shift_total(monkeypatch, 10)
        with pytest.raises(ProviderRefused, match="does not add up"):
            await provider.preview_change(wanted)


def shift_total(monkeypatch: pytest.MonkeyPatch, difference: int) -> None:
    """From now on the fake's invoices have another total than their lines and taxes."""
    from tests.fakes import stripe_invoices

    draft = stripe_invoices.draft

    def shifted(*args: object, **named: object) -> dict[str, object]:
        made = draft(*args, **named)  # type: ignore[arg-type]
        made["total"] += difference
        return made

    monkeypatch.setattr(stripe_invoices, "draft", shifted)


def test_the_moments_are_what_they_are_called() -> None:
    assert at(MARCH) == datetime.fromisoformat("2030-03-05T12:00:00Z")
