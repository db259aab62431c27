"""SQL for sending again what was sent before, and for telling a subscriber of what it missed."""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.database.transaction import NewEvent
from ledger.deliveries.store import NewDelivery


class PastEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that can still be sent."""

    id: str
    type: str


async def list_past_events(
    connection: Connection, *, event_types: Collection[str], since: datetime, until: datetime, limit: int
) -> list[PastEvent]:
    """The events of these types in a range of time that were not purged, the oldest first."""
    rows = await connection.fetch(
        """
        select id::text, type from event
        where created_at >= $2 and created_at <= $3 and type = any($1::text[]) and data is not null
        order by created_at, id limit $4
        """,
        list(event_types),
        since,
        until,
        limit,
    )
    return [PastEvent(**dict(row)) for row in rows]


async def has_purged_events(
    connection: Connection, *, event_types: Collection[str], since: datetime, until: datetime
) -> bool:
    """Whether a range of time has events of these types whose content was purged."""
    found: bool = await connection.fetchval(
        """
        select exists (
            select from event where created_at >= $2 and created_at <= $3 and type = any($1::text[]) and data is null
        )
        """,
        list(event_types),
        since,
        until,
    )
    return found


async def upsert_deliveries(connection: Connection, *, deliveries: Sequence[NewDelivery], now: datetime) -> None:
    """Makes deliveries due: those that exist begin anew, the others are made. What is being sent just now stays."""
    await connection.execute(
        """
        insert into webhook_delivery
            (id, event_id, subscriber_id, event_type, status, attempts, next_try_at, created_at)
        select made.*, 'pending', 0, $5::timestamptz, $5::timestamptz
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) as made
        on conflict (event_id, subscriber_id) do update
            set status = 'pending', attempts = 0, next_try_at = $5, claimed_until = null, settled_at = null
            where webhook_delivery.claimed_until is null or webhook_delivery.claimed_until <= $5
        """,
        [each.id for each in deliveries],
        [each.event_id for each in deliveries],
        [each.subscriber_id for each in deliveries],
        [each.event_type for each in deliveries],
        now,
    )


async def update_replayed(connection: Connection, *, delivery_id: str, now: datetime) -> None:
    """Makes one delivery due, with all its attempts before it."""
    await connection.execute(
        """
        update webhook_delivery
        set status = 'pending', attempts = 0, next_try_at = $2, claimed_until = null, settled_at = null
        where id = $1
        """,
        delivery_id,
        now,
    )


async def insert_fanned_event(connection: Connection, *, event_id: str, event: NewEvent, now: datetime) -> None:
    """Stores an event that nobody is told of but by the deliveries made with it."""
    await connection.execute(
        """
        insert into event (id, type, subject_id, person_id, data, created_at, is_fanned_out)
        values ($1, $2, $3, $4, $5, $6, true)
        """,
        event_id,
        event.type,
        event.subject_id,
        event.person_id,
        event.data,
        now,
    )
