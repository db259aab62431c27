"""SQL for refunds."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.payments.refundable import RefundablePayment

RefundStatus = Literal["requested", "succeeded", "failed"]


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money on its way back, in minor units of its payment's currency."""

    id: str
    payment_id: str
    amount_minor: int
    currency: str
    status: RefundStatus
    reason: str | None
    provider_reference: str | None
    failure: str | None
    created_at: datetime
    settled_at: datetime | None
    next_look_at: datetime | None
    looks: int


_COLUMNS = (
    "r.id::text, r.payment_id::text, r.amount_minor, r.currency, r.status, r.reason, r.provider_reference, r.failure, "
    "r.created_at, r.settled_at, r.next_look_at, r.looks"
)


def _read(row: asyncpg.Record) -> Refund:
    return Refund(**dict(row))


async def insert_refund(connection: Connection, *, refund: Refund) -> None:
    """Stores the wish for a refund, before the provider is asked."""
    await connection.execute(
        """
        insert into refund (id, payment_id, amount_minor, currency, status, reason, provider_reference, failure,
            created_at, settled_at, next_look_at, looks)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        *msgspec.structs.astuple(refund),
    )


async def find_refunds(connection: Connection, *, refund_ids: Sequence[str]) -> list[Refund]:
    """The refunds among these ids that exist, in the order of their ids."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from refund r where r.id = any($1::uuid[]) order by r.id", refund_ids
    )
    return [_read(row) for row in rows]


async def get_refund(connection: Connection, *, refund_id: str) -> Refund:
    """A refund. Raises `NotFound`."""
    found = await find_refunds(connection, refund_ids=[refund_id])
    if not found:
        raise NotFound("Refund")
    return found[0]


async def sum_requested(connection: Connection, *, invoice_id: str) -> int:
    """What was asked to go back for an invoice without the provider having acknowledged it, in minor units."""
    requested: int = await connection.fetchval(
        """
        select coalesce(sum(r.amount_minor), 0)::bigint from refund r join payment p on p.id = r.payment_id
        where p.invoice_id = $1 and r.status = 'requested' and r.provider_reference is null
        """,
        invoice_id,
    )
    return requested


async def lock_refund(connection: Connection, *, refund_id: str) -> Refund:
    """A refund that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from refund r where r.id = $1 for update", refund_id)
    if row is None:
        raise NotFound("Refund")
    return _read(row)


async def get_refunded_payment(connection: Connection, *, refund_id: str) -> tuple[str, RefundablePayment]:
    """The invoice's id and the payment that a refund belongs to. Raises `NotFound`."""
    row = await connection.fetchrow(
        """
        select p.invoice_id::text, p.id::text, p.connection_id::text, p.provider, p.provider_reference, p.currency
        from refund r join payment p on p.id = r.payment_id where r.id = $1
        """,
        refund_id,
    )
    if row is None:
        raise NotFound("Refund")
    invoice_id, *payment = row.values()
    fields = ("id", "connection_id", "provider", "provider_reference", "currency")
    return invoice_id, RefundablePayment(**dict(zip(fields, payment, strict=True)), left_minor=0)


class KnownPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that a provider speaks of, and the invoice it was for."""

    id: str
    invoice_id: str
    amount_minor: int
    currency: str


async def find_known_payment(connection: Connection, *, provider: str, remote_id: str) -> KnownPayment | None:
    """The payment that the provider knows by this name; None when it is no payment of ours."""
    row = await connection.fetchrow(
        """
        select id::text, invoice_id::text, amount_minor, currency from payment
        where provider = $1 and provider_reference = $2
        """,
        provider,
        remote_id,
    )
    return None if row is None else KnownPayment(**dict(row))


async def list_refunds_of_payment(connection: Connection, *, payment_id: str) -> list[Refund]:
    """Every refund of a payment, the failed ones too, oldest first."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from refund r where r.payment_id = $1 order by r.created_at, r.id", payment_id
    )
    return [_read(row) for row in rows]


async def list_due_refund_ids(connection: Connection, *, now: datetime, limit: int) -> Sequence[str]:
    """The refunds the reconciler has to look at now, the longest due first."""
    rows = await connection.fetch(
        """
        select id::text from refund where status = 'requested' and next_look_at <= $1 order by next_look_at limit $2
        """,
        now,
        limit,
    )
    return [row["id"] for row in rows]


async def update_refund(connection: Connection, *, refund: Refund) -> None:
    """Stores what became of a refund; what it is for does not change."""
    await connection.execute(
        """
        update refund set status = $2, provider_reference = $3, failure = $4, settled_at = $5, next_look_at = $6,
            looks = $7
        where id = $1
        """,
        refund.id,
        refund.status,
        refund.provider_reference,
        refund.failure,
        refund.settled_at,
        refund.next_look_at,
        refund.looks,
    )
