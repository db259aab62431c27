"""`/api/products`: staff says what can be sold, and at which price."""

from typing import Annotated, Literal

from msgspec import Meta

from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Tx
from ledger.money import UNIT_PRICE_MAX
from ledger.products.actions import change_product, create_product, find_syncing_connection, toggle_product
from ledger.products.rules import (
    DESCRIPTION_MAX,
    NAME_MAX,
    NO_INTERVAL,
    REQUIRED_SENTENCE,
    TAX_RATE_BP_MAX,
    Interval,
    ProductKind,
    ProductWish,
)
from ledger.products.store import ProductFilter, get_product, list_products
from ledger.products.sync_store import find_sync
from ledger.products.views import (
    edit_product_fields,
    new_product_fields,
    product_columns,
    product_fields,
    product_row,
    sync_field,
    toggle_action,
)
from ledger.providers.connections import Connections
from ledger.providers.registry import ProviderRegistry
from ledger.web.bodies import LINE_PATTERN, Body, Currency, NoBody
from ledger.web.call import BodyT, Call, NoQuery, QueryT
from ledger.web.operation import STAFF, reads, writes
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Actions, Created, Detail, Done, Form, Table

# The limits are for the API's document: what does not fit is refused by the rules, in better words.
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=LINE_PATTERN)]
Price = (
    Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": UNIT_PRICE_MAX})]
    | Annotated[str, Meta(extra_json_schema={"pattern": "^[0-9]{1,11}$"})]
)
Description = Annotated[str, Meta(max_length=DESCRIPTION_MAX)]
TaxRate = (
    Annotated[int, Meta(extra_json_schema={"minimum": 0, "maximum": TAX_RATE_BP_MAX})]
    | Annotated[str, Meta(extra_json_schema={"pattern": "^([0-9]{1,5}|-)?$"})]
)
IntervalText = Annotated[str, Meta(extra_json_schema={"enum": [*Interval, NO_INTERVAL, ""]})]
Kind = Literal["one-time", "recurring"]


class NewProduct(Body, frozen=True, kw_only=True):
    """A product, with its price in minor units. A recurring one has an interval, a one-time one has none."""

    missing_sentence = REQUIRED_SENTENCE

    name: Name
    price: Price
    type: Kind
    description: Description | None = None
    currency: Currency | None = None
    interval: IntervalText | None = None
    prorate_on_change: bool | None = None
    tax_rate: TaxRate | None = None


class ProductChange(Body, frozen=True, kw_only=True):
    """What can be changed; what is left out stays. The description and the tax rate are removed by `-`."""

    name: Name | None = None
    price: Price | None = None
    type: Kind | None = None
    description: Description | None = None
    currency: Currency | None = None
    interval: IntervalText | None = None
    prorate_on_change: bool | None = None
    tax_rate: TaxRate | None = None


class ProductQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the product list."""

    status: Literal["active", "inactive"] | None = None
    type: Kind | None = None


def _registry(call: Call[BodyT, QueryT]) -> ProviderRegistry:
    return call.services.get(Connections).registry


def _wish(body: NewProduct | ProductChange) -> ProductWish:
    return ProductWish(
        name=body.name,
        price=body.price,
        kind=None if body.type is None else ProductKind(body.type),
        description=body.description,
        # Plain text from here on, as it is stored and written.
        currency=None if body.currency is None else str(body.currency),
        interval=body.interval,
        prorate_on_change=body.prorate_on_change,
        tax_rate=body.tax_rate,
    )


@reads(
    "/api/products",
    "List the products",
    callers=STAFF,
    answer=Table,
    query=ProductQuery,
    errors=(400,),
    description="While the active provider keeps products of its own, rows carry how far it has each (`sync`).",
)
async def list_all_products(call: Call[NoBody, ProductQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        active = await find_syncing_connection(connection, registry=_registry(call))
        page = await list_products(
            connection,
            wanted=ProductFilter(is_active=None if query.status is None else query.status == "active", kind=query.type),
            connection_id=None if active is None else active.id,
            after=read_cursor(query.cursor),
            limit=query.limit,
        )
    return Table(
        columns=product_columns(page.rows),
        rows=[product_row(listed) for listed in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/products/form", "The form that adds a product", callers=STAFF, answer=Form)
async def new_product_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
    return Form(fields=new_product_fields(default_currency=settings.default_currency))


@writes(
    "POST",
    "/api/products",
    "Add a product",
    callers=STAFF,
    body=NewProduct,
    answer=Created,
    status=201,
    is_form=True,
    errors=(400, 409, 422),
    description="It is on sale at once. Without a `currency` it has the configured one, without a `taxRate` the "
    "configured rate counts.",
)
async def add_product(call: Call[NewProduct, NoQuery], tx: Tx) -> Created:
    product = await create_product(tx, registry=_registry(call), wish=_wish(call.body))
    return Created(id=product.id, redirect=f"/{call.services.settings.slug}/products/{product.id}")


@reads("/api/products/{id}", "Show a product", callers=STAFF, answer=Detail, errors=(404,))
async def show_product(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        product = await get_product(connection, product_id=call.id_of("Product"))
        active = await find_syncing_connection(connection, registry=_registry(call))
        fields = product_fields(product)
        if active is not None:
            sync = await find_sync(connection, product_id=product.id, connection_id=active.id)
            fields.append(sync_field(sync, provider_name=active.name, now=call.services.clock.now()))
    return Detail(fields=fields)


@reads("/api/products/{id}/form", "A product as a form with true values", callers=STAFF, answer=Form, errors=(404,))
async def product_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        product = await get_product(connection, product_id=call.id_of("Product"))
    return Form(fields=edit_product_fields(product))


@writes(
    "PUT",
    "/api/products/{id}",
    "Change a product",
    callers=STAFF,
    body=ProductChange,
    answer=Done,
    is_form=True,
    errors=(400, 404),
    description="Another price, currency or interval makes a new price; what was sold at the old one keeps it. "
    "The type cannot be changed.",
)
async def edit_product(call: Call[ProductChange, NoQuery], tx: Tx) -> Done:
    await change_product(tx, registry=_registry(call), product_id=call.id_of("Product"), wish=_wish(call.body))
    return Done()


@reads(
    "/api/products/{id}/actions",
    "List what staff can do with a product",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_product_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        product = await get_product(connection, product_id=call.id_of("Product"))
    return Actions(actions=[toggle_action(product)])


@writes(
    "POST",
    "/api/products/{id}/toggle",
    "Take a product off sale, or put it back on",
    callers=STAFF,
    answer=Done,
    errors=(404, 409, 422),
)
async def toggle(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await toggle_product(tx, registry=_registry(call), product_id=call.id_of("Product"))
    return Done()


operations = [
    list_all_products,
    new_product_form,
    add_product,
    show_product,
    product_form,
    edit_product,
    list_product_actions,
    toggle,
]
