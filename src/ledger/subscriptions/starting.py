"""Subscribes a person to a product: intent stored, provider asked outside any transaction, outcome stored.

A person has one live subscription of a product at most; whoever subscribes again before paying gets the same page.
"""

from datetime import timedelta

import msgspec

from ledger.database.transaction import AuditEntry, Database, NewJob, Tx
from ledger.errors import CapabilityMissing, Conflict, Unavailable
from ledger.identity import Person
from ledger.payments.looks import next_look
from ledger.products.rules import ProductKind
from ledger.products.store import Product, get_active_product
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import Capability, Checkout, Payer, ProviderRefused, ProviderUnreachable
from ledger.providers.store import find_remote_id, upsert_remote_id
from ledger.providers.subscription_contract import SubscriptionState, WantedSubscription
from ledger.settings import Settings
from ledger.subscriptions.rules import AlreadySubscribed, OnlyRecurringProducts, SubscriptionStatus
from ledger.subscriptions.settling import LOOK_JOB, apply_state, look_at_subscription
from ledger.subscriptions.store import (
    Subscription,
    find_live_subscription,
    insert_subscription,
    lock_subscription,
    update_subscription,
)
from ledger.subscriptions.taxes import keep_tax, wanted_tax
from ledger.web.idempotency import Claim, claim_resumable

# A page that closes in a minute is of no use to somebody who wants to pay now.
USABLE_FOR = timedelta(minutes=5)
# The longest that a provider leaves a page open.
PAGE_LASTS = timedelta(days=1)


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription and where it is paid; without a `url` it is started already."""

    subscription_id: str
    url: str | None


class _Prepared(msgspec.Struct, frozen=True, kw_only=True):
    subscription: Subscription
    connected: Connected
    wanted: WantedSubscription


class _Stale(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier wish that does not fit any more; its page has to be closed first."""

    subscription_id: str


async def subscribe(
    database: Database,
    connections: Connections,
    settings: Settings,
    *,
    person: Person,
    product_id: str,
    claim: Claim | None,
) -> Started:
    """Opens a page where a person can start a subscription, or starts it. Doing it twice has one effect.

    Raises `ProductNotOnSale`, `OnlyRecurringProducts`, `AlreadySubscribed`, `CapabilityMissing`, `ProviderRefused`,
    `ProviderUnreachable`, `OutcomeUnknown` (then it stays `incomplete` and is settled by the reconciler), `Conflict`,
    `Replay`, `IdempotencyKeyReused`.
    """
    if claim is not None:
        async with database.transaction_of(person) as tx:
            await claim_resumable(tx.connection, actor=tx.actor, claim=claim, now=tx.now)
    prepared = await _prepare(database, connections, settings, person=person, product_id=product_id)
    if isinstance(prepared, _Stale):
        try:
            await look_at_subscription(database, connections, subscription_id=prepared.subscription_id)
        except ProviderRefused:
            # Its account may not be open to Ledger any more; that must not keep anybody from another one for ever.
            if not await _abandon(database, subscription_id=prepared.subscription_id):
                raise
        prepared = await _prepare(database, connections, settings, person=person, product_id=product_id)
    if isinstance(prepared, _Stale):
        raise Conflict("An earlier payment page is still being closed; try again in a minute", retry_after_s=60)
    if isinstance(prepared, Started):
        return prepared
    try:
        started = await prepared.connected.provider.start_subscription(prepared.wanted)
    except (ProviderRefused, ProviderUnreachable):
        # Nothing happened there; the next attempt starts afresh.
        await _give_up(database, prepared)
        raise
    async with database.transaction_of(person) as tx:
        kept = await _keep(tx, prepared, started)
    if isinstance(kept, Conflict):
        raise kept
    return kept


async def _prepare(
    database: Database, connections: Connections, settings: Settings, *, person: Person, product_id: str
) -> _Prepared | _Stale | Started:
    async with database.transaction_of(person) as tx:
        product = await get_active_product(tx.connection, product_id=product_id)
        if product.draft.kind is not ProductKind.RECURRING:
            raise OnlyRecurringProducts
        connected = await connections.get_active(tx.connection, capability=Capability.SUBSCRIPTIONS)
        if settings.dashboard_url is None:
            raise CapabilityMissing(
                "Online payment is not set up completely; please tell the people who manage billing"
            )
        person_id = tx.actor.person_id
        assert person_id is not None, "a person's transaction has their row"
        live = await find_live_subscription(tx.connection, person_id=person_id, product_id=product.id)
        if live is None:
            price_remote_id = await _price_remote_id(tx, connected, product)
            live = await _wish(tx, connected, product, person_id=person_id)
        else:
            live = await lock_subscription(tx.connection, subscription_id=live.id)
            answer = await _of_earlier(tx, connected, product, live)
            if answer is not None:
                return answer
            price_remote_id = await _price_remote_id(tx, connected, product)
        return _Prepared(
            subscription=live,
            connected=connected,
            wanted=await _wanted(tx, connected, settings, product, live, price_remote_id=price_remote_id),
        )


async def _of_earlier(tx: Tx, connected: Connected, product: Product, live: Subscription) -> Started | _Stale | None:
    """What an earlier wish means for this one; None when the provider is to be asked for the same once more."""
    if live.status is not SubscriptionStatus.INCOMPLETE:
        raise AlreadySubscribed("You are subscribed to this product already; see My Subscriptions")
    fits = live.connection_id == connected.stored.id and live.price_id == product.price_id and not live.is_unwanted
    lasts = live.checkout_expires_at is None or live.checkout_expires_at > tx.now + USABLE_FOR
    if live.remote_id is not None:
        # The page was used, and the money is on its way, or the bank said no.
        raise AlreadySubscribed(
            "Your first payment for this product has not arrived yet; a bank debit takes some days. "
            "If it failed, discard the subscription in My Subscriptions and subscribe again"
        )
    if not (fits and lasts):
        unwanted = msgspec.structs.replace(live, is_unwanted=True, next_look_at=tx.now)
        await update_subscription(tx.connection, subscription=unwanted)
        return _Stale(subscription_id=live.id)
    return None if live.checkout_url is None else Started(subscription_id=live.id, url=live.checkout_url)


async def _price_remote_id(tx: Tx, connected: Connected, product: Product) -> str:
    remote_id = await find_remote_id(
        tx.connection, connection_id=connected.stored.id, kind="price", local_id=product.price_id
    )
    if remote_id is None:
        # Bringing products to the provider is a job; `products.sweep` takes it up each minute.
        raise Unavailable(
            "This product is just being made known to the payment provider; try again in a minute", retry_after_s=60
        )
    return remote_id


async def _wish(tx: Tx, connected: Connected, product: Product, *, person_id: int) -> Subscription:
    first_look_at = next_look(now=tx.now, looks=0)
    wish = Subscription(
        id=tx.ids.new(),
        person_id=person_id,
        product_id=product.id,
        price_id=product.price_id,
        connection_id=connected.stored.id,
        status=SubscriptionStatus.INCOMPLETE,
        cancels_at_period_end=False,
        remote_id=None,
        checkout_remote_id=None,
        checkout_url=None,
        checkout_expires_at=None,
        is_unwanted=False,
        period_start=None,
        period_end=None,
        activated_at=None,
        cancelled_at=None,
        problem=None,
        version=1,
        created_at=tx.now,
        next_look_at=first_look_at,
        looks=0,
    )
    if not await insert_subscription(tx.connection, subscription=wish):
        # An equal request was faster by a moment; its page is the one to pay at.
        live = await find_live_subscription(tx.connection, person_id=person_id, product_id=product.id)
        if live is None or live.status is not SubscriptionStatus.INCOMPLETE:
            raise Conflict("This was just done by another request; look at My Subscriptions", retry_after_s=1)
        return live
    details = {"product": product.id, "price": product.price_id}
    tx.audit(AuditEntry(action="subscription.created", entity_type="subscription", entity_id=wish.id, details=details))
    tx.defer(NewJob(name=LOOK_JOB, payload=wish.id.encode(), delay=first_look_at - tx.now))
    return wish


async def _wanted(
    tx: Tx,
    connected: Connected,
    settings: Settings,
    product: Product,
    live: Subscription,
    *,
    price_remote_id: str,
) -> WantedSubscription:
    """What the provider is asked for: the same words for the same intent, so that asking again has one effect."""
    assert live.person_id is not None
    back_url = f"{settings.dashboard_url}/{settings.slug}/my/subscriptions/{live.id}"
    return WantedSubscription(
        intent_id=live.id,
        price_remote_id=price_remote_id,
        tax=await wanted_tax(tx, connected, tax_rate_bp=product.draft.tax_rate_bp),
        payer=Payer(
            person_id=live.person_id,
            remote_id=await find_remote_id(
                tx.connection, connection_id=connected.stored.id, kind="customer", local_id=str(live.person_id)
            ),
        ),
        success_url=f"{back_url}?paid=1",
        cancel_url=back_url,
    )


async def _abandon(database: Database, *, subscription_id: str) -> bool:
    """Gives up a wish that cannot be asked about, once nobody can pay at its page any more; returns whether it did."""
    async with database.transaction_by(kind="system", name=LOOK_JOB) as tx:
        before = await lock_subscription(tx.connection, subscription_id=subscription_id)
        closed_at = before.checkout_expires_at or before.created_at + PAGE_LASTS
        if before.status is not SubscriptionStatus.INCOMPLETE or before.remote_id is not None or closed_at > tx.now:
            return False
        # Should it have been paid all the same, an event tells, and the subscription is taken up again.
        await apply_state(tx, before, SubscriptionState(status="cancelled"))
    return True


async def _give_up(database: Database, prepared: _Prepared) -> None:
    async with database.transaction_by(kind="provider", name=prepared.connected.type.name) as tx:
        before = await lock_subscription(tx.connection, subscription_id=prepared.subscription.id)
        # A twin of this request may have opened the page meanwhile; then that counts.
        if before.version == prepared.subscription.version and before.checkout_remote_id is None:
            await apply_state(tx, before, SubscriptionState(status="unknown"))


async def _keep(tx: Tx, prepared: _Prepared, started: Checkout | SubscriptionState) -> Started | Conflict:
    """Stores what the provider started. Returns the refusal when nobody shall pay there any more; it is closed then."""
    before = await lock_subscription(tx.connection, subscription_id=prepared.subscription.id)
    connection_id = before.connection_id
    await keep_tax(tx, connection_id=connection_id, tax=prepared.wanted.tax, remote_id=started.tax_remote_id)
    if started.customer_remote_id is not None:
        await upsert_remote_id(
            tx.connection,
            connection_id=connection_id,
            kind="customer",
            local_id=str(prepared.wanted.payer.person_id),
            remote_id=started.customer_remote_id,
            now=tx.now,
        )
    if isinstance(started, SubscriptionState):
        after = await apply_state(tx, before, started)
        if after.status is SubscriptionStatus.CANCELLED:
            return Conflict("The payment page for this was closed meanwhile; subscribe once more", retry_after_s=1)
        return Started(subscription_id=before.id, url=None)
    if before.status is SubscriptionStatus.INCOMPLETE:
        state = SubscriptionState(status="incomplete", checkout=started)
        opened = before if before.checkout_url is not None else await apply_state(tx, before, state)
        if not opened.is_unwanted:
            return Started(subscription_id=opened.id, url=started.url)
    # It was given up meanwhile, or is paid already: the look closes the page, or books what came.
    closing = msgspec.structs.replace(
        before,
        is_unwanted=True,
        checkout_remote_id=started.remote_id,
        next_look_at=tx.now,
        # Who asked before this page was known must ask again.
        version=before.version + 1,
    )
    await update_subscription(tx.connection, subscription=closing)
    tx.defer(NewJob(name=LOOK_JOB, payload=before.id.encode()))
    return Conflict("This subscription was changed at the same time; look at My Subscriptions", retry_after_s=1)
