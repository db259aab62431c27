"""What Stripe told while nobody listened, longer ago than it lists its events."""

from ledger.reconciling import reconcile_all
from tests.subscriptions.club import Club


async def test_bills_that_were_missed_long_ago_are_found(club: Club) -> None:
    """Seen failing (the first two are never booked) while bills were looked for in the last 30 days only."""
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id)
    await club.pass_days(70)
    findings = await reconcile_all(club.ledger.services)
    assert findings.failed == []
    assert [bill[1:] for bill in await club.bills(subscription_id)] == [("paid", 1000)] * 3
