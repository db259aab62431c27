"""What members and staff send about subscriptions: subscribing, cancelling, reactivating, changing."""

from datetime import timedelta

import pytest

from tests.api.club import PERIOD_END, open_club, tell_prices
from tests.api.shown import cells
from tests.api.subscribed import GOLD, add_product, add_subscription, ensure_gold
from tests.api.test_subscription_pages import NO_ID, options
from tests.installation import Installation

# Subscribing


async def test_subscribing_leads_to_a_page_and_the_same_key_to_the_same_answer(ledger: Installation) -> None:
    club = await open_club(ledger)
    product = await add_product(ledger)
    await tell_prices(ledger)

    answer = await ledger.user.post("/api/my/subscribe", {"productId": product}, key="once")

    made = answer.body["id"]
    assert (answer.status, answer.body) == (
        200,
        {
            "success": True,
            "id": made,
            "url": f"https://club.example.com/{made}",
            "redirect": f"/my/subscriptions/{made}",
        },
    )
    again = await ledger.user.post("/api/my/subscribe", {"productId": product}, key="once")
    assert (again.status, again.body, again.headers["Idempotent-Replayed"]) == (200, answer.body, "true")
    other_body = await ledger.user.post("/api/my/subscribe", {"productId": GOLD}, key="once")
    assert other_body.status == 422
    # Without a key it is the same page, too.
    assert (await ledger.user.post("/api/my/subscribe", {"productId": product})).body == answer.body
    assert len(club.started) == 1
    shown = (await ledger.user.get(f"/api/my/subscriptions/{made}")).fields()
    assert (shown["status"], shown["payUrl"]) == ("incomplete", answer.body["url"])
    assert options(await ledger.user.get("/api/my/subscribe/form")) != {}
    assert product not in options(await ledger.user.get("/api/my/subscribe/form")).values()


async def test_subscribing_without_a_page_is_done_at_once(ledger: Installation) -> None:
    await open_club(ledger, has_page=False)
    product = await add_product(ledger)
    await tell_prices(ledger)

    answer = await ledger.user.post("/api/my/subscribe", {"productId": product}, key="once")

    assert (answer.status, answer.body) == (201, {"success": True, "id": answer.body["id"]})
    again = await ledger.user.post("/api/my/subscribe", {"productId": product}, key="once")
    assert (again.status, again.body) == (201, answer.body)
    assert (await ledger.user.get(f"/api/my/subscriptions/{answer.body['id']}")).fields()["status"] == "active"
    refused = await ledger.user.post("/api/my/subscribe", {"productId": product})
    assert refused.status == 400
    assert "already" in refused.error


async def test_what_cannot_be_subscribed_to_is_refused_with_the_published_sentences(ledger: Installation) -> None:
    product = await add_product(ledger)
    ticket = {"name": "Ticket", "price": 5000, "type": "one-time"}
    ticket_id = (await ledger.staff.post("/api/products", ticket)).body["id"]
    nowhere = await ledger.user.post("/api/my/subscribe", {"productId": product})
    assert (nowhere.status, nowhere.error) == (501, "No payment provider configured")
    await open_club(ledger)

    async def refusal(body: object) -> tuple[int, str]:
        answer = await ledger.user.post("/api/my/subscribe", body)
        return answer.status, answer.error

    for body in (None, {}, {"productId": ""}, {"productId": None}):
        assert await refusal(body) == (400, "productId is required")
    assert await refusal({"productId": ticket_id}) == (400, "Only recurring products can be subscribed to")
    for unknown in (NO_ID, "../x", "x" * 64):
        assert await refusal({"productId": unknown}) == (404, "Product not found or inactive")
    assert (await refusal({"productId": "x" * 65}))[0] == 400
    assert (await refusal({"productId": 5}))[0] == 400
    await ledger.staff.post(f"/api/products/{product}/toggle")
    assert await refusal({"productId": product}) == (404, "Product not found or inactive")

    cash = (await ledger.staff.post("/api/providers", {"type": "manual", "name": "Cash box"})).body["id"]
    await ledger.staff.put(f"/api/providers/{cash}", {"paymentMethod": "cash"})
    await ledger.staff.post(f"/api/providers/{cash}/activate")
    await ledger.staff.post(f"/api/products/{product}/toggle")
    assert await refusal({"productId": product}) == (501, "Active provider does not support subscriptions")
    assert await ledger.value("select count(*) from subscription") == 0


# Cancelling, reactivating and changing


async def test_a_member_cancels_and_thinks_again(ledger: Installation) -> None:
    club = await open_club(ledger)
    made = await add_subscription(ledger)
    at = f"/api/my/subscriptions/{made}"

    for _ in range(2):
        cancelled = await ledger.user.post(f"{at}/cancel", key="go")
        assert (cancelled.status, cancelled.body) == (200, {"success": True})
    assert (await ledger.user.get(at)).fields()["status"] == "active (cancelling)"
    again = await ledger.user.post(f"{at}/cancel")
    assert (again.status, again.error) == (400, "Already cancelled")

    for _ in range(2):
        reactivated = await ledger.user.post(f"{at}/reactivate", key="stay")
        assert (reactivated.status, reactivated.body) == (200, {"success": True})
    assert (await ledger.user.get(at)).fields()["status"] == "active"
    again = await ledger.user.post(f"{at}/reactivate")
    assert (again.status, again.error) == (400, "Subscription is already active")
    assert club.asked == ["cancel", "reactivate"]
    for wish in ("cancel", "reactivate"):
        assert (await ledger.other.post(f"{at}/{wish}")).error == "Subscription not found"


async def test_staff_cancels_and_reactivates_whatever_members_may(ledger: Installation) -> None:
    club = await open_club(ledger)
    made = await add_subscription(ledger)
    await ledger.staff.put("/api/settings", {"allowSelfCancel": "false"})
    at = f"/api/subscriptions/{made}"

    assert (await ledger.staff.post(f"{at}/cancel")).body == {"success": True}
    assert (await ledger.staff.post(f"{at}/cancel")).error == "Already cancelled"
    assert (await ledger.staff.get(at)).fields()["cancelAtPeriodEnd"] is True
    assert (await ledger.staff.post(f"{at}/reactivate")).body == {"success": True}
    assert (await ledger.staff.post(f"{at}/reactivate")).error == "Subscription is already active"
    assert club.asked == ["cancel", "reactivate"]
    assert cells(await ledger.staff.get(f"{at}/changes"), "wanted") == ["Reactivation", "Cancellation"]


async def test_what_has_ended_says_how_to_have_it_again(ledger: Installation) -> None:
    made = await add_subscription(ledger, status="cancelled")

    answer = await ledger.staff.post(f"/api/subscriptions/{made}/reactivate")

    assert (answer.status, answer.error) == (
        400,
        "This subscription has ended and cannot be reactivated; subscribe again",
    )


@pytest.mark.parametrize("at", ["/api/my/subscriptions", "/api/subscriptions"])
async def test_a_change_is_previewed_and_then_made_as_it_was_shown(ledger: Installation, at: str) -> None:
    club = await open_club(ledger)
    made = await add_subscription(ledger)
    await ensure_gold(ledger)
    await tell_prices(ledger)
    client = ledger.user if "/my/" in at else ledger.staff

    preview = await client.post(f"{at}/{made}/change/preview", {"productId": GOLD}, key="look")

    assert (preview.status, preview.body) == (
        200,
        {
            "amountDue": 700,
            "currency": "EUR",
            "credit": 500,
            "charge": 1200,
            "effectiveAt": "2026-03-15T09:00:00.000Z",
            "lines": [{"description": "Time not used", "amount": -500}, {"description": "Gold", "amount": 1200}],
            "prorationDate": "2026-03-15T09:00:00.000Z",
        },
    )
    assert club.changed == []
    ledger.clock.move(timedelta(minutes=45))
    again = await client.post(f"{at}/{made}/change/preview", {"productId": GOLD}, key="look")
    assert (again.body, again.headers["Idempotent-Replayed"]) == (preview.body, "true")

    body = {"productId": GOLD, "prorationDate": preview.body["prorationDate"]}
    for _ in range(2):
        changed = await client.post(f"{at}/{made}/change", body, key="go")
        assert (changed.status, changed.body) == (200, {"success": True})

    (wanted,) = club.changed
    assert (wanted.prorates, wanted.prorate_at.isoformat()) == (True, "2026-03-15T09:00:00+00:00")
    shown = (await client.get(f"{at}/{made}")).fields()
    assert (shown["product"], shown["price"]) == ("Gold", "24.00 EUR / month")
    assert shown["currentPeriodEnd"] == PERIOD_END.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def test_a_change_that_cannot_be_is_refused_with_its_reason(ledger: Installation) -> None:
    await open_club(ledger)
    product = await add_product(ledger)
    made = await add_subscription(ledger, product_id=product)
    in_dollars = await add_product(ledger, "In dollars", currency="USD")
    ticket = {"name": "Ticket", "price": 5000, "type": "one-time"}
    ticket_id = (await ledger.staff.post("/api/products", ticket)).body["id"]
    await ensure_gold(ledger)
    await tell_prices(ledger)

    for path in ("change", "change/preview"):

        async def refusal(body: object, path: str = path) -> tuple[int, str]:
            answer = await ledger.user.post(f"/api/my/subscriptions/{made}/{path}", body)
            return answer.status, answer.error

        assert await refusal({}) == (400, "productId is required")
        assert await refusal({"productId": NO_ID}) == (404, "Product not found or inactive")
        assert (await refusal({"productId": product}))[1].startswith("This is the product of the subscription already")
        assert "USD" in (await refusal({"productId": in_dollars}))[1]
        assert "recurring" in (await refusal({"productId": ticket_id}))[1]
        for date in ("soon", "", 5, "2026-03-15T09:30:01Z", "2020-01-01"):
            status, sentence = await refusal({"productId": GOLD, "prorationDate": date})
            assert (status, sentence != "") == (400, True), date
    assert await ledger.value("select count(*) from subscription_change") == 0
