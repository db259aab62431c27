"""When deliveries are repeated and given up: no database, no clock but the one handed in."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.deliveries.rules import (
    ATTEMPTS_MAX,
    DELIVERY_PHRASES,
    FAILING_MAX,
    RETRY_AFTER_MAX,
    RETRY_DELAYS,
    Delivered,
    DeliveryStatus,
    GiveUp,
    Result,
    RetryAt,
    after_attempt,
    failing_after,
    is_given_up,
    read_retry_after,
    why_status_failed,
)

NOW = datetime(2026, 3, 15, 9, 30, tzinfo=UTC)


def verdict(
    status: int | None, *, attempts: int = 1, retry_after: str | None = None, jitter: float = 0.0
) -> Delivered | timedelta | GiveUp:
    """The verdict, with the time until the next attempt instead of its moment."""
    found = after_attempt(status=status, retry_after=retry_after, attempts=attempts, now=NOW, jitter=jitter)
    return found.at - NOW if isinstance(found, RetryAt) else found


def test_the_schedule_is_the_promised_one() -> None:
    hour = 3600
    seconds = [delay.total_seconds() for delay in RETRY_DELAYS]
    assert seconds == [5, 300, 1800, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    assert timedelta(hours=75) < sum(RETRY_DELAYS, timedelta()) < timedelta(hours=76)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_delivery(status: int) -> None:
    assert verdict(status) == Delivered()
    assert verdict(status, attempts=ATTEMPTS_MAX, retry_after="60") == Delivered()


@pytest.mark.parametrize("status", [None, 100, 199, 300, 301, 302, 304, 307, 308, 400, 401, 404, 409, 429, 500, 503])
def test_everything_else_is_tried_again_and_given_up_after_the_last_attempt(status: int | None) -> None:
    assert [verdict(status, attempts=number) for number in range(1, ATTEMPTS_MAX)] == list(RETRY_DELAYS)
    assert verdict(status, attempts=ATTEMPTS_MAX) == GiveUp(is_gone=False)
    assert verdict(status, attempts=ATTEMPTS_MAX + 1, retry_after="60") == GiveUp(is_gone=False)


def test_410_is_given_up_at_once() -> None:
    assert verdict(410) == GiveUp(is_gone=True)
    assert verdict(410, retry_after="60") == GiveUp(is_gone=True)


@given(attempts=st.integers(1, ATTEMPTS_MAX - 1), jitter=st.floats(-1, 1))
def test_the_jitter_is_at_most_a_fifth(attempts: int, jitter: float) -> None:
    waited = verdict(500, attempts=attempts, jitter=jitter)
    assert isinstance(waited, timedelta)
    assert RETRY_DELAYS[attempts - 1] * 0.8 <= waited <= RETRY_DELAYS[attempts - 1] * 1.2
    assert verdict(500, attempts=attempts, jitter=1) > verdict(500, attempts=attempts, jitter=-1)  # type: ignore[operator]


@pytest.mark.parametrize("status", [429, 503, 500, 302])
def test_retry_after_is_honoured_when_it_is_later_and_at_most_a_day(status: int) -> None:
    assert verdict(status, retry_after="120") == timedelta(seconds=120)
    assert verdict(status, retry_after="2") == RETRY_DELAYS[0]
    assert verdict(status, retry_after="999999999") == RETRY_AFTER_MAX
    assert verdict(status, attempts=9, retry_after="60") == RETRY_DELAYS[8]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (" 90 ", 90),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 5000, 86_400),
        ("Sun, 15 Mar 2026 09:31:00 GMT", 60),
        ("Sunday, 15-Mar-26 09:31:00 GMT", 60),
        ("Sun Mar 15 09:31:00 2026", 60),
        ("Sun, 15 Mar 2026 10:31:00 +0100", 60),
        ("Sat, 14 Mar 2026 09:30:00 GMT", -86_400),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text: str, seconds: int) -> None:
    assert read_retry_after(text, now=NOW) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "-5", "1.5", "1e3", "٣", "0x10", "\x00", "1 2", None),
        *("Sun, 99 Mar 2026 09:31:00 GMT", "Sun, 15 Mar", "Fri, 31 Dec 9999 23:59:59 -0100"),
    ],
)
def test_a_retry_after_that_says_nothing_is_left_aside(text: str | None) -> None:
    assert read_retry_after(text, now=NOW) is None


@given(text=st.text(max_size=60))
def test_no_retry_after_breaks_anything(text: str) -> None:
    moment = read_retry_after(text, now=NOW)
    assert moment is None or moment <= NOW + RETRY_AFTER_MAX


def test_failures_are_counted_from_the_first_since_the_last_success() -> None:
    first, second = NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)
    good, bad, bad_again = Result(NOW, True), Result(first, False), Result(second, False)
    assert failing_after(None, [bad, bad_again]) == first
    assert failing_after(NOW, [bad]) == NOW
    assert failing_after(NOW, [good]) is None
    assert failing_after(NOW, [good, bad_again]) == second
    assert failing_after(NOW, [bad, good]) is None
    assert failing_after(NOW, []) == NOW


def test_a_subscriber_is_given_up_after_five_days_of_failures() -> None:
    assert not is_given_up(None, now=NOW)
    assert not is_given_up(NOW - FAILING_MAX + timedelta(seconds=1), now=NOW)
    assert is_given_up(NOW - FAILING_MAX, now=NOW)
    assert timedelta(days=5) == FAILING_MAX


def test_answers_are_explained() -> None:
    assert why_status_failed(500) == "It answered 500"
    assert "redirects are not followed" in why_status_failed(302)
    assert "no deliveries any more" in why_status_failed(410)
    assert set(DELIVERY_PHRASES) == set(DeliveryStatus)
