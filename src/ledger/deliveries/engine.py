"""Sends deliveries, in the worker: for each subscriber in a lane of its own.

A lane has its own limit of attempts at a time, and its own stock of claimed deliveries. So a subscriber that hangs,
drips or is dead fills its own lane and nobody else's. What is claimed is this process's alone until the claim lapses;
any number of workers share the work, and what a killed one had claimed is taken over.
"""

import asyncio
import random
import resource
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from ledger.crypto import Vault
from ledger.database.transaction import Database
from ledger.deliveries.messages import Message, SecretsCache, headers_for, make_message
from ledger.deliveries.recording import Recorder, Settled
from ledger.deliveries.rules import Delivered, DeliveryStatus, GiveUp, Result, RetryAt, after_attempt
from ledger.deliveries.sending import TIMEOUT_S, Answered, Sender
from ledger.deliveries.store import (
    ClaimedDelivery,
    Outcome,
    claim_deliveries,
    fail_deliveries_of_disabled,
    list_stored_events,
    release_deliveries,
)
from ledger.web import metrics
from ledger.web.call import Services
from ledger.webhooks.name_lookup import NameLookup
from ledger.webhooks.sealing import SecretsUnreadable
from ledger.webhooks.store import SUBSCRIBERS_MAX, Subscriber, list_subscribers_of

log = structlog.get_logger("ledger.deliveries")

# Attempts at a time for one subscriber, and how many deliveries are claimed for it, those being sent included.
LANE_CONCURRENCY = 20
LANE_STOCK = 40
POLL_S = 0.25
# Claims this far apart take more together.
_CLAIMS_APART_S = 0.02
_AGAIN_S = 1.0
_SWEEP_EVERY_S = 1.0
_SWEPT_AT_ONCE = 500
# All lanes of all subscribers at once, and some.
_OPEN_FILES = 2 * LANE_CONCURRENCY * SUBSCRIBERS_MAX
# SIGTERM leaves 15 s: attempts end by themselves within their time-out, and then are recorded.
_FINISH_ATTEMPTS_S = TIMEOUT_S + 1
_FINISH_RECORDING_S = 3.0
# An attempt is only begun when it ends before somebody else may take the delivery over.
_CLAIM_NEEDED = timedelta(seconds=TIMEOUT_S + 5)

DISABLED_SENTENCE = "The subscriber is disabled"
PURGED_SENTENCE = "What this event said was deleted in time, so it cannot be sent any more"

_COUNTERS = {
    DeliveryStatus.DELIVERED: metrics.delivery_attempts.labels("delivered"),
    DeliveryStatus.PENDING: metrics.delivery_attempts.labels("failed"),
    DeliveryStatus.FAILED: metrics.delivery_attempts.labels("given_up"),
}


class _Lane:
    """One subscriber's deliveries in this process."""

    def __init__(self, subscriber: Subscriber, vault: Vault) -> None:
        self.subscriber = subscriber
        self.secrets = SecretsCache(vault)
        self.waiting: deque[tuple[ClaimedDelivery, Message | None]] = deque()
        self.running = 0
        # Whether the last claim filled it up, so that more may be due.
        self.has_more = False

    @property
    def stock(self) -> int:
        return len(self.waiting) + self.running

    @property
    def is_hungry(self) -> bool:
        return self.has_more and self.stock <= LANE_STOCK // 2


@asynccontextmanager
async def sending_deliveries(services: Services, *, user_agent: str) -> AsyncIterator["DeliveryEngine"]:
    """The engine with its connections to subscribers, which are closed in the end. Whoever asks for it runs it."""
    _allow_many_connections()
    sender = Sender(
        allowed=services.settings.webhook_allowed_networks, names=services.get(NameLookup), user_agent=user_agent
    )
    try:
        yield DeliveryEngine(
            database=services.database,
            vault=services.vault,
            sender=sender,
            jitter=lambda: random.uniform(-1, 1),  # noqa: S311 - spreads retries
        )
    finally:
        await sender.close()


def _allow_many_connections() -> None:
    """Lets the process open as many connections as the system allows, but no absurd number: every lane needs some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class DeliveryEngine:
    """The loop of one process. `jitter` returns a number from -1 to 1 for each retry."""

    def __init__(self, *, database: Database, vault: Vault, sender: Sender, jitter: Callable[[], float]) -> None:
        self._database = database
        self._vault = vault
        self._sender = sender
        self._jitter = jitter
        self._recorder = Recorder(database)
        self._lanes: dict[str, _Lane] = {}
        self._runners: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._swept_at_s = 0.0

    def wake(self) -> None:
        """Tells it that deliveries may have become due."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sends what is due until `stop` is set, and then finishes what is being sent, within 15 s."""
        recording = asyncio.create_task(self._recorder.run(), name="record deliveries")
        stopping = asyncio.create_task(stop.wait(), name="deliveries stop")
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                await self._round(stop)
            await self._finish()
        finally:
            for task in (recording, stopping, *self._runners):
                task.cancel()
            await asyncio.gather(recording, stopping, *self._runners, return_exceptions=True)

    async def _round(self, stop: asyncio.Event) -> None:
        self._wake.clear()
        if stop.is_set():
            return
        try:
            await self._sweep()
            await self._take_up()
        except Exception as error:
            log.warning("deliveries interrupted", reason=type(error).__name__, again_in_s=_AGAIN_S)
            await asyncio.sleep(_AGAIN_S)
            return
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_CLAIMS_APART_S)

    async def _sweep(self) -> None:
        """Gives up what waits for subscribers that are disabled."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._swept_at_s < _SWEEP_EVERY_S:
            return
        async with self._database.connection() as connection:
            found = await fail_deliveries_of_disabled(
                connection, reason=DISABLED_SENTENCE, now=self._database.clock.now(), limit=_SWEPT_AT_ONCE
            )
        if found < _SWEPT_AT_ONCE:
            self._swept_at_s = now_s

    async def _take_up(self) -> None:
        """Claims what is due, as much as the lanes have room for, and sees how their subscribers are now."""
        stock = {subscriber_id: lane.stock for subscriber_id, lane in self._lanes.items() if lane.stock}
        # All or nothing: what was claimed and cannot be sent would have to wait until the claim lapses.
        async with self._database.atomically() as connection:
            claimed = await claim_deliveries(
                connection, stock=stock, stock_max=LANE_STOCK, now=self._database.clock.now()
            )
            if claimed:
                # A claim that is lost with the server is made again; it need not wait for the disk.
                await connection.execute("set local synchronous_commit = off")
            concerned = {each.subscriber_id for each in claimed}
            concerned |= {subscriber_id for subscriber_id, lane in self._lanes.items() if lane.waiting}
            subscribers = (
                await list_subscribers_of(connection, subscriber_ids=concerned)
                if concerned
                else dict[str, Subscriber]()
            )
            events = (
                await list_stored_events(connection, event_ids={each.event_id for each in claimed}) if claimed else {}
            )
        self._fill(claimed, subscribers, {event_id: make_message(event) for event_id, event in events.items()})
        counts = Counter(each.subscriber_id for each in claimed)
        for subscriber_id, lane in self._lanes.items():
            room = LANE_STOCK - stock.get(subscriber_id, 0)
            if room > 0:
                lane.has_more = counts[subscriber_id] >= room
        await self._let_go(subscribers)

    def _fill(
        self,
        claimed: Sequence[ClaimedDelivery],
        subscribers: Mapping[str, Subscriber],
        messages: Mapping[str, Message | None],
    ) -> None:
        for subscriber_id, subscriber in subscribers.items():
            if subscriber_id in self._lanes:
                self._lanes[subscriber_id].subscriber = subscriber
            else:
                self._lanes[subscriber_id] = _Lane(subscriber, self._vault)
        for delivery in claimed:
            # A subscriber that was deleted in this moment took its deliveries along.
            if delivery.subscriber_id in subscribers:
                self._lanes[delivery.subscriber_id].waiting.append((delivery, messages.get(delivery.event_id)))

    async def _let_go(self, subscribers: Mapping[str, Subscriber]) -> None:
        """Starts what may be sent, gives back what may not any more, and forgets lanes that are empty."""
        given_back: list[ClaimedDelivery] = []
        for subscriber_id, lane in list(self._lanes.items()):
            found = subscribers.get(subscriber_id)
            if lane.waiting and (found is None or not found.is_active):
                given_back += [delivery for delivery, _ in lane.waiting]
                lane.waiting.clear()
            for _ in range(min(LANE_CONCURRENCY - lane.running, len(lane.waiting))):
                self._start(lane)
            if not lane.stock and len(self._lanes) > SUBSCRIBERS_MAX:
                del self._lanes[subscriber_id]
        if given_back:
            await self._release(given_back)

    async def _release(self, deliveries: Sequence[ClaimedDelivery]) -> None:
        async with self._database.connection() as connection:
            await release_deliveries(connection, deliveries=deliveries)

    def _start(self, lane: _Lane) -> None:
        lane.running += 1
        runner = asyncio.create_task(self._run(lane), name="deliver")
        self._runners.add(runner)
        runner.add_done_callback(self._runners.discard)

    async def _run(self, lane: _Lane) -> None:
        try:
            while lane.waiting:
                delivery, message = lane.waiting.popleft()
                await self._deliver(lane, delivery, message)
                if lane.is_hungry:
                    self._wake.set()
        finally:
            lane.running -= 1

    async def _deliver(self, lane: _Lane, delivery: ClaimedDelivery, message: Message | None) -> None:
        started_at = self._database.clock.now()
        if delivery.claimed_until - started_at < _CLAIM_NEEDED:
            return
        is_theirs = False
        # It may be changed while this is being sent.
        url = lane.subscriber.url
        try:
            headers = None if message is None else self._headers(lane, message, now=started_at)
        except SecretsUnreadable as unreadable:
            answered = Answered(status=None, error=unreadable.sentence)
        except Exception as fault:
            log.error("delivery cannot be made", delivery=delivery.id, exc_info=fault)
            answered = Answered(status=None, error=f"It could not be made ({type(fault).__name__})")
        else:
            if message is None or headers is None:
                answered = Answered(status=None, error=PURGED_SENTENCE)
            else:
                is_theirs = True
                answered = await self._sender.send(url=url, headers=headers, body=message.body)
        self._recorder.add(
            self._settle(
                delivery,
                answered,
                url=url,
                started_at=started_at,
                is_theirs=is_theirs,
                can_be_sent=message is not None,
            )
        )

    def _headers(self, lane: _Lane, message: Message, *, now: datetime) -> dict[str, str]:
        return headers_for(message, secrets=lane.secrets.of(lane.subscriber, now=now), now=now)

    def _settle(
        self,
        delivery: ClaimedDelivery,
        answered: Answered,
        *,
        url: str,
        started_at: datetime,
        is_theirs: bool,
        can_be_sent: bool,
    ) -> Settled:
        """What becomes of a delivery. A failure that is not theirs is tried again, and not held against them."""
        now = self._database.clock.now()
        attempts = delivery.attempts + 1
        verdict = (
            after_attempt(
                status=answered.status,
                retry_after=answered.retry_after,
                attempts=attempts,
                now=now,
                jitter=self._jitter(),
            )
            if can_be_sent
            else GiveUp(is_gone=False)
        )
        status = _status_after(verdict)
        _COUNTERS[status].inc()
        metrics.delivery_duration.observe(answered.duration_ms / 1000)
        return Settled(
            outcome=Outcome(
                delivery_id=delivery.id,
                claimed_until=delivery.claimed_until,
                status=status,
                attempts=attempts,
                next_try_at=verdict.at if isinstance(verdict, RetryAt) else None,
                settled_at=None if isinstance(verdict, RetryAt) else now,
                http_status=answered.status,
                error=answered.error,
                answer=answered.answer,
                started_at=started_at,
                duration_ms=answered.duration_ms,
            ),
            subscriber_id=delivery.subscriber_id,
            url=url,
            result=Result(now, isinstance(verdict, Delivered)) if is_theirs else None,
            is_gone=isinstance(verdict, GiveUp) and verdict.is_gone,
        )

    async def _finish(self) -> None:
        """Gives back what is not being sent yet, waits for what is, and stores what came of it."""
        waiting = [delivery for lane in self._lanes.values() for delivery, _ in lane.waiting]
        for lane in self._lanes.values():
            lane.waiting.clear()
        if self._runners:
            await asyncio.wait(self._runners, timeout=_FINISH_ATTEMPTS_S)
        try:
            async with asyncio.timeout(_FINISH_RECORDING_S):
                await self._recorder.flush()
                if waiting:
                    await self._release(waiting)
        except Exception as error:
            log.warning("outcomes of deliveries are lost; they are sent again", reason=type(error).__name__)


def _status_after(verdict: Delivered | RetryAt | GiveUp) -> DeliveryStatus:
    if isinstance(verdict, Delivered):
        return DeliveryStatus.DELIVERED
    return DeliveryStatus.PENDING if isinstance(verdict, RetryAt) else DeliveryStatus.FAILED
