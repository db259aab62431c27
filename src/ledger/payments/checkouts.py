"""Closes checkouts that nobody shall use any more."""

from ledger.database.transaction import NewJob, Tx
from ledger.payments.checkout_store import update_checkouts_unwanted

SETTLE_JOB = "checkouts.settle"


async def close_checkouts(tx: Tx, *, invoice_id: str) -> None:
    """Says that nobody shall pay an invoice's checkouts any more; a job closes them at the provider."""
    for checkout_id in await update_checkouts_unwanted(tx.connection, invoice_id=invoice_id, now=tx.now):
        tx.defer(NewJob(name=SETTLE_JOB, payload=checkout_id.encode()))
