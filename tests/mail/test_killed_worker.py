"""D6 with real processes: a worker is killed with SIGKILL while it sends, and each mail is still sent at most once."""

import asyncio
import collections
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.smtp import Stage
from tests.guarantees.running import RealLedger, real_ledger
from tests.installation import Installation
from tests.mail.mailing import Mailing

WITHIN_S = 40.0


@asynccontextmanager
async def worker(ledger: Installation, directory: Path) -> AsyncIterator[RealLedger]:
    """A worker process of its own on the same database."""
    async with real_ledger(
        "worker",
        database_url=ledger.database_url,
        directory=directory,
        lanyard=ledger.lanyard,
        DASHBOARD_URL="https://dashboard.example.org",
    ) as process:
        yield process


async def until(holds: Callable[[], Awaitable[bool]], process: RealLedger) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not await holds():
        assert time.monotonic() < deadline_s, process.log[-4000:]
        await asyncio.sleep(0.05)


async def end_claims(ledger: Installation) -> None:
    """Lets the minute pass after which another worker takes over, and asks for it with a job, as the sweep would."""
    await ledger.sql(
        "update mail set next_try_at = now() - interval '1 second' where status in ('waiting', 'handed_over')"
    )
    await ledger.sql(
        "insert into pgqueuer (entrypoint, priority, status, payload) values ('mail.send', 0, 'queued', '')"
    )


async def statuses(ledger: Installation) -> collections.Counter[str]:
    return collections.Counter(row["status"] for row in await ledger.sql("select status from mail"))


@pytest.mark.parametrize(
    ("stage", "status", "arrives"), [("RCPT", "waiting", True), ("after the message", "handed_over", False)]
)
async def test_a_worker_that_is_killed_while_it_sends_does_not_make_anybody_get_a_mail_twice(
    mailing: Mailing, tmp_path: Path, stage: Stage, status: str, arrives: bool
) -> None:
    ledger, post = mailing.ledger, mailing.post
    post.hangs_at = stage
    await mailing.invoice()
    async with worker(ledger, tmp_path / "worker") as process:
        await process.launch()
        async with asyncio.timeout(WITHIN_S):
            await post.is_hanging.wait()
        process.kill()
        assert await statuses(ledger) == {status: 1}
        received_before = len(post.received)

        post.hangs_at = None
        await process.launch()
        await end_claims(ledger)

        async def is_settled() -> bool:
            return set(await statuses(ledger)) <= {"sent", "failed"}

        await until(is_settled, process)
        code, took_s = await process.terminate()
        assert code == 0
        assert took_s < 20
    assert len(post.received) - received_before == int(arrives)
    assert len(post.received) == 1
    stored = await mailing.only()
    assert stored["status"] == ("sent" if arrives else "failed")
    assert arrives or "may have arrived" in stored["error"]


async def test_workers_that_are_killed_again_and_again_send_each_mail_at_most_once_and_forget_none(
    mailing: Mailing, tmp_path: Path
) -> None:
    ledger, post = mailing.ledger, mailing.post
    for _ in range(60):
        await mailing.invoice()
    ledger.lanyard.delay_s = 0.03
    async with worker(ledger, tmp_path / "worker") as process:
        for kills in range(4):
            arrived = len(post.received)
            await process.launch()
            if kills:
                await end_claims(ledger)

            async def has_sent_some(arrived: int = arrived, more: int = 5 + kills) -> bool:
                return len(post.received) >= arrived + more

            await until(has_sent_some, process)
            process.kill()
        await process.launch()
        await end_claims(ledger)

        async def is_settled() -> bool:
            counted = await statuses(ledger)
            return sum(counted.values()) == 60 and set(counted) <= {"sent", "failed"}

        await until(is_settled, process)
    arrived_ids = collections.Counter(received.message["Message-ID"] for received in post.received)
    assert max(arrived_ids.values()) == 1
    counted = await statuses(ledger)
    # Each kill leaves in the dark what was being handed over in that moment: at most one mail for each of the four.
    assert counted["failed"] <= 16
    sent = {f"<{row['id']}@club.example>" for row in await ledger.sql("select id from mail where status = 'sent'")}
    assert sent <= set(arrived_ids)
    assert len(arrived_ids) >= 60 - counted["failed"]
