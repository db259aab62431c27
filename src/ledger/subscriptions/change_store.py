"""SQL for what is wanted of subscriptions, and for the periods that were booked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound

ChangeKind = Literal["change", "cancel", "reactivate"]
ChangeStatus = Literal["requested", "succeeded", "failed"]


class SubscriptionChange(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a subscription; `price_id` is there for a change only. The tax is that of the price."""

    id: str
    subscription_id: str
    kind: ChangeKind
    price_id: str | None
    prorates: bool
    prorate_at: datetime
    tax_rate_bp: int
    tax_label: str
    status: ChangeStatus
    failure: str | None
    created_at: datetime
    settled_at: datetime | None
    next_look_at: datetime | None
    looks: int


class BookedPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's paid bill and the invoice it became."""

    connection_id: str
    remote_id: str
    subscription_id: str
    invoice_id: str
    period_start: datetime
    period_end: datetime
    created_at: datetime


_COLUMNS = (
    "id::text, subscription_id::text, kind, price_id::text, prorates, prorate_at, tax_rate_bp, tax_label, status, "
    "failure, created_at, settled_at, next_look_at, looks"
)


def _read(row: asyncpg.Record) -> SubscriptionChange:
    return SubscriptionChange(**dict(row))


async def insert_change(connection: Connection, *, change: SubscriptionChange) -> None:
    """Stores what is wanted, before the provider is asked."""
    await connection.execute(
        """
        insert into subscription_change (id, subscription_id, kind, price_id, prorates, prorate_at, tax_rate_bp,
            tax_label, status, failure, created_at, settled_at, next_look_at, looks)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        *msgspec.structs.astuple(change),
    )


async def find_open_change(connection: Connection, *, subscription_id: str) -> SubscriptionChange | None:
    """What was wanted of a subscription without the outcome being known; there is at most one."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from subscription_change where subscription_id = $1 and status = 'requested'",
        subscription_id,
    )
    return None if row is None else _read(row)


async def get_change(connection: Connection, *, change_id: str) -> SubscriptionChange:
    """A change. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from subscription_change where id = $1", change_id)
    if row is None:
        raise NotFound("Subscription change")
    return _read(row)


async def lock_change(connection: Connection, *, change_id: str) -> SubscriptionChange:
    """A change that nobody else settles until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from subscription_change where id = $1 for update", change_id)
    if row is None:
        raise NotFound("Subscription change")
    return _read(row)


async def update_change(connection: Connection, *, change: SubscriptionChange) -> None:
    """Stores how a change ended, or when it is looked at next; what was wanted does not change."""
    await connection.execute(
        """
        update subscription_change set status = $2, failure = $3, settled_at = $4, next_look_at = $5, looks = $6
        where id = $1
        """,
        change.id,
        change.status,
        change.failure,
        change.settled_at,
        change.next_look_at,
        change.looks,
    )


async def list_due_change_ids(connection: Connection, *, now: datetime, limit: int) -> Sequence[str]:
    """The changes whose outcome is to be asked for now, the longest due first."""
    rows = await connection.fetch(
        """
        select id::text from subscription_change
        where status = 'requested' and next_look_at <= $1 order by next_look_at limit $2
        """,
        now,
        limit,
    )
    return [row["id"] for row in rows]


async def list_open_change_ids(connection: Connection, *, after: str | None, limit: int) -> Sequence[str]:
    """The changes whose outcome is not known, in the order of their ids, after one of them."""
    rows = await connection.fetch(
        """
        select id::text from subscription_change
        where status = 'requested' and ($1::uuid is null or id > $1) order by id limit $2
        """,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def insert_period(connection: Connection, *, period: BookedPeriod) -> None:
    """Stores that a bill was booked."""
    await connection.execute(
        """
        insert into subscription_period (connection_id, remote_id, subscription_id, invoice_id, period_start,
            period_end, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        *msgspec.structs.astuple(period),
    )


async def list_booked(connection: Connection, *, connection_id: str, remote_ids: Sequence[str]) -> set[str]:
    """Those of a provider's bills that were booked."""
    rows = await connection.fetch(
        "select remote_id from subscription_period where connection_id = $1 and remote_id = any($2::text[])",
        connection_id,
        remote_ids,
    )
    return {row["remote_id"] for row in rows}
