"""Alembic's entry: one connection, an advisory lock so that several machines can migrate at once, a lock timeout so
that a migration waiting for a busy table gives way instead of stopping every reader behind it."""

from alembic import context
from sqlalchemy import Connection, text

from ledger.database.tables import metadata

# Any constant will do, as long as every version of Ledger uses the same one.
MIGRATION_LOCK = 5_002_001


def is_ours(name: str | None, kind: str) -> bool:
    """The job queue's tables belong to PgQueuer: they are installed by a migration but not described in `tables`."""
    return not (kind == "table" and name is not None and name.startswith("pgqueuer"))


def run(connection: Connection) -> None:
    """Runs the migrations on a connection that the caller opened."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_name=lambda name, kind, _parents: is_ours(name, kind),
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        # The lock timeout comes second: whoever waits for another machine's migration waits as long as that takes.
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        connection.execute(text("set local lock_timeout = '10s'"))
        context.run_migrations()


run(context.config.attributes["connection"])
