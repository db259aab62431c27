"""Stripe: checkouts, refunds, products and settings, against the project's own fake of it."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from ledger.providers import stripe_calls
from ledger.providers.contract import CheckoutState, Payer, PaymentLine, ProviderRefused, RefundState
from ledger.providers.provider import Provider, ProviderType
from ledger.providers.stripe import StripeProvider, StripeType
from tests.fakes.stripe import SECRET_KEY, FakeStripe
from tests.providers.wanted import one_line, wanted_payment, wanted_product, wanted_refund


async def paid(fake: FakeStripe, provider: StripeProvider, amount_minor: int = 5950) -> str:
    """Has a payment made; returns its remote id."""
    checkout = await provider.start_payment(one_line(amount_minor, "EUR"))
    fake.pay(checkout.remote_id)
    state = await provider.look_up_checkout(intent_id="-", remote_id=checkout.remote_id)
    assert state.payment is not None
    return state.payment.remote_id


def test_it_is_a_provider_and_declares_what_works() -> None:
    kind: ProviderType = StripeType()
    provider: Provider = kind.connect({"secretKey": SECRET_KEY})
    assert sorted(kind.capabilities) == ["checkout", "invoices", "recurringBilling", "refunds", "subscriptions"]
    assert provider.bank_account() is None
    assert SECRET_KEY not in repr(provider)


class TestSettings:
    def test_the_keys_of_a_real_account_pass(self) -> None:
        settings = {
            "secretKey": "rk_live_51AbcdefGhi",
            "publicKey": "pk_live_51AbcdefGhi",
            "webhookSecret": "whsec_a1B2c3D4e5",
        }
        assert StripeType().check(settings) == []
        assert StripeType().check({"secretKey": " sk_test_51AbcdefGhi\n"}) == []

    @pytest.mark.parametrize(
        ("settings", "field", "words"),
        [
            ({}, "secretKey", "Enter the secret key"),
            ({"secretKey": "pk_test_51AbcdefGhi"}, "secretKey", "publishable key"),
            ({"secretKey": "sk_51AbcdefGhi"}, "secretKey", "begins with"),
            ({"secretKey": "sk_test_51Abc defGhi"}, "secretKey", "begins with"),
            ({"secretKey": "sk_test_51AbcdefGhi", "publicKey": "sk_test_51AbcdefGhi"}, "publicKey", "begins with pk_"),
            ({"secretKey": "sk_test_51AbcdefGhi", "publicKey": "pk_live_51AbcdefGhi"}, "publicKey", "test mode"),
            ({"secretKey": "sk_test_51AbcdefGhi", "webhookSecret": "secret"}, "webhookSecret", "begins with whsec_"),
        ],
    )
    def test_wrong_ones_are_refused_with_the_reason(self, settings: dict[str, str], field: str, words: str) -> None:
        [fault] = StripeType().check(settings)
        assert fault.field == field
        assert words in fault.message

    async def test_a_connection_says_as_whom_it_works(self, provider: StripeProvider, fake: FakeStripe) -> None:
        assert await provider.test() == "Connected to Stripe as Sportverein Beispiel (acct_1Ledger) in test mode"
        fake.account["charges_enabled"] = False
        assert (await provider.test()).endswith("which cannot take payments yet")

    async def test_a_wrong_key_is_named_but_never_shown(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.keys.clear()
        with pytest.raises(ProviderRefused, match="does not accept this secret key") as refused:
            await provider.test()
        assert SECRET_KEY not in str(refused.value)

    async def test_a_restricted_key_without_rights_is_told_what_it_lacks(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        fake.restricted_keys.add(SECRET_KEY)
        with pytest.raises(ProviderRefused, match="may not do this"):
            await provider.start_payment(wanted_payment())


class TestCheckout:
    async def test_shows_the_lines_and_the_tax_and_takes_exactly_the_total(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        wanted = wanted_payment()
        checkout = await provider.start_payment(wanted)
        session = fake.objects[checkout.remote_id]
        lines = [
            (one["price_data"]["product_data"]["name"], one["price_data"]["unit_amount"])
            for one in session["_line_items"]
        ]
        assert lines == [("Membership 2026", "4000"), ("Locker", "500"), ("VAT 19 %", "950")]
        assert (session["amount_total"], session["currency"]) == (5950, "eur")
        assert checkout.url == session["url"]
        assert timedelta(hours=23) < checkout.expires_at - datetime.now(UTC) <= timedelta(hours=24)

    async def test_every_event_can_be_led_back_to_the_invoice(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_payment()
        checkout = await provider.start_payment(wanted)
        told = {
            "invoice_id": wanted.invoice_id,
            "invoice_number": "INV-2026-0001",
            "intent_id": wanted.intent_id,
            "person": "7",
        }
        session = fake.objects[checkout.remote_id]
        assert session["metadata"] == told
        assert session["client_reference_id"] == wanted.invoice_id
        fake.fail(checkout.remote_id)
        [intent] = fake.of("payment_intent")
        assert intent["metadata"] == told

    async def test_a_person_becomes_one_customer_without_name_and_address(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        fake.delay_s = 0.05
        checkouts = await asyncio.gather(*(provider.start_payment(wanted_payment()) for _ in range(4)))
        await provider.start_payment(wanted_payment(person_id=8))
        again = wanted_payment(payer=Payer(person_id=7, remote_id=checkouts[0].customer_remote_id))
        checkouts.append(await provider.start_payment(again))
        assert len({one.customer_remote_id for one in checkouts}) == 1
        assert [one["metadata"] for one in fake.of("customer")] == [{"person": "7"}, {"person": "8"}]
        assert [one.params for one in fake.requests_to("/customers$")][-1] == {"metadata": {"person": "8"}}

    async def test_two_installations_on_one_account_do_not_share_a_customer(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        await provider.start_payment(wanted_payment())
        await provider.start_payment(wanted_payment(success_url="https://other.example.org/ledger/my/invoices/1"))
        assert len(fake.of("customer")) == 2

    async def test_a_customer_deleted_at_stripe_is_replaced(self, provider: StripeProvider, fake: FakeStripe) -> None:
        first = await provider.start_payment(wanted_payment())
        assert first.customer_remote_id is not None
        fake.objects[first.customer_remote_id]["deleted"] = True
        wanted = wanted_payment(payer=Payer(person_id=7, remote_id=first.customer_remote_id))
        second = await provider.start_payment(wanted)
        assert second.customer_remote_id not in (None, first.customer_remote_id)
        assert await provider.start_payment(wanted) == second

    async def test_the_same_intent_is_the_same_checkout(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_payment()
        fake.delay_s = 0.1
        checkouts = await asyncio.gather(*(provider.start_payment(wanted) for _ in range(5)))
        assert len(set(checkouts)) == 1
        assert len(fake.of("checkout.session")) == 1
        assert await provider.start_payment(wanted) == checkouts[0]

    async def test_the_same_intent_with_another_amount_is_refused(self, provider: StripeProvider) -> None:
        wanted = wanted_payment()
        await provider.start_payment(wanted)
        with pytest.raises(ProviderRefused, match="start again"):
            await provider.start_payment(one_line(1000, "EUR", intent_id=wanted.intent_id))

    async def test_five_hundred_lines_fit_into_a_hundred(self, provider: StripeProvider, fake: FakeStripe) -> None:
        lines = tuple(PaymentLine(description=f"Item {n}", unit_price_minor=n, quantity=2) for n in range(500))
        total = 2 * sum(range(500)) + 10
        checkout = await provider.start_payment(wanted_payment(lines=lines, amount_minor=total, tax_minor=10))
        session = fake.objects[checkout.remote_id]
        assert session["amount_total"] == total
        assert len(session["_line_items"]) == 100
        assert session["_line_items"][98]["price_data"]["product_data"]["name"] == "402 further items"

    async def test_long_names_are_cut(self, provider: StripeProvider, fake: FakeStripe) -> None:
        lines = (PaymentLine(description="ä" * 500, unit_price_minor=1000, quantity=1),)
        checkout = await provider.start_payment(wanted_payment(lines=lines, amount_minor=1000, tax_minor=0))
        [line] = fake.objects[checkout.remote_id]["_line_items"]
        assert line["price_data"]["product_data"]["name"] == "ä" * 249 + "…"

    async def test_lines_with_another_sum_become_one(self, provider: StripeProvider, fake: FakeStripe) -> None:
        checkout = await provider.start_payment(wanted_payment(amount_minor=2000))
        session = fake.objects[checkout.remote_id]
        assert session["amount_total"] == 2000
        assert session["_line_items"][0]["price_data"]["product_data"]["name"] == "Invoice INV-2026-0001"

    async def test_a_session_with_another_total_is_closed_and_refused(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        fake.surcharge = 100
        with pytest.raises(ProviderRefused, match=r"60\.50 EUR instead of 59\.50 EUR"):
            await provider.start_payment(wanted_payment())
        assert [one["status"] for one in fake.of("checkout.session")] == ["expired"]

    @pytest.mark.parametrize(
        ("amount_minor", "words"), [(49, "below what Stripe takes"), (100_000_000, "more than Stripe")]
    )
    async def test_too_little_and_too_much_are_refused_in_words(
        self, provider: StripeProvider, amount_minor: int, words: str
    ) -> None:
        with pytest.raises(ProviderRefused, match=words):
            await provider.start_payment(one_line(amount_minor, "EUR"))


class TestLookingUpACheckout:
    async def test_open_then_paid_with_what_was_paid(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_payment()
        checkout = await provider.start_payment(wanted)
        state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=checkout.remote_id)
        assert state == CheckoutState(status="open", checkout=checkout)
        fake.pay(checkout.remote_id)
        state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=checkout.remote_id)
        assert state.status == "paid"
        assert state.payment is not None
        assert (state.payment.amount_minor, state.payment.currency, state.payment.method) == (5950, "EUR", "card")
        assert state.payment.remote_id == fake.of("payment_intent")[0]["id"]
        assert abs(state.payment.received_at - datetime.now(UTC)) < timedelta(seconds=10)

    async def test_a_bank_debit_is_pending_until_it_is_paid(self, provider: StripeProvider, fake: FakeStripe) -> None:
        checkout = await provider.start_payment(wanted_payment())
        fake.pay(checkout.remote_id, method="sepa_debit", status="unpaid")
        assert (await provider.look_up_checkout(intent_id="-", remote_id=checkout.remote_id)).status == "pending"
        fake.settle(checkout.remote_id)
        state = await provider.look_up_checkout(intent_id="-", remote_id=checkout.remote_id)
        assert state.payment is not None
        assert state.payment.method == "sepa_debit"

    async def test_a_bank_debit_can_fail(self, provider: StripeProvider, fake: FakeStripe) -> None:
        checkout = await provider.start_payment(wanted_payment())
        fake.pay(checkout.remote_id, method="sepa_debit", status="unpaid")
        fake.fail(checkout.remote_id)
        state = await provider.look_up_checkout(intent_id="-", remote_id=checkout.remote_id)
        assert state == CheckoutState(status="failed")

    async def test_without_its_id_it_is_found_among_many(
        self, provider: StripeProvider, fake: FakeStripe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stripe_calls, "PAGE", 10)
        wanted = wanted_payment()
        checkout = await provider.start_payment(wanted)
        payer = Payer(person_id=7, remote_id=checkout.customer_remote_id)
        for _ in range(25):
            await provider.start_payment(wanted_payment(payer=payer))
        fake.forget_keys()
        state = await provider.look_up_checkout(intent_id=wanted.intent_id, remote_id=None)
        assert state == CheckoutState(status="open", checkout=checkout)
        assert len(fake.requests_to("/sessions$", "GET")) == 3

    async def test_what_never_was_is_unknown(self, provider: StripeProvider, fake: FakeStripe) -> None:
        await provider.start_payment(wanted_payment())
        unknown = CheckoutState(status="unknown")
        assert await provider.look_up_checkout(intent_id=wanted_payment().intent_id, remote_id=None) == unknown
        assert await provider.look_up_checkout(intent_id="not-a-uuid", remote_id=None) == unknown
        assert await provider.look_up_checkout(intent_id="-", remote_id="cs_test_gone") == unknown
        # Sessions from before the intent are not looked through.
        created = fake.requests_to("/sessions$", "GET")[0].params["created"]
        assert isinstance(created, dict)
        assert int(str(created["gte"])) > time.time() - 400

    async def test_expiring_says_when_it_was_paid_meanwhile(self, provider: StripeProvider, fake: FakeStripe) -> None:
        first = await provider.start_payment(wanted_payment())
        assert await provider.expire_checkout(remote_id=first.remote_id) == CheckoutState(status="expired")
        assert await provider.expire_checkout(remote_id=first.remote_id) == CheckoutState(status="expired")
        second = await provider.start_payment(wanted_payment())
        fake.pay(second.remote_id)
        state = await provider.expire_checkout(remote_id=second.remote_id)
        assert state.payment is not None
        assert await provider.expire_checkout(remote_id="cs_test_gone") == CheckoutState(status="unknown")


class TestRefunds:
    async def test_parts_and_the_rest_go_back_once_each(self, provider: StripeProvider, fake: FakeStripe) -> None:
        payment = await paid(fake, provider)
        part = wanted_refund(payment, 2000)
        state = await provider.refund(part)
        assert state.status == "succeeded"
        assert await provider.refund(part) == state
        assert (await provider.refund(wanted_refund(payment, 3950))).status == "succeeded"
        assert sum(one["amount"] for one in fake.of("refund")) == 5950
        with pytest.raises(ProviderRefused, match="already returned this payment in full"):
            await provider.refund(wanted_refund(payment, 1))

    async def test_a_hundred_at_once_never_return_more_than_was_paid(
        self, provider: StripeProvider, fake: FakeStripe
    ) -> None:
        payment = await paid(fake, provider)
        fake.delay_s = 0.02
        amounts = [(1 + n % 7) * 100 for n in range(99)] + [5950]
        ends = await asyncio.gather(
            *(provider.refund(wanted_refund(payment, amount)) for amount in amounts), return_exceptions=True
        )
        returned = sum(amount for amount, end in zip(amounts, ends, strict=True) if isinstance(end, RefundState))
        assert returned == sum(one["amount"] for one in fake.of("refund")) <= 5950
        assert all(isinstance(end, RefundState | ProviderRefused) for end in ends)

    async def test_the_reason_stays_here(self, provider: StripeProvider, fake: FakeStripe) -> None:
        await provider.refund(wanted_refund(await paid(fake, provider), 100))
        [request] = fake.requests_to("/refunds$")
        assert "Ada" not in str(request)

    @pytest.mark.parametrize("status", ["pending", "requires_action"])
    async def test_one_on_its_way_is_requested_and_looked_up_later(
        self, provider: StripeProvider, fake: FakeStripe, status: str
    ) -> None:
        fake.refund_status = status
        wanted = wanted_refund(await paid(fake, provider), 100)
        state = await provider.refund(wanted)
        assert state.status == "requested"
        assert state.remote_id is not None
        assert await provider.look_up_refund(wanted, remote_id=state.remote_id) == state
        fake.settle_refund(state.remote_id, "failed", "lost_or_stolen_card")
        state = await provider.look_up_refund(wanted, remote_id=None)
        assert state.status == "failed"
        assert state.failure == "The refund did not arrive: the card was reported lost or stolen"

    async def test_a_cancelled_one_has_failed(self, provider: StripeProvider, fake: FakeStripe) -> None:
        fake.refund_status = "canceled"
        state = await provider.refund(wanted_refund(await paid(fake, provider), 100))
        assert (state.status, state.failure) == ("failed", "The refund did not arrive: it was cancelled")

    async def test_without_its_id_it_is_found_among_many(
        self, provider: StripeProvider, fake: FakeStripe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stripe_calls, "PAGE", 10)
        payment = await paid(fake, provider)
        wanted = wanted_refund(payment, 100)
        state = await provider.refund(wanted)
        for _ in range(25):
            await provider.refund(wanted_refund(payment, 100))
        fake.forget_keys()
        assert await provider.look_up_refund(wanted, remote_id=None) == state
        assert len(fake.requests_to("/refunds$", "GET")) == 3

    async def test_what_never_was_is_unknown(self, provider: StripeProvider, fake: FakeStripe) -> None:
        unknown = RefundState(status="unknown")
        wanted = wanted_refund(await paid(fake, provider), 100)
        assert await provider.look_up_refund(wanted, remote_id=None) == unknown
        assert await provider.look_up_refund(wanted, remote_id="re_gone") == unknown
        assert await provider.look_up_refund(wanted_refund("pi_gone", 100), remote_id=None) == unknown


class TestProducts:
    async def test_a_new_one_is_created_once(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_product()
        synced = await provider.sync_product(wanted)
        assert await provider.sync_product(wanted) == synced
        [product], [price] = fake.of("product"), fake.of("price")
        assert (product["name"], product["description"], product["active"]) == ("Membership", "One year", True)
        assert (price["unit_amount"], price["currency"], price["recurring"]) == (4000, "eur", {"interval": "year"})
        assert (product["id"], price["id"]) == (synced.product_remote_id, synced.price_remote_id)

    async def test_name_description_and_activity_follow(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_product()
        synced = await provider.sync_product(wanted)
        changed = msgspec.structs.replace(
            wanted,
            intent_id="another",
            name="Full membership",
            description=None,
            is_active=False,
            product_remote_id=synced.product_remote_id,
            price_remote_id=synced.price_remote_id,
        )
        assert await provider.sync_product(changed) == synced
        [product] = fake.of("product")
        assert (product["name"], product["description"], product["active"]) == ("Full membership", None, False)
        assert len(fake.of("price")) == 1

    async def test_a_new_price_archives_the_old_one(self, provider: StripeProvider, fake: FakeStripe) -> None:
        wanted = wanted_product(interval=None)
        first = await provider.sync_product(wanted)
        dearer = msgspec.structs.replace(
            wanted,
            intent_id="another",
            price_id="another-price",
            amount_minor=4500,
            product_remote_id=first.product_remote_id,
            old_price_remote_ids=(first.price_remote_id, "price_gone"),
        )
        second = await provider.sync_product(dearer)
        assert await provider.sync_product(dearer) == second
        assert [(one["unit_amount"], one["active"]) for one in fake.of("price")] == [(4000, False), (4500, True)]
        assert fake.of("price")[0]["type"] == "one_time"

    async def test_ids_of_another_account_are_replaced(self, provider: StripeProvider, fake: FakeStripe) -> None:
        elsewhere = wanted_product(product_remote_id="prod_elsewhere", price_remote_id="price_elsewhere")
        synced = await provider.sync_product(elsewhere)
        assert {synced.product_remote_id, synced.price_remote_id} == {
            one["id"] for one in fake.of("product") + fake.of("price")
        }

    async def test_a_lost_answer_makes_no_second_product(
        self, provider: StripeProvider, fake: FakeStripe, hurry: None
    ) -> None:
        wanted = wanted_product()
        for path in ("/products$", "/prices$"):
            fake.fault("500_after", path, method="POST")
            with pytest.raises(Exception, match="did not say in time"):
                await provider.sync_product(wanted)
            wanted = msgspec.structs.replace(wanted, intent_id=f"later than {path}")
        fake.forget_keys()
        await provider.sync_product(wanted)
        assert (len(fake.of("product")), len(fake.of("price"))) == (1, 1)
