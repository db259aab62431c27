"""What can be done with products. Each function is one change in one transaction.

Every change counts the version up and, when the active provider keeps products of its own, leaves a job that brings
it there. The provider is never asked in the transaction of a change.
"""

import msgspec

from ledger.billing_settings.store import get_settings
from ledger.database.connection import Connection
from ledger.database.transaction import AuditEntry, JsonScalar, NewJob, Tx
from ledger.products.rules import ProductWish, change_draft, changed_fields, draft_product
from ledger.products.store import Product, insert_product, lock_product, replace_price, update_product
from ledger.products.sync_store import upsert_all_pending, upsert_pending
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import StoredConnection, find_active_connection

# Brings one product to one connection; its payload is `sync_payload`'s.
SYNC_JOB = "products.sync"
# Brings all products to a connection that became active, or got other settings; its payload is the connection's id.
SYNC_ALL_JOB = "products.sync_all"
# What is more than this waits for the next sweep.
QUEUED_AT_ONCE = 500


async def create_product(tx: Tx, *, registry: ProviderRegistry, wish: ProductWish) -> Product:
    """Puts a new product on sale, in the configured currency unless the wish names one. Raises `ProductRefused`."""
    settings = await get_settings(tx.connection)
    product = Product(
        id=tx.ids.new(),
        draft=draft_product(wish, default_currency=settings.default_currency),
        price_id=tx.ids.new(),
        is_active=True,
        version=1,
        created_at=tx.now,
    )
    await insert_product(tx.connection, product=product)
    terms = product.draft.terms
    tx.audit(
        _entry(
            "product.created",
            product,
            type=product.draft.kind.value,
            price=terms.amount_minor,
            currency=terms.currency,
            interval=terms.interval,
        )
    )
    await request_sync(tx, registry=registry, product=product)
    return product


async def change_product(tx: Tx, *, registry: ProviderRegistry, product_id: str, wish: ProductWish) -> Product:
    """Stores what is different; a wish that changes nothing leaves no trace. Other terms make a new price.

    Raises `NotFound` and `ProductRefused`.
    """
    before = await lock_product(tx.connection, product_id=product_id)
    draft = change_draft(before.draft, wish)
    changed = changed_fields(before.draft, draft)
    if not changed:
        return before
    is_new_price = draft.terms != before.draft.terms
    after = msgspec.structs.replace(
        before,
        draft=draft,
        price_id=tx.ids.new() if is_new_price else before.price_id,
        version=before.version + 1,
    )
    if is_new_price:
        await replace_price(tx.connection, product=after, now=tx.now)
    await update_product(tx.connection, product=after, now=tx.now)
    # The prices themselves are kept in their rows.
    tx.audit(_entry("product.updated", after, changed=", ".join(changed)))
    await request_sync(tx, registry=registry, product=after)
    return after


async def toggle_product(tx: Tx, *, registry: ProviderRegistry, product_id: str) -> Product:
    """Takes a product off sale, or puts it back on. Raises `NotFound`."""
    before = await lock_product(tx.connection, product_id=product_id)
    after = msgspec.structs.replace(before, is_active=not before.is_active, version=before.version + 1)
    await update_product(tx.connection, product=after, now=tx.now)
    tx.audit(_entry("product.activated" if after.is_active else "product.deactivated", after))
    await request_sync(tx, registry=registry, product=after)
    return after


async def request_sync(tx: Tx, *, registry: ProviderRegistry, product: Product) -> None:
    """Leaves a job that brings a changed product to the active connection, when that one keeps products."""
    active = await find_syncing_connection(tx.connection, registry=registry)
    if active is None:
        return
    await upsert_pending(tx.connection, product_id=product.id, connection_id=active.id, now=tx.now)
    tx.defer(sync_job(product_id=product.id, connection_id=active.id))


async def request_all_syncs(tx: Tx, *, connection_id: str) -> int:
    """Leaves jobs that bring all products to a connection; returns how many products there are to bring."""
    product_ids = await upsert_all_pending(tx.connection, connection_id=connection_id, now=tx.now)
    for product_id in product_ids[:QUEUED_AT_ONCE]:
        tx.defer(sync_job(product_id=product_id, connection_id=connection_id))
    return len(product_ids)


async def find_syncing_connection(connection: Connection, *, registry: ProviderRegistry) -> StoredConnection | None:
    """The active connection, if its provider keeps products of its own."""
    active = await find_active_connection(connection)
    kind = None if active is None else registry.find(active.type)
    return active if kind is not None and kind.syncs_products else None


def sync_job(*, product_id: str, connection_id: str) -> NewJob:
    """The job that brings one product to one connection."""
    return NewJob(name=SYNC_JOB, payload=f"{product_id}|{connection_id}".encode())


def read_sync_payload(payload: bytes) -> tuple[str, str]:
    """The ids of the product and of the connection that such a job is about."""
    product_id, connection_id = payload.decode().split("|")
    return product_id, connection_id


def _entry(action: str, product: Product, **details: JsonScalar) -> AuditEntry:
    return AuditEntry(
        action=action, entity_type="product", entity_id=product.id, details={"version": product.version, **details}
    )
