"""`/api/payments`: what arrived."""

from typing import Annotated

from msgspec import Meta

from ledger.money import format_money
from ledger.payments.store import list_movements
from ledger.web.bodies import UUID_PATTERN, NoBody
from ledger.web.call import Call
from ledger.web.operation import STAFF, reads
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Column, Table, iso


class PaymentQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the payment list."""

    invoice_id: Annotated[str, Meta(pattern=UUID_PATTERN)] | None = None


_COLUMNS = (
    Column(key="invoiceId", label="Invoice"),
    Column(key="amount", label="Amount"),
    Column(key="status", label="Status"),
    Column(key="provider", label="Provider"),
    Column(key="method", label="Method"),
    Column(key="createdAt", label="Date", type="date"),
)


@reads("/api/payments", "List payments", callers=STAFF, answer=Table, query=PaymentQuery, errors=(400,))
async def list_all_payments(call: Call[NoBody, PaymentQuery]) -> Table:
    async with call.database.connection() as connection:
        page = await list_movements(
            connection,
            after=read_cursor(call.query.cursor),
            limit=call.query.limit,
            invoice_id=call.query.invoice_id,
        )
    return Table(
        columns=_COLUMNS,
        rows=[
            {
                "id": moved.id,
                "invoiceId": moved.invoice_number,
                "invoice": moved.invoice_id,
                "amount": format_money(moved.amount_minor, moved.currency),
                "status": moved.status,
                "provider": moved.provider,
                "method": moved.method,
                "createdAt": iso(moved.created_at),
            }
            for moved in page.rows
        ],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


operations = [list_all_payments]
