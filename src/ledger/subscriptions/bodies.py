"""What requests about subscriptions may say, and what they are answered."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ledger.errors import BadRequest, FieldError
from ledger.web.bodies import Body, Instant, UserId
from ledger.web.paging import PageQuery
from ledger.web.shapes import Shape

ProductId = Annotated[str, Meta(min_length=1, max_length=64)]
Status = Literal["incomplete", "active", "past_due", "paused", "cancelled"]

# What a form's select sends while there is nothing to choose: it always sends one of its options.
NO_PRODUCT = "none"


class NewSubscription(Body, frozen=True, kw_only=True):
    """The recurring product to subscribe to."""

    missing_sentence = "productId is required"

    product_id: ProductId


class WantedProductChange(Body, frozen=True, kw_only=True):
    """The product to have from now on. With the `prorationDate` of a preview, what that showed is charged."""

    missing_sentence = "productId is required"

    product_id: ProductId
    proration_date: Instant | None = None


class NoProductChosen(BadRequest):
    """A form without any product to choose was sent."""

    def __init__(self) -> None:
        super().__init__(
            "There is no product to choose at the moment", fields=[FieldError("productId", "names no product")]
        )


def chosen_product_id(body: NewSubscription | WantedProductChange) -> str:
    """The product somebody chose. Raises `NoProductChosen`."""
    if body.product_id == NO_PRODUCT:
        raise NoProductChosen
    return body.product_id


class SubscriptionQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the subscription list. `q` finds products by a part of their name, people by a part of a name known
    just now, and subscriptions by what the provider calls them."""

    status: Status | None = None
    user_id: UserId | None = None
    q: Annotated[str, Meta(min_length=1, max_length=100)] | None = None


class StartedSubscription(Shape, frozen=True, kw_only=True):
    """The subscription. While it has to be paid first, `url` is where, and `redirect` its page, which links there."""

    success: Literal[True]
    id: str
    url: str | None = None
    redirect: str | None = None


class PreviewedLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a change adds to the bill, in minor units, tax included; negative for time that was paid for."""

    description: str
    amount: int


class PreviewedChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The next bill if the subscription were changed. Amounts are in minor units, tax included: `charge` less `credit`
    is its total, `amountDue` what would be taken from the payer. Sent along with the change, `prorationDate` makes
    sure that exactly this is charged."""

    amount_due: int
    currency: str
    credit: int
    charge: int
    effective_at: str
    lines: list[PreviewedLine]
    proration_date: str
