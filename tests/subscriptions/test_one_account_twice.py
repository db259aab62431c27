"""Two connections to the same Stripe account, as after a change of keys."""

from ledger.reconciling import reconcile_all
from tests.api.test_providers import _add as add_provider
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET
from tests.subscriptions.club import Club


async def test_what_one_connection_heard_is_not_missed_by_the_other(club: Club) -> None:
    """Seen failing (each event of the day "mended", each night) while only the own connection's events counted."""
    silver = await club.add_product("Silver", 1000)
    await add_provider(club.ledger, "stripe", "Again", secretKey=SECRET_KEY, webhookSecret=WEBHOOK_SECRET)
    await club.member(silver)
    findings = await reconcile_all(club.ledger.services)
    assert (findings.mended, findings.failed) == ([], [])
