"""What is true of the books whatever happened, asked from the database alone.

Written independently of the code that keeps them: each query finds what should not exist, and names it in its first
column.
"""

import asyncpg

FAULTS = {
    "a series' numbers are not exactly 1 to n": """
        select c.series from counter c left join invoice i on i.series = c.series
        group by c.series, c.last_number
        having count(i.id) <> c.last_number
            or count(distinct i.series_number) <> c.last_number
            or coalesce(min(i.series_number), 1) <> 1
            or coalesce(max(i.series_number), 0) <> c.last_number
    """,
    "an invoice has a number of no series": """
        select number from invoice i where not exists (select from counter c where c.series = i.series)
    """,
    "a number is not written as its series and position": """
        select number from invoice
        where number <> series || '-' || case
            when series_number < 10000 then lpad(series_number::text, 4, '0') else series_number::text end
    """,
    "an invoice was issued before its predecessor": """
        select number from (
            select number, created_at, lag(created_at) over (partition by series order by series_number) as before
            from invoice
        ) issued where created_at < before
    """,
    "an invoice is listed out of the order of its number": """
        select number from (
            select number, series_number,
                row_number() over (partition by series order by created_at, id) as place
            from invoice
        ) listed where series_number <> place
    """,
    "an invoice's year is not its series'": """
        select number from invoice
        where abs(extract(year from created_at) - substring(series from '[0-9]{4}$')::int) > 1
    """,
    "lines and tax are not the total": """
        select i.number from invoice i
        left join (select invoice_id, sum(quantity * unit_price_minor) as net from invoice_line group by 1) l
            on l.invoice_id = i.id
        left join (select invoice_id, sum(tax_minor) as tax, sum(net_minor) as net from invoice_tax group by 1) t
            on t.invoice_id = i.id
        where (l.net, t.net, t.tax, l.net + t.tax)
            is distinct from (i.subtotal_minor::numeric, i.subtotal_minor::numeric, i.tax_minor::numeric,
                i.total_minor::numeric)
    """,
    "a status does not follow from the payments": """
        select i.number from invoice i
        left join (select invoice_id, sum(amount_minor) as arrived, count(*) as n from payment group by 1) p
            on p.invoice_id = i.id
        where i.status <> case
            when i.cancelled_at is not null then 'cancelled'
            when coalesce(p.n, 0) > 0 and p.arrived >= i.total_minor then 'paid'
            else 'pending' end
            or (i.status = 'paid') <> (i.paid_at is not null)
            or coalesce(p.arrived, 0) > i.total_minor
    """,
    "a payment is in another currency than its invoice": """
        select i.number from payment p join invoice i on i.id = p.invoice_id where p.currency <> i.currency
    """,
    "an invoice has not exactly one event of its creation": """
        select i.number from invoice i left join event e on e.subject_id = i.id and e.type = 'invoice.created'
        group by i.id, i.number
        having count(e.id) <> 1 or min(e.data ->> 'invoiceNumber') <> i.number
    """,
    "an invoice has not exactly one audit entry of its creation": """
        select i.number from invoice i
        left join audit_entry a on a.entity_id = i.id::text and a.action = 'invoice.created'
        group by i.id, i.number having count(a.id) <> 1
    """,
    "a payment has not exactly one audit entry": """
        select i.number from (select invoice_id, count(*) as n from payment group by 1) p
        join invoice i on i.id = p.invoice_id
        where p.n <> (select count(*) from audit_entry a
            where a.entity_id = i.id::text and a.action = 'payment.succeeded')
    """,
    "a paid invoice has not exactly one event of that": """
        select i.number from invoice i left join event e on e.subject_id = i.id and e.type = 'invoice.paid'
        group by i.id, i.number, i.status
        having count(e.id) <> (i.status = 'paid')::int
    """,
    "an event or audit entry is about an invoice that is not there": """
        select subject_id::text from event e
        where e.type like 'invoice.%' and not exists (select from invoice i where i.id = e.subject_id)
        union all
        select entity_id from audit_entry a
        where a.entity_type = 'invoice' and not exists (select from invoice i where i.id::text = a.entity_id)
    """,
    "a key was kept without its answer": """
        select operation || ' ' || key from idempotency_record
        where (status is null or answer is null)
            and (operation in ('POST /api/invoices', 'POST /api/invoices/batch') or operation like '%/mark-paid')
    """,
}


async def faults_in_books(database_url: str) -> dict[str, list[str]]:
    """What is wrong with the books: for each broken invariant, some of what breaks it. Empty when all hold."""
    connection = await asyncpg.connect(database_url)
    found: dict[str, list[str]] = {}
    try:
        # One snapshot, so that what is written meanwhile is seen whole or not at all.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for fault, query in FAULTS.items():
                rows = await connection.fetch(f"select * from ({query}) found limit 5")
                if rows:
                    found[fault] = [str(row[0]) for row in rows]
    finally:
        await connection.close()
    return found


async def issued_numbers(database_url: str) -> dict[str, str]:
    """The number of every invoice by its id."""
    connection = await asyncpg.connect(database_url)
    try:
        return {str(row["id"]): row["number"] for row in await connection.fetch("select id, number from invoice")}
    finally:
        await connection.close()
