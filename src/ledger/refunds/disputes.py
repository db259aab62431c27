"""Disputes as the provider reports them: kept, shown, announced. What a bank decided is final."""

import msgspec

from ledger.database.transaction import AuditEntry, Tx
from ledger.invoices.actions import invoice_event
from ledger.invoices.store import Invoice, lock_invoice
from ledger.payments.dispute_store import Dispute, find_dispute, insert_dispute, update_dispute
from ledger.providers.contract import DisputeChanged
from ledger.refunds.store import find_known_payment


async def apply_dispute(tx: Tx, *, provider: str, meaning: DisputeChanged) -> bool:
    """Stores how a dispute stands; returns whether it is about a payment of ours. Twice changes nothing."""
    payment = await find_known_payment(tx.connection, provider=provider, remote_id=meaning.payment_remote_id)
    if payment is None:
        return False
    invoice = await lock_invoice(tx.connection, invoice_id=payment.invoice_id)
    before = await find_dispute(tx.connection, payment_id=payment.id, remote_id=meaning.remote_id)
    if before is None:
        dispute = Dispute(
            id=tx.ids.new(),
            payment_id=payment.id,
            remote_id=meaning.remote_id,
            amount_minor=meaning.amount_minor,
            currency=meaning.currency,
            reason=meaning.reason,
            status=meaning.status,
            respond_by=meaning.respond_by,
            created_at=min(meaning.created_at, tx.now),
            updated_at=tx.now,
        )
        await insert_dispute(tx.connection, dispute=dispute)
        _announce(tx, invoice, dispute)
        return True
    if before.status in ("won", "lost"):
        # Whatever says otherwise was read before the decision.
        return True
    after = msgspec.structs.replace(
        before,
        amount_minor=meaning.amount_minor,
        currency=meaning.currency,
        reason=meaning.reason,
        status=meaning.status,
        respond_by=meaning.respond_by,
    )
    if after != before:
        await update_dispute(tx.connection, dispute=msgspec.structs.replace(after, updated_at=tx.now))
    if after.status != before.status:
        _announce(tx, invoice, after)
    return True


def _announce(tx: Tx, invoice: Invoice, dispute: Dispute) -> None:
    tx.audit(
        AuditEntry(
            action="payment.disputed",
            entity_type="invoice",
            entity_id=invoice.id,
            details={
                "number": invoice.number,
                "dispute": dispute.id,
                "amount": dispute.amount_minor,
                "currency": dispute.currency,
                "status": dispute.status,
            },
        )
    )
    event = invoice_event("payment.disputed", invoice, amount_minor=dispute.amount_minor)
    # A bank may dispute in another currency than the invoice's, whose own is in the event already.
    more = {"amountCurrency": dispute.currency, "disputeStatus": dispute.status}
    tx.publish(msgspec.structs.replace(event, data={**event.data, **more}))
