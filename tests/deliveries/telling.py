"""A Ledger that tells receivers on loopback: what the worker does is run beside it, on the same clock."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
import msgspec

from ledger.database.transaction import Database, JsonObject, NewEvent
from ledger.deliveries.engine import DeliveryEngine, sending_deliveries
from ledger.fanout import FanOut
from tests.fakes.receiver import Receiver
from tests.installation import USER, Installation

# What lets a delivery go to this machine.
LOOPBACK = "127.0.0.0/8"
_QUIET_WITHIN_S = 30.0


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber and the secrets it was given."""

    id: str
    secret: str
    signing_secret: str


class Telling:
    """A Ledger, and what its worker does about events."""

    def __init__(self, ledger: Installation, engine: DeliveryEngine) -> None:
        self.ledger = ledger
        self.engine = engine

    async def subscribe(self, receiver: Receiver | str, **changes: object) -> Subscribed:
        """Adds a subscriber for a receiver (or an address), of all events unless a test wants something else."""
        return await subscribe(self.ledger, receiver, **changes)

    async def publish(self, count: int = 1, *, type_: str = "invoice.created") -> list[str]:
        """Publishes events about a person, as an action does; returns their ids in order."""
        return await publish(self.ledger.services.database, count, type_=type_)

    async def settle(self) -> None:
        """Waits until nothing is left that is due now, and everything is recorded."""
        await until_quiet(self.ledger, self.engine)

    async def tell(self, count: int = 1, *, type_: str = "invoice.created") -> list[str]:
        """Publishes events and waits until all that is due is done."""
        ids = await self.publish(count, type_=type_)
        await self.settle()
        return ids

    async def engine_turn(self) -> None:
        """Lets the engine look at once what is due."""
        self.engine.wake()
        await asyncio.sleep(0.02)

    async def pass_by(self, step: timedelta) -> None:
        """Moves the clock and lets happen what is due then."""
        self.ledger.clock.move(step)
        await self.settle()

    async def deliveries(self, subscriber: Subscribed | None = None) -> list[asyncpg.Record]:
        """The rows of deliveries, the oldest event first."""
        return await self.ledger.sql(
            """
            select id::text, event_id::text, status, attempts, next_try_at, last_status, last_error, settled_at
            from webhook_delivery where $1::uuid is null or subscriber_id = $1 order by event_id, id
            """,
            None if subscriber is None else subscriber.id,
        )

    async def delivery(self) -> asyncpg.Record:
        """The only delivery."""
        (row,) = await self.deliveries()
        return row

    async def subscriber(self, subscriber: Subscribed) -> asyncpg.Record:
        """A subscriber's row."""
        (row,) = await self.ledger.sql("select * from webhook_subscriber where id = $1", subscriber.id)
        return row


async def subscribe(ledger: Installation, receiver: Receiver | str, **changes: object) -> Subscribed:
    """Adds a subscriber to a Ledger beside which nothing needs to run."""
    url = receiver if isinstance(receiver, str) else receiver.url
    answer = await ledger.staff.post("/api/webhooks/subscribers", {"name": "Shop", "url": url} | changes)
    assert answer.status == 201, answer.content
    made = answer.body
    return Subscribed(id=made["id"], secret=made["secret"], signing_secret=made["signingSecret"])


async def publish(database: Database, count: int, *, type_: str = "invoice.created") -> list[str]:
    """Publishes events about `USER`; returns their ids in order."""
    async with database.transaction_by(kind="system", name="test") as tx:
        person_id = await tx.ensure_person(USER)
        for number in range(count):
            data: JsonObject = {"invoiceNumber": f"INV-2026-{number + 1:04}", "total": 5000}
            tx.publish(NewEvent(type=type_, subject_id=None, person_id=person_id, data=data))
        await tx.flush()
        rows = await tx.connection.fetch("select id::text from event order by id desc limit $1", count)
    return [row["id"] for row in reversed(rows)]


async def until_quiet(ledger: Installation, engine: DeliveryEngine) -> None:
    """Waits until no event waits, no delivery is due and none is claimed."""
    connection = await asyncpg.connect(ledger.database_url)
    try:
        async with asyncio.timeout(_QUIET_WITHIN_S):
            while await connection.fetchval(
                """
                select exists (select from event where not is_fanned_out) or exists (
                    select from webhook_delivery
                    where status = 'pending' and (next_try_at <= $1 or claimed_until is not null)
                )
                """,
                ledger.clock.now(),
            ):
                engine.wake()
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


@asynccontextmanager
async def telling(ledger: Installation) -> AsyncIterator[Telling]:
    """Runs a worker's fan-out and engine beside a Ledger."""
    stop = asyncio.Event()
    async with sending_deliveries(ledger.services, user_agent="Ledger/test") as engine:
        running = [
            asyncio.create_task(engine.run(stop)),
            asyncio.create_task(FanOut(ledger.services.database, on_deliveries=engine.wake).run(stop)),
        ]
        try:
            yield Telling(ledger, engine)
        finally:
            stop.set()
            await _ended(running)


async def _ended(running: Iterable["asyncio.Task[None]"]) -> None:
    """Waits for tasks to end by themselves; what a hanging receiver holds up is cut off."""
    done, late = await asyncio.wait(running, timeout=2)
    for task in late:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    for task in done:
        task.result()
