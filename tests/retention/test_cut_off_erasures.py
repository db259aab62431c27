"""Erasures that a crash cuts off, that somebody subscribes during, and those of many people."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.retention import erasing
from ledger.retention.payloads import purge_payloads
from tests.api.subscribed import add_subscription, ensure_gold
from tests.installation import USER, Installation
from tests.retention.columns import columns_with
from tests.retention.world import SECRET, live_a_life, run
from tests.work import work


async def test_an_erasure_that_a_crash_cuts_off_is_finished_by_the_worker(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_a_life(ledger)

    async def broken(*_: object, **__: object) -> tuple[int, bool]:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(erasing, "purge_payloads", broken)
        assert (await ledger.staff.post(f"/api/privacy/users/{USER}/erase")).status == 500

    # Nobody asks again. The daily run comes, and whatever jobs there are.
    await ledger.sql("update pgqueuer set execute_after = now()")
    await work(ledger)
    await run(ledger)

    assert await columns_with(ledger.database_url, SECRET) == []
    assert await ledger.value("select count(*) from pgqueuer where entrypoint = 'privacy.erase'") == 0


async def test_the_finishing_job_of_a_whole_erasure_leaves_no_second_entry(ledger: Installation) -> None:
    await live_a_life(ledger)
    assert (await ledger.staff.post(f"/api/privacy/users/{USER}/erase")).status == 200
    await ledger.sql("update pgqueuer set execute_after = now()")
    await work(ledger)
    assert await ledger.value("select count(*) from audit_entry where action = 'privacy.erased'") == 1


async def test_looking_again_at_many_restricted_people_holds_no_lock_for_long(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.sql(
        """
        insert into person (lanyard_user_id, created_at, restricted_at)
        select 'user-gone-' || n, now(), now() from generate_series(1, 1000) n
        """
    )
    took_s: list[float] = []
    original = Database.atomically

    @asynccontextmanager
    async def timed(database: Database) -> AsyncIterator[Connection]:
        async with original(database) as connection:
            began_s = time.monotonic()
            yield connection
        took_s.append(time.monotonic() - began_s)

    monkeypatch.setattr(Database, "atomically", timed)
    await run(ledger)

    assert max(took_s) < 1.0


async def test_a_subscription_that_begins_during_an_erasure_keeps_its_customer(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_a_life(ledger)
    purge = purge_payloads

    async def subscribe_then_purge(database: Database, *, person_id: int, **more: object) -> tuple[int, bool]:
        await add_subscription(ledger, user_id=USER, status="active", product_id=await ensure_gold(ledger))
        return await purge(database, person_id=person_id)

    monkeypatch.setattr(erasing, "purge_payloads", subscribe_then_purge)
    await ledger.staff.post(f"/api/privacy/users/{USER}/erase")

    assert await ledger.value("select count(*) from provider_mapping where kind = 'customer'") == 1
