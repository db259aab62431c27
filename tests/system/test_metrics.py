"""`/metrics`: one scrape of any API process sees the whole installation."""

from collections import Counter
from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledger.app import APP_VERSION
from ledger.database.installation import upsert_worker
from ledger.jobs import JOBS, SCHEDULES
from ledger.system.figures import FiguresReader
from ledger.system.running import run_schedule
from ledger.system.schedules import Schedule
from ledger.web import metrics
from ledger.web.call import Services
from ledger.web.metrics import Counted
from tests.api.heard_events import add_event
from tests.conftest import StartLedger
from tests.installation import Installation, free_port

NAME = SCHEDULES[0].name
JOB = next(iter(JOBS))

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(ledger: Installation) -> Samples:
    """Every sample, read now. Fails on what Prometheus would not take."""
    ledger.services.get(FiguresReader).forget()
    answer = await ledger.nobody.get("/metrics")
    assert answer.status == 200, answer.content
    text = answer.content.decode()
    announced = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(announced.values()) == {1}, "Prometheus takes each name once"
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            place = (sample.name, tuple(sorted(sample.labels.items())))
            assert place not in found
            found[place] = sample.value
    return found


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"ledger_{name}", tuple(sorted(labels.items()))


async def _seven(services: Services) -> int:
    return 7


async def _broken(services: Services) -> int:
    raise ValueError("broken")


async def test_a_scrape_sees_schedules_queue_and_workers(ledger: Installation) -> None:
    await add_event(ledger)
    await ledger.create_invoice()
    await ledger.sql(
        "insert into pgqueuer (priority, status, entrypoint) select 0, 'queued', $1 from generate_series(1, 3)", JOB
    )
    async with ledger.services.database.connection() as connection:
        await upsert_worker(connection, worker_id="host:7", version=APP_VERSION, now=ledger.clock.now())
    await run_schedule(Schedule(NAME, "* * * * *", _seven), ledger.services)
    began = ledger.clock.now().timestamp()
    ledger.clock.move(timedelta(seconds=30))
    with pytest.raises(ValueError, match="broken"):
        await run_schedule(Schedule(NAME, "* * * * *", _broken), ledger.services)

    found = await scrape(ledger)

    assert found[of("database_up")] == 1
    assert found[of("jobs_waiting", job=JOB)] == 3
    assert {name for name, _ in found} >= {"ledger_invoices_issued_total", "ledger_deliveries_waiting"}
    assert (found[of("events_waiting")], found[of("events_oldest_waiting_seconds")]) == (1, 30)
    assert (found[of("mails_waiting")], found[of("mails_overdue")]) == (0, 0)
    assert (found[of("deliveries_waiting")], found[of("deliveries_overdue")]) == (0, 0)
    assert found[of("inbound_events_failed")] == 1
    assert found[of("workers_seen")] == 1
    assert found[of("schedule_last_success_timestamp_seconds", schedule=NAME)] == began
    assert found[of("schedule_last_run_timestamp_seconds", schedule=NAME)] == began + 30
    assert found[of("schedule_last_count", schedule=NAME)] == 7
    assert found[of("schedule_last_success", schedule=NAME)] == 0
    assert found[of("schedule_overdue", schedule=NAME)] == 0
    assert of("schedule_last_duration_seconds", schedule=NAME) in found
    assert of("schedule_last_run_timestamp_seconds", schedule=SCHEDULES[1].name) not in found

    ledger.clock.move(timedelta(minutes=4))
    later = await scrape(ledger)
    assert (later[of("schedule_overdue", schedule=NAME)], later[of("workers_seen")]) == (1, 0)


async def test_what_a_worker_counted_is_seen_beside_what_this_process_counted(ledger: Installation) -> None:
    counted = [
        Counted(
            "ledger_heartbeats", "counter", "Heartbeats", [("ledger_heartbeats_total", {"outcome": "accepted"}, 4)]
        ),
        Counted("ledger_made_up", "gauge", "Only workers have it", [("ledger_made_up", {}, 2.5)]),
    ]
    async with ledger.services.database.connection() as connection:
        for worker in ("a", "b"):
            await upsert_worker(
                connection, worker_id=worker, version=APP_VERSION, now=ledger.clock.now(), counted=counted
            )
    found = await scrape(ledger)
    assert found[of("heartbeats_total", outcome="accepted", worker="a")] == 4
    assert found[of("made_up", worker="b")] == 2.5

    # Who has not been heard of for a minute counts no more.
    ledger.clock.move(timedelta(seconds=61))
    assert not [labels for _, labels in await scrape(ledger) if "worker" in dict(labels)]


async def test_what_a_process_counts_is_handed_on_without_what_it_never_counted() -> None:
    metrics.job_runs.labels("some.job", "succeeded").inc(3)
    metrics.job_runs.labels("other.job", "succeeded").inc(0)
    counted = {family.name: family for family in metrics.counted()}
    samples = counted["ledger_job_runs"].samples
    assert ("ledger_job_runs_total", {"job": "some.job", "outcome": "succeeded"}, 3.0) in samples
    assert not any(name.endswith("_created") for family in counted.values() for name, _, _ in family.samples)


async def test_without_its_database_ledger_still_says_what_it_counted(start_ledger: StartLedger) -> None:
    ledger = await start_ledger(DATABASE_URL=f"postgresql://ledger@127.0.0.1:{free_port()}/ledger")
    await ledger.nobody.get("/api/health")
    found = await scrape(ledger)
    assert found[of("database_up")] == 0
    assert of("requests_total", method="GET", route="/api/health", status="503") in found
    assert of("workers_seen") not in found
