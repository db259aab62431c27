"""Brings products to the provider that keeps products of its own: claim, ask outside any transaction, store.

Of one product and connection only one process asks at a time: two that ask for different versions at once could make
the product twice.
"""

from datetime import timedelta

import msgspec
import structlog

from ledger.database.transaction import Actor, Database, NewJob, Tx
from ledger.errors import LedgerError
from ledger.payments.looks import next_look
from ledger.products.actions import QUEUED_AT_ONCE, SYNC_JOB, request_all_syncs, sync_job
from ledger.products.rules import SyncState
from ledger.products.store import Product, find_product, lock_product
from ledger.products.sync_store import (
    ProductSync,
    get_remote_prices,
    insert_sync,
    list_due_syncs,
    lock_sync,
    update_sync,
    upsert_remote_names,
)
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import (
    OutcomeUnknown,
    ProviderRefused,
    ProviderUnreachable,
    SyncedProduct,
    WantedProduct,
)
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import get_connection

log = structlog.get_logger("ledger.products")

# A provider answers within 8 s; who is silent for longer than this is dead.
CLAIMED_FOR = timedelta(seconds=30)
_ACTOR = Actor(kind="system", name=SYNC_JOB)


class _Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The right to ask the provider, and what to ask it."""

    sync: ProductSync
    version: int
    wanted: WantedProduct
    connected: Connected


async def sync_product(
    database: Database, connections: Connections, *, product_id: str, connection_id: str
) -> SyncState | None:
    """Brings one product to one connection; returns how it stands then, or None when there was nothing to do.

    Nothing is to be done for a connection that is not active, for one that has this version, while somebody else is
    asking, and before the time of the next try has come. What goes wrong at the provider is stored on the product, and
    tried again with growing distance.
    """
    async with database.transaction(_ACTOR) as tx:
        claimed = await _claim(tx, connections, product_id=product_id, connection_id=connection_id)
    if claimed is None:
        return None
    outcome: SyncedProduct | LedgerError
    try:
        outcome = await claimed.connected.provider.sync_product(claimed.wanted)
    except (ProviderRefused, ProviderUnreachable, OutcomeUnknown) as error:
        outcome = error
        log.warning("product not synchronised", product=product_id, provider=connection_id, reason=error.sentence)
    async with database.transaction(_ACTOR) as tx:
        return await _store(tx, claimed, outcome)


async def _claim(tx: Tx, connections: Connections, *, product_id: str, connection_id: str) -> _Claimed | None:
    product = await find_product(tx.connection, product_id=product_id)
    if product is None:
        return None
    stored = await get_connection(tx.connection, connection_id=connection_id)
    kind = connections.registry.find(stored.type)
    if not stored.is_active or kind is None or not kind.syncs_products:
        return None
    await insert_sync(tx.connection, product_id=product.id, connection_id=stored.id, now=tx.now)
    before = await lock_sync(tx.connection, product_id=product.id, connection_id=stored.id)
    has_it = before.state is SyncState.SYNCED and before.synced_version == product.version
    is_claimed = before.claimed_until is not None and before.claimed_until > tx.now
    # Two jobs about one product must not be two tries in a row.
    has_to_wait = before.attempts > 0 and before.next_try_at is not None and before.next_try_at > tx.now
    if has_it or is_claimed or has_to_wait:
        return None
    sync = msgspec.structs.replace(
        before,
        state=SyncState.PENDING if before.state is SyncState.SYNCED else before.state,
        attempts=before.attempts + 1,
        # Also for the case that nobody lives to store an outcome.
        next_try_at=next_look(now=tx.now, looks=before.attempts),
        claimed_until=tx.now + CLAIMED_FOR,
        updated_at=tx.now,
    )
    await update_sync(tx.connection, sync=sync)
    return _Claimed(
        sync=sync,
        version=product.version,
        wanted=await _wanted_product(tx, product, connection_id=stored.id),
        connected=connections.connect(stored),
    )


async def _wanted_product(tx: Tx, product: Product, *, connection_id: str) -> WantedProduct:
    names = await get_remote_prices(
        tx.connection, product_id=product.id, connection_id=connection_id, price_id=product.price_id
    )
    terms = product.draft.terms
    return WantedProduct(
        intent_id=f"{product.id}:{product.version}",
        product_id=product.id,
        price_id=product.price_id,
        name=product.draft.name,
        description=product.draft.description,
        amount_minor=terms.amount_minor,
        currency=terms.currency,
        interval=None if terms.interval is None else terms.interval.value,
        is_active=product.is_active,
        product_remote_id=names.product_remote_id,
        price_remote_id=names.price_remote_id,
        old_price_remote_ids=tuple(names.old_price_remote_ids),
    )


async def _store(tx: Tx, claimed: _Claimed, outcome: SyncedProduct | LedgerError) -> SyncState:
    """Stores the outcome. A product that changed meanwhile, or is to be brought there anew, goes round again."""
    # The product first, as every change has it: who changes it now waits, or is seen here.
    product = await lock_product(tx.connection, product_id=claimed.wanted.product_id)
    before = await lock_sync(
        tx.connection, product_id=claimed.sync.product_id, connection_id=claimed.sync.connection_id
    )
    if before.claimed_until != claimed.sync.claimed_until:
        # This took so long that somebody else took over; what is true now is theirs to say.
        return before.state
    after = msgspec.structs.replace(before, claimed_until=None, updated_at=tx.now)
    if isinstance(outcome, SyncedProduct):
        await upsert_remote_names(
            tx.connection,
            connection_id=before.connection_id,
            product_id=before.product_id,
            price_id=claimed.wanted.price_id,
            synced=outcome,
            archived_remote_ids=claimed.wanted.old_price_remote_ids,
            now=tx.now,
        )
        after = msgspec.structs.replace(
            after, state=SyncState.SYNCED, synced_version=claimed.version, error=None, attempts=0, next_try_at=None
        )
    else:
        wait = timedelta(seconds=outcome.retry_after_s or 0)
        state = SyncState.FAILED if isinstance(outcome, ProviderRefused) else SyncState.PENDING
        next_try_at = max(claimed.sync.next_try_at or tx.now, tx.now + wait)
        after = msgspec.structs.replace(after, state=state, error=outcome.sentence, next_try_at=next_try_at)
    # Whoever wants it brought there anew sets the attempts back.
    if product.version != claimed.version or before.attempts != claimed.sync.attempts:
        after = msgspec.structs.replace(after, state=SyncState.PENDING, error=None, attempts=0, next_try_at=tx.now)
        tx.defer(sync_job(product_id=before.product_id, connection_id=before.connection_id))
    await update_sync(tx.connection, sync=after)
    return after.state


async def sync_all_products(database: Database, registry: ProviderRegistry, *, connection_id: str) -> int:
    """Leaves jobs that bring all products to a connection that became active or got other settings; returns how many.

    Nothing is to be done for one that keeps no products, or stepped back again.
    """
    async with database.transaction(_ACTOR) as tx:
        stored = await get_connection(tx.connection, connection_id=connection_id)
        kind = registry.find(stored.type)
        if not stored.is_active or kind is None or not kind.syncs_products:
            return 0
        return await request_all_syncs(tx, connection_id=stored.id)


async def queue_due_syncs(database: Database, registry: ProviderRegistry) -> int:
    """Leaves a job for each product whose time to be brought to the active provider has come; returns how many.

    It runs every minute, and so finds what a killed worker left behind. One that still waits in the queue is not
    queued again.
    """
    types = [kind.name for kind in registry.all() if kind.syncs_products]
    async with database.transaction(_ACTOR) as tx:
        due = await list_due_syncs(tx.connection, types=types, now=tx.now, limit=QUEUED_AT_ONCE)
        for each in due:
            job = sync_job(product_id=each.product_id, connection_id=each.connection_id)
            tx.defer(NewJob(name=job.name, payload=job.payload, dedupe_key=f"{job.name}|{job.payload.decode()}"))
    return len(due)
