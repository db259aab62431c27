"""Stores what came of attempts: many in one transaction, the next while that one is being committed."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime
from itertools import islice

import asyncpg
import msgspec
import structlog

from ledger.database.connection import is_database_in_trouble
from ledger.database.transaction import Database, Tx
from ledger.deliveries.rules import FAILING_MAX, Result, failing_after, is_given_up
from ledger.deliveries.store import Outcome, list_standings, update_settled
from ledger.errors import NotFound, Unavailable
from ledger.webhooks.actions import disable_subscriber
from ledger.webhooks.store import update_failing_since

log = structlog.get_logger("ledger.deliveries")

# Every commit costs the disk a write, so what ends within this time shares one.
GATHER_S = 0.05
BATCH_MAX = 500
AGAIN_S = 0.5
# Who sends a range again, or deletes a subscriber, holds its rows for up to seconds.
LOCK_WAIT_MS = 100

GONE_REASON = "It answered 410 (Gone): it wants no deliveries any more."


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt's outcome, and what it says of the subscriber at `url`: None when the attempt failed through us."""

    outcome: Outcome
    subscriber_id: str
    url: str
    result: Result | None
    is_gone: bool


class Recorder:
    """Gathers outcomes of this process and stores them. What cannot be stored now is kept and tried again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[Settled] = deque()
        self._arrived = asyncio.Event()
        self._storing = asyncio.Lock()

    def add(self, settled: Settled) -> None:
        """Hands an outcome over; it is stored soon."""
        self._waiting.append(settled)
        self._arrived.set()

    async def run(self) -> None:
        """Stores until it is cancelled."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER_S)
            await self.flush()
            self._arrived.clear()
            if self._waiting:
                self._arrived.set()

    async def flush(self) -> None:
        """Stores everything that is there. A database that is away is waited for."""
        async with self._storing:
            while self._waiting:
                batch = list(islice(self._waiting, BATCH_MAX))
                try:
                    held = await self._store(batch)
                except Exception as error:
                    log.warning("outcomes of deliveries wait", count=len(self._waiting), reason=type(error).__name__)
                    await asyncio.sleep(AGAIN_S)
                    continue
                for _ in batch:
                    self._waiting.popleft()
                self._waiting.extend(held)
                if held and len(held) == len(self._waiting):
                    await asyncio.sleep(AGAIN_S)

    async def _store(self, batch: Sequence[Settled]) -> list[Settled]:
        """Stores a batch; returns those of subscribers whom somebody else holds, which keep the others not waiting.

        If it fails otherwise, its members one by one, so that a bad one fails alone. Raises when the database is away
        or in trouble.
        """
        try:
            await store_outcomes(self._database, batch)
        except asyncpg.LockNotAvailableError:
            subscriber_ids = list(dict.fromkeys(each.subscriber_id for each in batch))
            if len(subscriber_ids) == 1:
                return list(batch)
            held: list[Settled] = []
            for subscriber_id in subscriber_ids:
                held += await self._store([each for each in batch if each.subscriber_id == subscriber_id])
            return held
        except Exception as error:
            if _is_for_later(error):
                raise
            log.warning("outcomes of deliveries are stored one by one", reason=type(error).__name__)
            for settled in batch:
                await self._store_alone(settled)
        return []

    async def _store_alone(self, settled: Settled) -> None:
        try:
            await store_outcomes(self._database, [settled])
        except Exception as error:
            if _is_for_later(error):
                raise
            # Its claim lapses, and it is sent again.
            log.error("outcome of a delivery was lost", delivery=settled.outcome.delivery_id, exc_info=error)


def _is_for_later(error: Exception) -> bool:
    return is_database_in_trouble(error) or isinstance(error, Unavailable)


async def store_outcomes(database: Database, batch: Sequence[Settled]) -> None:
    """Stores what came of attempts, and what that means for their subscribers."""
    async with database.transaction_by(kind="system", name="deliveries") as tx:
        # Shorter than PostgreSQL waits before it looks for a deadlock, so this never ends somebody else's request.
        await tx.connection.execute(f"set local lock_timeout = '{LOCK_WAIT_MS}ms'")
        # Subscribers before deliveries, as everybody who locks both does.
        await _note_results(tx, batch)
        await update_settled(tx.connection, outcomes=[each.outcome for each in batch])


async def _note_results(tx: Tx, batch: Sequence[Settled]) -> None:
    told = [(each, each.result) for each in batch if each.result is not None]
    standings = await list_standings(tx.connection, subscriber_ids={each.subscriber_id for each, _ in told})
    results: dict[str, list[Result]] = defaultdict(list)
    gone: set[str] = set()
    for settled, result in told:
        standing = standings.get(settled.subscriber_id)
        # What an address answered that staff has replaced meanwhile says nothing of the new one.
        if standing is not None and standing.url == settled.url:
            results[settled.subscriber_id].append(result)
            if settled.is_gone:
                gone.add(settled.subscriber_id)
    for subscriber_id in sorted(results):
        before = standings[subscriber_id].failing_since
        after = failing_after(before, results[subscriber_id])
        if after != before:
            await _note_failing(tx, subscriber_id, before=before, after=after)
        if subscriber_id in gone:
            await _disable(tx, subscriber_id, reason=GONE_REASON)
        elif not results[subscriber_id][-1].is_success and is_given_up(after, now=tx.now):
            assert after is not None
            days = FAILING_MAX.days
            await _disable(
                tx, subscriber_id, reason=f"Every delivery has failed for {days} days, since {after:%Y-%m-%d}."
            )


async def _note_failing(tx: Tx, subscriber_id: str, *, before: datetime | None, after: datetime | None) -> None:
    if before is not None:
        await update_failing_since(tx.connection, subscriber_id=subscriber_id, failing_since=None)
    if after is not None:
        await update_failing_since(tx.connection, subscriber_id=subscriber_id, failing_since=after)
    if before is None:
        log.warning("subscriber fails", subscriber=subscriber_id)
    elif after is None:
        log.info("subscriber works again", subscriber=subscriber_id)


async def _disable(tx: Tx, subscriber_id: str, *, reason: str) -> None:
    try:
        if await disable_subscriber(tx, subscriber_id=subscriber_id, reason=reason):
            log.warning("subscriber disabled", subscriber=subscriber_id, why=reason)
    except NotFound:
        # It was deleted in this moment.
        return
