"""The life of a subscription, with every period as one numbered, paid invoice."""

from tests.api.test_providers import IBAN
from tests.api.test_providers import _add as add_provider
from tests.subscriptions.club import Club


async def test_a_whole_life(club: Club) -> None:
    ledger, stripe = club.ledger, club.stripe
    await ledger.staff.put("/api/settings", {"taxRate": "1900", "taxLabel": "USt."})
    silver = await club.add_product("Silver", 1000)
    gold = await club.add_product("Gold", 2500)
    bronze = await club.add_product("Bronze", 500, prorateOnChange=False)

    # Subscribe: incomplete until Stripe says paid.
    subscription_id, session_id = await club.subscribe(silver)
    assert await club.status(subscription_id) == "incomplete"
    shown = (await ledger.user.get(f"/api/my/subscriptions/{subscription_id}")).fields()
    assert shown["payUrl"] == stripe.objects[session_id]["url"]
    assert stripe.objects[session_id]["amount_total"] == 1190
    stripe.pay(session_id)
    assert await club.status(subscription_id) == "incomplete"
    await club.hear()
    assert await club.status(subscription_id) == "active"
    assert await club.bills(subscription_id) == [("INV-2026-0001", "paid", 1190)]
    at_stripe = stripe.subscription_of(session_id)["id"]

    # A renewal is booked.
    await club.pass_days(32)
    await club.hear()
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0002", "paid", 1190)

    # An upgrade with proration: the preview is what is charged.
    await club.pass_days(10)
    preview = await club.preview(subscription_id, gold)
    assert preview["amountDue"] == preview["charge"] - preview["credit"] > 0
    changed = await club.change(subscription_id, gold, prorationDate=preview["prorationDate"])
    assert changed.status == 200, changed.content
    await club.hear()
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0003", "paid", preview["amountDue"])
    assert (await club.books(subscription_id)).product_id == gold

    # A downgrade without: the next renewal has the new price.
    preview = await club.preview(subscription_id, bronze)
    assert preview["amountDue"] == 595
    assert (await club.change(subscription_id, bronze)).status == 200
    await club.hear()
    assert len(await club.bills(subscription_id)) == 3
    await club.pass_days(31)
    await club.hear()
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0004", "paid", 595)

    # A payment fails, and recovers.
    stripe.decline(at_stripe)
    await club.pass_days(31)
    await club.hear()
    assert await club.status(subscription_id) == "past_due"
    assert len(await club.bills(subscription_id)) == 4
    stripe.accept(at_stripe)
    stripe.retry(at_stripe)
    await club.hear()
    assert await club.status(subscription_id) == "active"
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0005", "paid", 595)

    # Cancel, reactivate, cancel, ended.
    at = f"/api/my/subscriptions/{subscription_id}"
    assert (await ledger.user.post(f"{at}/cancel")).body == {"success": True}
    assert (await ledger.user.get(at)).fields()["status"] == "active (cancelling)"
    again = await ledger.user.post(f"{at}/cancel")
    assert (again.status, again.error) == (400, "Already cancelled")
    assert (await ledger.staff.post(f"/api/subscriptions/{subscription_id}/reactivate")).status == 200
    assert await club.status(subscription_id) == "active"
    again = await ledger.staff.post(f"/api/subscriptions/{subscription_id}/reactivate")
    assert (again.status, again.error) == (400, "Subscription is already active")
    assert (await ledger.user.post(f"{at}/cancel")).status == 200
    await club.hear()
    await club.pass_days(32)
    await club.hear()
    assert await club.status(subscription_id) == "cancelled"
    late = await ledger.user.post(f"{at}/reactivate")
    assert late.status == 400
    assert "subscribe again" in late.error
    assert len(await club.bills(subscription_id)) == 5

    events = [row["type"] for row in await ledger.sql("select type from event order by created_at, id")]
    assert events.count("subscription.created") == 1
    assert events.count("subscription.paid") == 5
    assert events.count("invoice.paid") == 5
    assert events.count("subscription.payment_failed") == 1
    assert events.count("subscription.cancelled") == 1
    problems = await ledger.sql("select 1 from inbound_event where state = 'failed'")
    assert problems == []


async def test_a_downgrade_that_gives_back_more_than_it_costs_is_credit_for_later(club: Club) -> None:
    gold, silver = await club.add_product("Gold", 3000), await club.add_product("Silver", 1000)
    subscription_id, _ = await club.member(gold)
    await club.pass_days(10)
    preview = await club.preview(subscription_id, silver)
    assert preview["amountDue"] == 0
    assert preview["credit"] > preview["charge"]
    assert (await club.change(subscription_id, silver)).status == 200
    await club.hear()
    credit = preview["credit"] - preview["charge"]
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0002", "paid", -credit)

    await club.pass_days(22)
    await club.hear()
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0003", "paid", 1000)
    methods = await club.ledger.sql("select method, amount_minor from payment order by created_at, amount_minor")
    assert [row["amount_minor"] for row in methods if row["method"] == "credit_balance"] == [0, min(credit, 1000)]
    received = sum(row["amount_minor"] for row in methods if row["method"] != "credit_balance")
    assert received == sum(intent["amount_received"] for intent in club.stripe.of("payment_intent"))
    stats = (await club.ledger.staff.get("/api/overview/stats")).body["stats"]
    assert [each["value"] for each in stats if each["key"] == "paidThisMonth"] == ["0"]


async def test_one_live_subscription_per_person_and_product(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    again, same = await club.subscribe(silver)
    assert (again, same) == (subscription_id, session_id)
    assert len(club.stripe.of("checkout.session")) == 1
    club.stripe.pay(session_id)
    await club.hear()
    twice = await club.ledger.user.post("/api/my/subscribe", {"productId": silver})
    assert twice.status == 400
    assert "already" in twice.error
    other, _ = await club.subscribe(silver, client=club.ledger.other)
    assert other != subscription_id


async def test_an_abandoned_payment_page_expires_and_disappears(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    assert [row["id"] for row in (await club.ledger.user.get("/api/my/subscriptions")).body["rows"]] == [
        subscription_id
    ]
    await club.pass_days(1.1)
    await club.sweep()
    assert club.stripe.objects[session_id]["status"] == "expired"
    assert (await club.ledger.user.get("/api/my/subscriptions")).body["rows"] == []
    assert await club.ledger.value("select count(*) from event where type like 'subscription.%'") == 0
    anew, another = await club.subscribe(silver)
    assert (anew, another) != (subscription_id, session_id)


async def test_a_bank_debit_that_is_on_its_way_does_not_activate(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id, method="sepa_debit", status="unpaid")
    await club.hear()
    assert await club.status(subscription_id) == "incomplete"
    assert await club.bills(subscription_id) == []
    club.stripe.settle(session_id)
    await club.hear()
    assert await club.status(subscription_id) == "active"
    assert await club.bills(subscription_id) == [("INV-2026-0001", "paid", 1000)]


async def test_a_subscription_stays_with_its_own_provider(club: Club) -> None:
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2000)
    subscription_id, at_stripe = await club.member(silver)
    bank = await add_provider(club.ledger, "manual", "Bank", **IBAN)
    assert (await club.ledger.staff.post(f"/api/providers/{bank}/activate")).status == 200
    new = await club.ledger.user.post("/api/my/subscribe", {"productId": gold})
    assert (new.status, new.error) == (501, "Active provider does not support subscriptions")

    assert (await club.change(subscription_id, gold)).status == 200
    assert (await club.ledger.user.post(f"/api/my/subscriptions/{subscription_id}/cancel")).status == 200
    assert club.stripe.objects[at_stripe]["cancel_at_period_end"] is True
    await club.pass_days(1)
    club.stripe.end(at_stripe)
    await club.hear()
    assert await club.status(subscription_id) == "cancelled"


async def test_what_is_refused_says_why(club: Club) -> None:
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2000)
    swiss = await club.add_product("Swiss", 1000, currency="CHF")
    once = (await club.ledger.staff.post("/api/products", {"name": "T-shirt", "price": 1500, "type": "one-time"})).body
    ask = club.ledger.user
    for product_id, status, sentence in (
        (once["id"], 400, "Only recurring products can be subscribed to"),
        ("018f0000-0000-7000-8000-000000000000", 404, "Product not found or inactive"),
        (None, 400, "productId is required"),
    ):
        body = {} if product_id is None else {"productId": product_id}
        refused = await ask.post("/api/my/subscribe", body)
        assert (refused.status, refused.error) == (status, sentence)
    subscription_id, _ = await club.member(silver)
    for product_id, word in ((silver, "already"), (swiss, "CHF"), (once["id"], "recurring")):
        refused = await club.change(subscription_id, product_id)
        assert refused.status == 400, refused.content
        assert word in refused.error
    assert (await club.ledger.other.get(f"/api/my/subscriptions/{subscription_id}")).status == 404
    await club.ledger.staff.post(f"/api/products/{gold}/toggle")
    assert (await club.change(subscription_id, gold)).status == 404

    await club.ledger.staff.put("/api/settings", {"allowSelfCancel": "false"})
    assert (await ask.post(f"/api/my/subscriptions/{subscription_id}/cancel")).status == 403
    assert (await club.ledger.staff.post(f"/api/subscriptions/{subscription_id}/cancel")).status == 200


async def test_a_declined_card_refuses_the_upgrade_and_changes_nothing(club: Club) -> None:
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2000)
    subscription_id, at_stripe = await club.member(silver)
    club.stripe.decline(at_stripe)
    await club.pass_days(5)
    refused = await club.change(subscription_id, gold)
    assert refused.status == 400, refused.content
    assert "card" in refused.error
    await club.hear()
    assert (await club.books(subscription_id)).product_id == silver
    assert await club.status(subscription_id) == "active"
    assert len(await club.bills(subscription_id)) == 1


async def test_events_of_an_old_api_version_are_understood(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id)
    await club.hear(club.old_news())
    await club.pass_days(32)
    await club.hear(club.old_news())
    assert await club.bills(subscription_id) == [("INV-2026-0001", "paid", 1000), ("INV-2026-0002", "paid", 1000)]


async def test_the_five_published_events_suffice(club: Club) -> None:
    five = {
        "checkout.session.completed",
        "payment_intent.payment_failed",
        "customer.subscription.updated",
        "customer.subscription.deleted",
        "invoice.payment_succeeded",
    }
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id)
    at_stripe = club.stripe.subscription_of(session_id)["id"]
    await club.hear([event for event in club.news() if event["type"] in five])
    assert await club.status(subscription_id) == "active"
    club.stripe.decline(at_stripe)
    await club.pass_days(32)
    await club.hear([event for event in club.news() if event["type"] in five])
    assert await club.status(subscription_id) == "past_due"
    club.stripe.accept(at_stripe)
    club.stripe.retry(at_stripe)
    await club.hear([event for event in club.news() if event["type"] in five])
    assert await club.status(subscription_id) == "active"
    club.stripe.end(at_stripe)
    await club.hear([event for event in club.news() if event["type"] in five])
    assert await club.status(subscription_id) == "cancelled"
    assert [bill[2] for bill in await club.bills(subscription_id)] == [1000, 1000]


async def test_a_payment_of_a_period_can_be_refunded(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, _ = await club.member(silver)
    invoice_id = await club.ledger.value("select invoice_id::text from subscription_period")
    assert (await club.ledger.staff.post(f"/api/invoices/{invoice_id}/refund")).status == 200
    assert await club.bills(subscription_id) == [("INV-2026-0001", "refunded", 1000)]
    assert await club.status(subscription_id) == "active"
