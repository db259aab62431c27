"""What a receiver answers counts for the address it was asked at, and not for one that was entered meanwhile."""

import pytest

from tests.deliveries.telling import Telling
from tests.fakes.receiver import Mode, Receiver


@pytest.mark.parametrize("mode", ["410", "500"])
async def test_a_late_answer_of_the_address_before_is_not_held_against_the_new_one(shop: Telling, mode: Mode) -> None:
    """Seen failing with results that only named their subscriber: the old receiver's 410 disabled the new one."""
    async with Receiver(mode) as old, Receiver() as new:
        old.delay_s = 0.5
        subscribed = await shop.subscribe(old)
        await shop.publish()
        while not old.received:
            await shop.engine_turn()
        answer = await shop.ledger.staff.put(f"/api/webhooks/subscribers/{subscribed.id}", {"url": new.url})
        assert answer.status == 200
        await shop.settle()
        row = await shop.subscriber(subscribed)
        assert (row["is_active"], row["failing_since"]) == (True, None)
        (event_id,) = await shop.tell()
        assert event_id in new.ids
