"""What a subscription is, and what may be done with it in each state. Pure: everything is handed in."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from ledger.errors import Forbidden, RuleBroken


class SubscriptionStatus(StrEnum):
    """The states of a subscription; `SUBSCRIPTION_STATUS_PHRASES` says what each means."""

    INCOMPLETE = "incomplete"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    CANCELLED = "cancelled"


SUBSCRIPTION_STATUS_PHRASES: Mapping[SubscriptionStatus, str] = {
    SubscriptionStatus.INCOMPLETE: "its payment page is open, or its first payment is on the way",
    SubscriptionStatus.ACTIVE: "the provider said that it is paid",
    SubscriptionStatus.PAST_DUE: "a payment failed; the provider tries again",
    SubscriptionStatus.PAUSED: "the provider does not charge for it at the moment",
    SubscriptionStatus.CANCELLED: "it is over; somebody who wants it back subscribes again",
}

BEGUN = frozenset({SubscriptionStatus.ACTIVE, SubscriptionStatus.PAST_DUE, SubscriptionStatus.PAUSED})
"""The states of a subscription that was paid for at least once and is not over."""


class OnlyRecurringProducts(RuleBroken):
    """What has no interval is bought once, with an invoice."""

    def __init__(self) -> None:
        super().__init__("Only recurring products can be subscribed to")


class AlreadySubscribed(RuleBroken):
    """A person has at most one live subscription of a product."""


class AlreadyCancelled(RuleBroken):
    """What is over, or will be at the end of its period, cannot be cancelled again."""

    def __init__(self) -> None:
        super().__init__("Already cancelled")


class SelfServiceOff(Forbidden):
    """Staff decided that people do not cancel or reactivate by themselves (403)."""

    def __init__(self) -> None:
        super().__init__("ledger:manage")
        self.sentence = "You cannot do this yourself here; please ask the people who manage billing"


class CannotReactivate(RuleBroken):
    """There is nothing to take back, or it is too late."""


class CannotChange(RuleBroken):
    """The subscription cannot have that product."""


def shown_status(status: SubscriptionStatus, *, cancels_at_period_end: bool) -> str:
    """Returns the state in the words people read: `active (cancelling)` while it runs out."""
    if cancels_at_period_end and status in BEGUN:
        return f"{status.value} (cancelling)"
    return status.value


def check_can_cancel(status: SubscriptionStatus, *, cancels_at_period_end: bool) -> None:
    """Raises `AlreadyCancelled`. One that is not paid yet can be cancelled: its payment page is closed then."""
    if status is SubscriptionStatus.CANCELLED or cancels_at_period_end:
        raise AlreadyCancelled


def check_can_reactivate(status: SubscriptionStatus, *, cancels_at_period_end: bool) -> None:
    """One that runs out goes on, and one that is past due is collected once more. Raises `CannotReactivate`."""
    if status is SubscriptionStatus.CANCELLED:
        raise CannotReactivate("This subscription has ended and cannot be reactivated; subscribe again")
    if status is SubscriptionStatus.INCOMPLETE:
        raise CannotReactivate("This subscription was never paid; use its payment link, or subscribe again")
    if status is SubscriptionStatus.PAUSED and not cancels_at_period_end:
        raise CannotReactivate("This subscription is paused at the payment provider; resume it there")
    if status is not SubscriptionStatus.PAST_DUE and not cancels_at_period_end:
        raise CannotReactivate("Subscription is already active")


def check_can_change(
    status: SubscriptionStatus,
    *,
    product_id: str,
    currency: str,
    new_product_id: str,
    new_is_recurring: bool,
    new_currency: str,
) -> None:
    """Tells whether a subscription can have another product. Raises `CannotChange`."""
    if status is SubscriptionStatus.CANCELLED:
        raise CannotChange("A cancelled subscription cannot be changed; subscribe again")
    if status is SubscriptionStatus.INCOMPLETE:
        raise CannotChange("This subscription is not paid yet; pay for it first, or subscribe to the other product")
    if new_product_id == product_id:
        raise CannotChange("This is the product of the subscription already; choose another one")
    if not new_is_recurring:
        raise CannotChange("A subscription can only be changed to a recurring product")
    if new_currency != currency:
        raise CannotChange(
            f"The subscription is charged in {currency}, and this product costs {new_currency}; "
            "cancel the subscription and subscribe to the other product instead"
        )


def available_actions(status: SubscriptionStatus, *, cancels_at_period_end: bool) -> tuple[str, ...]:
    """Returns the buttons for staff: as published, also where pressing says why not; `discard` what is not paid yet."""
    if status is SubscriptionStatus.INCOMPLETE:
        return ("discard",)
    if status is SubscriptionStatus.ACTIVE and not cancels_at_period_end:
        return ("cancel",)
    if cancels_at_period_end or status in (SubscriptionStatus.CANCELLED, SubscriptionStatus.PAST_DUE):
        return ("reactivate",)
    return ()


def own_actions(status: SubscriptionStatus, *, cancels_at_period_end: bool, allow_self_cancel: bool) -> tuple[str, ...]:
    """Returns the buttons for the person themselves, of `discard`, `cancel` and `reactivate`."""
    if not allow_self_cancel:
        return ()
    if status is SubscriptionStatus.INCOMPLETE:
        return ("discard",)
    if status is SubscriptionStatus.ACTIVE and not cancels_at_period_end:
        return ("cancel",)
    can_reactivate = _passes(lambda: check_can_reactivate(status, cancels_at_period_end=cancels_at_period_end))
    return ("reactivate",) if can_reactivate else ()


def can_change(status: SubscriptionStatus) -> bool:
    """Returns whether another product can be chosen at all."""
    return status in BEGUN


def proration_time(*, now: datetime, period_start: datetime | None) -> datetime:
    """Returns from when a change counts when nobody says: the beginning of the hour, within the present period.

    Providers prorate by the second. Whoever sees a preview and accepts it a minute later shall be charged exactly
    what it said.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    return hour if period_start is None else max(hour, period_start)


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except RuleBroken:
        return False
    return True
