"""Events as a provider sent them, stored for a test that does not need to send them."""

from datetime import timedelta

import msgspec

from ledger.inbound.store import InboundEvent, insert_event
from ledger.providers.store import StoredConnection, insert_connection, list_connections
from tests.installation import Installation

PAYLOAD = b'{"customer_details": {"email": "payer@example.org"}}'
SENTENCE = "The provider could not be asked"


async def add_event(ledger: Installation, **changes: object) -> str:
    """An event that could not be applied yet, with what a test wants different; returns its id."""
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        stored = await list_connections(tx.connection)
        if not stored:
            # One serves all: there is room for a limited number of them.
            account = StoredConnection(
                id=tx.ids.new(),
                type="stripe",
                name="Cards",
                is_active=False,
                settings_sealed=None,
                created_at=tx.now,
                updated_at=tx.now,
            )
            await insert_connection(tx.connection, stored=account)
            stored = [account]
        event = InboundEvent(
            id=tx.ids.new(),
            connection_id=stored[0].id,
            remote_id=f"evt_{tx.ids.new()}",
            type="charge.refunded",
            payload=PAYLOAD,
            state="failed",
            error=SENTENCE,
            attempts=2,
            sent_at=tx.now - timedelta(minutes=1),
            received_at=tx.now,
            applied_at=None,
            next_try_at=tx.now + timedelta(minutes=5),
        )
        event = msgspec.structs.replace(event, **changes)
        assert await insert_event(tx.connection, event=event)
    return event.id
