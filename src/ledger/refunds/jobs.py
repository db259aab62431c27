"""Refunds whose outcome is not known: the provider is asked, and what it says is stored."""

from ledger.database.transaction import Database
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import ProviderRefused, RefundState, WantedRefund
from ledger.refunds.actions import settle_refund, wanted_refund
from ledger.refunds.store import find_refunds, get_refunded_payment


async def look_at_refund(database: Database, connections: Connections, *, refund_id: str) -> None:
    """Asks where one refund stands and stores it. One the provider never heard of is sent again.

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
        state = await _send_again(connected, wanted)
    async with database.transaction_by(kind="system", name="refunds.settle") as tx:
        await settle_refund(tx, refund_id=refund_id, state=state)


async def _send_again(connected: Connected, wanted: WantedRefund) -> RefundState:
    """Staff wanted it, and the same intent has its effect once: so it is done now, or it is known that it cannot be.

    Taking it for failed instead would be wrong if the first request is still on its way.
    """
    try:
        return await connected.provider.refund(wanted)
    except ProviderRefused as refused:
        return RefundState(status="failed", failure=refused.sentence)
