"""When what points at a person may go: pure, with days as a calendar has them."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.retention.rules import free_on, is_due, kept_since, retained_until

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(
    [ZoneInfo("UTC"), BERLIN, ZoneInfo("Pacific/Kiritimati"), ZoneInfo("Pacific/Pago_Pago"), ZoneInfo("Asia/Kolkata")]
)
MOMENTS = st.integers(0, 100 * 365 * 86_400).map(
    lambda seconds: datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
DAYS = st.integers(1, 36_525)


def test_eight_years_after_2018_are_over_at_the_beginning_of_2027() -> None:
    for fact in (datetime(2018, 1, 1, tzinfo=UTC), datetime(2018, 12, 31, 23, 59, 59, tzinfo=UTC)):
        assert free_on(fact, retention_days=2922, zone=ZoneInfo("UTC")) == date(2027, 1, 1)


def test_a_day_is_the_least() -> None:
    assert free_on(datetime(2026, 3, 15, tzinfo=UTC), retention_days=1, zone=ZoneInfo("UTC")) == date(2027, 1, 2)


def test_the_year_is_that_of_the_books() -> None:
    fact = datetime(2026, 12, 31, 23, 30, tzinfo=UTC)

    assert free_on(fact, retention_days=10, zone=ZoneInfo("UTC")) == date(2027, 1, 11)
    assert free_on(fact, retention_days=10, zone=BERLIN) == date(2028, 1, 11)


@pytest.mark.parametrize(
    ("now", "since"),
    [
        (datetime(2026, 12, 31, 22, 59, tzinfo=UTC), datetime(2017, 12, 31, 23, tzinfo=UTC)),
        (datetime(2026, 12, 31, 23, 0, tzinfo=UTC), datetime(2018, 12, 31, 23, tzinfo=UTC)),
    ],
)
def test_what_is_kept_begins_with_a_year_of_the_books(now: datetime, since: datetime) -> None:
    assert kept_since(now, retention_days=2922, zone=BERLIN) == since


@given(fact=MOMENTS, now=MOMENTS, days=DAYS, zone=ZONES)
def test_a_fact_is_due_exactly_from_its_day_on(fact: datetime, now: datetime, days: int, zone: ZoneInfo) -> None:
    is_over = now.astimezone(zone).date() >= free_on(fact, retention_days=days, zone=zone)

    assert (fact < kept_since(now, retention_days=days, zone=zone)) == is_over


@given(now=MOMENTS, days=DAYS, zone=ZONES)
def test_what_happened_this_year_is_never_due(now: datetime, days: int, zone: ZoneInfo) -> None:
    year = now.astimezone(zone).year

    assert kept_since(now, retention_days=days, zone=zone) <= datetime(year, 1, 1, tzinfo=zone)


@pytest.mark.parametrize("status", ["paid", "refunded", "cancelled", "failed"])
def test_a_settled_invoice_is_due_by_its_last_fact(status: str) -> None:
    since = datetime(2020, 1, 1, tzinfo=UTC)
    before, after = since - timedelta(seconds=1), since

    assert is_due(status=status, facts_at=[before], since=since)
    assert not is_due(status=status, facts_at=[before, after], since=since)


def test_an_open_invoice_is_never_due() -> None:
    long_ago = datetime(1999, 1, 1, tzinfo=UTC)

    assert not is_due(status="pending", facts_at=[long_ago], since=datetime(2020, 1, 1, tzinfo=UTC))


def test_what_is_kept_ends_with_the_last_of_it_and_what_is_open_counts_as_settled_today() -> None:
    now, zone = datetime(2026, 3, 15, tzinfo=UTC), ZoneInfo("UTC")
    old, older = datetime(2024, 5, 1, tzinfo=UTC), datetime(2020, 5, 1, tzinfo=UTC)

    def until(*settled: datetime, has_open: bool = False) -> date | None:
        return retained_until(settled_at=settled, has_open=has_open, now=now, retention_days=365, zone=zone)

    assert until() is None
    assert until(older, old) == date(2026, 1, 1)
    assert until(old, has_open=True) == date(2028, 1, 1)
