"""The page "Jobs": what Ledger does by itself, when it did so last, and how much waits."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger.app import APP_VERSION
from ledger.database.installation import upsert_worker
from ledger.errors import Conflict
from ledger.jobs import JOBS, SCHEDULES
from ledger.system.figures import KEPT_S, FiguresReader, get_figures
from ledger.system.run_store import INTERRUPTED, RUNS_KEPT, insert_run
from ledger.system.running import run_schedule
from ledger.system.schedules import (
    SCHEDULE_PHRASES,
    History,
    Run,
    Schedule,
    ScheduleState,
    WorkList,
    interval_of,
    state_of,
)
from ledger.web.call import Services
from tests.api.heard_events import add_event
from tests.installation import Installation

NOW = datetime(2026, 3, 15, 9, 30, tzinfo=UTC)


async def _three(services: Services) -> int:
    return 3


async def _refused(services: Services) -> int:
    raise Conflict("Somebody else is at it; it is tried again in a minute")


async def _broken(services: Services) -> int:
    raise ValueError("somebody@example.org")


def schedule(run: object = _three, *, cron: str = "* * * * *") -> Schedule:
    """The first of Ledger's own, doing something else."""
    return Schedule(SCHEDULES[0].name, cron, run)  # type: ignore[arg-type]


NAME = SCHEDULES[0].name


# Schedules


def test_every_schedule_says_what_it_does_and_how_often_it_runs() -> None:
    assert len({each.name for each in SCHEDULES}) == len(SCHEDULES)
    for each in SCHEDULES:
        assert len(each.what.split()) >= 4, each.name
        assert each.interval >= timedelta(minutes=1)


@pytest.mark.parametrize(
    ("cron", "interval"),
    [
        ("* * * * *", timedelta(minutes=1)),
        ("*/5 * * * *", timedelta(minutes=5)),
        ("17 * * * *", timedelta(hours=1)),
        ("17 3 * * *", timedelta(days=1)),
        ("17 3 * * 1", timedelta(days=7)),
    ],
)
def test_an_interval_is_the_time_between_two_runs(cron: str, interval: timedelta) -> None:
    assert interval_of(cron) == interval


@pytest.mark.parametrize("cron", ["", "1,2 * * * *", "17 3 1 * *", "17 3 * 2 *", "* 3 * * *", "* * * * * *"])
def test_a_cron_expression_that_nobody_can_judge_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        interval_of(cron)


def history(
    *, ago: timedelta | None = None, known: timedelta | None = None, is_running: bool = False, **run: object
) -> History:
    last = None
    if ago is not None:
        values = {"duration_ms": 5, "count": 0, "error": None} | run
        last = Run(id=1, name=NAME, started_at=NOW - ago, **values)  # type: ignore[arg-type]
    return History(
        last=last,
        finished=None,
        worked=None,
        failed=None,
        known_since=None if known is None else NOW - known,
        is_running=is_running,
    )


MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "known", "state"),
    [
        ("* * * * *", history(), ScheduleState.WAITING),
        ("* * * * *", history(known=2 * MINUTE), ScheduleState.WAITING),
        ("* * * * *", history(known=4 * MINUTE), ScheduleState.OVERDUE),
        ("* * * * *", history(ago=3 * MINUTE), ScheduleState.SUCCEEDED),
        ("* * * * *", history(ago=3.1 * MINUTE), ScheduleState.OVERDUE),
        ("* * * * *", history(ago=MINUTE, error="no", duration_ms=1), ScheduleState.FAILED),
        ("* * * * *", history(ago=4 * MINUTE, error="no", duration_ms=1), ScheduleState.OVERDUE),
        ("* * * * *", history(ago=MINUTE, duration_ms=None), ScheduleState.INTERRUPTED),
        ("* * * * *", history(ago=MINUTE, duration_ms=None, is_running=True), ScheduleState.RUNNING),
        # A run that takes long is not late.
        ("* * * * *", history(ago=20 * MINUTE, duration_ms=None, is_running=True), ScheduleState.RUNNING),
        ("17 3 * * *", history(ago=2.9 * DAY), ScheduleState.SUCCEEDED),
        ("17 3 * * *", history(ago=3.1 * DAY), ScheduleState.OVERDUE),
    ],
)
def test_a_state_follows_from_the_last_run(cron: str, known: History, state: ScheduleState) -> None:
    assert state_of(schedule(cron=cron), known, now=NOW) is state
    assert SCHEDULE_PHRASES[state]


# Runs


async def row(ledger: Installation) -> dict[str, object]:
    """What the page shows of the schedule."""
    rows = (await ledger.staff.get("/api/jobs")).body["rows"]
    found: dict[str, object] = next(each for each in rows if each["id"] == NAME)
    return found


async def test_a_run_is_shown_with_its_time_duration_and_count(ledger: Installation) -> None:
    before = await row(ledger)
    assert (before["lastRun"], before["duration"], before["count"], before["state"]) == ("—", "—", "—", "waiting")
    assert before["what"] == SCHEDULES[0].what

    assert await run_schedule(schedule(), ledger.services) == 3

    after = await row(ledger)
    assert after["lastRun"] == "2026-03-15T09:30:00.000Z"
    assert str(after["duration"]).endswith(" ms")
    assert (after["count"], after["lastError"], after["state"]) == ("3", "—", "succeeded")
    ledger.clock.move(timedelta(minutes=4))
    assert (await row(ledger))["state"] == "overdue"


async def test_a_run_that_fails_says_why_and_nothing_that_others_wrote(ledger: Installation) -> None:
    with pytest.raises(Conflict):
        await run_schedule(schedule(_refused), ledger.services)
    assert (await row(ledger))["lastError"] == (
        "Somebody else is at it; it is tried again in a minute (2026-03-15 09:30 UTC)"
    )
    assert (await row(ledger))["state"] == "failed"
    with pytest.raises(ValueError, match="example"):
        await run_schedule(schedule(_broken), ledger.services)
    said = str((await row(ledger))["lastError"])
    assert said.startswith("It failed unexpectedly (ValueError); the worker's log says more")

    # The last error stays to be read when the schedule works again.
    await run_schedule(schedule(), ledger.services)
    assert ((await row(ledger))["state"], (await row(ledger))["lastError"]) == ("succeeded", said)


async def test_a_run_that_never_ended_is_marked_by_the_next(ledger: Installation) -> None:
    async with ledger.services.database.connection() as connection:
        await insert_run(connection, name=NAME, now=ledger.clock.now())
    assert (await row(ledger))["state"] == "interrupted"
    ledger.clock.move(timedelta(seconds=45))
    await run_schedule(schedule(), ledger.services)
    runs = (await ledger.staff.get("/api/jobs/runs")).body
    assert [each["error"] for each in runs["rows"]] == ["—", INTERRUPTED]
    assert [each["duration"] == "—" for each in runs["rows"]] == [False, True]


async def test_the_last_hundred_runs_of_each_schedule_are_kept_and_listed(ledger: Installation) -> None:
    other = Schedule(SCHEDULES[1].name, "* * * * *", _three)
    await run_schedule(other, ledger.services)
    for _ in range(RUNS_KEPT + 20):
        ledger.clock.move(timedelta(seconds=1))
        await run_schedule(schedule(), ledger.services)

    listed = (await ledger.staff.get("/api/jobs/runs?limit=60")).body
    assert (listed["total"], len(listed["rows"])) == (RUNS_KEPT + 1, 60)
    rest = (await ledger.staff.get(f"/api/jobs/runs?limit=60&cursor={listed['nextCursor']}")).body
    times = [each["startedAt"] for each in listed["rows"] + rest["rows"]]
    assert len(times) == RUNS_KEPT + 1
    assert times == sorted(times, reverse=True)
    assert rest["rows"][-1]["schedule"] == other.name
    of_one = (await ledger.staff.get(f"/api/jobs/runs?name={other.name}")).body
    assert [each["schedule"] for each in of_one["rows"]] == [other.name]


async def test_an_unknown_schedule_is_refused_with_the_names_of_those_there_are(ledger: Installation) -> None:
    answer = await ledger.staff.get("/api/jobs/runs?name=nothing")
    assert answer.status == 400
    assert all(each.name in answer.error for each in SCHEDULES)
    assert (await ledger.staff.get("/api/jobs/runs?cursor=bm90aGluZw")).status == 400


# Figures


async def stats(ledger: Installation) -> dict[str, tuple[object, object]]:
    """Each figure and its variant, read now."""
    reader = ledger.services.get(FiguresReader)
    reader.forget()
    answer = (await ledger.staff.get("/api/jobs/stats")).body["stats"]
    return {each["key"]: (each["value"], each.get("variant")) for each in answer}


async def test_the_figures_count_what_waits_and_who_is_there_to_do_it(ledger: Installation) -> None:
    assert await stats(ledger) == {
        "workers": ("none", "danger"),
        "overdue": (0, None),
        "jobs": ("0", None),
        "deliveries": ("0", None),
        "mails": ("0", None),
        "inboundFailed": ("0", None),
    }
    async with ledger.services.database.connection() as connection:
        for worker in ("a", "b"):
            await upsert_worker(connection, worker_id=worker, version=APP_VERSION, now=ledger.clock.now())
    await add_event(ledger)
    await ledger.sql(
        "insert into pgqueuer (priority, status, entrypoint) select 0, 'queued', $1 from generate_series(1, 3)",
        next(iter(JOBS)),
    )
    now = ledger.clock.now()
    await _add_deliveries(ledger, count=4, due_at=now)
    await _add_mails(ledger, count=2, due_at=now)
    ledger.clock.move(timedelta(seconds=9))
    assert await stats(ledger) == {
        "workers": ("2 · seen 9 s ago", None),
        "overdue": (0, None),
        "jobs": ("3", None),
        "deliveries": ("4", None),
        "mails": ("2", None),
        "inboundFailed": ("1", "warning"),
    }

    await run_schedule(schedule(), ledger.services)
    ledger.clock.move(timedelta(minutes=10))
    later = await stats(ledger)
    assert later["workers"] == ("none · seen 10 min ago", "danger")
    assert later["overdue"] == (1, "warning")
    assert (later["deliveries"], later["mails"]) == (("4", "warning"), ("2", "warning"))


async def _add_deliveries(ledger: Installation, *, count: int, due_at: datetime, status: str = "pending") -> None:
    """Deliveries of events of their own to one subscriber."""
    await ledger.sql(
        """
        insert into webhook_subscriber (id, name, url, events, is_active, header_secret_sealed, sends_header_secret,
            signing_secret_sealed, created_at, updated_at)
        values ('0199c0de-0000-7000-8000-000000000001', 'Shop', 'https://shop.example.org', '{*}', true, '', true, '',
            $1, $1)
        on conflict do nothing
        """,
        due_at,
    )
    await ledger.sql(
        """
        with told as (
            insert into event (id, type, created_at, is_fanned_out)
            select gen_random_uuid(), 'ping', $1, true from generate_series(1, $2::int) returning id
        )
        insert into webhook_delivery (id, event_id, subscriber_id, event_type, status, attempts, next_try_at,
            created_at)
        select id, id, '0199c0de-0000-7000-8000-000000000001', 'ping', $3, 0, case when $3 = 'pending' then $1 end, $1
        from told
        """,
        due_at,
        count,
        status,
    )


async def _add_mails(ledger: Installation, *, count: int, due_at: datetime) -> None:
    await ledger.sql(
        """
        insert into mail (id, kind, occasion, status, attempts, next_try_at, created_at)
        select id, 'invoice_created', id::text, 'waiting', 0, $1, $1
        from (select gen_random_uuid() as id from generate_series(1, $2::int)) made
        """,
        due_at,
        count,
    )


async def test_the_figures_are_read_once_in_five_seconds(ledger: Installation) -> None:
    now_s = 0.0
    work = WorkList(schedules=SCHEDULES, jobs=tuple(JOBS))
    reader = FiguresReader(ledger.services.database, work=work, clock=ledger.clock, monotonic=lambda: now_s)
    await _add_mails(ledger, count=1, due_at=ledger.clock.now())
    assert (await reader.get()).mails_waiting == 1
    await _add_mails(ledger, count=1, due_at=ledger.clock.now())
    now_s = KEPT_S - 0.1
    assert (await reader.get()).mails_waiting == 1
    now_s = KEPT_S
    assert (await reader.get()).mails_waiting == 2


async def test_counting_stops_at_ten_thousand(ledger: Installation) -> None:
    await _add_mails(ledger, count=10_500, due_at=ledger.clock.now())
    assert (await stats(ledger))["mails"] == ("10000 or more", None)


async def test_the_figures_read_no_more_when_much_was_done_before(ledger: Installation) -> None:
    """What is settled is not read, also while the planner believes that all of it waits.

    Seen failing without the order that names the index.
    """
    await _add_deliveries(ledger, count=30_000, due_at=ledger.clock.now())
    await _add_mails(ledger, count=10_000, due_at=ledger.clock.now())
    await ledger.sql("analyze webhook_delivery, mail")
    await ledger.sql("update webhook_delivery set status = 'delivered', next_try_at = null")
    await ledger.sql("update mail set status = 'sent', next_try_at = null")
    await _add_deliveries(ledger, count=5, due_at=ledger.clock.now())

    async with ledger.services.database.connection() as connection:
        work = WorkList(schedules=SCHEDULES, jobs=tuple(JOBS))
        read = "select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_xact_user_tables where relname = any($1)"
        async with connection.transaction():
            figures = await get_figures(connection, work=work, now=ledger.clock.now())
            assert await connection.fetchval(read, ["webhook_delivery", "mail", "event"]) == 0
    assert (figures.deliveries_waiting, figures.mails_waiting) == (5, 0)
