"""Somebody holds rows of one subscriber (sends a range again, deletes it): the others are not kept waiting."""

import asyncio

import asyncpg

from tests.deliveries.telling import Telling
from tests.fakes.receiver import Receiver


async def test_a_subscriber_that_is_held_keeps_nobody_elses_outcomes_waiting(shop: Telling) -> None:
    """Seen failing with a recorder that waits for every lock."""
    async with Receiver("500") as failing, Receiver() as healthy:
        held = await shop.subscribe(failing)
        other = await shop.subscribe(healthy)
        connection = await asyncpg.connect(shop.ledger.database_url)
        try:
            async with connection.transaction():
                await connection.execute("select from webhook_subscriber where id = $1 for no key update", held.id)
                await shop.publish(3)
                async with asyncio.timeout(5):
                    while len(healthy.received) < 3 or len(failing.received) < 3:
                        await asyncio.sleep(0.02)
                await asyncio.sleep(1)
                during = {row["status"] for row in await shop.deliveries(other)}
        finally:
            await connection.close()
        await shop.settle()
    assert during == {"delivered"}
    assert (await shop.subscriber(held))["failing_since"] is not None
    assert {row["status"] for row in await shop.deliveries(held)} == {"pending"}
    assert await shop.ledger.value("select count(*) from webhook_attempt") == 6


async def test_deliveries_that_are_held_keep_nobody_elses_outcomes_waiting(shop: Telling) -> None:
    """Seen failing with a recorder that waits for every lock."""
    async with Receiver() as slow, Receiver() as healthy:
        held = await shop.subscribe(slow)
        other = await shop.subscribe(healthy)
        slow.delay_s = healthy.delay_s = 0.5
        await shop.publish(3)
        while not slow.received:
            await shop.engine_turn()
        connection = await asyncpg.connect(shop.ledger.database_url)
        try:
            async with connection.transaction():
                await connection.execute(
                    "select from webhook_delivery where subscriber_id = $1 for no key update", held.id
                )
                await asyncio.sleep(1.5)
                during = {row["status"] for row in await shop.deliveries(other)}
        finally:
            await connection.close()
        await shop.settle()
    assert during == {"delivered"}
    assert {row["status"] for row in await shop.deliveries(held)} == {"delivered"}
    assert await shop.ledger.value("select count(*) from webhook_attempt") == 6
