"""Retention beside everything else: cut off, repeated, run by several at once, while money arrives."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ledger.database.connection import Connection
from ledger.database.persons import ensure_persons
from ledger.database.transaction import Database
from ledger.invoices.actions import HandPayment, mark_invoice_paid
from ledger.retention import freeing, walking
from ledger.retention.jobs import Stopping, apply_retention
from ledger.retention.rules import is_due, kept_since
from tests.guarantees.scale import seeded
from tests.installation import USER, Installation
from tests.retention.columns import columns_with
from tests.retention.world import FIRST_DAY, faults, live_a_life, money, move_to, run

ITEMS = [{"description": "Membership", "unitPrice": 5000}]
PEOPLE = [f"user-crowd-{number:012}" for number in range(40)]


async def bill_a_crowd(ledger: Installation) -> None:
    """An invoice for each of 40 people, all paid."""
    body = {"invoices": [{"userId": person, "items": ITEMS, "notes": person} for person in PEOPLE]}
    made = await ledger.shop.post("/api/invoices/batch", body)
    assert made.status == 201, made.content
    for invoice in made.body["results"]:
        assert (await ledger.shop.post(f"/api/invoices/{invoice['id']}/mark-paid")).status == 200


async def left(ledger: Installation) -> list[int]:
    """How many invoices still name somebody, and how many people there are."""
    (row,) = await ledger.sql(
        """
        select (select count(*) from invoice where person_id is not null or notes is not null),
            (select count(*) from person where lanyard_user_id like 'user-crowd-%')
        """
    )
    return list(row)


async def test_a_run_that_is_stopped_goes_on_where_it_was(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "PAGE", 7)
    await bill_a_crowd(ledger)
    before = await money(ledger)
    move_to(ledger, FIRST_DAY)
    freed = 0

    for pages in range(1, 40):
        done = await apply_retention(ledger.services.database, zone=ledger.settings.timezone, is_stopping=_after(pages))
        freed += done.counts["invoices"]
        assert await faults(ledger) == []
        if not done.was_stopped:
            break

    assert freed == 40
    assert await left(ledger) == [0, 0]
    assert await money(ledger) == before
    told = await ledger.sql(
        "select (details ->> 'invoices')::int from audit_entry where action = 'data_retention.anonymized'"
    )
    assert sum(row[0] for row in told) == 40


def _after(pages: int) -> Callable[[], bool]:
    """Says that it is time to stop once it was asked so often."""
    allowed = iter(range(pages))
    return lambda: next(allowed, None) is None


async def test_what_was_done_before_a_failure_stays_done_and_is_told(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bill_a_crowd(ledger)
    move_to(ledger, FIRST_DAY)

    async def broken(*_: object, **__: object) -> list[str]:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(freeing, "lock_subscriptions", broken)
        with pytest.raises(RuntimeError):
            await run(ledger)
    assert (await left(ledger))[0] == 0
    assert (
        await ledger.value("select details ->> 'invoices' from audit_entry where action like 'data_retention.%'")
        == "40"
    )

    assert (await run(ledger)).counts["persons"] == 40


async def test_a_worker_that_is_told_to_stop_stops_between_two_pages(ledger: Installation) -> None:
    await bill_a_crowd(ledger)
    move_to(ledger, FIRST_DAY)
    stopping, stop = Stopping(), asyncio.Event()
    stopping.follow(stop)
    assert not stopping.is_set()
    stop.set()

    done = await apply_retention(ledger.services.database, zone=ledger.settings.timezone, is_stopping=stopping.is_set)

    assert done.was_stopped
    assert (await left(ledger))[0] == 40


async def test_of_several_workers_one_does_it(ledger: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAGE", 7)
    await bill_a_crowd(ledger)
    move_to(ledger, FIRST_DAY)
    others = [Database(ledger.database_url, pool_size=2, clock=ledger.clock, ids=ledger.services.ids) for _ in range(3)]
    for each in others:
        await each.open()
    try:
        done = await asyncio.gather(*(apply_retention(each, zone=ledger.settings.timezone) for each in others))
    finally:
        for each in others:
            await each.close()

    assert sum(each.counts.get("invoices", 0) for each in done) == 40
    assert sum(each.counts.get("persons", 0) for each in done) == 40
    assert sum(not each.runs_elsewhere for each in done) >= 1
    # Nobody holds the lock any more.
    assert not (await run(ledger)).runs_elsewhere


async def test_two_runs_at_once_would_not_get_into_each_others_way(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is a courtesy: a connection that drops loses it, while its run may go on for a page."""
    monkeypatch.setattr(walking, "PAGE", 7)
    monkeypatch.setattr("ledger.retention.jobs._LOCK_QUERY", "select $1::bigint is not null")
    await bill_a_crowd(ledger)
    move_to(ledger, FIRST_DAY)

    done = await asyncio.gather(run(ledger), run(ledger), run(ledger))

    assert sum(each.counts["invoices"] for each in done) == 40
    assert sum(each.counts["persons"] for each in done) <= 40
    await run(ledger)
    assert await left(ledger) == [0, 0]
    assert await faults(ledger) == []


async def test_an_invoice_that_somebody_is_paying_just_now_is_left_alone(ledger: Installation) -> None:
    invoice: str = (await ledger.create_invoice()).body["id"]
    await ledger.sql("update invoice set status = 'failed', failed_at = $2 where id = $1", invoice, ledger.clock.now())
    move_to(ledger, FIRST_DAY)

    async with ledger.services.database.transaction_by(kind="cli", name="test") as tx:
        await mark_invoice_paid(tx, invoice_id=invoice, service_id=None, paid=HandPayment())
        done = await run(ledger)
        assert done.counts["invoices"] == 0
    assert (await run(ledger)).counts["invoices"] == 0

    assert await columns_with(ledger.database_url, USER) == ["person.lanyard_user_id"]
    assert await ledger.value("select person_id is not null from invoice") is True
    assert await faults(ledger) == []


async def test_a_payment_that_arrives_between_looking_and_locking_keeps_its_invoice(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice: str = (await ledger.create_invoice()).body["id"]
    await ledger.sql("update invoice set status = 'failed', failed_at = $2 where id = $1", invoice, ledger.clock.now())
    move_to(ledger, FIRST_DAY)
    lock = freeing.lock_invoices

    async def pay_then_lock(connection: Connection, *, ids: list[str]) -> list[str]:
        assert ids == [invoice]
        assert (await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")).status == 200
        return await lock(connection, ids=ids)

    monkeypatch.setattr(freeing, "lock_invoices", pay_then_lock)
    assert (await run(ledger)).counts["invoices"] == 0

    assert await ledger.value("select person_id is not null from invoice") is True


async def test_a_payment_for_an_invoice_that_is_being_freed_is_booked(ledger: Installation) -> None:
    """Whoever comes first: the payment is there, and the books are right."""
    made = await ledger.shop.post(
        "/api/invoices/batch", {"invoices": [{"userId": person, "items": ITEMS} for person in PEOPLE]}
    )
    ids = [each["id"] for each in made.body["results"]]
    await ledger.sql("update invoice set status = 'failed', failed_at = $1", ledger.clock.now())
    move_to(ledger, FIRST_DAY)

    async def pay(invoice: str) -> int:
        return (await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")).status

    *statuses, _, _ = await asyncio.gather(*(pay(each) for each in ids), run(ledger), run(ledger))

    assert set(statuses) == {200}
    assert await ledger.value("select count(*) from payment") == len(ids)
    assert await faults(ledger) == []


async def test_somebody_who_is_about_to_be_billed_does_not_go(ledger: Installation) -> None:
    async with ledger.services.database.atomically() as connection:
        rows = await ensure_persons(connection, user_ids={USER}, now=ledger.clock.now())
    database = ledger.services.database

    async with database.atomically() as connection:
        assert await ensure_persons(connection, user_ids={USER}, now=ledger.clock.now()) == rows
        assert (await run(ledger)).counts["persons"] == 0
    assert (await run(ledger)).counts["persons"] == 1
    async with database.atomically() as connection:
        assert await ensure_persons(connection, user_ids={USER}, now=ledger.clock.now()) != rows


async def test_billing_goes_on_while_people_are_let_go_of(ledger: Installation) -> None:
    """People who come back in the moment they are let go of are billed all the same."""
    await ledger.staff.put("/api/settings", {"dataRetentionDays": 1})
    for _ in range(3):
        await bill_a_crowd(ledger)
        move_to(ledger, datetime(ledger.clock.now().year + 1, 3, 1, tzinfo=UTC))

        async def bill(person: str) -> int:
            return (await ledger.shop.post("/api/invoices", {"userId": person, "items": ITEMS})).status

        running = asyncio.create_task(run(ledger))
        assert set(await asyncio.gather(*(bill(person) for person in PEOPLE))) == {201}
        assert not (await running).runs_elsewhere
        await ledger.sql("update invoice set status = 'failed', failed_at = created_at where status = 'pending'")
    assert await faults(ledger) == []


async def test_the_database_decides_as_the_rule_does(ledger: Installation) -> None:
    """Invoices with every kind of history, freed by SQL exactly where the pure rule says so."""
    source = seeded()
    made = await ledger.shop.post(
        "/api/invoices/batch", {"invoices": [{"userId": USER, "items": ITEMS} for _ in range(150)]}
    )
    statuses = ("pending", "paid", "failed", "cancelled", "refunded")
    expected: dict[str, tuple[str, list[datetime]]] = {}
    for each in made.body["results"]:
        status = source.choice(statuses)
        facts = await _live(ledger, each["id"], status, source)
        expected[each["id"]] = (status, facts)

    for now in (FIRST_DAY, datetime(2037, 6, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)):
        move_to(ledger, now)
        await run(ledger)
        since = kept_since(now, retention_days=2922, zone=ledger.settings.timezone)
        rows = await ledger.sql("select id::text, person_id is null as is_free from invoice")
        assert {row["id"]: row["is_free"] for row in rows} == {
            invoice: is_due(status=status, facts_at=facts, since=since) for invoice, (status, facts) in expected.items()
        }


async def _live(ledger: Installation, invoice: str, status: str, source: random.Random) -> list[datetime]:
    """Gives an invoice a random history in its database; returns its facts. An open dispute lasts for ever."""
    await ledger.sql("update invoice set status = $2 where id = $1", invoice, status)
    issued = await ledger.value("select created_at from invoice where id = $1", invoice)
    facts = [issued]

    def some_day() -> datetime:
        moment: datetime = issued + timedelta(days=source.randrange(0, 365 * 4))
        return moment

    for _ in range(source.randrange(3)):
        received, created, payment = some_day(), some_day(), ledger.services.ids.new()
        await ledger.sql(
            """
            insert into payment (id, invoice_id, amount_minor, currency, provider, method, is_unexpected, received_at,
                created_at) values ($1, $2, 100, 'EUR', 'manual', 'cash', false, $3, $4)
            """,
            payment,
            invoice,
            received,
            created,
        )
        facts += [received, created]
        if source.random() < 0.5:
            asked, settled = some_day(), some_day()
            await ledger.sql(
                """
                insert into refund (id, payment_id, amount_minor, currency, status, created_at, settled_at, looks)
                values ($1, $2, 1, 'EUR', 'succeeded', $3, $4, 0)
                """,
                ledger.services.ids.new(),
                payment,
                asked,
                settled,
            )
            facts += [asked, settled]
        if source.random() < 0.3:
            is_open = source.random() < 0.5
            began = some_day()
            await ledger.sql(
                """
                insert into dispute (id, payment_id, remote_id, amount_minor, currency, reason, status, created_at,
                    updated_at) values ($1, $2, 'dp', 1, 'EUR', 'They say so', $3, $4, $4)
                """,
                ledger.services.ids.new(),
                payment,
                "needs_response" if is_open else "won",
                began,
            )
            facts += [datetime.max.replace(tzinfo=UTC) if is_open else began]
    return facts


async def test_somebody_with_a_kept_answer_stays_until_it_goes(ledger: Installation) -> None:
    await live_a_life(ledger)
    person = await ledger.value("select id from person where lanyard_user_id = $1", USER)
    move_to(ledger, FIRST_DAY)
    await ledger.sql(
        """
        insert into idempotency_record (caller, operation, key, body_sha256, created_at)
        values ($1, 'POST /api/my/subscribe', 'k', '', $2)
        """,
        f"person:{person}",
        ledger.clock.now(),
    )

    assert (await run(ledger)).counts["invoices"] == 2
    assert await columns_with(ledger.database_url, USER) == ["person.lanyard_user_id", "provider_mapping.remote_id"]
    ledger.clock.move(timedelta(days=31))
    done = await run(ledger)
    assert (done.counts["answers"], done.counts["persons"]) == (1, 1)
    assert await columns_with(ledger.database_url, USER) == []
