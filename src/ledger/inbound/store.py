"""SQL for events that providers sent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound

InboundState = Literal["received", "applied", "ignored", "failed"]

INBOUND_PHRASES: dict[InboundState, str] = {
    "received": "saved, and waiting to be applied",
    "applied": "what it says is in the books",
    "ignored": "Ledger has no use for it",
    "failed": "could not be applied yet; it is tried again",
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


_COLUMNS = (
    "id::text, connection_id::text, remote_id, type, payload, state, error, attempts, sent_at, received_at, "
    "applied_at, next_try_at"
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
