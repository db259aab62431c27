"""SQL for the audit log. Entries are written by `Tx`; here they are read and sealed."""

from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the log, its actor by row."""

    id: int
    action: str
    entity_type: str
    entity_id: str
    actor_kind: str
    actor_person_id: int | None
    actor_name: str | None
    details: dict[str, object] | None
    created_at: datetime


class SealedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry and its place in the chain."""

    position: int
    seal: bytes
    entry: Entry


_ENTRY = (
    "e.id, e.action, e.entity_type, e.entity_id, e.actor_kind, e.actor_person_id, e.actor_name, e.details, e.created_at"
)


async def list_entries(
    connection: Connection,
    *,
    after: Position | None,
    limit: int,
    action: str | None,
    entity_type: str | None,
    entity_id: str | None,
) -> Page[Entry]:
    """Entries, newest first."""
    conditions = ["true"]
    values: list[object] = []
    for column, value in (("action", action), ("entity_type", entity_type), ("entity_id", entity_id)):
        if value is not None:
            values.append(value)
            conditions.append(f"e.{column} = ${len(values)}")
    matching = " and ".join(conditions)
    found = await connection.fetchval(
        f"select count(*) from (select from audit_entry e where {matching} limit {COUNTED_MAX + 1}) counted",
        *values,
    )
    if after is not None:
        values.append(int(after.id))
        matching += f" and e.id < ${len(values)}"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"select {_ENTRY} from audit_entry e where {matching} order by e.id desc limit ${len(values)}",
        *values,
    )
    entries = [Entry(**dict(row)) for row in rows[:limit]]
    total, is_more = counted(found)
    last = entries[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, str(last.id))) if last else None
    return Page(rows=entries, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_unsealed(connection: Connection, *, limit: int) -> list[Entry]:
    """Entries that are not in the chain yet, oldest first."""
    rows = await connection.fetch(
        f"""
        select {_ENTRY} from audit_entry e
        where not exists (select from audit_seal s where s.entry_id = e.id)
        order by e.id limit $1
        """,
        limit,
    )
    return [Entry(**dict(row)) for row in rows]


async def lock_last_seal(connection: Connection) -> tuple[int, bytes]:
    """The chain's end (position, seal); nobody else extends the chain until the transaction ends."""
    await connection.execute("lock table audit_seal in exclusive mode")
    row = await connection.fetchrow("select position, seal from audit_seal order by position desc limit 1")
    return (row["position"], row["seal"]) if row else (0, b"")


async def insert_seals(connection: Connection, *, seals: list[tuple[int, int, bytes]]) -> None:
    """Appends (position, entry id, seal) to the chain."""
    await connection.execute(
        """
        insert into audit_seal (position, entry_id, seal)
        select * from unnest($1::bigint[], $2::bigint[], $3::bytea[])
        """,
        [position for position, _, _ in seals],
        [entry_id for _, entry_id, _ in seals],
        [seal for _, _, seal in seals],
    )


async def iterate_sealed(connection: Connection, *, page: int) -> AsyncIterator[list[SealedEntry]]:
    """The chain from its beginning, a page at a time, so that memory stays bounded."""
    position = 0
    while True:
        rows = await connection.fetch(
            f"""
            select s.position, s.seal, {_ENTRY} from audit_seal s join audit_entry e on e.id = s.entry_id
            where s.position > $1 order by s.position limit $2
            """,
            position,
            page,
        )
        if not rows:
            return
        yield [
            SealedEntry(
                position=row["position"],
                seal=row["seal"],
                entry=Entry(**{name: row[name] for name in Entry.__struct_fields__}),
            )
            for row in rows
        ]
        position = rows[-1]["position"]


async def count_unsealed(connection: Connection) -> int:
    """How many entries wait for their seal (counted to 10 000)."""
    waiting: int = await connection.fetchval(
        f"""
        select count(*) from (
            select from audit_entry e where not exists (select from audit_seal s where s.entry_id = e.id)
            limit {COUNTED_MAX}
        ) counted
        """
    )
    return waiting
