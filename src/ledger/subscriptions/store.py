"""SQL for subscriptions."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.subscriptions.rules import SubscriptionStatus


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as it is stored. `version` counts up with every state that a provider's word brought.

    `activated_at` is when the provider first said that it is paid; one that is over and has none never began.
    """

    id: str
    person_id: int | None
    product_id: str
    price_id: str
    connection_id: str
    status: SubscriptionStatus
    cancels_at_period_end: bool
    remote_id: str | None
    checkout_remote_id: str | None
    checkout_url: str | None
    checkout_expires_at: datetime | None
    is_unwanted: bool
    period_start: datetime | None
    period_end: datetime | None
    activated_at: datetime | None
    cancelled_at: datetime | None
    problem: str | None
    version: int
    created_at: datetime
    next_look_at: datetime | None
    looks: int


class AgreedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """A price that a product has or had, in minor units per interval."""

    price_id: str
    product_id: str
    product_name: str
    amount_minor: int
    currency: str
    interval: str | None


SUBSCRIPTION_COLUMNS = (
    "s.id::text, s.person_id, s.product_id::text, s.price_id::text, s.connection_id::text, s.status, "
    "s.cancels_at_period_end, s.remote_id, s.checkout_remote_id, s.checkout_url, s.checkout_expires_at, s.is_unwanted, "
    "s.period_start, s.period_end, s.activated_at, s.cancelled_at, s.problem, s.version, s.created_at, "
    "s.next_look_at, s.looks"
)
_FIELDS = Subscription.__struct_fields__


def subscription_of_row(row: asyncpg.Record) -> Subscription:
    """A subscription from a row that has `SUBSCRIPTION_COLUMNS`."""
    values = {name: row[name] for name in _FIELDS}
    return Subscription(**{**values, "status": SubscriptionStatus(row["status"])})


async def insert_subscription(connection: Connection, *, subscription: Subscription) -> bool:
    """Stores a subscription; returns False when the person has a live one of this product."""
    values = msgspec.structs.astuple(subscription)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    status = await connection.execute(
        f"""
        insert into subscription ({", ".join(_FIELDS)}) values ({places})
        on conflict (person_id, product_id) where status <> 'cancelled' do nothing
        """,
        *values,
    )
    return status == "INSERT 0 1"


async def get_subscription(connection: Connection, *, subscription_id: str) -> Subscription:
    """A subscription. Raises `NotFound`."""
    found = await find_subscription(connection, subscription_id=subscription_id)
    if found is None:
        raise NotFound("Subscription")
    return found


async def find_subscription(connection: Connection, *, subscription_id: str) -> Subscription | None:
    """A subscription, or None."""
    row = await connection.fetchrow(
        f"select {SUBSCRIPTION_COLUMNS} from subscription s where s.id = $1", subscription_id
    )
    return None if row is None else subscription_of_row(row)


async def get_subscription_of(connection: Connection, *, subscription_id: str, user_id: str) -> Subscription:
    """A person's own subscription. Raises `NotFound`, for somebody else's as well."""
    row = await connection.fetchrow(
        f"""
        select {SUBSCRIPTION_COLUMNS} from subscription s join person p on p.id = s.person_id
        where s.id = $1 and p.lanyard_user_id = $2
        """,
        subscription_id,
        user_id,
    )
    if row is None:
        raise NotFound("Subscription")
    return subscription_of_row(row)


async def lock_subscription(connection: Connection, *, subscription_id: str) -> Subscription:
    """A subscription that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {SUBSCRIPTION_COLUMNS} from subscription s where s.id = $1 for no key update", subscription_id
    )
    if row is None:
        raise NotFound("Subscription")
    return subscription_of_row(row)


async def find_live_subscription(connection: Connection, *, person_id: int, product_id: str) -> Subscription | None:
    """A person's subscription of a product that is not over; there is at most one (a unique index sees to it)."""
    row = await connection.fetchrow(
        f"""
        select {SUBSCRIPTION_COLUMNS} from subscription s
        where s.person_id = $1 and s.product_id = $2 and s.status <> 'cancelled'
        """,
        person_id,
        product_id,
    )
    return None if row is None else subscription_of_row(row)


async def find_subscription_by_remote_id(
    connection: Connection, *, connection_id: str, remote_id: str
) -> Subscription | None:
    """The subscription the provider knows by this name, or None.

    It may belong to another connection to the same account, whose events come to both.
    """
    row = await connection.fetchrow(
        f"""
        select {SUBSCRIPTION_COLUMNS} from subscription s where s.remote_id = $2
        order by s.connection_id = $1 desc limit 1
        """,
        connection_id,
        remote_id,
    )
    return None if row is None else subscription_of_row(row)


async def update_subscription(connection: Connection, *, subscription: Subscription) -> None:
    """Stores what became of a subscription; whose it is and who charges for it does not change."""
    await connection.execute(
        """
        update subscription set product_id = $2, price_id = $3, status = $4, cancels_at_period_end = $5,
            remote_id = $6, checkout_remote_id = $7, checkout_url = $8, checkout_expires_at = $9, is_unwanted = $10,
            period_start = $11, period_end = $12, activated_at = $13, cancelled_at = $14, problem = $15,
            version = $16, next_look_at = $17, looks = $18
        where id = $1
        """,
        subscription.id,
        subscription.product_id,
        subscription.price_id,
        subscription.status.value,
        subscription.cancels_at_period_end,
        subscription.remote_id,
        subscription.checkout_remote_id,
        subscription.checkout_url,
        subscription.checkout_expires_at,
        subscription.is_unwanted,
        subscription.period_start,
        subscription.period_end,
        subscription.activated_at,
        subscription.cancelled_at,
        subscription.problem,
        subscription.version,
        subscription.next_look_at,
        subscription.looks,
    )


async def list_due_subscription_ids(connection: Connection, *, now: datetime, limit: int) -> Sequence[str]:
    """The subscriptions the provider has to be asked about now, the longest due first."""
    rows = await connection.fetch(
        "select id::text from subscription where next_look_at <= $1 order by next_look_at limit $2", now, limit
    )
    return [row["id"] for row in rows]


async def list_reconciled_subscription_ids(
    connection: Connection, *, ended_since: datetime, after: str | None, limit: int
) -> Sequence[str]:
    """The subscriptions that are not over, or not for long, in the order of their ids, after one of them."""
    rows = await connection.fetch(
        """
        select id::text from subscription
        where (status <> 'cancelled' or cancelled_at >= $1) and ($2::uuid is null or id > $2) order by id limit $3
        """,
        ended_since,
        after,
        limit,
    )
    return [row["id"] for row in rows]


async def get_agreed_price(connection: Connection, *, price_id: str) -> AgreedPrice:
    """A price with its product. Raises `NotFound`."""
    row = await connection.fetchrow(
        """
        select pp.id::text as price_id, p.id::text as product_id, p.name as product_name, pp.amount_minor, pp.currency,
            pp.interval
        from product_price pp join product p on p.id = pp.product_id where pp.id = $1
        """,
        price_id,
    )
    if row is None:
        raise NotFound("Price")
    return AgreedPrice(**dict(row))


async def find_price_by_remote_id(connection: Connection, *, connection_id: str, remote_id: str) -> AgreedPrice | None:
    """The price that a provider knows by this name, or None when it is none of ours."""
    price_id: str | None = await connection.fetchval(
        "select local_id from provider_mapping where connection_id = $1 and kind = 'price' and remote_id = $2",
        connection_id,
        remote_id,
    )
    return None if price_id is None else await get_agreed_price(connection, price_id=price_id)
