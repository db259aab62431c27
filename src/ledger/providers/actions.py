"""What can be done with stored connections. Each function is one change in one transaction."""

from collections.abc import Mapping

from ledger.database.installation import request_heartbeat
from ledger.database.transaction import AuditEntry, NewJob, Tx
from ledger.errors import BadRequest, FieldError
from ledger.providers.connections import Connections, SettingsUnreadable
from ledger.providers.contract import Capability, SettingField, SettingsRefused
from ledger.providers.provider import ProviderType
from ledger.providers.store import (
    CONNECTIONS_MAX,
    StoredConnection,
    activate_connection,
    count_connections,
    deactivate_connection,
    get_connection,
    has_business,
    insert_connection,
    lock_connections,
    update_connection,
)

SECRET_MASK = "********"  # noqa: S105 - what is shown instead of a secret
# Forms leave empty fields out, so this removes a setting.
CLEARED = "-"


class TooManyConnections(BadRequest):
    """There are as many connections as a page can show."""


async def create_connection(tx: Tx, *, connections: Connections, kind: str, name: str) -> StoredConnection:
    """Adds a connection without settings; it can be activated once they are filled in.

    Raises `UnknownProviderType`, `TooManyConnections`.
    """
    found = connections.registry.get(kind)
    if await count_connections(tx.connection) >= CONNECTIONS_MAX:
        raise TooManyConnections(f"There are {CONNECTIONS_MAX} providers already; change one that is not used any more")
    stored = StoredConnection(
        id=tx.ids.new(),
        type=found.name,
        name=name,
        is_active=False,
        settings_sealed=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    await insert_connection(tx.connection, stored=stored)
    tx.audit(_entry("provider.created", stored))
    return stored


async def change_connection(
    tx: Tx, *, connections: Connections, connection_id: str, name: str | None, changes: Mapping[str, str]
) -> None:
    """Stores a name and settings. What is left out, and a masked secret, stay as they are.

    Raises `NotFound` and `SettingsRefused`; then nothing is stored.
    """
    await lock_connections(tx.connection)
    stored = await get_connection(tx.connection, connection_id=connection_id, lock=True)
    kind = connections.registry.get(stored.type)
    try:
        before = connections.open_settings(stored)
    except SettingsUnreadable:
        # What cannot be opened is entered anew, all of it.
        before = {}
    after = before | {
        field.key: "" if changes[field.key].strip() == CLEARED and not field.is_required else changes[field.key].strip()
        for field in kind.fields()
        if field.key in changes and changes[field.key] != SECRET_MASK
    }
    after = {key: value for key, value in after.items() if value}
    # A connection may be renamed before it is filled in.
    if after != before or (not before and name is None):
        check_settings(kind, after)
    if after != before and before and await has_business(tx.connection, connection_id=stored.id):
        faults = list(kind.check_change(before, after))
        if faults:
            raise SettingsRefused("; ".join(fault.message for fault in faults), fields=faults)
    changed = sorted(key for key in after.keys() | before.keys() if after.get(key) != before.get(key))
    if not changed and name in (None, stored.name):
        return
    await update_connection(
        tx.connection,
        connection_id=stored.id,
        name=name or stored.name,
        settings_sealed=connections.seal(after, connection_id=stored.id) if changed else stored.settings_sealed,
        now=tx.now,
    )
    if stored.is_active and changed:
        _bring_products(tx, kind, stored)
    # Which settings changed is worth keeping; what they were set to is a secret or somebody's bank account.
    tx.audit(_entry("provider.updated", stored, changed=", ".join(changed) or "name"))


def check_settings(kind: ProviderType, settings: Mapping[str, str]) -> None:
    """Raises `SettingsRefused` that says every reason."""
    faults = list(kind.check(settings))
    if faults:
        raise SettingsRefused("; ".join(fault.message for fault in faults), fields=faults)


async def activate(tx: Tx, *, connections: Connections, connection_id: str, dashboard_url: str | None) -> None:
    """Makes a connection the one that takes payments from now on; another active one steps back.

    Raises `NotFound` (and leaves the active one alone), `SettingsRefused` when the settings are not complete.
    """
    await lock_connections(tx.connection)
    stored = await get_connection(tx.connection, connection_id=connection_id, lock=True)
    kind = connections.registry.get(stored.type)
    settings = connections.open_settings(stored)
    if not settings:
        first = next((field for field in kind.fields() if field.is_required), None)
        raise SettingsRefused(
            "Fill in the settings of this provider before you activate it",
            fields=[FieldError(first.key, "is required")] if first else [],
        )
    check_settings(kind, settings)
    if Capability.CHECKOUT in kind.capabilities and dashboard_url is None:
        raise SettingsRefused("Set DASHBOARD_URL for Ledger first, so that payers can come back from the payment page")
    if stored.is_active:
        return
    await activate_connection(tx.connection, connection_id=stored.id, now=tx.now)
    tx.audit(_entry("provider.activated", stored))
    _bring_products(tx, kind, stored)
    await request_heartbeat(tx.connection, now=tx.now)


def _bring_products(tx: Tx, kind: ProviderType, stored: StoredConnection) -> None:
    """Leaves the work to make the provider's catalogue follow ours (`ledger.products.jobs`)."""
    if kind.syncs_products:
        tx.defer(NewJob(name="products.sync_all", payload=stored.id.encode()))


async def deactivate(tx: Tx, *, connection_id: str) -> None:
    """Lets nobody take payments until another connection is activated. Raises `NotFound`."""
    await lock_connections(tx.connection)
    stored = await get_connection(tx.connection, connection_id=connection_id, lock=True)
    if not stored.is_active:
        return
    await deactivate_connection(tx.connection, connection_id=stored.id, now=tx.now)
    tx.audit(_entry("provider.deactivated", stored))
    await request_heartbeat(tx.connection, now=tx.now)


def shown_value(field: SettingField, settings: Mapping[str, str]) -> str | None:
    """A setting as it may be shown: secrets only as a mask of fixed length."""
    value = settings.get(field.key)
    if value is None:
        return None
    return SECRET_MASK if field.is_secret else value


def _entry(action: str, stored: StoredConnection, **details: str) -> AuditEntry:
    return AuditEntry(
        action=action, entity_type="provider", entity_id=stored.id, details={"type": stored.type, **details}
    )
