"""How invoices are shown: the same values in the same words for staff and for their owners."""

from collections.abc import Sequence
from datetime import datetime

from ledger.invoices.rules import open_minor
from ledger.invoices.store import Facts, Invoice, InvoiceLine
from ledger.money import format_decimal, format_money
from ledger.web.shapes import NOTHING, Action, Actions, Column, Field, Row, Table, iso

FORGOTTEN_USER = "(erased)"

LINE_COLUMNS = (
    Column(key="description", label="Description"),
    Column(key="quantity", label="Qty", type="number"),
    Column(key="unitPrice", label="Unit Price"),
    Column(key="total", label="Total"),
)


def user_text(invoice: Invoice, *, users: dict[int, str], names: dict[str, str]) -> str:
    """The buyer's display name; once retention freed the invoice, a word that says so."""
    user_id = users.get(invoice.person_id) if invoice.person_id is not None else None
    return FORGOTTEN_USER if user_id is None else names.get(user_id, user_id)


def invoice_row(invoice: Invoice, *, users: dict[int, str], names: dict[str, str]) -> Row:
    """A row of the staff's list."""
    return {
        "id": invoice.id,
        "invoiceNumber": invoice.number,
        "user": user_text(invoice, users=users, names=names),
        "provider": invoice.provider or NOTHING,
        "status": invoice.status.value,
        "amount": format_money(invoice.total_minor, invoice.currency),
        "createdAt": iso(invoice.created_at),
    }


def my_invoice_row(invoice: Invoice) -> Row:
    """A row of the owner's list."""
    return {
        "id": invoice.id,
        "invoiceNumber": invoice.number,
        "status": invoice.status.value,
        "amount": format_money(invoice.total_minor, invoice.currency),
        "createdAt": iso(invoice.created_at),
    }


def invoice_fields(
    invoice: Invoice, *, facts: Facts, users: dict[int, str], names: dict[str, str], is_staff: bool
) -> list[Field]:
    """The detail view. What is partly paid shows how much is open, what partly went back how much did."""
    currency = invoice.currency
    fields = [Field(key="invoiceNumber", label="Invoice #", value=invoice.number)]
    if is_staff:
        fields.append(Field(key="user", label="User", value=user_text(invoice, users=users, names=names)))
    fields += [
        Field(key="status", label="Status", value=invoice.status.value),
        Field(key="subtotal", label="Subtotal", value=format_money(invoice.subtotal_minor, currency)),
        Field(key="tax", label="Tax", value=format_money(invoice.tax_minor, currency)),
        Field(key="total", label="Total", value=format_money(invoice.total_minor, currency)),
        _date_field("dueDate", "Due Date", invoice.due_at),
        _date_field("paidAt", "Paid At", invoice.paid_at),
        _date_field("createdAt", "Created", invoice.created_at),
    ]
    if is_staff:
        fields.append(Field(key="notes", label="Notes", type="multiline", value=invoice.notes or NOTHING))
    still_open = open_minor(
        status=invoice.status,
        total_minor=invoice.total_minor,
        paid_minor=facts.paid_minor,
        refunded_minor=facts.refunded_minor,
    )
    if facts.refunded_minor:
        fields.append(Field(key="refunded", label="Refunded", value=format_money(facts.refunded_minor, currency)))
    if facts.paid_minor and still_open:
        fields += [
            Field(key="paid", label="Paid So Far", value=format_money(facts.paid_minor, currency)),
            Field(key="open", label="Still Open", value=format_money(still_open, currency)),
        ]
    return fields


def _date_field(key: str, label: str, moment: datetime | None) -> Field:
    """A date; the dash for none is plain text, which the Dashboard would else show as an invalid date."""
    if moment is None:
        return Field(key=key, label=label, value=NOTHING)
    return Field(key=key, label=label, type="date", value=iso(moment))


def lines_table(lines: Sequence[InvoiceLine], *, currency: str) -> Table:
    """An invoice's lines; amounts without the currency's code, which the invoice shows."""
    rows: list[Row] = [
        {
            "id": str(line.position),
            "description": line.description,
            "quantity": line.quantity,
            "unitPrice": format_decimal(line.unit_price_minor, currency),
            "total": format_decimal(line.total_minor, currency),
        }
        for line in lines
    ]
    return Table(columns=LINE_COLUMNS, rows=rows, total=len(rows))


def invoice_actions(invoice: Invoice, available: Sequence[str], *, refundable_minor: int) -> Actions:
    """The staff's buttons for what is possible now; a refund sends back what is left of the payments."""
    at = f"/api/invoices/{invoice.id}"
    amount = format_money(refundable_minor, invoice.currency)
    buttons = {
        "mark-paid": Action(
            label="Mark as Paid",
            endpoint=f"{at}/mark-paid",
            method="POST",
            confirm=f"Record that {invoice.number} was paid?",
        ),
        "cancel": Action(
            label="Cancel",
            endpoint=f"{at}/cancel",
            method="POST",
            variant="danger",
            confirm=f"Cancel {invoice.number}? This cannot be undone.",
        ),
        "refund": Action(
            label="Refund",
            endpoint=f"{at}/refund",
            method="POST",
            variant="danger",
            confirm=f"Send {amount} back for {invoice.number}? This cannot be undone.",
        ),
    }
    return Actions(actions=[buttons[name] for name in available])
