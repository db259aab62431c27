"""Somebody archives a tax rate, or deletes a customer, in Stripe's dashboard."""

import pytest

from tests.subscriptions.club import Club


@pytest.mark.parametrize(("kind", "change"), [("tax_rate", {"active": False}), ("customer", {"deleted": True})])
async def test_what_replaces_it_is_made_once(club: Club, kind: str, change: dict[str, bool]) -> None:
    """Seen failing (another one each day) while the first name stayed for ever."""
    await club.ledger.staff.put("/api/settings", {"taxRate": "1900", "taxLabel": "USt."})
    first, second, third = [await club.add_product(f"Plan {number}", 1000) for number in range(3)]
    await club.subscribe(first)
    club.stripe.of(kind)[0].update(change)
    await club.subscribe(second)
    await club.pass_days(2)
    club.stripe.forget_keys()
    await club.subscribe(third)
    assert len(club.stripe.of(kind)) == 2
