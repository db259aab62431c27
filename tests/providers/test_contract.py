"""The contract of `ledger.providers.contract`, asked of every provider."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from uuid_utils import uuid7

from ledger.errors import CapabilityMissing
from ledger.providers.contract import (
    Capability,
    Checkout,
    CheckoutCompleted,
    CheckoutExpired,
    CheckoutState,
    Instructions,
    MoneyArrived,
    NothingToDo,
    PeriodBilled,
    ProviderRefused,
    ProviderUnreachable,
    RefundState,
    SettingField,
    SignatureWrong,
    SubscriptionTouched,
)
from ledger.providers.provider import Provider
from ledger.providers.subscription_contract import SubscriptionState, WantedSubscription
from tests.providers.adapters import ADAPTERS, ProviderAdapter
from tests.providers.bills import adds_up
from tests.providers.wanted import one_line, wanted_payment, wanted_product, wanted_refund
from tests.providers.wanted_subscriptions import VAT, opened, priced, wanted_change, wanted_subscription


@pytest.fixture(params=ADAPTERS, ids=lambda kind: kind.__name__.removesuffix("Adapter").lower())
async def adapter(request: pytest.FixtureRequest) -> AsyncIterator[ProviderAdapter]:
    kind: type[ProviderAdapter] = request.param
    async with kind() as adapter:
        yield adapter


@pytest.fixture
async def provider(adapter: ProviderAdapter) -> AsyncIterator[Provider]:
    provider = adapter.provider_type.connect(adapter.good_settings)
    yield provider
    await provider.close()


def can(adapter: ProviderAdapter, capability: Capability) -> bool:
    return capability in adapter.provider_type.capabilities


def needs(adapter: ProviderAdapter, capability: Capability) -> None:
    if not can(adapter, capability):
        pytest.skip(f"{adapter.provider_type.label} declares no {capability}")


async def paid(adapter: ProviderAdapter, provider: Provider, amount_minor: int = 5950) -> MoneyArrived:
    """Has a payment made."""
    started = await provider.start_payment(one_line(amount_minor, "EUR"))
    assert isinstance(started, Checkout)
    body, _ = await adapter.pay(started.remote_id)
    meaning = await provider.understand_event(body)
    assert isinstance(meaning, CheckoutCompleted)
    assert meaning.payment is not None
    return meaning.payment


async def subscribed(adapter: ProviderAdapter, provider: Provider) -> tuple[WantedSubscription, SubscriptionState]:
    """Has somebody subscribe for 40.00 EUR a month, and 19 % tax."""
    wanted = wanted_subscription(await priced(provider, 4000), tax=VAT)
    await adapter.pay((await opened(provider, wanted)).remote_id)
    state = await provider.look_up_subscription(intent_id=wanted.intent_id, remote_id=None, checkout_remote_id=None)
    return wanted, state


class TestSettings:
    def test_it_is_named_and_its_capabilities_fit_together(self, adapter: ProviderAdapter) -> None:
        kind = adapter.provider_type
        assert kind.name.isidentifier()
        assert kind.name == kind.name.lower()
        assert kind.label.strip()
        assert can(adapter, Capability.INVOICES) or can(adapter, Capability.SUBSCRIPTIONS)
        assert not can(adapter, Capability.RECURRING_BILLING) or can(adapter, Capability.SUBSCRIPTIONS)

    def test_its_form_can_be_shown(self, adapter: ProviderAdapter) -> None:
        fields = adapter.provider_type.fields()
        assert len({field.key for field in fields}) == len(fields)
        for field in fields:
            assert isinstance(field, SettingField)
            assert field.label.strip()
            assert (field.kind == "select") == bool(field.options)
            assert not field.is_secret or field.kind == "password"

    def test_good_settings_pass_and_belong_to_the_form(self, adapter: ProviderAdapter) -> None:
        keys = {field.key for field in adapter.provider_type.fields()}
        assert set(adapter.good_settings) <= keys
        assert list(adapter.provider_type.check(adapter.good_settings)) == []

    def test_bad_settings_are_refused_with_field_and_reason_but_no_secret(self, adapter: ProviderAdapter) -> None:
        secrets = {field.key for field in adapter.provider_type.fields() if field.is_secret}
        for settings, key in adapter.bad_settings:
            faults = adapter.provider_type.check(settings)
            assert key in [fault.field for fault in faults], settings
            for fault in faults:
                assert len(fault.message.split()) >= 3
                assert not any(value in fault.message for name, value in settings.items() if name in secrets)

    def test_what_is_required_is_missed(self, adapter: ProviderAdapter) -> None:
        missed = {fault.field for fault in adapter.provider_type.check({})}
        assert {field.key for field in adapter.provider_type.fields() if field.is_required} <= missed

    async def test_a_connection_can_be_tested_and_shows_no_secret(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        sentence = await provider.test()
        assert len(sentence.split()) >= 3
        for field in adapter.provider_type.fields():
            value = adapter.good_settings.get(field.key)
            assert not (field.is_secret and value and value in sentence + repr(provider))

    async def test_it_can_be_closed_twice(self, provider: Provider) -> None:
        await provider.test()
        await provider.close()
        await provider.close()


class TestStarting:
    async def test_there_is_a_page_exactly_when_it_is_declared(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        started = await provider.start_payment(wanted_payment())
        assert isinstance(started, Checkout) == can(adapter, Capability.CHECKOUT)
        if isinstance(started, Checkout):
            assert started.url.startswith(("http://", "https://"))
            assert started.expires_at > datetime.now(UTC)
        else:
            assert isinstance(started, Instructions)

    async def test_instructions_say_how_much_and_for_what(self, provider: Provider) -> None:
        wanted = wanted_payment()
        started = await provider.start_payment(wanted)
        if isinstance(started, Instructions):
            text = started.text.replace(" ", "")
            assert "59.50" in text
            assert wanted.payment_reference in text

    async def test_the_same_intent_starts_one_payment(self, provider: Provider) -> None:
        wanted = wanted_payment()
        started = await asyncio.gather(*(provider.start_payment(wanted) for _ in range(5)))
        assert all(one == started[0] for one in started)
        assert await provider.start_payment(wanted) == started[0]


class TestCheckouts:
    async def test_one_is_found_by_its_id_and_by_its_intent(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.CHECKOUT)
        wanted = wanted_payment()
        started = await provider.start_payment(wanted)
        assert isinstance(started, Checkout)
        for remote_id in (started.remote_id, None):
            state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=remote_id)
            assert state == CheckoutState(status="open", checkout=started)

    async def test_what_was_paid_is_what_was_asked_for(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.CHECKOUT)
        wanted = wanted_payment()
        started = await provider.start_payment(wanted)
        assert isinstance(started, Checkout)
        await adapter.pay(started.remote_id)
        state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=None)
        assert state.status == "paid"
        assert state.payment is not None
        assert (state.payment.amount_minor, state.payment.currency) == (5950, "EUR")
        assert state.payment.method
        assert state.payment.received_at.tzinfo is not None

    async def test_one_that_is_closed_cannot_be_paid(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.CHECKOUT)
        started = await provider.start_payment(wanted_payment())
        assert isinstance(started, Checkout)
        for _ in range(2):
            state = await provider.expire_checkout(remote_id=started.remote_id)
            assert state == CheckoutState(status="expired")

    async def test_one_that_was_paid_says_so_when_it_shall_be_closed(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        needs(adapter, Capability.CHECKOUT)
        started = await provider.start_payment(wanted_payment())
        assert isinstance(started, Checkout)
        await adapter.pay(started.remote_id)
        assert (await provider.expire_checkout(remote_id=started.remote_id)).status == "paid"

    async def test_what_never_was_is_unknown(self, provider: Provider) -> None:
        intent_id = wanted_payment().intent_id
        for remote_id in (None, "nothing"):
            state = await provider.look_up_checkout(intent_id=intent_id, remote_id=remote_id)
            assert state == CheckoutState(status="unknown")
        assert await provider.expire_checkout(remote_id="nothing") == CheckoutState(status="unknown")


class TestRefunds:
    async def test_without_the_capability_it_says_so(self, adapter: ProviderAdapter, provider: Provider) -> None:
        if can(adapter, Capability.REFUNDS):
            pytest.skip("It can")
        with pytest.raises(CapabilityMissing):
            await provider.refund(wanted_refund("nothing", 100))

    async def test_parts_go_back_once_each_and_never_more_than_came(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        needs(adapter, Capability.REFUNDS)
        payment = await paid(adapter, provider)
        part = wanted_refund(payment.remote_id, 2000)
        states = await asyncio.gather(*(provider.refund(part) for _ in range(3)))
        assert len(set(states)) == 1
        assert states[0].status in ("requested", "succeeded")
        for remote_id in (states[0].remote_id, None):
            assert await provider.look_up_refund(part, remote_id=remote_id) == states[0]
        with pytest.raises(ProviderRefused):
            await provider.refund(wanted_refund(payment.remote_id, 3951))
        assert (await provider.refund(wanted_refund(payment.remote_id, 3950))).status in ("requested", "succeeded")

    async def test_what_never_was_is_unknown(self, provider: Provider) -> None:
        wanted = wanted_refund("nothing", 100)
        assert await provider.look_up_refund(wanted, remote_id=None) == RefundState(status="unknown")


class TestSubscriptions:
    async def test_without_the_capability_it_says_so(self, adapter: ProviderAdapter, provider: Provider) -> None:
        if can(adapter, Capability.SUBSCRIPTIONS):
            pytest.skip("It can")
        change = wanted_change("nothing", "nothing", prorate_at=datetime.now(UTC))
        attempts: list[Awaitable[object]] = [
            provider.start_subscription(wanted_subscription("nothing")),
            provider.preview_change(change),
            provider.change_subscription(change),
            provider.cancel_subscription(intent_id="-", remote_id="nothing"),
            provider.reactivate_subscription(intent_id="-", remote_id="nothing"),
        ]
        for attempt in attempts:
            with pytest.raises(CapabilityMissing):
                await attempt

    async def test_the_same_intent_starts_one_subscription(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        wanted = wanted_subscription(await priced(provider, 4000), tax=VAT)
        started = await asyncio.gather(*(provider.start_subscription(wanted) for _ in range(3)))
        assert all(one == started[0] for one in started)
        assert started[0].customer_remote_id
        assert started[0].tax_remote_id

    async def test_it_is_not_active_before_it_is_paid(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        wanted = wanted_subscription(await priced(provider, 4000))
        checkout = await opened(provider, wanted)
        for checkout_id in (checkout.remote_id, None):
            state = await provider.look_up_subscription(
                intent_id=wanted.intent_id, remote_id=None, checkout_remote_id=checkout_id
            )
            assert (state.status, state.checkout) == ("incomplete", checkout)
        await adapter.pay(checkout.remote_id)
        state = await provider.look_up_subscription(intent_id=wanted.intent_id, remote_id=None, checkout_remote_id=None)
        assert (state.status, state.price_remote_id) == ("active", wanted.price_remote_id)
        assert state.remote_id is not None

    async def test_what_was_paid_is_told_with_lines_and_tax(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        wanted, state = await subscribed(adapter, provider)
        remote_id = state.remote_id or ""
        [bill_id] = await provider.list_paid_periods(
            subscription_remote_id=remote_id, since=datetime.now(UTC) - timedelta(hours=1)
        )
        period = await provider.look_up_period(remote_id=bill_id)
        assert period is not None
        adds_up(period)
        assert (period.intent_id, period.subscription_remote_id) == (wanted.intent_id, remote_id)
        assert (period.is_paid, period.total_minor, period.tax_minor) == (True, 4760, 760)
        assert [one.amount_minor for one in period.payments] == [4760]
        assert (period.period_start, period.period_end) == (state.period_start, state.period_end)

    async def test_a_change_costs_what_its_preview_says_once(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        _, state = await subscribed(adapter, provider)
        assert state.remote_id is not None
        assert state.period_start is not None
        change = wanted_change(state.remote_id, await priced(provider, 9000), prorate_at=state.period_start, tax=VAT)
        preview = await provider.preview_change(change)
        for _ in range(2):
            changed = await provider.change_subscription(change)
            assert (changed.status, changed.price_remote_id) == ("active", change.price_remote_id)
        bills = await provider.list_paid_periods(
            subscription_remote_id=state.remote_id, since=datetime.now(UTC) - timedelta(hours=1)
        )
        assert len(bills) == 2
        period = await provider.look_up_period(remote_id=bills[-1])
        assert period is not None
        adds_up(period)
        assert period.total_minor == preview.charge_minor - preview.credit_minor
        assert sum(one.amount_minor for one in period.payments) == preview.amount_due_minor

    async def test_its_end_is_at_the_end_of_the_period_and_can_be_taken_back(
        self, adapter: ProviderAdapter, provider: Provider
    ) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        _, state = await subscribed(adapter, provider)
        assert state.remote_id is not None
        ending = await provider.cancel_subscription(intent_id=str(uuid7()), remote_id=state.remote_id)
        assert (ending.status, ending.cancels_at_period_end) == ("active", True)
        assert await provider.reactivate_subscription(intent_id=str(uuid7()), remote_id=state.remote_id) == state

    async def test_what_never_was_is_unknown(self, adapter: ProviderAdapter, provider: Provider) -> None:
        for remote_id, checkout_id in ((None, None), ("nothing", None), (None, "nothing")):
            state = await provider.look_up_subscription(
                intent_id=str(uuid7()), remote_id=remote_id, checkout_remote_id=checkout_id
            )
            assert state == SubscriptionState(status="unknown")
        assert await provider.look_up_period(remote_id="nothing") is None
        assert not await provider.list_paid_periods(subscription_remote_id="nothing", since=datetime.now(UTC))

    async def test_what_happened_is_announced_and_listed(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.SUBSCRIPTIONS)
        wanted = wanted_subscription(await priced(provider, 4000))
        body, _ = await adapter.pay((await opened(provider, wanted)).remote_id)
        meaning = await provider.understand_event(body)
        assert isinstance(meaning, SubscriptionTouched)
        assert meaning.intent_id == wanted.intent_id
        page = await provider.list_events(since=datetime.now(UTC) - timedelta(hours=1), after=None)
        meanings = [await provider.understand_event(one.body) for one in page.events]
        assert meaning in meanings
        assert any(isinstance(one, PeriodBilled) for one in meanings)


class TestProducts:
    async def test_one_is_known_by_the_same_name_however_often_it_is_told(self, provider: Provider) -> None:
        wanted = wanted_product()
        synced = await provider.sync_product(wanted)
        assert await provider.sync_product(wanted) == synced
        known = msgspec.structs.replace(
            wanted,
            intent_id="another",
            name="Renamed",
            product_remote_id=synced.product_remote_id,
            price_remote_id=synced.price_remote_id,
        )
        assert await provider.sync_product(known) == synced
        dearer = msgspec.structs.replace(
            known,
            intent_id="third",
            price_id="another",
            amount_minor=5000,
            price_remote_id=None,
            old_price_remote_ids=(synced.price_remote_id,),
        )
        changed = await provider.sync_product(dearer)
        assert changed.product_remote_id == synced.product_remote_id
        assert changed.price_remote_id != synced.price_remote_id


class TestEvents:
    async def test_only_signed_ones_are_read(self, adapter: ProviderAdapter, provider: Provider) -> None:
        for body in (b"", b"{}", b"\xff", b'{"id": "evt_1", "object": "event"}'):
            for headers in ({}, {"stripe-signature": "t=1,v1=abc"}, {"authorization": "Bearer x"}):
                with pytest.raises(SignatureWrong):
                    provider.read_event(body, headers)

    async def test_a_payment_is_announced_with_its_invoice(self, adapter: ProviderAdapter, provider: Provider) -> None:
        needs(adapter, Capability.CHECKOUT)
        wanted = wanted_payment()
        started = await provider.start_payment(wanted)
        assert isinstance(started, Checkout)
        body, headers = await adapter.pay(started.remote_id)
        event = provider.read_event(body, headers)
        assert event.remote_id
        assert event.created_at.tzinfo is not None
        assert provider.read_event(body, headers) == event
        meaning = await provider.understand_event(body)
        assert await provider.understand_event(body) == meaning
        assert isinstance(meaning, CheckoutCompleted)
        assert (meaning.checkout_remote_id, meaning.invoice_id) == (started.remote_id, wanted.invoice_id)
        assert not isinstance(meaning, CheckoutExpired | NothingToDo)


async def test_nothing_takes_longer_than_eight_seconds_when_the_service_is_gone(
    adapter: ProviderAdapter, provider: Provider
) -> None:
    await adapter.go_away()
    async with asyncio.timeout(8):
        try:
            await provider.start_payment(wanted_payment())
        except ProviderUnreachable as unreachable:
            assert unreachable.retry_after_s is not None  # noqa: PT017
