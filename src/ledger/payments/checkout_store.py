"""SQL for checkouts: pages at a provider where an invoice can be paid."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound

CheckoutStatus = Literal["requested", "open", "pending", "paid", "expired", "failed"]

CHECKOUT_PHRASES: dict[CheckoutStatus, str] = {
    "requested": "asked of the provider, whose answer is not known yet",
    "open": "the payer can pay there",
    "pending": "submitted by the payer; the money is on its way",
    "paid": "the provider said that the money arrived",
    "expired": "closed without a payment",
    "failed": "could not be opened, or the money did not come",
}
UNSETTLED: tuple[CheckoutStatus, ...] = ("requested", "open", "pending")


class StoredCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """A checkout for exactly this amount, in minor units."""

    id: str
    invoice_id: str
    connection_id: str
    amount_minor: int
    currency: str
    status: CheckoutStatus
    is_unwanted: bool
    remote_id: str | None
    url: str | None
    error: str | None
    expires_at: datetime | None
    created_at: datetime
    next_look_at: datetime | None
    looks: int


_COLUMNS = (
    "id::text, invoice_id::text, connection_id::text, amount_minor, currency, status, is_unwanted, remote_id, url, "
    "error, expires_at, created_at, next_look_at, looks"
)


def _read(row: asyncpg.Record) -> StoredCheckout:
    return StoredCheckout(**dict(row))


async def insert_checkout(connection: Connection, *, checkout: StoredCheckout) -> None:
    """Stores the wish for a checkout, before the provider is asked."""
    await connection.execute(
        """
        insert into checkout (id, invoice_id, connection_id, amount_minor, currency, status, is_unwanted, remote_id,
            url, error, expires_at, created_at, next_look_at, looks)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        """,
        *msgspec.structs.astuple(checkout),
    )


async def find_usable_checkout(connection: Connection, *, invoice_id: str) -> StoredCheckout | None:
    """The invoice's checkout that is open, or being opened; there is at most one (a unique index sees to it)."""
    row = await connection.fetchrow(
        f"""
        select {_COLUMNS} from checkout
        where invoice_id = $1 and status in ('requested', 'open') and not is_unwanted
        """,
        invoice_id,
    )
    return None if row is None else _read(row)


async def lock_checkout(connection: Connection, *, checkout_id: str) -> StoredCheckout:
    """A checkout that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from checkout where id = $1 for update", checkout_id)
    if row is None:
        raise NotFound("Checkout")
    return _read(row)


async def find_checkout(connection: Connection, *, checkout_id: str) -> StoredCheckout | None:
    """A checkout, or None."""
    row = await connection.fetchrow(f"select {_COLUMNS} from checkout where id = $1", checkout_id)
    return None if row is None else _read(row)


async def get_checkout(connection: Connection, *, checkout_id: str) -> StoredCheckout:
    """A checkout. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from checkout where id = $1", checkout_id)
    if row is None:
        raise NotFound("Checkout")
    return _read(row)


async def find_checkout_by_remote_id(
    connection: Connection, *, connection_id: str, remote_id: str
) -> StoredCheckout | None:
    """The checkout the provider knows by this name, or None.

    It may belong to another connection to the same account, whose events come to both.
    """
    row = await connection.fetchrow(
        f"select {_COLUMNS} from checkout where remote_id = $2 order by connection_id = $1 desc limit 1",
        connection_id,
        remote_id,
    )
    return None if row is None else _read(row)


async def list_unsettled_checkouts(connection: Connection, *, invoice_id: str) -> list[StoredCheckout]:
    """The invoice's checkouts that may still bring money, oldest first."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from checkout where invoice_id = $1 and status = any($2::text[]) order by created_at
        """,
        invoice_id,
        UNSETTLED,
    )
    return [_read(row) for row in rows]


async def list_shown_checkouts(connection: Connection, *, invoice_id: str) -> list[StoredCheckout]:
    """The invoice's checkouts that may still bring money, or that staff has to look at; oldest first, at most ten."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS} from checkout where invoice_id = $1 and (status = any($2::text[]) or error is not null)
        order by created_at limit 10
        """,
        invoice_id,
        UNSETTLED,
    )
    return [_read(row) for row in rows]


async def list_due_checkout_ids(connection: Connection, *, now: datetime, limit: int) -> Sequence[str]:
    """The checkouts the reconciler has to look at now, the longest due first."""
    rows = await connection.fetch(
        """
        select id::text from checkout
        where status in ('requested', 'open', 'pending') and next_look_at <= $1 order by next_look_at limit $2
        """,
        now,
        limit,
    )
    return [row["id"] for row in rows]


async def list_unsettled_checkout_ids(connection: Connection, *, after: str | None, limit: int) -> Sequence[str]:
    """The checkouts that may still bring money, in the order of their ids, after one of them."""
    rows = await connection.fetch(
        """
        select id::text from checkout
        where status in ('requested', 'open', 'pending') and ($1::uuid is null or id > $1) order by id limit $2
        """,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def update_checkout(connection: Connection, *, checkout: StoredCheckout) -> None:
    """Stores what became of a checkout; what it is for does not change."""
    await connection.execute(
        """
        update checkout set status = $2, is_unwanted = $3, remote_id = $4, url = $5, error = $6, expires_at = $7,
            next_look_at = $8, looks = $9
        where id = $1
        """,
        checkout.id,
        checkout.status,
        checkout.is_unwanted,
        checkout.remote_id,
        checkout.url,
        checkout.error,
        checkout.expires_at,
        checkout.next_look_at,
        checkout.looks,
    )


async def update_checkouts_unwanted(connection: Connection, *, invoice_id: str, now: datetime) -> list[str]:
    """Says that nobody shall pay there any more; returns the ids of those to be closed at the provider."""
    rows = await connection.fetch(
        """
        update checkout set is_unwanted = true, next_look_at = $2
        where invoice_id = $1 and status in ('requested', 'open') and not is_unwanted returning id::text
        """,
        invoice_id,
        now,
    )
    return [row["id"] for row in rows]
