"""Which payments can still go back, and how much of them."""

import msgspec

from ledger.database.connection import Connection
from ledger.providers.connections import Connections
from ledger.providers.contract import Capability


class RefundablePayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment and how much of it can still go back: what was not refunded, and is not on its way back."""

    id: str
    connection_id: str | None
    provider: str
    provider_reference: str | None
    currency: str
    left_minor: int


async def list_refundable(connection: Connection, *, invoice_id: str) -> list[RefundablePayment]:
    """The invoice's payments with what is left of each, the newest first."""
    rows = await connection.fetch(
        """
        select p.id::text, p.connection_id::text, p.provider, p.provider_reference, p.currency,
            (p.amount_minor - coalesce(
                (select sum(r.amount_minor) from refund r where r.payment_id = p.id and r.status <> 'failed'), 0
            ))::bigint as left_minor
        from payment p where p.invoice_id = $1 order by p.created_at desc, p.id desc
        """,
        invoice_id,
    )
    return [RefundablePayment(**dict(row)) for row in rows]


def can_refund(connections: Connections, payment: RefundablePayment) -> bool:
    """Whether the provider that took a payment can send it back, whatever is active now."""
    kind = connections.registry.find(payment.provider)
    return (
        kind is not None
        and payment.connection_id is not None
        and payment.provider_reference is not None
        and Capability.REFUNDS in kind.capabilities
    )
