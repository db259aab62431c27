"""The installation's figures in Prometheus' terms, so that one scrape of any API process sees everything."""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client.metrics_core import GaugeMetricFamily

from ledger.system.figures import Figures
from ledger.system.schedules import Schedule, ScheduleState, state_of


def gauges(figures: Figures | None, *, schedules: Sequence[Schedule], now: datetime) -> list[GaugeMetricFamily]:
    """One gauge for each figure; only that the database does not answer when it did not."""
    up = _gauge("ledger_database_up", "Whether the database answered this scrape", int(figures is not None))
    if figures is None:
        return [up]
    oldest = figures.oldest_event_at
    jobs = GaugeMetricFamily("ledger_jobs_waiting", "Jobs in the queue, by name (counted to 10 000)", labels=["job"])
    for name, count in figures.jobs_waiting.items():
        jobs.add_metric([name], count)
    return [
        up,
        jobs,
        _gauge("ledger_events_waiting", "Events nobody was told of yet (counted to 10 000)", figures.events_waiting),
        _gauge(
            "ledger_events_oldest_waiting_seconds",
            "Age of the oldest event nobody was told of yet",
            0 if oldest is None else max((now - oldest).total_seconds(), 0),
        ),
        _gauge("ledger_deliveries_waiting", "Webhook deliveries to be made", figures.deliveries_waiting),
        _gauge("ledger_deliveries_overdue", "Those due for more than a minute", figures.deliveries_overdue),
        _gauge("ledger_mails_waiting", "Mails to be sent (counted to 10 000)", figures.mails_waiting),
        _gauge("ledger_mails_overdue", "Mails due for more than a minute", figures.mails_overdue),
        _gauge(
            "ledger_inbound_events_failed", "Events of a provider that could not be applied", figures.inbound_failed
        ),
        _gauge("ledger_workers_seen", "Workers that reported within the last minute", len(figures.workers)),
        *_of_schedules(figures, schedules=schedules, now=now),
    ]


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


def _of_schedules(figures: Figures, *, schedules: Sequence[Schedule], now: datetime) -> list[GaugeMetricFamily]:
    def family(name: str, meaning: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"ledger_schedule_{name}", meaning, labels=["schedule"])

    last_run = family("last_run_timestamp_seconds", "When the schedule's last run began")
    last_success = family("last_success_timestamp_seconds", "When the last run that worked began")
    duration = family("last_duration_seconds", "How long the last run that ended took")
    count = family("last_count", "How much the last run that worked did")
    success = family("last_success", "Whether the last run that ended worked (1)")
    overdue = family("overdue", "Whether the schedule did not run three times in a row (1)")
    for schedule in schedules:
        name = [schedule.name]
        history = figures.histories[schedule.name]
        overdue.add_metric(name, int(state_of(schedule, history, now=now) is ScheduleState.OVERDUE))
        if history.last is not None:
            last_run.add_metric(name, history.last.started_at.timestamp())
        if history.worked is not None:
            last_success.add_metric(name, history.worked.started_at.timestamp())
            count.add_metric(name, history.worked.count or 0)
        if (finished := history.finished) is not None and finished.duration_ms is not None:
            duration.add_metric(name, finished.duration_ms / 1000)
            success.add_metric(name, int(finished.error is None))
    return [last_run, last_success, duration, count, success, overdue]
