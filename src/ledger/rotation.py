"""`ledger rotate-key`: seals every stored secret anew with the present key, while Ledger serves.

Set ENCRYPTION_KEY to the new key and ENCRYPTION_KEY_PREVIOUS to the old one, restart, then run this. Both keys open
what is stored meanwhile. When it is done, the previous key is not needed any more.
"""

import asyncpg

from ledger.clock import SystemClock
from ledger.crypto import SealBroken, Vault
from ledger.database.connection import Connection
from ledger.database.transaction import AuditEntry, Database
from ledger.ids import TimeOrderedIds
from ledger.settings import Settings

# Every column that holds a sealed secret; a test compares this with the schema.
SEALED_COLUMNS = (
    ("billing_settings", "smtp_password_sealed"),
    ("provider_connection", "settings_sealed"),
    ("webhook_subscriber", "header_secret_sealed"),
    ("webhook_subscriber", "signing_secret_sealed"),
    ("webhook_subscriber", "previous_signing_secret_sealed"),
)
ROWS_AT_ONCE = 100


class KeyUnknown(Exception):
    """A stored secret was sealed with a key that is not configured; the message says what to do."""


async def rotate_stored_secrets(settings: Settings) -> int:
    """The same for the command line: opens the database, and closes it. Raises `KeyUnknown`."""
    previous = settings.encryption_key_previous
    vault = Vault(settings.encryption_key.reveal(), previous.reveal() if previous else None)
    database = Database(settings.require_database_url(), pool_size=2, clock=SystemClock(), ids=TimeOrderedIds())
    await database.open()
    try:
        return await rotate_key(database, vault)
    finally:
        await database.close()


async def rotate_key(database: Database, vault: Vault) -> int:
    """Returns how many secrets were sealed anew. Can be interrupted and repeated.

    Raises `KeyUnknown` that names the secrets neither key opens, after all the others were done.
    """
    broken: list[str] = []
    rotated = 0
    for table, column in SEALED_COLUMNS:
        rotated += await _rotate_column(database, vault, table=table, column=column, broken=broken)
    if broken:
        raise KeyUnknown(
            f"Sealed anew: {rotated}; but no configured key opens {', '.join(broken[:10])}: set "
            "ENCRYPTION_KEY_PREVIOUS to the key before this one and repeat, or enter these secrets anew."
        )
    return rotated


async def list_unreadable_secrets(connection: Connection, vault: Vault) -> list[str]:
    """The stored secrets that no configured key opens, or that were changed or moved: `table.column of row`."""
    unreadable: list[str] = []
    for table, column in SEALED_COLUMNS:
        after = ""
        while rows := await _read_sealed(connection, table=table, column=column, after=after):
            after = rows[-1]["id"]
            for row in rows:
                try:
                    vault.open(row["sealed"], table=table, row=row["id"], column=column)
                except SealBroken:
                    unreadable.append(f"{table}.{column} of {row['id']}")
    return unreadable


async def _read_sealed(connection: Connection, *, table: str, column: str, after: str) -> list[asyncpg.Record]:
    return await connection.fetch(
        f"""
        select id::text, {column} as sealed from {table}
        where {column} is not null and id::text > $1 order by id::text limit $2
        """,
        after,
        ROWS_AT_ONCE,
    )


async def _rotate_column(database: Database, vault: Vault, *, table: str, column: str, broken: list[str]) -> int:
    rotated = 0
    after = ""
    while True:
        async with database.connection() as connection:
            rows = await _read_sealed(connection, table=table, column=column, after=after)
        if not rows:
            return rotated
        after = rows[-1]["id"]
        for row in rows:
            if vault.is_current(row["sealed"]):
                continue
            try:
                rotated += await _rotate_row(database, vault, table=table, column=column, row_id=row["id"])
            except SealBroken:
                broken.append(f"{table} {row['id']}")


async def _rotate_row(database: Database, vault: Vault, *, table: str, column: str, row_id: str) -> int:
    """Seals one secret anew, locked, so that a change by staff in the same moment is not lost."""
    async with database.transaction_by(kind="cli", name="rotate-key") as tx:
        sealed = await tx.connection.fetchval(f"select {column} from {table} where id::text = $1 for update", row_id)
        if sealed is None or vault.is_current(sealed):
            return 0
        secret = vault.open(sealed, table=table, row=row_id, column=column)
        await tx.connection.execute(
            f"update {table} set {column} = $2 where id::text = $1",
            row_id,
            vault.seal(secret, table=table, row=row_id, column=column),
        )
        tx.audit(AuditEntry(action="secret.resealed", entity_type=table, entity_id=row_id))
    return 1
