"""SQL for subscribers."""

from collections.abc import Collection
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.web.paging import Page, Position, write_cursor
from ledger.webhooks.rules import EVERY_EVENT

TABLE = "webhook_subscriber"
# The columns that hold sealed secrets.
HEADER_SECRET, SIGNING_SECRET = "header_secret_sealed", "signing_secret_sealed"
PREVIOUS_SIGNING_SECRET = "previous_signing_secret_sealed"  # noqa: S105 - the name of a column
# Every event is looked at for each of them.
SUBSCRIBERS_MAX = 200
# Any constant will do, as long as every version of Ledger uses the same one.
SUBSCRIBERS_LOCK = 5_002_005


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told of which events, and where; the secrets are sealed. `events` are names, or `*` alone.

    `failing_since` is when the first of an unbroken row of failures was; `disabled_reason` says why Ledger itself
    disabled it, and is None when staff did.
    """

    id: str
    name: str
    url: str
    events: tuple[str, ...]
    is_active: bool
    header_secret_sealed: bytes
    sends_header_secret: bool
    signing_secret_sealed: bytes
    previous_signing_secret_sealed: bytes | None = None
    previous_signing_until: datetime | None = None
    failing_since: datetime | None = None
    disabled_reason: str | None = None
    created_at: datetime
    updated_at: datetime

    def wants(self, event_type: str) -> bool:
        """Whether it asked for events of this type. Whether it is active is another question."""
        return EVERY_EVENT in self.events or event_type in self.events


_COLUMNS = (
    "id::text, name, url, events, is_active, header_secret_sealed, sends_header_secret, signing_secret_sealed, "
    "previous_signing_secret_sealed, previous_signing_until, failing_since, disabled_reason, created_at, updated_at"
)


def _read(row: asyncpg.Record) -> Subscriber:
    return Subscriber(**{**dict(row), "events": tuple(row["events"])})


async def find_subscriber(connection: Connection, *, subscriber_id: str) -> Subscriber | None:
    """A subscriber, or None."""
    row = await connection.fetchrow(f"select {_COLUMNS} from webhook_subscriber where id = $1", subscriber_id)
    return None if row is None else _read(row)


async def get_subscriber(connection: Connection, *, subscriber_id: str) -> Subscriber:
    """A subscriber. Raises `NotFound`."""
    found = await find_subscriber(connection, subscriber_id=subscriber_id)
    if found is None:
        raise NotFound("Subscriber")
    return found


async def lock_subscriber(connection: Connection, *, subscriber_id: str) -> Subscriber:
    """A subscriber that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from webhook_subscriber where id = $1 for no key update", subscriber_id
    )
    if row is None:
        raise NotFound("Subscriber")
    return _read(row)


async def list_subscribers(connection: Connection, *, after: Position | None, limit: int) -> Page[Subscriber]:
    """Subscribers, newest first."""
    total: int = await connection.fetchval("select count(*) from webhook_subscriber")
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from webhook_subscriber
        where $1::timestamptz is null or (created_at, id) < ($1, $2::uuid)
        order by created_at desc, id desc limit $3
        """,
        after and after.at,
        after and after.id,
        limit + 1,
    )
    listed = [_read(row) for row in rows[:limit]]
    last = listed[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=listed, total=total, total_is_more=False, next_cursor=cursor)


async def list_wanting(connection: Connection, *, event_types: Collection[str]) -> list[Subscriber]:
    """The active subscribers that asked for at least one of these types of events, oldest first."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from webhook_subscriber
        where is_active and events && $1::text[] order by created_at, id limit $2
        """,
        [EVERY_EVENT, *event_types],
        SUBSCRIBERS_MAX,
    )
    return [_read(row) for row in rows]


async def list_subscribers_of(connection: Connection, *, subscriber_ids: Collection[str]) -> dict[str, Subscriber]:
    """Subscribers by their ids; unknown ones are missing."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from webhook_subscriber where id = any($1::uuid[])", list(subscriber_ids)
    )
    return {row["id"]: _read(row) for row in rows}


async def count_subscribers(connection: Connection) -> int:
    """How many subscribers there are; no other is added until the transaction ends."""
    await connection.execute("select pg_advisory_xact_lock($1)", SUBSCRIBERS_LOCK)
    count: int = await connection.fetchval("select count(*) from webhook_subscriber")
    return count


async def insert_subscriber(connection: Connection, *, subscriber: Subscriber) -> None:
    """Stores a new subscriber."""
    await connection.execute(
        """
        insert into webhook_subscriber (
            id, name, url, events, is_active, header_secret_sealed, sends_header_secret, signing_secret_sealed,
            previous_signing_secret_sealed, previous_signing_until, failing_since, disabled_reason, created_at,
            updated_at
        ) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        *_values(subscriber),
    )


async def update_subscriber(connection: Connection, *, subscriber: Subscriber) -> None:
    """Stores a subscriber that the caller holds locked."""
    await connection.execute(
        """
        update webhook_subscriber set name = $2, url = $3, events = $4, is_active = $5, header_secret_sealed = $6,
            sends_header_secret = $7, signing_secret_sealed = $8, previous_signing_secret_sealed = $9,
            previous_signing_until = $10, failing_since = $11, disabled_reason = $12, created_at = $13,
            updated_at = $14
        where id = $1
        """,
        *_values(subscriber),
    )


def _values(subscriber: Subscriber) -> tuple[object, ...]:
    return (
        subscriber.id,
        subscriber.name,
        subscriber.url,
        list(subscriber.events),
        subscriber.is_active,
        subscriber.header_secret_sealed,
        subscriber.sends_header_secret,
        subscriber.signing_secret_sealed,
        subscriber.previous_signing_secret_sealed,
        subscriber.previous_signing_until,
        subscriber.failing_since,
        subscriber.disabled_reason,
        subscriber.created_at,
        subscriber.updated_at,
    )


async def update_failing_since(connection: Connection, *, subscriber_id: str, failing_since: datetime | None) -> None:
    """Notes the first failure of a row of failures, or (None) that a delivery arrived. An earlier failure stays."""
    await connection.execute(
        """
        update webhook_subscriber
        set failing_since = case when $2::timestamptz is null then null else coalesce(failing_since, $2) end
        where id = $1 and (failing_since is null) <> ($2::timestamptz is null)
        """,
        subscriber_id,
        failing_since,
    )


async def delete_subscriber(connection: Connection, *, subscriber_id: str) -> bool:
    """Removes a subscriber with its deliveries and their attempts; tells whether there was one."""
    status: str = await connection.execute("delete from webhook_subscriber where id = $1", subscriber_id)
    return status == "DELETE 1"


async def count_deliveries(connection: Connection, *, subscriber_id: str, limit: int) -> int:
    """How many deliveries a subscriber has, counted to `limit`."""
    count: int = await connection.fetchval(
        "select count(*) from (select from webhook_delivery where subscriber_id = $1 limit $2) counted",
        subscriber_id,
        limit,
    )
    return count


async def delete_some_deliveries(connection: Connection, *, subscriber_id: str, limit: int) -> int:
    """Removes some of a subscriber's deliveries with their attempts; returns how many."""
    status: str = await connection.execute(
        """
        delete from webhook_delivery where id in (
            select id from webhook_delivery where subscriber_id = $1 order by created_at desc, id desc limit $2
        )
        """,
        subscriber_id,
        limit,
    )
    return int(status.removeprefix("DELETE "))


async def delete_expired_secrets(connection: Connection, *, now: datetime) -> int:
    """Forgets signing secrets that were replaced and are valid no longer; returns how many."""
    status: str = await connection.execute(
        """
        update webhook_subscriber set previous_signing_secret_sealed = null, previous_signing_until = null
        where previous_signing_until <= $1
        """,
        now,
    )
    return int(status.removeprefix("UPDATE "))


class LastDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """The newest delivery to a subscriber. `last_status` is the HTTP status of its last attempt."""

    event_type: str
    status: str
    last_status: int | None
    created_at: datetime


async def find_last_delivery(connection: Connection, *, subscriber_id: str) -> LastDelivery | None:
    """The newest delivery to a subscriber, or None when there was none yet."""
    row = await connection.fetchrow(
        """
        select event_type, status, last_status, created_at from webhook_delivery
        where subscriber_id = $1 order by created_at desc, id desc limit 1
        """,
        subscriber_id,
    )
    return None if row is None else LastDelivery(**dict(row))
