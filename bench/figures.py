"""The figures of the guarantees about speed, and how each is measured.

Machines are noisy, so what is compared runs in turn, in short pieces, and each pair gives a ratio of its own. The
figure is the median of these ratios; their spread tells how far it can be trusted.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import msgspec

from bench.deliveries import DeliveryPlan, measure_deliveries
from bench.figure import Figure, Tell
from bench.installation import BenchFailed, Databases, Ledger
from bench.load import Load, Measured, run_load
from bench.pgbench import PgbenchResult, run_pgbench
from bench.retention import RetentionRun, add_old_invoices, run_retention
from bench.seed import PERSONS, add_counter, add_invoices, add_persons, find_middle, list_invoice_ids
from ledger.standalone import USER_ID
from ledger.web.paging import write_cursor

CLIENTS, CONNECTIONS = 16, 64
IDS_POLLED = 20_000
BODIES = 2_000
SMALL = 10_000
# Enough for the driver's statements to be prepared, planned anew five times, and planned for good.
_LISTS_BEFORE = 15
LOADS = ("S1", "S2", "S3")
ALL = (*LOADS, "S4", "S5", "S6", "S7")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    rounds: int
    piece_s: int
    alone_rounds: int
    alone_piece_s: int
    warm_up_s: float
    list_rounds: int
    lists_a_round: int
    large: int
    starts: int
    deliveries: DeliveryPlan


FULL = Plan(
    rounds=9,
    piece_s=2,
    alone_rounds=13,
    alone_piece_s=1,
    warm_up_s=0.4,
    list_rounds=9,
    lists_a_round=21,
    large=1_000_000,
    starts=5,
    deliveries=DeliveryPlan(rounds=5, events=2_000, pieces=11, piece_s=3),
)
QUICK = Plan(
    rounds=3,
    piece_s=2,
    alone_rounds=5,
    alone_piece_s=1,
    warm_up_s=0.4,
    list_rounds=5,
    lists_a_round=11,
    large=100_000,
    starts=2,
    deliveries=DeliveryPlan(rounds=3, events=1_000, pieces=5, piece_s=2),
)


def measure(wanted: Sequence[str], *, plan: Plan, databases: Databases, folder: Path, tell: Tell) -> list[Figure]:
    """Measures the wanted figures, in the order of `ALL`."""
    figures: list[Figure] = []
    if set(wanted) & set(LOADS):
        figures += [each for each in _measure_loads(plan, databases, folder, tell) if each.key in wanted]
    if "S4" in wanted:
        figures += _measure_lists(plan, databases, folder, tell)
    if "S5" in wanted:
        figures += measure_deliveries(plan.deliveries, databases, folder, tell)
    if "S6" in wanted:
        figures += _measure_retention(plan, databases, folder, tell)
    if "S7" in wanted:
        figures.append(_measure_start(plan, databases, folder, tell))
    return figures


def _measure_loads(plan: Plan, databases: Databases, folder: Path, tell: Tell) -> list[Figure]:
    """S1, S2 and S3: Ledger and `pgbench` in turn, each on a database of its own, both growing."""
    rival, own = databases.make("bench_pgbench"), databases.make("bench_ledger")
    asyncio.run(add_persons(rival))
    asyncio.run(add_counter(rival))
    asyncio.run(add_persons(own))
    ledger = Ledger(database_url=own, data_dir=folder / "loads")
    with ledger.serving(), ledger.working():
        creations = [
            ledger.request("POST", "/api/invoices", caller=ledger.service, body=_invoice_body(index))
            for index in range(BODIES)
        ]

        def create(connections: int, measured_s: int) -> Measured:
            return run_load(
                Load(
                    port=ledger.port,
                    requests=creations,
                    connections=connections,
                    expected_status=201,
                    warm_up_s=plan.warm_up_s,
                    measured_s=measured_s,
                )
            )

        def pgbench(clients: int, measured_s: int) -> PgbenchResult:
            return run_pgbench(rival, clients=clients, measured_s=measured_s, persons=PERSONS)

        tell("warming up")
        create(CONNECTIONS, plan.piece_s)
        pgbench(CLIENTS, plan.piece_s)
        ids = asyncio.run(list_invoice_ids(own, count=IDS_POLLED))
        polls = Load(
            port=ledger.port,
            requests=[ledger.request("GET", f"/api/invoices/{each}/status", caller=ledger.service) for each in ids],
            connections=CONNECTIONS,
            expected_status=200,
            warm_up_s=plan.warm_up_s,
            measured_s=plan.piece_s,
        )
        together = _in_turn(
            {
                "pgbench, 16 clients, /s": lambda: pgbench(CLIENTS, plan.piece_s).tps,
                "create, 64 connections, /s": lambda: create(CONNECTIONS, plan.piece_s).rate_per_s,
                "status, 64 connections, /s": lambda: run_load(polls).rate_per_s,
            },
            rounds=plan.rounds,
            tell=tell,
        )
        alone = _in_turn(
            {
                "pgbench, 1 client, average ms": lambda: pgbench(1, plan.alone_piece_s).latency_ms,
                "create, 1 connection, p50 ms": lambda: create(1, plan.alone_piece_s).p50_ms,
            },
            rounds=plan.alone_rounds,
            tell=tell,
        )
    return _figures_of_loads(together, alone)


def _figures_of_loads(together: Mapping[str, Sequence[float]], alone: Mapping[str, Sequence[float]]) -> list[Figure]:
    tps, created, polled = together.values()
    alone_ms, created_ms = alone.values()
    return [
        Figure(
            key="S1",
            what="create invoices, 64 connections : pgbench, 16 clients",
            target=2.0,
            bound="at least",
            unit="×",
            pairs=_ratios(created, tps),
            absolutes=dict(list(together.items())[:2]),
        ),
        Figure(
            key="S2",
            what="create an invoice, 1 connection, p50 : pgbench, 1 client, average",
            target=4.0,
            bound="at most",
            unit="×",
            pairs=_ratios(created_ms, alone_ms),
            absolutes=alone,
        ),
        Figure(
            key="S3",
            what="poll statuses, 64 connections : pgbench, 16 clients",
            target=2.6,
            bound="at least",
            unit="×",
            pairs=_ratios(polled, tps),
            absolutes=dict(list(together.items())[2:]),
        ),
    ]


def _measure_lists(plan: Plan, databases: Databases, folder: Path, tell: Tell) -> list[Figure]:
    """S4: the same lists, over one connection, of a small and of a large database, in turn."""
    with ExitStack() as stack:
        ledgers: dict[int, Ledger] = {}
        paths: dict[int, dict[str, str]] = {}
        for count in (SMALL, plan.large):
            tell(f"adding {count} invoices")
            url = databases.make(f"bench_{count}")
            asyncio.run(add_invoices(url, count=count))
            ledgers[count] = Ledger(database_url=url, data_dir=folder / str(count))
            stack.enter_context(ledgers[count].serving())
            paths[count] = _list_paths(count, cursor=write_cursor(asyncio.run(find_middle(url))))
        return [
            _measure_list(name, plan=plan, ledgers=ledgers, paths={count: paths[count][name] for count in ledgers})
            for name in paths[SMALL]
        ]


def _list_paths(count: int, *, cursor: str) -> dict[str, str]:
    """Lists of at most 200 rows; what matches is as many in the small database as in the large one, or a like share."""
    return {
        "all, newest": "/api/invoices",
        "all, from the middle on": f"/api/invoices?cursor={cursor}",
        "status=pending (9 of 10)": "/api/invoices?status=pending",
        "status=failed (1 of 50)": "/api/invoices?status=failed",
        "q=a number": f"/api/invoices?q=INV-2026-{count // 2}",
        "q=a name": f"/api/invoices?q={quote('Standalone User')}",
        "userId": f"/api/invoices?userId={USER_ID}",
        "a user's own": "/api/my/invoices",
    }


def _measure_list(name: str, *, plan: Plan, ledgers: Mapping[int, Ledger], paths: Mapping[int, str]) -> Figure:
    # Request by request in turn: lists take milliseconds, and what disturbs one of a pair disturbs the other.
    found: dict[int, list[float]] = {count: [] for count in ledgers}
    with ExitStack() as stack:
        ask = {count: stack.enter_context(_asking(ledgers[count], paths[count])) for count in ledgers}
        for _ in range(_LISTS_BEFORE):
            for count in ledgers:
                ask[count]()
        for number in range(plan.list_rounds):
            took_ms: dict[int, list[float]] = {count: [] for count in ledgers}
            for _ in range(plan.lists_a_round):
                for count in sorted(ledgers, reverse=bool(number % 2)):
                    took_ms[count].append(ask[count]())
            for count, each in took_ms.items():
                found[count].append(statistics.median(each))
    small, large = found.values()
    return Figure(
        key="S4",
        what=f"list of {max(ledgers)} : of {min(ledgers)}; {name}",
        target=1.3,
        bound="at most",
        unit="×",
        pairs=_ratios(large, small),
        absolutes={f"{name}: {count} invoices, p50 ms": each for count, each in found.items()},
    )


@contextmanager
def _asking(ledger: Ledger, path: str) -> Iterator[Callable[[], float]]:
    """Yields what asks once, over a connection that is kept, and returns how many milliseconds that took."""
    caller = ledger.user if "/my/" in path else ledger.admin
    connection = HTTPConnection("127.0.0.1", ledger.port, timeout=30)

    def ask() -> float:
        began_s = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": caller})
        answer = connection.getresponse()
        content = answer.read()
        took_s = time.perf_counter() - began_s
        if answer.status != 200:
            raise BenchFailed(f"GET {path} was answered with {answer.status}: {content[:500]!r}")
        return took_s * 1000

    try:
        yield ask
    finally:
        connection.close()


def _measure_retention(plan: Plan, databases: Databases, folder: Path, tell: Tell) -> list[Figure]:
    """S6: everything is due at once, in a small and in a large database."""
    runs: dict[int, RetentionRun] = {}
    for count in (SMALL, plan.large):
        tell(f"adding {count} old invoices")
        url = databases.make(f"bench_old_{count}")
        asyncio.run(add_old_invoices(url, count=count))
        tell(f"letting go of the people of {count} invoices")
        runs[count] = asyncio.run(run_retention(Ledger(database_url=url, data_dir=folder / f"old-{count}")))
    small, large = runs.values()
    memory = {f"{count} invoices, peak MiB": [each.peak_mib] for count, each in runs.items()}
    times = {f"{count} invoices, s": [each.took_s] for count, each in runs.items()}
    waits = {
        "longest wait of others, s": [large.longest_wait_s],
        "longest transaction, s": [large.longest_transaction_s],
    }
    return [
        Figure(
            key="S6",
            what=f"retention over {plan.large} invoices",
            # Five minutes for a million.
            target=300 * plan.large / 1_000_000,
            bound="at most",
            unit="s",
            pairs=[large.took_s],
            absolutes=times,
        ),
        Figure(
            key="S6",
            what=f"retention, memory of {plan.large} : of {SMALL}",
            target=1.3,
            bound="at most",
            unit="×",
            pairs=[large.peak_mib / small.peak_mib],
            absolutes=memory,
        ),
        Figure(
            key="S6",
            what="retention, longest lock",
            target=1.0,
            bound="at most",
            unit="s",
            pairs=[max(large.longest_wait_s, large.longest_transaction_s)],
            absolutes=waits,
        ),
    ]


def _measure_start(plan: Plan, databases: Databases, folder: Path, tell: Tell) -> Figure:
    """S7: from starting the command to the first answer 200 of `/api/ready`, on a database that is there."""
    tell("starting Ledger")
    ledger = Ledger(database_url=databases.make("bench_start"), data_dir=folder / "start")
    took_s: list[float] = []
    for _ in range(plan.starts):
        with ledger.serving() as start_s:
            took_s.append(start_s)
    return Figure(
        key="S7",
        what="start to first answer, existing database",
        target=3.0,
        bound="at most",
        unit="s",
        pairs=took_s,
        absolutes={"start, s": took_s},
    )


def _in_turn(steps: Mapping[str, Callable[[], float]], *, rounds: int, tell: Tell) -> dict[str, list[float]]:
    """Carries the steps out in rounds, every second one backwards, so that a machine that slows down slows both."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(1, rounds + 1):
        tell(f"round {number} of {rounds}")
        names = list(steps)[:: 1 if number % 2 else -1]
        for name in names:
            found[name].append(steps[name]())
    return {name: found[name] for name in steps}


def _ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    return [this / that for this, that in zip(these, those, strict=True)]


def _invoice_body(index: int) -> dict[str, object]:
    """An invoice of two lines for one of the seeded persons, the same sums as the statement of `bench.pgbench` has."""
    return {
        "userId": f"person-{2 + index * 7919 % (PERSONS - 1)}",
        "currency": "EUR",
        "items": [
            {"description": "Membership, one month", "unitPrice": 5000, "taxRate": 1900},
            {"description": "Locker", "unitPrice": 1000, "quantity": 2, "taxRate": 1900},
        ],
    }
