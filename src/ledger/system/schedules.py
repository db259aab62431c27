"""What runs by itself: schedules, how often, and how to read from their last run whether all is well."""

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from ledger.web.call import Services

Sweep = Callable[[Services], Awaitable[int]]
"""Does what is due; returns how much it was."""

# How many times in a row a schedule may be late before somebody should look.
MISSED_MAX = 3

_INTERVALS = (
    (r"\* \* \* \* \*", timedelta(minutes=1)),
    (r"\*/(?P<times>\d+) \* \* \* \*", timedelta(minutes=1)),
    (r"\d+ \* \* \* \*", timedelta(hours=1)),
    (r"\d+ \d+ \* \* \*", timedelta(days=1)),
    (r"\d+ \d+ \* \* \d", timedelta(days=7)),
)


class Schedule(msgspec.Struct, frozen=True):
    """A sweep, when it runs (cron, UTC) and what it does, in words. It runs once in the whole installation."""

    name: str
    cron: str
    run: Sweep
    what: str = ""

    @property
    def interval(self) -> timedelta:
        """The time from one run to the next."""
        return interval_of(self.cron)


class WorkList:
    """Everything the worker can be busy with: its schedules, and its jobs by their names."""

    def __init__(self, *, schedules: Sequence[Schedule], jobs: Sequence[str]) -> None:
        self.schedules = tuple(schedules)
        self.jobs = tuple(jobs)


def interval_of(cron: str) -> timedelta:
    """How far apart the runs of a cron expression are.

    Raises ValueError for what none of our schedules needs: anything but every (n) minutes, hourly, daily, weekly.
    """
    for pattern, interval in _INTERVALS:
        if found := re.fullmatch(pattern, cron):
            return interval * int(found.groupdict().get("times", 1))
    raise ValueError(f"{cron!r} is neither every so many minutes, nor hourly, daily or weekly")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a schedule. It has a duration once it is over, and a count when it worked."""

    id: int
    name: str
    started_at: datetime
    duration_ms: int | None
    count: int | None
    error: str | None


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a schedule's runs: the newest of all, and the newest that ended, that worked, that failed."""

    last: Run | None
    finished: Run | None
    worked: Run | None
    failed: Run | None
    known_since: datetime | None
    """When a worker first heard of the schedule."""
    is_running: bool
    """Whether a worker that lives is at it."""


class ScheduleState(StrEnum):
    """How a schedule stands; `SCHEDULE_PHRASES` says what each means."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    OVERDUE = "overdue"


SCHEDULE_PHRASES = {
    ScheduleState.WAITING: "it has not run yet",
    ScheduleState.RUNNING: "it runs just now",
    ScheduleState.SUCCEEDED: "its last run worked",
    ScheduleState.FAILED: "its last run failed; the next one comes as planned",
    ScheduleState.INTERRUPTED: "its worker ended before it was done; another one takes it over",
    ScheduleState.OVERDUE: "it did not run three times in a row; is a worker running?",
}


def state_of(schedule: Schedule, history: History, *, now: datetime) -> ScheduleState:
    """How a schedule stands at `now`. What runs is not late, however long it takes."""
    last = history.last
    if history.is_running:
        return ScheduleState.RUNNING
    since = history.known_since if last is None else last.started_at
    if since is not None and now - since > schedule.interval * MISSED_MAX:
        return ScheduleState.OVERDUE
    if last is None:
        return ScheduleState.WAITING
    if last.error is not None:
        return ScheduleState.FAILED
    return ScheduleState.SUCCEEDED if last.duration_ms is not None else ScheduleState.INTERRUPTED
