"""Makes deliveries and mails of events, in the worker.

An event is stored in the transaction that made it true, and waits for this. Several workers share the work: each
takes events that nobody else holds, and what it makes of them is stored together with the note that it was made.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

import structlog

from ledger.database.connection import Connection, is_database_in_trouble
from ledger.database.transaction import Database, Tx
from ledger.deliveries.store import NewDelivery, insert_deliveries
from ledger.errors import Unavailable
from ledger.events import FannedEvent
from ledger.mail.making import make_mails
from ledger.web import metrics
from ledger.webhooks.store import Subscriber, list_wanting

log = structlog.get_logger("ledger.fanout")

POLL_S = 0.2
EVENTS_AT_ONCE = 500
# A transaction that makes more than these would take seconds.
_DELIVERIES_AT_ONCE = 5_000
_AGAIN_S = 1.0
# A failure may be somebody else's, such as a subscriber that is deleted in the same moment.
_TRIES = 5


class FanOut:
    """The loop of one process. `on_deliveries` is called when there are new deliveries."""

    def __init__(self, database: Database, *, on_deliveries: Callable[[], None]) -> None:
        self._database = database
        self._on_deliveries = on_deliveries
        self._at_once = EVENTS_AT_ONCE
        # Events that nothing can be made of, because of a fault of ours, and how often that was tried.
        self._failures: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Fans events out until `stop` is set. A database that is away is waited for."""
        while not stop.is_set():
            pause_s = POLL_S
            try:
                if await self._has_waiting() and await self.fan_out():
                    continue
            except Exception as error:
                log.warning("fan-out interrupted", reason=type(error).__name__, again_in_s=_AGAIN_S)
                pause_s = _AGAIN_S
                with suppress(Exception):
                    await self._narrow_down(error)
            try:
                async with asyncio.timeout(pause_s):
                    await stop.wait()
            except TimeoutError:
                continue

    async def _has_waiting(self) -> bool:
        found: bool = await self._database.pool.fetchval("select exists (select from event where not is_fanned_out)")
        return found

    async def _narrow_down(self, error: Exception) -> None:
        """After a failure fewer events are taken; the one that fails alone again and again is left aside at last."""
        if self._at_once > 1:
            self._at_once //= 2
            return
        if is_database_in_trouble(error) or isinstance(error, Unavailable):
            return
        async with self._database.atomically() as connection:
            for event in await _lock_waiting(connection, limit=1, left_aside=self._left_aside()):
                self._failures[event.id] += 1
                if self._failures[event.id] == _TRIES:
                    log.error("event left aside", event_id=event.id, type=event.type, exc_info=error)

    def _left_aside(self) -> list[str]:
        """What was given up; the next start tries it again."""
        return [event_id for event_id, failures in self._failures.items() if failures >= _TRIES]

    async def fan_out(self) -> bool:
        """Makes deliveries and mails of events that wait; tells whether there may be more of them."""
        at_once = self._at_once
        async with self._database.transaction_by(kind="system", name="fanout") as tx:
            events = await _lock_waiting(tx.connection, limit=at_once, left_aside=self._left_aside())
            # Who is read after the events were seen has heard of everything that happened before it was there.
            subscribers = await list_wanting(tx.connection, event_types={event.type for event in events})
            taken = events[: max(1, _DELIVERIES_AT_ONCE // max(1, len(subscribers)))]
            deliveries = _deliveries_of(tx, taken, subscribers)
            if deliveries:
                await insert_deliveries(tx.connection, deliveries=deliveries, now=tx.now)
            await make_mails(tx, events=taken)
            await _update_fanned_out(tx.connection, event_ids=[event.id for event in taken])
        self._at_once = min(2 * at_once, EVENTS_AT_ONCE)
        metrics.events_fanned_out.inc(len(taken))
        if deliveries:
            self._on_deliveries()
        return len(events) == at_once or len(taken) < len(events)


def _deliveries_of(tx: Tx, events: Sequence[FannedEvent], subscribers: Sequence[Subscriber]) -> list[NewDelivery]:
    return [
        NewDelivery(id=tx.ids.new(), event_id=event.id, event_type=event.type, subscriber_id=subscriber.id)
        for event in events
        for subscriber in subscribers
        if subscriber.wants(event.type)
    ]


async def _lock_waiting(connection: Connection, *, limit: int, left_aside: Collection[str]) -> list[FannedEvent]:
    rows = await connection.fetch(
        """
        select id::text, type, subject_id::text, person_id, coalesce(data, '{}') as data, created_at
        from event where not is_fanned_out and id <> all($2::uuid[]) order by id limit $1 for update skip locked
        """,
        limit,
        list(left_aside),
    )
    return [FannedEvent(**dict(row)) for row in rows]


async def _update_fanned_out(connection: Connection, *, event_ids: Sequence[str]) -> None:
    await connection.execute("update event set is_fanned_out = true where id = any($1::uuid[])", event_ids)
