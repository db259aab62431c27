"""Webhook subscribers for tests: added by staff, looked at in the database, their names resolved by a table."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from ledger.webhooks.name_lookup import NameLookup
from ledger.webhooks.special_networks import Address
from ledger.webhooks.store import Subscriber, get_subscriber
from tests.installation import Answer, Installation

PATH = "/api/webhooks/subscribers"
URL = "https://93.184.216.34/hooks/ledger"
OWN_SECRET = "a-secret-of-our-own-0123456789"
NOBODY = "00000000-0000-7000-8000-000000000009"


async def add(ledger: Installation, **changes: object) -> Answer:
    answer = await ledger.staff.post(PATH, {"name": "Shop", "url": URL} | changes)
    assert answer.status == 201, answer.content
    return answer


async def stored(ledger: Installation, subscriber_id: str) -> Subscriber:
    async with ledger.services.database.connection() as connection:
        return await get_subscriber(connection, subscriber_id=subscriber_id)


async def audited(ledger: Installation) -> list[tuple[str, object]]:
    """What the audit log says of subscribers, oldest first."""
    rows = await ledger.sql("select action, details from audit_entry where entity_type = 'subscriber' order by id")
    return [(row["action"], row["details"] and msgspec.json.decode(row["details"])) for row in rows]


def resolve_by(ledger: Installation, table: Mapping[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets this Ledger resolve names by a table."""

    async def look_up(host: str) -> Sequence[Address]:
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [ipaddress.ip_address(each) for each in table[host]]

    monkeypatch.setattr(ledger.services.get(NameLookup), "look_up", look_up)


async def add_deliveries(ledger: Installation, subscriber_id: str, count: int) -> None:
    await ledger.sql(
        """
        with events as (
            insert into event (id, type, created_at)
            select gen_random_uuid(), 'ping', $3::timestamptz + n * interval '1 second'
            from generate_series(1, $2::int) n
            returning id, created_at
        ), deliveries as (
            insert into webhook_delivery
                (id, event_id, subscriber_id, event_type, status, attempts, last_status, created_at)
            select gen_random_uuid(), id, $1, 'ping', 'delivered', 1, 204, created_at from events
            returning id
        )
        insert into webhook_attempt (delivery_id, started_at, duration_ms, status)
        select id, $3, 5, 204 from deliveries
        """,
        subscriber_id,
        count,
        ledger.clock.now(),
    )
