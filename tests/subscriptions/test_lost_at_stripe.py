"""A subscription that Stripe does not know: another account's key, or test data that was deleted."""

from tests.subscriptions.club import Club


async def test_a_cancellation_of_what_stripe_does_not_know_fails_for_good(club: Club) -> None:
    """Seen failing (asked each minute, for ever) while the answer `unknown` was stored like others."""
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2000)
    subscription_id, at_stripe = await club.member(silver)
    del club.stripe.objects[at_stripe]
    at = f"/api/subscriptions/{subscription_id}"
    refused = await club.ledger.staff.post(f"{at}/cancel")
    assert refused.status == 400
    assert "does not know" in refused.error
    assert await club.ledger.value("select status from subscription_change") == "failed"
    assert (await club.ledger.staff.post(f"{at}/change", {"productId": gold})).status == 400
