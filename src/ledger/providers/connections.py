"""The stored connections as providers that can be asked: settings opened, client built, and kept while they stay."""

from collections.abc import Mapping

import msgspec
import structlog

from ledger.crypto import Vault
from ledger.database.connection import Connection
from ledger.errors import CapabilityMissing
from ledger.providers.contract import Capability, Provider, ProviderType
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import COLUMN, TABLE, StoredConnection, find_active_connection, get_connection

log = structlog.get_logger("ledger.providers")

KEPT_MAX = 20


class Connected(msgspec.Struct, frozen=True):
    """A stored connection, its kind, and the provider behind it."""

    stored: StoredConnection
    type: ProviderType
    provider: Provider

    def can(self, capability: Capability) -> bool:
        return capability in self.type.capabilities


class Connections:
    """Opens connections and keeps them, since building a client costs more than a request."""

    def __init__(self, *, registry: ProviderRegistry, vault: Vault) -> None:
        self.registry = registry
        self._vault = vault
        # By id and version: changed settings make a new provider, and the old one ends with its last request.
        self._kept: dict[tuple[str, bytes], Connected] = {}

    def seal(self, settings: Mapping[str, str], *, connection_id: str) -> bytes:
        """Seals settings for exactly this connection."""
        text = msgspec.json.encode(dict(settings)).decode()
        return self._vault.seal(text, table=TABLE, row=connection_id, column=COLUMN)

    def open_settings(self, stored: StoredConnection) -> dict[str, str]:
        """A connection's settings. Raises `SealBroken` when they were changed or moved."""
        if stored.settings_sealed is None:
            return {}
        text = self._vault.open(stored.settings_sealed, table=TABLE, row=stored.id, column=COLUMN)
        return msgspec.json.decode(text, type=dict[str, str])

    def connect(self, stored: StoredConnection) -> Connected:
        """The provider behind a stored connection."""
        key = (stored.id, stored.settings_sealed or b"")
        kept = self._kept.get(key)
        if kept is None:
            kind = self.registry.get(stored.type)
            kept = Connected(stored, kind, kind.connect(self.open_settings(stored)))
            self._kept[key] = kept
            if len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]
        return kept if kept.stored == stored else msgspec.structs.replace(kept, stored=stored)

    async def find_active(self, connection: Connection) -> Connected | None:
        """The active connection, or None."""
        stored = await find_active_connection(connection)
        return None if stored is None else self.connect(stored)

    async def get_active(self, connection: Connection, *, capability: Capability) -> Connected:
        """The active connection, which can do this. Raises `CapabilityMissing`."""
        active = await self.find_active(connection)
        if active is None:
            raise CapabilityMissing("No payment provider configured")
        if not active.can(capability):
            raise CapabilityMissing(f"Active provider does not support {capability.value}")
        return active

    async def get(self, connection: Connection, *, connection_id: str) -> Connected:
        """A connection, active or not. Raises `NotFound`."""
        return self.connect(await get_connection(connection, connection_id=connection_id))

    async def close(self) -> None:
        """Gives every provider's connections back."""
        kept, self._kept = self._kept, {}
        for each in kept.values():
            await each.provider.close()
