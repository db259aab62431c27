"""Fills databases for measuring: set-based SQL in chunks, past every constraint and trigger that invoices have.

What is compared must not differ by accident: both databases have the same persons and statuses in the same shares,
and one user with the same number of invoices, spread evenly over the whole time.
"""

import asyncpg

from ledger.standalone import USER_ID
from ledger.web.paging import Position

PERSONS = 10_000
OWN_INVOICES = 300
_CHUNK = 50_000
# Long enough for a chunk on a slow disk.
_STATEMENT_TIMEOUT_S = 120

# The user of standalone mode is row 1. One invoice in 50 failed, 4 in 50 were cancelled, the others are pending.
_INVOICES = f"""
with made as (
    insert into invoice (id, number, series, series_number, person_id, created_by_service, currency,
        subtotal_minor, tax_minor, total_minor, tax_label, status, due_at, cancelled_at, failed_at,
        payment_reference, created_at)
    select uuidv7(at - now()), 'INV-2026-' || counted, 'INV-2026', n,
        case when n % ($3::bigint / {OWN_INVOICES}) = 0 then 1 else 2 + n * 7919 % {PERSONS - 1} end,
        'standalone-service', 'EUR', 7000, 1330, 8330, 'Tax', status, at + interval '14 days',
        case when status = 'cancelled' then at end, case when status = 'failed' then at end,
        'RF00INV2026' || counted, at
    from (
        select n, now() - ($3::bigint - n) * interval '20 seconds' as at,
            case when n % 50 = 7 then 'failed' when n % 50 between 10 and 13 then 'cancelled' else 'pending' end
                as status
        from generate_series($1::bigint, $2::bigint) as n
    ) as numbered, lateral lpad(n::text, greatest(4, length(n::text)), '0') as counted
    returning id
), lines as (
    insert into invoice_line (invoice_id, position, description, quantity, unit_price_minor, total_minor, tax_rate_bp)
    select id, 1, 'Membership, one month', 1, 7000, 7000, 1900 from made
)
insert into invoice_tax (invoice_id, rate_bp, net_minor, tax_minor) select id, 1900, 7000, 1330 from made
"""


async def add_persons(database_url: str) -> None:
    """Adds the people to bill: `person-1` and on; the first row is the user of standalone mode."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            """
            insert into person (lanyard_user_id, created_at)
            select case n when 1 then $2 else 'person-' || n end, now() from generate_series(1, $1::int) as n
            """,
            PERSONS,
            USER_ID,
        )
        # This table only: one that was vacuumed while it was empty would be planned for as if it stayed empty.
        await connection.execute("vacuum analyze person")
    finally:
        await connection.close()


async def add_counter(database_url: str, *, last_number: int = 0) -> None:
    """Adds the series that numbers are taken from."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("insert into counter values ('INV-2026', $1, now())", last_number)
    finally:
        await connection.close()


async def add_invoices(database_url: str, *, count: int) -> None:
    """Adds persons and `count` invoices to an empty database, the newest now, one each 20 s before it."""
    await add_persons(database_url)
    await add_counter(database_url, last_number=count)
    connection = await asyncpg.connect(database_url, command_timeout=_STATEMENT_TIMEOUT_S)
    try:
        for first in range(1, count + 1, _CHUNK):
            await connection.execute(_INVOICES, first, min(first + _CHUNK - 1, count), count)
        # As autovacuum would have it by the time there are so many.
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def list_invoice_ids(database_url: str, *, count: int) -> list[str]:
    """The ids of `count` invoices, picked at random."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("select id::text from invoice order by random() limit $1", count)
    finally:
        await connection.close()
    return [row[0] for row in rows]


async def find_middle(database_url: str) -> Position:
    """Where the older half of the invoices begins."""
    connection = await asyncpg.connect(database_url)
    try:
        row = await connection.fetchrow(
            """
            select created_at, id::text from invoice
            where series_number = (select last_number / 2 from counter where series = 'INV-2026')
            """
        )
    finally:
        await connection.close()
    assert row is not None, "the invoices were added before"
    return Position(row[0], row[1])
