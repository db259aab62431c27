"""SQL for what staff sees of deliveries: lists that walk an index, newest first, and one with its attempts."""

from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.deliveries.rules import DeliveryStatus
from ledger.errors import NotFound
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as staff sees it. `has_data` is False once retention has purged what its event said.

    `attempts` counts those since it was asked for, by the event or by a replay.
    """

    id: str
    event_id: str
    event_type: str
    subscriber_id: str
    subscriber_name: str
    is_subscriber_active: bool
    status: DeliveryStatus
    attempts: int
    last_status: int | None
    last_error: str | None
    next_try_at: datetime | None
    claimed_until: datetime | None
    created_at: datetime
    settled_at: datetime | None
    has_data: bool

    def is_being_sent(self, *, now: datetime) -> bool:
        """Whether a worker has it in hand just now."""
        return self.status is DeliveryStatus.PENDING and self.claimed_until is not None and self.claimed_until > now


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shall contain; None does not narrow it. `event_type` is one of the catalogue."""

    subscriber_id: str | None = None
    event_type: str | None = None
    status: DeliveryStatus | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to deliver. `answer` is the beginning of what came back."""

    id: int
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    answer: str | None


_COLUMNS = (
    "d.id::text, d.event_id::text, d.event_type, d.subscriber_id::text, s.name as subscriber_name, "
    "s.is_active as is_subscriber_active, d.status, d.attempts, d.last_status, d.last_error, d.next_try_at, "
    "d.claimed_until, d.created_at, d.settled_at"
)


def _read(row: asyncpg.Record) -> DeliveryView:
    return DeliveryView(**{**dict(row), "status": DeliveryStatus(row["status"])})


def _conditions(wanted: DeliveryFilter, values: list[object]) -> str:
    conditions = ["true"]
    if wanted.subscriber_id is not None:
        values.append(wanted.subscriber_id)
        conditions.append(f"d.subscriber_id = ${len(values)}")
    if wanted.event_type is not None:
        values.append(wanted.event_type)
        conditions.append(f"d.event_type = ${len(values)}")
    if wanted.status is not None:
        # Written out, so that the plan knows how many there are of it.
        conditions.append(f"d.status = '{wanted.status.value}'")
    return " and ".join(conditions)


async def list_deliveries(
    connection: Connection, *, wanted: DeliveryFilter, after: Position | None, limit: int
) -> Page[DeliveryView]:
    """Deliveries that match, newest first."""
    values: list[object] = []
    matching = _conditions(wanted, values)
    found = await connection.fetchval(
        f"select count(*) from (select from webhook_delivery d where {matching} limit {COUNTED_MAX + 1}) counted",
        *values,
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (d.created_at, d.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    newest = f"order by d.created_at desc, d.id desc limit ${len(values)}"
    source = "webhook_delivery d join webhook_subscriber s on s.id = d.subscriber_id"
    if wanted == DeliveryFilter(status=wanted.status) and wanted.status is not None:
        # Its index has the subscriber before the time: the newest of each, and of these the newest.
        matching += " and d.subscriber_id = s.id"
        source = (
            f"webhook_subscriber s cross join lateral (select * from webhook_delivery d where {matching} {newest}) d"
        )
        matching = "true"
    rows = await connection.fetch(
        f"select {_COLUMNS}, true as has_data from {source} where {matching} {newest}", *values
    )
    deliveries = [_read(row) for row in rows[:limit]]
    total, is_more = counted(found)
    last = deliveries[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=deliveries, total=total, total_is_more=is_more, next_cursor=cursor)


async def get_delivery(connection: Connection, *, delivery_id: str, lock: bool = False) -> DeliveryView:
    """A delivery; with `lock`, one that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"""
        select {_COLUMNS}, e.data is not null as has_data
        from webhook_delivery d
        join webhook_subscriber s on s.id = d.subscriber_id
        join event e on e.id = d.event_id
        where d.id = $1 {"for no key update of d" if lock else ""}
        """,
        delivery_id,
    )
    if row is None:
        raise NotFound("Delivery")
    return _read(row)


async def list_attempts(
    connection: Connection, *, delivery_id: str, after: Position | None, limit: int
) -> Page[Attempt]:
    """The attempts of a delivery, those before a replay included, newest first."""
    found = await connection.fetchval(
        f"select count(*) from (select from webhook_attempt where delivery_id = $1 limit {COUNTED_MAX + 1}) counted",
        delivery_id,
    )
    rows = await connection.fetch(
        """
        select id, started_at, duration_ms, status, error, answer from webhook_attempt
        where delivery_id = $1 and ($2::timestamptz is null or (started_at, id) < ($2, $3::bigint))
        order by started_at desc, id desc limit $4
        """,
        delivery_id,
        after and after.at,
        after and int(after.id),
        limit + 1,
    )
    attempts = [Attempt(**dict(row)) for row in rows[:limit]]
    total, is_more = counted(found)
    last = attempts[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.started_at, str(last.id))) if last else None
    return Page(rows=attempts, total=total, total_is_more=is_more, next_cursor=cursor)
