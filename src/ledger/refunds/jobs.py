"""Refunds whose outcome is not known: the provider is asked, and what it says is stored."""

from ledger.database.transaction import Database
from ledger.providers.connections import Connections
from ledger.providers.contract import RefundState
from ledger.refunds.actions import settle_refund, wanted_refund
from ledger.refunds.store import find_refunds, get_refunded_payment


async def look_at_refund(database: Database, connections: Connections, *, refund_id: str) -> None:
    """Asks where one refund stands and stores it. A refund the provider never heard of failed: nothing was sent.

    Raises `ProviderUnreachable` and `OutcomeUnknown`; the next look comes later.
    """
    async with database.connection() as connection:
        found = await find_refunds(connection, refund_ids=[refund_id])
        if not found or found[0].status != "requested":
            return
        _, payment = await get_refunded_payment(connection, refund_id=refund_id)
        assert payment.connection_id is not None
        connected = await connections.get(connection, connection_id=payment.connection_id)
    refund = found[0]
    wanted = wanted_refund(refund, payment)
    state = await connected.provider.look_up_refund(wanted, remote_id=refund.provider_reference)
    if state.status == "unknown":
        state = RefundState(status="failed", failure="the request never reached the provider; nothing was sent back")
    async with database.transaction_by(kind="system", name="refunds.settle") as tx:
        await settle_refund(tx, refund_id=refund_id, state=state)
