"""What staff can do with deliveries. Each function is one change in one transaction."""

from datetime import datetime

from ledger.database.transaction import AuditEntry, NewEvent, Tx
from ledger.deliveries.listing import DeliveryView, get_delivery
from ledger.deliveries.replaying import (
    has_purged_events,
    insert_fanned_event,
    list_past_events,
    update_replayed,
    upsert_deliveries,
)
from ledger.deliveries.store import NewDelivery, insert_deliveries
from ledger.errors import BadRequest, Conflict, FieldError, Gone, RuleBroken
from ledger.events import EVENT_TYPES
from ledger.web.shapes import iso
from ledger.webhooks.store import lock_subscriber

TEST_EVENT = "ping"
REPLAYED_MAX = 10_000


class SubscriberIsDisabled(RuleBroken):
    """Nothing is sent to a disabled subscriber (400)."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The subscriber {name} is disabled; enable it first, then send again")


class IsBeingSent(Conflict):
    """A worker is sending it just now (409)."""

    def __init__(self) -> None:
        super().__init__("This delivery is being sent just now; look again in a few seconds", retry_after_s=15)


class EventPurged(Gone):
    """What the event said was deleted by retention (410)."""

    def __init__(self) -> None:
        super().__init__("What was to be sent was deleted in time, so it cannot be sent again")


class RangeRefused(BadRequest):
    """A range of time that cannot be sent again (400)."""


def check_can_replay(delivery: DeliveryView, *, now: datetime) -> None:
    """Raises `EventPurged`, `SubscriberIsDisabled` or `IsBeingSent` for what cannot be sent again."""
    if not delivery.has_data:
        raise EventPurged
    if not delivery.is_subscriber_active:
        raise SubscriberIsDisabled(delivery.subscriber_name)
    if delivery.is_being_sent(now=now):
        raise IsBeingSent


async def replay_delivery(tx: Tx, *, delivery_id: str) -> None:
    """Has a delivery sent again now, whatever became of it, with all its attempts before it and the same id.

    Raises `NotFound`, `EventPurged`, `SubscriberIsDisabled`, `IsBeingSent`.
    """
    delivery = await get_delivery(tx.connection, delivery_id=delivery_id, lock=True)
    check_can_replay(delivery, now=tx.now)
    await update_replayed(tx.connection, delivery_id=delivery.id, now=tx.now)
    tx.audit(
        AuditEntry(
            action="delivery.replayed",
            entity_type="delivery",
            entity_id=delivery.id,
            details={"event": delivery.event_type, "subscriber": delivery.subscriber_id, "status": delivery.status},
        )
    )


async def replay_range(tx: Tx, *, subscriber_id: str, since: datetime, until: datetime) -> int:
    """Sends a subscriber every event of a range that it asks for, whether it was sent before or not.

    So it also gets what happened while it was disabled, or not there yet. Returns how many events these are. Raises
    `NotFound`, `RangeRefused` for more than 10 000 or a range that ends before it begins, `SubscriberIsDisabled`, and
    `EventPurged` when there were events and all of them are purged.
    """
    if until < since:
        raise RangeRefused("The range ends before it begins", fields=[FieldError("to", "must not be before from")])
    # Locked before its deliveries, as by everybody who locks both.
    subscriber = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    if not subscriber.is_active:
        raise SubscriberIsDisabled(subscriber.name)
    # Tests are for one subscriber each, and have had their time.
    wanted = [name for name in EVENT_TYPES if name != TEST_EVENT and subscriber.wants(name)]
    events = await list_past_events(tx.connection, event_types=wanted, since=since, until=until, limit=REPLAYED_MAX + 1)
    if len(events) > REPLAYED_MAX:
        raise RangeRefused(
            f"The range has more than {REPLAYED_MAX} events; send it again in shorter parts",
            fields=[FieldError("to", f"must leave at most {REPLAYED_MAX} events in the range")],
        )
    if not events and await has_purged_events(tx.connection, event_types=wanted, since=since, until=until):
        raise EventPurged
    deliveries = [
        NewDelivery(id=tx.ids.new(), event_id=event.id, event_type=event.type, subscriber_id=subscriber.id)
        for event in events
    ]
    await upsert_deliveries(tx.connection, deliveries=deliveries, now=tx.now)
    tx.audit(
        AuditEntry(
            action="subscriber.replayed",
            entity_type="subscriber",
            entity_id=subscriber.id,
            details={"from": iso(since), "to": iso(until), "count": len(events)},
        )
    )
    return len(events)


async def send_test(tx: Tx, *, subscriber_id: str) -> str:
    """Sends a subscriber an event `ping`, and nobody else; returns the delivery's id.

    Raises `NotFound`, `SubscriberIsDisabled`.
    """
    subscriber = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    if not subscriber.is_active:
        raise SubscriberIsDisabled(subscriber.name)
    delivery = NewDelivery(id=tx.ids.new(), event_id=tx.ids.new(), event_type=TEST_EVENT, subscriber_id=subscriber.id)
    event = NewEvent(type=TEST_EVENT, subject_id=subscriber.id, person_id=None, data={"subscriberId": subscriber.id})
    await insert_fanned_event(tx.connection, event_id=delivery.event_id, event=event, now=tx.now)
    await insert_deliveries(tx.connection, deliveries=[delivery], now=tx.now)
    tx.audit(
        AuditEntry(
            action="subscriber.tested",
            entity_type="subscriber",
            entity_id=subscriber.id,
            details={"delivery": delivery.id},
        )
    )
    return delivery.id
