"""The chain over the audit log: each seal covers an entry and the seal before it.

Whoever changes, removes or inserts an old entry has to forge every seal after it. A person may be freed from an
entry (retention), so the row that names the person is not covered; what was done, to what and when, is.
"""

import hashlib
from datetime import UTC, datetime

import msgspec


def seal_of(
    *,
    before: bytes,
    position: int,
    entry_id: int,
    action: str,
    entity_type: str,
    entity_id: str,
    actor_kind: str,
    actor_name: str | None,
    details: dict[str, object] | None,
    created_at: datetime,
) -> bytes:
    """The seal (SHA-256, 32 bytes) of an entry at `position`, after the seal `before` (empty for the first)."""
    covered = msgspec.json.encode(
        [
            position,
            entry_id,
            action,
            entity_type,
            entity_id,
            actor_kind,
            actor_name,
            details,
            created_at.astimezone(UTC).isoformat(timespec="microseconds"),
        ],
        order="deterministic",
    )
    return hashlib.sha256(before + covered).digest()
