"""The same composition root, running jobs and schedules.

Jobs and schedules are PgQueuer's, on Ledger's own database: a job is written in the transaction that asks for it, a
schedule runs once in the whole installation, and what a killed worker had begun is taken over by another.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import structlog
from pgqueuer import PgQueuer
from pgqueuer.models import Schedule

from ledger.app import APP_VERSION, build_lanyard, heartbeating
from ledger.audit.actions import SEALED_AT_ONCE, seal_entries
from ledger.clock import Clock, SystemClock
from ledger.database.transaction import Actor, Database
from ledger.ids import TimeOrderedIds
from ledger.settings import Settings
from ledger.system.jobs import purge_idempotency_records, purge_queue_log
from ledger.system.store import delete_worker, upsert_worker
from ledger.web import metrics

log = structlog.get_logger("ledger.worker")

# A job works on the database and returns how much it did.
Job = Callable[[Database], Awaitable[int]]

SEEN_EVERY_S = 10.0
CONNECT_AGAIN_S = 2.0
# A job whose worker fell silent for this long is taken over.
TAKEOVER_AFTER = timedelta(seconds=30)


async def run_worker(settings: Settings, stop: asyncio.Event, *, clock: Clock | None = None) -> None:
    """Runs jobs until `stop` is set, then finishes what runs. A database that is away is waited for."""
    database = Database(
        settings.require_database_url(),
        pool_size=settings.worker_database_pool,
        clock=clock or SystemClock(),
        ids=TimeOrderedIds(),
    )
    lanyard = build_lanyard(settings)
    await database.open()
    worker_id = f"{socket.gethostname()}:{os.getpid()}"
    seen = asyncio.create_task(_report(database, worker_id=worker_id), name="worker report")
    try:
        async with heartbeating(lanyard, database):
            await _keep_queue_running(settings, database, stop)
    finally:
        seen.cancel()
        await asyncio.gather(seen, return_exceptions=True)
        await _say_goodbye(database, worker_id=worker_id)
        await database.close()
        if lanyard is not None:
            await lanyard.close()


async def _keep_queue_running(settings: Settings, database: Database, stop: asyncio.Event) -> None:
    """Starts the queue anew whenever the database took its connections away."""
    while not stop.is_set():
        try:
            await _run_queue(settings, database, stop)
        except Exception as error:
            log.warning("queue interrupted", reason=type(error).__name__, again_in_s=CONNECT_AGAIN_S)
            try:
                await asyncio.wait_for(stop.wait(), timeout=CONNECT_AGAIN_S)
            except TimeoutError:
                continue


async def _run_queue(settings: Settings, database: Database, stop: asyncio.Event) -> None:
    lost = asyncio.Event()

    async def watch(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        connection.add_termination_listener(lambda _: lost.set())

    # Connections are closed for no other reason than their loss. One of them is told of new jobs, and the queue does
    # not listen again by itself, so the loss of any is a reason to start anew.
    pool = await asyncpg.create_pool(
        settings.require_database_url(),
        min_size=2,
        max_size=max(4, settings.worker_database_pool // 2),
        timeout=5,
        max_queries=sys.maxsize,
        max_inactive_connection_lifetime=0,
        init=watch,
        server_settings={"application_name": "ledger worker"},
    )
    try:
        queue = PgQueuer.from_asyncpg_pool(pool)
        _add_schedules(queue, database)
        running = asyncio.create_task(
            queue.run(
                # Jobs announce themselves; the poll is for what the announcement missed.
                dequeue_timeout=timedelta(seconds=2),
                batch_size=settings.worker_concurrency,
                max_concurrent_tasks=settings.worker_concurrency * 2,
                heartbeat_timeout=TAKEOVER_AFTER,
            ),
            name="queue",
        )
        ends = [running, asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        queue.shutdown.set()
        for end in ends[1:]:
            end.cancel()
        await running
        if lost.is_set():
            raise ConnectionResetError("a connection of the queue was lost")
    finally:
        try:
            await asyncio.wait_for(pool.close(), timeout=5)
        except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pool.terminate()


def _add_schedules(queue: PgQueuer, database: Database) -> None:
    @queue.schedule("audit.seal", "* * * * *")
    async def seal(_schedule: Schedule) -> None:
        await _run_job("audit.seal", database, _seal_all)

    @queue.schedule("idempotency.purge", "17 3 * * *")
    async def purge(_schedule: Schedule) -> None:
        await _run_job("idempotency.purge", database, purge_idempotency_records)

    @queue.schedule("queue.purge", "47 3 * * *")
    async def purge_log(_schedule: Schedule) -> None:
        await _run_job("queue.purge", database, purge_queue_log)


async def _seal_all(database: Database) -> int:
    sealed = 0
    while True:
        async with database.transaction(Actor(kind="system", name="audit.seal")) as tx:
            now_sealed = await seal_entries(tx)
        sealed += now_sealed
        if now_sealed < SEALED_AT_ONCE:
            return sealed


async def _run_job(name: str, database: Database, job: Job) -> None:
    started = asyncio.get_running_loop().time()
    try:
        count = await job(database)
    except Exception as error:
        metrics.job_runs.labels(name, "failed").inc()
        log.error("job failed", job=name, reason=type(error).__name__, exc_info=error)
        raise
    duration_s = asyncio.get_running_loop().time() - started
    metrics.job_runs.labels(name, "succeeded").inc()
    log.info("job ran", job=name, count=count, duration_ms=round(duration_s * 1000))


async def _report(database: Database, *, worker_id: str) -> None:
    while True:
        try:
            async with database.connection() as connection:
                await upsert_worker(connection, worker_id=worker_id, version=APP_VERSION, now=database.clock.now())
        except Exception as error:
            log.warning("worker cannot report", reason=type(error).__name__)
        await asyncio.sleep(SEEN_EVERY_S)


async def _say_goodbye(database: Database, *, worker_id: str) -> None:
    try:
        async with asyncio.timeout(2), database.connection() as connection:
            await delete_worker(connection, worker_id=worker_id)
    except Exception as error:
        log.warning("worker cannot say goodbye", reason=type(error).__name__)
