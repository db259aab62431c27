"""What Ledger counts, for Prometheus. Labels are routes and states, never ids of people or things."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
workers_seen = Gauge("ledger_workers_seen", "Workers that reported within the last minute", registry=registry)

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
