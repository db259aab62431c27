"""`ledger retention`: the daily run by hand, and what it would do."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.retention import jobs
from tests.installation import KEY, USER, Installation
from tests.process.test_commands import ledger as command
from tests.retention.columns import columns_with
from tests.retention.world import SECRET, live_a_life, move_to

# The command has the computer's own clock: what happened so long before the tests' own year is over in any case.
LONG_AGO = datetime(1999, 5, 1, 12, tzinfo=UTC)


async def run_command(ledger: Installation, tmp_path: Path, *arguments: str) -> list[str]:
    done = await asyncio.to_thread(
        command,
        tmp_path,
        "retention",
        *arguments,
        DATABASE_URL=ledger.database_url,
        ENCRYPTION_KEY=KEY,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.fixture
async def old(ledger: Installation) -> Installation:
    """An installation in which everything happened long ago."""
    move_to(ledger, LONG_AGO)
    await live_a_life(ledger)
    return ledger


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(old: Installation, tmp_path: Path) -> None:
    planted = await columns_with(old.database_url, SECRET)

    said = await run_command(old, tmp_path, "--dry-run")

    assert "2 invoices lose their person and every free text" in said
    assert said[-1] == "Nothing was changed. Without --dry-run this would be done now; the worker does it daily."
    assert await columns_with(old.database_url, SECRET) == planted


async def test_the_command_does_what_is_due(old: Installation, tmp_path: Path) -> None:
    said = await run_command(old, tmp_path)

    assert "2 invoices lose their person and every free text" in said
    assert said[-1] == "Done. Amounts, numbers, dates and states stayed as they are."
    assert await columns_with(old.database_url, USER) == []
    assert await run_command(old, tmp_path) == ["Nothing was due."]
    assert await run_command(old, tmp_path, "--dry-run") == ["Nothing is due."]


async def test_a_run_that_is_under_way_is_left_to_it(old: Installation, tmp_path: Path) -> None:
    async with old.services.database.connection() as connection:
        assert await connection.fetchval("select pg_try_advisory_lock($1)", jobs._LOCK)
        try:
            said = await run_command(old, tmp_path)
        finally:
            await connection.fetchval("select pg_advisory_unlock($1)", jobs._LOCK)

    assert said == ["Retention is under way already, started by the worker or by somebody else. Nothing was done."]
    assert USER in str(await old.sql("select lanyard_user_id from person"))


def test_a_database_that_does_not_answer_is_told(tmp_path: Path) -> None:
    done = command(tmp_path, "retention", DATABASE_URL="postgresql://nobody:hidden@127.0.0.1:9/nothing")

    assert done.returncode == 1
    assert done.stderr.startswith("The database does not answer")
    assert "Traceback" not in done.stderr
