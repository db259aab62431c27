"""SQL for the lists about subscriptions. Every list walks an index, newest first."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.invoices.store import INVOICE_COLUMNS, Invoice, invoice_of_row
from ledger.subscriptions.change_store import ChangeKind, ChangeStatus
from ledger.subscriptions.store import SUBSCRIPTION_COLUMNS, AgreedPrice, Subscription, subscription_of_row
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

# More than this nobody reads in a select; what is beyond can still be named in a request.
CHOICES_MAX = 200


class SubscriptionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shall contain; None does not narrow it. `text` and `person_ids` together mean either.

    With `has_begun`, what is over without ever having been paid is left out.
    """

    status: str | None = None
    user_id: str | None = None
    text: str | None = None
    person_ids: Sequence[int] = ()
    has_begun: bool = False


class ListedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription as the lists show it; `provider` is the kind of provider that charges for it."""

    subscription: Subscription
    product_name: str
    provider: str


class ListedChange(msgspec.Struct, frozen=True, kw_only=True):
    """What was wanted of a subscription; `price` is there for a change of product only."""

    id: str
    kind: ChangeKind
    price: AgreedPrice | None
    status: ChangeStatus
    failure: str | None
    created_at: datetime


def _conditions(wanted: SubscriptionFilter, values: list[object]) -> str:
    """The `where` of a filter; the values are appended in the order of their placeholders."""

    def placed(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = ["true"]
    if wanted.has_begun:
        conditions.append("(s.status <> 'cancelled' or s.activated_at is not null)")
    if wanted.status is not None:
        conditions.append(f"s.status = {placed(wanted.status)}")
    if wanted.user_id is not None:
        conditions.append(f"s.person_id = (select id from person where lanyard_user_id = {placed(wanted.user_id)})")
    if wanted.text is not None:
        either = [
            "s.product_id = any(array(select id from product where strpos(lower(name), "
            f"lower({placed(wanted.text)})) > 0))",
            f"s.remote_id = {placed(wanted.text)}",
        ]
        if wanted.person_ids:
            either.append(f"s.person_id = any({placed(list(wanted.person_ids))}::bigint[])")
        conditions.append(f"({' or '.join(either)})")
    return " and ".join(conditions)


async def list_subscriptions(
    connection: Connection, *, wanted: SubscriptionFilter, after: Position | None, limit: int
) -> Page[ListedSubscription]:
    """Subscriptions that match, newest first."""
    values: list[object] = []
    matching = _conditions(wanted, values)
    found = await connection.fetchval(
        f"select count(*) from (select from subscription s where {matching} limit {COUNTED_MAX + 1}) counted", *values
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (s.created_at, s.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"""
        select {SUBSCRIPTION_COLUMNS}, p.name as product_name, c.type as provider
        from subscription s join product p on p.id = s.product_id join provider_connection c on c.id = s.connection_id
        where {matching} order by s.created_at desc, s.id desc limit ${len(values)}
        """,
        *values,
    )
    listed = [
        ListedSubscription(
            subscription=subscription_of_row(row), product_name=row["product_name"], provider=row["provider"]
        )
        for row in rows[:limit]
    ]
    total, is_more = counted(found)
    last = listed[-1].subscription if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=listed, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_booked_invoices(
    connection: Connection, *, subscription_id: str, after: Position | None, limit: int
) -> Page[Invoice]:
    """The invoices that a subscription's paid bills became, newest first."""
    found = await connection.fetchval(
        f"""
        select count(*) from (
            select from subscription_period where subscription_id = $1 limit {COUNTED_MAX + 1}
        ) counted
        """,
        subscription_id,
    )
    rows = await connection.fetch(
        f"""
        select {INVOICE_COLUMNS} from subscription_period sp join invoice i on i.id = sp.invoice_id
        where sp.subscription_id = $1 and ($2::timestamptz is null or (i.created_at, i.id) < ($2, $3::uuid))
        order by i.created_at desc, i.id desc limit $4
        """,
        subscription_id,
        after.at if after else None,
        after.id if after else None,
        limit + 1,
    )
    invoices = [invoice_of_row(row) for row in rows[:limit]]
    total, is_more = counted(found)
    last = invoices[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=invoices, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_changes(
    connection: Connection, *, subscription_id: str, after: Position | None, limit: int
) -> Page[ListedChange]:
    """What was wanted of a subscription, newest first."""
    found = await connection.fetchval(
        f"""
        select count(*) from (
            select from subscription_change where subscription_id = $1 limit {COUNTED_MAX + 1}
        ) counted
        """,
        subscription_id,
    )
    rows = await connection.fetch(
        """
        select c.id::text, c.kind, c.status, c.failure, c.created_at, c.price_id::text, p.id::text as product_id,
            p.name as product_name, pp.amount_minor, pp.currency, pp.interval
        from subscription_change c left join product_price pp on pp.id = c.price_id
            left join product p on p.id = pp.product_id
        where c.subscription_id = $1 and ($2::timestamptz is null or (c.created_at, c.id) < ($2, $3::uuid))
        order by c.created_at desc, c.id desc limit $4
        """,
        subscription_id,
        after.at if after else None,
        after.id if after else None,
        limit + 1,
    )
    changes = [
        ListedChange(
            id=row["id"],
            kind=row["kind"],
            price=None if row["price_id"] is None else _price(row),
            status=row["status"],
            failure=row["failure"],
            created_at=row["created_at"],
        )
        for row in rows[:limit]
    ]
    total, is_more = counted(found)
    last = changes[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=changes, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_choices(
    connection: Connection, *, person_id: int | None, currency: str | None, without_product_id: str | None
) -> Sequence[AgreedPrice]:
    """The recurring products on sale that a person has no live subscription of, by name, with their present prices.

    With a `currency` only what is charged in it; without a person, what everybody can have.
    """
    rows = await connection.fetch(
        f"""
        select pp.id::text as price_id, p.id::text as product_id, p.name as product_name, pp.amount_minor, pp.currency,
            pp.interval
        from product p join product_price pp on pp.product_id = p.id and pp.is_current
        where p.is_active and p.kind = 'recurring'
            and ($2::text is null or pp.currency = $2) and ($3::uuid is null or p.id <> $3)
            and not exists (
                select from subscription s where s.person_id = $1 and s.product_id = p.id and s.status <> 'cancelled'
            )
        order by lower(p.name), p.id limit {CHOICES_MAX}
        """,
        person_id,
        currency,
        without_product_id,
    )
    return [_price(row) for row in rows]


def _price(row: asyncpg.Record) -> AgreedPrice:
    return AgreedPrice(**{name: row[name] for name in AgreedPrice.__struct_fields__})
