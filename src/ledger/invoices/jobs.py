"""Checkouts whose outcome is not known, or that nobody wants any more: the provider is asked and told."""

from ledger.database.transaction import Database
from ledger.invoices.settling import settle_checkout
from ledger.payments.checkout_store import UNSETTLED, get_checkout
from ledger.providers.connections import Connections
from ledger.providers.contract import CheckoutState


async def look_at_checkout(database: Database, connections: Connections, *, checkout_id: str) -> None:
    """Asks where a checkout stands (and closes one that is not wanted), and stores the answer.

    Raises `ProviderUnreachable` and `OutcomeUnknown`; the next look comes later.
    """
    async with database.connection() as connection:
        checkout = await get_checkout(connection, checkout_id=checkout_id)
        if checkout.status not in UNSETTLED:
            return
        connected = await connections.get(connection, connection_id=checkout.connection_id)
    state: CheckoutState = await connected.provider.look_up_checkout(
        intent_id=checkout.id, remote_id=checkout.remote_id
    )
    remote_id = state.checkout.remote_id if state.checkout else checkout.remote_id
    if checkout.is_unwanted and state.status == "open" and remote_id is not None:
        state = await connected.provider.expire_checkout(remote_id=remote_id)
    async with database.transaction_by(kind="system", name="checkouts.settle") as tx:
        await settle_checkout(tx, checkout_id=checkout_id, provider=connected.type.name, state=state)
