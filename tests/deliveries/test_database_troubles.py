"""A database that refuses to write for a while: nothing is left aside for it, and nothing is sent twice."""

import asyncio

import pytest

from ledger import fanout
from ledger.deliveries import recording
from tests.conftest import StartLedger
from tests.deliveries.telling import LOOPBACK, publish, telling
from tests.fakes.receiver import Receiver

TROUBLES = {"a full disk": "53100", "no memory": "53200", "a standby": "25006", "a deadlock": "40P01"}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_events_wait_until_the_database_takes_them(
    start_ledger: StartLedger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Seen failing with every error but a lost connection taken for a fault of the event."""
    monkeypatch.setattr(fanout, "_AGAIN_S", 0.01)
    monkeypatch.setattr(fanout, "POLL_S", 0.01)
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
    await ledger.sql(
        f"create function refuse() returns trigger language plpgsql as "
        f"$$ begin raise exception 'not now' using errcode = '{TROUBLES[trouble]}'; end $$"
    )
    async with telling(ledger) as shop:
        await shop.subscribe(receiver)
        await ledger.sql(
            "create trigger refuse before insert on webhook_delivery for each statement execute function refuse()"
        )
        events = await publish(ledger.services.database, 3)
        await asyncio.sleep(1)
        await ledger.sql("drop trigger refuse on webhook_delivery")
        async with asyncio.timeout(5):
            while len(receiver.received) < len(events):
                await asyncio.sleep(0.02)
    assert sorted(receiver.ids) == events


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_outcomes_wait_until_the_database_takes_them(
    start_ledger: StartLedger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """Seen failing with outcomes given up, so that what had arrived was sent again once its claim had lapsed."""
    monkeypatch.setattr(recording, "AGAIN_S", 0.01)
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
    await ledger.sql(
        f"create function refuse() returns trigger language plpgsql as "
        f"$$ begin raise exception 'not now' using errcode = '{TROUBLES[trouble]}'; end $$"
    )
    async with telling(ledger) as shop:
        await shop.subscribe(receiver)
        await ledger.sql(
            "create trigger refuse before insert on webhook_attempt for each statement execute function refuse()"
        )
        await publish(ledger.services.database, 3)
        async with asyncio.timeout(5):
            while len(receiver.received) < 3:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        await ledger.sql("drop trigger refuse on webhook_attempt")
        await asyncio.sleep(0.5)
        rows = await shop.deliveries()
    assert {row["status"] for row in rows} == {"delivered"}
    assert await ledger.value("select count(*) from webhook_attempt") == 3
