"""`/api/my/invoices`: what a person sees of their own invoices. Somebody else's id is 404."""

from ledger.database.transaction import Connection, Tx
from ledger.errors import CapabilityMissing
from ledger.invoices.bodies import MyInvoiceQuery, PaymentWay
from ledger.invoices.listing import InvoiceFilter, list_invoices
from ledger.invoices.rules import InvoiceNotPayable, check_can_pay
from ledger.invoices.store import Invoice, get_invoice_of, list_lines
from ledger.invoices.views import invoice_fields, lines_table, my_invoice_row
from ledger.payments.store import list_payment_amounts
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import USER, reads, writes
from ledger.web.paging import read_cursor
from ledger.web.shapes import Action, Actions, Column, Detail, Table

_COLUMNS = (
    Column(key="invoiceNumber", label="#"),
    Column(key="status", label="Status"),
    Column(key="amount", label="Amount"),
    Column(key="createdAt", label="Date", type="date"),
)


async def _own(connection: Connection, call: Call[NoBody, NoQuery]) -> Invoice:
    return await get_invoice_of(connection, invoice_id=call.id_of("Invoice"), user_id=call.person.user_id)


@reads(
    "/api/my/invoices",
    "List your invoices",
    callers=USER,
    answer=Table,
    query=MyInvoiceQuery,
    errors=(400,),
)
async def list_my_invoices(call: Call[NoBody, MyInvoiceQuery]) -> Table:
    overdue = call.query.status == "overdue"
    wanted = InvoiceFilter(
        user_id=call.person.user_id,
        status=None if overdue else call.query.status,
        overdue_at=call.services.clock.now() if overdue else None,
    )
    async with call.database.connection() as connection:
        page = await list_invoices(
            connection, wanted=wanted, after=read_cursor(call.query.cursor), limit=call.query.limit
        )
    return Table(
        columns=_COLUMNS,
        rows=[my_invoice_row(invoice) for invoice in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/my/invoices/{id}", "Show one of your invoices", callers=USER, answer=Detail, errors=(404,))
async def show_my_invoice(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        invoice = await _own(connection, call)
        arrived = await list_payment_amounts(connection, invoice_id=invoice.id)
    return Detail(fields=invoice_fields(invoice, paid_minor=sum(arrived), users={}, names={}, is_staff=False))


@reads("/api/my/invoices/{id}/items", "List your invoice's lines", callers=USER, answer=Table, errors=(404,))
async def list_my_invoice_items(call: Call[NoBody, NoQuery]) -> Table:
    async with call.database.connection() as connection:
        invoice = await _own(connection, call)
        lines = await list_lines(connection, invoice_id=invoice.id)
    return lines_table(lines, currency=invoice.currency)


@reads(
    "/api/my/invoices/{id}/actions",
    "List what you can do with your invoice",
    callers=USER,
    answer=Actions,
    errors=(404,),
)
async def list_my_invoice_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        invoice = await _own(connection, call)
    try:
        check_can_pay(invoice.status)
    except InvoiceNotPayable:
        return Actions(actions=[])
    pay = Action(label="Payment Instructions", endpoint=f"/api/my/invoices/{invoice.id}/pay", method="POST")
    return Actions(actions=[pay])


@writes(
    "POST",
    "/api/my/invoices/{id}/pay",
    "Pay your invoice",
    callers=USER,
    answer=PaymentWay,
    errors=(400, 404, 409, 422, 501),
)
async def pay_my_invoice(call: Call[NoBody, NoQuery], tx: Tx) -> PaymentWay:
    invoice = await _own(tx.connection, call)
    check_can_pay(invoice.status)
    raise CapabilityMissing("No payment provider configured")


operations = [
    list_my_invoices,
    show_my_invoice,
    list_my_invoice_items,
    list_my_invoice_actions,
    pay_my_invoice,
]
