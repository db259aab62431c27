"""`ledger reconcile`, as an administrator runs it: what it says, what it mends, and how it ends."""

import asyncio
import os
import sys
from datetime import UTC, datetime

from tests.installation import KEY
from tests.subscriptions.club import Club


async def reconcile(club: Club, *arguments: str) -> tuple[int, str, str]:
    """Runs the command in a process of its own: exit code, what it printed, and what it complained about."""
    settings = club.ledger.settings
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": club.ledger.database_url,
        "ENCRYPTION_KEY": KEY,
        "LEDGER_IDENTITY": "standalone",
        "LEDGER_DATA_DIR": str(settings.data_dir),
        "STRIPE_API_BASE": club.stripe.url,
        "DASHBOARD_URL": "https://dashboard.example.org",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ledger",
        "reconcile",
        *arguments,
        env=environ,
        cwd=settings.data_dir,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(), timeout=60)
    return process.returncode or 0, out.decode(), complaints.decode()


async def test_it_tells_what_it_mended_and_then_that_nothing_was_missed(club: Club) -> None:
    # The command has the computer's clock.
    club.ledger.clock.move(datetime.now(UTC) - club.ledger.clock.now())
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    club.stripe.pay(session_id)

    code, out, complaints = await reconcile(club)
    assert (code, complaints) == (0, "")
    assert "checkout.session.completed) had not arrived; it was fetched and applied." in out
    assert out.splitlines()[-1].endswith("mended 3.")
    assert await club.status(subscription_id) == "active"
    assert [bill[2] for bill in await club.bills(subscription_id)] == [1000]

    code, out, complaints = await reconcile(club)
    assert (code, complaints) == (0, "")
    assert out.strip().endswith("nothing was missed.")
    audited = (await club.ledger.staff.get("/api/audit?action=reconciled")).body["rows"]
    assert len(audited) == 2


async def test_it_says_what_it_could_not_do(club: Club) -> None:
    silver = await club.add_product("Silver", 1000)
    await club.member(silver)
    club.stripe.keys.clear()
    code, out, complaints = await reconcile(club)
    assert code == 1
    assert "secret key" in complaints
    assert "nothing was mended, and 2 could not be settled." in out
    code, _, complaints = await reconcile(club, "--days", "31")
    assert (code, complaints) == (2, "--days must be from 1 to 30: providers list events no longer.\n")
