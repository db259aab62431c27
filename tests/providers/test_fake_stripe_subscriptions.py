"""The life of a subscription at the fake Stripe, through the real client: paid, renewed, behind, ended, and told of."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from tests.fakes.stripe import Request
from tests.fakes.stripe_club import BACK, DAY_S, Club, open_club, types, unix


@pytest.fixture
async def club() -> AsyncIterator[Club]:
    async with open_club() as club:
        yield club


async def test_a_subscription_is_paid_on_the_payment_page(club: Club) -> None:
    session = await club.session()
    assert (session.amount_subtotal, session.amount_total, session.currency) == (1000, 1190, "eur")
    assert (session.payment_intent, session.subscription, session.invoice) == (None, None, None)

    mark = len(club.fake.events)
    completed = club.fake.pay(session.id)["data"]["object"]
    assert types(club.fake.events[mark:]) == [
        *("customer.subscription.created", "invoice.created", "payment_intent.created", "invoice.finalized"),
        *("charge.succeeded", "payment_intent.succeeded", "invoice.paid", "invoice.payment_succeeded"),
        *("invoice_payment.paid", "customer.subscription.updated", "checkout.session.completed"),
    ]
    assert (completed["payment_status"], completed["payment_intent"]) == ("paid", None)
    created = club.fake.events[mark]["data"]["object"]
    assert created["status"] == "incomplete"

    found = await club.v1.subscriptions.retrieve_async(
        completed["subscription"], {"expand": ["latest_invoice.payments.data.payment"]}
    )
    assert (found.status, found.metadata["intent_id"], found.billing_mode.type) == ("active", "i", "flexible")
    invoice = found.latest_invoice
    assert isinstance(invoice, stripe.Invoice)
    assert invoice.id == completed["invoice"]
    assert (invoice.status, invoice.total, invoice.amount_paid) == ("paid", 1190, 1190)
    assert invoice.total_taxes is not None
    assert [(tax.amount, tax.taxable_amount) for tax in invoice.total_taxes] == [(190, 1000)]
    assert invoice.payments is not None
    payments = await club.v1.invoice_payments.list_async(
        {"invoice": invoice.id, "status": "paid", "expand": ["data.payment.payment_intent.latest_charge"]}
    )
    [payment] = payments.data
    assert payment.id == invoice.payments.data[0].id
    intent = payment.payment.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert (intent.amount_received, intent.latest_charge.status, intent.metadata.to_dict()) == (1190, "succeeded", {})
    assert (await club.latest(found.id)).payments is None
    with pytest.raises(stripe.InvalidRequestError, match="more than 4 levels"):
        await club.v1.subscriptions.retrieve_async(found.id, {"expand": ["a.b.c.d.e"]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"payment_intent_data": {"metadata": {"a": "b"}}}, "You can not pass `payment_intent_data` in `subscription`"),
        ({"line_items": [{"price": "price_none", "quantity": 1}]}, "No such price"),
        ({"subscription_data": {"default_tax_rates": ["txr_none"]}}, "No such tax_rate"),
    ],
)
async def test_a_session_for_a_subscription_is_refused(club: Club, changes: dict[str, Any], words: str) -> None:
    params: Any = {"mode": "subscription", **BACK, "line_items": [{"price": club.prices["Gold"], "quantity": 1}]}
    with pytest.raises(stripe.InvalidRequestError, match=words):
        await club.v1.checkout.sessions.create_async(params | changes)


async def test_only_active_recurring_prices_can_be_subscribed_to(club: Club) -> None:
    product = club.fake.objects[club.prices["Gold"]]["product"]
    once = await club.v1.prices.create_async({"product": product, "currency": "eur", "unit_amount": 500})
    club.prices["Once"] = once.id
    with pytest.raises(stripe.InvalidRequestError, match="type=one_time"):
        await club.session("Once")
    await club.v1.prices.update_async(club.prices["Gold"], {"active": False})
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        await club.session("Gold")


async def test_a_bank_debit_for_a_subscription_arrives_later_or_never(club: Club) -> None:
    for arrives in (True, False):
        session = await club.session()
        completed = club.fake.pay(session.id, method="sepa_debit", status="unpaid")["data"]["object"]
        subscription = club.fake.objects[completed["subscription"]]
        invoice = club.fake.objects[completed["invoice"]]
        assert (completed["payment_status"], subscription["status"], invoice["status"]) == ("unpaid", "active", "open")
        mark = len(club.fake.events)
        if arrives:
            assert club.fake.settle(session.id)["type"] == "checkout.session.async_payment_succeeded"
            assert "invoice.paid" in types(club.fake.events[mark:])
            assert (subscription["status"], invoice["status"]) == ("active", "paid")
        else:
            assert club.fake.fail(session.id)["type"] == "checkout.session.async_payment_failed"
            assert "invoice.payment_failed" in types(club.fake.events[mark:])
            assert (subscription["status"], invoice["status"]) == ("past_due", "open")


async def test_a_declined_card_leaves_an_incomplete_subscription_that_expires(club: Club) -> None:
    first, second = await club.session(), await club.session()
    club.fake.fail(first.id)
    club.fake.fail(second.id)
    paid, given_up = club.fake.of("subscription")
    assert (paid["status"], given_up["status"]) == ("incomplete", "incomplete")
    assert club.fake.pay(first.id)["data"]["object"]["subscription"] == paid["id"]
    assert paid["status"] == "active"
    assert types(club.fake.advance(DAY_S)) == [
        *("invoice.voided", "customer.subscription.updated", "checkout.session.expired")
    ]
    assert given_up["status"] == "incomplete_expired"


async def test_a_renewal_fails_recovers_and_ends(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.decline(subscription_id)
    assert club.renew(subscription_id)[-4:] == [
        *("charge.failed", "payment_intent.payment_failed", "invoice.payment_failed", "customer.subscription.updated")
    ]
    invoice_id = club.fake.objects[subscription_id]["latest_invoice"]
    with pytest.raises(stripe.CardError):
        await club.v1.invoices.pay_async(invoice_id)
    club.fake.accept(subscription_id)
    assert types(club.fake.retry(subscription_id)) == [
        *("charge.succeeded", "payment_intent.succeeded", "invoice.paid", "invoice.payment_succeeded"),
        *("invoice_payment.paid", "customer.subscription.updated"),
    ]
    assert club.fake.objects[subscription_id]["status"] == "active"
    ended = club.fake.end(subscription_id)
    assert (ended["type"], ended["data"]["object"]["status"]) == ("customer.subscription.deleted", "canceled")
    assert club.fake.advance(90 * DAY_S) == []
    with pytest.raises(stripe.InvalidRequestError, match="No such subscription"):
        await club.v1.subscriptions.cancel_async(subscription_id)


async def test_a_debit_for_a_renewal_takes_days(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.take_days(subscription_id)
    club.renew(subscription_id)
    invoice = await club.latest(subscription_id)
    assert (invoice.status, club.fake.objects[subscription_id]["status"]) == ("open", "active")
    assert "invoice.payment_failed" in types(club.fake.fail_invoice(invoice.id))
    assert club.fake.objects[subscription_id]["status"] == "past_due"


async def test_a_draft_becomes_final_after_its_hour(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.draft_s = 3600
    club.renew(subscription_id)
    assert (await club.latest(subscription_id)).status == "draft"
    club.fake.advance(3600)
    assert (await club.latest(subscription_id)).status == "paid"


async def test_it_ends_with_its_period_unless_that_is_taken_back(club: Club) -> None:
    subscription_id = await club.subscribe()
    for wanted in (True, False, True):
        planned = await club.v1.subscriptions.update_async(subscription_id, {"cancel_at_period_end": wanted})
        assert (planned.cancel_at_period_end, planned.cancel_at is not None) == (wanted, wanted)
    with pytest.raises(stripe.InvalidRequestError, match="No upcoming invoices"):
        await club.v1.invoices.create_preview_async({"subscription": subscription_id})
    assert club.renew(subscription_id) == ["customer.subscription.deleted"]
    found = await club.v1.subscriptions.retrieve_async(subscription_id)
    assert (found.status, found.ended_at) == ("canceled", club.fake.now)
    with pytest.raises(stripe.InvalidRequestError, match="can only update its cancellation_details"):
        await club.v1.subscriptions.update_async(subscription_id, {"cancel_at_period_end": False})
    live = await club.v1.subscriptions.list_async({"customer": str(found.customer)})
    ended = await club.v1.subscriptions.list_async({"customer": str(found.customer), "status": "all"})
    assert ([one.id for one in live.data], [one.id for one in ended.data]) == ([], [subscription_id])


async def test_refunds_and_disputes_of_the_dashboard(club: Club) -> None:
    await club.subscribe()
    [intent] = club.fake.of("payment_intent")
    mark = len(club.fake.events)
    assert club.fake.refund(intent["id"], 190)["metadata"] == {}
    assert types(club.fake.events[mark:]) == [
        *("refund.created", "charge.refunded", "refund.updated", "charge.refund.updated")
    ]
    assert club.fake.events[mark + 1]["data"]["object"]["amount_refunded"] == 190
    await club.v1.refunds.create_async({"payment_intent": intent["id"], "amount": 100})

    mark = len(club.fake.events)
    dispute_id = club.fake.dispute(intent["id"])["id"]
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        await club.v1.refunds.create_async({"payment_intent": intent["id"]})
    club.fake.close_dispute(dispute_id, "won")
    assert types(club.fake.events[mark:]) == [
        *("charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.updated"),
        *("charge.dispute.funds_reinstated", "charge.dispute.closed"),
    ]
    [dispute] = (await club.v1.disputes.list_async({"payment_intent": intent["id"]})).data
    assert (dispute.id, dispute.status) == (dispute_id, "won")


async def test_events_are_listed_for_thirty_days_newest_first(club: Club) -> None:
    subscription_id = await club.subscribe()
    mark = len(club.fake.events)
    club.fake.advance(61 * DAY_S)
    first = await club.v1.events.list_async({"types": ["invoice.paid", "customer.subscription.updated"], "limit": 1})
    assert ([one.type for one in first.data], first.has_more) == (["invoice.paid"], True)
    second = await club.v1.events.list_async({"type": "customer.*", "starting_after": first.data[0].id, "limit": 100})
    assert ([one.type for one in second.data], second.has_more) == (["customer.subscription.updated"], False)
    assert (await club.v1.events.list_async({"created": {"gte": club.fake.now}})).data == []
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        await club.v1.events.retrieve_async(club.fake.events[0]["id"])
    assert len(club.fake.invoices_of(subscription_id)) == 3
    assert len(club.fake.events) > mark


async def test_events_can_be_had_in_the_older_shape(club: Club) -> None:
    await club.subscribe()
    by_type = {one["type"]: one for one in club.fake.events}
    old = {
        kind: club.fake.as_before_basil(by_type[kind])["data"]["object"] for kind in by_type if "_payment" not in kind
    }
    subscription = old["customer.subscription.updated"]
    assert subscription["current_period_end"] == unix("2026-02-28T10:00")
    assert "current_period_end" not in subscription["items"]["data"][0]
    invoice = old["invoice.paid"]
    assert (invoice["subscription"], invoice["tax"], invoice["paid"]) == (subscription["id"], 190, True)
    assert not {"parent", "payments", "total_taxes"} & set(invoice)
    assert (invoice["payment_intent"], invoice["charge"]) == (
        old["payment_intent.succeeded"]["id"],
        old["charge.succeeded"]["id"],
    )
    [line] = invoice["lines"]["data"]
    assert (line["price"]["id"], line["proration"]) == (club.prices["Gold"], False)
    assert (line["type"], line["tax_amounts"][0]["amount"]) == ("subscription", 190)
    assert old["charge.succeeded"]["invoice"] == invoice["id"]
    assert by_type["invoice.paid"]["data"]["object"]["parent"]["type"] == "subscription_details"


async def test_somebody_can_step_in_before_an_answer_is_sent(club: Club) -> None:
    subscription_id = await club.subscribe()
    seen: list[tuple[str, bool]] = []

    async def look(request: Request) -> None:
        seen.append((request.path, club.fake.objects[subscription_id]["cancel_at_period_end"]))

    club.fake.on_answer = look
    club.fake.fault("reset_after", "subscriptions")
    with pytest.raises(stripe.APIConnectionError):
        await club.v1.subscriptions.update_async(subscription_id, {"cancel_at_period_end": True})
    assert seen == [(f"/v1/subscriptions/{subscription_id}", True)]


async def test_the_payment_page_announces_all_that_a_payment_does(club: Club) -> None:
    heard: list[str] = []

    async def hear(request: web.Request) -> web.Response:
        heard.append((await request.json())["type"])
        return web.Response()

    receiver = web.Application()
    receiver.router.add_post("/", hear)
    runner = web.AppRunner(receiver)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        club.fake.webhook = (f"http://127.0.0.1:{runner.addresses[0][1]}/", "whsec_x")
        url = (await club.session()).url
        assert url is not None
        async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as page:
            assert page.status == 303
    finally:
        await runner.cleanup()
    assert heard[0] == "customer.subscription.created"
    assert heard[-1] == "checkout.session.completed"
    assert len(heard) == 11
