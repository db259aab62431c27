"""Money: M1, M2 and M6. (M8, the sums, is property-tested without a database: `tests/rules/test_tax.py`.)"""

import asyncio
import collections
import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ledger.system.jobs import IDEMPOTENCY_KEPT, purge_idempotency_records
from tests.conftest import StartLedger
from tests.fakes.lanyard import FakeLanyard
from tests.guarantees.invariants import faults_in_books, issued_numbers
from tests.guarantees.running import RealLedger, calling, real_ledger
from tests.guarantees.scale import scaled, seeded
from tests.installation import START, USER, Answer, Client, Installation

LINE = {"description": "Membership", "unitPrice": 5000}
INVOICE: dict[str, object] = {"userId": USER, "items": [LINE]}
REFUSED: tuple[dict[str, object], ...] = (
    {"userId": USER, "items": [{"description": "x", "unitPrice": -1}]},
    {"userId": USER, "items": [{"description": "x", "unitPrice": 1, "quantity": 0}]},
    {"userId": USER, "items": [LINE], "currency": "XYZ"},
    {"userId": USER, "items": [{"description": "x", "unitPrice": 10**10, "quantity": 10**6}]},
    {"userId": USER, "items": [{**LINE, "productId": "none"}]},
    {"userId": "../x", "items": [LINE]},
    {"items": [LINE]},
)


def some_invoice(random_: random.Random) -> dict[str, object]:
    """Any invoice that is right, of one to four lines, taxed at different rates."""
    items = [
        {
            "description": f"Item {n}",
            "unitPrice": random_.randrange(10_000),
            "quantity": random_.randint(1, 5),
            "taxRate": random_.choice([0, 700, 1900]),
        }
        for n in range(random_.randint(1, 4))
    ]
    return {"userId": f"user-{random_.randrange(20):04}", "items": items, "currency": random_.choice(["EUR", "JPY"])}


class Creating:
    """Clients who create invoices all the time, and what they were answered."""

    def __init__(self, client: Client, random_: random.Random, *, refused_share: float) -> None:
        self._client = client
        self._random = random_
        self._refused_share = refused_share
        self._stopped = asyncio.Event()
        self.acknowledged: dict[str, str] = {}
        self.statuses: collections.Counter[int] = collections.Counter()

    async def run(self, clients: int) -> None:
        await asyncio.gather(*(self._create() for _ in range(clients)))

    def stop(self) -> None:
        self._stopped.set()

    async def until_acknowledged(self, count: int) -> None:
        """Waits until so many more invoices were acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(60):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.01)

    async def _create(self) -> None:
        while not self._stopped.is_set():
            is_wrong = self._random.random() < self._refused_share
            body = self._random.choice(REFUSED) if is_wrong else some_invoice(self._random)
            try:
                answer = await self._client.post("/api/invoices", body)
            except (aiohttp.ClientError, OSError, TimeoutError):
                # Nobody knows what became of this one.
                self.statuses[0] += 1
                await asyncio.sleep(0.05)
                continue
            self.statuses[answer.status] += 1
            assert (answer.status == 400) == is_wrong, answer.content
            if answer.status == 201:
                self.acknowledged[answer.body["id"]] = answer.body["invoiceNumber"]


POISON = """
    create function refuse_poison() returns trigger language plpgsql as $$
    begin if new.description = 'poison' then raise exception 'poison'; end if; return new; end $$;
    create trigger refuse_poison before insert on invoice_line for each row execute function refuse_poison();
"""


async def test_m1_what_the_database_refuses_fails_alone_and_takes_no_number(ledger: Installation) -> None:
    """Seen failing with the whole batch refused for one of its members."""
    connection = await asyncpg.connect(ledger.database_url)
    await connection.execute(POISON)
    await connection.close()
    poisoned = {"userId": USER, "items": [{"description": "poison", "unitPrice": 1}]}
    bodies = [poisoned if n % 10 == 5 else INVOICE for n in range(scaled(60))]
    answers = await asyncio.gather(*(ledger.shop.post("/api/invoices", body) for body in bodies))
    assert [answer.status for answer in answers] == [500 if body is poisoned else 201 for body in bodies]
    assert b"poison" not in b"".join(answer.content for answer in answers)
    assert await faults_in_books(ledger.database_url) == {}
    assert len(await issued_numbers(ledger.database_url)) == sum(body is INVOICE for body in bodies)


@pytest.mark.parametrize("api_processes", ["1", "2"])
async def test_m1_numbers_are_exactly_1_to_n_in_order_whatever_is_refused_or_killed(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard, api_processes: str
) -> None:
    """Seen failing with the number taken in a transaction of its own, before the invoice is stored."""
    random_ = seeded()
    async with (
        real_ledger(
            database_url=database_url, directory=tmp_path, lanyard=lanyard, LEDGER_API_PROCESSES=api_processes
        ) as ledger,
        calling(ledger) as (shop, _),
    ):
        await ledger.start()
        creating = Creating(shop, random_, refused_share=0.2)
        clients = asyncio.create_task(creating.run(64))
        for kill in (ledger.kill_children, ledger.kill, *scaled(1) * [ledger.kill]):
            await creating.until_acknowledged(random_.randint(50, 50 + scaled(200)))
            # Answers arrive right after a commit; the kill shall come at any point of the next one.
            await asyncio.sleep(random_.uniform(0, 0.05))
            kill()
            if kill == ledger.kill:
                await ledger.start()
        await creating.until_acknowledged(scaled(200))
        creating.stop()
        await clients
    print(f"answers by status (0: none): {dict(creating.statuses)}")
    assert set(creating.statuses) == {0, 201, 400}
    assert await faults_in_books(database_url) == {}
    issued = await issued_numbers(database_url)
    assert creating.acknowledged.items() <= issued.items()
    assert len(issued) <= len(creating.acknowledged) + creating.statuses[0]


async def test_m1_each_year_has_its_own_numbers_as_the_calendar_of_the_books_has_it(
    start_ledger: StartLedger,
) -> None:
    """Seen failing with the year taken in UTC, and with the time of issue as each process' own clock has it."""
    # Midnight in Auckland, where these books are kept, is 11:00 in UTC.
    turn = datetime(2026, 12, 31, 11, 0, tzinfo=UTC)
    ledgers = [await start_ledger(LEDGER_TIMEZONE="Pacific/Auckland") for _ in range(2)]
    # Two machines, one of which is a little behind.
    ledgers[0].clock.move(turn - START - timedelta(milliseconds=200))
    ledgers[1].clock.move(turn - START - timedelta(milliseconds=350))
    answers: list[Answer] = []

    async def create(client: Client) -> None:
        for _ in range(scaled(10)):
            answers.append(await client.post("/api/invoices", INVOICE))

    clients = [asyncio.create_task(create(ledger.shop)) for ledger in ledgers for _ in range(16)]
    while not all(client.done() for client in clients):
        await asyncio.sleep(0.01)
        for ledger in ledgers:
            ledger.clock.move(timedelta(milliseconds=10))
    for ledger in ledgers:
        ledger.clock.move(timedelta(seconds=1))
        answers += [await ledger.shop.post("/api/invoices", INVOICE)]
    assert [answer.content for answer in answers if answer.status != 201] == []
    assert await faults_in_books(ledgers[0].database_url) == {}
    rows = await ledgers[0].sql("select series, min(created_at), max(created_at) from invoice group by 1 order by 1")
    assert [row["series"] for row in rows] == ["INV-2026", "INV-2027"]
    # A machine that is behind issues in the old year for a little longer.
    assert rows[0]["max"] < turn <= rows[1]["min"]
    assert len(answers) == len(await issued_numbers(ledgers[0].database_url))


async def test_m2_two_hundred_simultaneous_payments_by_hand_are_one(ledger: Installation) -> None:
    """Seen failing with the invoice read without its lock."""
    for _ in range(scaled(2)):
        invoice = (await ledger.create_invoice()).body["id"]
        path = f"/api/invoices/{invoice}/mark-paid"
        clients = itertools.islice(itertools.cycle([ledger.staff, ledger.shop]), 200)
        answers = await asyncio.gather(*(client.post(path, {"method": "cash"}) for client in clients))
        assert collections.Counter(answer.status for answer in answers) == {200: 1, 400: 199}
        assert {answer.error for answer in answers if answer.status == 400} == {"Invoice is already paid"}
        counts = await ledger.sql(
            """
            select (select count(*) from payment where invoice_id = $1::uuid) as payments,
                (select sum(amount_minor) from payment where invoice_id = $1::uuid) as paid,
                (select count(*) from audit_entry where entity_id = $1::uuid::text and action <> 'invoice.created')
                    as entries,
                (select count(*) from event where subject_id = $1::uuid and type <> 'invoice.created') as events
            """,
            invoice,
        )
        assert tuple(counts[0].values()) == (1, 5000, 1, 1)
    assert await faults_in_books(ledger.database_url) == {}


async def paths_that_take_keys(ledger: Installation) -> dict[str, object]:
    """Three operations that keep keys in three ways, each with a body that is right."""
    invoice = (await ledger.create_invoice()).body["id"]
    return {
        "/api/invoices": INVOICE,
        "/api/invoices/batch": {"invoices": [INVOICE, INVOICE]},
        f"/api/invoices/{invoice}/mark-paid": {"method": "cash", "amount": 100},
    }


async def stored(ledger: Installation) -> int:
    """How many things these operations have made."""
    count: int = await ledger.value("select (select count(*) from invoice) + (select count(*) from payment)")
    return count


async def test_m6_a_hundred_equal_requests_with_one_key_have_one_effect(ledger: Installation) -> None:
    """Seen failing with each key claimed again by whoever comes (`on conflict do update`)."""
    for path, body in (await paths_that_take_keys(ledger)).items():
        before = await stored(ledger)
        answers = await asyncio.gather(*(ledger.shop.post(path, body, key="one") for _ in range(100)))
        seen = collections.Counter(answer.status for answer in answers)
        assert set(seen) <= {200, 201, 409}, seen
        given = {answer.content for answer in answers if answer.status != 409}
        assert len(given) == 1
        assert all("Retry-After" in answer.headers for answer in answers if answer.status == 409)
        assert await stored(ledger) == before + (2 if path.endswith("batch") else 1)
        # And later, too.
        again = await ledger.shop.post(path, body, key="one")
        assert again.content in given
        assert again.headers["idempotent-replayed"] == "true"
        assert await stored(ledger) == before + (2 if path.endswith("batch") else 1)
    assert await faults_in_books(ledger.database_url) == {}


async def test_m6_a_key_belongs_to_its_body_its_caller_and_its_operation(ledger: Installation) -> None:
    """Seen failing with the caller left out of the key, and with the body not compared."""
    paths = await paths_that_take_keys(ledger)
    for path, body in paths.items():
        assert isinstance(body, dict)
        first = await ledger.shop.post(path, body, key="mine")
        assert first.status in (200, 201)
        other_body = await ledger.shop.post(path, {**body, "notes": "another"}, key="mine")
        assert other_body.status == 422
        before = await stored(ledger)
        elsewhere = await ledger.staff.post(path, body, key="mine")
        assert elsewhere.status == first.status
        assert await stored(ledger) > before
    # The same key did for three operations of one caller; a second invoice is an operation of its own as well.
    second = f"/api/invoices/{(await ledger.create_invoice()).body['id']}/mark-paid"
    assert (await ledger.shop.post(second, {"method": "cash"}, key="mine")).status == 200
    # The ids of a person and of a service may be equal; their keys are not shared.
    assert await ledger.value("select count(distinct caller) from idempotency_record") == 2


async def test_m6_a_refused_or_failed_request_uses_no_key_up(ledger: Installation) -> None:
    """Seen failing with the claim committed before the change was tried: in the writer, and in all other changes."""
    connection = await asyncpg.connect(ledger.database_url)
    await connection.execute(POISON)
    poisoned = {"userId": USER, "items": [{"description": "poison", "unitPrice": 1}]}
    assert (await ledger.shop.post("/api/invoices", poisoned, key="p")).status == 500
    await connection.execute("drop trigger refuse_poison on invoice_line")
    await connection.close()
    assert (await ledger.shop.post("/api/invoices", poisoned, key="p")).status == 201

    assert (await ledger.shop.post("/api/invoices", REFUSED[0], key="k")).status == 400
    assert (await ledger.shop.post("/api/invoices", INVOICE, key="k")).status == 201
    invoice = (await ledger.create_invoice()).body["id"]
    path = f"/api/invoices/{invoice}/mark-paid"
    assert (await ledger.shop.post(path, {"amount": 10_000}, key="k")).status == 400
    assert (await ledger.shop.post(path, {"amount": 5_000}, key="k")).status == 200
    for key in ("", " ", "a" * 256, "a\tb", "\u00e9"):
        assert (await ledger.shop.post("/api/invoices", INVOICE, key=key)).status == 400, key


async def test_m6_keys_are_kept_for_30_days(ledger: Installation) -> None:
    """Seen failing with `IDEMPOTENCY_KEPT` at 29 days, and with the purge comparing the wrong way round."""
    first = await ledger.shop.post("/api/invoices", INVOICE, key="k")
    ledger.clock.move(IDEMPOTENCY_KEPT - timedelta(seconds=1))
    assert await purge_idempotency_records(ledger.services.database) == 0
    assert (await ledger.shop.post("/api/invoices", INVOICE, key="k")).body == first.body
    ledger.clock.move(timedelta(seconds=2))
    assert timedelta(days=30) == IDEMPOTENCY_KEPT
    assert await purge_idempotency_records(ledger.services.database) == 1
    assert (await ledger.shop.post("/api/invoices", INVOICE, key="k")).body["id"] != first.body["id"]


# Makes a commit of invoices wait in the server until the test lets it go on.
WAIT_IN_COMMIT = """
    create function wait_in_commit() returns trigger language plpgsql as $$
    begin perform pg_advisory_xact_lock(42); return null; end $$;
    create constraint trigger wait_in_commit after insert on invoice deferrable initially deferred
    for each row execute function wait_in_commit();
"""


async def test_m6_a_key_survives_a_crash_between_commit_and_answer(
    database_url: str, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with the answer stored in a second transaction, after that of the effect."""
    holder = await asyncpg.connect(database_url)
    async with (
        real_ledger(database_url=database_url, directory=tmp_path, lanyard=lanyard) as ledger,
        calling(ledger) as (shop, _),
    ):
        await ledger.start()
        for path, body in (("/api/invoices", INVOICE), ("/api/invoices/batch", {"invoices": [INVOICE, INVOICE]})):
            # The clients of the API know the key; the process that took it dies in the middle.
            await holder.execute("drop trigger if exists wait_in_commit on invoice")
            await holder.execute("drop function if exists wait_in_commit")
            await holder.execute(WAIT_IN_COMMIT)
            before = set(await issued_numbers(database_url))
            await holder.execute("select pg_advisory_lock(42)")
            asked = asyncio.create_task(shop.post(path, body, key="one"))
            await until_somebody_waits(holder)
            ledger.freeze_children()
            await holder.execute("select pg_advisory_unlock(42)")
            committed = await until_committed(database_url, before)
            await die_and_come_back(ledger)
            with pytest.raises(aiohttp.ClientError):
                await asked
            again = await shop.post(path, body, key="one")
            assert again.status == 201
            results = again.body["results"] if path.endswith("batch") else [again.body]
            assert {each["id"] for each in results} == committed
            assert again.headers["idempotent-replayed"] == "true"
    await holder.close()
    assert await faults_in_books(database_url) == {}


async def until_somebody_waits(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    async with asyncio.timeout(10):
        while not await connection.fetchval(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        ):
            await asyncio.sleep(0.01)


async def until_committed(database_url: str, before: set[str]) -> set[str]:
    """The ids of the invoices that were committed since."""
    async with asyncio.timeout(10):
        while not (new := set(await issued_numbers(database_url)) - before):
            await asyncio.sleep(0.01)
    return new


async def die_and_come_back(ledger: RealLedger) -> None:
    ledger.kill()
    await ledger.start()
