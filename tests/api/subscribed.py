"""Subscriptions as they are after a while, stored for a test that does not need to live their lives."""

from datetime import timedelta

import msgspec

from ledger.database.transaction import Tx
from ledger.products.rules import Interval, ProductDraft, ProductKind, Terms
from ledger.products.store import Product, find_product, get_product, insert_product
from ledger.providers.store import StoredConnection, insert_connection, list_connections
from ledger.subscriptions.change_store import (
    BookedPeriod,
    ChangeKind,
    ChangeStatus,
    SubscriptionChange,
    insert_change,
    insert_period,
)
from ledger.subscriptions.rules import SubscriptionStatus
from ledger.subscriptions.store import Subscription, get_subscription, insert_subscription
from tests.installation import USER, Installation

# A recurring product that every installation of a test can have, for requests whose body is always the same.
GOLD = "01890000-0000-7000-8000-00000000601d"
PAGE_URL = "https://pay.example.com/page"


async def add_product(ledger: Installation, name: str = "Membership", **terms: object) -> str:
    """A recurring product on sale, 12.00 EUR a month unless the terms say otherwise; returns its id."""
    body: dict[str, object] = {"name": name, "price": 1200, "type": "recurring", "interval": "month"}
    added = await ledger.staff.post("/api/products", body | terms)
    assert added.status == 201, added.content
    product_id: str = added.body["id"]
    return product_id


async def ensure_gold(ledger: Installation) -> str:
    """The product `GOLD`, on sale at 24.00 EUR a month."""
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        if await find_product(tx.connection, product_id=GOLD) is None:
            terms = Terms(amount_minor=2400, currency="EUR", interval=Interval.MONTH)
            draft = ProductDraft(
                name="Gold",
                description=None,
                kind=ProductKind.RECURRING,
                tax_rate_bp=None,
                prorate_on_change=True,
                terms=terms,
            )
            gold = Product(id=GOLD, draft=draft, price_id=tx.ids.new(), is_active=True, version=1, created_at=tx.now)
            await insert_product(tx.connection, product=gold)
    return GOLD


async def add_subscription(
    ledger: Installation,
    *,
    user_id: str = USER,
    product_id: str | None = None,
    status: str = "active",
    **changes: object,
) -> str:
    """A subscription in its second month, with what a test wants different; returns its id."""
    product_id = product_id or await add_product(ledger)
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        product = await get_product(tx.connection, product_id=product_id)
        subscription = Subscription(
            id=tx.ids.new(),
            person_id=await tx.ensure_person(user_id),
            product_id=product.id,
            price_id=product.price_id,
            connection_id=await _any_connection_id(tx),
            status=SubscriptionStatus(status),
            cancels_at_period_end=False,
            remote_id=f"remote-{tx.ids.new()}",
            checkout_remote_id=None,
            checkout_url=None,
            checkout_expires_at=None,
            is_unwanted=False,
            period_start=tx.now - timedelta(days=10),
            period_end=tx.now + timedelta(days=20),
            activated_at=tx.now - timedelta(days=40),
            cancelled_at=tx.now if status == "cancelled" else None,
            problem=None,
            version=3,
            created_at=tx.now,
            next_look_at=None,
            looks=0,
        )
        subscription = msgspec.structs.replace(subscription, **changes)
        assert await insert_subscription(tx.connection, subscription=subscription)
    return subscription.id


async def add_unpaid_subscription(ledger: Installation, **changes: object) -> str:
    """A subscription whose payment page is open for an hour; returns its id."""
    unpaid: dict[str, object] = {
        "remote_id": None,
        "checkout_remote_id": "page",
        "checkout_url": PAGE_URL,
        "checkout_expires_at": ledger.clock.now() + timedelta(hours=1),
        "period_start": None,
        "period_end": None,
        "activated_at": None,
    }
    return await add_subscription(ledger, status="incomplete", **(unpaid | changes))  # type: ignore[arg-type]


async def _any_connection_id(tx: Tx) -> str:
    """The connection that charges. One serves all: there is room for a limited number of them."""
    stored = await list_connections(tx.connection)
    if stored:
        return stored[0].id
    cash_box = StoredConnection(
        id=tx.ids.new(),
        type="manual",
        name="Cash box",
        is_active=False,
        settings_sealed=None,
        created_at=tx.now,
        updated_at=tx.now,
    )
    await insert_connection(tx.connection, stored=cash_box)
    return cash_box.id


async def add_change(
    ledger: Installation,
    subscription_id: str,
    *,
    kind: ChangeKind = "change",
    product_id: str | None = None,
    status: ChangeStatus = "succeeded",
    failure: str | None = None,
) -> str:
    """What somebody wanted of a subscription, and how it ended; returns its id."""
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        price_id = None
        if kind == "change":
            assert product_id is not None
            price_id = (await get_product(tx.connection, product_id=product_id)).price_id
        change = SubscriptionChange(
            id=tx.ids.new(),
            subscription_id=subscription_id,
            kind=kind,
            price_id=price_id,
            prorates=True,
            prorate_at=tx.now,
            tax_rate_bp=0,
            tax_label="Tax",
            status=status,
            failure=failure,
            created_at=tx.now,
            settled_at=None if status == "requested" else tx.now,
            next_look_at=None,
            looks=0,
        )
        await insert_change(tx.connection, change=change)
    return change.id


async def add_period(ledger: Installation, subscription_id: str, *, invoice_id: str) -> None:
    """Says that an invoice was booked for a subscription."""
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        subscription = await get_subscription(tx.connection, subscription_id=subscription_id)
        period = BookedPeriod(
            connection_id=subscription.connection_id,
            remote_id=f"bill-of-{invoice_id}",
            subscription_id=subscription_id,
            invoice_id=invoice_id,
            period_start=tx.now,
            period_end=tx.now + timedelta(days=30),
            created_at=tx.now,
        )
        await insert_period(tx.connection, period=period)
