"""The stored connections as providers that can be asked: settings opened, client built, and kept while they stay."""

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from ledger.crypto import SealBroken, Vault
from ledger.database.connection import Connection
from ledger.errors import CapabilityMissing, Unavailable
from ledger.providers.contract import Capability
from ledger.providers.provider import Provider, ProviderType
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import COLUMN, TABLE, StoredConnection, find_active_connection, get_connection

log = structlog.get_logger("ledger.providers")

# Longer than any request takes.
CLOSED_AFTER_S = 30.0


class Connected(msgspec.Struct, frozen=True):
    """A stored connection, its kind, and the provider behind it."""

    stored: StoredConnection
    type: ProviderType
    provider: Provider

    def can(self, capability: Capability) -> bool:
        return capability in self.type.capabilities


class SettingsUnreadable(Unavailable):
    """A connection's sealed settings cannot be opened (503)."""


class Connections:
    """Opens connections and keeps them, since building a client costs more than a request."""

    def __init__(self, *, registry: ProviderRegistry, vault: Vault) -> None:
        self.registry = registry
        self._vault = vault
        # By connection, with the sealed settings it was built from: changed settings make a new provider.
        self._kept: dict[str, tuple[bytes, Connected]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def seal(self, settings: Mapping[str, str], *, connection_id: str) -> bytes:
        """Seals settings for exactly this connection."""
        text = msgspec.json.encode(dict(settings)).decode()
        return self._vault.seal(text, table=TABLE, row=connection_id, column=COLUMN)

    def open_settings(self, stored: StoredConnection) -> dict[str, str]:
        """A connection's settings. Raises `SettingsUnreadable` when they were changed, moved, or the key is missing."""
        if stored.settings_sealed is None:
            return {}
        try:
            text = self._vault.open(stored.settings_sealed, table=TABLE, row=stored.id, column=COLUMN)
        except SealBroken as broken:
            log.error("settings cannot be opened", connection=stored.id, reason=str(broken))
            raise SettingsUnreadable(
                f"The settings of the payment provider {stored.name} cannot be opened: check ENCRYPTION_KEY and "
                "ENCRYPTION_KEY_PREVIOUS, or enter the settings anew",
                retry_after_s=60,
            ) from broken
        return msgspec.json.decode(text, type=dict[str, str])

    def connect(self, stored: StoredConnection) -> Connected:
        """The provider behind a stored connection. Raises `SettingsUnreadable`."""
        sealed = stored.settings_sealed or b""
        kept_sealed, kept = self._kept.get(stored.id, (None, None))
        if kept is None or kept_sealed != sealed:
            kind = self.registry.get(stored.type)
            fresh = Connected(stored, kind, kind.connect(self.open_settings(stored)))
            if kept is not None:
                self._close_later(kept.provider)
            self._kept[stored.id] = (sealed, fresh)
            kept = fresh
        return kept if kept.stored == stored else msgspec.structs.replace(kept, stored=stored)

    def _close_later(self, provider: Provider) -> None:
        """Closes a provider that was replaced, once the requests that still use it are over."""

        async def close() -> None:
            try:
                await asyncio.sleep(CLOSED_AFTER_S)
            finally:
                # At the end of the process it is closed at once.
                await provider.close()

        task = asyncio.get_running_loop().create_task(close(), name="close a replaced provider")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

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
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        kept, self._kept = self._kept, {}
        for _, each in kept.values():
            await each.provider.close()
