"""SQL for products and their prices."""

from collections.abc import Collection
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.errors import LedgerError, NotFound
from ledger.ids import is_id
from ledger.products.rules import Interval, ProductDraft, ProductKind, SyncState, Terms
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor


class ProductNotOnSale(NotFound):
    """There is no such product, or nobody can buy it any more."""

    def __init__(self) -> None:
        LedgerError.__init__(self, "Product not found or inactive")


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A product with its present price. `version` counts up with every change."""

    id: str
    draft: ProductDraft
    price_id: str
    is_active: bool
    version: int
    created_at: datetime


class ProductForLine(msgspec.Struct, frozen=True, kw_only=True):
    """What an invoice line needs to know of its product; without a rate of its own the configured one counts."""

    id: str
    is_active: bool
    tax_rate_bp: int | None


class ListedSync(msgspec.Struct, frozen=True, kw_only=True):
    """How far a provider has a listed product."""

    state: SyncState
    error: str | None


class ListedProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product as the list shows it; without a row about the provider, `sync` is None."""

    product: Product
    sync: ListedSync | None


class ProductFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shall contain; None does not narrow it."""

    is_active: bool | None = None
    kind: str | None = None


_COLUMNS = (
    "p.id::text, p.name, p.description, p.kind, p.tax_rate_bp, p.prorate_on_change, p.is_active, p.version, "
    "p.created_at, pp.id::text as price_id, pp.amount_minor, pp.currency, pp.interval"
)
_FROM = "product p join product_price pp on pp.product_id = p.id and pp.is_current"


def _read(row: asyncpg.Record) -> Product:
    return Product(
        id=row["id"],
        draft=ProductDraft(
            name=row["name"],
            description=row["description"],
            kind=ProductKind(row["kind"]),
            tax_rate_bp=row["tax_rate_bp"],
            prorate_on_change=row["prorate_on_change"],
            terms=Terms(
                amount_minor=row["amount_minor"],
                currency=row["currency"],
                interval=None if row["interval"] is None else Interval(row["interval"]),
            ),
        ),
        price_id=row["price_id"],
        is_active=row["is_active"],
        version=row["version"],
        created_at=row["created_at"],
    )


async def insert_product(connection: Connection, *, product: Product) -> None:
    """Stores a new product with its first price."""
    draft = product.draft
    await connection.execute(
        """
        insert into product (id, name, description, kind, tax_rate_bp, prorate_on_change, is_active, version,
            created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
        """,
        product.id,
        draft.name,
        draft.description,
        draft.kind.value,
        draft.tax_rate_bp,
        draft.prorate_on_change,
        product.is_active,
        product.version,
        product.created_at,
    )
    await _insert_price(connection, product=product, now=product.created_at)


async def _insert_price(connection: Connection, *, product: Product, now: datetime) -> None:
    terms = product.draft.terms
    await connection.execute(
        """
        insert into product_price (id, product_id, amount_minor, currency, interval, is_current, created_at)
        values ($1, $2, $3, $4, $5, true, $6)
        """,
        product.price_id,
        product.id,
        terms.amount_minor,
        terms.currency,
        terms.interval,
        now,
    )


async def update_product(connection: Connection, *, product: Product, now: datetime) -> None:
    """Stores everything about a locked product but its price."""
    draft = product.draft
    await connection.execute(
        """
        update product set name = $2, description = $3, tax_rate_bp = $4, prorate_on_change = $5, is_active = $6,
            version = $7, updated_at = $8
        where id = $1
        """,
        product.id,
        draft.name,
        draft.description,
        draft.tax_rate_bp,
        draft.prorate_on_change,
        product.is_active,
        product.version,
        now,
    )


async def replace_price(connection: Connection, *, product: Product, now: datetime) -> None:
    """Stores a locked product's price as its present one. The one before stays, for what was sold at it."""
    await connection.execute(
        "update product_price set is_current = false where product_id = $1 and is_current", product.id
    )
    await _insert_price(connection, product=product, now=now)


async def find_product(connection: Connection, *, product_id: str) -> Product | None:
    """A product, or None."""
    row = await connection.fetchrow(f"select {_COLUMNS} from {_FROM} where p.id = $1", product_id)
    return None if row is None else _read(row)


async def get_product(connection: Connection, *, product_id: str) -> Product:
    """A product, on sale or not. Raises `NotFound`."""
    product = await find_product(connection, product_id=product_id)
    if product is None:
        raise NotFound("Product")
    return product


async def get_active_product(connection: Connection, *, product_id: str) -> Product:
    """A product somebody can buy now. Raises `ProductNotOnSale`, for anything that is no id as well."""
    product = await find_product(connection, product_id=product_id) if is_id(product_id) else None
    if product is None or not product.is_active:
        raise ProductNotOnSale
    return product


async def lock_product(connection: Connection, *, product_id: str) -> Product:
    """A product that nobody else changes until the transaction ends. Raises `NotFound`."""
    await connection.execute("select from product where id = $1 for no key update", product_id)
    # Read by a statement of its own: one that waited for the lock would still see the price from before.
    return await get_product(connection, product_id=product_id)


async def find_products(connection: Connection, *, product_ids: Collection[str]) -> dict[str, ProductForLine]:
    """What invoice lines need to know of these products, by their ids in lower case; unknown ones are missing.

    One that is no longer on sale is found, too: services may bill what was ordered before.
    """
    wanted = sorted({each.lower() for each in product_ids if is_id(each)})
    if not wanted:
        return {}
    rows = await connection.fetch(
        "select id::text, is_active, tax_rate_bp from product where id = any($1::uuid[])", wanted
    )
    return {row["id"]: ProductForLine(**dict(row)) for row in rows}


def _conditions(wanted: ProductFilter, values: list[object]) -> str:
    """The `where` of a filter; the values are appended in the order of their placeholders."""
    conditions = ["true"]
    if wanted.is_active is not None:
        values.append(wanted.is_active)
        conditions.append(f"p.is_active = ${len(values)}")
    if wanted.kind is not None:
        values.append(wanted.kind)
        conditions.append(f"p.kind = ${len(values)}")
    return " and ".join(conditions)


async def list_products(
    connection: Connection, *, wanted: ProductFilter, connection_id: str | None, after: Position | None, limit: int
) -> Page[ListedProduct]:
    """Products that match, newest first, each with how far the provider's connection has it."""
    values: list[object] = []
    matching = _conditions(wanted, values)
    found = await connection.fetchval(
        f"select count(*) from (select from product p where {matching} limit {COUNTED_MAX + 1}) counted", *values
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (p.created_at, p.id) < (${len(values) - 1}, ${len(values)})"
    values += [connection_id, limit + 1]
    rows = await connection.fetch(
        f"""
        select {_COLUMNS}, s.state, s.error
        from {_FROM} left join product_sync s on s.product_id = p.id and s.connection_id = ${len(values) - 1}
        where {matching} order by p.created_at desc, p.id desc limit ${len(values)}
        """,
        *values,
    )
    listed = [
        ListedProduct(
            product=_read(row),
            sync=None if row["state"] is None else ListedSync(state=SyncState(row["state"]), error=row["error"]),
        )
        for row in rows[:limit]
    ]
    total, is_more = counted(found)
    last = listed[-1].product if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=listed, total=total, total_is_more=is_more, next_cursor=cursor)
