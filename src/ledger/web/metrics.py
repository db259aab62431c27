"""What Ledger counts, for Prometheus. Labels are routes and states, never ids of people or things."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.registry import Collector

registry = CollectorRegistry()

_requests = Counter("ledger_requests_total", "Requests answered", ["method", "route", "status"], registry=registry)
_duration = Histogram(
    "ledger_request_duration_seconds",
    "Time from the request's arrival to its answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 8),
    registry=registry,
)
invoices_issued = Counter("ledger_invoices_issued_total", "Invoices issued", registry=registry)
batch_size = Histogram(
    "ledger_invoice_batch_size",
    "Requests that shared one commit",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
    registry=registry,
)
heartbeats = Counter("ledger_heartbeats_total", "Heartbeats sent to Lanyard", ["outcome"], registry=registry)
job_runs = Counter("ledger_job_runs_total", "Jobs run", ["job", "outcome"], registry=registry)
job_duration = Histogram(
    "ledger_job_duration_seconds",
    "Time a job or a schedule's run took",
    ["job"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300),
    registry=registry,
)
events_fanned_out = Counter(
    "ledger_events_fanned_out_total", "Events that deliveries and mails were made of", registry=registry
)
delivery_attempts = Counter(
    "ledger_delivery_attempts_total",
    "Attempts to deliver an event to a subscriber: delivered, failed (and tried again), given_up",
    ["outcome"],
    registry=registry,
)
delivery_duration = Histogram(
    "ledger_delivery_attempt_duration_seconds",
    "Time an attempt to deliver took, the answer included",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=registry,
)

# Looking a label set up costs more than counting; there are few of them, so they are kept.
_counted: dict[tuple[str, str, int], Counter] = {}
_timed: dict[tuple[str, str], Histogram] = {}


def observe_request(method: str, route: str, status: int, duration_s: float) -> None:
    """Counts one answered request under its route."""
    counter = _counted.get((method, route, status))
    if counter is None:
        counter = _counted[method, route, status] = _requests.labels(method, route, str(status))
    counter.inc()
    timer = _timed.get((method, route))
    if timer is None:
        timer = _timed[method, route] = _duration.labels(method, route)
    timer.observe(duration_s)


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """What a process counted of one kind, as it travels to another: each sample has a name, labels and a value."""

    name: str
    kind: str
    meaning: str
    samples: list[tuple[str, dict[str, str], float]]


def counted() -> list[Counted]:
    """What this process has counted so far; what it never counted is left out."""
    families = [
        Counted(
            family.name,
            family.type,
            family.documentation,
            # When counting began says nothing about an installation.
            [
                (sample.name, dict(sample.labels), sample.value)
                for sample in family.samples
                if not sample.name.endswith("_created")
            ],
        )
        for family in registry.collect()
    ]
    return [family for family in families if any(value for _, _, value in family.samples)]


class _Families(Collector):
    """Families of metrics that are there already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(*, figures: Iterable[Metric], by_worker: Mapping[str, Sequence[Counted]]) -> bytes:
    """Everything in Prometheus' text format: this process, what workers counted (label `worker`), and more figures."""
    families = {family.name: family for family in registry.collect()}
    for worker, worker_counted in by_worker.items():
        for each in worker_counted:
            if each.name not in families:
                families[each.name] = Metric(each.name, each.meaning, each.kind)
            for name, labels, value in each.samples:
                families[each.name].add_sample(name, {**labels, "worker": worker}, value)
    return generate_latest(_Families([*families.values(), *figures]))
