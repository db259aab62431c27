"""How Stripe counts: taxes by the line, shares by the second, months by the calendar, credit by the customer."""

import calendar
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

_DAY_S = 86_400


def rounded(value: Fraction) -> int:
    """Half a minor unit goes away from zero, so a credit is rounded as the charge that it takes back."""
    sign = -1 if value < 0 else 1
    return sign * ((2 * abs(value.numerator) + value.denominator) // (2 * value.denominator))


def share(amount: int, part_s: int, whole_s: int) -> int:
    """The part of an amount that falls on a part of the time."""
    return rounded(Fraction(amount) * part_s / whole_s)


def tax_on(amount: int, percentage: float, *, is_inclusive: bool = False) -> int:
    """The tax on an amount, or within it."""
    rate = Fraction(Decimal(str(percentage)))
    return rounded(Fraction(amount) * rate / (100 + rate if is_inclusive else 100))


def next_boundary(anchor: int, after: int, interval: str, count: int = 1) -> int:
    """The first end of a period after a moment, counted from the anchor.

    A month without the anchor's day ends on its last one; the day comes back in a longer month.
    """
    if interval in ("day", "week"):
        length_s = _DAY_S * (7 if interval == "week" else 1) * count
        return int(anchor + ((after - anchor) // length_s + 1) * length_s)
    months = count * (12 if interval == "year" else 1)
    begun, present = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(after, UTC)
    passed = (present.year - begun.year) * 12 + present.month - begun.month
    steps = max(passed // months - 1, 0)
    while (boundary := _plus_months(begun, steps * months)) <= after:
        steps += 1
    return boundary


def _plus_months(begun: datetime, months: int) -> int:
    year, month = divmod(begun.year * 12 + begun.month - 1 + months, 12)
    day = min(begun.day, calendar.monthrange(year, month + 1)[1])
    return int(begun.replace(year=year, month=month + 1, day=day).timestamp())


def settled(total: int, balance: int, smallest: int) -> tuple[int, int]:
    """Returns what is due of an invoice, and the customer's balance after it.

    A negative balance is credit, a positive one is owed. What is too little to charge is owed from then on.
    """
    left = total + balance
    if 0 < left < smallest:
        return 0, left
    return max(left, 0), min(left, 0)


def spelled(moment: int) -> str:
    """A day as it stands in the description of a line: `05 Mar 2026`."""
    return f"{datetime.fromtimestamp(moment, UTC):%d %b %Y}"


def taxes_on(amount: int, rates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The taxes of a line, one by one."""
    return [
        {
            "amount": tax_on(amount, rate["percentage"], is_inclusive=rate["inclusive"]),
            "tax_behavior": "inclusive" if rate["inclusive"] else "exclusive",
            "tax_rate_details": {"tax_rate": rate["id"]},
            "taxability_reason": "not_available",
            "taxable_amount": amount
            - (tax_on(amount, rate["percentage"], is_inclusive=True) if rate["inclusive"] else 0),
            "type": "tax_rate_details",
        }
        for rate in rates
    ]
