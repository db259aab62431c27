"""How much work waits, and who is there to do it: figures of the whole installation, read from its database.

Each query reads an index of what waits and stops counting at 10 000, so it costs the same however much was done before.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import asyncpg
import msgspec

from ledger.clock import Clock
from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.system.run_store import get_histories
from ledger.system.schedules import History, WorkList
from ledger.web.metrics import Counted
from ledger.web.paging import COUNTED_MAX

# What is due for longer than this is overdue: somebody should look.
OVERDUE_AFTER = timedelta(minutes=1)
WORKER_LIVES_FOR = timedelta(minutes=1)
KEPT_S = 5.0
READ_TIMEOUT_S = 3.0


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that reported within the last minute, and what it counted."""

    worker_id: str
    seen_at: datetime
    counted: list[Counted]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What waits. Counts stop at 10 000."""

    jobs_waiting: Mapping[str, int]
    """By the job's name."""
    events_waiting: int
    """Events nobody was told of yet."""
    oldest_event_at: datetime | None
    deliveries_waiting: int
    deliveries_overdue: int
    mails_waiting: int
    mails_overdue: int
    inbound_failed: int
    """Events of a provider that could not be applied."""
    workers: list[WorkerFigures]
    """Those that live."""
    worker_seen_at: datetime | None
    """When any worker was last seen, within a day."""
    histories: Mapping[str, History]
    """By the schedule's name."""


async def get_figures(connection: Connection, *, work: WorkList, now: datetime) -> Figures:
    """Reads all of them."""
    waiting = await _count_waiting(connection, now=now)
    jobs = await connection.fetch(
        f"""
        select wanted.name, (
            select count(*) from (
                select from pgqueuer q where q.entrypoint = wanted.name and q.status = 'queued'
                order by q.execute_after limit {COUNTED_MAX}
            ) counted
        ) as waiting
        from unnest($1::text[]) as wanted (name)
        """,
        work.jobs,
    )
    workers = await connection.fetch("select worker_id, seen_at, counted from worker_seen order by worker_id")
    histories = await get_histories(connection, names=[schedule.name for schedule in work.schedules])
    return Figures(
        jobs_waiting={row["name"]: row["waiting"] for row in jobs},
        workers=[
            WorkerFigures(
                worker_id=row["worker_id"],
                seen_at=row["seen_at"],
                counted=msgspec.convert(row["counted"] or [], list[Counted]),
            )
            for row in workers
            if now - row["seen_at"] < WORKER_LIVES_FOR
        ],
        worker_seen_at=max((row["seen_at"] for row in workers), default=None),
        histories=histories,
        **dict(waiting),
    )


async def _count_waiting(connection: Connection, *, now: datetime) -> asyncpg.Record:
    # The order names the index: a plan that was made while nothing waited would read the whole table.
    row = await connection.fetchrow(
        f"""
        select
            (select count(*) from (
                select from event where not is_fanned_out order by id limit {COUNTED_MAX}
            ) counted) as events_waiting,
            (select created_at from event where not is_fanned_out order by id limit 1) as oldest_event_at,
            (select count(*) from (
                select from webhook_subscriber s, lateral (
                    select from webhook_delivery d where d.subscriber_id = s.id and d.status = 'pending'
                    order by d.next_try_at limit {COUNTED_MAX}
                ) of_one limit {COUNTED_MAX}
            ) counted) as deliveries_waiting,
            (select count(*) from (
                select from webhook_subscriber s, lateral (
                    select from webhook_delivery d
                    where d.subscriber_id = s.id and d.status = 'pending' and d.next_try_at < $1
                    order by d.next_try_at limit {COUNTED_MAX}
                ) of_one limit {COUNTED_MAX}
            ) counted) as deliveries_overdue,
            (select count(*) from (
                select from mail where status in ('waiting', 'handed_over') order by next_try_at limit {COUNTED_MAX}
            ) counted) as mails_waiting,
            (select count(*) from (
                select from mail where status in ('waiting', 'handed_over') and next_try_at < $1
                order by next_try_at limit {COUNTED_MAX}
            ) counted) as mails_overdue,
            (select count(*) from (
                select from inbound_event where state = 'failed' order by received_at desc, id desc limit {COUNTED_MAX}
            ) counted) as inbound_failed
        """,
        now - OVERDUE_AFTER,
    )
    assert row is not None, "a query without a table has one row"
    return row


class FiguresReader:
    """Reads the figures at most every five seconds in each process, whoever asks and however often."""

    def __init__(self, database: Database, *, work: WorkList, clock: Clock, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._work = work
        self._clock = clock
        self._monotonic = monotonic
        self._one_at_a_time = asyncio.Lock()
        self._kept: Figures | None = None
        self._kept_until = 0.0

    async def get(self) -> Figures:
        """The figures, at most five seconds old. Raises what keeps them from being read, after 3 s at the latest."""
        async with asyncio.timeout(READ_TIMEOUT_S), self._one_at_a_time:
            if self._kept is None or self._monotonic() >= self._kept_until:
                async with self._database.connection() as connection:
                    self._kept = await get_figures(connection, work=self._work, now=self._clock.now())
                self._kept_until = self._monotonic() + KEPT_S
            return self._kept

    def forget(self) -> None:
        """Makes the next `get` read again."""
        self._kept = None
