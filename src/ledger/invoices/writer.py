"""Group commit: invoices that arrive together share one transaction.

A gapless counter makes transactions wait for each other, so one invoice per commit tops out at the disk's commit
rate. Here the requests that wait are stored together, with one counter update and set-based inserts, and each gets
its answer. Nothing waits on purpose: while one batch commits, the next gathers. If a batch fails, its members are
tried one by one, so a bad one fails alone. If the connection is lost during the commit, nothing is tried again: the
writer looks whether the batch was stored, and answers accordingly.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import structlog

from ledger.database.connection import Connection, is_database_away
from ledger.database.persons import ensure_persons
from ledger.database.transaction import Actor, Database, OutcomeUnknown
from ledger.errors import Unavailable
from ledger.identity import Caller, Person, Service
from ledger.ids import Ids
from ledger.invoices.rules import InvoiceDraft, issue_year
from ledger.invoices.store import IssuedInvoice, UnnumberedInvoice, issue_invoices, list_states, lock_counter
from ledger.web import metrics
from ledger.web.idempotency import Claim, claim_keys, store_answers

log = structlog.get_logger("ledger.invoices")

# A batch stops gathering at this many lines, so that one transaction stays short.
BATCH_LINES_MAX = 20_000
BATCH_REQUESTS_MAX = 256
# Requests beyond this many are refused at once: an answer in time is worth more than a place in a long queue.
WAITING_MAX = 2_000
BATCH_TIMEOUT_S = 6.0
# How long to look whether a batch was stored whose commit was not confirmed, and how often to try.
LOOKUP_TIMEOUT_S = 6.0
LOOKUP_AGAIN_S = 0.1
_NOT_STORED = "The database went away before this was stored; try again in a few seconds"


class WantedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """A validated draft and what goes with it."""

    draft: InvoiceDraft
    user_id: str
    due_at: datetime | None
    notes: str | None
    metadata: dict[str, str] | None
    tax_label: str


Render = Callable[[Sequence[IssuedInvoice]], bytes]


class _Request(msgspec.Struct, kw_only=True):
    """One caller's wish for invoices, all or none, with consecutive numbers."""

    wanted: Sequence[WantedInvoice]
    caller: Caller
    claim: Claim | None
    render: Render
    done: asyncio.Future[bytes]

    def line_count(self) -> int:
        return sum(len(each.draft.lines) for each in self.wanted)


class _Attempt:
    """What one transaction makes of a batch; it counts once the transaction is committed."""

    def __init__(self) -> None:
        self.outcomes: list[bytes | Exception] = []
        # Any invoice of the batch: it is there exactly if the transaction was committed.
        self.witness: IssuedInvoice | None = None
        self.issued = 0


class InvoiceWriter:
    """Stores the invoices that requests hand in, in batches, in the order they came."""

    def __init__(self, database: Database, *, zone: ZoneInfo) -> None:
        self._database = database
        self._zone = zone
        self._waiting: deque[_Request] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def issue(
        self, wanted: Sequence[WantedInvoice], *, caller: Caller, claim: Claim | None, render: Render
    ) -> bytes:
        """Issues invoices and returns what `render` made of them, once they are committed.

        Raises `Replay` when the claim was answered before, `Conflict`, `IdempotencyKeyReused`, and `Unavailable`
        when the database is away or too many wait.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("Too many invoices are being created at once; try again in a second", retry_after_s=1)
        done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(wanted=wanted, caller=caller, claim=claim, render=render, done=done))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="invoice writer")
        return await done

    async def close(self) -> None:
        """Waits until everything handed in is answered."""
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        while self._waiting:
            batch = self._gather()
            metrics.batch_size.observe(len(batch))
            try:
                await self._store(batch)
            except Exception as error:
                await self._retry_or_refuse(batch, error)

    def _gather(self) -> list[_Request]:
        batch: list[_Request] = []
        lines = 0
        while self._waiting and len(batch) < BATCH_REQUESTS_MAX:
            lines += self._waiting[0].line_count()
            if batch and lines > BATCH_LINES_MAX:
                break
            request = self._waiting.popleft()
            # A caller who gave up before anything was stored gets nothing stored.
            if not request.done.done():
                batch.append(request)
        return batch

    async def _retry_or_refuse(self, batch: list[_Request], error: Exception) -> None:
        """Tries the members of a failed batch one by one, where only one of them may be at fault."""
        if len(batch) > 1 and not _fails_all(error):
            log.warning("invoice batch split", requests=len(batch), reason=type(error).__name__)
            for request in batch:
                try:
                    await self._store([request])
                except Exception as alone:
                    error = alone
                    _fail(request, alone)
                    if _fails_all(alone):
                        break
        for request in batch:
            # Whoever was answered meanwhile keeps that answer.
            _fail(request, error)

    async def _store(self, batch: list[_Request]) -> None:
        """Stores one batch in one transaction, and answers each request after the commit."""
        if not batch:
            return
        attempt = _Attempt()
        try:
            async with asyncio.timeout(BATCH_TIMEOUT_S), self._database.atomically() as connection:
                await self._store_on(connection, batch, attempt)
        except OutcomeUnknown:
            if attempt.witness is not None and not await self._was_stored(attempt.witness):
                raise Unavailable(_NOT_STORED, retry_after_s=5) from None
        metrics.invoices_issued.inc(attempt.issued)
        for request, outcome in zip(batch, attempt.outcomes, strict=True):
            if isinstance(outcome, Exception):
                _fail(request, outcome)
            elif not request.done.done():
                request.done.set_result(outcome)

    async def _was_stored(self, witness: IssuedInvoice) -> bool:
        """Whether a batch was committed, asked over another connection. Raises `OutcomeUnknown` if nobody can say."""
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                while True:
                    try:
                        stored = await self._look_for(witness)
                    except Exception as error:
                        if not _fails_all(error):
                            raise
                        await asyncio.sleep(LOOKUP_AGAIN_S)
                    else:
                        log.warning("unconfirmed invoice batch looked up", stored=stored)
                        return stored
        except TimeoutError:
            raise OutcomeUnknown from None

    async def _look_for(self, witness: IssuedInvoice) -> bool:
        async with self._database.atomically() as connection:
            # The lost transaction holds the counter until it is decided.
            await lock_counter(connection, series=witness.series, now=witness.issued_at)
            return bool(await list_states(connection, invoice_ids=[witness.id]))

    async def _store_on(self, connection: Connection, batch: list[_Request], attempt: _Attempt) -> None:
        now = self._database.clock.now()
        actors, buyers = await _people(connection, batch, now=now)
        refused = await _claim(connection, batch, actors, now=now)
        accepted = [index for index in range(len(batch)) if refused[index] is None]
        answers: dict[int, bytes] = {}
        if accepted:
            answers = await self._issue(
                connection,
                requests=[batch[index] for index in accepted],
                actors=[actors[index] for index in accepted],
                buyers=buyers,
                now=now,
                places=accepted,
                attempt=attempt,
            )
        attempt.issued = sum(len(batch[index].wanted) for index in accepted)
        attempt.outcomes = [refused[index] or answers[index] for index in range(len(batch))]

    async def _issue(
        self,
        connection: Connection,
        *,
        requests: list[_Request],
        actors: list[Actor],
        buyers: dict[str, int],
        now: datetime,
        places: list[int],
        attempt: _Attempt,
    ) -> dict[int, bytes]:
        unnumbered = [
            _unnumbered(wanted, request=request, actor=actor, buyers=buyers, ids=self._database.ids)
            for request, actor in zip(requests, actors, strict=True)
            for wanted in request.wanted
        ]
        issued = await issue_invoices(connection, year=issue_year(now, self._zone), invoices=unnumbered, now=now)
        attempt.witness = issued[0]
        answers: dict[int, bytes] = {}
        taken = 0
        for place, request in zip(places, requests, strict=True):
            answers[place] = request.render(issued[taken : taken + len(request.wanted)])
            taken += len(request.wanted)
        claimed = [
            (actor, request.claim, 201, answers[place])
            for place, request, actor in zip(places, requests, actors, strict=True)
            if request.claim is not None
        ]
        if claimed:
            await store_answers(connection, answers=claimed)
        return answers


async def _people(
    connection: Connection, batch: list[_Request], *, now: datetime
) -> tuple[list[Actor], dict[str, int]]:
    """The rows of everybody a batch names: who asked, and who is billed."""
    wanted = {each.user_id for request in batch for each in request.wanted}
    wanted |= {request.caller.user_id for request in batch if isinstance(request.caller, Person)}
    rows = await ensure_persons(connection, user_ids=wanted, now=now)
    actors = [
        Actor(kind="person", person_id=rows[request.caller.user_id])
        if isinstance(request.caller, Person)
        else Actor(kind="service", name=request.caller.service_id)
        for request in batch
    ]
    return actors, rows


async def _claim(
    connection: Connection, batch: list[_Request], actors: list[Actor], *, now: datetime
) -> list[Exception | None]:
    refused: list[Exception | None] = [None] * len(batch)
    keyed = [(index, request.claim) for index, request in enumerate(batch) if request.claim is not None]
    if keyed:
        verdicts = await claim_keys(connection, claims=[(actors[index], claim) for index, claim in keyed], now=now)
        for (index, _), verdict in zip(keyed, verdicts, strict=True):
            refused[index] = verdict
    return refused


def _unnumbered(
    wanted: WantedInvoice, *, request: _Request, actor: Actor, buyers: dict[str, int], ids: Ids
) -> UnnumberedInvoice:
    return UnnumberedInvoice(
        id=ids.new(),
        event_id=ids.new(),
        person_id=buyers[wanted.user_id],
        actor=actor,
        created_by_service=request.caller.service_id if isinstance(request.caller, Service) else None,
        draft=wanted.draft,
        tax_label=wanted.tax_label,
        due_at=wanted.due_at,
        notes=wanted.notes,
        metadata=wanted.metadata,
    )


def _fails_all(error: Exception) -> bool:
    """Whether trying one by one would fail as well: the database is away, slow, or nobody knows what it did."""
    return isinstance(error, Unavailable | TimeoutError) or is_database_away(error)


def _fail(request: _Request, error: Exception) -> None:
    if not request.done.done():
        request.done.set_exception(error)
