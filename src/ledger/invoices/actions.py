"""What can be done with invoices. Each function is one change in one transaction."""

from datetime import datetime

import msgspec

from ledger.database.transaction import AuditEntry, NewEvent, Tx
from ledger.errors import BadRequest, FieldError, NotFound
from ledger.invoices.rules import (
    InvoiceStatus,
    check_can_cancel,
    check_can_mark_paid,
    invoice_status,
    open_minor,
)
from ledger.invoices.store import Invoice, lock_invoice, update_status
from ledger.payments.rules import check_payment_amount, payment_method
from ledger.payments.store import Payment, insert_payment, list_payment_amounts
from ledger.service_access.store import get_access

MANUAL_PROVIDER = "manual"


class HandPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that somebody records: all but the invoice may be left out."""

    method: str | None = None
    reference: str | None = None
    paid_at: datetime | None = None
    amount_minor: int | None = None


async def mark_invoice_paid(tx: Tx, *, invoice_id: str, service_id: str | None, paid: HandPayment) -> Invoice:
    """Records that money arrived outside of any provider: all that is open, or a part of it.

    Raises `NotFound` (also for a service that may not touch the invoice), `InvoiceAlreadyPaid`,
    `InvoiceCannotBeMarkedPaid`, `PaymentAmountRefused`, `UnknownPaymentMethod`.
    """
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    if service_id is not None:
        await check_service_may_manage(tx, invoice=invoice, service_id=service_id)
    check_can_mark_paid(invoice.status)
    method = payment_method(paid.method)
    if paid.paid_at is not None and paid.paid_at > tx.now:
        sentence = "paidAt is in the future; record the payment when the money is there"
        raise BadRequest(sentence, fields=[FieldError("paidAt", "is in the future")])
    arrived = await list_payment_amounts(tx.connection, invoice_id=invoice.id)
    still_open = open_minor(
        status=invoice.status, total_minor=invoice.total_minor, paid_minor=sum(arrived), refunded_minor=0
    )
    amount_minor = still_open if paid.amount_minor is None else paid.amount_minor
    check_payment_amount(amount_minor=amount_minor, open_minor=still_open, currency=invoice.currency)
    payment = Payment(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        amount_minor=amount_minor,
        currency=invoice.currency,
        provider=MANUAL_PROVIDER,
        method=method.value,
        provider_reference=None,
        reference=paid.reference,
        is_unexpected=False,
        received_at=paid.paid_at or tx.now,
        created_at=tx.now,
    )
    return await record_payment(tx, invoice=invoice, payment=payment, arrived=arrived)


async def record_payment(tx: Tx, *, invoice: Invoice, payment: Payment, arrived: list[int]) -> Invoice:
    """Stores a payment for a locked invoice, and the state that follows from it."""
    await insert_payment(tx.connection, payment=payment)
    status = invoice_status(
        total_minor=invoice.total_minor,
        payments_minor=[*arrived, payment.amount_minor],
        refunded_minor=0,
        is_cancelled=invoice.cancelled_at is not None,
        last_attempt_failed=False,
    )
    became_paid = status is InvoiceStatus.PAID and invoice.status is not InvoiceStatus.PAID
    if status is not invoice.status:
        await update_status(
            tx.connection,
            invoice_id=invoice.id,
            status=status,
            paid_at=payment.received_at if became_paid else None,
        )
    tx.audit(
        AuditEntry(
            action="payment.succeeded",
            entity_type="invoice",
            entity_id=invoice.id,
            details={
                "number": invoice.number,
                "payment": payment.id,
                "amount": payment.amount_minor,
                "currency": payment.currency,
                "method": payment.method,
            },
        )
    )
    changed = msgspec.structs.replace(invoice, status=status)
    if became_paid:
        tx.publish(invoice_event("invoice.paid", changed, amount_minor=payment.amount_minor))
    return changed


async def cancel_invoice(tx: Tx, *, invoice_id: str) -> Invoice:
    """Withdraws an invoice nothing was paid for. Its number stays taken.

    Raises `NotFound`, `CannotCancelPaidInvoice`, `InvoiceAlreadyCancelled`.
    """
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    arrived = await list_payment_amounts(tx.connection, invoice_id=invoice.id)
    check_can_cancel(invoice.status, held_minor=sum(arrived))
    await update_status(tx.connection, invoice_id=invoice.id, status=InvoiceStatus.CANCELLED, cancelled_at=tx.now)
    tx.audit(
        AuditEntry(
            action="invoice.cancelled",
            entity_type="invoice",
            entity_id=invoice.id,
            details={"number": invoice.number},
        )
    )
    changed = msgspec.structs.replace(invoice, status=InvoiceStatus.CANCELLED, cancelled_at=tx.now)
    tx.publish(invoice_event("invoice.cancelled", changed))
    return changed


def invoice_event(kind: str, invoice: Invoice, *, amount_minor: int | None = None) -> NewEvent:
    """The event about an invoice, with what every subscriber gets to know of it."""
    data: dict[str, str | int | bool | None] = {
        "invoiceId": invoice.id,
        "invoiceNumber": invoice.number,
        "status": invoice.status.value,
        "total": invoice.total_minor,
        "currency": invoice.currency,
    }
    if amount_minor is not None:
        data["amount"] = amount_minor
    return NewEvent(type=kind, subject_id=invoice.id, person_id=invoice.person_id, data=data)


async def check_service_may_manage(tx: Tx, *, invoice: Invoice, service_id: str) -> None:
    """Raises `NotFound` when a service may not change this invoice: it does not get to know that it exists."""
    if invoice.created_by_service == service_id:
        return
    if await get_access(tx.connection, service_id=service_id) != "manage":
        raise NotFound("Invoice")
