"""`/api/my/invoices`: what a person sees of their own invoices. Somebody else's id is 404."""

from ledger.database.connection import Connection
from ledger.invoices.bodies import MyInvoiceQuery, PaymentWay
from ledger.invoices.listing import InvoiceFilter, list_invoices
from ledger.invoices.paying import pay_invoice
from ledger.invoices.payment_view import owner_fields, read_payment_view
from ledger.invoices.rules import InvoiceNotPayable, check_can_pay
from ledger.invoices.store import Invoice, get_facts, get_invoice_of, list_lines
from ledger.invoices.views import invoice_fields, lines_table, my_invoice_row
from ledger.providers.connections import Connections
from ledger.providers.contract import Capability
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.idempotency import claim_resumable
from ledger.web.operation import USER, Reply, acts, completed, encode, reads
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
        facts = await get_facts(connection, invoice_id=invoice.id)
        view = await read_payment_view(connection, call.services.get(Connections), invoice=invoice)
    fields = invoice_fields(invoice, facts=facts, users={}, names={}, is_staff=False)
    return Detail(fields=fields + owner_fields(view, invoice, facts, call.services.settings))


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
        view = await read_payment_view(connection, call.services.get(Connections), invoice=invoice)
    if any(each.status == "pending" for each in view.checkouts):
        return Actions(actions=[])
    try:
        check_can_pay(invoice.status)
    except InvoiceNotPayable:
        return Actions(actions=[])
    has_checkout = view.active is not None and view.active.can(Capability.CHECKOUT)
    pay = Action(
        label="Pay Now" if has_checkout else "Payment Instructions",
        endpoint=f"/api/my/invoices/{invoice.id}/pay",
        method="POST",
    )
    return Actions(actions=[pay])


@acts(
    "POST",
    "/api/my/invoices/{id}/pay",
    "Pay your invoice",
    callers=USER,
    answer=PaymentWay,
    errors=(400, 404, 409, 422, 501, 502, 503),
    description="With a checkout, `url` is where to pay and `redirect` the invoice's page, which links there; "
    "else `message` says how to pay, and is kept on the invoice.",
)
async def pay_my_invoice(call: Call[NoBody, NoQuery]) -> Reply:
    services = call.services
    if call.claim is not None:
        async with call.database.transaction_of(call.caller) as tx:
            # Paying twice has one effect anyhow; the key only makes the second answer equal to the first.
            await claim_resumable(tx.connection, actor=tx.actor, claim=call.claim, now=tx.now)
    way = await pay_invoice(
        call.database,
        services.get(Connections),
        services.settings,
        person=call.person,
        invoice_id=call.id_of("Invoice"),
    )
    answer = encode(
        PaymentWay(url=way.text, redirect=f"/my/invoices/{call.id_of('Invoice')}")
        if way.kind == "checkout"
        else PaymentWay(message=way.text)
    )
    return await completed(call, answer)


operations = [
    list_my_invoices,
    show_my_invoice,
    list_my_invoice_items,
    list_my_invoice_actions,
    pay_my_invoice,
]
