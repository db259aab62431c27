"""A provider that keeps products and nothing else: the example against which bringing them there is tested.

It lives in the test's process, since it stands for no program outside; the fake Stripe is a server.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from ledger.errors import FieldError
from ledger.products.actions import SYNC_ALL_JOB, SYNC_JOB, read_sync_payload
from ledger.products.jobs import sync_all_products, sync_product
from ledger.providers.connections import Connections
from ledger.providers.contract import (
    Capability,
    Instructions,
    SettingField,
    Settings,
    SyncedProduct,
    WantedPayment,
    WantedProduct,
)
from ledger.providers.manual import ManualType
from ledger.providers.provider import Provider, ProviderDefaults, ProviderType
from ledger.providers.registry import ProviderRegistry
from tests.installation import Installation


class Shelf:
    """What the provider was asked, and what it keeps: names of its own for products, and the prices on offer."""

    def __init__(self) -> None:
        self.asked: list[WantedProduct] = []
        self.offered: dict[str, set[str]] = {}
        # What it does before it answers; it may raise.
        self.on_ask: Callable[[WantedProduct], Awaitable[None]] | None = None

    async def put(self, wanted: WantedProduct) -> SyncedProduct:
        self.asked.append(wanted)
        if self.on_ask is not None:
            await self.on_ask(wanted)
        product = wanted.product_remote_id or f"shelf-{len(self.offered) + 1}"
        price = wanted.price_remote_id or f"{product}/{len(self.asked)}"
        self.offered.setdefault(product, set()).add(price)
        self.offered[product] -= set(wanted.old_price_remote_ids)
        return SyncedProduct(product_remote_id=product, price_remote_id=price)


class ShelfProvider(ProviderDefaults):
    """A connection to the shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def test(self) -> str:
        return "The shelf is there"

    async def start_payment(self, wanted: WantedPayment) -> Instructions:
        return Instructions(text="Put the money on the shelf")

    async def sync_product(self, wanted: WantedProduct) -> SyncedProduct:
        return await self._shelf.put(wanted)


class ShelfType:
    """The kind of provider."""

    name: ClassVar[str] = "shelf"
    label: ClassVar[str] = "Shelf"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.INVOICES})
    syncs_products: ClassVar[bool] = True

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def fields(self) -> Sequence[SettingField]:
        return [SettingField(key="place", label="Place", is_required=True)]

    def check(self, settings: Settings) -> Sequence[FieldError]:
        return []

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """Nothing: what was paid to an account before stays paid."""
        return ()

    def connect(self, settings: Settings) -> Provider:
        return ShelfProvider(self._shelf)


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """A Ledger that knows the shelf beside the manual provider, and whose worker runs when the test says so."""

    ledger: Installation
    shelf: Shelf
    connections: Connections

    async def activate(
        self, kind: str = "shelf", name: str = "Back room", settings: Mapping[str, str] | None = None
    ) -> str:
        """Adds a connection and makes it the active one."""
        settings = settings or {"place": "left"}
        added = await self.ledger.staff.post("/api/providers", {"type": kind, "name": name})
        connection_id: str = added.body["id"]
        assert (await self.ledger.staff.put(f"/api/providers/{connection_id}", settings)).status == 200
        await self.activate_again(connection_id)
        return connection_id

    async def activate_again(self, connection_id: str) -> None:
        assert (await self.ledger.staff.post(f"/api/providers/{connection_id}/activate")).status == 200

    async def jobs(self) -> list[tuple[str, str]]:
        """What waits for the worker: names and payloads, oldest first."""
        rows = await self.ledger.sql(
            "select entrypoint, payload from pgqueuer where entrypoint like 'products.%' order by id"
        )
        return [(row["entrypoint"], row["payload"].decode()) for row in rows]

    async def work(self) -> None:
        """Runs what waits, and what that leaves behind, as the worker does."""
        for _ in range(20):
            waiting = await self.jobs()
            if not waiting:
                return
            await self.ledger.sql("delete from pgqueuer")
            for name, payload in waiting:
                await self.run(name, payload)
        raise AssertionError("the jobs never end")

    async def run(self, name: str, payload: str) -> None:
        database = self.ledger.services.database
        if name == SYNC_ALL_JOB:
            await sync_all_products(database, self.connections.registry, connection_id=payload)
        else:
            assert name == SYNC_JOB
            product_id, connection_id = read_sync_payload(payload.encode())
            await sync_product(database, self.connections, product_id=product_id, connection_id=connection_id)


def open_shop(ledger: Installation, *more: ProviderType) -> Shop:
    """Teaches a running Ledger the shelf, and whatever else a test sells through."""
    shelf = Shelf()
    connections = Connections(
        registry=ProviderRegistry([ManualType(), ShelfType(shelf), *more]), vault=ledger.services.vault
    )
    ledger.services.put(connections)
    return Shop(ledger=ledger, shelf=shelf, connections=connections)
