"""Stripe gives back unused time whether it was paid for or not; Ledger does not let people live on that."""

from tests.subscriptions.club import Club


async def test_a_period_that_is_not_paid_gives_no_credit(club: Club) -> None:
    """Seen failing (credit of 987.32, active for years) without `check_can_prorate`."""
    year = await club.add_product("Year", 100_000, interval="year")
    silver = await club.add_product("Silver", 1000)
    bronze = await club.add_product("Bronze", 500, prorateOnChange=False, interval="year")
    subscription_id, at_stripe = await club.member(year)
    club.stripe.decline(at_stripe)
    await club.pass_days(366)
    await club.hear()
    assert await club.status(subscription_id) == "past_due"
    at = f"/api/my/subscriptions/{subscription_id}/change"
    for refused in (
        await club.change(subscription_id, silver),
        await club.ledger.user.post(f"{at}/preview", {"productId": silver}),
    ):
        assert refused.status == 400, refused.content
        assert "not paid yet" in refused.error
    await club.hear()
    customer = club.stripe.objects[club.stripe.objects[at_stripe]["customer"]]
    assert customer["balance"] == 0
    assert (await club.books(subscription_id)).product_id == year
    # Without proration nothing is given back.
    assert (await club.change(subscription_id, bronze)).status == 200


async def test_a_bill_that_stripe_is_still_drafting_gives_no_credit(club: Club) -> None:
    """Seen failing (one bill never paid, and active) without `check_can_prorate`."""
    gold, silver = await club.add_product("Gold", 100_000), await club.add_product("Silver", 1000)
    subscription_id, at_stripe = await club.member(gold)
    club.stripe.draft_s = 3600
    club.stripe.decline(at_stripe)
    await club.pass_days(31.01)
    await club.hear()
    assert await club.status(subscription_id) == "active"
    assert (await club.change(subscription_id, silver)).status == 400
    await club.pass_days(0.1)
    await club.hear()
    assert await club.status(subscription_id) == "past_due"
