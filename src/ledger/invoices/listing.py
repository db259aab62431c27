"""SQL for lists of invoices and for the figures of the overview. Every list walks an index, newest first."""

import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.invoices.store import INVOICE_COLUMNS, Invoice, invoice_of_row
from ledger.payments.reference import is_creditor_reference, normalise_reference
from ledger.payments.store import CREDIT_METHOD
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor


class InvoiceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shall contain; None does not narrow it. `number` and `person_ids` together mean either."""

    status: str | None = None
    overdue_at: datetime | None = None
    user_id: str | None = None
    number: str | None = None
    person_ids: Sequence[int] | None = None
    created_from: datetime | None = None
    created_until: datetime | None = None


class Figure(msgspec.Struct, frozen=True):
    """How many invoices (or payments), and their sum per currency in minor units."""

    count: int
    currency: str
    total_minor: int


def is_overdue_sql(*, now: str) -> str:
    """The condition that `rules.is_overdue` is, for rows of `invoice i`; `now` is the placeholder of the time."""
    return (
        f"(i.status = 'pending' and i.due_at < {now} "
        f"and (i.due_at <= {now} - interval '1 day' or i.due_at <> date_trunc('day', i.due_at, 'UTC')))"
    )


def _conditions(wanted: InvoiceFilter, values: list[object]) -> str:
    """The `where` of a filter; the values are appended in the order of their placeholders."""

    def placed(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    conditions = ["true"]
    if wanted.status is not None:
        conditions.append(f"i.status = {placed(wanted.status)}")
    if wanted.overdue_at is not None:
        conditions.append(is_overdue_sql(now=placed(wanted.overdue_at)))
    if wanted.user_id is not None:
        conditions.append(f"i.person_id = (select id from person where lanyard_user_id = {placed(wanted.user_id)})")
    if wanted.created_from is not None:
        conditions.append(f"i.created_at >= {placed(wanted.created_from)}")
    if wanted.created_until is not None:
        conditions.append(f"i.created_at <= {placed(wanted.created_until)}")
    if wanted.number is not None:
        conditions.append(_number_or_person(wanted, placed_number=placed(wanted.number), values=values))
    return " and ".join(conditions)


_COMPACT_NUMBER = re.compile(r"INV(\d{4})(\d{4,15})")


def _number_or_person(wanted: InvoiceFilter, *, placed_number: str, values: list[object]) -> str:
    assert wanted.number is not None
    either = [f"i.number like {placed_number} || '%'"]
    if (compact := _COMPACT_NUMBER.fullmatch("".join(wanted.number.split()))) is not None:
        # As bank statements often show it: without `RF` and the check digits.
        values.append(f"INV-{compact[1]}-{compact[2]}")
        either.append(f"i.number = ${len(values)}")
    if is_creditor_reference(wanted.number):
        values.append(normalise_reference(wanted.number))
        either.append(f"i.payment_reference = ${len(values)}")
    if wanted.number.isdecimal() and len(wanted.number) <= 18:
        values.append(int(wanted.number))
        either.append(f"i.series_number = ${len(values)}")
    if wanted.person_ids:
        values.append(list(wanted.person_ids))
        either.append(f"i.person_id = any(${len(values)}::bigint[])")
    return f"({' or '.join(either)})"


async def list_invoices(
    connection: Connection, *, wanted: InvoiceFilter, after: Position | None, limit: int
) -> Page[Invoice]:
    """Invoices that match, newest first."""
    values: list[object] = []
    matching = _conditions(wanted, values)
    found = await connection.fetchval(
        f"select count(*) from (select from invoice i where {matching} limit {COUNTED_MAX + 1}) counted",
        *values,
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (i.created_at, i.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"""
        select {INVOICE_COLUMNS} from invoice i where {matching}
        order by i.created_at desc, i.id desc limit ${len(values)}
        """,
        *values,
    )
    invoices = [invoice_of_row(row) for row in rows[:limit]]
    total, is_more = counted(found)
    last = invoices[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=invoices, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_paid_minor(connection: Connection, *, invoice_ids: Sequence[str]) -> dict[str, int]:
    """What arrived for each invoice; one without payments is missing."""
    rows = await connection.fetch(
        """
        select invoice_id, sum(amount_minor)::bigint as paid from payment
        where invoice_id = any($1::uuid[]) group by invoice_id
        """,
        invoice_ids,
    )
    return {str(row["invoice_id"]): row["paid"] for row in rows}


async def sum_open(connection: Connection, *, overdue_at: datetime | None) -> list[Figure]:
    """Open invoices (with `overdue_at`: only those overdue then) per currency, and what is still owed on them."""
    rows = await connection.fetch(
        f"""
        with wanted as (
            select i.id, i.currency, i.total_minor from invoice i
            where i.status in ('pending', 'failed')
                and ($1::timestamptz is null or {is_overdue_sql(now="$1")})
        ), arrived as (
            select wanted.currency, sum(payment.amount_minor) as paid_minor
            from wanted join payment on payment.invoice_id = wanted.id
            group by wanted.currency
        )
        select count(*), currency, (sum(total_minor) - coalesce(max(paid_minor), 0))::bigint
        from wanted left join arrived using (currency)
        group by currency order by 3 desc
        """,
        overdue_at,
    )
    return [Figure(*row.values()) for row in rows]


async def sum_received(connection: Connection, *, since: datetime) -> list[Figure]:
    """Payments received since, per currency. What was settled from credit was received before."""
    rows = await connection.fetch(
        """
        select count(*), currency, sum(amount_minor)::bigint from payment
        where received_at >= $1 and method <> $2 group by currency order by 3 desc
        """,
        since,
        CREDIT_METHOD,
    )
    return [Figure(*row.values()) for row in rows]


async def list_person_ids(connection: Connection, *, user_ids: Sequence[str]) -> list[int]:
    """The rows of Lanyard users; unknown ones are missing."""
    rows = await connection.fetch("select id from person where lanyard_user_id = any($1::text[])", user_ids)
    return [row["id"] for row in rows]
