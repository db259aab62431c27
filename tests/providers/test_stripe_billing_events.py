"""Stripe's events about subscriptions, refunds and disputes, in the shapes of old and new versions of the API."""

import json
from typing import Any

import msgspec
import pytest

from ledger.providers import stripe_events
from ledger.providers.contract import (
    Checkout,
    DisputeChanged,
    EventMeaning,
    ListedEvent,
    NothingToDo,
    PeriodBilled,
    ProviderRefused,
    ProviderUnreachable,
    RefundsChanged,
    RemoteRefund,
    SubscriptionTouched,
)
from ledger.providers.stripe import StripeProvider, StripeType
from ledger.providers.subscription_contract import WantedSubscription
from tests.fakes.stripe import WEBHOOK_SECRET, FakeStripe
from tests.providers.wanted import one_line, wanted_payment, wanted_refund
from tests.providers.wanted_subscriptions import VAT, at, opened, priced, wanted_subscription

# 5 March 2030, 12:00 UTC.
MARCH = 1_898_942_400
DAY_S = 86_400

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def _time(fake: FakeStripe) -> None:
    fake.now = MARCH


@pytest.fixture
async def wanted(provider: StripeProvider) -> WantedSubscription:
    return wanted_subscription(await priced(provider, 4000), tax=VAT)


@pytest.fixture
async def checkout(provider: StripeProvider, wanted: WantedSubscription) -> Checkout:
    return await opened(provider, wanted)


@pytest.fixture
async def payment(provider: StripeProvider, fake: FakeStripe) -> str:
    """A payment of 59.50 EUR."""
    started = await provider.start_payment(one_line(5950, "EUR"))
    fake.pay(started.remote_id)
    return str(fake.of("payment_intent")[-1]["id"])


async def meanings_of(provider: StripeProvider, fake: FakeStripe, event: Event) -> EventMeaning:
    """What an event means, which must not depend on the version of the API."""
    new = await provider.understand_event(fake.sign(event)[0])
    if event["data"]["object"]["object"] == "invoice_payment":
        # There was none of these.
        return new
    assert await provider.understand_event(fake.sign(fake.as_before_basil(event))[0]) == new
    return new


def last(fake: FakeStripe, kind: str) -> Event:
    event: Event = [one for one in fake.events if one["type"] == kind][-1]
    return event


def altered(event: Event, **changes: object) -> bytes:
    changed = {**event, "data": {"object": {**event["data"]["object"], **changes}}}
    return json.dumps(changed).encode()


class TestSubscriptions:
    async def test_a_page_that_was_used_tells_everything_about_its_subscription(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, checkout: Checkout
    ) -> None:
        event = fake.pay(checkout.remote_id)
        assert await meanings_of(provider, fake, event) == SubscriptionTouched(
            remote_id=fake.subscription_of(checkout.remote_id)["id"],
            intent_id=wanted.intent_id,
            checkout_remote_id=checkout.remote_id,
        )

    @pytest.mark.parametrize("ending", ["settle", "fail"])
    async def test_so_does_a_bank_debit_that_arrives_or_does_not(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, checkout: Checkout, ending: str
    ) -> None:
        fake.pay(checkout.remote_id, method="sepa_debit", status="unpaid")
        event = fake.settle(checkout.remote_id) if ending == "settle" else fake.fail(checkout.remote_id)
        meaning = await meanings_of(provider, fake, event)
        assert isinstance(meaning, SubscriptionTouched)
        assert (meaning.intent_id, meaning.checkout_remote_id) == (wanted.intent_id, checkout.remote_id)

    async def test_a_page_that_expired_touches_the_subscription_that_never_began(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, checkout: Checkout
    ) -> None:
        meaning = await meanings_of(provider, fake, fake.expire(checkout.remote_id))
        assert meaning == SubscriptionTouched(intent_id=wanted.intent_id, checkout_remote_id=checkout.remote_id)

    async def test_pages_of_other_programs_are_left_alone(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        fake.expire(checkout.remote_id)
        for kind in ("completed", "expired"):
            event = last(fake, f"checkout.session.{kind}")
            others: list[object] = [{}, None, {"order": "17"}, {"subscription_id": "17"}]
            for metadata in others:
                assert await provider.understand_event(altered(event, metadata=metadata)) == NothingToDo()

    async def test_a_whole_life_is_understood_and_asks_nothing(
        self, provider: StripeProvider, fake: FakeStripe, wanted: WantedSubscription, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        subscription = fake.subscription_of(checkout.remote_id)
        fake.decline(subscription["id"])
        fake.travel(MARCH + 31 * DAY_S)
        fake.accept(subscription["id"])
        fake.retry(subscription["id"])
        fake.end(subscription["id"])
        asked = len(fake.requests)
        touched = SubscriptionTouched(remote_id=subscription["id"], intent_id=wanted.intent_id)
        first, second = (one["id"] for one in fake.invoices_of(subscription["id"]))
        meanings = [(one["type"], await meanings_of(provider, fake, one)) for one in fake.events]
        assert len(fake.requests) == asked
        told = [
            (kind, meaning)
            for kind, meaning in meanings
            if not isinstance(meaning, NothingToDo) and not kind.startswith("checkout")
        ]
        assert {kind for kind, meaning in told if meaning == touched} == {
            "customer.subscription.created",
            "customer.subscription.updated",
            "customer.subscription.deleted",
            "invoice.finalized",
            "invoice.payment_failed",
        }
        assert [(kind, meaning) for kind, meaning in told if meaning != touched] == [
            (kind, PeriodBilled(remote_id=invoice, subscription_remote_id=subscription["id"]))
            for invoice in (first, second)
            for kind in ("invoice.paid", "invoice.payment_succeeded")
        ]

    @pytest.mark.parametrize(
        "kind", ["updated", "voided", "marked_uncollectible", "payment_action_required", "payment_failed"]
    )
    async def test_whatever_happens_to_a_bill_touches_its_subscription(
        self,
        provider: StripeProvider,
        fake: FakeStripe,
        wanted: WantedSubscription,
        checkout: Checkout,
        kind: str,
    ) -> None:
        fake.pay(checkout.remote_id)
        event = {**last(fake, "invoice.paid"), "type": f"invoice.{kind}"}
        remote_id = fake.subscription_of(checkout.remote_id)["id"]
        assert await meanings_of(provider, fake, event) == SubscriptionTouched(
            remote_id=remote_id, intent_id=wanted.intent_id
        )

    async def test_bills_without_a_subscription_are_left_alone(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        event = last(fake, "invoice.paid")
        for kind in ("invoice.paid", "invoice.payment_succeeded", "invoice.payment_failed"):
            assert await provider.understand_event(altered({**event, "type": kind}, parent=None)) == NothingToDo()

    async def test_a_bill_that_is_only_announced_has_no_id_and_no_meaning(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        event = {**last(fake, "invoice.paid"), "type": "invoice.upcoming"}
        del event["data"]["object"]["id"]
        assert await provider.understand_event(json.dumps(event).encode()) == NothingToDo()

    async def test_a_subscription_whose_metadata_somebody_deleted_is_known_by_its_id(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        event = last(fake, "customer.subscription.created")
        remote_id = event["data"]["object"]["id"]
        for metadata in (dict[str, str](), None):
            meaning = await provider.understand_event(altered(event, metadata=metadata))
            assert meaning == SubscriptionTouched(remote_id=remote_id)

    async def test_what_makes_no_sense_is_refused(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.pay(checkout.remote_id)
        with pytest.raises(ProviderRefused, match="cannot be read"):
            await provider.understand_event(altered(last(fake, "customer.subscription.created"), id=5))


class TestRefunds:
    async def test_all_refunds_of_a_payment_are_told_as_they_stand_now(
        self, provider: StripeProvider, fake: FakeStripe, payment: str
    ) -> None:
        ours = wanted_refund(payment, 2000)
        state = await provider.refund(ours)
        event = last(fake, "refund.created")
        pending = fake.refund(payment, 1000, status="pending")
        fake.advance(60)
        failed = fake.refund(payment, 500, status="pending")
        fake.settle_refund(failed["id"], "failed", "declined")
        # Said long ago, it still means what is so now.
        for one in (
            event,
            last(fake, "charge.refunded"),
            last(fake, "refund.failed"),
            last(fake, "charge.refund.updated"),
        ):
            assert await meanings_of(provider, fake, one) == RefundsChanged(
                payment_remote_id=payment,
                refunds=(
                    RemoteRefund(
                        remote_id=str(state.remote_id),
                        amount_minor=2000,
                        currency="EUR",
                        status="succeeded",
                        failure=None,
                        created_at=at(MARCH),
                        intent_id=ours.intent_id,
                    ),
                    RemoteRefund(
                        remote_id=pending["id"],
                        amount_minor=1000,
                        currency="EUR",
                        status="requested",
                        failure=None,
                        created_at=at(MARCH),
                    ),
                    RemoteRefund(
                        remote_id=failed["id"],
                        amount_minor=500,
                        currency="EUR",
                        status="failed",
                        failure="The refund did not arrive: the payer's bank declined it",
                        created_at=at(MARCH + 60),
                    ),
                ),
            )

    async def test_icelandic_crowns_go_back_as_the_invoice_counts_them(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        started = await provider.start_payment(one_line(5950, "ISK"))
        fake.pay(started.remote_id)
        fake.refund(fake.of("payment_intent")[-1]["id"], 100_000)
        meaning = await meanings_of(provider, fake, last(fake, "charge.refunded"))
        assert isinstance(meaning, RefundsChanged)
        assert [(one.amount_minor, one.currency) for one in meaning.refunds] == [(1000, "ISK")]

    async def test_without_a_payment_intent_it_is_none_of_ledgers(
        self, provider: StripeProvider, fake: FakeStripe, payment: str
    ) -> None:
        fake.refund(payment, 1000)
        asked = len(fake.requests)
        for kind in ("charge.refunded", "refund.created"):
            body = altered(last(fake, kind), payment_intent=None)
            assert await provider.understand_event(body) == NothingToDo()
        assert len(fake.requests) == asked

    async def test_without_stripe_it_cannot_be_said(
        self, provider: StripeProvider, fake: FakeStripe, payment: str, hurry: None
    ) -> None:
        fake.refund(payment, 1000)
        async with fake.refusing():
            with pytest.raises(ProviderUnreachable):
                await provider.understand_event(fake.sign(last(fake, "charge.refunded"))[0])


class TestDisputes:
    async def test_a_dispute_is_told_as_it_stands_now(
        self, provider: StripeProvider, fake: FakeStripe, payment: str
    ) -> None:
        dispute = fake.dispute(payment, "fraudulent")
        dispute["evidence_details"]["due_by"] = MARCH + 7 * DAY_S
        event = last(fake, "charge.dispute.created")
        begun = DisputeChanged(
            payment_remote_id=payment,
            remote_id=dispute["id"],
            amount_minor=5950,
            currency="EUR",
            reason="The payer says somebody else used the card",
            status="needs_response",
            respond_by=at(MARCH + 7 * DAY_S),
            created_at=at(MARCH),
        )
        assert await meanings_of(provider, fake, event) == begun
        fake.close_dispute(dispute["id"], "lost")
        lost = msgspec.structs.replace(begun, status="lost", respond_by=None)
        for kind in ("created", "funds_withdrawn", "updated", "closed"):
            assert await meanings_of(provider, fake, last(fake, f"charge.dispute.{kind}")) == lost

    @pytest.mark.parametrize(
        ("status", "ours"),
        [
            ("warning_needs_response", "needs_response"),
            ("warning_under_review", "under_review"),
            ("warning_closed", "won"),
            ("appeal_needs_response", "needs_response"),
            ("appeal_under_review", "under_review"),
            ("needs_response", "needs_response"),
            ("under_review", "under_review"),
            ("charge_refunded", "won"),
            ("prevented", "won"),
            ("won", "won"),
            ("lost", "lost"),
            ("something_new", "under_review"),
        ],
    )
    async def test_every_status_of_stripe_is_one_of_ledger(
        self, provider: StripeProvider, fake: FakeStripe, payment: str, status: str, ours: str
    ) -> None:
        dispute = fake.dispute(payment, "a_new_reason")
        dispute["status"] = status
        meaning = await meanings_of(provider, fake, last(fake, "charge.dispute.created"))
        assert isinstance(meaning, DisputeChanged)
        assert (meaning.status, meaning.respond_by) == (ours, None)
        assert meaning.reason == "The payer's bank gives no particular reason"

    async def test_without_a_payment_intent_it_is_none_of_ledgers(
        self, provider: StripeProvider, fake: FakeStripe, payment: str
    ) -> None:
        dispute = fake.dispute(payment)
        dispute["payment_intent"] = None
        assert await meanings_of(provider, fake, last(fake, "charge.dispute.created")) == NothingToDo()


class TestStripesOwnList:
    async def test_it_has_what_was_sent_newest_first_part_by_part(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stripe_events, "PAGE", 3)
        fake.pay(checkout.remote_id)
        fake.travel(MARCH + 40 * DAY_S)
        fake.end(fake.subscription_of(checkout.remote_id)["id"])
        listed: list[ListedEvent] = []
        after: str | None = None
        while True:
            page = await provider.list_events(since=at(MARCH + 1), after=after)
            listed += page.events
            after = page.next_after
            if after is None:
                break
        sent = [one for one in fake.events if one["type"] in stripe_events.LISTED_TYPES and one["created"] > MARCH]
        assert [one.event.remote_id for one in listed] == [one["id"] for one in reversed(sent)]
        for one, original in zip(listed, reversed(sent), strict=True):
            assert json.loads(one.body) == original
            body, headers = fake.sign(original)
            assert provider.read_event(body, headers) == one.event
            assert await provider.understand_event(one.body) == await provider.understand_event(body)

    def test_stripe_takes_no_more_types(self) -> None:
        assert len(set(stripe_events.LISTED_TYPES)) == len(stripe_events.LISTED_TYPES) <= 20

    async def test_every_type_that_is_listed_has_a_meaning(self) -> None:
        for kind in stripe_events.LISTED_TYPES:
            assert stripe_events._MEANINGS.get(kind) or stripe_events._group_meaning(kind)

    async def test_events_of_the_other_mode_are_left_out(
        self, provider: StripeProvider, fake: FakeStripe, checkout: Checkout
    ) -> None:
        fake.expire(checkout.remote_id)
        fake.events[-1]["livemode"] = True
        assert (await provider.list_events(since=at(MARCH), after=None)).events == ()
        fake.keys.add("sk_live_51LedgerFakeStripe")
        settings = {"secretKey": "sk_live_51LedgerFakeStripe", "webhookSecret": WEBHOOK_SECRET}
        live = StripeType(fake.url).connect(settings)
        assert len((await live.list_events(since=at(MARCH), after=None)).events) == 1
        await live.close()

    async def test_payments_are_listed_too(self, provider: StripeProvider, fake: FakeStripe) -> None:
        started = await provider.start_payment(wanted_payment())
        assert isinstance(started, Checkout)
        fake.pay(started.remote_id)
        [listed] = (await provider.list_events(since=at(MARCH), after=None)).events
        assert listed.event.type == "checkout.session.completed"
