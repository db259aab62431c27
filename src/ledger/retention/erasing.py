"""Erases a person on request: at once what no law keeps; the rest is restricted until its time is up.

Restricted means: the person is not asked after at Lanyard any more, nobody writes to them, and what is kept about them
is there for the books only.

What providers sent has to be looked through for the person's things, which may take longer than a request may. So the
person is restricted first, then it is looked through, then the rest is erased; where the time is not enough, a job does
both. That job is left with the restriction, for a while later, and taken back when all is done: so whatever is cut off
in between is made up for by the worker, while the names by which the person's things are found are still there.
"""

import time
from datetime import date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from ledger.billing_settings.store import get_settings
from ledger.database.connection import Connection
from ledger.database.transaction import AuditEntry, Database, NewJob, Tx
from ledger.errors import NotFound
from ledger.identity import Caller
from ledger.retention.forgetting import Erased, delete_idempotency_records, forget_at_once, forget_what_was_said
from ledger.retention.freeing import LAST_FACT, delete_unused_persons
from ledger.retention.limits import find_limits
from ledger.retention.payloads import LOOKED_THROUGH_S, purge_payloads
from ledger.retention.rules import SETTLED, SubscriptionStillLive, retained_until
from ledger.retention.walking import Limits, Place, Progress, read_page
from ledger.web.idempotency import Claim, claim_resumable, store_answers

ERASE_JOB = "privacy.erase"
# Each takes a dozen statements, and what they hold (open invoices, too) nobody else can change until the page is done.
PEOPLE_AT_ONCE = 20
# By then a request that was not cut off is over.
FINISHED_AFTER = timedelta(minutes=2)


class ErasureDone(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was erased, and the earliest day from which nothing has to be kept any more; null when nothing is kept."""

    success: Literal[True] = True
    erased: Erased
    retained_until: date | None


async def erase_person(
    database: Database, *, user_id: str, caller: Caller, claim: Claim | None, zone: ZoneInfo
) -> bytes:
    """Erases the person with this id at Lanyard; returns the answer as it is sent and stored.

    Raises `NotFound`, `SubscriptionStillLive`, `Replay`, `IdempotencyKeyReused`.
    """
    async with database.transaction_of(caller) as tx:
        if claim is not None:
            await claim_resumable(tx.connection, actor=tx.actor, claim=claim, now=tx.now)
        person_id = await _restrict(tx, user_id=user_id)
        tx.defer(_finishing_job(person_id, delay=FINISHED_AFTER))
    payloads, is_whole = await purge_payloads(
        database, person_id=person_id, user_id=user_id, deadline_s=time.monotonic() + LOOKED_THROUGH_S
    )
    async with database.transaction_of(caller) as tx:
        erased = await _erase(tx, person_id=person_id, payloads=payloads, is_whole=is_whole, zone=zone)
        until = await find_retained_until(tx.connection, person_id=person_id, now=tx.now, zone=zone)
        answer = msgspec.json.encode(ErasureDone(erased=erased, retained_until=until))
        if claim is not None:
            await store_answers(tx.connection, answers=[(tx.actor, claim, 200, answer)])
    return answer


async def finish_erasure(database: Database, *, person_id: int, zone: ZoneInfo) -> None:
    """The worker's part, where there was much to look through. Somebody who is gone already needs nothing more."""
    async with database.connection() as connection:
        user_id = await connection.fetchval(
            "select lanyard_user_id from person where id = $1 and restricted_at is not null", person_id
        )
    if user_id is None:
        return
    payloads, _ = await purge_payloads(database, person_id=person_id, user_id=user_id)
    async with database.transaction_by(kind="system", name=ERASE_JOB) as tx:
        await _erase(tx, person_id=person_id, payloads=payloads, is_whole=True, zone=zone)


async def _restrict(tx: Tx, *, user_id: str) -> int:
    row = await tx.connection.fetchrow("select id from person where lanyard_user_id = $1 for no key update", user_id)
    if row is None:
        raise NotFound("Person")
    person_id: int = row["id"]
    if await tx.connection.fetchval(
        "select exists (select from subscription where person_id = $1 and status <> 'cancelled')", person_id
    ):
        raise SubscriptionStillLive
    await tx.connection.execute(
        "update person set restricted_at = $2 where id = $1 and restricted_at is null", person_id, tx.now
    )
    return person_id


async def _erase(tx: Tx, *, person_id: int, payloads: int, is_whole: bool, zone: ZoneInfo) -> Erased:
    await tx.connection.execute("select from person where id = $1 for no key update", person_id)
    await _take_back_jobs(tx.connection, person_id=person_id)
    if is_whole:
        limits = await find_limits(tx.connection, now=tx.now, zone=zone)
        erased = await forget_at_once(tx.connection, person_id=person_id, limits=limits)
    else:
        # The names by which the rest is found are still needed.
        erased = await forget_what_was_said(tx.connection, person_id=person_id)
        tx.defer(_finishing_job(person_id))
    erased = msgspec.structs.replace(erased, payloads=payloads)
    # Who erases themselves is named in the log by this very change.
    if tx.actor.person_id != person_id:
        answers = await delete_idempotency_records(tx.connection, person_id=person_id)
        gone = await delete_unused_persons(tx.connection, ids=[person_id]) if is_whole else 0
        erased = msgspec.structs.replace(erased, idempotency_records=answers, persons=gone)
    tx.audit(
        AuditEntry(
            action="privacy.erased",
            entity_type="privacy",
            # It names the erasure, and nobody.
            entity_id=tx.ids.new(),
            details={field.encode_name: getattr(erased, field.name) for field in msgspec.structs.fields(Erased)},
        )
    )
    return erased


def _finishing_job(person_id: int, *, delay: timedelta = timedelta(0)) -> NewJob:
    return NewJob(name=ERASE_JOB, payload=str(person_id).encode(), delay=delay)


async def _take_back_jobs(connection: Connection, *, person_id: int) -> None:
    await connection.execute(
        "delete from pgqueuer where entrypoint = $1 and status = 'queued' and payload = $2",
        ERASE_JOB,
        str(person_id).encode(),
    )


async def erase_again(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """A step of the daily run: what came up about restricted people since they asked goes as well."""
    ids, following = await read_page(
        connection,
        """
        select p.id, p.restricted_at as at, true as is_wanted from person p
        where p.id > $1 and p.restricted_at is not null
            and not exists (select from subscription s where s.person_id = p.id and s.status <> 'cancelled')
        order by p.id limit $2
        """,
        int(after.id),
        size=PEOPLE_AT_ONCE,
    )
    count = 0
    for person_id in [] if limits.is_dry else ids:
        count += (await forget_at_once(connection, person_id=int(person_id), limits=limits)).total
    return Progress(count, following)


async def find_retained_until(connection: Connection, *, person_id: int, now: datetime, zone: ZoneInfo) -> date | None:
    """From when on nothing of a person has to be kept any more, as far as it can be said now; None if nothing is."""
    settings = await get_settings(connection)
    row = await connection.fetchrow(
        f"""
        with billed as (
            select i.status, {LAST_FACT} as last_at from invoice i where i.person_id = $1
        ), facts as (
            select case when status = any($2::text[]) and last_at < 'infinity' then last_at end as at,
                status <> all($2::text[]) or last_at = 'infinity' as is_open from billed
            union all
            select greatest(created_at, cancelled_at), status <> 'cancelled' from subscription where person_id = $1
            union all
            select created_at, false from audit_entry where actor_person_id = $1
        )
        select max(at) as last_at, bool_or(is_open) as has_open from facts
        """,
        person_id,
        list(SETTLED),
    )
    assert row is not None, "an aggregate returns a row"
    return retained_until(
        settled_at=[] if row["last_at"] is None else [row["last_at"]],
        has_open=bool(row["has_open"]),
        now=now,
        retention_days=settings.data_retention_days,
        zone=zone,
    )
