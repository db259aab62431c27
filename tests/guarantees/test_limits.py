"""A8, the limits: size, number of items, time, and rate. Whoever goes beyond them is told, and nobody else suffers."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from ledger.app import FAILED_PROOFS_PER_MINUTE
from ledger.database import transaction
from ledger.lanyard_identity import CachedIdentity
from ledger.web import operation
from tests.conftest import StartLedger
from tests.fakes.lanyard import FakeLanyard, HandMovedTime
from tests.guarantees.access_matrix import MATRIX, path_for
from tests.guarantees.raw_http import connect, head_of, read_answer
from tests.guarantees.scale import scaled
from tests.installation import USER, Answer, Installation

MIB = 1024 * 1024
INVOICE = b'{"userId":"%s","items":[{"description":"Membership","unitPrice":5000}]}' % USER.encode()
SHOP_HEADERS = [("Authorization", "ServiceKey sk_svc_shop"), ("Content-Type", "application/json")]


async def send_in_chunks(ledger: Installation, method: str, path: str, *, total: int, credential: str) -> int:
    """Sends `total` bytes without saying how many there will be; returns the status."""
    reader, writer = await connect(ledger.url)
    try:
        writer.write(head_of(method, path, [("Authorization", credential), ("Transfer-Encoding", "chunked")]))
        for start in range(0, total, 65_536):
            chunk = b" " * min(65_536, total - start)
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        writer.write(b"0\r\n\r\n")
        return (await asyncio.wait_for(read_answer(reader), timeout=10)).status
    finally:
        writer.close()


async def test_a8_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_refused(ledger: Installation) -> None:
    """Seen failing with `request_max_body_size` at 2 MiB, and with none."""
    assert (await ledger.shop.send("POST", "/api/invoices", data=INVOICE.ljust(MIB))).status == 201
    for row in MATRIX:
        if row.method == "GET" or row.is_public:
            continue
        path = await path_for(row, ledger)
        client = ledger.user if "/my/" in row.path else ledger.staff
        answer = await client.send(row.method, path, data=b"{}".ljust(MIB + 1))
        assert answer.status == 413, row.name
        assert "1 MiB" in answer.error
        credential = client.headers["Authorization"]
        assert await send_in_chunks(ledger, row.method, path, total=MIB + 1, credential=credential) == 413, row.name
    assert await ledger.value("select count(*) from invoice where status <> 'pending'") == 0


async def test_a8_a_body_that_is_said_to_be_huge_is_refused_before_it_is_sent(ledger: Installation) -> None:
    """Seen failing with the announced length not looked at: the request waited for the rest of its body."""
    reader, writer = await connect(ledger.url)
    writer.write(head_of("POST", "/api/invoices", [*SHOP_HEADERS, ("Content-Length", str(10 * MIB))]) + b"{")
    assert (await asyncio.wait_for(read_answer(reader), timeout=5)).status == 413
    writer.close()


@pytest.mark.parametrize(
    ("path", "field", "body"),
    [
        ("/api/invoices", "items", {"userId": USER, "items": [{"description": "x", "unitPrice": 1}] * 501}),
        (
            "/api/invoices/batch",
            "invoices",
            {"invoices": [{"userId": USER, "items": [{"description": "x", "unitPrice": 1}]}] * 1_001},
        ),
        (
            "/api/invoices/batch",
            "invoices[1].items",
            {
                "invoices": [
                    {"userId": USER, "items": [{"description": "x", "unitPrice": 1}] * count} for count in (500, 501)
                ]
            },
        ),
    ],
)
async def test_a8_more_items_than_allowed_are_refused_and_nothing_is_stored(
    ledger: Installation, path: str, field: str, body: dict[str, object]
) -> None:
    """Seen failing with `ITEMS_MAX` and `BATCH_MAX` at twice their values."""
    answer = await ledger.shop.post(path, body)
    assert answer.status == 400
    assert field in answer.refused()
    assert await ledger.value("select count(*) from invoice") == 0
    assert await ledger.value("select count(*) from counter") == 0


async def test_a8_a_person_beyond_the_rate_is_told_when_to_come_back_and_others_are_not_held_up(
    start_ledger: StartLedger,
) -> None:
    """Seen failing with the limit counted for all callers together, and with services counted like people."""
    ledger = await start_ledger(LEDGER_RATE_LIMIT="5")
    answers = [await ledger.user.get("/api/my/invoices") for _ in range(7)]
    assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert answers[-1].headers["Retry-After"] in answers[-1].error
    # Another session of the same person is the same person; somebody else is not.
    assert (await ledger.other.get("/api/my/invoices")).status == 200
    assert (await ledger.staff.get("/api/invoices")).status == 200
    assert {(await ledger.shop.get("/api/invoices/x/status")).status for _ in range(scaled(50))} == {404}


async def test_a8_a_service_is_limited_where_that_is_configured(start_ledger: StartLedger) -> None:
    """Seen failing with `LEDGER_SERVICE_RATE_LIMIT` not handed on."""
    ledger = await start_ledger(LEDGER_RATE_LIMIT="1200", LEDGER_SERVICE_RATE_LIMIT="3")
    statuses = [(await ledger.shop.get("/api/invoices/x/status")).status for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]
    assert (await ledger.camp.get("/api/invoices/x/status")).status == 404


async def test_a8_failed_proofs_are_limited_by_address_while_known_callers_pass(
    start_ledger: StartLedger, lanyard: FakeLanyard
) -> None:
    """Seen failing with the limit asked before the cache, with callers forgotten by it after 15 s, and without one."""
    ledger = await start_ledger(LEDGER_RATE_LIMIT="1200")
    assert (await ledger.user.get("/api/my/invoices")).status == 200

    async def made_up(n: int) -> Answer:
        return await ledger.client({"Authorization": f"Bearer made-up-{n}"}).get("/api/my/invoices")

    answers = [await made_up(n) for n in range(2 * FAILED_PROOFS_PER_MINUTE)]
    assert [answer.status for answer in answers[:FAILED_PROOFS_PER_MINUTE]] == [401] * FAILED_PROOFS_PER_MINUTE
    # A few more pass as time goes by: the allowance grows back with every second.
    limited = [answer for answer in answers if answer.status == 429]
    assert len(limited) > FAILED_PROOFS_PER_MINUTE // 2
    assert int(limited[-1].headers["Retry-After"]) >= 1
    assert len(lanyard.calls_to("/permissions")) == len(answers) - len(limited) + 1
    # A stale tab that asks again is no guess, and is told the same as before.
    assert (await made_up(0)).status in (401, 429)
    assert (await ledger.user.get("/api/my/invoices")).status == 200
    # Also when it is time to ask Lanyard again whether they are still who they were.
    identity = ledger.services.identity
    assert isinstance(identity, CachedIdentity)
    identity._monotonic_s = HandMovedTime(time.monotonic() + 60)
    assert (await ledger.user.get("/api/my/invoices")).status == 200
    assert (await ledger.other.get("/api/my/invoices")).status == 429
    # Whoever shows no credential at all costs nothing and learns nothing.
    assert (await ledger.nobody.get("/api/my/invoices")).status == 401


async def test_a8_a_rate_limit_of_0_switches_all_of_it_off(start_ledger: StartLedger) -> None:
    """Seen failing with the limit on failed proofs left on."""
    ledger = await start_ledger(LEDGER_RATE_LIMIT="0")
    count = 2 * FAILED_PROOFS_PER_MINUTE
    assert {(await ledger.user.get("/api/my/invoices")).status for _ in range(count)} == {200}
    made_up = [ledger.client({"Authorization": f"Bearer made-up-{n}"}) for n in range(count)]
    assert {(await client.get("/api/my/invoices")).status for client in made_up} == {401}


async def test_a8_a_body_that_drips_is_given_up_while_others_are_served(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing with the body read outside of any time limit: the clients waited until they gave up."""
    monkeypatch.setattr(operation, "REQUEST_TIMEOUT_S", operation.WORK_TIMEOUT_S + 1.0)

    async def drip() -> tuple[int, float]:
        reader, writer = await connect(ledger.url)
        began_s = time.monotonic()
        writer.write(head_of("POST", "/api/invoices", [*SHOP_HEADERS, ("Content-Length", str(len(INVOICE)))]))
        answer = asyncio.create_task(read_answer(reader))
        for n in range(len(INVOICE)):
            if answer.done():
                break
            writer.write(INVOICE[n : n + 1])
            await asyncio.sleep(0.05)
        status = (await asyncio.wait_for(answer, timeout=10)).status
        writer.close()
        return status, time.monotonic() - began_s

    drips = [asyncio.create_task(drip()) for _ in range(scaled(40))]
    await asyncio.sleep(0.2)
    began_s = time.monotonic()
    assert (await ledger.create_invoice()).status == 201
    assert time.monotonic() - began_s < 0.8
    for status, took_s in await asyncio.gather(*drips):
        assert status == 504
        assert took_s < 3
    assert await ledger.value("select count(*) from invoice") == 1


async def test_a8_nothing_takes_longer_than_its_time(ledger: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing with the limit on the work taken out. 8 s is what the Dashboard's proxy leaves; here it is 1 s."""
    monkeypatch.setattr(operation, "WORK_TIMEOUT_S", 1.0)
    blocker = await holding_the_counter(ledger)
    try:
        began_s = time.monotonic()
        under_way = asyncio.create_task(ledger.shop.send("POST", "/api/invoices", data=INVOICE))
        await asyncio.sleep(0.2)
        gathering = asyncio.create_task(ledger.shop.send("POST", "/api/invoices", data=INVOICE))
        for answer in await asyncio.gather(under_way, gathering):
            assert answer.status == 504
            assert "Look whether it was stored" in answer.error
            assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - began_s < 2.2
    finally:
        await blocker()
    assert (await ledger.create_invoice()).status == 201
    # The one that was being stored when its caller gave up is there; the one that still waited for that is not.
    assert await ledger.value("select count(*) from invoice") == 3


async def test_a8_when_all_connections_are_taken_others_are_told_to_come_back(
    start_ledger: StartLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing with no limit on the wait for a connection."""
    monkeypatch.setattr(transaction, "ACQUIRE_TIMEOUT_S", 0.5)
    ledger = await start_ledger(LEDGER_DATABASE_POOL="4")
    paths = [f"/api/invoices/{(await ledger.create_invoice()).body['id']}/mark-paid" for _ in range(4)]
    locks = await asyncpg.connect(ledger.database_url)
    async with locks.transaction():
        await locks.execute("select * from invoice for update")
        waiting = [asyncio.create_task(ledger.staff.post(path)) for path in paths]
        await asyncio.sleep(0.5)
        for asked in (ledger.staff.get("/api/invoices"), ledger.shop.send("POST", "/api/invoices", data=INVOICE)):
            answer = await asked
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
        assert (await ledger.nobody.get("/api/ready")).status == 503
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 4
    assert (await ledger.nobody.get("/api/ready")).status == 200
    assert (await ledger.create_invoice()).status == 201
    await locks.close()


async def holding_the_counter(ledger: Installation) -> Callable[[], Awaitable[None]]:
    """Keeps the counter's row locked, as a frozen process would, until what it returns is called."""
    await ledger.create_invoice()
    connection = await asyncpg.connect(ledger.database_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("select * from counter for update")

    async def release() -> None:
        await transaction.rollback()
        await connection.close()

    return release
