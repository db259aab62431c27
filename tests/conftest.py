"""Fixtures: one PostgreSQL server per test process, one fresh database per test."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import pytest

from ledger.database.migrate import migrate
from ledger.database.scratch import database_on, scratch_server
from tests.fakes.lanyard import FakeLanyard
from tests.installation import Installation, add_everybody, installed


class StartLedger(Protocol):
    """Starts a further Ledger on the same database; keyword arguments are environment variables."""

    async def __call__(self, **settings: str) -> Installation: ...


@pytest.fixture(scope="session")
async def server_url() -> AsyncIterator[str]:
    """A PostgreSQL server: the one of LEDGER_TEST_DATABASE_URL, or an embedded one."""
    async with scratch_server() as url:
        yield url


@pytest.fixture(scope="session")
async def template(server_url: str) -> AsyncIterator[str]:
    """The name of a migrated database that tests copy."""
    async with database_on(server_url) as url:
        await migrate(url)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
async def database_url(server_url: str, template: str) -> AsyncIterator[str]:
    """A fresh, migrated database."""
    async with database_on(server_url, template=template) as url:
        yield url


@pytest.fixture
async def lanyard() -> AsyncIterator[FakeLanyard]:
    """A fake Lanyard that knows everybody."""
    async with FakeLanyard() as fake:
        add_everybody(fake)
        yield fake


@pytest.fixture
async def start_ledger(database_url: str, tmp_path: Path, lanyard: FakeLanyard) -> AsyncIterator[StartLedger]:
    """Starts Ledgers that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(**settings: str) -> Installation:
            return await stack.enter_async_context(
                installed(database_url=database_url, data_dir=tmp_path, lanyard=lanyard, **settings)
            )

        yield start


@pytest.fixture
async def ledger(start_ledger: StartLedger) -> Installation:
    """A running Ledger."""
    return await start_ledger()
