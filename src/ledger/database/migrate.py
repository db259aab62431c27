"""Brings a database to the schema this version needs. Safe to run from several machines at once."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.database.revision import HEAD_REVISION

if TYPE_CHECKING:
    # Alembic and SQLAlchemy are heavy, and only migrating needs them.
    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

MIGRATIONS = Path(__file__).parent / "migrations"
_CONNECT_TIMEOUT = timedelta(seconds=10)


def alembic_config() -> "Config":
    """Alembic's configuration; there is no ini file, since everything it would say stands here."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    return config


def open_engine(database_url: str) -> "AsyncEngine":
    """An engine for migrations only: one connection, closed after use.

    The driver reads the URL itself, so that it understands here what it understands when serving (`sslmode`, hosts).
    """
    import asyncpg
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(database_url, timeout=_CONNECT_TIMEOUT.total_seconds())

    return create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=connect)


async def migrate(database_url: str) -> list[str]:
    """Applies what is missing and returns the revisions applied, oldest first.

    Each machine that calls it waits for the others (an advisory lock) and then finds nothing left to do.
    """
    from alembic import command
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = alembic_config()
    script = ScriptDirectory.from_config(config)

    def upgrade(connection: "Connection") -> list[str]:
        before = MigrationContext.configure(connection).get_current_heads()
        connection.rollback()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = MigrationContext.configure(connection).get_current_heads()
        connection.commit()
        if before == after:
            return []
        # Counted from what stood before waiting for the lock: who waited reports nothing that others applied twice
        # over, only that the schema is newer than it was.
        passed = script.iterate_revisions(after, before)
        return [revision.revision for revision in reversed(list(passed))]

    engine = open_engine(database_url)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


def run_script(connection: "Connection", path: Path) -> None:
    """Runs a file of SQL statements inside the migration's transaction (the driver prepares only single ones)."""
    script = path.read_text()
    driver = connection.connection.dbapi_connection
    assert driver is not None
    driver.run_async(lambda raw: raw.execute(script))


def migrate_now(database_url: str) -> list[str]:
    """`migrate` for callers without an event loop."""
    return asyncio.run(migrate(database_url))


__all__ = ["HEAD_REVISION", "MIGRATIONS", "alembic_config", "migrate", "migrate_now", "open_engine", "run_script"]
