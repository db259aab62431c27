"""`/api/invoices`: for staff, and for services on what they created."""

from collections.abc import Sequence

import msgspec

from ledger.billing_settings.store import SettingsReader
from ledger.database.coalescing import CoalescingReader
from ledger.database.persons import list_user_ids
from ledger.database.transaction import Database, Tx
from ledger.errors import FieldError, NotFound
from ledger.invoices.actions import HandPayment, cancel_invoice, mark_invoice_paid
from ledger.invoices.bodies import (
    CreatedInvoice,
    CreatedInvoices,
    InvoiceQuery,
    InvoiceStatusAnswer,
    NewInvoice,
    NewInvoices,
    PaidByHand,
)
from ledger.invoices.drafting import products_of, want_invoice
from ledger.invoices.listing import InvoiceFilter, list_invoices, list_person_ids
from ledger.invoices.payment_view import read_payment_view, staff_fields
from ledger.invoices.rules import InvoiceRefused, available_actions
from ledger.invoices.store import InvoiceState, IssuedInvoice, get_facts, get_invoice, list_lines, list_states
from ledger.invoices.views import invoice_actions, invoice_fields, invoice_row, lines_table
from ledger.invoices.writer import InvoiceWriter, WantedInvoice
from ledger.payments.refundable import can_refund, list_refundable
from ledger.providers.connections import Connections
from ledger.service_access.store import get_access
from ledger.web.bodies import NoBody, refusal_of
from ledger.web.call import Call, NoQuery
from ledger.web.operation import SERVICE, STAFF, Reply, acts, reads, writes
from ledger.web.paging import read_cursor
from ledger.web.shapes import Actions, Column, Detail, Done, Table, iso


class InvoiceStates(CoalescingReader[str, InvoiceState]):
    """Status polls that arrive together share one query."""

    def __init__(self, database: Database) -> None:
        async def read(invoice_ids: Sequence[str]) -> dict[str, InvoiceState]:
            async with database.connection() as connection:
                return await list_states(connection, invoice_ids=invoice_ids)

        super().__init__(read)


_COLUMNS = (
    Column(key="invoiceNumber", label="#"),
    Column(key="user", label="User"),
    Column(key="provider", label="Provider"),
    Column(key="status", label="Status"),
    Column(key="amount", label="Amount"),
    Column(key="createdAt", label="Created", type="date"),
)
NAMES_MATCHED_MAX = 1_000


@reads(
    "/api/invoices",
    "List all invoices",
    callers=STAFF,
    answer=Table,
    query=InvoiceQuery,
    errors=(400,),
)
async def list_all_invoices(call: Call[NoBody, InvoiceQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        people_named: list[int] = []
        if query.q is not None:
            named = sorted(call.services.names.find_user_ids(query.q))[:NAMES_MATCHED_MAX]
            people_named = await list_person_ids(connection, user_ids=named) if named else []
        wanted = InvoiceFilter(
            status=query.status if query.status != "overdue" else None,
            overdue_at=call.services.clock.now() if query.status == "overdue" else None,
            user_id=query.user_id,
            number=_like(query.q),
            person_ids=people_named,
            created_from=query.from_,
            created_until=query.to,
        )
        page = await list_invoices(connection, wanted=wanted, after=read_cursor(query.cursor), limit=query.limit)
        users = await list_user_ids(
            connection, person_ids={row.person_id for row in page.rows if row.person_id is not None}
        )
    names = await call.services.names.display_names(set(users.values()))
    return Table(
        columns=_COLUMNS,
        rows=[invoice_row(invoice, users=users, names=names) for invoice in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _like(text: str | None) -> str | None:
    """A beginning of an invoice number; what SQL's `like` would take for a wildcard is taken literally."""
    if text is None:
        return None
    upper = text.strip().upper()
    return upper.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


@acts(
    "POST",
    "/api/invoices",
    "Create an invoice",
    callers=STAFF | SERVICE,
    body=NewInvoice,
    answer=CreatedInvoice,
    status=201,
    errors=(400, 409, 422),
    description="The number is taken when the invoice is stored; a refused request consumes none.",
)
async def create_invoice(call: Call[NewInvoice, NoQuery]) -> Reply:
    settings = await call.services.get(SettingsReader).get()
    products = await products_of(call.database, [call.body])
    wanted = want_invoice(call.body, settings, products)
    content = await call.services.get(InvoiceWriter).issue(
        [wanted], caller=call.caller, claim=call.claim, render=_render_one
    )
    return Reply(content=content)


@acts(
    "POST",
    "/api/invoices/batch",
    "Create up to 1000 invoices, all or none",
    callers=STAFF | SERVICE,
    body=NewInvoices,
    answer=CreatedInvoices,
    status=201,
    errors=(400, 409, 422),
    description="The numbers are consecutive, in the order of the list.",
)
async def create_invoices(call: Call[NewInvoices, NoQuery]) -> Reply:
    settings = await call.services.get(SettingsReader).get()
    products = await products_of(call.database, call.body.invoices)
    wanted: list[WantedInvoice] = []
    refused: list[FieldError] = []
    for index, body in enumerate(call.body.invoices):
        try:
            wanted.append(want_invoice(body, settings, products))
        except InvoiceRefused as refusal:
            refused += [FieldError(f"invoices[{index}].{each.field}", each.message) for each in refusal.fields]
    if refused:
        raise refusal_of(refused)
    content = await call.services.get(InvoiceWriter).issue(
        wanted, caller=call.caller, claim=call.claim, render=_render_all
    )
    return Reply(content=content)


def _created(invoice: IssuedInvoice) -> CreatedInvoice:
    return CreatedInvoice(
        id=invoice.id,
        invoice_number=invoice.number,
        status=invoice.status.value,
        subtotal=invoice.draft.subtotal_minor,
        tax=invoice.draft.tax_minor,
        total=invoice.draft.total_minor,
    )


def _render_one(issued: Sequence[IssuedInvoice]) -> bytes:
    return msgspec.json.encode(_created(issued[0]))


def _render_all(issued: Sequence[IssuedInvoice]) -> bytes:
    return msgspec.json.encode(CreatedInvoices(results=[_created(each) for each in issued]))


@reads("/api/invoices/{id}", "Show an invoice", callers=STAFF, answer=Detail, errors=(404,))
async def show_invoice(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        invoice = await get_invoice(connection, invoice_id=call.id_of("Invoice"))
        facts = await get_facts(connection, invoice_id=invoice.id)
        view = await read_payment_view(connection, call.services.get(Connections), invoice=invoice)
        users = await list_user_ids(connection, person_ids={invoice.person_id} if invoice.person_id else set())
    names = await call.services.names.display_names(set(users.values()))
    fields = invoice_fields(invoice, facts=facts, users=users, names=names, is_staff=True)
    return Detail(fields=fields + staff_fields(view, invoice, facts, call.services.settings))


@reads("/api/invoices/{id}/items", "List an invoice's lines", callers=STAFF, answer=Table, errors=(404,))
async def list_invoice_items(call: Call[NoBody, NoQuery]) -> Table:
    async with call.database.connection() as connection:
        invoice = await get_invoice(connection, invoice_id=call.id_of("Invoice"))
        lines = await list_lines(connection, invoice_id=invoice.id)
    return lines_table(lines, currency=invoice.currency)


@reads(
    "/api/invoices/{id}/status",
    "Tell an invoice's status",
    callers=STAFF | SERVICE,
    answer=InvoiceStatusAnswer,
    errors=(404,),
)
async def show_invoice_status(call: Call[NoBody, NoQuery]) -> InvoiceStatusAnswer:
    state = await call.services.get(InvoiceStates).get(call.id_of("Invoice").lower())
    if state is None:
        raise NotFound("Invoice")
    if call.service_id is not None and state.created_by_service != call.service_id:
        async with call.database.connection() as connection:
            if await get_access(connection, service_id=call.service_id) == "own":
                raise NotFound("Invoice")
    return InvoiceStatusAnswer(
        id=state.id,
        status=state.status,  # type: ignore[arg-type] # the database checks that it is one of them
        total=state.total_minor,
        currency=state.currency,
        paid_at=None if state.paid_at is None else iso(state.paid_at),
    )


@reads(
    "/api/invoices/{id}/actions", "List what staff can do with an invoice", callers=STAFF, answer=Actions, errors=(404,)
)
async def list_invoice_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        invoice = await get_invoice(connection, invoice_id=call.id_of("Invoice"))
        facts = await get_facts(connection, invoice_id=invoice.id)
        payments = await list_refundable(connection, invoice_id=invoice.id)
    connections = call.services.get(Connections)
    left_minor = sum(payment.left_minor for payment in payments if can_refund(connections, payment))
    available = available_actions(invoice.status, held_minor=facts.held_minor, provider_can_refund=left_minor > 0)
    return invoice_actions(invoice, available, refundable_minor=left_minor)


@writes(
    "POST",
    "/api/invoices/{id}/mark-paid",
    "Record that an invoice was paid outside of any provider",
    callers=STAFF | SERVICE,
    body=PaidByHand,
    answer=Done,
    is_form=True,
    errors=(400, 404, 409, 422),
)
async def mark_paid(call: Call[PaidByHand, NoQuery], tx: Tx) -> Done:
    await mark_invoice_paid(
        tx,
        invoice_id=call.id_of("Invoice"),
        service_id=call.service_id,
        paid=HandPayment(
            method=call.body.method,
            reference=call.body.reference or None,
            paid_at=call.body.paid_at,
            amount_minor=call.body.amount,
        ),
    )
    return Done()


@writes(
    "POST",
    "/api/invoices/{id}/cancel",
    "Cancel an invoice that was not paid",
    callers=STAFF,
    answer=Done,
    errors=(400, 404, 409, 422),
)
async def cancel(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await cancel_invoice(tx, invoice_id=call.id_of("Invoice"))
    return Done()


operations = [
    list_all_invoices,
    create_invoice,
    create_invoices,
    show_invoice,
    list_invoice_items,
    show_invoice_status,
    list_invoice_actions,
    mark_paid,
    cancel,
]
