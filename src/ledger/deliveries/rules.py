"""When a delivery is tried again, when it is given up, and when its subscriber is.

Everything here is pure: the time and the jitter are handed in.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

import msgspec

# How long after each failed attempt the next one comes; the sum is about 76 hours.
RETRY_DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
ATTEMPTS_MAX = len(RETRY_DELAYS) + 1
# What failed together is not repeated together.
JITTER_SHARE = 0.2
RETRY_AFTER_MAX = timedelta(hours=24)
FAILING_MAX = timedelta(days=5)
GONE = 410


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


DELIVERY_PHRASES: dict[DeliveryStatus, str] = {
    DeliveryStatus.PENDING: "waits to be sent, for the first time or once more",
    DeliveryStatus.DELIVERED: "the subscriber has taken it",
    DeliveryStatus.FAILED: "was given up; it can be sent again by hand",
}


class Delivered(msgspec.Struct, frozen=True):
    """The subscriber took it."""


class RetryAt(msgspec.Struct, frozen=True):
    """It failed, and is tried again at this moment."""

    at: datetime


class GiveUp(msgspec.Struct, frozen=True):
    """It failed for good. `is_gone`: the subscriber said that it wants nothing any more, so it is disabled."""

    is_gone: bool


Verdict = Delivered | RetryAt | GiveUp


def is_success(status: int | None) -> bool:
    """Whether an answer means that the subscriber took the delivery; None is no answer."""
    return status is not None and 200 <= status < 300


def after_attempt(
    *, status: int | None, retry_after: str | None, attempts: int, now: datetime, jitter: float
) -> Verdict:
    """What becomes of a delivery after an attempt that was answered with `status` (None: with nothing).

    `attempts` counts this one. `retry_after` is the answer's header of that name. `jitter` is from -1 to 1.
    """
    if is_success(status):
        return Delivered()
    if status == GONE:
        return GiveUp(is_gone=True)
    if attempts >= ATTEMPTS_MAX:
        return GiveUp(is_gone=False)
    at = now + RETRY_DELAYS[attempts - 1] * (1 + JITTER_SHARE * jitter)
    wished = read_retry_after(retry_after, now=now)
    return RetryAt(at if wished is None else max(at, wished))


def read_retry_after(text: str | None, *, now: datetime) -> datetime | None:
    """The moment a `Retry-After` header names (RFC 9110, 10.2.3), at most 24 hours ahead; None when it names none."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdecimal():
        # A number of more digits is longer than a day, too, and need not be read.
        return now + min(timedelta(seconds=int(text[:9])), RETRY_AFTER_MAX)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return min(moment, now + RETRY_AFTER_MAX)


def why_status_failed(status: int) -> str:
    """What an answer other than 2xx means, as a sentence."""
    if status == GONE:
        return "It answered 410: it wants no deliveries any more"
    if 300 <= status < 400:
        return f"It answered {status}, a redirect; redirects are not followed, so enter the address it leads to"
    return f"It answered {status}"


class Result(msgspec.Struct, frozen=True):
    """How an attempt ended, for the subscriber's record."""

    at: datetime
    is_success: bool


def failing_after(failing_since: datetime | None, results: Iterable[Result]) -> datetime | None:
    """Since when a subscriber only fails, after further results in their order; None when the last one succeeded."""
    for result in results:
        if result.is_success:
            failing_since = None
        elif failing_since is None:
            failing_since = result.at
    return failing_since


def is_given_up(failing_since: datetime | None, *, now: datetime) -> bool:
    """Whether a subscriber whose attempt just failed has failed for so long that it is disabled."""
    return failing_since is not None and now - failing_since >= FAILING_MAX
