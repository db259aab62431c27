"""The pool, and the transaction every change runs in.

A `Tx` carries what a change needs: the connection, the time, the actor. What a change has to leave behind (audit
entries, events, jobs) is gathered in it and written with it, so neither exists without the other.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Literal

import asyncpg
import msgspec

from ledger.clock import Clock
from ledger.database.connection import DATABASE_AWAY, Connection, PooledConnection, prepare_connection
from ledger.database.persons import ensure_persons
from ledger.errors import Unavailable
from ledger.identity import Caller, Person
from ledger.ids import Ids

# A statement that runs longer than this is given up: the caller's proxy waits 10 s, an answer must come in 8.
STATEMENT_TIMEOUT_S = 6.0
ACQUIRE_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 3.0
# The server's own limits, for clients that are no longer there or frozen: what they hold locked is set free.
SERVER_SETTINGS = {
    "application_name": "ledger",
    "timezone": "UTC",
    "statement_timeout": "8s",
    "idle_in_transaction_session_timeout": "10s",
    # As for solid-state disks: with PostgreSQL's default of 4, counting one status of many invoices reads the table
    # instead of its index.
    "random_page_cost": "1.1",
}

JsonScalar = str | int | bool | None
JsonObject = Mapping[str, JsonScalar | Mapping[str, str]]


class OutcomeUnknown(Unavailable):
    """The connection was lost while a transaction was being committed: it may be stored, or not (503)."""

    def __init__(self) -> None:
        super().__init__(
            "The database went away while this was being stored. Look whether it was stored before you try again; "
            "with an Idempotency-Key, trying again is safe.",
            retry_after_s=5,
        )


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who made a change: a person (by row), a service, a provider's event, a job of ours, or the command line."""

    kind: Literal["person", "service", "provider", "system", "cli"]
    person_id: int | None = None
    name: str | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit log. `details` holds no personal data: it is sealed and kept."""

    action: str
    entity_type: str
    entity_id: str
    details: JsonObject | None = None
    actor: Actor | None = None


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, for webhook subscribers. The person is named by row; `data` holds no person."""

    type: str
    subject_id: str | None
    person_id: int | None
    data: JsonObject


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """Work for the worker, stored with the change that asks for it."""

    name: str
    payload: bytes
    delay: timedelta = timedelta(0)
    dedupe_key: str | None = None


class Tx:
    """A running transaction. `now` is one moment for everything in it."""

    def __init__(self, connection: Connection, *, now: datetime, actor: Actor, ids: Ids) -> None:
        self.connection = connection
        self.now = now
        self.actor = actor
        self.ids = ids
        self._entries: list[AuditEntry] = []
        self._events: list[NewEvent] = []
        self._jobs: list[NewJob] = []

    def audit(self, entry: AuditEntry) -> None:
        """Adds a line to the audit log, by the transaction's actor unless the entry names another."""
        self._entries.append(entry)

    def publish(self, event: NewEvent) -> None:
        """Announces that something happened, once this transaction is committed."""
        self._events.append(event)

    def defer(self, job: NewJob) -> None:
        """Leaves work for the worker, once this transaction is committed."""
        self._jobs.append(job)

    async def ensure_person(self, user_id: str) -> int:
        """The row of a Lanyard user, made when it is the first time Ledger hears of them."""
        rows = await ensure_persons(self.connection, user_ids={user_id}, now=self.now)
        return rows[user_id]

    async def flush(self) -> None:
        """Writes what was gathered; the database calls it just before the commit."""
        if self._entries or self._events:
            await self._insert_entries_and_events()
        if self._jobs:
            await self._insert_jobs()

    async def _insert_entries_and_events(self) -> None:
        # One statement: most changes leave both behind, and every round trip holds the invoice counter longer.
        actors = [entry.actor or self.actor for entry in self._entries]
        await self.connection.execute(
            """
            with audited as (
                insert into audit_entry
                    (action, entity_type, entity_id, actor_kind, actor_person_id, actor_name, details, created_at)
                select *, $13::timestamptz
                from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::jsonb[])
            )
            insert into event (id, type, subject_id, person_id, data, created_at)
            select *, $13::timestamptz from unnest($8::uuid[], $9::text[], $10::uuid[], $11::bigint[], $12::jsonb[])
            """,
            [entry.action for entry in self._entries],
            [entry.entity_type for entry in self._entries],
            [entry.entity_id for entry in self._entries],
            [actor.kind for actor in actors],
            [actor.person_id for actor in actors],
            [actor.name for actor in actors],
            [entry.details for entry in self._entries],
            [self.ids.new() for _ in self._events],
            [event.type for event in self._events],
            [event.subject_id for event in self._events],
            [event.person_id for event in self._events],
            [event.data for event in self._events],
            self.now,
        )
        self._entries.clear()
        self._events.clear()

    async def _insert_jobs(self) -> None:
        # Imported here, since most requests leave no job and the queue's models take a while to load.
        from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
        from pgqueuer.adapters.persistence.queries import Queries

        await Queries(AsyncpgDriver(self.connection)).enqueue(  # type: ignore[arg-type] # a pooled connection will do
            [job.name for job in self._jobs],
            [job.payload for job in self._jobs],
            [0] * len(self._jobs),
            [job.delay for job in self._jobs],
            [job.dedupe_key for job in self._jobs],
            on_conflict="skip",
        )
        self._jobs.clear()


class Database:
    """The pool of connections to PostgreSQL. Open it once, in the event loop that uses it."""

    def __init__(self, url: str, *, pool_size: int, clock: Clock, ids: Ids) -> None:
        self.url = url
        self.clock = clock
        self.ids = ids
        self._pool_size = pool_size
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Makes the pool without connecting: a database that is away makes requests fail, not the start."""
        self._pool = asyncpg.create_pool(
            self.url,
            min_size=0,
            max_size=self._pool_size,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            connection_class=PooledConnection,
            init=prepare_connection,
            server_settings=SERVER_SETTINGS,
        )
        await self._pool

    async def close(self) -> None:
        """Waits for what runs, at most five seconds, then cuts."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), timeout=5)
        except TimeoutError:
            pool.terminate()

    @property
    def pool(self) -> "asyncpg.Pool[asyncpg.Record]":
        """The pool itself, for single statements that read."""
        assert self._pool is not None, "the database was not opened"
        return self._pool

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for several reads in a row. Raises `Unavailable` when there is none to be had."""
        pool = self.pool
        try:
            connection = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except TimeoutError:
            raise Unavailable("The database does not answer; try again in a few seconds", retry_after_s=5) from None
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError):
            # A server that does not answer would not answer a rollback either, and the driver waits for that
            # before it takes the connection back. So it is cut, which rolls back as well.
            _cut(connection)
            raise
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def atomically(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed at the end of the block; else nothing of it is left.

        Raises `OutcomeUnknown` when the connection was lost, or the time was up, during the commit itself.
        """
        async with self.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                yield connection
            except (TimeoutError, asyncio.CancelledError):
                raise
            except BaseException:
                try:
                    await transaction.rollback()
                except DATABASE_AWAY:
                    _cut(connection)
                raise
            try:
                await transaction.commit()
            except (*DATABASE_AWAY, TimeoutError, asyncio.CancelledError) as lost:
                _cut(connection)
                raise OutcomeUnknown from lost

    @asynccontextmanager
    async def transaction(self, actor: Actor) -> AsyncIterator[Tx]:
        """Runs the block in one transaction; commits at its end, or leaves nothing of it."""
        async with self.atomically() as connection:
            tx = Tx(connection, now=self.clock.now(), actor=actor, ids=self.ids)
            yield tx
            await tx.flush()

    @asynccontextmanager
    async def transaction_by(self, *, kind: Literal["provider", "system", "cli"], name: str) -> AsyncIterator[Tx]:
        """The same, for what is not a caller: a provider's word, a job, the command line."""
        async with self.transaction(Actor(kind=kind, name=name)) as tx:
            yield tx

    @asynccontextmanager
    async def transaction_of(self, caller: Caller) -> AsyncIterator[Tx]:
        """The same, for a proven caller."""
        async with self.atomically() as connection:
            now = self.clock.now()
            actor = (await actors_of(connection, callers=[caller], now=now))[0]
            tx = Tx(connection, now=now, actor=actor, ids=self.ids)
            yield tx
            await tx.flush()


def _cut(connection: Connection) -> None:
    # The driver has taken a connection back already when it noticed by itself that it was lost.
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def actors_of(connection: Connection, *, callers: Iterable[Caller], now: datetime) -> list[Actor]:
    """The actors that callers are; a person gets a row of their own when there is none."""
    callers = list(callers)
    people = {caller.user_id for caller in callers if isinstance(caller, Person)}
    rows = await ensure_persons(connection, user_ids=people, now=now) if people else {}
    return [
        Actor(kind="person", person_id=rows[caller.user_id])
        if isinstance(caller, Person)
        else Actor(kind="service", name=caller.service_id)
        for caller in callers
    ]
