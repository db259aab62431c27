"""SQL for the runs of schedules. The last hundred of each are kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg

from ledger.database.connection import Connection
from ledger.system.schedules import History, Run
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

RUNS_KEPT = 100
INTERRUPTED = "The worker ended before this was done; it was begun again"

_RUN = "id, name, started_at, duration_ms, count, error"


def _read(row: asyncpg.Record) -> Run:
    return Run(**dict(row))


async def insert_run(connection: Connection, *, name: str, now: datetime) -> int:
    """A run begins; returns its id. A run before it that never ended is marked, and the oldest one goes."""
    run_id: int = await connection.fetchval(
        """
        with interrupted as (
            update schedule_run set error = $3 where name = $1 and duration_ms is null and error is null
        ), pruned as (
            delete from schedule_run where id in (
                select id from schedule_run where name = $1 order by started_at desc, id desc offset $4
            )
        )
        insert into schedule_run (name, started_at) values ($1, $2) returning id
        """,
        name,
        now,
        INTERRUPTED,
        RUNS_KEPT - 1,
    )
    return run_id


async def update_run(
    connection: Connection, *, run_id: int, duration_ms: int, count: int | None, error: str | None
) -> None:
    """A run is over."""
    await connection.execute(
        "update schedule_run set duration_ms = $2, count = $3, error = $4 where id = $1",
        run_id,
        duration_ms,
        count,
        error,
    )


async def get_histories(connection: Connection, *, names: Sequence[str]) -> Mapping[str, History]:
    """What is known of each schedule's runs. Whether one runs, the queue knows: by its worker's signs of life."""
    last = await _newest(connection, names=names, condition="true")
    finished = await _newest(connection, names=names, condition="duration_ms is not null")
    worked = await _newest(connection, names=names, condition="duration_ms is not null and error is null")
    failed = await _newest(connection, names=names, condition="error is not null")
    queued = await connection.fetch(
        """
        select entrypoint, min(created) as known_since,
            bool_or(status = 'picked' and heartbeat > now() - interval '30 seconds') as is_running
        from pgqueuer_schedules group by entrypoint
        """
    )
    known_since = {row["entrypoint"]: row["known_since"] for row in queued}
    running = {row["entrypoint"] for row in queued if row["is_running"]}
    return {
        name: History(
            last=last.get(name),
            finished=finished.get(name),
            worked=worked.get(name),
            failed=failed.get(name),
            known_since=known_since.get(name),
            is_running=name in running,
        )
        for name in names
    }


async def _newest(connection: Connection, *, names: Sequence[str], condition: str) -> dict[str, Run]:
    rows = await connection.fetch(
        f"""
        select newest.* from unnest($1::text[]) as wanted (name), lateral (
            select {_RUN} from schedule_run r where r.name = wanted.name and {condition}
            order by started_at desc, id desc limit 1
        ) newest
        """,
        names,
    )
    return {row["name"]: _read(row) for row in rows}


async def list_runs(connection: Connection, *, after: Position | None, limit: int, name: str | None) -> Page[Run]:
    """Runs, newest first."""
    found = await connection.fetchval(
        f"""
        select count(*) from (
            select from schedule_run where $1::text is null or name = $1 limit {COUNTED_MAX + 1}
        ) counted
        """,
        name,
    )
    rows = await connection.fetch(
        f"""
        select {_RUN} from schedule_run
        where ($1::text is null or name = $1) and ($2::timestamptz is null or (started_at, id) < ($2, $3::bigint))
        order by started_at desc, id desc limit $4
        """,
        name,
        None if after is None else after.at,
        None if after is None else int(after.id),
        limit + 1,
    )
    runs = [_read(row) for row in rows[:limit]]
    total, is_more = counted(found)
    last = runs[-1] if len(rows) > limit else None
    cursor = None if last is None else write_cursor(Position(last.started_at, str(last.id)))
    return Page(rows=runs, total=total, total_is_more=is_more, next_cursor=cursor)
