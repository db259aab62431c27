"""Stripe's events: who may send them, and what they mean, in every generation of payloads."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.providers.contract import (
    CheckoutCompleted,
    CheckoutExpired,
    EventMeaning,
    MoneyArrived,
    NothingToDo,
    PaymentFailed,
    ProviderRefused,
    ProviderUnreachable,
    SignatureWrong,
)
from ledger.providers.stripe import StripeProvider, StripeType
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET, FakeStripe
from tests.providers.wanted import wanted_payment

PAYLOADS = Path(__file__).parent / "payloads"
INVOICE = "0199a0de-7c00-7000-8000-0000000000f1"
INTENT = "0199a0de-7c00-7000-8000-0000000000a1"
AT = datetime.fromtimestamp(1_793_000_000, UTC)


def payload(name: str) -> bytes:
    return (PAYLOADS / f"{name}.json").read_bytes()


def altered(name: str, **changes: object) -> bytes:
    """A payload with other values in its object."""
    event = json.loads(payload(name))
    event["data"]["object"].update(changes)
    return json.dumps(event).encode()


def money(remote_id: str, method: str = "card") -> MoneyArrived:
    return MoneyArrived(remote_id=remote_id, amount_minor=5950, currency="EUR", method=method, received_at=AT)


class TestWhoMaySendThem:
    async def test_a_signed_event_is_read(self, provider: StripeProvider, fake: FakeStripe) -> None:
        body, headers = fake.sign(json.loads(payload("endive/checkout.session.completed")))
        event = provider.read_event(body, headers)
        assert (event.remote_id, event.type, event.created_at) == ("evt_1Completed", "checkout.session.completed", AT)

    async def test_the_raw_bytes_count(self, provider: StripeProvider, fake: FakeStripe) -> None:
        body, headers = fake.sign(json.loads(payload("endive/checkout.session.completed")))
        for changed in (body + b" ", body.replace(b"5950", b"5951"), b"", b"\xff\xfe"):
            with pytest.raises(SignatureWrong):
                provider.read_event(changed, headers)

    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "t=1",
            "v1=abc",
            "t=x,v1=abc",
            "t=1,v1=ä",
            "t=1,v1=abc,v0=def",
            "nonsense",
            ",",
            "t=99999999999999,v1=abc",
        ],
    )
    async def test_an_odd_signature_is_refused(self, provider: StripeProvider, signature: str) -> None:
        for headers in ({"stripe-signature": signature}, {}):
            with pytest.raises(SignatureWrong):
                provider.read_event(payload("endive/checkout.session.completed"), headers)

    async def test_another_secret_or_a_stale_time_is_refused(self, provider: StripeProvider, fake: FakeStripe) -> None:
        event = json.loads(payload("endive/checkout.session.completed"))
        now = int(time.time())
        provider.read_event(*fake.sign(event, timestamp=now - 290))
        with pytest.raises(SignatureWrong):
            provider.read_event(*fake.sign(event, timestamp=now - 310))
        with pytest.raises(SignatureWrong):
            provider.read_event(*fake.sign(event, "whsec_anotherOne"))

    async def test_without_a_secret_nothing_is_believed(self, fake: FakeStripe) -> None:
        provider = StripeType(fake.url).connect({"secretKey": SECRET_KEY})
        body, headers = fake.sign(json.loads(payload("endive/checkout.session.completed")), " ")
        with pytest.raises(SignatureWrong, match="no webhook signing secret"):
            provider.read_event(body, headers)
        await provider.close()

    async def test_a_test_payment_never_pays_a_live_invoice(self, fake: FakeStripe) -> None:
        settings = {"secretKey": "sk_live_51LedgerFakeStripe", "webhookSecret": WEBHOOK_SECRET}
        provider = StripeType(fake.url).connect(settings)
        with pytest.raises(SignatureWrong, match="live mode"):
            provider.read_event(*fake.sign(json.loads(payload("endive/checkout.session.completed"))))
        await provider.close()

    async def test_signed_text_that_is_no_event_is_refused(self, provider: StripeProvider, fake: FakeStripe) -> None:
        for text in ({}, {"object": "event"}, {"object": "v2.core.event", "id": "evt_1"}):
            with pytest.raises(SignatureWrong):
                provider.read_event(*fake.sign(text))


class TestWhatTheyMean:
    @pytest.mark.parametrize(
        ("name", "meaning"),
        [
            (
                "endive/checkout.session.completed",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1New", invoice_id=INVOICE, payment=money("pi_3New1"), intent_id=INTENT
                ),
            ),
            (
                "2024-06-20/checkout.session.completed",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1Old", invoice_id=INVOICE, payment=money("pi_3Old1"), intent_id=INTENT
                ),
            ),
            # Paid as 65.12 USD by the payer's wish; the invoice's 59.50 EUR arrived.
            (
                "2024-06-20/checkout.session.completed.adaptive_pricing",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1Old", invoice_id=INVOICE, payment=money("pi_3Old1"), intent_id=INTENT
                ),
            ),
            (
                "endive/checkout.session.completed.bank_debit",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1New", invoice_id=INVOICE, payment=None, intent_id=INTENT
                ),
            ),
            (
                "2024-06-20/checkout.session.completed.bank_debit",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1Old", invoice_id=INVOICE, payment=None, intent_id=INTENT
                ),
            ),
            (
                "endive/checkout.session.async_payment_succeeded",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1New",
                    invoice_id=INVOICE,
                    payment=money("pi_3New1", "online"),
                    intent_id=INTENT,
                ),
            ),
            (
                "2024-06-20/checkout.session.async_payment_succeeded",
                CheckoutCompleted(
                    checkout_remote_id="cs_test_a1Old",
                    invoice_id=INVOICE,
                    payment=money("pi_3Old1", "online"),
                    intent_id=INTENT,
                ),
            ),
            (
                "endive/checkout.session.async_payment_failed",
                PaymentFailed(
                    invoice_id=INVOICE,
                    checkout_remote_id="cs_test_a1New",
                    reason="The bank did not pay the direct debit",
                ),
            ),
            (
                "2024-06-20/checkout.session.async_payment_failed",
                PaymentFailed(
                    invoice_id=INVOICE,
                    checkout_remote_id="cs_test_a1Old",
                    reason="The bank did not pay the direct debit",
                ),
            ),
            ("endive/checkout.session.expired", CheckoutExpired(checkout_remote_id="cs_test_a1New")),
            ("2024-06-20/checkout.session.expired", CheckoutExpired(checkout_remote_id="cs_test_a1Old")),
            (
                "endive/payment_intent.payment_failed",
                PaymentFailed(invoice_id=INVOICE, checkout_remote_id=None, reason="Your card has insufficient funds."),
            ),
            (
                "2022-08-01/payment_intent.payment_failed",
                PaymentFailed(invoice_id=INVOICE, checkout_remote_id=None, reason="Your card was declined."),
            ),
        ],
    )
    async def test_both_generations_mean_the_same(
        self, provider: StripeProvider, fake: FakeStripe, name: str, meaning: EventMeaning
    ) -> None:
        assert await provider.understand_event(payload(name)) == meaning
        assert not fake.requests

    @pytest.mark.parametrize("status", ["unpaid", "no_payment_required", "processing", ""])
    async def test_only_paid_is_paid(self, provider: StripeProvider, status: str) -> None:
        meaning = await provider.understand_event(altered("endive/checkout.session.completed", payment_status=status))
        assert meaning == CheckoutCompleted(
            checkout_remote_id="cs_test_a1New", invoice_id=INVOICE, payment=None, intent_id=INTENT
        )

    async def test_icelandic_crowns_come_back_as_the_invoice_counts_them(self, provider: StripeProvider) -> None:
        body = altered("endive/checkout.session.completed", amount_total=595_000, currency="isk")
        meaning = await provider.understand_event(body)
        assert isinstance(meaning, CheckoutCompleted)
        assert meaning.payment is not None
        assert (meaning.payment.amount_minor, meaning.payment.currency) == (5950, "ISK")

    @pytest.mark.parametrize("changes", [{"amount_total": 595_001, "currency": "isk"}, {"currency": "usdc"}])
    async def test_an_amount_that_cannot_be_is_refused(
        self, provider: StripeProvider, changes: dict[str, object]
    ) -> None:
        with pytest.raises(ProviderRefused):
            await provider.understand_event(altered("endive/checkout.session.completed", **changes))

    async def test_where_the_event_does_not_say_stripe_is_asked(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        checkout = await provider.start_payment(wanted_payment())
        fake.pay(checkout.remote_id, method="klarna")
        invoice_id = fake.objects[checkout.remote_id]["metadata"]["invoice_id"]
        oldest = altered(
            "2020-03-02/checkout.session.completed", id=checkout.remote_id, metadata={"invoice_id": invoice_id}
        )
        meaning = await provider.understand_event(oldest)
        assert isinstance(meaning, CheckoutCompleted)
        assert meaning.invoice_id == invoice_id
        assert meaning.payment is not None
        assert (meaning.payment.amount_minor, meaning.payment.method) == (5950, "klarna")
        async with fake.refusing():
            with pytest.raises(ProviderUnreachable):
                await provider.understand_event(oldest)

    async def test_what_other_programs_sell_through_the_same_account_is_left_alone(
        self, provider: StripeProvider
    ) -> None:
        for name in (
            "checkout.session.completed",
            "checkout.session.async_payment_failed",
            "checkout.session.expired",
            "payment_intent.payment_failed",
        ):
            for metadata in ({}, None, {"order": "17"}):
                body = altered(f"endive/{name}", metadata=metadata)
                assert await provider.understand_event(body) == NothingToDo()

    async def test_what_is_not_for_ledger_is_nothing_to_do(self, provider: StripeProvider) -> None:
        event = json.loads(payload("endive/checkout.session.completed"))
        event["type"] = "customer.created"
        assert await provider.understand_event(json.dumps(event).encode()) == NothingToDo()
        subscription = altered("endive/checkout.session.completed", mode="subscription")
        assert await provider.understand_event(subscription) == NothingToDo()

    async def test_what_makes_no_sense_is_refused(self, provider: StripeProvider) -> None:
        for body in (b"{}", altered("endive/checkout.session.completed", amount_total="much")):
            with pytest.raises(ProviderRefused, match="cannot be read"):
                await provider.understand_event(body)

    async def test_the_fakes_own_events_mean_what_happened(self, provider: StripeProvider, fake: FakeStripe) -> None:
        checkout = await provider.start_payment(wanted_payment())
        declined = await provider.understand_event(fake.sign(fake.fail(checkout.remote_id))[0])
        assert isinstance(declined, PaymentFailed)
        body, headers = fake.sign(fake.pay(checkout.remote_id))
        assert provider.read_event(body, headers).type == "checkout.session.completed"
        meaning = await provider.understand_event(body)
        assert isinstance(meaning, CheckoutCompleted)
        assert meaning.payment is not None
        state = await provider.look_up_checkout(intent_id="-", remote_id=checkout.remote_id)
        assert state.payment is not None
        assert meaning.payment.remote_id == state.payment.remote_id
        assert meaning.payment.amount_minor == state.payment.amount_minor
