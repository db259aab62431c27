"""A connection to PostgreSQL: its type, how JSON travels over it, and what losing it looks like."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg
import msgspec

# The driver's classes are generic for the type checker only, hence the quotes.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
if TYPE_CHECKING:
    _DriverConnection = asyncpg.Connection[asyncpg.Record]
else:
    _DriverConnection = asyncpg.Connection
# What an unreachable or restarting PostgreSQL looks like from here.
DATABASE_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    # What the driver says of a connection whose end the server has announced, but which is not closed yet.
    asyncpg.InternalClientError,
    OSError,
)


def is_database_away(error: BaseException) -> bool:
    """Whether the database could not be reached or went away. Values the driver refuses are ValueErrors as well."""
    return isinstance(error, DATABASE_AWAY) and not isinstance(error, ValueError)


# The first two characters of codes that say how the database is at the moment, and nothing of what it was asked: a
# transaction that must be read-only (a standby), that was rolled back for another's sake, resources that are used up,
# locks, an operator's intervention (a time-out among them), errors of the system below.
_TROUBLES = frozenset({"08", "25", "40", "53", "55", "57", "58"})


def is_database_in_trouble(error: BaseException) -> bool:
    """Whether an error says that the same may work later: the database is away, full, or others were in the way."""
    if isinstance(error, asyncpg.PostgresError):
        return is_database_away(error) or (error.sqlstate or "")[:2] in _TROUBLES
    return is_database_away(error) or isinstance(error, TimeoutError)


class PooledConnection(_DriverConnection):
    """A connection of the pool."""

    def get_reset_query(self) -> str:
        """Nothing: we hold no session state, and the reset would cost every statement a second round trip."""
        return ""


def _encode_jsonb(value: object) -> bytes:
    """Text is taken for JSON already: the job queue hands its values over like that."""
    return b"\x01" + (value.encode() if isinstance(value, str) else msgspec.json.encode(value))


async def prepare_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Teaches a connection to read and write JSON."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=_encode_jsonb,
        decoder=lambda raw: msgspec.json.decode(raw[1:]),
    )
