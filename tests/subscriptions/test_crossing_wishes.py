"""Two things at once, about one person's subscriptions."""

from ledger.providers.connections import Connections
from ledger.subscriptions.settling import look_at_subscription
from tests.fakes.stripe_serving import Request
from tests.subscriptions.club import Club


async def test_a_page_for_the_product_that_is_changed_to_meanwhile_is_closed(club: Club) -> None:
    """Seen failing (page open to pay a second time, subscription with the old product) without `_make_room`."""
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2000)
    subscription_id, at_stripe = await club.member(silver)
    pages: list[str] = []

    async def meanwhile(request: Request) -> None:
        if request.method == "POST" and request.path == f"/v1/subscriptions/{at_stripe}":
            club.stripe.on_answer = None
            pages.append((await club.subscribe(gold))[1])

    club.stripe.on_answer = meanwhile
    assert (await club.change(subscription_id, gold)).status == 200
    await club.hear()
    assert [club.stripe.objects[page]["status"] for page in pages] == ["expired"]
    assert (await club.books(subscription_id)).product_id == gold
    assert await club.ledger.value("select problem from subscription where id = $1", subscription_id) is None


async def test_an_answer_that_was_overtaken_is_not_stored(club: Club) -> None:
    """Seen failing with the check of `version` taken out of `look_at_subscription`."""
    silver = await club.add_product("Silver", 1000)
    subscription_id, at_stripe = await club.member(silver)
    services = club.ledger.services

    async def look() -> None:
        await look_at_subscription(services.database, services.get(Connections), subscription_id=subscription_id)

    async def meanwhile(_: Request) -> None:
        club.stripe.on_answer = None
        club.stripe.end(at_stripe)
        await look()

    club.stripe.on_answer = meanwhile
    await look()
    assert await club.status(subscription_id) == "cancelled"
