"""Workers as real processes: told to stop they finish what runs; killed, another takes over what they had begun."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ledger.inbound.actions import APPLY_JOB
from ledger.products.actions import SYNC_JOB
from tests.conftest import StartLedger
from tests.fakes.lanyard import FakeLanyard
from tests.fakes.stripe import FakeStripe
from tests.guarantees.running import RealLedger, real_ledger
from tests.subscriptions.club import Club, open_club
from tests.work import work

TAKEN_OVER_WITHIN_S = 60


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    """A Stripe of our own."""
    async with FakeStripe() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def club(start_ledger: StartLedger, stripe: FakeStripe) -> Club:
    """A Ledger with an active Stripe account. Its jobs are left to the workers."""
    return await open_club(start_ledger, stripe)


async def until(holds: Callable[[], Awaitable[object]], *, within_s: float = 20) -> float:
    """Waits until something holds; returns how many seconds that took."""
    began_s = time.monotonic()
    while not await holds():
        assert time.monotonic() - began_s < within_s
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


def ran(worker: RealLedger, name: str) -> list[dict[str, object]]:
    return [line for line in worker.events("job ran") if line["job"] == name]


async def test_a_worker_told_to_stop_finishes_the_job_that_runs(
    club: Club, stripe: FakeStripe, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """Seen failing with the queue's tasks cancelled in place of being waited for."""
    ledger = club.ledger
    # What the activation left is done, so that nothing asks for the product twice.
    await work(ledger)
    added = await ledger.staff.post("/api/products", {"name": "Ticket", "price": "5000", "type": "one-time"})
    assert added.status == 201
    # Five questions in all, well within the time that the provider has.
    stripe.delay_s = 0.4
    settings = {"STRIPE_API_BASE": stripe.url}
    async with real_ledger(
        "worker", database_url=ledger.database_url, directory=tmp_path / "worker", lanyard=lanyard, **settings
    ) as worker:
        await worker.launch()

        async def is_asked() -> bool:
            return bool(stripe.requests_to("/products"))

        await until(is_asked)
        code, took_s = await worker.terminate()
        assert code == 0
        assert took_s < 20
        assert any(
            isinstance(line["duration_ms"], int) and line["duration_ms"] >= 1000 for line in ran(worker, SYNC_JOB)
        )
        assert worker.children() == []
    assert await ledger.value("select state from product_sync") == "synced"
    assert await ledger.value("select count(*) from pgqueuer") == 0
    assert await ledger.value("select count(*) from worker_seen") == 0


async def test_what_a_killed_worker_had_begun_is_taken_over_within_a_minute(
    club: Club, stripe: FakeStripe, tmp_path: Path, lanyard: FakeLanyard
) -> None:
    """A job and a schedule, both in the middle of a question to Stripe.

    Seen failing with a heartbeat timeout of two minutes, and, in the second half of a minute, without a schedule that
    is always due.
    """
    ledger = club.ledger
    product_id = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(product_id)
    stripe.pay(session_id)
    await club.receive(club.news())
    waiting = await ledger.value("select count(*) from pgqueuer where entrypoint = $1", APPLY_JOB)
    assert waiting > 0
    # The next minute is not waited for.
    await ledger.sql(
        """
        insert into pgqueuer_schedules (expression, entrypoint, next_run)
        values ('* * * * *', 'reconcile', now() - interval '1 minute')
        """
    )
    hang = stripe.fault("hang", "/subscriptions|/checkout|/invoices", times=-1)
    settings = {"STRIPE_API_BASE": stripe.url}

    async def both_hang() -> bool:
        if hang.times > -3:
            return False
        jobs = "select count(*) from pgqueuer where status = 'picked' and entrypoint = $1"
        schedules = "select count(*) from pgqueuer_schedules where status = 'picked' and entrypoint = 'reconcile'"
        return bool(await ledger.value(jobs, APPLY_JOB) and await ledger.value(schedules))

    async def nothing_waits() -> bool:
        jobs = "select count(*) from pgqueuer where entrypoint = $1"
        # What it began itself meanwhile is no matter.
        schedule = "select status = 'queued' or updated > $1 from pgqueuer_schedules where entrypoint = 'reconcile'"
        return not await ledger.value(jobs, APPLY_JOB) and bool(await ledger.value(schedule, killed_at))

    async with (
        real_ledger(
            "worker", database_url=ledger.database_url, directory=tmp_path / "killed", lanyard=lanyard, **settings
        ) as first,
        real_ledger(
            "worker", database_url=ledger.database_url, directory=tmp_path / "second", lanyard=lanyard, **settings
        ) as second,
    ):
        await first.launch()
        await until(both_hang)
        first.kill()
        killed_s = time.monotonic()
        killed_at = await ledger.value("select now()")
        assert await both_hang()
        assert ran(first, "reconcile") == []
        hang.times = 0
        stripe.release()
        await second.launch()
        await until(nothing_waits, within_s=TAKEN_OVER_WITHIN_S)
        print(f"taken over {time.monotonic() - killed_s:.1f} s after the kill")

        async def both_ran() -> bool:
            return bool(ran(second, APPLY_JOB) and ran(second, "reconcile"))

        await until(both_ran, within_s=killed_s + TAKEN_OVER_WITHIN_S - time.monotonic())
        assert (await second.terminate())[0] == 0

    assert await club.status(subscription_id) == "active"
    assert await ledger.value("select count(*) from invoice") == 1
    assert await ledger.value("select count(*) from event where type = 'subscription.created'") == 1
    interrupted = "select count(*) from schedule_run where name = 'reconcile' and error like 'The worker ended%'"
    assert await ledger.value(interrupted) == 1
