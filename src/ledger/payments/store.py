"""SQL for payments: facts about money that arrived."""

from datetime import datetime

import asyncpg
import msgspec

from ledger.database.transaction import Connection
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Money that arrived for an invoice, in minor units of its currency."""

    id: str
    invoice_id: str
    amount_minor: int
    currency: str
    provider: str
    method: str
    provider_reference: str | None
    reference: str | None
    is_unexpected: bool
    received_at: datetime
    created_at: datetime


class ListedPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as the list shows it, with its invoice's number."""

    payment: Payment
    invoice_number: str


_PAYMENT = (
    "p.id, p.invoice_id, p.amount_minor, p.currency, p.provider, p.method, p.provider_reference, p.reference, "
    "p.is_unexpected, p.received_at, p.created_at"
)


async def insert_payment(connection: Connection, *, payment: Payment) -> None:
    """Stores a payment."""
    await connection.execute(
        """
        insert into payment (id, invoice_id, amount_minor, currency, provider, method, provider_reference, reference,
            is_unexpected, received_at, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        *msgspec.structs.astuple(payment),
    )


async def list_payment_amounts(connection: Connection, *, invoice_id: str) -> list[int]:
    """What arrived for an invoice, in minor units, oldest first."""
    rows = await connection.fetch(
        "select amount_minor from payment where invoice_id = $1 order by created_at, id", invoice_id
    )
    return [row["amount_minor"] for row in rows]


async def list_payments(
    connection: Connection, *, after: Position | None, limit: int, invoice_id: str | None
) -> Page[ListedPayment]:
    """Payments, newest first."""
    values: list[object] = []
    matching = "true"
    if invoice_id is not None:
        values.append(invoice_id)
        matching = "p.invoice_id = $1"
    found = await connection.fetchval(
        f"select count(*) from (select from payment p where {matching} limit {COUNTED_MAX + 1}) counted",
        *values,
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (p.created_at, p.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"""
        select {_PAYMENT}, i.number from payment p join invoice i on i.id = p.invoice_id
        where {matching} order by p.created_at desc, p.id desc limit ${len(values)}
        """,
        *values,
    )
    listed = [ListedPayment(payment=_payment(row), invoice_number=row["number"]) for row in rows[:limit]]
    total, is_more = counted(found)
    last = listed[-1].payment if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=listed, total=total, total_is_more=is_more, next_cursor=cursor)


def _payment(row: asyncpg.Record) -> Payment:
    return Payment(
        id=str(row["id"]),
        invoice_id=str(row["invoice_id"]),
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        provider=row["provider"],
        method=row["method"],
        provider_reference=row["provider_reference"],
        reference=row["reference"],
        is_unexpected=row["is_unexpected"],
        received_at=row["received_at"],
        created_at=row["created_at"],
    )
