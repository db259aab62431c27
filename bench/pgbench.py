"""What PostgreSQL itself reaches with the same work: one transaction, one statement, one round trip per invoice.

The statement leaves the same rows behind as `POST /api/invoices` does: a number taken from the gapless counter, the
invoice, two lines, one share of tax, an audit entry and an event. It has the same triggers and constraints to pass,
and no HTTP, no JSON and no identity in front of it.
"""

import os
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from ledger.database.transaction import SERVER_SETTINGS
from ledger.embedded import pg_bin_dir

THREADS = 2

STATEMENT = """\
with taken as (
    update counter set last_number = last_number + 1, last_issued_at = greatest(last_issued_at, now())
    where series = 'INV-2026'
    returning series, last_number as n, last_issued_at as issued_at
), issued as (
    insert into invoice (id, number, series, series_number, person_id, created_by_service, currency,
        subtotal_minor, tax_minor, total_minor, tax_label, status, payment_reference, created_at)
    select uuidv7(), series || '-' || counted, series, n, :person,
        'standalone-service', 'EUR', 7000, 1330, 8330, 'Tax', 'pending',
        'RF' || lpad((98 - ('1823312026' || counted || '271500')::numeric % 97)::text, 2, '0') || 'INV2026' || counted,
        issued_at
    from taken, lateral lpad(n::text, greatest(4, length(n::text)), '0') as counted
    returning id, number, person_id, subtotal_minor, tax_minor, total_minor, currency, status, created_at
), lines as (
    insert into invoice_line (invoice_id, position, description, quantity, unit_price_minor, total_minor, tax_rate_bp)
    select id, line.position, line.description, line.quantity, line.price, line.quantity * line.price, 1900
    from issued, (values (1, 'Membership, one month', 1, 5000), (2, 'Locker', 2, 1000))
        as line (position, description, quantity, price)
), shares as (
    insert into invoice_tax (invoice_id, rate_bp, net_minor, tax_minor)
    select id, 1900, subtotal_minor, tax_minor from issued
), audited as (
    insert into audit_entry (action, entity_type, entity_id, actor_kind, actor_name, details, created_at)
    select 'invoice.created', 'invoice', id::text, 'service', 'standalone-service',
        jsonb_build_object('number', number), created_at
    from issued
)
insert into event (id, type, subject_id, person_id, data, created_at)
select uuidv7(), 'invoice.created', id, person_id,
    jsonb_build_object('invoiceId', id, 'invoiceNumber', number, 'status', status, 'total', total_minor,
        'currency', currency),
    created_at
from issued;
"""


class PgbenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions a second, and the average time of one in milliseconds."""

    tps: float
    latency_ms: float


class PgbenchFailed(Exception):
    """`pgbench` ended with an error, or some of its transactions did."""


def run_pgbench(database_url: str, *, clients: int, measured_s: int, persons: int) -> PgbenchResult:
    """Runs the statement over `clients` connections. Raises `PgbenchFailed`."""
    with TemporaryDirectory(prefix="ledger-bench-") as folder:
        script = Path(folder) / "invoice.sql"
        script.write_text(f"\\set person random(1, {persons})\n{STATEMENT}")
        command = [str(pg_bin_dir() / "pgbench"), "-M", "prepared", "-n", "-f", str(script)]
        command += ["-c", str(clients), "-j", str(min(THREADS, clients)), "-T", str(measured_s), database_url]
        # Planned for the same disk as Ledger's statements.
        planned = {"PGOPTIONS": f"-c random_page_cost={SERVER_SETTINGS['random_page_cost']}"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=measured_s + 30, check=False, env=os.environ | planned
        )
    said = done.stdout
    tps = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    latency_ms = re.search(r"^latency average = ([0-9.]+) ms", said, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: ([0-9]+)", said, re.MULTILINE)
    if done.returncode != 0 or tps is None or latency_ms is None or (failed and failed[1] != "0"):
        raise PgbenchFailed(f"pgbench failed: {done.stderr.strip() or said.strip()}")
    return PgbenchResult(tps=float(tps[1]), latency_ms=float(latency_ms[1]))
