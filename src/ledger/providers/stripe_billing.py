"""Stripe's subscriptions and the bills it makes for them (which it calls invoices), and how a subscription stands.

Objects are read as in `stripe_payloads`. Only what events carry can have an older shape: answers are of the pinned
version of the API.
"""

import msgspec

from ledger.providers.stripe_calls import Listed
from ledger.providers.stripe_payloads import Identified, PaymentIntent, id_of, time_of
from ledger.providers.subscription_contract import SubscriptionState

ENDED = frozenset({"canceled", "incomplete_expired"})
"""Statuses at Stripe that nothing leads out of."""


class SubscriptionItem(msgspec.Struct, frozen=True, kw_only=True):
    """What is subscribed to; Ledger's subscriptions have one."""

    id: str
    price: Identified | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None


class BillBrief(msgspec.Struct, frozen=True, kw_only=True):
    """A bill, of which only matters whether it is paid, and where it can be."""

    id: str
    status: str | None = None
    hosted_invoice_url: str | None = None


class _PauseCollection(msgspec.Struct, frozen=True, kw_only=True):
    behavior: str | None = None


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription. Until 2025-03 its period stood in itself, not in its items."""

    id: str
    status: str | None = None
    currency: str = ""
    customer: str | Identified | None = None
    metadata: dict[str, str] | None = None
    items: Listed[SubscriptionItem] = Listed[SubscriptionItem]()
    latest_invoice: str | BillBrief | None = None
    pause_collection: _PauseCollection | None = None
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    canceled_at: int | None = None
    ended_at: int | None = None
    current_period_start: int | None = None
    current_period_end: int | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def item(self) -> SubscriptionItem | None:
        return self.items.data[0] if self.items.data else None

    @property
    def price_id(self) -> str | None:
        return self.item.price.id if self.item and self.item.price else None

    @property
    def period(self) -> tuple[int | None, int | None]:
        item = self.item
        if item is not None and item.current_period_end is not None:
            return item.current_period_start, item.current_period_end
        return self.current_period_start, self.current_period_end

    @property
    def latest_bill(self) -> BillBrief | None:
        return self.latest_invoice if isinstance(self.latest_invoice, BillBrief) else None


def subscription_state_of(subscription: Subscription, *, was_paid: bool) -> SubscriptionState:
    """Where a subscription stands.

    `was_paid` tells whether any bill of it ever was: Stripe says `active` while the first bank debit is on its way.
    """
    start, end = subscription.period
    ended_at = subscription.ended_at or subscription.canceled_at if subscription.has_ended else None
    state = SubscriptionState(
        status="incomplete",
        remote_id=subscription.id,
        price_remote_id=subscription.price_id,
        cancels_at_period_end=subscription.cancel_at_period_end or subscription.cancel_at is not None,
        period_start=time_of(start) if start is not None else None,
        period_end=time_of(end) if end is not None else None,
        customer_remote_id=id_of(subscription.customer),
    )
    if subscription.has_ended:
        return msgspec.structs.replace(
            state,
            status="cancelled",
            cancels_at_period_end=False,
            ended_at=time_of(ended_at) if ended_at is not None else None,
        )
    if not was_paid:
        return state
    is_paused = subscription.pause_collection is not None or subscription.status == "paused"
    match subscription.status:
        case "trialing" | "active" | "past_due" | "unpaid" | "paused" if is_paused:
            return msgspec.structs.replace(state, status="paused")
        case "trialing" | "active":
            return msgspec.structs.replace(state, status="active")
        case "past_due" | "unpaid":
            bill = subscription.latest_bill
            pay_url = bill.hosted_invoice_url if bill is not None and bill.status == "open" else None
            return msgspec.structs.replace(state, status="past_due", pay_url=pay_url)
    return state


# Bills


class _Period(msgspec.Struct, frozen=True, kw_only=True):
    start: int
    end: int


class _Discount(msgspec.Struct, frozen=True, kw_only=True):
    amount: int


class _PretaxCredit(msgspec.Struct, frozen=True, kw_only=True):
    """What lowers the amount that is taxed: a discount again, or credit that was bought or granted."""

    amount: int
    type: str | None = None


class _TaxRateDetails(msgspec.Struct, frozen=True, kw_only=True):
    tax_rate: str | None = None


class Tax(msgspec.Struct, frozen=True, kw_only=True):
    """A tax on a line, or on all lines together."""

    amount: int
    tax_behavior: str | None = None
    taxable_amount: int | None = None
    tax_rate_details: _TaxRateDetails | None = None

    @property
    def is_inclusive(self) -> bool:
        """Whether the line's amount contains it."""
        return self.tax_behavior == "inclusive"

    @property
    def rate_id(self) -> str | None:
        return self.tax_rate_details.tax_rate if self.tax_rate_details else None

    @property
    def is_charged(self) -> bool:
        """Whether there is something the rate is applied to: an exempt customer's line names its rates all the same."""
        return self.amount != 0 or self.taxable_amount != 0


class _ItemDetails(msgspec.Struct, frozen=True, kw_only=True):
    proration: bool = False


class _LineParent(msgspec.Struct, frozen=True, kw_only=True):
    subscription_item_details: _ItemDetails | None = None
    invoice_item_details: _ItemDetails | None = None


class _PriceDetails(msgspec.Struct, frozen=True, kw_only=True):
    price: str | Identified | None = None


class _Pricing(msgspec.Struct, frozen=True, kw_only=True):
    price_details: _PriceDetails | None = None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a bill. `amount` is before discounts, and without the taxes that come on top."""

    id: str
    amount: int
    description: str | None = None
    quantity: int | None = None
    period: _Period | None = None
    parent: _LineParent | None = None
    pricing: _Pricing | None = None
    discount_amounts: tuple[_Discount, ...] | None = None
    pretax_credit_amounts: tuple[_PretaxCredit, ...] | None = None
    taxes: tuple[Tax, ...] | None = None

    @property
    def is_proration(self) -> bool:
        parent = self.parent
        details = (parent.subscription_item_details or parent.invoice_item_details) if parent else None
        return details.proration if details else False

    @property
    def price_id(self) -> str | None:
        return id_of(self.pricing.price_details.price) if self.pricing and self.pricing.price_details else None

    @property
    def net(self) -> int:
        discounts = sum(one.amount for one in self.discount_amounts or ())
        credit = sum(one.amount for one in self.pretax_credit_amounts or () if one.type == "credit_balance_transaction")
        return self.amount - discounts - credit - sum(one.amount for one in self.taxes or () if one.is_inclusive)

    @property
    def tax(self) -> int:
        return sum(one.amount for one in self.taxes or ())


class _SubscriptionDetails(msgspec.Struct, frozen=True, kw_only=True):
    subscription: str | Identified | None = None
    metadata: dict[str, str] | None = None


class _BillParent(msgspec.Struct, frozen=True, kw_only=True):
    subscription_details: _SubscriptionDetails | None = None


class _StatusTransitions(msgspec.Struct, frozen=True, kw_only=True):
    paid_at: int | None = None


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """A bill. Until 2025-03 its subscription stood in itself, with `subscription_details` beside it."""

    id: str
    status: str | None = None
    currency: str = ""
    created: int = 0
    total: int = 0
    amount_due: int = 0
    starting_balance: int = 0
    """What the customer owed before; negative: had as credit."""
    ending_balance: int | None = None
    pre_payment_credit_notes_amount: int = 0
    """What credit notes took off before it was paid; the total stays as it was."""
    period_start: int = 0
    period_end: int = 0
    parent: _BillParent | None = None
    subscription: str | Identified | None = None
    subscription_details: _SubscriptionDetails | None = None
    lines: Listed[Line] = Listed[Line]()
    total_taxes: tuple[Tax, ...] | None = None
    status_transitions: _StatusTransitions | None = None

    @property
    def _details(self) -> _SubscriptionDetails | None:
        return self.parent.subscription_details if self.parent else self.subscription_details

    @property
    def subscription_id(self) -> str | None:
        return id_of(self._details.subscription if self._details else None) or id_of(self.subscription)

    @property
    def intent_id(self) -> str | None:
        return ((self._details.metadata if self._details else None) or {}).get("intent_id")

    @property
    def paid_at(self) -> int:
        return (self.status_transitions.paid_at if self.status_transitions else None) or self.created


class _PaymentOfBill(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None
    payment_intent: str | PaymentIntent | None = None


class BillPayment(msgspec.Struct, frozen=True, kw_only=True):
    """Money that was paid towards a bill."""

    id: str
    amount_paid: int | None = None
    payment: _PaymentOfBill | None = None
