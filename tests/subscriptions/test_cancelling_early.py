"""Cancelling before the first payment was heard of: whoever is told that it worked is not charged for ever."""

from tests.subscriptions.club import Club


async def test_what_is_cancelled_while_its_debit_is_on_the_way_ends_with_its_period(club: Club) -> None:
    """Seen failing (active and going on, after "success") without `_cancel_begun`."""
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id, method="sepa_debit", status="unpaid")
    await club.hear()
    at = f"/api/my/subscriptions/{subscription_id}"
    assert (await club.ledger.user.post(f"{at}/cancel")).status == 200
    assert club.stripe.subscription_of(session_id)["cancel_at_period_end"] is True
    again = await club.ledger.user.post(f"{at}/cancel")
    assert (again.status, again.error) == (400, "Already cancelled")
    anew = await club.ledger.user.post("/api/my/subscribe", {"productId": silver})
    assert "has not arrived yet" in anew.error
    club.stripe.settle(session_id)
    await club.hear()
    assert (await club.ledger.user.get(at)).fields()["status"] == "active (cancelling)"
    await club.pass_days(32)
    await club.hear()
    assert await club.status(subscription_id) == "cancelled"
    assert len(await club.bills(subscription_id)) == 1


async def test_what_is_paid_in_the_moment_it_is_cancelled_ends_with_its_period(club: Club) -> None:
    """Seen failing without `_cancel_begun`."""
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id)
    assert (await club.ledger.user.post(f"/api/my/subscriptions/{subscription_id}/cancel")).status == 200
    assert club.stripe.subscription_of(session_id)["cancel_at_period_end"] is True
    await club.hear()
    shown = await club.ledger.user.get(f"/api/my/subscriptions/{subscription_id}")
    assert shown.fields()["status"] == "active (cancelling)"
