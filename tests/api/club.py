"""A provider that keeps subscriptions in this process: against it, what people send and see is tested.

It stands for no program outside; the life of a subscription at Stripe is tested against the fake Stripe, a server.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

import msgspec

from ledger.errors import FieldError
from ledger.providers.connections import Connections
from ledger.providers.contract import Capability, Checkout, Instructions, SettingField, Settings, WantedPayment
from ledger.providers.manual import ManualType
from ledger.providers.provider import Provider, ProviderDefaults
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import upsert_remote_id
from ledger.providers.subscription_contract import (
    ChangePreview,
    PreviewLine,
    SubscriptionState,
    WantedChange,
    WantedSubscription,
)
from tests.installation import Installation

PERIOD_START = datetime(2026, 3, 1, tzinfo=UTC)
PERIOD_END = datetime(2026, 4, 1, tzinfo=UTC)


class Club:
    """What it was asked, and how it answers."""

    def __init__(self, *, has_page: bool = True) -> None:
        self.has_page = has_page
        self.started: list[WantedSubscription] = []
        self.changed: list[WantedChange] = []
        self.asked: list[str] = []


class ClubProvider(ProviderDefaults):
    """A connection to the club. It is all agreement; the price of a running subscription is never told."""

    def __init__(self, club: Club) -> None:
        self._club = club

    async def test(self) -> str:
        return "The club is there"

    async def start_payment(self, wanted: WantedPayment) -> Instructions:
        return Instructions(text="Pay at the bar")

    async def start_subscription(self, wanted: WantedSubscription) -> Checkout | SubscriptionState:
        self._club.started.append(wanted)
        if not self._club.has_page:
            return _running(cancels=False)
        return Checkout(
            remote_id=f"page-{wanted.intent_id}",
            url=f"https://club.example.com/{wanted.intent_id}",
            expires_at=datetime(2026, 3, 16, tzinfo=UTC),
        )

    async def preview_change(self, wanted: WantedChange) -> ChangePreview:
        return ChangePreview(
            amount_due_minor=700,
            currency="EUR",
            credit_minor=500,
            charge_minor=1200,
            effective_at=wanted.prorate_at,
            lines=(
                PreviewLine(description="Time not used", amount_minor=-500),
                PreviewLine(description="Gold", amount_minor=1200),
            ),
        )

    async def change_subscription(self, wanted: WantedChange) -> SubscriptionState:
        self._club.changed.append(wanted)
        return msgspec.structs.replace(_running(cancels=False), price_remote_id=wanted.price_remote_id)

    async def cancel_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        self._club.asked.append("cancel")
        return _running(cancels=True)

    async def reactivate_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        self._club.asked.append("reactivate")
        return _running(cancels=False)


def _running(*, cancels: bool) -> SubscriptionState:
    return SubscriptionState(
        status="active",
        remote_id="member-1",
        cancels_at_period_end=cancels,
        period_start=PERIOD_START,
        period_end=PERIOD_END,
    )


class ClubType:
    """The kind of provider."""

    name: ClassVar[str] = "club"
    label: ClassVar[str] = "Club"
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.INVOICES, Capability.SUBSCRIPTIONS, Capability.RECURRING_BILLING}
    )
    syncs_products: ClassVar[bool] = False

    def __init__(self, club: Club) -> None:
        self._club = club

    def fields(self) -> Sequence[SettingField]:
        return [SettingField(key="door", label="Door", is_required=True)]

    def check(self, settings: Settings) -> Sequence[FieldError]:
        return []

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """Nothing: there is one club."""
        return ()

    def connect(self, settings: Settings) -> Provider:
        return ClubProvider(self._club)


async def open_club(ledger: Installation, *, has_page: bool = True) -> Club:
    """Teaches a running Ledger the club, and makes it the active provider."""
    club = Club(has_page=has_page)
    ledger.services.put(
        Connections(registry=ProviderRegistry([ManualType(), ClubType(club)]), vault=ledger.services.vault)
    )
    added = await ledger.staff.post("/api/providers", {"type": "club", "name": "Club"})
    assert (await ledger.staff.put(f"/api/providers/{added.body['id']}", {"door": "left"})).status == 200
    assert (await ledger.staff.post(f"/api/providers/{added.body['id']}/activate")).status == 200
    return club


async def tell_prices(ledger: Installation) -> None:
    """The club learns the present price of every product, as the job that brings products there would see to."""
    connection_id = await ledger.value("select id from provider_connection where type = 'club'")
    rows = await ledger.sql("select id::text from product_price where is_current")
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        for row in rows:
            await upsert_remote_id(
                tx.connection,
                connection_id=connection_id,
                kind="price",
                local_id=row["id"],
                remote_id=f"club-{row['id']}",
                now=tx.now,
            )
