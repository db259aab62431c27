"""Books a provider's paid bill of a subscription: a numbered invoice with its payments, once.

Lines, tax and totals are those the provider charged, whatever Ledger would have computed. A bill below zero (a change
that gave back more than it cost) is an invoice below zero that nobody has to pay; what is settled from such credit
later is a payment of its own, which is no money received.
"""

from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Database, Tx
from ledger.ids import is_id
from ledger.invoices.actions import record_payment
from ledger.invoices.rules import DESCRIPTION_MAX, DraftLine, InvoiceDraft, InvoiceStatus, TaxShare, issue_year
from ledger.invoices.settling import provider_event
from ledger.invoices.store import Invoice, UnnumberedInvoice, issue_invoices, lock_invoice
from ledger.payments.store import CREDIT_METHOD, Payment, find_payment_by_reference
from ledger.providers.connections import Connected
from ledger.providers.contract import MoneyArrived, ProviderRefused, UnknownHere
from ledger.providers.subscription_contract import BilledPeriod
from ledger.settings import Settings
from ledger.subscriptions.change_store import BookedPeriod, insert_period, list_booked
from ledger.subscriptions.store import (
    Subscription,
    find_price_by_remote_id,
    find_subscription,
    find_subscription_by_remote_id,
    lock_subscription,
)

# A payment that did not come through the provider's own hands, as `subscription_contract.BilledPeriod` has it.
EXTERNAL_METHOD = "external"


async def book_period(
    database: Database, settings: Settings, connected: Connected, *, period_remote_id: str
) -> Subscription | None:
    """Books a bill if it is paid and not booked yet; returns its subscription, or None when it is none of ours.

    Raises `ProviderUnreachable`, and `ProviderRefused` for a bill that does not add up or whose subscription is
    missing here.
    """
    period = await connected.provider.look_up_period(remote_id=period_remote_id)
    if period is None:
        return None
    async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
        subscription = await _find(tx, connected, period)
        if subscription is None:
            return None
        locked = await lock_subscription(tx.connection, subscription_id=subscription.id)
        booked = await list_booked(tx.connection, connection_id=locked.connection_id, remote_ids=[period.remote_id])
        if period.is_paid and not booked:
            await _book(tx, settings, connected, locked, period)
        return locked


async def _find(tx: Tx, connected: Connected, period: BilledPeriod) -> Subscription | None:
    found = None
    if period.subscription_remote_id is not None:
        found = await find_subscription_by_remote_id(
            tx.connection, connection_id=connected.stored.id, remote_id=period.subscription_remote_id
        )
    if found is None and period.intent_id is not None and is_id(period.intent_id):
        # It is known by what was asked for until the provider's own name for it was heard.
        found = await find_subscription(tx.connection, subscription_id=period.intent_id)
        if found is None:
            raise UnknownHere(f"There is no subscription {period.intent_id} here that this bill could belong to")
    return found


async def _book(
    tx: Tx, settings: Settings, connected: Connected, subscription: Subscription, period: BilledPeriod
) -> None:
    if subscription.person_id is None:
        raise ProviderRefused("This bill was paid after the person's data was erased; look at it at the provider")
    billing = await get_settings(tx.connection)
    issued = await issue_invoices(
        tx.connection,
        year=issue_year(tx.now, settings.timezone),
        invoices=[
            UnnumberedInvoice(
                id=tx.ids.new(),
                event_id=tx.ids.new(),
                person_id=subscription.person_id,
                actor=tx.actor,
                created_by_service=None,
                draft=await _draft(tx, subscription, period),
                tax_label=billing.tax_label,
                due_at=None,
                notes=None,
                metadata=None,
            )
        ],
        now=tx.now,
    )
    invoice = await lock_invoice(tx.connection, invoice_id=issued[0].id)
    await insert_period(
        tx.connection,
        period=BookedPeriod(
            connection_id=subscription.connection_id,
            remote_id=period.remote_id,
            subscription_id=subscription.id,
            invoice_id=invoice.id,
            period_start=period.period_start,
            period_end=period.period_end,
            created_at=tx.now,
        ),
    )
    for payment in _payments(tx, connected, subscription, invoice, period):
        reference = payment.provider_reference
        if reference is not None and await find_payment_by_reference(
            tx.connection, provider=payment.provider, reference=reference
        ):
            raise ProviderRefused(f"The payment {reference} of this bill was booked for another invoice already")
        invoice = await record_payment(tx, invoice=invoice, payment=payment)
    if invoice.status is not InvoiceStatus.PAID:
        raise ProviderRefused("The provider says that this bill is paid, but its payments do not cover it")
    tx.publish(
        provider_event(
            "subscription.paid",
            invoice,
            reference=period.payments[0].remote_id if period.payments else period.remote_id,
            subscription_id=subscription.id,
            product_id=subscription.product_id,
            subscription_status=subscription.status.value,
        )
    )


async def _draft(tx: Tx, subscription: Subscription, period: BilledPeriod) -> InvoiceDraft:
    lines = []
    for line in period.lines:
        price = None
        if line.price_remote_id is not None:
            price = await find_price_by_remote_id(
                tx.connection, connection_id=subscription.connection_id, remote_id=line.price_remote_id
            )
        lines.append(
            DraftLine(
                description=(line.description.replace("\0", "").strip() or "Subscription")[:DESCRIPTION_MAX],
                quantity=line.quantity,
                unit_price_minor=line.unit_price_minor,
                total_minor=line.total_minor,
                tax_rate_bp=line.tax_rate_bp,
                product_id=None if price is None else price.product_id,
            )
        )
    return InvoiceDraft(
        currency=period.currency,
        lines=tuple(lines),
        tax_shares=tuple(
            TaxShare(rate_bp=tax.rate_bp, net_minor=tax.net_minor, tax_minor=tax.tax_minor) for tax in period.taxes
        ),
        subtotal_minor=period.subtotal_minor,
        tax_minor=period.tax_minor,
        total_minor=period.total_minor,
        skip_tax=False,
    )


def _payments(
    tx: Tx, connected: Connected, subscription: Subscription, invoice: Invoice, period: BilledPeriod
) -> list[Payment]:
    """What paid the bill. One that nothing had to be paid for is settled with a payment of 0."""
    through_provider = [_payment(tx, connected, subscription, invoice, money) for money in period.payments]
    if period.credit_minor == 0 and through_provider:
        return through_provider
    credit = Payment(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        amount_minor=period.credit_minor,
        currency=period.currency,
        provider=connected.type.name,
        connection_id=None,
        method=CREDIT_METHOD,
        provider_reference=None,
        reference=None,
        is_unexpected=False,
        received_at=tx.now,
        created_at=tx.now,
    )
    return [credit, *through_provider]


def _payment(
    tx: Tx, connected: Connected, subscription: Subscription, invoice: Invoice, money: MoneyArrived
) -> Payment:
    return Payment(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        amount_minor=money.amount_minor,
        currency=money.currency,
        provider=connected.type.name,
        # What the provider did not take itself, it cannot send back.
        connection_id=None if money.method == EXTERNAL_METHOD else subscription.connection_id,
        method=money.method,
        provider_reference=money.remote_id,
        reference=None,
        is_unexpected=False,
        received_at=money.received_at,
        created_at=tx.now,
    )
