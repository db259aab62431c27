"""What providers say about checkouts and payments, brought into the books. Doing it twice changes nothing."""

from datetime import datetime

import msgspec

from ledger.database.transaction import AuditEntry, NewEvent, NewJob, Tx
from ledger.ids import is_id
from ledger.invoices.actions import invoice_event, record_payment, refresh_invoice, unexpected_event
from ledger.invoices.rules import InvoiceStatus, open_minor
from ledger.invoices.store import Invoice, get_facts, lock_invoice, update_failed_at
from ledger.money import format_money
from ledger.payments.checkout_store import (
    StoredCheckout,
    find_checkout,
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
    if found is not None or intent_id is None or not is_id(intent_id):
        return found
    checkout = await find_checkout(tx.connection, checkout_id=intent_id)
    if checkout is None or checkout.connection_id != connection_id or checkout.remote_id not in (None, remote_id):
        return None
    return checkout


async def settle_checkout(
    tx: Tx, *, checkout_id: str, provider: str, state: CheckoutState, remote_id: str | None = None
) -> None:
    """Stores where a checkout stands, and books the payment it brought.

    Money over another amount or currency is never booked as a payment: it is announced, and kept with the checkout
    for staff to look at.
    """
    invoice_id = (await get_checkout(tx.connection, checkout_id=checkout_id)).invoice_id
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    before = await lock_checkout(tx.connection, checkout_id=checkout_id)
    if before.remote_id is None and remote_id is not None:
        before = msgspec.structs.replace(before, remote_id=remote_id)
    after = _advanced(before, state, now=tx.now)
    money = state.payment if state.status == "paid" else None
    if money is not None and (money.amount_minor, money.currency) != (before.amount_minor, before.currency):
        await _flag_other_amount(tx, invoice, after, money)
        return
    await update_checkout(tx.connection, checkout=after)
    if money is not None:
        await _book(tx, invoice, before, money, provider=provider)
    elif after.status == "failed" and before.status != "failed" and before.remote_id is not None:
        await _fail_unless_newer(tx, invoice, checkout=after, failed_at=tx.now)
    if after.is_unwanted and after.status == "open" and before.status == "requested":
        # It was not wanted any more before it was known to be open.
        tx.defer(NewJob(name=SETTLE_JOB, payload=checkout_id.encode()))


def _advanced(checkout: StoredCheckout, state: CheckoutState, *, now: datetime) -> StoredCheckout:
    """The checkout with what the provider says. What is over stays over, whatever comes late: but money counts."""
    is_over = checkout.status in ("paid", "expired", "failed")
    if checkout.status == "paid" or (is_over and state.status != "paid"):
        return checkout
    if state.status == "unknown":
        if checkout.remote_id is not None:
            raise ProviderRefused("The provider does not know this checkout any more; was the account changed?")
        # It was never opened, so nobody can have paid there.
        return msgspec.structs.replace(checkout, status="failed", next_look_at=None)
    looks = checkout.looks + 1
    settled = state.status in ("paid", "expired", "failed")
    opened = state.checkout
    return msgspec.structs.replace(
        checkout,
        status=state.status,
        remote_id=opened.remote_id if opened else checkout.remote_id,
        url=opened.url if opened else checkout.url,
        error=None,
        expires_at=opened.expires_at if opened else checkout.expires_at,
        looks=looks,
        next_look_at=None if settled else next_look(now=now, looks=looks),
    )


async def _flag_other_amount(tx: Tx, invoice: Invoice, checkout: StoredCheckout, money: MoneyArrived) -> None:
    reported = format_money(money.amount_minor, money.currency)
    asked = format_money(checkout.amount_minor, checkout.currency)
    error = f"the provider reports {reported}, but {asked} was asked for; look at the payment there"
    flagged = msgspec.structs.replace(checkout, status="failed", next_look_at=None, error=error)
    await update_checkout(tx.connection, checkout=flagged)
    tx.audit(
        AuditEntry(
            action="payment.unexpected",
            entity_type="invoice",
            entity_id=invoice.id,
            details={"number": invoice.number, "amount": money.amount_minor, "currency": money.currency},
        )
    )
    tx.publish(unexpected_event(invoice, amount_minor=money.amount_minor, currency=money.currency))


async def _book(tx: Tx, invoice: Invoice, checkout: StoredCheckout, money: MoneyArrived, *, provider: str) -> None:
    if await find_payment_by_reference(tx.connection, provider=provider, reference=money.remote_id) is not None:
        return
    facts = await get_facts(tx.connection, invoice_id=invoice.id)
    still_open_minor = open_minor(
        status=invoice.status,
        total_minor=invoice.total_minor,
        paid_minor=facts.paid_minor,
        refunded_minor=facts.refunded_minor,
    )
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
        # More than is owed, be it that nothing is owed any more, is for staff to look at.
        is_unexpected=money.amount_minor > still_open_minor,
        received_at=money.received_at,
        created_at=tx.now,
    )
    changed = await record_payment(tx, invoice=invoice, payment=payment)
    if changed.status is InvoiceStatus.PAID and invoice.status is not InvoiceStatus.PAID:
        tx.publish(provider_event("subscription.paid", changed, reference=money.remote_id))
    await close_checkouts(tx, invoice_id=invoice.id)


async def fail_attempt(
    tx: Tx, *, invoice_id: str, connection_id: str, checkout_remote_id: str | None, failed_at: datetime
) -> None:
    """Notes that an attempt to pay failed, unless a newer attempt is under way or the invoice is settled."""
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    checkout: StoredCheckout | None = None
    if checkout_remote_id is not None:
        found = await find_checkout_by_remote_id(
            tx.connection, connection_id=connection_id, remote_id=checkout_remote_id
        )
        checkout = found and await lock_checkout(tx.connection, checkout_id=found.id)
    if checkout is not None and checkout.status == "pending":
        # The money that was on its way does not come.
        checkout = msgspec.structs.replace(checkout, status="failed", next_look_at=None)
        await update_checkout(tx.connection, checkout=checkout)
    await _fail_unless_newer(tx, invoice, checkout=checkout, failed_at=failed_at)


async def _fail_unless_newer(tx: Tx, invoice: Invoice, *, checkout: StoredCheckout | None, failed_at: datetime) -> None:
    began_at = checkout.created_at if checkout is not None else failed_at
    for other in await list_unsettled_checkouts(tx.connection, invoice_id=invoice.id):
        is_same = checkout is not None and other.id == checkout.id
        if not is_same and not other.is_unwanted and other.created_at > began_at:
            return
    await _fail(tx, invoice, failed_at=failed_at)


async def _fail(tx: Tx, invoice: Invoice, *, failed_at: datetime) -> None:
    if invoice.status is not InvoiceStatus.PENDING:
        return
    await update_failed_at(tx.connection, invoice_id=invoice.id, failed_at=failed_at)
    changed = await refresh_invoice(tx, msgspec.structs.replace(invoice, failed_at=failed_at))
    tx.audit(
        AuditEntry(
            action="payment.failed",
            entity_type="invoice",
            entity_id=invoice.id,
            details={"number": invoice.number},
        )
    )
    tx.publish(invoice_event("invoice.payment_failed", changed))
    tx.publish(provider_event("subscription.payment_failed", changed, reference=None))


def provider_event(
    kind: str,
    invoice: Invoice,
    *,
    reference: str | None,
    subscription_id: str | None = None,
    product_id: str | None = None,
    subscription_status: str | None = None,
) -> NewEvent:
    """The published event about money moved by a provider, one-off payments included."""
    return NewEvent(
        type=kind,
        subject_id=invoice.id,
        person_id=invoice.person_id,
        data={
            "invoiceId": invoice.id,
            "subscriptionId": subscription_id,
            "productId": product_id,
            "status": subscription_status,
            "providerRef": reference,
        },
    )
