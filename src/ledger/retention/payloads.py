"""Finds what payment providers sent about one person, by the names that they and Ledger have for the person's things.

A payload is not linked to anybody: it is bytes as they came. So all that are kept are looked through, in pages.
"""

import asyncio
import math
import re
import time
from collections.abc import Sequence, Set
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.retention.purging import empty_payloads_of
from ledger.retention.walking import BEGINNING, Limits, Place, Progress

LOOKED_THROUGH_S = 3.0
"""How long a request looks; what is left then is left to the worker."""
_PAGE = 200
_TOKEN = re.compile(rb"[A-Za-z0-9_-]+")


class FoundPayload(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a provider sent about the person."""

    id: str
    received_at: datetime
    type: str
    is_applied: bool
    payload: bytes


async def list_names(connection: Connection, *, person_ids: Sequence[int]) -> list[str]:
    """Every name by which a provider can speak of these people's things, ours and theirs."""
    rows = await connection.fetch(
        """
        with mine as (
            select id from invoice where person_id = any($1::bigint[])
        ), paid as (
            select p.id, p.provider_reference from payment p join mine on mine.id = p.invoice_id
        )
        select id::text as name from mine
        union select provider_reference from paid
        union select r.provider_reference from refund r join paid on paid.id = r.payment_id
        union select d.remote_id from dispute d join paid on paid.id = d.payment_id
        union select c.remote_id from checkout c join mine on mine.id = c.invoice_id
        union select c.id::text from checkout c join mine on mine.id = c.invoice_id
        union select unnest(array[s.id::text, s.remote_id, s.checkout_remote_id]) from subscription s
            where s.person_id = any($1::bigint[])
        union select b.remote_id from subscription_period b join subscription s on s.id = b.subscription_id
            where s.person_id = any($1::bigint[])
        union select m.remote_id from provider_mapping m
            where m.kind = 'customer' and m.local_id = any($1::bigint[]::text[])
        """,
        person_ids,
    )
    return sorted(row["name"] for row in rows if row["name"])


def as_bytes(names: list[str], *, user_id: str | None = None) -> frozenset[bytes]:
    """The names as a payload has them, and the person's id at Lanyard where it is at hand."""
    return frozenset(name.encode() for name in (*names, *([user_id] if user_id else [])))


async def find_payloads(
    database: Database, *, names: Set[bytes], after: Place
) -> tuple[list[FoundPayload], Place | None]:
    """Looks through a page: what of it has one of the names, and where the next page begins; None at the end."""
    async with database.connection() as connection:
        page, following = await _read_page(connection, after=after)
    # In a thread: a page can be megabytes.
    return await asyncio.to_thread(_naming, page, names), following


async def _read_page(connection: Connection, *, after: Place) -> tuple[list[FoundPayload], Place | None]:
    rows = await connection.fetch(
        """
        select id::text, received_at, type, state, payload from inbound_event
        where payload is not null and (received_at, id) > ($1, $2::uuid) order by received_at, id limit $3
        """,
        after.at,
        after.id,
        _PAGE,
    )
    page = [
        FoundPayload(
            id=row["id"],
            received_at=row["received_at"],
            type=row["type"],
            is_applied=row["state"] in ("applied", "ignored"),
            payload=row["payload"],
        )
        for row in rows
    ]
    return page, Place(page[-1].received_at, page[-1].id) if len(page) == _PAGE else None


def _naming(page: list[FoundPayload], names: Set[bytes]) -> list[FoundPayload]:
    return [each for each in page if not names.isdisjoint(_TOKEN.findall(each.payload))]


async def purge_payloads(
    database: Database, *, person_id: int, user_id: str | None = None, deadline_s: float = math.inf
) -> tuple[int, bool]:
    """Empties what names the person and is applied; returns how many that were, and whether all were looked through.

    They were not when `deadline_s`, a time of `time.monotonic()`, came before the end. What is not applied yet is
    needed still; retention empties it after 90 days.
    """
    async with database.connection() as connection:
        names = as_bytes(await list_names(connection, person_ids=[person_id]), user_id=user_id)
    count = 0
    after: Place | None = BEGINNING if names else None
    while after is not None and time.monotonic() < deadline_s:
        found, after = await find_payloads(database, names=names, after=after)
        ids = [each.id for each in found if each.is_applied]
        if ids:
            async with database.connection() as connection:
                await empty_payloads_of(connection, ids=ids)
        count += len(ids)
    return count, after is None


async def empty_payloads_of_restricted(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """What providers sent about people who asked for erasure goes as soon as it is applied, also what came since."""
    rows = await connection.fetch("select id from person where restricted_at is not null")
    names = as_bytes(await list_names(connection, person_ids=[row["id"] for row in rows])) if rows else frozenset()
    if not names:
        return Progress(0, None)
    page, following = await _read_page(connection, after=after)
    found = await asyncio.to_thread(_naming, page, names)
    ids = [each.id for each in found if each.is_applied]
    if ids and not limits.is_dry:
        await empty_payloads_of(connection, ids=ids)
    return Progress(len(ids), following)
