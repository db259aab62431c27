"""The same composition root, running jobs and schedules, and telling others of events.

Jobs and schedules are PgQueuer's, on Ledger's own database: a job is written in the transaction that asks for it, a
schedule runs once in the whole installation, and what a killed worker had begun is taken over by another.
"""

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import structlog
from pgqueuer import PgQueuer
from pgqueuer.models import Job as QueuedJob
from pgqueuer.models import Schedule as QueuedSchedule

from ledger.app import APP_VERSION, build_lanyard, build_services, close_services, heartbeating
from ledger.clock import Clock, SystemClock
from ledger.database.installation import delete_worker, get_revision, upsert_worker
from ledger.database.revision import HEAD_REVISION
from ledger.database.transaction import Database
from ledger.deliveries.engine import sending_deliveries
from ledger.errors import LedgerError
from ledger.fanout import FanOut
from ledger.ids import TimeOrderedIds
from ledger.jobs import JOBS, SCHEDULES, Job
from ledger.providers.connections import Connections
from ledger.reconciling import Findings, reconcile_all
from ledger.retention.jobs import Retained, Stopping, apply_retention
from ledger.settings import Settings
from ledger.system.running import run_schedule
from ledger.system.schedules import Schedule
from ledger.web import metrics
from ledger.web.call import Services

log = structlog.get_logger("ledger.worker")

SEEN_EVERY_S = 10.0
CONNECT_AGAIN_S = 2.0
# A job whose worker fell silent for this long is taken over.
TAKEOVER_AFTER = timedelta(seconds=30)
# One connection holds the lock on the run, the other does the work.
RETENTION_POOL = 2
# Seconds come last.
EVERY_15_S = "* * * * * */15"


class NotMigrated(Exception):
    """The database does not have this version's schema yet; perhaps another machine is migrating it."""


async def run_worker(settings: Settings, stop: asyncio.Event, *, clock: Clock | None = None) -> None:
    """Runs jobs and tells others of events until `stop` is set, then finishes what runs.

    A database that is away is waited for.
    """
    lanyard = build_lanyard(settings)
    services = build_services(settings, lanyard=lanyard, clock=clock, pool_size=settings.worker_database_pool)
    services.get(Stopping).follow(stop)
    database = services.database
    await database.open()
    worker_id = f"{socket.gethostname()}:{os.getpid()}"
    seen = asyncio.create_task(_report(database, worker_id=worker_id), name="worker report")
    try:
        async with (
            heartbeating(lanyard, database, services.get(Connections).registry),
            sending_deliveries(services, user_agent=f"Ledger/{APP_VERSION}") as deliveries,
            # When one of them breaks, all end, and the supervisor starts the process anew.
            asyncio.TaskGroup() as running,
        ):
            running.create_task(deliveries.run(stop), name="deliveries")
            running.create_task(FanOut(database, on_deliveries=deliveries.wake).run(stop), name="fan-out")
            running.create_task(_keep_queue_running(settings, services, stop), name="queue")
    finally:
        seen.cancel()
        await asyncio.gather(seen, return_exceptions=True)
        await _say_goodbye(database, worker_id=worker_id)
        await close_services(services, lanyard)


async def reconcile_once(settings: Settings, *, days: int) -> Findings:
    """`ledger reconcile`: what the worker does each night, now, in a process of its own."""
    lanyard = build_lanyard(settings)
    services = build_services(settings, lanyard=lanyard, pool_size=settings.worker_database_pool)
    await services.database.open()
    try:
        await _check_migrated(services.database)
        return await reconcile_all(services, days=days)
    finally:
        await close_services(services, lanyard)


async def retain_once(settings: Settings, *, is_dry: bool) -> Retained:
    """`ledger retention`: what the worker does each night, now, in a process of its own."""
    database = Database(
        settings.require_database_url(), pool_size=RETENTION_POOL, clock=SystemClock(), ids=TimeOrderedIds()
    )
    await database.open()
    try:
        await _check_migrated(database)
        return await apply_retention(database, zone=settings.timezone, is_dry=is_dry)
    finally:
        await database.close()


async def _keep_queue_running(settings: Settings, services: Services, stop: asyncio.Event) -> None:
    """Starts the queue anew whenever the database took its connections away."""
    while not stop.is_set():
        try:
            await _check_migrated(services.database)
            await _run_queue(settings, services, stop)
        except Exception as error:
            reason = str(error) if isinstance(error, NotMigrated) else type(error).__name__
            log.warning("queue interrupted", reason=reason, again_in_s=CONNECT_AGAIN_S)
            try:
                await asyncio.wait_for(stop.wait(), timeout=CONNECT_AGAIN_S)
            except TimeoutError:
                continue


async def _check_migrated(database: Database) -> None:
    async with database.connection() as connection:
        revision = await get_revision(connection)
    if revision is None or revision < HEAD_REVISION:
        raise NotMigrated(f"the schema is at {revision}, {HEAD_REVISION} is needed; run `ledger migrate`")


async def _run_queue(settings: Settings, services: Services, stop: asyncio.Event) -> None:
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
        _register(queue, services)
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


def _register(queue: PgQueuer, services: Services) -> None:
    for name, job in JOBS.items():
        queue.entrypoint(name)(_entrypoint(name, job, services))
    for schedule in SCHEDULES:
        queue.schedule(schedule.name, schedule.cron)(_scheduled(schedule, services))
    # The queue only looks for runs that a killed worker left behind when some schedule is due, so one always is.
    queue.schedule("schedules.takeover", EVERY_15_S)(_nothing)


def _entrypoint(name: str, job: Job, services: Services) -> Callable[[QueuedJob], Awaitable[None]]:
    async def run(queued: QueuedJob) -> None:
        payload = (queued.payload or b"").decode()
        began_s = time.monotonic()
        try:
            await job(services, payload)
        except LedgerError as error:
            # What it was about stays due, so the next sweep takes it up again.
            metrics.job_runs.labels(name, "postponed").inc()
            log.warning("job postponed", job=name, id=payload, reason=type(error).__name__)
        except Exception as error:
            metrics.job_runs.labels(name, "failed").inc()
            log.error("job failed", job=name, id=payload, reason=type(error).__name__, exc_info=error)
            raise
        else:
            log.info("job ran", job=name, id=payload, duration_ms=_observed_ms(name, began_s))

    return run


def _scheduled(schedule: Schedule, services: Services) -> Callable[[QueuedSchedule], Awaitable[None]]:
    async def run(_queued: QueuedSchedule) -> None:
        began_s = time.monotonic()
        try:
            count = await run_schedule(schedule, services)
        except Exception as error:
            metrics.job_runs.labels(schedule.name, "failed").inc()
            log.error("job failed", job=schedule.name, reason=type(error).__name__, exc_info=error)
            raise
        log.info("job ran", job=schedule.name, count=count, duration_ms=_observed_ms(schedule.name, began_s))

    return run


def _observed_ms(name: str, began_s: float) -> int:
    """Counts a run that worked; returns how long it took."""
    duration_s = time.monotonic() - began_s
    metrics.job_runs.labels(name, "succeeded").inc()
    metrics.job_duration.labels(name).observe(duration_s)
    return round(duration_s * 1000)


async def _nothing(_queued: QueuedSchedule) -> None:
    """What is due is looked for; that is all."""


async def _report(database: Database, *, worker_id: str) -> None:
    while True:
        try:
            async with database.connection() as connection:
                await upsert_worker(
                    connection,
                    worker_id=worker_id,
                    version=APP_VERSION,
                    now=database.clock.now(),
                    counted=metrics.counted(),
                )
        except Exception as error:
            log.warning("worker cannot report", reason=type(error).__name__)
        await asyncio.sleep(SEEN_EVERY_S)


async def _say_goodbye(database: Database, *, worker_id: str) -> None:
    try:
        async with asyncio.timeout(2), database.connection() as connection:
            await delete_worker(connection, worker_id=worker_id)
    except Exception as error:
        log.warning("worker cannot say goodbye", reason=type(error).__name__)
