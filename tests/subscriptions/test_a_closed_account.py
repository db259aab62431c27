"""A Stripe account that Ledger was locked out of."""

from tests.api.test_providers import _add as add_provider
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET
from tests.subscriptions.club import Club
from tests.work import work

ANOTHER_KEY = "sk_test_another1234567"


async def test_an_old_page_of_an_account_that_is_closed_keeps_nobody_from_a_new_one(club: Club) -> None:
    """Seen failing (400 about a secret key, for ever) without `_abandon`."""
    silver = await club.add_product("Silver", 1000)
    await club.subscribe(silver)
    club.stripe.keys.add(ANOTHER_KEY)
    new = await add_provider(club.ledger, "stripe", "New", secretKey=ANOTHER_KEY, webhookSecret=WEBHOOK_SECRET)
    assert (await club.ledger.staff.post(f"/api/providers/{new}/activate")).status == 200
    await work(club.ledger)
    club.stripe.keys.discard(SECRET_KEY)
    early = await club.ledger.user.post("/api/my/subscribe", {"productId": silver})
    assert early.status == 400, early.content
    await club.pass_days(1.1)
    later = await club.ledger.user.post("/api/my/subscribe", {"productId": silver})
    assert later.status == 200, later.content
