"""What is rare and annoying: pages, buttons and other people's events."""

from datetime import timedelta

from tests.subscriptions.club import Club
from tests.work import sweep


async def test_a_member_who_is_past_due_can_pay_with_another_card(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, at_stripe = await club.member(silver)
    club.stripe.decline(at_stripe)
    await club.pass_days(32)
    await club.hear()
    shown = (await club.ledger.user.get(f"/api/my/subscriptions/{subscription_id}")).fields()
    assert shown["status"] == "past_due"
    assert shown["payUrl"] == club.stripe.invoices_of(at_stripe)[-1]["hosted_invoice_url"]
    club.stripe.accept(at_stripe)
    club.stripe.retry(at_stripe)
    await club.hear()
    assert "payUrl" not in (await club.ledger.user.get(f"/api/my/subscriptions/{subscription_id}")).fields()


async def test_a_first_debit_that_failed_can_be_discarded_and_begun_anew(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id, method="sepa_debit", status="unpaid")
    await club.hear()
    club.stripe.fail(session_id)
    await club.hear()
    assert await club.status(subscription_id) == "incomplete"
    at = f"/api/my/subscriptions/{subscription_id}"
    actions = (await club.ledger.user.get(f"{at}/actions")).body["actions"]
    assert [each["label"] for each in actions] == ["Discard"]
    assert (await club.ledger.user.post(actions[0]["endpoint"])).body == {"success": True}
    assert await club.status(subscription_id) == "cancelled"
    assert club.stripe.subscription_of(session_id)["status"] == "canceled"
    anew, _ = await club.subscribe(silver)
    assert anew != subscription_id


async def test_another_installations_events_are_waited_for_and_then_ignored(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    _, session_id = await club.subscribe(silver)
    event = club.stripe.pay(session_id)
    for thing in (event["data"]["object"], club.stripe.objects[session_id]):
        thing["metadata"] = {**thing["metadata"], "intent_id": "018f0000-0000-7000-8000-000000000000"}
    event["data"]["object"]["subscription"] = "sub_elsewhere"
    await club.hear([event])
    states = "select state from inbound_event order by received_at"
    assert [row["state"] for row in await club.ledger.sql(states)] == ["received"]
    for _ in range(30):
        club.ledger.clock.move(timedelta(hours=3))
        await sweep(club.ledger)
    assert [row["state"] for row in await club.ledger.sql(states)] == ["ignored"]


async def test_an_invoice_says_which_period_it_is_for(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    await club.member(silver)
    invoice_id = await club.ledger.value("select invoice_id::text from subscription_period")
    for client, at in ((club.ledger.staff, "/api/invoices"), (club.ledger.user, "/api/my/invoices")):
        assert (await client.get(f"{at}/{invoice_id}")).fields()["period"] == "2026-03-15 to 2026-04-15"


async def test_what_credit_settled_cannot_be_sent_back(club: Club) -> None:
    gold, silver = await club.add_product("Gold", 3000), await club.add_product("Silver", 1000)
    subscription_id, _ = await club.member(gold)
    await club.pass_days(1)
    assert (await club.change(subscription_id, silver)).status == 200
    await club.hear()
    await club.pass_days(32)
    await club.hear()
    invoice_id = await club.ledger.value("select invoice_id::text from payment where amount_minor = 1000")
    refused = await club.ledger.staff.post(f"/api/invoices/{invoice_id}/refund")
    assert refused.status == 400
    assert "from credit" in refused.error
