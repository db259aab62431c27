"""The words about subscriptions: what a provider is asked, and what it answers."""

from datetime import datetime
from typing import Literal

import msgspec

from ledger.providers.contract import Checkout, MoneyArrived, Payer


class WantedTax(msgspec.Struct, frozen=True, kw_only=True):
    """A tax on every period, on top of the price; `remote_id` is what the provider calls it, once it knows it."""

    rate_bp: int
    label: str
    remote_id: str | None = None


class WantedSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription to be started. Its intent is its own row."""

    intent_id: str
    price_remote_id: str
    tax: WantedTax | None
    payer: Payer
    success_url: str
    cancel_url: str


class WantedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A subscription that shall have another price from now on."""

    intent_id: str
    subscription_remote_id: str
    price_remote_id: str
    tax: WantedTax | None
    prorates: bool
    """Whether what is left of the period is settled and charged at once; else the new price counts from the next."""
    prorate_at: datetime
    """From when on the new price counts when it prorates; the same in a preview and in the change gives the same."""


class SubscriptionState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subscription stands at the provider."""

    status: Literal["incomplete", "active", "past_due", "paused", "cancelled", "unknown"]
    """`incomplete`: nothing was paid yet. `unknown`: the provider knows of no such subscription, nor of a page where
    it could be started."""
    remote_id: str | None = None
    checkout: Checkout | None = None
    """The page where it can be started, while that is open."""
    pay_url: str | None = None
    """Where the bill that is past due can be paid, for example with another card."""
    price_remote_id: str | None = None
    cancels_at_period_end: bool = False
    period_start: datetime | None = None
    period_end: datetime | None = None
    ended_at: datetime | None = None
    customer_remote_id: str | None = None
    tax_remote_id: str | None = None
    """What the provider calls the wanted tax, when it was asked for one."""


class BilledLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line as the provider charged it, net. Negative for time that was paid for and not used."""

    description: str
    quantity: int
    unit_price_minor: int
    total_minor: int
    tax_rate_bp: int
    price_remote_id: str | None = None


class BilledTax(msgspec.Struct, frozen=True, kw_only=True):
    """The tax of all lines with one rate, as the provider charged it."""

    rate_bp: int
    net_minor: int
    tax_minor: int


class BilledPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A bill of a subscription at the provider: a period, or the difference that a change made.

    Lines and taxes add up: Σ lines = Σ nets = `subtotal_minor`, Σ taxes = `tax_minor`, both together `total_minor`,
    which is negative when a change gave back more than it cost. When it is paid, the payments and the credit add up to
    the total, or to 0 when that is negative.
    """

    remote_id: str
    subscription_remote_id: str | None
    intent_id: str | None
    """The subscription's row, when the provider was told."""
    is_paid: bool
    currency: str
    lines: tuple[BilledLine, ...]
    taxes: tuple[BilledTax, ...]
    subtotal_minor: int
    tax_minor: int
    total_minor: int
    payments: tuple[MoneyArrived, ...]
    credit_minor: int
    """What was settled from credit that an earlier change gave back; never negative."""
    period_start: datetime
    period_end: datetime


class PreviewLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a change would add to the bill, tax included; negative for time that was paid for and not used."""

    description: str
    amount_minor: int


class ChangePreview(msgspec.Struct, frozen=True, kw_only=True):
    """The next bill if the subscription were changed: `charge_minor - credit_minor` is its total, tax included.

    `amount_due_minor` is what would be taken from the payer, after credit from earlier changes; never negative.
    """

    amount_due_minor: int
    currency: str
    credit_minor: int
    charge_minor: int
    effective_at: datetime
    lines: tuple[PreviewLine, ...]
