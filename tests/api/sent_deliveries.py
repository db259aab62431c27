"""Deliveries with an attempt, stored for a test that does not need to send them."""

from ledger.deliveries.rules import DeliveryStatus
from ledger.deliveries.store import Outcome, claim_deliveries, update_settled
from tests.installation import Installation


async def add_delivery(ledger: Installation, subscriber_id: str) -> str:
    """A test event that a subscriber refused at the first attempt; returns the delivery's id."""
    sent = await ledger.staff.post(f"/api/webhooks/subscribers/{subscriber_id}/test")
    assert sent.status == 200, sent.content
    now = ledger.clock.now()
    async with ledger.services.database.atomically() as connection:
        claimed = await claim_deliveries(connection, stock={}, stock_max=100, now=now)
        (mine,) = [each for each in claimed if each.id == sent.body["id"]]
        outcome = Outcome(
            delivery_id=mine.id,
            claimed_until=mine.claimed_until,
            status=DeliveryStatus.FAILED,
            attempts=1,
            next_try_at=None,
            settled_at=now,
            http_status=500,
            error="It answered 500",
            answer="no thanks",
            started_at=now,
            duration_ms=12,
        )
        await update_settled(connection, outcomes=[outcome])
    return mine.id
