"""When what points at a person may go. Pure: the time, the zone and the setting are handed in.

The clock is that of commercial law (in Germany section 147 of the Fiscal Code): what was booked in a year is kept for
a number of days after the end of that year, as the calendar has it where the books are kept. The year is that of the
last financial fact: issue, payment, refund, dispute. Only what is settled has a last one.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ledger.errors import Conflict

SETTLED = ("paid", "refunded", "cancelled", "failed")
"""The states of an invoice that nothing is expected for any more."""

PAYLOADS_KEPT = timedelta(days=90)
"""How long providers' events, the data of our own, mails and each attempt to deliver are kept."""

DELIVERIES_KEPT = PAYLOADS_KEPT + timedelta(days=365)
"""How long a delivery can be asked for: after `PAYLOADS_KEPT` it is known that there was one, but not what it said."""

ANSWERS_KEPT = timedelta(days=30)
"""How long the answers to requests with an `Idempotency-Key` are kept."""


class SubscriptionStillLive(Conflict):
    """Somebody who subscribes to something cannot be forgotten: what they pay for is theirs (409)."""

    def __init__(self) -> None:
        super().__init__("This person has a subscription that is not over; cancel it, and erase when it has ended")


def free_on(last_fact_at: datetime, *, retention_days: int, zone: ZoneInfo) -> date:
    """Returns the day from which a settled thing is kept no longer, in the books' own calendar.

    `retention_days` counts from the first day of the year after `last_fact_at`: 2922 days after 2018 is 2027-01-01.
    """
    year = last_fact_at.astimezone(zone).year
    return date(year + 1, 1, 1) + timedelta(days=retention_days)


def kept_since(now: datetime, *, retention_days: int, zone: ZoneInfo) -> datetime:
    """Returns the moment (UTC) that separates what is due now, all before it, from what has to be kept.

    It is always the beginning of a year. A fact is due exactly if today is not before its `free_on`.
    """
    oldest_kept = now.astimezone(zone).date() - timedelta(days=retention_days)
    return datetime(oldest_kept.year, 1, 1, tzinfo=zone).astimezone(UTC)


def is_due(*, status: str, facts_at: Iterable[datetime], since: datetime) -> bool:
    """Tells whether an invoice may lose its person: it is settled, and its last fact is older than what is kept.

    `facts_at` are the moments of its issue, payments, refunds and disputes; `since` is `kept_since`.
    """
    return status in SETTLED and max(facts_at) < since


def retained_until(
    *, settled_at: Iterable[datetime], has_open: bool, now: datetime, retention_days: int, zone: ZoneInfo
) -> date | None:
    """Returns from when on nothing of a person has to be kept any more, or None when nothing is kept now.

    `settled_at` are the last facts of what is settled and kept. What is open (`has_open`) counts as if it were settled
    today, so the day is the earliest possible one.
    """
    facts = [*settled_at, *([now] if has_open else [])]
    if not facts:
        return None
    return free_on(max(facts), retention_days=retention_days, zone=zone)
