"""SQL for bringing products to a provider: how far each connection is, and what it calls products and prices."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.products.rules import SyncState
from ledger.providers.contract import SyncedProduct

ERROR_MAX = 500


class ProductSync(msgspec.Struct, frozen=True, kw_only=True):
    """How far one connection was brought to a product's present version.

    While somebody asks the provider, `claimed_until` is set; if they die, another takes over after it. `attempts`
    counts up with each of them, and starts again whenever the product is to be brought there anew.
    """

    product_id: str
    connection_id: str
    state: SyncState
    synced_version: int | None
    error: str | None
    attempts: int
    next_try_at: datetime | None
    claimed_until: datetime | None
    updated_at: datetime


class DueSync(msgspec.Struct, frozen=True, kw_only=True):
    """A product that the active connection does not have in its present version."""

    product_id: str
    connection_id: str


class RemotePrices(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider calls a product, its present price, and older prices it still offers; None is not known."""

    product_remote_id: str | None
    price_remote_id: str | None
    old_price_remote_ids: Sequence[str]


_COLUMNS = (
    "product_id::text, connection_id::text, state, synced_version, error, attempts, next_try_at, claimed_until, "
    "updated_at"
)


def _read(row: asyncpg.Record) -> ProductSync:
    return ProductSync(**{**dict(row), "state": SyncState(row["state"])})


async def find_sync(connection: Connection, *, product_id: str, connection_id: str) -> ProductSync | None:
    """How far a connection has a product, or None when it was never asked to."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from product_sync where product_id = $1 and connection_id = $2", product_id, connection_id
    )
    return None if row is None else _read(row)


async def lock_sync(connection: Connection, *, product_id: str, connection_id: str) -> ProductSync:
    """The same, which nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from product_sync where product_id = $1 and connection_id = $2 for update",
        product_id,
        connection_id,
    )
    if row is None:
        raise NotFound("Product sync")
    return _read(row)


async def insert_sync(connection: Connection, *, product_id: str, connection_id: str, now: datetime) -> None:
    """Makes the row of a product that a connection was never asked to know, unless there is one."""
    await connection.execute(
        """
        insert into product_sync (product_id, connection_id, state, attempts, next_try_at, updated_at)
        values ($1, $2, 'pending', 0, $3, $3) on conflict do nothing
        """,
        product_id,
        connection_id,
        now,
    )


async def upsert_pending(connection: Connection, *, product_id: str, connection_id: str, now: datetime) -> None:
    """Says that a connection is to be brought to a product's present version. Who asks the provider just now goes on,
    and learns at the end that it has to be done again."""
    await connection.execute(
        """
        insert into product_sync (product_id, connection_id, state, attempts, next_try_at, updated_at)
        values ($1, $2, 'pending', 0, $3, $3)
        on conflict (product_id, connection_id) do update set
            state = 'pending', error = null, attempts = 0, next_try_at = excluded.next_try_at,
            updated_at = excluded.updated_at
        """,
        product_id,
        connection_id,
        now,
    )


async def upsert_all_pending(connection: Connection, *, connection_id: str, now: datetime) -> list[str]:
    """The same for every product that is on sale, or that the connection knows from before. Returns their ids."""
    rows = await connection.fetch(
        """
        insert into product_sync (product_id, connection_id, state, attempts, next_try_at, updated_at)
        select p.id, $1, 'pending', 0, $2, $2 from product p
        where p.is_active or exists (
            select from product_sync s where s.product_id = p.id and s.connection_id = $1
        )
        order by p.id
        on conflict (product_id, connection_id) do update set
            state = 'pending', error = null, attempts = 0, next_try_at = excluded.next_try_at,
            updated_at = excluded.updated_at
        returning product_id::text
        """,
        connection_id,
        now,
    )
    return [row["product_id"] for row in rows]


async def update_sync(connection: Connection, *, sync: ProductSync) -> None:
    """Stores how far a connection has a product."""
    await connection.execute(
        """
        update product_sync set state = $3, synced_version = $4, error = $5, attempts = $6, next_try_at = $7,
            claimed_until = $8, updated_at = $9
        where product_id = $1 and connection_id = $2
        """,
        sync.product_id,
        sync.connection_id,
        sync.state.value,
        sync.synced_version,
        None if sync.error is None else sync.error[:ERROR_MAX],
        sync.attempts,
        sync.next_try_at,
        sync.claimed_until,
        sync.updated_at,
    )


async def list_due_syncs(connection: Connection, *, types: Sequence[str], now: datetime, limit: int) -> list[DueSync]:
    """The products that the active connection, if its type is one of `types`, has to be asked about now.

    It compares what is with what should be, so a product nobody marked (it was stored in the moment in which another
    connection was activated) is found as well.
    """
    rows = await connection.fetch(
        """
        select p.id::text as product_id, c.id::text as connection_id
        from provider_connection c cross join product p
        left join product_sync s on s.product_id = p.id and s.connection_id = c.id
        where c.is_active and c.type = any($1::text[]) and case
            when s.product_id is null then p.is_active
            when s.state = 'synced' then s.synced_version is distinct from p.version
            else s.next_try_at <= $2
        end
        order by s.next_try_at nulls first, p.id limit $3
        """,
        types,
        now,
        limit,
    )
    return [DueSync(**dict(row)) for row in rows]


async def get_remote_prices(
    connection: Connection, *, product_id: str, connection_id: str, price_id: str
) -> RemotePrices:
    """What a connection calls a product and its prices, as far as it is known."""
    rows = await connection.fetch(
        """
        select kind, local_id, remote_id, archived_at from provider_mapping
        where connection_id = $2 and (
            (kind = 'product' and local_id = $1)
            or (kind = 'price' and local_id in (select id::text from product_price where product_id = $1::text::uuid))
        )
        order by created_at, local_id
        """,
        product_id,
        connection_id,
    )
    names = {row["local_id"]: row["remote_id"] for row in rows}
    return RemotePrices(
        product_remote_id=names.get(product_id),
        price_remote_id=names.get(price_id),
        old_price_remote_ids=[
            row["remote_id"]
            for row in rows
            if row["kind"] == "price" and row["local_id"] != price_id and row["archived_at"] is None
        ],
    )


async def upsert_remote_names(
    connection: Connection,
    *,
    connection_id: str,
    product_id: str,
    price_id: str,
    synced: SyncedProduct,
    archived_remote_ids: Sequence[str],
    now: datetime,
) -> None:
    """Remembers what the provider calls a product and its price, and which older prices it no longer offers.

    The last name counts: when somebody deleted the product there, or the connection leads to another account now, the
    provider made a new one.
    """
    await connection.executemany(
        """
        insert into provider_mapping (connection_id, kind, local_id, remote_id, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (connection_id, kind, local_id) do update set
            remote_id = excluded.remote_id, archived_at = null
        where provider_mapping.remote_id <> excluded.remote_id
        """,
        [
            (connection_id, "product", product_id, synced.product_remote_id, now),
            (connection_id, "price", price_id, synced.price_remote_id, now),
        ],
    )
    await connection.execute(
        """
        update provider_mapping set archived_at = $3
        where connection_id = $1 and kind = 'price' and remote_id = any($2::text[]) and archived_at is null
        """,
        connection_id,
        archived_remote_ids,
        now,
    )
