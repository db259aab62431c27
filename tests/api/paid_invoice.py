"""An invoice that was paid through a Stripe connection, made without asking any Stripe."""

import msgspec

from ledger.invoices.actions import record_payment
from ledger.invoices.store import lock_invoice
from ledger.payments.store import Payment
from tests.api.test_providers import _add as add_provider
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET
from tests.installation import Installation

PROVIDER = "stripe"


class PaidInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """The invoice, its payment of 50.00 EUR, and what Stripe calls that."""

    id: str
    payment_id: str
    payment_remote_id: str


async def add_account(ledger: Installation) -> str:
    """Adds a Stripe connection; nobody asks Stripe for that."""
    return await add_provider(ledger, "stripe", "Cards", secretKey=SECRET_KEY, webhookSecret=WEBHOOK_SECRET)


async def paid_invoice(ledger: Installation, *, connection_id: str) -> PaidInvoice:
    """Issues an invoice over 50.00 EUR and books its payment."""
    invoice_id: str = (await ledger.create_invoice()).body["id"]
    remote_id = f"pi_{invoice_id}"
    async with ledger.services.database.transaction_by(kind="provider", name=PROVIDER) as tx:
        payment = Payment(
            id=tx.ids.new(),
            invoice_id=invoice_id,
            amount_minor=5000,
            currency="EUR",
            provider=PROVIDER,
            connection_id=connection_id,
            method="card",
            provider_reference=remote_id,
            reference=None,
            is_unexpected=False,
            received_at=tx.now,
            created_at=tx.now,
        )
        await record_payment(tx, invoice=await lock_invoice(tx.connection, invoice_id=invoice_id), payment=payment)
    return PaidInvoice(id=invoice_id, payment_id=payment.id, payment_remote_id=remote_id)
