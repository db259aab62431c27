"""SQL for payments: facts about money that arrived."""

from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

CREDIT_METHOD = "credit_balance"
"""The method of a payment that was settled from credit at the provider: money that was counted when it arrived."""


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """Money that arrived for an invoice, in minor units of its currency."""

    id: str
    invoice_id: str
    amount_minor: int
    currency: str
    provider: str
    connection_id: str | None
    method: str
    provider_reference: str | None
    reference: str | None
    is_unexpected: bool
    received_at: datetime
    created_at: datetime


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """Money that came or went, as the list shows it: a payment, or a refund with a negative amount."""

    id: str
    invoice_id: str
    invoice_number: str
    amount_minor: int
    currency: str
    status: str
    provider: str
    method: str
    created_at: datetime


async def insert_payment(connection: Connection, *, payment: Payment) -> None:
    """Stores a payment."""
    await connection.execute(
        """
        insert into payment (id, invoice_id, amount_minor, currency, provider, connection_id, method,
            provider_reference, reference, is_unexpected, received_at, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        """,
        *msgspec.structs.astuple(payment),
    )


async def find_payment_by_reference(connection: Connection, *, provider: str, reference: str) -> str | None:
    """The id of the payment the provider knows by this name, or None."""
    payment_id: str | None = await connection.fetchval(
        "select id::text from payment where provider = $1 and provider_reference = $2", provider, reference
    )
    return payment_id


async def list_movements(
    connection: Connection, *, after: Position | None, limit: int, invoice_id: str | None
) -> Page[Movement]:
    """Payments and refunds, newest first. Each kind walks its own index, and the newest of both are taken."""
    values: list[object] = []
    of_invoice = "true"
    if invoice_id is not None:
        values.append(invoice_id)
        of_invoice = "p.invoice_id = $1"
    payments = f"from payment p where {of_invoice}"
    refunds = f"from refund r join payment p on p.id = r.payment_id where {of_invoice}"
    found = await connection.fetchval(
        f"""
        select count(*) from (
            (select {payments} limit {COUNTED_MAX + 1}) union all (select {refunds} limit {COUNTED_MAX + 1})
        ) counted
        """,
        *values,
    )
    if after is not None:
        values += [after.at, after.id]
        place = f"(${len(values) - 1}, ${len(values)})"
        payments += f" and (p.created_at, p.id) < {place}"
        refunds += f" and (r.created_at, r.id) < {place}"
    values.append(limit + 1)
    newest = f"limit ${len(values)}"
    rows = await connection.fetch(
        f"""
        select m.id::text, m.invoice_id::text, i.number as invoice_number, m.amount_minor, m.currency, m.status,
            m.provider, m.method, m.created_at
        from (
            (
                select p.id, p.invoice_id, p.amount_minor, p.currency,
                    case when p.is_unexpected then 'unexpected' else 'succeeded' end as status,
                    p.provider, p.method, p.created_at
                {payments} order by p.created_at desc, p.id desc {newest}
            )
            union all
            (
                select r.id, p.invoice_id, -r.amount_minor, r.currency, r.status, p.provider, p.method, r.created_at
                {refunds} order by r.created_at desc, r.id desc {newest}
            )
        ) m join invoice i on i.id = m.invoice_id
        order by m.created_at desc, m.id desc {newest}
        """,
        *values,
    )
    movements = [Movement(**dict(row)) for row in rows[:limit]]
    total, is_more = counted(found)
    last = movements[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=movements, total=total, total_is_more=is_more, next_cursor=cursor)
