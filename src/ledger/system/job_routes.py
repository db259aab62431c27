"""`/api/jobs`: what Ledger does by itself, when it did so last, and how much waits."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from ledger.errors import BadRequest, FieldError
from ledger.system.figures import Figures, FiguresReader
from ledger.system.run_store import RUNS_KEPT, get_histories, list_runs
from ledger.system.schedules import SCHEDULE_PHRASES, History, Run, Schedule, ScheduleState, WorkList, state_of
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads
from ledger.web.paging import COUNTED_MAX, PageQuery, is_row_number, read_cursor
from ledger.web.shapes import NOTHING, Column, Row, Stat, Stats, Table, iso


class RunQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the list of runs."""

    name: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


_SCHEDULE_COLUMNS = (
    Column(key="schedule", label="Schedule"),
    Column(key="what", label="What It Does"),
    Column(key="cron", label="When (cron, UTC)", type="code"),
    # Text, since one that never ran has none; the Dashboard shows times in it as the reader's own as well.
    Column(key="lastRun", label="Last Run"),
    Column(key="duration", label="Duration"),
    Column(key="count", label="Count"),
    Column(key="lastError", label="Last Error"),
    Column(key="state", label="State"),
)
_RUN_COLUMNS = (
    Column(key="startedAt", label="Time", type="date"),
    Column(key="schedule", label="Schedule"),
    Column(key="duration", label="Duration"),
    Column(key="count", label="Count"),
    Column(key="error", label="Error"),
)


@reads(
    "/api/jobs",
    "List what Ledger does by itself, and how the last run went",
    callers=STAFF,
    answer=Table,
    description="`state` is one of: " + "; ".join(f"`{state}`, {what}" for state, what in SCHEDULE_PHRASES.items()),
)
async def list_schedules(call: Call[NoBody, NoQuery]) -> Table:
    schedules = call.services.get(WorkList).schedules
    async with call.database.connection() as connection:
        histories = await get_histories(connection, names=[schedule.name for schedule in schedules])
    now = call.services.clock.now()
    rows = [_schedule_row(schedule, histories[schedule.name], now=now) for schedule in schedules]
    return Table(columns=_SCHEDULE_COLUMNS, rows=rows, total=len(rows))


def _schedule_row(schedule: Schedule, history: History, *, now: datetime) -> Row:
    finished, failed = history.finished, history.failed
    return {
        "id": schedule.name,
        "schedule": schedule.name,
        "what": schedule.what,
        "cron": schedule.cron,
        "lastRun": NOTHING if history.last is None else iso(history.last.started_at),
        "duration": _duration(finished),
        "count": _count(finished),
        "lastError": NOTHING if failed is None else f"{failed.error} ({failed.started_at:%Y-%m-%d %H:%M} UTC)",
        "state": state_of(schedule, history, now=now).value,
    }


def _duration(run: Run | None) -> str:
    if run is None or run.duration_ms is None:
        return NOTHING
    return f"{run.duration_ms} ms" if run.duration_ms < 1000 else f"{run.duration_ms / 1000:.1f} s"


def _count(run: Run | None) -> str:
    return NOTHING if run is None or run.count is None else str(run.count)


@reads(
    "/api/jobs/runs",
    "List the latest runs",
    callers=STAFF,
    answer=Table,
    query=RunQuery,
    errors=(400,),
    description=f"The last {RUNS_KEPT} of each schedule are kept. `name` is a schedule's.",
)
async def list_schedule_runs(call: Call[NoBody, RunQuery]) -> Table:
    query = call.query
    _check_is_known(query.name, call.services.get(WorkList).schedules)
    async with call.database.connection() as connection:
        page = await list_runs(
            connection,
            after=read_cursor(query.cursor, is_row_id=is_row_number),
            limit=query.limit,
            name=query.name,
        )
    return Table(
        columns=_RUN_COLUMNS,
        rows=[
            {
                "id": str(run.id),
                "startedAt": iso(run.started_at),
                "schedule": run.name,
                "duration": _duration(run),
                "count": _count(run),
                "error": run.error or NOTHING,
            }
            for run in page.rows
        ],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _check_is_known(name: str | None, schedules: Sequence[Schedule]) -> None:
    names = [schedule.name for schedule in schedules]
    if name is not None and name not in names:
        sentence = f"must be one of {', '.join(names)}"
        raise BadRequest(f"The filter name {sentence}", fields=[FieldError("name", sentence)])


@reads("/api/jobs/stats", "Count what waits to be done", callers=STAFF, answer=Stats)
async def show_job_stats(call: Call[NoBody, NoQuery]) -> Stats:
    figures = await call.services.get(FiguresReader).get()
    now = call.services.clock.now()
    late = [
        schedule
        for schedule in call.services.get(WorkList).schedules
        if state_of(schedule, figures.histories[schedule.name], now=now) is ScheduleState.OVERDUE
    ]
    return Stats(
        stats=[
            Stat(
                key="workers",
                label="Workers",
                value=_workers(figures, now=now),
                icon="cpu",
                variant=None if figures.workers else "danger",
            ),
            Stat(
                key="overdue",
                label="Overdue Schedules",
                value=len(late),
                icon="alarm-clock",
                variant="warning" if late else None,
            ),
            Stat(key="jobs", label="Jobs Waiting", value=_figure(sum(figures.jobs_waiting.values())), icon="list-todo"),
            Stat(
                key="deliveries",
                label="Deliveries Waiting",
                value=_figure(figures.deliveries_waiting),
                icon="send",
                variant="warning" if figures.deliveries_overdue else None,
            ),
            Stat(
                key="mails",
                label="Mails Waiting",
                value=_figure(figures.mails_waiting),
                icon="mail",
                variant="warning" if figures.mails_overdue else None,
            ),
            Stat(
                key="inboundFailed",
                label="Failed Stripe Events",
                value=_figure(figures.inbound_failed),
                icon="zap",
                variant="warning" if figures.inbound_failed else None,
            ),
        ]
    )


def _figure(count: int) -> str:
    return str(count) if count < COUNTED_MAX else f"{COUNTED_MAX} or more"


def _workers(figures: Figures, *, now: datetime) -> str:
    """How many live, and when one was last seen."""
    count = str(len(figures.workers)) if figures.workers else "none"
    if figures.worker_seen_at is None:
        return count
    seconds = max(int((now - figures.worker_seen_at).total_seconds()), 0)
    ago = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
    return f"{count} · seen {ago} ago"


operations = [list_schedules, list_schedule_runs, show_job_stats]
