"""Pays an invoice through the active provider: intent stored, provider asked outside any transaction, outcome stored.

One open checkout per invoice: whoever pays again gets the open one while it is usable.
"""

from datetime import timedelta
from typing import Literal

import msgspec

from ledger.database.transaction import Database, NewJob, Tx
from ledger.errors import CapabilityMissing, Conflict, LedgerError
from ledger.identity import Person
from ledger.invoices.actions import HandPayment, mark_invoice_paid, refresh_invoice
from ledger.invoices.rules import InvoiceNotPayable, check_can_pay, open_minor
from ledger.invoices.store import (
    Invoice,
    get_facts,
    get_invoice_of,
    list_lines,
    lock_invoice,
    update_failed_at,
    update_payment_instructions,
    update_provider,
)
from ledger.payments.checkout_store import (
    StoredCheckout,
    find_usable_checkout,
    insert_checkout,
    list_unsettled_checkouts,
    lock_checkout,
    update_checkout,
)
from ledger.payments.checkouts import SETTLE_JOB, close_checkouts
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import (
    Capability,
    Checkout,
    Instructions,
    Payer,
    PaymentLine,
    ProviderRefused,
    ProviderUnreachable,
    WantedPayment,
)
from ledger.providers.store import find_remote_id, upsert_remote_id
from ledger.settings import Settings

# A page that closes in a few minutes is of no use to somebody who just pressed "Pay".
USABLE_FOR = timedelta(minutes=10)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How an invoice can be paid: at a page, or by following instructions."""

    kind: Literal["checkout", "instructions", "settled"]
    text: str


class _Prepared(msgspec.Struct, frozen=True, kw_only=True):
    connected: Connected
    wanted: WantedPayment
    checkout_id: str | None


async def pay_invoice(
    database: Database, connections: Connections, settings: Settings, *, person: Person, invoice_id: str
) -> Way:
    """Opens a checkout for a person's own invoice, or says how to pay it. Doing it twice has one effect.

    Raises `NotFound`, `InvoiceNotPayable`, `CapabilityMissing`, `ProviderRefused`, `ProviderUnreachable`,
    `OutcomeUnknown` (then the checkout stays `requested` and is settled by the reconciler).
    """
    async with database.transaction_of(person) as tx:
        prepared = await _prepare(tx, connections, settings, person=person, invoice_id=invoice_id)
    if isinstance(prepared, Way):
        return prepared
    try:
        started = await prepared.connected.provider.start_payment(prepared.wanted)
    except (ProviderRefused, ProviderUnreachable):
        # Nothing happened there; the next attempt starts afresh.
        await _give_up(database, prepared)
        raise
    async with database.transaction_of(person) as tx:
        if isinstance(started, Instructions):
            return await _keep_instructions(tx, prepared, started)
        way = await _keep_checkout(tx, prepared, started)
    if isinstance(way, LedgerError):
        raise way
    return way


async def _prepare(
    tx: Tx, connections: Connections, settings: Settings, *, person: Person, invoice_id: str
) -> _Prepared | Way:
    own = await get_invoice_of(tx.connection, invoice_id=invoice_id, user_id=person.user_id)
    invoice = await lock_invoice(tx.connection, invoice_id=own.id)
    check_can_pay(invoice.status)
    facts = await get_facts(tx.connection, invoice_id=invoice.id)
    amount_minor = open_minor(
        status=invoice.status,
        total_minor=invoice.total_minor,
        paid_minor=facts.paid_minor,
        refunded_minor=facts.refunded_minor,
    )
    if amount_minor == 0:
        # Nobody can pay nothing: a free ticket is settled by asking for it.
        await mark_invoice_paid(tx, invoice_id=invoice.id, service_id=None, paid=HandPayment())
        return Way(kind="settled", text="Nothing is to be paid: this invoice is settled.")
    unsettled = await list_unsettled_checkouts(tx.connection, invoice_id=invoice.id)
    if any(each.status == "pending" for each in unsettled):
        raise InvoiceNotPayable("A payment of this invoice is on its way; it can take some days to arrive")
    connected = await connections.get_active(tx.connection, capability=Capability.INVOICES)
    checkout: StoredCheckout | None = None
    if connected.can(Capability.CHECKOUT):
        checkout = await _usable_checkout(tx, invoice, connected, amount_minor=amount_minor)
        if checkout is not None and checkout.url is not None:
            await _begin_attempt(tx, invoice)
            return Way(kind="checkout", text=checkout.url)
        if checkout is None:
            checkout = await _wish(tx, invoice, connected, amount_minor=amount_minor)
    wanted = await _wanted_payment(
        tx, invoice, connected, settings, intent_id=checkout.id if checkout else invoice.id, amount_minor=amount_minor
    )
    return _Prepared(connected=connected, wanted=wanted, checkout_id=checkout.id if checkout else None)


async def _usable_checkout(
    tx: Tx, invoice: Invoice, connected: Connected, *, amount_minor: int
) -> StoredCheckout | None:
    """The open checkout when it still fits; one that does not is closed."""
    found = await find_usable_checkout(tx.connection, invoice_id=invoice.id)
    if found is None:
        return None
    fits = found.connection_id == connected.stored.id and found.amount_minor == amount_minor
    lasts = found.expires_at is None or found.expires_at > tx.now + USABLE_FOR
    if fits and lasts:
        return found
    await close_checkouts(tx, invoice_id=invoice.id)
    return None


async def _wish(tx: Tx, invoice: Invoice, connected: Connected, *, amount_minor: int) -> StoredCheckout:
    first_look_at = next_look(now=tx.now, looks=0)
    checkout = StoredCheckout(
        id=tx.ids.new(),
        invoice_id=invoice.id,
        connection_id=connected.stored.id,
        amount_minor=amount_minor,
        currency=invoice.currency,
        status="requested",
        is_unwanted=False,
        remote_id=None,
        url=None,
        error=None,
        expires_at=None,
        created_at=tx.now,
        next_look_at=first_look_at,
        looks=0,
    )
    await insert_checkout(tx.connection, checkout=checkout)
    tx.defer(NewJob(name=SETTLE_JOB, payload=checkout.id.encode(), delay=first_look_at - tx.now))
    return checkout


async def _wanted_payment(
    tx: Tx, invoice: Invoice, connected: Connected, settings: Settings, *, intent_id: str, amount_minor: int
) -> WantedPayment:
    """The payment as the provider is asked for it: a pure function of what is stored, so that asking again asks
    for the same."""
    if connected.can(Capability.CHECKOUT) and settings.dashboard_url is None:
        raise CapabilityMissing("Online payment is not set up completely; please tell the people who manage billing")
    assert invoice.person_id is not None, "an open invoice has its buyer"
    back_url = f"{settings.dashboard_url}/{settings.slug}/my/invoices/{invoice.id}"
    lines = await list_lines(tx.connection, invoice_id=invoice.id)
    is_whole = amount_minor == invoice.total_minor
    return WantedPayment(
        intent_id=intent_id,
        invoice_id=invoice.id,
        invoice_number=invoice.number,
        amount_minor=amount_minor,
        currency=invoice.currency,
        lines=tuple(
            PaymentLine(description=line.description, unit_price_minor=line.unit_price_minor, quantity=line.quantity)
            for line in lines
        )
        if is_whole
        else (PaymentLine(description=f"{invoice.number}: open amount", unit_price_minor=amount_minor, quantity=1),),
        tax_minor=invoice.tax_minor if is_whole else 0,
        tax_label=invoice.tax_label,
        payer=Payer(
            person_id=invoice.person_id,
            remote_id=await find_remote_id(
                tx.connection,
                connection_id=connected.stored.id,
                kind="customer",
                local_id=str(invoice.person_id),
            ),
        ),
        payment_reference=invoice.payment_reference,
        # The day it is due is a day where the books are kept.
        due_at=None if invoice.due_at is None else invoice.due_at.astimezone(settings.timezone),
        success_url=f"{back_url}?paid=1",
        cancel_url=back_url,
    )


async def _give_up(database: Database, prepared: _Prepared) -> None:
    if prepared.checkout_id is None:
        return
    async with database.transaction_by(kind="provider", name=prepared.connected.type.name) as tx:
        checkout = await lock_checkout(tx.connection, checkout_id=prepared.checkout_id)
        if checkout.status == "requested":
            failed = msgspec.structs.replace(checkout, status="failed", next_look_at=None)
            await update_checkout(tx.connection, checkout=failed)


async def _keep_instructions(tx: Tx, prepared: _Prepared, started: Instructions) -> Way:
    invoice = await lock_invoice(tx.connection, invoice_id=prepared.wanted.invoice_id)
    check_can_pay(invoice.status)
    await update_payment_instructions(
        tx.connection, invoice_id=invoice.id, text=started.text, provider=prepared.connected.type.name
    )
    return Way(kind="instructions", text=started.text)


async def _begin_attempt(tx: Tx, invoice: Invoice) -> None:
    """A new attempt to pay begins, so the failure of the last one is over."""
    if invoice.failed_at is not None:
        await update_failed_at(tx.connection, invoice_id=invoice.id, failed_at=None)
        await refresh_invoice(tx, msgspec.structs.replace(invoice, failed_at=None))


def _is_payable(invoice: Invoice) -> bool:
    try:
        check_can_pay(invoice.status)
    except InvoiceNotPayable:
        return False
    return True


async def _keep_checkout(tx: Tx, prepared: _Prepared, started: Checkout) -> Way | LedgerError:
    """Stores the open checkout. Returns the refusal when nobody shall pay there any more; it is closed then."""
    assert prepared.checkout_id is not None
    invoice = await lock_invoice(tx.connection, invoice_id=prepared.wanted.invoice_id)
    before = await lock_checkout(tx.connection, checkout_id=prepared.checkout_id)
    usable = await find_usable_checkout(tx.connection, invoice_id=invoice.id)
    is_payable = _is_payable(invoice)
    # A twin of this request may have given up on the row meanwhile; the page that was opened counts.
    is_rival = usable is not None and usable.id != before.id
    opened = msgspec.structs.replace(
        before,
        status="open" if before.status in ("requested", "failed") else before.status,
        is_unwanted=before.is_unwanted or is_rival or not is_payable,
        remote_id=started.remote_id,
        url=started.url,
        expires_at=started.expires_at,
        next_look_at=before.next_look_at or next_look(now=tx.now, looks=before.looks),
    )
    await update_checkout(tx.connection, checkout=opened)
    if started.customer_remote_id is not None:
        await upsert_remote_id(
            tx.connection,
            connection_id=prepared.connected.stored.id,
            kind="customer",
            local_id=str(prepared.wanted.payer.person_id),
            remote_id=started.customer_remote_id,
            now=tx.now,
        )
    if opened.is_unwanted:
        tx.defer(NewJob(name=SETTLE_JOB, payload=opened.id.encode()))
    if not is_payable:
        return InvoiceNotPayable("Invoice is not payable")
    if opened.is_unwanted or opened.status != "open":
        return Conflict("Another payment page was opened at the same time; press Pay again", retry_after_s=1)
    await update_provider(tx.connection, invoice_id=invoice.id, provider=prepared.connected.type.name)
    await _begin_attempt(tx, invoice)
    return Way(kind="checkout", text=started.url)
