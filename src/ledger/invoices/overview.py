"""`/api/overview`: the figures a treasurer looks at first, and the newest invoices."""

from collections.abc import Sequence

from ledger.invoices.listing import Figure, sum_open, sum_received
from ledger.money import format_money
from ledger.payments.dispute_store import sum_open_disputes
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads
from ledger.web.shapes import Stat, Stats
from ledger.webhooks.notices import count_given_up


@reads("/api/overview/stats", "Count what is open, overdue and was paid this month", callers=STAFF, answer=Stats)
async def show_overview(call: Call[NoBody, NoQuery]) -> Stats:
    now = call.services.clock.now()
    local = now.astimezone(call.services.settings.timezone)
    month = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    async with call.database.connection() as connection:
        still_open = await sum_open(connection, overdue_at=None)
        overdue = await sum_open(connection, overdue_at=now)
        received = await sum_received(connection, since=month)
        disputed = await sum_open_disputes(connection)
        given_up = await count_given_up(connection)
    return Stats(
        stats=[
            Stat(key="open", label="Open", value=_text(still_open), icon="hourglass"),
            Stat(
                key="overdue",
                label="Overdue",
                value=_text(overdue),
                icon="alarm-clock",
                variant="warning" if overdue else None,
            ),
            Stat(key="paidThisMonth", label="Paid This Month", value=_text(received), icon="circle-check"),
            Stat(
                key="disputes",
                label="Disputes",
                value=_text([Figure(each.count, each.currency, each.total_minor) for each in disputed]),
                icon="scale",
                variant="warning" if any(each.unanswered for each in disputed) else None,
            ),
            *_notices(given_up),
        ]
    )


def _notices(given_up: int) -> list[Stat]:
    """What staff has to know of, and is only there when there is something."""
    if given_up == 0:
        return []
    text = "1 webhook subscriber was disabled" if given_up == 1 else f"{given_up} webhook subscribers were disabled"
    return [Stat(key="webhooks", label="Webhooks", value=text, icon="webhook", variant="warning")]


def _text(figures: Sequence[Figure]) -> str:
    """`3 · 178.50 EUR, 5000 JPY`: how many, and their sums by currency."""
    if not figures:
        return "0"
    sums = ", ".join(format_money(figure.total_minor, figure.currency) for figure in figures)
    return f"{sum(figure.count for figure in figures)} · {sums}"


operations = [show_overview]
