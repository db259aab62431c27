"""S5: how fast one worker process tells ten subscribers, and what the API feels of it."""

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import asyncpg
import msgspec

from bench.figure import Figure, Tell
from bench.installation import BenchFailed, Databases, Ledger
from bench.receivers import Receivers, receivers
from bench.seed import PERSONS, add_persons

SUBSCRIBERS = 10
# Somewhat more than a thousand deliveries a second.
INVOICES_A_SECOND = 110
_POLL_S = 0.02
_ARRIVED_TIMEOUT_S = 120.0

_EVENTS = f"""
insert into event (id, type, subject_id, person_id, data, created_at)
select uuidv7(), 'invoice.created', uuidv7(), 1 + n % {PERSONS}, jsonb_build_object('invoiceId', uuidv7(),
    'invoiceNumber', 'INV-2026-' || n, 'status', 'pending', 'total', 8330, 'currency', 'EUR'), now()
from generate_series(1, $1::int) as n
"""


class DeliveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds of a backlog of events, and pieces of seconds with and without deliveries."""

    rounds: int
    events: int
    pieces: int
    piece_s: float


def measure_deliveries(plan: DeliveryPlan, databases: Databases, folder: Path, tell: Tell) -> list[Figure]:
    """Measures with one API process, one worker process, and all receivers in one other process."""
    url = databases.make("bench_deliveries")
    asyncio.run(add_persons(url))
    ledger = Ledger(database_url=url, data_dir=folder / "deliveries", WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")
    with receivers(SUBSCRIBERS) as told, ledger.serving(), ledger.working():
        for number, port in enumerate(told.ports, 1):
            _subscribe(ledger, name=f"Receiver {number}", url=f"http://127.0.0.1:{port}/hook")
        tell("warming up")
        _deliver_backlog(ledger, told, events=plan.events // 10)
        rates_per_s = []
        for number in range(1, plan.rounds + 1):
            tell(f"backlog {number} of {plan.rounds}")
            rates_per_s.append(_deliver_backlog(ledger, told, events=plan.events))
        paced = _Paced()
        for number in range(1, plan.pieces + 1):
            tell(f"API beside deliveries, {number} of {plan.pieces}")
            for is_telling in (number % 2 == 0, number % 2 == 1):
                _ask_at_a_pace(ledger, told, paced, is_telling=is_telling, piece_s=plan.piece_s)
    return _figures(rates_per_s, paced)


class _Paced(msgspec.Struct, kw_only=True):
    """What the API's clients felt: the median of each piece in milliseconds, and the deliveries a second meanwhile."""

    without_ms: list[float] = []
    with_ms: list[float] = []
    per_s: list[float] = []


def _figures(rates_per_s: Sequence[float], paced: _Paced) -> list[Figure]:
    return [
        Figure(
            key="S5",
            what=f"deliveries to {SUBSCRIBERS} subscribers, one worker process",
            target=1_000,
            bound="at least",
            unit="/s",
            pairs=rates_per_s,
            absolutes={"deliveries from a backlog, /s": rates_per_s},
        ),
        Figure(
            key="S5",
            what="create an invoice beside deliveries : without them, p50",
            target=1.2,
            bound="at most",
            unit="×",
            pairs=[mine / other for mine, other in zip(paced.with_ms, paced.without_ms, strict=True)],
            absolutes={
                "create beside deliveries, p50 ms": paced.with_ms,
                "create without deliveries, p50 ms": paced.without_ms,
                "deliveries meanwhile, /s": paced.per_s,
            },
        ),
    ]


def _subscribe(ledger: Ledger, *, name: str, url: str) -> None:
    with _connected(ledger) as connection:
        body = msgspec.json.encode({"name": name, "url": url})
        connection.request(
            "POST",
            "/api/webhooks/subscribers",
            body,
            {"Authorization": ledger.admin, "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        if answer.status != 201:
            raise BenchFailed(f"a subscriber was answered with {answer.status}: {answer.read()!r}")


@contextmanager
def _connected(ledger: Ledger) -> Iterator[HTTPConnection]:
    connection = HTTPConnection("127.0.0.1", ledger.port, timeout=30)
    try:
        yield connection
    finally:
        connection.close()


def _deliver_backlog(ledger: Ledger, told: Receivers, *, events: int) -> float:
    """Adds events and waits until every subscriber was told of all of them; returns deliveries a second."""
    before = told.count()
    _execute(ledger, _EVENTS, events)
    began_s = time.perf_counter()
    _wait_for(told, before + events * SUBSCRIBERS)
    return events * SUBSCRIBERS / (time.perf_counter() - began_s)


def _wait_for(told: Receivers, count: int) -> None:
    deadline_s = time.perf_counter() + _ARRIVED_TIMEOUT_S
    while (arrived := told.count()) < count:
        if time.perf_counter() > deadline_s:
            raise BenchFailed(f"only {arrived} of {count} deliveries arrived")
        time.sleep(_POLL_S)


def _ask_at_a_pace(ledger: Ledger, told: Receivers, paced: _Paced, *, is_telling: bool, piece_s: float) -> None:
    """Creates invoices at a steady pace and notes the median time of one, with subscribers or without."""
    _execute(ledger, "update webhook_subscriber set is_active = $1", is_telling)
    body = msgspec.json.encode(
        {"userId": "person-7", "items": [{"description": "Membership", "unitPrice": 5000}], "currency": "EUR"}
    )
    headers = {"Authorization": ledger.service, "Content-Type": "application/json"}
    took_ms: list[float] = []
    before = told.count()
    with _connected(ledger) as connection:
        began_s = next_s = time.perf_counter()
        while next_s - began_s < piece_s:
            time.sleep(max(0.0, next_s - time.perf_counter()))
            asked_s = time.perf_counter()
            connection.request("POST", "/api/invoices", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            took_ms.append((time.perf_counter() - asked_s) * 1000)
            if answer.status != 201:
                raise BenchFailed(f"POST /api/invoices was answered with {answer.status}: {content[:500]!r}")
            next_s += 1 / INVOICES_A_SECOND
        took_s = time.perf_counter() - began_s
    (paced.with_ms if is_telling else paced.without_ms).append(statistics.median(took_ms))
    if is_telling:
        paced.per_s.append((told.count() - before) / took_s)
        # What is left does not disturb the next piece.
        _wait_for(told, before + len(took_ms) * SUBSCRIBERS)


def _execute(ledger: Ledger, statement: str, *values: object) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(ledger.database_url)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    asyncio.run(execute())
