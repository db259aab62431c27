"""Empty databases for tests and for the drift check, on a given server or on an embedded one that is thrown away."""

import os
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg


def with_database(server_url: str, name: str) -> str:
    """The same server, another database."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(path=f"/{name}"))


@asynccontextmanager
async def scratch_server() -> AsyncIterator[str]:
    """Yields the URL of a server to make databases on: LEDGER_TEST_DATABASE_URL's, or an embedded one's."""
    given = os.environ.get("LEDGER_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from ledger.embedded import EmbeddedPostgres

    with tempfile.TemporaryDirectory(prefix="ledger-test-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedPostgres(Path(folder), durable=False)
        try:
            yield server.start()
        finally:
            server.stop()


@asynccontextmanager
async def database_on(server_url: str, *, template: str | None = None) -> AsyncIterator[str]:
    """Makes an empty database (or a copy of `template`) and drops it afterwards. Yields its URL."""
    name = f"ledger_test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(server_url)
    try:
        copy = f' template "{template}"' if template else ""
        await connection.execute(f'create database "{name}"{copy}')
        yield with_database(server_url, name)
        try:
            await connection.execute(f'drop database if exists "{name}" with (force)')
        except asyncpg.InsufficientPrivilegeError:
            # The autovacuum is in it, which only a superuser may force. Asked without force it leaves by itself.
            await connection.execute(f'drop database if exists "{name}"')
    finally:
        await connection.close()


@asynccontextmanager
async def scratch_database() -> AsyncIterator[str]:
    """A server and an empty database on it, for one use."""
    async with scratch_server() as server_url, database_on(server_url) as database_url:
        yield database_url
