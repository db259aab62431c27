"""What requests about invoices may say, and what they are answered."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ledger.money import ITEMS_MAX, QUANTITY_MAX, TOTAL_MAX, UNIT_PRICE_MAX
from ledger.web.bodies import Body, Currency, Instant, LastInstant, UserId
from ledger.web.paging import PageQuery
from ledger.web.shapes import Shape

BATCH_MAX = 1_000
METADATA_MAX = 50
Status = Literal["pending", "paid", "failed", "cancelled", "refunded"]


class NewItem(Body, frozen=True, kw_only=True):
    """A line item. `unitPrice` is in minor units, `taxRate` in basis points and overrides the default rate."""

    description: Annotated[str, Meta(min_length=1, max_length=500)]
    unit_price: Annotated[int, Meta(ge=0, le=UNIT_PRICE_MAX)]
    quantity: Annotated[int, Meta(ge=1, le=QUANTITY_MAX)] = 1
    product_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    tax_rate: Annotated[int, Meta(ge=0, le=10_000)] | None = None


class NewInvoice(Body, frozen=True, kw_only=True):
    """The invoice to issue. Without a `currency` the configured default is used."""

    missing_sentence = "userId and at least one item are required"

    user_id: UserId
    items: Annotated[list[NewItem], Meta(min_length=1, max_length=ITEMS_MAX)]
    currency: Currency | None = None
    notes: Annotated[str, Meta(max_length=5000)] | None = None
    due_date: Instant | None = None
    skip_tax: bool = False
    metadata: (
        Annotated[
            dict[Annotated[str, Meta(max_length=100)], Annotated[str, Meta(max_length=500)]],
            Meta(max_length=METADATA_MAX),
        ]
        | None
    ) = None


class NewInvoices(Body, frozen=True, kw_only=True):
    """Invoices to issue together: all or none, with consecutive numbers."""

    missing_sentence = "At least one invoice is required"

    invoices: Annotated[list[NewInvoice], Meta(min_length=1, max_length=BATCH_MAX)]


class CreatedInvoice(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An issued invoice; amounts in minor units."""

    success: Literal[True] = True
    id: str
    invoice_number: str
    status: Status
    subtotal: int
    tax: int
    total: int


class CreatedInvoices(msgspec.Struct, frozen=True, kw_only=True):
    """The issued invoices, in the order they were asked for."""

    results: list[CreatedInvoice]


class PaidByHand(Body, frozen=True, kw_only=True):
    """How money arrived. Without an `amount` (minor units) it is all that is open."""

    method: Literal["manual", "bank_transfer", "cash", "card", "other"] | None = None
    reference: Annotated[str, Meta(max_length=200)] | None = None
    paid_at: Instant | None = None
    amount: Annotated[int, Meta(ge=0, le=TOTAL_MAX)] | None = None


class RefundWish(Body, frozen=True, kw_only=True):
    """What to give back. Without an `amount` (minor units) it is all that is left."""

    amount: Annotated[int, Meta(ge=1, le=TOTAL_MAX)] | None = None
    reason: Annotated[str, Meta(max_length=500)] | None = None


class InvoiceStatusAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Where an invoice stands; `total` in minor units."""

    id: str
    status: Status
    total: int
    currency: str
    paid_at: str | None


class InvoiceQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the invoice list. `q` finds numbers by their beginning or end, and names known just now."""

    status: Literal["pending", "paid", "failed", "cancelled", "refunded", "overdue"] | None = None
    user_id: UserId | None = None
    q: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    from_: Instant | None = msgspec.field(default=None, name="from")
    to: LastInstant | None = None


class MyInvoiceQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of a user's own list."""

    status: Literal["pending", "paid", "failed", "cancelled", "refunded", "overdue"] | None = None


class PaymentWay(Shape, frozen=True, kw_only=True):
    """Where to pay (`url`), or how (`message`)."""

    url: str | None = None
    redirect: str | None = None
    message: str | None = None
