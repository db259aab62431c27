"""`make check`: proves that the migrations build exactly the schema that `tables` describes.

`python -m ledger.database.drift` compares; with a message (`python -m ledger.database.drift "add refunds"`) it writes
the migration that is missing. It uses an empty database: LEDGER_TEST_DATABASE_URL, or an embedded server of its own.
"""

import asyncio
import sys

from ledger.database.migrate import HEAD_REVISION, alembic_config, migrate, open_engine
from ledger.database.scratch import scratch_database


async def _main(message: str | None) -> None:
    from alembic import command
    from sqlalchemy import Connection

    config = alembic_config()

    def work(connection: Connection) -> None:
        config.attributes["connection"] = connection
        if message is None:
            command.check(config)
        else:
            # Revisions are compared as text, so they are numbered.
            command.revision(config, message, autogenerate=True, rev_id=f"{int(HEAD_REVISION) + 1:04d}")

    async with scratch_database() as database_url:
        await migrate(database_url)
        engine = open_engine(database_url)
        try:
            async with engine.connect() as connection:
                await connection.run_sync(work)
        finally:
            await engine.dispose()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1] if len(sys.argv) > 1 else None))
