"""Turns a request's body into a draft: with the products it names, and the settings of the moment."""

from collections.abc import Mapping, Sequence

from ledger.billing_settings.store import BillingSettings
from ledger.database.transaction import Database
from ledger.errors import FieldError
from ledger.ids import is_id
from ledger.invoices.bodies import NewInvoice
from ledger.invoices.rules import InvoiceRefused, WantedLine, draft_invoice
from ledger.invoices.writer import WantedInvoice
from ledger.products.store import ProductForLine, find_products

Products = Mapping[str, ProductForLine]


async def products_of(database: Database, bodies: Sequence[NewInvoice]) -> Products:
    """The products that the items name, by their ids; unknown ones are missing. Most invoices name none."""
    named = {
        item.product_id.lower()
        for body in bodies
        for item in body.items
        if item.product_id is not None and is_id(item.product_id)
    }
    if not named:
        return {}
    async with database.connection() as connection:
        return await find_products(connection, product_ids=sorted(named))


def want_invoice(body: NewInvoice, settings: BillingSettings, products: Products) -> WantedInvoice:
    """The draft a body asks for. Raises `InvoiceRefused` that names every refused field."""
    refused = [
        FieldError(f"items[{index}].productId", "there is no such product")
        for index, item in enumerate(body.items)
        if item.product_id is not None and item.product_id.lower() not in products
    ]
    lines = [
        WantedLine(
            description=item.description,
            unit_price_minor=item.unit_price,
            quantity=item.quantity,
            product_id=None if item.product_id is None else item.product_id.lower(),
            tax_rate_bp=item.tax_rate,
            product_tax_rate_bp=_tax_rate_bp(products, item.product_id),
        )
        for item in body.items
    ]
    try:
        draft = draft_invoice(
            lines=lines,
            currency=body.currency or settings.default_currency,
            default_tax_rate_bp=settings.tax_rate_bp,
            skip_tax=body.skip_tax,
        )
    except InvoiceRefused as refusal:
        raise InvoiceRefused(refusal.sentence, fields=[*refused, *refusal.fields]) from None
    if refused:
        raise InvoiceRefused("; ".join(f"{each.field}: {each.message}" for each in refused[:5]), fields=refused)
    return WantedInvoice(
        draft=draft,
        user_id=body.user_id,
        due_at=body.due_date,
        notes=body.notes or None,
        metadata=body.metadata or None,
        tax_label=settings.tax_label,
    )


def _tax_rate_bp(products: Products, product_id: str | None) -> int | None:
    product = products.get(product_id.lower()) if product_id is not None else None
    return None if product is None else product.tax_rate_bp
