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
from ledger.invoices.store import (
    Invoice,
    clear_payment_instructions,
    get_facts,
    lock_invoice,
    update_provider,
    update_status,
)
from ledger.payments.checkouts import close_checkouts
from ledger.payments.rules import check_payment_amount, payment_method
from ledger.payments.store import Payment, insert_payment
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
    facts = await get_facts(tx.connection, invoice_id=invoice.id)
    still_open = open_minor(
        status=invoice.status,
        total_minor=invoice.total_minor,
        paid_minor=facts.paid_minor,
        refunded_minor=facts.refunded_minor,
    )
    amount_minor = still_open if paid.amount_minor is None else paid.amount_minor
    check_payment_amount(amount_minor=amount_minor, open_minor=still_open, currency=invoice.currency)
    payment = Payment(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        amount_minor=amount_minor,
        currency=invoice.currency,
        provider=MANUAL_PROVIDER,
        connection_id=None,
        method=method.value,
        provider_reference=None,
        reference=paid.reference,
        is_unexpected=False,
        received_at=paid.paid_at or tx.now,
        created_at=tx.now,
    )
    changed = await record_payment(tx, invoice=invoice, payment=payment)
    if changed.status is InvoiceStatus.PENDING:
        # The instructions name the amount that was open before; pressing "Pay" writes them anew.
        await clear_payment_instructions(tx.connection, invoice_id=invoice.id)
    # Even a part that arrived another way makes an open checkout wrong: it is over the whole amount.
    await close_checkouts(tx, invoice_id=invoice.id)
    return changed


async def record_payment(tx: Tx, *, invoice: Invoice, payment: Payment) -> Invoice:
    """Stores a payment for a locked invoice, the state that follows from it, and what it means for others."""
    await insert_payment(tx.connection, payment=payment)
    await update_provider(tx.connection, invoice_id=invoice.id, provider=payment.provider)
    changed = await refresh_invoice(tx, invoice, at=payment.received_at)
    details: dict[str, str | int | bool] = {
        "number": invoice.number,
        "payment": payment.id,
        "amount": payment.amount_minor,
        "currency": payment.currency,
        "method": payment.method,
    }
    if payment.is_unexpected:
        details["unexpected"] = True
        tx.publish(unexpected_event(changed, amount_minor=payment.amount_minor, currency=payment.currency))
    if changed.status is InvoiceStatus.PAID and invoice.status is not InvoiceStatus.PAID:
        tx.publish(invoice_event("invoice.paid", changed, amount_minor=payment.amount_minor))
    tx.audit(AuditEntry(action="payment.succeeded", entity_type="invoice", entity_id=invoice.id, details=details))
    return changed


async def refresh_invoice(tx: Tx, invoice: Invoice, *, at: datetime | None = None) -> Invoice:
    """Computes a locked invoice's state anew from its facts and stores it; `at` is when the deciding one came."""
    facts = await get_facts(tx.connection, invoice_id=invoice.id)
    status = invoice_status(
        total_minor=invoice.total_minor,
        payments_minor=facts.payments_minor,
        refunded_minor=facts.refunded_minor,
        is_cancelled=invoice.cancelled_at is not None,
        last_attempt_failed=invoice.failed_at is not None,
    )
    is_settled = status in (InvoiceStatus.PAID, InvoiceStatus.REFUNDED)
    paid_at = (invoice.paid_at or at or tx.now) if is_settled else invoice.paid_at
    if status is not invoice.status or paid_at != invoice.paid_at:
        await update_status(tx.connection, invoice_id=invoice.id, status=status, paid_at=paid_at)
    return msgspec.structs.replace(invoice, status=status, paid_at=paid_at)


async def cancel_invoice(tx: Tx, *, invoice_id: str) -> Invoice:
    """Withdraws an invoice nothing was paid for. Its number stays taken.

    Raises `NotFound`, `CannotCancelPaidInvoice`, `InvoiceAlreadyCancelled`.
    """
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    facts = await get_facts(tx.connection, invoice_id=invoice.id)
    check_can_cancel(invoice.status, held_minor=facts.held_minor)
    await update_status(
        tx.connection,
        invoice_id=invoice.id,
        status=InvoiceStatus.CANCELLED,
        paid_at=invoice.paid_at,
        cancelled_at=tx.now,
    )
    await close_checkouts(tx, invoice_id=invoice.id)
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


def unexpected_event(invoice: Invoice, *, amount_minor: int, currency: str) -> NewEvent:
    """The event about money that an invoice did not ask for, which need not be in its currency."""
    event = invoice_event("payment.unexpected", invoice, amount_minor=amount_minor)
    return msgspec.structs.replace(event, data={**event.data, "amountCurrency": currency})


async def check_service_may_manage(tx: Tx, *, invoice: Invoice, service_id: str) -> None:
    """Raises `NotFound` when a service may not change this invoice: it does not get to know that it exists."""
    if invoice.created_by_service == service_id:
        return
    if await get_access(tx.connection, service_id=service_id) != "manage":
        raise NotFound("Invoice")
