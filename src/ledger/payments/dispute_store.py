"""SQL for disputes: a payer asks their bank for the money back, and the bank decides."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
import msgspec

from ledger.database.connection import Connection

DisputeStatus = Literal["needs_response", "under_review", "won", "lost"]

DISPUTE_PHRASES: dict[DisputeStatus, str] = {
    "needs_response": "answer in {provider}",
    "under_review": "answered, and the bank is looking at it",
    "won": "won",
    "lost": "lost, the money went back",
}


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute as the provider reports it; `reason` is in words for a treasurer. `won` and `lost` are final."""

    id: str
    payment_id: str
    remote_id: str
    amount_minor: int
    currency: str
    reason: str
    status: DisputeStatus
    respond_by: datetime | None
    created_at: datetime
    updated_at: datetime


class ShownDispute(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute with the provider (`stripe`) at which it is answered."""

    dispute: Dispute
    provider: str


class OpenDisputes(msgspec.Struct, frozen=True, kw_only=True):
    """How many disputes are open, their sum in minor units of one currency, and how many wait for an answer."""

    count: int
    currency: str
    total_minor: int
    unanswered: int


_COLUMNS = (
    "d.id::text, d.payment_id::text, d.remote_id, d.amount_minor, d.currency, d.reason, d.status, d.respond_by, "
    "d.created_at, d.updated_at"
)


def _read(row: asyncpg.Record) -> Dispute:
    return Dispute(**{name: row[name] for name in Dispute.__struct_fields__})


async def find_dispute(connection: Connection, *, payment_id: str, remote_id: str) -> Dispute | None:
    """The dispute that the provider knows by this name, or None. Who changes it holds the invoice."""
    row = await connection.fetchrow(
        f"select {_COLUMNS} from dispute d where d.payment_id = $1 and d.remote_id = $2", payment_id, remote_id
    )
    return None if row is None else _read(row)


async def insert_dispute(connection: Connection, *, dispute: Dispute) -> None:
    """Stores a dispute."""
    await connection.execute(
        """
        insert into dispute (id, payment_id, remote_id, amount_minor, currency, reason, status, respond_by, created_at,
            updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        """,
        *msgspec.structs.astuple(dispute),
    )


async def update_dispute(connection: Connection, *, dispute: Dispute) -> None:
    """Stores how a dispute stands now."""
    await connection.execute(
        """
        update dispute set amount_minor = $2, currency = $3, reason = $4, status = $5, respond_by = $6, updated_at = $7
        where id = $1
        """,
        dispute.id,
        dispute.amount_minor,
        dispute.currency,
        dispute.reason,
        dispute.status,
        dispute.respond_by,
        dispute.updated_at,
    )


async def list_disputes(connection: Connection, *, invoice_id: str) -> Sequence[ShownDispute]:
    """The disputes about an invoice's payments, oldest first."""
    rows = await connection.fetch(
        f"""
        select {_COLUMNS}, p.provider from dispute d join payment p on p.id = d.payment_id
        where p.invoice_id = $1 order by d.created_at, d.id
        """,
        invoice_id,
    )
    return [ShownDispute(dispute=_read(row), provider=row["provider"]) for row in rows]


async def sum_open_disputes(connection: Connection) -> list[OpenDisputes]:
    """What is disputed and not decided yet, per currency."""
    rows = await connection.fetch(
        """
        select count(*) as count, currency, sum(amount_minor)::bigint as total_minor,
            count(*) filter (where status = 'needs_response') as unanswered
        from dispute where status in ('needs_response', 'under_review') group by currency order by 3 desc
        """
    )
    return [OpenDisputes(**dict(row)) for row in rows]
