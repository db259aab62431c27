"""S6: `ledger retention` over invoices whose time is up, all at once, beside somebody who works with the same rows.

The invoices have what invoices have: lines, tax, payments with a reference, refunds, audit entries, events. All of it
is so old that everything is due, which does not happen in practice: there, a year's invoices are due on one day.
"""

import asyncio
import random
import time
from pathlib import Path

import asyncpg
import msgspec

from bench.installation import LEDGER_COMMAND, BenchFailed, Ledger

_CHUNK = 50_000
_STATEMENT_TIMEOUT_S = 300
_RUN_TIMEOUT_S = 1_800
_INVOICES_A_PERSON = 10
_POKED = 2_000
_POKE_EVERY_S = 0.005
_SAMPLE_EVERY_S = 0.05

# One invoice in 50 failed, 4 in 50 were cancelled, one was refunded; the others are paid.
_INVOICES = """
with made as (
    insert into invoice (id, number, series, series_number, person_id, created_by_service, currency,
        subtotal_minor, tax_minor, total_minor, tax_label, status, due_at, paid_at, cancelled_at, failed_at, notes,
        payment_reference, created_at)
    select uuidv7(at - now()), 'INV-2005-' || counted, 'INV-2005', n, 1 + n % $3::bigint,
        'standalone-service', 'EUR', 7000, 1330, 8330, 'Tax', status, at + interval '14 days',
        case when status in ('paid', 'refunded') then at end, case when status = 'cancelled' then at end,
        case when status = 'failed' then at end, case when n % 5 = 0 then 'Ordered by phone' end,
        'RF00INV2005' || counted, at
    from (
        select n, timestamptz '2005-01-01 00:00Z' + n * interval '1 minute' as at,
            case when n % 50 = 7 then 'failed' when n % 50 between 10 and 13 then 'cancelled'
                when n % 50 = 20 then 'refunded' else 'paid' end as status
        from generate_series($1::bigint, $2::bigint) as n
    ) as numbered, lateral lpad(n::text, greatest(4, length(n::text)), '0') as counted
    returning id, number, person_id, status, created_at
), lines as (
    insert into invoice_line (invoice_id, position, description, quantity, unit_price_minor, total_minor, tax_rate_bp)
    select id, 1, 'Membership, one month', 1, 7000, 7000, 1900 from made
), shares as (
    insert into invoice_tax (invoice_id, rate_bp, net_minor, tax_minor) select id, 1900, 7000, 1330 from made
), payments as (
    insert into payment (id, invoice_id, amount_minor, currency, provider, method, reference, is_unexpected,
        received_at, created_at)
    select uuidv7(created_at - now()), id, 8330, 'EUR', 'manual', 'bank_transfer', 'STMT ' || number, false,
        created_at, created_at
    from made where status in ('paid', 'refunded')
), audited as (
    insert into audit_entry (action, entity_type, entity_id, actor_kind, actor_person_id, actor_name, created_at)
    select action, 'invoice', id::text, kind, case when kind = 'person' then person_id end,
        case when kind = 'service' then 'standalone-service' end, created_at
    from made, (values ('invoice.created', 'service'), ('payment.succeeded', 'person')) as done (action, kind)
)
insert into event (id, type, subject_id, person_id, data, created_at, is_fanned_out)
select uuidv7(created_at - now()), type, id, person_id,
    jsonb_build_object('invoiceId', id, 'invoiceNumber', number, 'total', 8330, 'currency', 'EUR'), created_at, true
from made, (values ('invoice.created'), ('invoice.paid')) as told (type)
"""
_REFUNDS = """
insert into refund (id, payment_id, amount_minor, currency, status, reason, created_at, settled_at, looks)
select uuidv7(p.created_at - now()), p.id, p.amount_minor, 'EUR', 'succeeded', 'Came back', p.created_at,
    p.created_at, 0
from invoice i join payment p on p.invoice_id = i.id
where i.status = 'refunded' and i.series_number between $1 and $2
"""


class RetentionRun(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: its time, the peak of its memory, and how long it kept others from rows at most."""

    took_s: float
    peak_mib: float
    longest_wait_s: float
    longest_transaction_s: float


async def add_old_invoices(database_url: str, *, count: int) -> None:
    """Adds `count` invoices of 2005 and after to an empty database, ten for each person."""
    persons = max(1, count // _INVOICES_A_PERSON)
    connection = await asyncpg.connect(database_url, command_timeout=_STATEMENT_TIMEOUT_S)
    try:
        await connection.execute("insert into counter values ('INV-2005', $1, '2007-01-01')", count)
        await connection.execute(
            """
            insert into person (lanyard_user_id, created_at)
            select 'person-' || n, '2005-01-01' from generate_series(1, $1::int) as n
            """,
            persons,
        )
        for first in range(1, count + 1, _CHUNK):
            last = min(first + _CHUNK - 1, count)
            await connection.execute(_INVOICES, first, last, persons)
            await connection.execute(_REFUNDS, first, last)
        # As autovacuum would have it by the time there are so many.
        await connection.execute("vacuum analyze")
    finally:
        await connection.close()


async def run_retention(ledger: Ledger) -> RetentionRun:
    """Runs the command on the ledger's database, while others lock its rows one by one. Raises `BenchFailed`."""
    connections = [await asyncpg.connect(ledger.database_url) for _ in range(3)]
    invoices = [row[0] for row in await connections[0].fetch("select id from invoice limit $1", _POKED)]
    persons = [row[0] for row in await connections[0].fetch("select id from person limit $1", _POKED)]
    ledger.data_dir.mkdir(parents=True, exist_ok=True)
    began_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        LEDGER_COMMAND,
        "retention",
        env=ledger.environment(),
        cwd=ledger.data_dir,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    over = asyncio.Event()
    watching = [
        asyncio.create_task(_poke(connections[0], "invoice", invoices, "no key update", over)),
        asyncio.create_task(_poke(connections[1], "person", persons, "key share", over)),
        asyncio.create_task(_watch_transactions(connections[2], over)),
        asyncio.create_task(_watch_memory(process.pid, over)),
    ]
    try:
        said, _ = await asyncio.wait_for(process.communicate(), timeout=_RUN_TIMEOUT_S)
        took_s = time.perf_counter() - began_s
    finally:
        over.set()
        found = await asyncio.gather(*watching)
        left = await connections[0].fetchval("select count(*) from person")
        for connection in connections:
            await connection.close()
    # A few are left to the next run, because somebody had their invoices just then.
    if process.returncode != 0 or left > _POKED:
        raise BenchFailed(f"`ledger retention` left {left} people; it said:\n{said.decode(errors='replace')}")
    return RetentionRun(
        took_s=took_s,
        longest_wait_s=max(found[0], found[1]),
        longest_transaction_s=found[2],
        peak_mib=found[3],
    )


async def _poke(
    connection: "asyncpg.Connection[asyncpg.Record]", table: str, ids: list[object], lock: str, over: asyncio.Event
) -> float:
    """Locks one row after the other, as who pays or bills does; returns the longest it took, in seconds."""
    source = random.Random(6)
    longest_s = 0.0
    while not over.is_set():
        began_s = time.perf_counter()
        async with connection.transaction():
            await connection.execute(f"select from {table} where id = $1 for {lock}", source.choice(ids))
            longest_s = max(longest_s, time.perf_counter() - began_s)
        await asyncio.sleep(_POKE_EVERY_S)
    return longest_s


async def _watch_transactions(connection: "asyncpg.Connection[asyncpg.Record]", over: asyncio.Event) -> float:
    """The longest that a transaction of Ledger's was seen to last, in seconds: no lock is held for longer."""
    longest_s = 0.0
    while not over.is_set():
        lasted_s = await connection.fetchval(
            """
            select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8
            from pg_stat_activity where application_name = 'ledger'
            """
        )
        longest_s = max(longest_s, lasted_s)
        await asyncio.sleep(_SAMPLE_EVERY_S)
    return longest_s


async def _watch_memory(pid: int, over: asyncio.Event) -> float:
    """The peak of a process's memory in MiB, as Linux has it."""
    peak_mib = 0.0
    while not over.is_set():
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            break
        peaks = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        peak_mib = max(peak_mib, *(kib / 1024 for kib in peaks), 0.0)
        await asyncio.sleep(_SAMPLE_EVERY_S)
    return peak_mib
