"""Deliveries by real workers: D1, D2 and D8 when they are killed, D7 when they are told to stop."""

import asyncio
import collections
import time
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from ledger.deliveries.engine import LANE_STOCK
from tests.conftest import StartLedger
from tests.deliveries.telling import LOOPBACK, publish, subscribe
from tests.fakes.lanyard import FakeLanyard
from tests.fakes.receiver import Receiver
from tests.guarantees.running import RealLedger, real_ledger
from tests.guarantees.scale import scaled, seeded
from tests.installation import Installation

RECEIVERS = 4
KILLS = 5
TAKEN_OVER_S = 60.0
STOPPED_S = 15.0


async def workers(
    stack: AsyncExitStack, count: int, *, ledger: Installation, directory: Path, lanyard: FakeLanyard
) -> list[RealLedger]:
    """So many `ledger worker` commands, each as if on a machine of its own."""
    started = [
        await stack.enter_async_context(
            real_ledger(
                "worker",
                database_url=ledger.database_url,
                directory=directory / f"worker-{number}",
                lanyard=lanyard,
                WEBHOOK_ALLOWED_NETWORKS=LOOPBACK,
            )
        )
        for number in range(count)
    ]
    for worker in started:
        await worker.launch()
    return started


async def until_delivered(
    ledger: Installation, receivers: list[Receiver], events: list[str], *, within_s: float
) -> float:
    """Waits until every receiver has every event and that is noted; returns how many seconds that took."""
    began_s = time.monotonic()
    connection = await asyncpg.connect(ledger.database_url)
    try:
        async with asyncio.timeout(within_s):
            while any(len(set(receiver.ids)) < len(events) for receiver in receivers) or await connection.fetchval(
                "select exists (select from webhook_delivery where status = 'pending')"
            ):
                await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return time.monotonic() - began_s


@pytest.mark.timeout(240)
async def test_d1_no_delivery_is_lost_when_workers_are_killed_and_ids_never_change(
    start_ledger: StartLedger, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with claims that do not lapse."""
    random_ = seeded()
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(Receiver()) for _ in range(RECEIVERS)]
        for receiver in receivers:
            receiver.delay_s = 0.2
            await subscribe(ledger, receiver)
        running = await workers(stack, 2, ledger=ledger, directory=tmp_path, lanyard=lanyard)
        events: list[str] = []
        cut_off = 0
        for _ in range(KILLS):
            events += await publish(ledger.services.database, scaled(2000) // RECEIVERS // KILLS)
            async with asyncio.timeout(TAKEN_OVER_S):
                while not any(receiver.at_once for receiver in receivers):
                    await asyncio.sleep(0.01)
            await asyncio.sleep(random_.uniform(0, 0.5))
            cut_off += sum(receiver.at_once for receiver in receivers)
            for victim in random_.sample(running, random_.choice((1, 2))):
                victim.kill()
                await victim.launch()
        took_s = await until_delivered(ledger, receivers, events, within_s=TAKEN_OVER_S)
        again = sum(len(receiver.ids) - len(events) for receiver in receivers)
        print(f"{len(events) * RECEIVERS} deliveries, {cut_off} in flight at {KILLS} kills, {again} twice")
        print(f"the last one {took_s:.1f} s after the last kill")
        for receiver in receivers:
            assert set(receiver.ids) == set(events)
            bodies = collections.defaultdict(set)
            for received in receiver.received:
                bodies[received.id].add(received.body)
            assert all(len(variants) == 1 for variants in bodies.values())
        # Twice is only what was on its way when a worker died.
        assert again <= KILLS * RECEIVERS * 2 * LANE_STOCK
        for worker in running:
            assert (await worker.terminate())[0] == 0
    assert await ledger.value("select count(*) from webhook_delivery where status = 'delivered'") == (
        len(events) * RECEIVERS
    )
    assert await ledger.value("select count(*) from event where not is_fanned_out") == 0


async def test_d8_real_workers_that_live_deliver_everything_once(
    start_ledger: StartLedger, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
    async with AsyncExitStack() as stack:
        receivers = [await stack.enter_async_context(Receiver()) for _ in range(RECEIVERS)]
        for receiver in receivers:
            await subscribe(ledger, receiver)
        running = await workers(stack, 3, ledger=ledger, directory=tmp_path, lanyard=lanyard)
        events = []
        for _ in range(scaled(25)):
            events += await publish(ledger.services.database, 20)
            await asyncio.sleep(0.05)
        await until_delivered(ledger, receivers, events, within_s=30)
        for receiver in receivers:
            assert sorted(receiver.ids) == sorted(events)
        for worker in running:
            assert (await worker.terminate())[0] == 0
    assert await ledger.value("select count(*) from webhook_attempt") == len(events) * RECEIVERS


async def test_d7_a_worker_told_to_stop_finishes_what_it_sends_and_notes_it(
    start_ledger: StartLedger, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with the engine cancelled at the signal: what was delivered was delivered again."""
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(Receiver())
        slow.delay_s = 3.0
        hanging = await stack.enter_async_context(Receiver("hang"))
        for receiver in (slow, hanging):
            await subscribe(ledger, receiver)
        (worker,) = await workers(stack, 1, ledger=ledger, directory=tmp_path, lanyard=lanyard)
        await publish(ledger.services.database, 100)
        async with asyncio.timeout(20):
            while not slow.received or not hanging.received:
                await asyncio.sleep(0.05)
        code, took_s = await worker.terminate()
        assert code == 0
        assert took_s < STOPPED_S
        assert worker.events("outcomes of deliveries are lost; they are sent again") == []
    delivered = await ledger.sql("select event_id::text from webhook_delivery where status = 'delivered'")
    assert sorted(row["event_id"] for row in delivered) == sorted(slow.ids)
    assert await ledger.value("select count(*) from webhook_attempt where error is not null") == len(hanging.ids)
    assert await ledger.value("select count(*) from webhook_delivery where claimed_until is not null") == 0
