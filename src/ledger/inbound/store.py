"""SQL for events that providers sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

InboundState = Literal["received", "applied", "ignored", "failed"]

INBOUND_PHRASES: dict[InboundState, str] = {
    "received": "saved, and waiting to be applied",
    "applied": "what it says is in the books",
    "ignored": "Ledger has no use for it",
    "failed": "could not be applied yet; it is tried again for 30 days",
}


class InboundEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it came; `payload` is gone once retention purged it."""

    id: str
    connection_id: str
    remote_id: str
    type: str
    payload: bytes | None
    state: InboundState
    error: str | None
    attempts: int
    sent_at: datetime
    received_at: datetime
    applied_at: datetime | None
    next_try_at: datetime | None


class EventSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is shown: without its payload, which holds personal data. `account` is the connection's name."""

    id: str
    account: str
    remote_id: str
    type: str
    state: InboundState
    error: str | None
    attempts: int
    has_payload: bool
    sent_at: datetime
    received_at: datetime
    applied_at: datetime | None
    next_try_at: datetime | None


_COLUMNS = (
    "id::text, connection_id::text, remote_id, type, payload, state, error, attempts, sent_at, received_at, "
    "applied_at, next_try_at"
)


_SUMMARY = (
    "e.id::text, c.name as account, e.remote_id, e.type, e.state, e.error, e.attempts, "
    "e.payload is not null as has_payload, e.sent_at, e.received_at, e.applied_at, e.next_try_at"
)


def _read(row: asyncpg.Record) -> InboundEvent:
    return InboundEvent(**dict(row))


async def insert_event(connection: Connection, *, event: InboundEvent) -> bool:
    """Saves an event; returns False when it was saved before."""
    status = await connection.execute(
        """
        insert into inbound_event (id, connection_id, remote_id, type, payload, state, error, attempts, sent_at,
            received_at, applied_at, next_try_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (connection_id, remote_id) do nothing
        """,
        *msgspec.structs.astuple(event),
    )
    return status == "INSERT 0 1"


async def is_saved(connection: Connection, *, connection_id: str, remote_id: str) -> bool:
    """Whether an event arrived, or was fetched, before; what another connection to the account applied counts."""
    found: bool = await connection.fetchval(
        """
        select exists (
            select from inbound_event e join provider_connection c on c.id = e.connection_id
            where e.remote_id = $2 and (c.id = $1 or e.state <> 'failed')
        )
        """,
        connection_id,
        remote_id,
    )
    return found


async def get_event(connection: Connection, *, event_id: str) -> InboundEvent:
    """An event. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from inbound_event where id = $1", event_id)
    if row is None:
        raise NotFound("Event")
    return _read(row)


async def lock_event(connection: Connection, *, event_id: str) -> InboundEvent:
    """An event that nobody else applies until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from inbound_event where id = $1 for update", event_id)
    if row is None:
        raise NotFound("Event")
    return _read(row)


async def get_event_summary(connection: Connection, *, event_id: str) -> EventSummary:
    """An event without its payload. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {_SUMMARY} from inbound_event e join provider_connection c on c.id = e.connection_id where e.id = $1",
        event_id,
    )
    if row is None:
        raise NotFound("Event")
    return EventSummary(**dict(row))


async def list_events(
    connection: Connection, *, after: Position | None, limit: int, state: InboundState | None, event_type: str | None
) -> Page[EventSummary]:
    """Events, the newest first."""
    conditions = ["true"]
    values: list[object] = []
    for column, value in (("state", state), ("type", event_type)):
        if value is not None:
            values.append(value)
            conditions.append(f"e.{column} = ${len(values)}")
    matching = " and ".join(conditions)
    found = await connection.fetchval(
        f"select count(*) from (select from inbound_event e where {matching} limit {COUNTED_MAX + 1}) counted",
        *values,
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (e.received_at, e.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"""
        select {_SUMMARY} from inbound_event e join provider_connection c on c.id = e.connection_id
        where {matching} order by e.received_at desc, e.id desc limit ${len(values)}
        """,
        *values,
    )
    events = [EventSummary(**dict(row)) for row in rows[:limit]]
    total, is_more = counted(found)
    last = events[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.received_at, last.id)) if last else None
    return Page(rows=events, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_due_event_ids(connection: Connection, *, now: datetime, limit: int) -> Sequence[str]:
    """The events that wait to be applied, the longest due first."""
    rows = await connection.fetch(
        """
        select id::text from inbound_event
        where state in ('received', 'failed') and next_try_at <= $1 order by next_try_at limit $2
        """,
        now,
        limit,
    )
    return [row["id"] for row in rows]


async def update_event(
    connection: Connection,
    *,
    event_id: str,
    state: InboundState,
    error: str | None,
    attempts: int,
    applied_at: datetime | None,
    next_try_at: datetime | None,
) -> None:
    """Stores what became of an event."""
    await connection.execute(
        """
        update inbound_event set state = $2, error = $3, attempts = $4, applied_at = $5, next_try_at = $6 where id = $1
        """,
        event_id,
        state,
        error,
        attempts,
        applied_at,
        next_try_at,
    )
