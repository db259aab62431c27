"""What providers say about checkouts and payments, brought into the books. Doing it twice changes nothing."""

from datetime import datetime

import msgspec

from ledger.database.transaction import AuditEntry, NewEvent, NewJob, Tx
from ledger.invoices.actions import invoice_event, record_payment, refresh_invoice
from ledger.invoices.rules import InvoiceStatus
from ledger.invoices.store import Invoice, lock_invoice, update_failed_at
from ledger.money import format_money
from ledger.payments.checkout_store import (
    StoredCheckout,
    find_checkout_by_remote_id,
    get_checkout,
    list_unsettled_checkouts,
    lock_checkout,
    update_checkout,
)
from ledger.payments.checkouts import SETTLE_JOB, close_checkouts
from ledger.payments.looks import next_look
from ledger.payments.store import Payment, find_payment_by_reference
from ledger.providers.contract import CheckoutState, MoneyArrived, ProviderRefused


async def find_checkout_of_event(
    tx: Tx, *, connection_id: str, remote_id: str, intent_id: str | None
) -> StoredCheckout | None:
    """The checkout an event is about. One whose opening was never acknowledged is found by the intent."""
    found = await find_checkout_by_remote_id(tx.connection, connection_id=connection_id, remote_id=remote_id)
    if found is not None or intent_id is None:
        return found
    known = await tx.connection.fetchval("select true from checkout where id = $1::uuid", intent_id)
    if not known:
        return None
    checkout = await get_checkout(tx.connection, checkout_id=intent_id)
    if checkout.connection_id != connection_id or checkout.remote_id not in (None, remote_id):
        return None
    named = msgspec.structs.replace(checkout, remote_id=remote_id)
    await update_checkout(tx.connection, checkout=named)
    return named


async def settle_checkout(tx: Tx, *, checkout_id: str, provider: str, state: CheckoutState) -> None:
    """Stores where a checkout stands, and books the payment it brought.

    Raises `ProviderRefused` when the payment is not over the checkout's amount and currency: then nothing is booked.
    """
    invoice_id = (await get_checkout(tx.connection, checkout_id=checkout_id)).invoice_id
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    before = await lock_checkout(tx.connection, checkout_id=checkout_id)
    after = _advanced(before, state, now=tx.now)
    if after != before:
        await update_checkout(tx.connection, checkout=after)
    if state.status == "paid" and state.payment is not None:
        await _book(tx, invoice, before, state.payment, provider=provider)
    elif after.status == "failed" and before.status != "failed":
        await _fail(tx, invoice, failed_at=tx.now, reason=None)
    if after.is_unwanted and after.status == "open" and before.status == "requested":
        # It was not wanted any more before it was known to be open.
        tx.defer(NewJob(name=SETTLE_JOB, payload=checkout_id.encode()))


def _advanced(checkout: StoredCheckout, state: CheckoutState, *, now: datetime) -> StoredCheckout:
    """The checkout with what the provider says. What is paid stays paid, whatever comes late."""
    if checkout.status == "paid":
        return checkout
    if state.status == "unknown":
        # The provider never heard of it, so nobody can have paid there.
        return msgspec.structs.replace(checkout, status="failed", next_look_at=None)
    looks = checkout.looks + 1
    settled = state.status in ("paid", "expired", "failed")
    opened = state.checkout
    return msgspec.structs.replace(
        checkout,
        status=state.status,
        remote_id=opened.remote_id if opened else checkout.remote_id,
        url=opened.url if opened else checkout.url,
        expires_at=opened.expires_at if opened else checkout.expires_at,
        looks=looks,
        next_look_at=None if settled else next_look(now=now, looks=looks),
    )


async def _book(tx: Tx, invoice: Invoice, checkout: StoredCheckout, money: MoneyArrived, *, provider: str) -> None:
    if await find_payment_by_reference(tx.connection, provider=provider, reference=money.remote_id) is not None:
        return
    if (money.amount_minor, money.currency) != (checkout.amount_minor, checkout.currency):
        raise ProviderRefused(
            f"The provider reports {format_money(money.amount_minor, money.currency)} for {invoice.number}, but "
            f"{format_money(checkout.amount_minor, checkout.currency)} was asked for; look at the payment there"
        )
    is_unexpected = invoice.status not in (InvoiceStatus.PENDING, InvoiceStatus.FAILED)
    payment = Payment(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        amount_minor=money.amount_minor,
        currency=money.currency,
        provider=provider,
        connection_id=checkout.connection_id,
        method=money.method,
        provider_reference=money.remote_id,
        reference=None,
        is_unexpected=is_unexpected,
        received_at=money.received_at,
        created_at=tx.now,
    )
    changed = await record_payment(tx, invoice=invoice, payment=payment)
    if not is_unexpected:
        tx.publish(provider_event("subscription.paid", changed, reference=money.remote_id))
    await close_checkouts(tx, invoice_id=invoice.id)


async def fail_attempt(
    tx: Tx,
    *,
    invoice_id: str,
    connection_id: str,
    checkout_remote_id: str | None,
    failed_at: datetime,
    reason: str | None,
) -> None:
    """Notes that an attempt to pay failed, unless a newer attempt is under way or the invoice is settled."""
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    checkouts = await list_unsettled_checkouts(tx.connection, invoice_id=invoice.id)
    newer = [
        each
        for each in checkouts
        if each.connection_id == connection_id
        and each.created_at > failed_at
        and each.remote_id != checkout_remote_id
        and not each.is_unwanted
    ]
    if not newer:
        await _fail(tx, invoice, failed_at=failed_at, reason=reason)


async def _fail(tx: Tx, invoice: Invoice, *, failed_at: datetime, reason: str | None) -> None:
    if invoice.status is not InvoiceStatus.PENDING:
        return
    await update_failed_at(tx.connection, invoice_id=invoice.id, failed_at=failed_at)
    changed = await refresh_invoice(tx, msgspec.structs.replace(invoice, failed_at=failed_at))
    tx.audit(
        AuditEntry(
            action="payment.failed",
            entity_type="invoice",
            entity_id=invoice.id,
            details={"number": invoice.number, "reason": reason},
        )
    )
    tx.publish(invoice_event("invoice.payment_failed", changed))
    tx.publish(provider_event("subscription.payment_failed", changed, reference=None))


def provider_event(kind: str, invoice: Invoice, *, reference: str | None) -> NewEvent:
    """The published event about money moved by a provider, one-off payments included."""
    return NewEvent(
        type=kind,
        subject_id=invoice.id,
        person_id=invoice.person_id,
        data={"invoiceId": invoice.id, "subscriptionId": None, "providerRef": reference},
    )
