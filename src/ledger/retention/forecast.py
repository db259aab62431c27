"""What will be erased when, as it stands now: counted for staff, who should not be surprised by it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import msgspec

from ledger.database.connection import Connection
from ledger.retention.freeing import LAST_FACT
from ledger.retention.rules import SETTLED, free_on

# The invoices of a year are counted to this many: each needs its payments looked up.
COUNTED_A_YEAR = 2_000
_YEARS_MAX = 150


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """Invoices that lose their person on the same day: those whose last financial fact was in `year`."""

    year: int
    on: date
    invoices: int
    is_more: bool
    """Whether there are more: not all invoices of the year were counted."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is due when, the earliest first, and how many invoices wait to be settled."""

    due: Sequence[Due]
    open: int
    open_is_more: bool


async def read_forecast(connection: Connection, *, now: datetime, retention_days: int, zone: ZoneInfo) -> Forecast:
    """Counts the invoices that still name a person, by the year of their last fact."""
    oldest: datetime | None = await connection.fetchval("select min(created_at) from invoice")
    if oldest is None:
        return Forecast(due=[], open=0, open_is_more=False)
    last = now.astimezone(zone).year
    first = max(min(oldest.astimezone(zone).year, last), last - _YEARS_MAX)
    begins = [datetime(year, 1, 1, tzinfo=zone).astimezone(UTC) for year in range(first, last + 2)]
    rows = await connection.fetch(
        f"""
        with counted as (
            select issued.place, i.status = any($2::text[]) as is_settled, {LAST_FACT} as last_at
            from generate_series(1, cardinality($1::timestamptz[]) - 1) as issued (place)
            cross join lateral (
                select * from invoice
                where created_at >= ($1::timestamptz[])[issued.place]
                    and created_at < ($1::timestamptz[])[issued.place + 1] and person_id is not null
                order by created_at limit $3
            ) i
        )
        select place, is_settled and last_at < 'infinity' as is_settled,
            least(width_bucket(last_at, $1::timestamptz[]), cardinality($1::timestamptz[]) - 1) as last_place,
            count(*) as invoices
        from counted group by 1, 2, 3
        """,
        begins,
        list(SETTLED),
        COUNTED_A_YEAR + 1,
    )
    return _summed(
        [(row["place"], row["is_settled"], row["last_place"], row["invoices"]) for row in rows],
        first_year=first,
        retention_days=retention_days,
        zone=zone,
    )


def _summed(
    rows: Sequence[tuple[int, bool, int, int]], *, first_year: int, retention_days: int, zone: ZoneInfo
) -> Forecast:
    """Adds up (year of issue, is settled, year of the last fact, count); years are places from 1 on."""
    counted: dict[int, int] = {}
    for place, _, _, count in rows:
        counted[place] = counted.get(place, 0) + count
    cut = {place for place, count in counted.items() if count > COUNTED_A_YEAR}
    due: dict[int, tuple[int, bool]] = {}
    waiting, waiting_is_more = 0, False
    for place, is_settled, last_place, count in rows:
        if is_settled:
            before, is_more = due.get(last_place, (0, False))
            due[last_place] = (before + count, is_more or place in cut)
        else:
            waiting, waiting_is_more = waiting + count, waiting_is_more or place in cut
    return Forecast(
        due=[
            Due(
                year=first_year + place - 1,
                on=free_on(
                    datetime(first_year + place - 1, 7, 1, tzinfo=zone), retention_days=retention_days, zone=zone
                ),
                # One more than is counted to was read, to know that there are more.
                invoices=count - is_more,
                is_more=is_more,
            )
            for place, (count, is_more) in sorted(due.items())
        ],
        open=waiting - waiting_is_more,
        open_is_more=waiting_is_more,
    )
