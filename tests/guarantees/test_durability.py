"""Durability: D1 as far as the API goes, D7 and D8. Real processes are killed, and so is a real PostgreSQL."""

import asyncio
import collections
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ledger.database import transaction
from ledger.database.migrate import migrate
from ledger.database.revision import HEAD_REVISION
from ledger.database.scratch import database_on
from ledger.invoices import writer
from ledger.jobs import SCHEDULES
from tests.conftest import StartLedger
from tests.fakes.lanyard import FakeLanyard
from tests.guarantees.cutting import Cut, wired
from tests.guarantees.invariants import faults_in_books, issued_numbers
from tests.guarantees.own_postgres import OwnPostgres
from tests.guarantees.running import RealLedger, calling, real_ledger
from tests.guarantees.scale import SCALE, scaled, seeded
from tests.installation import USER, Client, installed
from tests.process.processes import program

INVOICE: dict[str, object] = {"userId": USER, "items": [{"description": "Membership", "unitPrice": 5000}]}
SERVING_AGAIN_S = 10.0
# As in `migrations/env.py`, which only the migration tool can import.
MIGRATION_LOCK = 5_002_001


class Booking:
    """Clients who create invoices through whatever happens: each invoice has a key, and half of them insist on it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stopped = asyncio.Event()
        self.acknowledged: dict[str, str] = {}
        self.by_key: dict[str, set[str]] = collections.defaultdict(set)
        self.statuses: collections.Counter[int] = collections.Counter()
        self.last_acknowledged_s = 0.0

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._book(number) for number in range(clients)))

    def stop(self) -> None:
        self._stopped.set()

    async def until_serving(self) -> float:
        """Waits for the next acknowledgement; returns how many seconds that took."""
        began_s = time.monotonic()
        while self.last_acknowledged_s <= began_s:
            assert time.monotonic() - began_s < 30, self.statuses
            await asyncio.sleep(0.01)
        return self.last_acknowledged_s - began_s

    async def _book(self, number: int) -> None:
        count = 0
        while not self._stopped.is_set():
            count += 1
            key = f"{number}-{count}"
            insists = number % 2 == 0
            while not await self._try(key if insists else None, key) and insists:
                await asyncio.sleep(0.05)

    async def _try(self, sent_key: str | None, key: str) -> bool:
        try:
            answer = await self._client.post("/api/invoices", INVOICE, key=sent_key)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self.statuses[0] += 1
            await asyncio.sleep(0.05)
            return False
        self.statuses[answer.status] += 1
        if answer.status != 201:
            assert "Retry-After" in answer.headers or answer.status == 500
            await asyncio.sleep(0.05)
            return False
        self.acknowledged[answer.body["id"]] = answer.body["invoiceNumber"]
        self.by_key[key].add(answer.body["id"])
        self.last_acknowledged_s = time.monotonic()
        return True


async def test_d1_no_acknowledged_invoice_is_lost_when_api_or_postgresql_is_killed(
    postgres: OwnPostgres, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with invoices answered before their commit."""
    random_ = seeded()
    async with (
        real_ledger(database_url=postgres.url, directory=tmp_path / "api", lanyard=lanyard) as ledger,
        calling(ledger) as (shop, _),
    ):
        await ledger.start()
        booking = Booking(shop)
        clients = asyncio.create_task(booking.run(16))
        for kill in scaled(1) * ["API", "PostgreSQL", "PostgreSQL's postmaster", "API and PostgreSQL"]:
            await booking.until_serving()
            await asyncio.sleep(random_.uniform(0, 0.6))
            await killed(kill, ledger, postgres)
            took_s = await booking.until_serving()
            print(f"{kill} killed: serving {took_s:.2f} s after its restart; {dict(booking.statuses)}")
            assert took_s < SERVING_AGAIN_S
        booking.stop()
        await clients
        assert [line["exception"] for line in ledger.events("request failed")] == []
    assert set(booking.statuses) <= {0, 201, 409, 503, 504}
    assert await faults_in_books(postgres.url) == {}
    issued = await issued_numbers(postgres.url)
    assert booking.acknowledged.items() <= issued.items()
    assert all(len(ids) == 1 for ids in booking.by_key.values())
    # Without a key, at most those nobody heard of again are there besides.
    assert len(issued) - len(booking.acknowledged) <= booking.statuses[0] + booking.statuses[503]


async def killed(what: str, ledger: RealLedger, postgres: OwnPostgres) -> None:
    """Kills, and starts again what nobody else would."""
    if "PostgreSQL" in what:
        if "postmaster" in what:
            os.kill(postgres.processes()[0], signal.SIGKILL)
        else:
            postgres.signal(signal.SIGKILL)
    if "API" in what:
        ledger.kill()
    if "PostgreSQL" in what:
        await postgres.start()
    if "API" in what:
        await ledger.launch()


CUTS: list[tuple[Cut, bool]] = [
    ("before the commit", False),
    ("after the commit", True),
    ("before the commit ends", True),
]


@pytest.mark.parametrize(("cut", "is_stored"), CUTS)
async def test_d1_a_connection_lost_during_the_commit_is_looked_into(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard, cut: Cut, is_stored: bool
) -> None:
    """Seen failing with the batch tried again after a lost commit (two invoices), with all of it answered as stored,
    with all of it answered 503, and with a look-up that does not wait for the counter (a late commit was missed)."""
    async with (
        wired(database_url) as (wire, wired_url),
        installed(database_url=wired_url, data_dir=tmp_path, lanyard=lanyard) as ledger,
    ):
        await ledger.create_invoice()
        # Two of one batch and one that is alone: each is answered with what is true.
        for count in (1, 2):
            before = set(await issued_numbers(database_url))
            wire.cut_at_next_commit(cut)
            answers = await asyncio.gather(*(ledger.shop.post("/api/invoices", INVOICE) for _ in range(count)))
            assert wire.was_cut
            new = set(await issued_numbers(database_url)) - before
            acknowledged = [answer.body["id"] for answer in answers if answer.status == 201]
            assert set(acknowledged) == new
            assert len(acknowledged) == len(set(acknowledged))
            if is_stored:
                assert len(acknowledged) == count
            else:
                refused = [answer for answer in answers if answer.status != 201]
                assert refused
                assert {answer.status for answer in refused} == {503}
                assert "try again" in refused[0].error
    assert await faults_in_books(database_url) == {}


async def test_d1_when_nobody_can_say_whether_it_was_stored_the_answer_says_so(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing with a lost commit answered like any other: `try again`, which would have made a second invoice."""
    monkeypatch.setattr(writer, "LOOKUP_TIMEOUT_S", 1.0)
    async with (
        wired(database_url) as (wire, wired_url),
        installed(database_url=wired_url, data_dir=tmp_path, lanyard=lanyard) as ledger,
    ):
        paid = (await ledger.create_invoice()).body["id"]
        for path, body in (("/api/invoices", INVOICE), (f"/api/invoices/{paid}/mark-paid", {"amount": 100})):
            wire.cut_at_next_commit("after the commit", everything=True)
            answer = await ledger.shop.post(path, body, key="k")
            wire.mend()
            assert answer.status == 503
            assert "Look whether it was stored" in answer.error
            assert "Retry-After" in answer.headers
            # It was; and whoever had a key gets its answer.
            again = await ledger.shop.post(path, body, key="k")
            assert again.status in (200, 201)
            assert again.headers["idempotent-replayed"] == "true"
        assert await ledger.value("select count(*) from invoice") == 2
        assert await ledger.value("select count(*) from payment") == 1
    assert await faults_in_books(database_url) == {}


async def test_d1_what_a_frozen_process_holds_is_set_free_for_the_others(
    start_ledger: StartLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing without a limit of the server's own: nobody could create an invoice any more."""
    monkeypatch.setitem(transaction.SERVER_SETTINGS, "idle_in_transaction_session_timeout", "1s")
    frozen, living = await start_ledger(), await start_ledger()
    await frozen.create_invoice()
    async with frozen.services.database.connection() as connection:
        await connection.execute("begin")
        await connection.execute("select * from counter for update")
        # From here on the process that holds the counter does nothing; in time, the other one gets it.
        began_s = time.monotonic()
        assert (await living.shop.post("/api/invoices", INVOICE)).status == 201
        assert 0.5 < time.monotonic() - began_s < 4
    assert (await frozen.create_invoice()).status == 201
    assert await faults_in_books(living.database_url) == {}


@pytest.mark.parametrize("api_processes", ["1", "2"])
async def test_d7_told_to_stop_under_load_it_answers_what_it_accepted_and_exits_0(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard, api_processes: str
) -> None:
    """Seen failing with the drain taken out of `serve_app`: connections were closed under their requests."""
    lost: list[str] = []
    acknowledged: dict[str, str] = {}
    async with (
        real_ledger(
            database_url=database_url, directory=tmp_path, lanyard=lanyard, LEDGER_API_PROCESSES=api_processes
        ) as ledger,
        calling(ledger) as (shop, _),
    ):
        await ledger.start()

        async def work() -> None:
            while True:
                try:
                    answer = await shop.post("/api/invoices", INVOICE)
                except aiohttp.ClientConnectorError:
                    # Not accepted any more.
                    return
                except (aiohttp.ClientError, OSError) as error:
                    lost.append(repr(error))
                    return
                if answer.status != 201:
                    lost.append(str(answer.content))
                    return
                acknowledged[answer.body["id"]] = answer.body["invoiceNumber"]

        clients = [asyncio.create_task(work()) for _ in range(32)]
        await asyncio.sleep(0.5 + 0.5 * SCALE)
        code, took_s = await ledger.terminate()
        await asyncio.wait_for(asyncio.gather(*clients), timeout=15)
        assert (code, lost) == (0, [])
        assert took_s < 20
        assert ledger.children() == []
    assert len(acknowledged) > 32
    assert acknowledged.items() <= (await issued_numbers(database_url)).items()
    assert await faults_in_books(database_url) == {}


async def test_d8_three_migrations_at_once_are_applied_once(
    server_url: str, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with the advisory lock taken out of `env.py`: two of the three ended with an error."""
    for round_ in range(scaled(1)):
        async with database_on(server_url) as url, AsyncExitStack() as stack:
            machines = []
            for number in range(3):
                directory = tmp_path / f"{round_}-{number}"
                directory.mkdir()
                command = (sys.executable, "-P", "-m", "ledger", "migrate")
                environ = {"DATABASE_URL": url, "LEDGER_DATA_DIR": str(directory)}
                machines.append(
                    await stack.enter_async_context(program(*command, directory=directory, environ=environ))
                )
            codes = await asyncio.gather(*(machine.ends() for machine in machines))
            assert codes == [0, 0, 0], [machine.output for machine in machines]
            connection = await asyncpg.connect(url)
            assert (
                await connection.fetchval("select string_agg(version_num, ' ') from alembic_version") == HEAD_REVISION
            )
            assert await connection.fetchval("select count(*) from billing_settings") == 1
            await connection.close()


async def test_d8_a_migration_waits_for_another_machines_as_long_as_that_takes(server_url: str) -> None:
    """Seen failing (at LEDGER_PROOF_SCALE=2) with the lock timeout set before the advisory lock was asked for."""
    async with database_on(server_url) as url:
        other = await asyncpg.connect(url)
        await other.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        waiting = asyncio.create_task(migrate(url))
        # Longer than a migration waits for a busy table, where there is time for that.
        await asyncio.sleep(11 if SCALE >= 2 else 0.5)
        assert not waiting.done()
        await other.close()
        assert (await waiting)[-1] == HEAD_REVISION


async def test_d8_schedules_run_once_however_many_workers_there_are(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with a schedule that each worker ran on its own."""
    connection = await asyncpg.connect(database_url)
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                real_ledger(
                    "worker", database_url=database_url, directory=tmp_path / f"worker-{number}", lanyard=lanyard
                )
            )
            for number in range(2)
        ]
        # The first start writes the schedules down; then both find all of them due.
        await workers[0].launch()
        names = await until_scheduled(connection)
        await workers[0].terminate()
        ran_before = len(workers[0].events("job ran"))
        await make_due(connection)
        for worker in workers:
            await worker.launch()
        await until_none_is_due(connection)
        await asyncio.sleep(1.5)
        for worker in workers:
            code, took_s = await worker.terminate()
            assert (code, took_s < 20) == (0, True)
        ran = [str(line["job"]) for worker in workers for line in worker.events("job ran")][ran_before:]
    runs = collections.Counter(ran)
    assert set(runs) == names - {"schedules.takeover"}
    # A minute may have begun meanwhile, which makes the schedule of every minute due again.
    every_minute = {schedule.name for schedule in SCHEDULES if schedule.cron == "* * * * *"}
    assert all(count <= (2 if job in every_minute else 1) for job, count in runs.items())
    await connection.close()


async def test_d1_a_worker_works_again_within_10_seconds_after_postgresql_was_killed(
    postgres: OwnPostgres, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with the queue left alone on its pool, where it no longer heard of anything new."""
    async with real_ledger(
        "worker", database_url=postgres.url, directory=tmp_path / "worker", lanyard=lanyard
    ) as worker:
        await worker.launch()
        connection = await asyncpg.connect(postgres.url)
        await until_scheduled(connection)
        await until_listening(connection)
        await make_due(connection)
        await connection.close()
        postgres.signal(signal.SIGKILL)
        await postgres.start()
        began_s = time.monotonic()
        connection = await asyncpg.connect(postgres.url)
        await until_listening(connection)
        assert time.monotonic() - began_s < SERVING_AGAIN_S
        # A schedule that was running in that moment is taken over once its worker's sign of life is 30 s old.
        await until_none_is_due(connection, within_s=45)
        await connection.close()
        assert (await worker.terminate())[0] == 0


async def until_scheduled(connection: "asyncpg.Connection[asyncpg.Record]") -> set[str]:
    """The names of the schedules, once a worker has written them down."""
    async with asyncio.timeout(20):
        while not (rows := await connection.fetch("select entrypoint from pgqueuer_schedules")):
            await asyncio.sleep(0.02)
    return {row["entrypoint"] for row in rows}


async def make_due(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute("update pgqueuer_schedules set next_run = now() - interval '1 minute'")


async def until_none_is_due(connection: "asyncpg.Connection[asyncpg.Record]", *, within_s: int = 20) -> None:
    """Waits until every schedule that was due has run."""
    due = "select count(*) from pgqueuer_schedules where next_run <= now() or status <> 'queued'"
    async with asyncio.timeout(within_s):
        while await connection.fetchval(due):
            await asyncio.sleep(0.02)


async def until_listening(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Waits until a worker has asked to be told of new jobs."""
    listening = "select count(*) from pg_stat_activity where query ilike 'listen %'"
    async with asyncio.timeout(20):
        while not await connection.fetchval(listening):
            await asyncio.sleep(0.02)
