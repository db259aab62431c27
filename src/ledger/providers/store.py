"""SQL for stored connections, and for what providers call our things."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound

TABLE, COLUMN = "provider_connection", "settings_sealed"
RemoteKind = Literal["product", "price", "customer", "tax_rate"]
CONNECTIONS_MAX = 50
# Any constant will do, as long as every version of Ledger uses the same one.
CONNECTIONS_LOCK = 5_002_002


class StoredConnection(msgspec.Struct, frozen=True, kw_only=True):
    """A connection to a provider; its settings are sealed."""

    id: str
    type: str
    name: str
    is_active: bool
    settings_sealed: bytes | None
    created_at: datetime
    updated_at: datetime
    tested_at: datetime | None = None
    test_result: str | None = None


_COLUMNS = "id::text, type, name, is_active, settings_sealed, created_at, updated_at, tested_at, test_result"


def _read(row: asyncpg.Record) -> StoredConnection:
    return StoredConnection(**dict(row))


async def insert_connection(connection: Connection, *, stored: StoredConnection) -> None:
    """Stores a new connection."""
    await connection.execute(
        """
        insert into provider_connection (id, type, name, is_active, settings_sealed, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        """,
        *msgspec.structs.astuple(stored)[:7],
    )


async def get_connection(connection: Connection, *, connection_id: str, lock: bool = False) -> StoredConnection:
    """A connection; with `lock`, nobody else changes it until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from provider_connection where id = $1" + (" for update" if lock else ""), connection_id
    )
    if row is None:
        raise NotFound("Provider")
    return _read(row)


async def find_active_connection(connection: Connection) -> StoredConnection | None:
    """The active connection, or None."""
    row = await connection.fetchrow(f"select {_COLUMNS} from provider_connection where is_active")
    return None if row is None else _read(row)


async def list_connections(connection: Connection) -> list[StoredConnection]:
    """All connections, the newest first; there are never many."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from provider_connection order by created_at desc, id desc limit $1", CONNECTIONS_MAX
    )
    return [_read(row) for row in rows]


async def count_connections(connection: Connection) -> int:
    """How many connections there are."""
    count: int = await connection.fetchval("select count(*) from provider_connection")
    return count


async def update_connection(
    connection: Connection, *, connection_id: str, name: str, settings_sealed: bytes | None, now: datetime
) -> None:
    """Stores a connection's name and sealed settings."""
    await connection.execute(
        "update provider_connection set name = $2, settings_sealed = $3, updated_at = $4 where id = $1",
        connection_id,
        name,
        settings_sealed,
        now,
    )


async def update_test(connection: Connection, *, connection_id: str, result: str, now: datetime) -> None:
    """Stores how the last test of a connection ended."""
    await connection.execute(
        "update provider_connection set tested_at = $2, test_result = $3 where id = $1", connection_id, now, result
    )


async def lock_connections(connection: Connection) -> None:
    """Lets only one transaction change connections at a time; all begin with it, so none waits in a circle."""
    await connection.execute("select pg_advisory_xact_lock($1)", CONNECTIONS_LOCK)


async def has_business(connection: Connection, *, connection_id: str) -> bool:
    """Whether payments came through a connection, or may still come: its account cannot be exchanged then."""
    found: bool = await connection.fetchval(
        """
        select exists (select from payment where connection_id = $1)
            or exists (
                select from checkout where connection_id = $1 and status in ('requested', 'open', 'pending')
            )
            or exists (select from subscription where connection_id = $1 and status <> 'cancelled')
        """,
        connection_id,
    )
    return found


async def activate_connection(connection: Connection, *, connection_id: str, now: datetime) -> None:
    """Makes one connection the active one. The caller holds `lock_connections`."""
    await connection.execute(
        "update provider_connection set is_active = false, updated_at = $2 where is_active and id <> $1",
        connection_id,
        now,
    )
    await connection.execute(
        "update provider_connection set is_active = true, updated_at = $2 where id = $1", connection_id, now
    )


async def deactivate_connection(connection: Connection, *, connection_id: str, now: datetime) -> None:
    """Leaves no connection active, if it was this one."""
    await connection.execute(
        "update provider_connection set is_active = false, updated_at = $2 where id = $1", connection_id, now
    )


async def find_remote_id(connection: Connection, *, connection_id: str, kind: RemoteKind, local_id: str) -> str | None:
    """What the provider calls a thing of ours, or None when it does not know it."""
    remote_id: str | None = await connection.fetchval(
        "select remote_id from provider_mapping where connection_id = $1 and kind = $2 and local_id = $3",
        connection_id,
        kind,
        local_id,
    )
    return remote_id


async def list_remote_ids(
    connection: Connection, *, connection_id: str, kind: RemoteKind, local_ids: Sequence[str]
) -> dict[str, str]:
    """What the provider calls things of ours; those it does not know are missing."""
    rows = await connection.fetch(
        """
        select local_id, remote_id from provider_mapping
        where connection_id = $1 and kind = $2 and local_id = any($3::text[])
        """,
        connection_id,
        kind,
        local_ids,
    )
    return {row["local_id"]: row["remote_id"] for row in rows}


async def upsert_remote_id(
    connection: Connection, *, connection_id: str, kind: RemoteKind, local_id: str, remote_id: str, now: datetime
) -> None:
    """Remembers what the provider calls a thing of ours. What was deleted or archived there has another name then."""
    await connection.execute(
        """
        insert into provider_mapping (connection_id, kind, local_id, remote_id, created_at) values ($1, $2, $3, $4, $5)
        on conflict (connection_id, kind, local_id) do update set remote_id = excluded.remote_id
        where provider_mapping.remote_id <> excluded.remote_id
        """,
        connection_id,
        kind,
        local_id,
        remote_id,
        now,
    )
