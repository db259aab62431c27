"""Checkouts whose outcome is not known, or that nobody wants any more: the provider is asked and told."""

import msgspec

from ledger.database.transaction import Database
from ledger.errors import LedgerError
from ledger.invoices.settling import settle_checkout
from ledger.payments.checkout_store import UNSETTLED, StoredCheckout, get_checkout, lock_checkout, update_checkout
from ledger.payments.checkouts import SETTLE_JOB
from ledger.payments.looks import next_look
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import CheckoutState


async def look_at_checkout(database: Database, connections: Connections, *, checkout_id: str) -> None:
    """Asks where a checkout stands (and closes one that is not wanted), and stores the answer.

    Raises what keeps it from being settled; that is stored with the checkout, and the next look comes later.
    """
    async with database.connection() as connection:
        checkout = await get_checkout(connection, checkout_id=checkout_id)
    if checkout.status not in UNSETTLED:
        return
    try:
        async with database.connection() as connection:
            connected = await connections.get(connection, connection_id=checkout.connection_id)
        state = await _ask(connected, checkout)
        async with database.transaction_by(kind="system", name=SETTLE_JOB) as tx:
            await settle_checkout(tx, checkout_id=checkout_id, provider=connected.type.name, state=state)
    except LedgerError as error:
        await _postpone(database, checkout_id=checkout_id, error=error)
        raise


async def _ask(connected: Connected, checkout: StoredCheckout) -> CheckoutState:
    state = await connected.provider.look_up_checkout(intent_id=checkout.id, remote_id=checkout.remote_id)
    remote_id = state.checkout.remote_id if state.checkout else checkout.remote_id
    if checkout.is_unwanted and state.status == "open" and remote_id is not None:
        return await connected.provider.expire_checkout(remote_id=remote_id)
    return state


async def _postpone(database: Database, *, checkout_id: str, error: LedgerError) -> None:
    async with database.transaction_by(kind="system", name=SETTLE_JOB) as tx:
        checkout = await lock_checkout(tx.connection, checkout_id=checkout_id)
        if checkout.status in UNSETTLED:
            looks = checkout.looks + 1
            later = msgspec.structs.replace(
                checkout, looks=looks, next_look_at=next_look(now=tx.now, looks=looks), error=error.sentence
            )
            await update_checkout(tx.connection, checkout=later)
