"""Extends the chain over the audit log, and verifies it."""

import msgspec

from ledger.audit.rules import seal_of
from ledger.audit.store import (
    Entry,
    count_unsealed,
    insert_seals,
    iterate_sealed,
    list_unsealed,
    lock_last_seal,
)
from ledger.database.connection import Connection
from ledger.database.transaction import Tx

SEALED_AT_ONCE = 2_000
READ_AT_ONCE = 2_000


class Verified(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a walk along the chain found. `broken_at` is the first position whose seal does not fit, or null."""

    ok: bool
    sealed: int
    waiting: int
    broken_at: int | None


async def seal_entries(tx: Tx) -> int:
    """Seals entries that wait, in order; returns how many. Only one process extends the chain at a time."""
    position, before = await lock_last_seal(tx.connection)
    seals: list[tuple[int, int, bytes]] = []
    for entry in await list_unsealed(tx.connection, limit=SEALED_AT_ONCE):
        position += 1
        before = _seal(entry, before=before, position=position)
        seals.append((position, entry.id, before))
    if seals:
        await insert_seals(tx.connection, seals=seals)
    return len(seals)


async def verify_chain(connection: Connection) -> Verified:
    """Walks the whole chain in pages and tells whether every entry still says what it said when it was sealed."""
    before, checked = b"", 0
    async for page in iterate_sealed(connection, page=READ_AT_ONCE):
        for sealed in page:
            expected = _seal(sealed.entry, before=before, position=checked + 1)
            if sealed.position != checked + 1 or sealed.seal != expected:
                return Verified(
                    ok=False, sealed=checked, waiting=await count_unsealed(connection), broken_at=sealed.position
                )
            before, checked = sealed.seal, checked + 1
    return Verified(ok=True, sealed=checked, waiting=await count_unsealed(connection), broken_at=None)


def _seal(entry: Entry, *, before: bytes, position: int) -> bytes:
    return seal_of(
        before=before,
        position=position,
        entry_id=entry.id,
        action=entry.action,
        entity_type=entry.entity_type,
        entity_id=entry.entity_id,
        actor_kind=entry.actor_kind,
        actor_name=entry.actor_name,
        details=entry.details,
        created_at=entry.created_at,
    )
