"""SQL for sending deliveries: making, claiming, settling. What staff sees of them is in `listing`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from ledger.database.connection import Connection
from ledger.deliveries.rules import DeliveryStatus

# For how long a process has a delivery to itself. One that was killed is taken over from after this.
CLAIM = timedelta(seconds=30)


class NewDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a subscriber is to be told of."""

    id: str
    event_id: str
    event_type: str
    subscriber_id: str


class ClaimedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that this process alone may send until `claimed_until`. `attempts` were made before."""

    id: str
    event_id: str
    subscriber_id: str
    attempts: int
    next_try_at: datetime
    claimed_until: datetime


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is sent. `user_id` is the person's id at Lanyard; `data` is None once it was purged."""

    id: str
    type: str
    data: Mapping[str, object] | None
    user_id: str | None
    created_at: datetime


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt came to. `status` is the delivery's, `http_status` the answer's; `attempts` counts this one."""

    delivery_id: str
    claimed_until: datetime
    status: DeliveryStatus
    attempts: int
    next_try_at: datetime | None
    settled_at: datetime | None
    http_status: int | None
    error: str | None
    answer: str | None
    started_at: datetime
    duration_ms: int


async def insert_deliveries(connection: Connection, *, deliveries: Sequence[NewDelivery], now: datetime) -> None:
    """Stores deliveries that are due at once. What was made before for the same event and subscriber stays."""
    await connection.execute(
        """
        insert into webhook_delivery
            (id, event_id, subscriber_id, event_type, status, attempts, next_try_at, created_at)
        select made.*, 'pending', 0, $5::timestamptz, $5::timestamptz
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) as made
        on conflict (event_id, subscriber_id) do nothing
        """,
        [each.id for each in deliveries],
        [each.event_id for each in deliveries],
        [each.subscriber_id for each in deliveries],
        [each.event_type for each in deliveries],
        now,
    )


async def claim_deliveries(
    connection: Connection, *, stock: Mapping[str, int], stock_max: int, now: datetime
) -> list[ClaimedDelivery]:
    """Claims what is due, the longest due first: for each active subscriber as many as fill its stock up.

    `stock` is how many this process has claimed already, by subscriber.
    """
    claimed_until = now + CLAIM
    rows = await connection.fetch(
        """
        with due as (
            select found.id
            from webhook_subscriber s
            left join unnest($1::uuid[], $2::int[]) as lane (subscriber_id, stock) on lane.subscriber_id = s.id
            cross join lateral (
                select d.id from webhook_delivery d
                where d.subscriber_id = s.id and d.status = 'pending' and d.next_try_at <= $4
                    and (d.claimed_until is null or d.claimed_until <= $4)
                order by d.next_try_at
                limit greatest(0, $3::int - coalesce(lane.stock, 0))
                for update skip locked
            ) as found
            where s.is_active
        )
        update webhook_delivery d set claimed_until = $5 from due where d.id = due.id
        returning d.id::text, d.event_id::text, d.subscriber_id::text, d.attempts, d.next_try_at, d.claimed_until
        """,
        list(stock),
        list(stock.values()),
        stock_max,
        now,
        claimed_until,
    )
    claimed = [ClaimedDelivery(**dict(row)) for row in rows]
    claimed.sort(key=lambda each: (each.next_try_at, each.event_id))
    return claimed


async def release_deliveries(connection: Connection, *, deliveries: Collection[ClaimedDelivery]) -> None:
    """Gives back what was claimed and not sent, so that nobody has to wait for the claim to lapse."""
    await connection.execute(
        """
        update webhook_delivery d set claimed_until = null
        from unnest($1::uuid[], $2::timestamptz[]) as mine (id, claimed_until)
        where d.id = mine.id and d.claimed_until = mine.claimed_until
        """,
        [each.id for each in deliveries],
        [each.claimed_until for each in deliveries],
    )


async def list_stored_events(connection: Connection, *, event_ids: Collection[str]) -> dict[str, StoredEvent]:
    """Events by their ids, with whom they are about."""
    rows = await connection.fetch(
        """
        select e.id::text, e.type, e.data, p.lanyard_user_id as user_id, e.created_at
        from event e left join person p on p.id = e.person_id
        where e.id = any($1::uuid[])
        """,
        list(event_ids),
    )
    return {row["id"]: StoredEvent(**dict(row)) for row in rows}


async def update_settled(connection: Connection, *, outcomes: Sequence[Outcome]) -> None:
    """Stores what came of attempts, and logs them.

    A delivery that somebody else has claimed since stays as it is, unless it arrived; one that was deleted meanwhile
    is left out.
    """
    await connection.execute(
        """
        with outcome as (
            select * from unnest(
                $1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::timestamptz[], $6::timestamptz[], $7::int[],
                $8::text[], $9::text[], $10::timestamptz[], $11::int[]
            ) as o (
                id, claimed_until, status, attempts, next_try_at, settled_at, http_status, error, answer, started_at,
                duration_ms
            )
        ), settled as (
            update webhook_delivery d set
                status = o.status, attempts = o.attempts, next_try_at = o.next_try_at, settled_at = o.settled_at,
                last_status = o.http_status, last_error = o.error, claimed_until = null
            from outcome o
            where d.id = o.id and d.status = 'pending'
                and (d.claimed_until = o.claimed_until or o.status = 'delivered')
        )
        insert into webhook_attempt (delivery_id, started_at, duration_ms, status, error, answer)
        select o.id, o.started_at, o.duration_ms, o.http_status, o.error, o.answer
        from outcome o join webhook_delivery d on d.id = o.id
        order by o.started_at
        """,
        [each.delivery_id for each in outcomes],
        [each.claimed_until for each in outcomes],
        [each.status.value for each in outcomes],
        [each.attempts for each in outcomes],
        [each.next_try_at for each in outcomes],
        [each.settled_at for each in outcomes],
        [each.http_status for each in outcomes],
        [each.error for each in outcomes],
        [each.answer for each in outcomes],
        [each.started_at for each in outcomes],
        [each.duration_ms for each in outcomes],
    )


async def fail_deliveries_of_disabled(connection: Connection, *, reason: str, now: datetime, limit: int) -> int:
    """Gives up what waits for subscribers that are disabled; returns how many deliveries. Not those being sent."""
    status: str = await connection.execute(
        """
        update webhook_delivery set
            status = 'failed', last_error = $1, next_try_at = null, claimed_until = null, settled_at = $2
        where id in (
            select found.id
            from webhook_subscriber s
            cross join lateral (
                select d.id from webhook_delivery d
                where d.subscriber_id = s.id and d.status = 'pending'
                    and (d.claimed_until is null or d.claimed_until <= $2)
                limit $3
                for update skip locked
            ) as found
            where not s.is_active
            limit $3
        )
        """,
        reason,
        now,
        limit,
    )
    return int(status.removeprefix("UPDATE "))


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subscriber listens at present, and since when it fails there."""

    url: str
    failing_since: datetime | None


async def list_standings(connection: Connection, *, subscriber_ids: Collection[str]) -> dict[str, Standing]:
    """How subscribers are doing; those that are disabled or deleted are missing."""
    rows = await connection.fetch(
        "select id::text, url, failing_since from webhook_subscriber where is_active and id = any($1::uuid[])",
        list(subscriber_ids),
    )
    return {row["id"]: Standing(url=row["url"], failing_since=row["failing_since"]) for row in rows}
