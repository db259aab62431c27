"""`Idempotency-Key`: the first answer is stored in the transaction of its effect and given again to equal requests.

A key belongs to a caller and an operation (method and path), and is kept 30 days.
Like the IETF draft "The Idempotency-Key HTTP Header Field": another body with the same key is 422, an equal request
while the first runs is 409 (or waits for it).
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.database.transaction import Actor, Database
from ledger.errors import BadRequest, Conflict, IdempotencyKeyReused
from ledger.identity import Caller

KEY_MAX = 255


class Claim(msgspec.Struct, frozen=True):
    """A request's wish to have its effect once."""

    operation: str
    key: str
    body_sha256: bytes


class Replay(Exception):
    """The request was carried out before; this is the answer it got."""

    def __init__(self, status: int, answer: bytes) -> None:
        super().__init__("answered before")
        self.status = status
        self.answer = answer


def read_claim(*, key: str | None, method: str, path: str, body: bytes) -> Claim | None:
    """The claim a request makes. Raises `BadRequest` for a key that is no key."""
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_MAX or not key.isascii() or not key.isprintable():
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters")
    return Claim(operation=f"{method} {path.lower()}", key=key, body_sha256=hashlib.sha256(body).digest())


def caller_text(actor: Actor) -> str:
    """Whose key it is, without a person's Lanyard id."""
    return f"person:{actor.person_id}" if actor.kind == "person" else f"{actor.kind}:{actor.name}"


async def claim_keys(
    connection: Connection, *, claims: Sequence[tuple[Actor, Claim]], now: datetime
) -> list[Exception | None]:
    """Claims keys for this transaction; the others' transactions wait at the unique index until it ends.

    Returns for each claim None when it is ours, else what to answer instead: a `Replay`, `Conflict` (409) while the
    first still runs outside a transaction, or `IdempotencyKeyReused` (422).
    """
    callers = [caller_text(actor) for actor, _ in claims]
    # Sorted, so that two batches that share keys do not wait for each other in a circle.
    order = sorted(
        range(len(claims)), key=lambda index: (callers[index], claims[index][1].operation, claims[index][1].key)
    )
    inserted = {
        (row["caller"], row["operation"], row["key"])
        for row in await connection.fetch(
            """
            insert into idempotency_record (caller, operation, key, body_sha256, created_at)
            select *, $5 from unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
            on conflict do nothing
            returning caller, operation, key
            """,
            [callers[index] for index in order],
            [claims[index][1].operation for index in order],
            [claims[index][1].key for index in order],
            [claims[index][1].body_sha256 for index in order],
            now,
        )
    }
    verdicts: list[Exception | None] = []
    for caller, (_, claim) in zip(callers, claims, strict=True):
        identity = (caller, claim.operation, claim.key)
        if identity in inserted:
            # Two equal requests in one batch: the first has it.
            inserted.discard(identity)
            verdicts.append(None)
        else:
            verdicts.append(await _first_answer(connection, caller=caller, claim=claim))
    return verdicts


async def _first_answer(connection: Connection, *, caller: str, claim: Claim) -> Exception:
    row = await connection.fetchrow(
        """
        select status, answer, body_sha256 from idempotency_record
        where caller = $1 and operation = $2 and key = $3
        """,
        caller,
        claim.operation,
        claim.key,
    )
    if row is not None and row["body_sha256"] != claim.body_sha256:
        return IdempotencyKeyReused("This Idempotency-Key was used with another body; take a new key for a new request")
    if row is None or row["status"] is None:
        return Conflict("An equal request is still running; ask again in a second", retry_after_s=1)
    return Replay(row["status"], row["answer"])


async def claim_resumable(connection: Connection, *, actor: Actor, claim: Claim, now: datetime) -> datetime:
    """Claims a key for an operation that asks a provider between two transactions.

    An equal request whose first try never got to an answer is let through again: such an operation derives the ids of
    what it makes from the key, finds what the first try made, and goes on from there.
    Returns when the key was claimed first. Raises `Replay` and `IdempotencyKeyReused`.
    """
    verdict = (await claim_keys(connection, claims=[(actor, claim)], now=now))[0]
    if verdict is not None and not isinstance(verdict, Conflict):
        raise verdict
    claimed_at: datetime | None = await connection.fetchval(
        "select created_at from idempotency_record where caller = $1 and operation = $2 and key = $3",
        caller_text(actor),
        claim.operation,
        claim.key,
    )
    return claimed_at or now


async def complete_claim(database: Database, *, caller: Caller, claim: Claim, status: int, answer: bytes) -> None:
    """Stores what such an operation answered in the end."""
    async with database.transaction_of(caller) as tx:
        await store_answers(tx.connection, answers=[(tx.actor, claim, status, answer)])


async def store_answers(connection: Connection, *, answers: Sequence[tuple[Actor, Claim, int, bytes]]) -> None:
    """Stores what the claims were answered, for the time they are kept."""
    await connection.execute(
        """
        update idempotency_record as record set status = answered.status, answer = answered.answer
        from unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::bytea[])
            as answered (caller, operation, key, status, answer)
        where record.caller = answered.caller and record.operation = answered.operation
            and record.key = answered.key
        """,
        [caller_text(actor) for actor, _, _, _ in answers],
        [claim.operation for _, claim, _, _ in answers],
        [claim.key for _, claim, _, _ in answers],
        [status for _, _, status, _ in answers],
        [answer for _, _, _, answer in answers],
    )
