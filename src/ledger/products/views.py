"""How products are shown: as a row, as a detail, and as forms with true values."""

from collections.abc import Sequence
from datetime import datetime

from ledger.money import format_money
from ledger.products.rules import (
    INTERVAL_PHRASES,
    NO_INTERVAL,
    PRODUCT_KIND_PHRASES,
    SYNC_STATE_PHRASES,
    ProductKind,
    SyncState,
)
from ledger.products.store import ListedProduct, Product
from ledger.products.sync_store import ProductSync
from ledger.web.shapes import NOTHING, Action, Column, Field, FormField, Option, Row, iso

_COLUMNS = (
    Column(key="name", label="Name"),
    Column(key="amount", label="Price"),
    Column(key="type", label="Type"),
    Column(key="status", label="Status"),
)
_SYNC_COLUMN = Column(key="sync", label="Provider")
_CLEARING_HINT = "Enter - to remove"
_YES_OR_NO = (Option(label="Yes", value="true"), Option(label="No", value="false"))


def product_columns(listed: Sequence[ListedProduct]) -> Sequence[Column]:
    """The published columns; the provider gets one when it could not be brought to a product of this page."""
    has_trouble = any(each.sync is not None and each.sync.error is not None for each in listed)
    return (*_COLUMNS, _SYNC_COLUMN) if has_trouble else _COLUMNS


def product_row(listed: ListedProduct) -> Row:
    """A row of the list."""
    terms = listed.product.draft.terms
    return {
        "id": listed.product.id,
        "name": listed.product.draft.name,
        "amount": format_money(terms.amount_minor, terms.currency),
        "type": listed.product.draft.kind.value,
        "status": "Active" if listed.product.is_active else "Inactive",
        **({} if listed.sync is None else {"sync": listed.sync.state.value}),
    }


def product_fields(product: Product) -> list[Field]:
    """The detail view, without what a provider has of it. A dash is no number, so it has no type."""
    draft, terms = product.draft, product.draft.terms
    fields = [
        Field(key="name", label="Name", value=draft.name),
        Field(key="description", label="Description", type="multiline", value=draft.description or NOTHING),
        Field(key="price", label="Price (cents)", type="number", value=terms.amount_minor),
        Field(key="currency", label="Currency", value=terms.currency),
        Field(key="type", label="Type", value=draft.kind.value),
        Field(key="interval", label="Interval", value=terms.interval or NOTHING),
        Field(key="active", label="Active", type="boolean", value=product.is_active),
        Field(key="createdAt", label="Created", type="date", value=iso(product.created_at)),
        Field(key="taxRate", label="Tax Rate (basis points)", value=NOTHING)
        if draft.tax_rate_bp is None
        else Field(key="taxRate", label="Tax Rate (basis points)", type="number", value=draft.tax_rate_bp),
    ]
    if draft.kind is ProductKind.RECURRING:
        fields.append(
            Field(key="prorateOnChange", label="Prorate Changes", type="boolean", value=draft.prorate_on_change)
        )
    return fields


def sync_field(sync: ProductSync | None, *, provider_name: str, now: datetime) -> Field:
    """Whether the active provider has this version of a product, and if not, why, in words."""
    return Field(key="sync", label="Provider", type="multiline", value=_sync_text(sync, provider_name, now))


def _sync_text(sync: ProductSync | None, provider_name: str, now: datetime) -> str:
    if sync is None:
        return f"{provider_name}: does not have this product"
    lines = [f"{provider_name}: {SYNC_STATE_PHRASES[sync.state]}"]
    if sync.error is not None:
        lines.append(f"Last try: {sync.error}")
    if sync.state is not SyncState.SYNCED and sync.attempts and sync.next_try_at is not None and sync.next_try_at > now:
        tries = "once" if sync.attempts == 1 else f"{sync.attempts} times"
        lines.append(f"Tried {tries}; next try at {iso(sync.next_try_at)}")
    return "\n".join(lines)


def toggle_action(product: Product) -> Action:
    """The button that takes a product off sale, or puts it back on."""
    at, name = f"/api/products/{product.id}/toggle", product.draft.name
    if product.is_active:
        return Action(
            label="Deactivate",
            endpoint=at,
            method="POST",
            variant="danger",
            confirm=f"Deactivate {name}? Nobody can subscribe to it any more; who already did, keeps it.",
        )
    return Action(label="Activate", endpoint=at, method="POST", confirm=f"Activate {name}? It is on sale again then.")


def new_product_fields(*, default_currency: str) -> list[FormField]:
    """The form of a new product. The type and the interval are chosen here once."""
    return [
        FormField(key="name", label="Name", type="text", required=True, placeholder="e.g. Membership"),
        _price_field(None),
        FormField(key="currency", label="Currency", type="text", value=default_currency),
        FormField(
            key="type",
            label="Type",
            type="select",
            required=True,
            options=[
                Option(label=f"{kind.value.capitalize()}: {phrase}", value=kind.value)
                for kind, phrase in PRODUCT_KIND_PHRASES.items()
            ],
        ),
        FormField(
            key="interval",
            label="Interval (recurring only)",
            type="select",
            options=[Option(label="None: one-time", value=NO_INTERVAL), *_interval_options()],
        ),
        FormField(key="description", label="Description", type="textarea"),
        _tax_rate_field(None, placeholder="e.g. 1900 for 19 %; empty for the configured rate"),
        FormField(key="prorateOnChange", label="Prorate changes of subscription", type="select", options=_YES_OR_NO),
    ]


def edit_product_fields(product: Product) -> list[FormField]:
    """The form that changes a product. What cannot be changed is not in it."""
    draft, terms = product.draft, product.draft.terms
    fields = [
        FormField(key="name", label="Name", type="text", required=True, value=draft.name),
        _price_field(terms.amount_minor),
        FormField(key="currency", label="Currency", type="text", required=True, value=terms.currency),
        FormField(
            key="description",
            label="Description",
            type="textarea",
            value=draft.description,
            placeholder=_CLEARING_HINT,
        ),
        _tax_rate_field(draft.tax_rate_bp, placeholder=f"{_CLEARING_HINT}; the configured rate counts then"),
    ]
    if draft.kind is ProductKind.RECURRING:
        fields += [
            FormField(
                key="interval",
                label="Interval",
                type="select",
                required=True,
                value=terms.interval,
                options=_interval_options(),
            ),
            FormField(
                key="prorateOnChange",
                label="Prorate changes of subscription",
                type="select",
                value=str(draft.prorate_on_change).lower(),
                options=_YES_OR_NO,
            ),
        ]
    return fields


def _price_field(amount_minor: int | None) -> FormField:
    return FormField(
        key="price",
        label="Price (cents)",
        type="number",
        required=True,
        value=amount_minor,
        placeholder="in the currency's smallest unit: 1250 for 12.50 EUR",
    )


def _tax_rate_field(rate_bp: int | None, *, placeholder: str) -> FormField:
    # Text, since an input for numbers takes no dash.
    value = None if rate_bp is None else str(rate_bp)
    return FormField(key="taxRate", label="Tax Rate (basis points)", type="text", value=value, placeholder=placeholder)


def _interval_options() -> list[Option]:
    return [Option(label=phrase.capitalize(), value=interval.value) for interval, phrase in INTERVAL_PHRASES.items()]
