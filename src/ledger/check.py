"""`ledger check`: settings, database, migrations, Lanyard, stored secrets, and whether the books are right.

The books are recomputed from the facts, independently of the code that writes them: each query finds what should not
exist. They run on a live database, in one snapshot, and read in the database, so memory stays bounded.
"""

import asyncio
from datetime import datetime

import asyncpg

from ledger.audit.actions import verify_chain
from ledger.clock import SystemClock
from ledger.crypto import Vault
from ledger.database.connection import Connection, prepare_connection
from ledger.database.installation import get_revision
from ledger.database.revision import HEAD_REVISION
from ledger.errors import LedgerError
from ledger.lanyard import LanyardClient
from ledger.mail.rendering import Templates
from ledger.retention.rules import PAYLOADS_KEPT
from ledger.rotation import list_unreadable_secrets
from ledger.settings import Settings

CONNECT_TIMEOUT_S = 5
# Walking a million invoices takes a while; a check that never ends helps nobody.
CHECK_TIMEOUT_S = 600
NAMED_MAX = 5

# What is wrong, in words, and the query that finds it. Each row starts with the name of what is wrong.
BOOKS = (
    (
        "the lines of {names} do not add up to the subtotal",
        """
        select i.number from invoice i
        left join (
            select invoice_id, sum(total_minor) as net from invoice_line group by invoice_id
        ) l on l.invoice_id = i.id
        where coalesce(l.net, -1) <> i.subtotal_minor
        """,
    ),
    (
        "the tax shares of {names} do not add up to the invoice",
        """
        select i.number from invoice i
        left join (
            select invoice_id, sum(net_minor) as net, sum(tax_minor) as tax from invoice_tax group by invoice_id
        ) t on t.invoice_id = i.id
        where coalesce(t.net, -1) <> i.subtotal_minor or coalesce(t.tax, -1) <> i.tax_minor
            or i.subtotal_minor + i.tax_minor <> i.total_minor
        """,
    ),
    (
        # A provider rounds the tax of each line of a subscription's bill, and sets its own limits to fractions.
        "the tax of {names} is not its rate on its lines, rounded half away from zero",
        """
        select distinct i.number from invoice_tax t join invoice i on i.id = t.invoice_id
        left join (
            select invoice_id, tax_rate_bp, sum(total_minor) as net, count(*) as lines
            from invoice_line group by invoice_id, tax_rate_bp
        ) l on l.invoice_id = t.invoice_id and l.tax_rate_bp = t.rate_bp
        left join subscription_period s on s.invoice_id = t.invoice_id
        where l.net is distinct from t.net_minor
            or abs(t.tax_minor - round(t.net_minor * t.rate_bp / 10000.0)) >
                case when s.invoice_id is null then 0 else l.lines end
        """,
    ),
    (
        "the numbers of {names} are not exactly 1 to n",
        """
        select c.series from counter c
        left join (
            select series, count(*) as issued, min(series_number) as first, max(series_number) as last
            from invoice group by series
        ) i on i.series = c.series
        where coalesce(i.issued, 0) <> c.last_number or coalesce(i.last, 0) <> c.last_number
            or (c.last_number > 0 and i.first <> 1)
        """,
    ),
    (
        "{names} were issued before an invoice with a smaller number",
        """
        select number from (
            select number, created_at, lag(created_at) over (partition by series order by series_number) as before
            from invoice
        ) ordered where created_at < before
        """,
    ),
    (
        "the state of {names} does not follow from their payments",
        """
        select i.number from invoice i
        left join (
            select p.invoice_id, count(*) as payments, sum(p.amount_minor) as paid,
                sum(coalesce((
                    select sum(r.amount_minor) from refund r where r.payment_id = p.id and r.status = 'succeeded'
                ), 0)) as refunded
            from payment p group by p.invoice_id
        ) p on p.invoice_id = i.id
        where i.status <> case
            when i.cancelled_at is not null then 'cancelled'
            when coalesce(p.payments, 0) > 0 and p.paid >= i.total_minor and p.paid > 0 and p.refunded >= p.paid
                then 'refunded'
            when coalesce(p.payments, 0) > 0 and p.paid >= i.total_minor then 'paid'
            when i.failed_at is not null and coalesce(p.paid, 0) <= coalesce(p.refunded, 0) then 'failed'
            else 'pending'
        end
        """,
    ),
    (
        "{names} are paid without a time of payment, or the other way round",
        """
        select number from invoice
        where (status in ('paid', 'refunded') and paid_at is null)
            or (status in ('pending', 'failed') and paid_at is not null)
        """,
    ),
    (
        "more was refunded of {names} than was paid",
        """
        select i.number from payment p join invoice i on i.id = p.invoice_id join refund r on r.payment_id = p.id
        where r.status <> 'failed'
        group by p.id, i.number, p.amount_minor having sum(r.amount_minor) > p.amount_minor
        """,
    ),
    (
        "a checkout of {names} was paid, and there is no payment for it",
        """
        select i.number from checkout c join invoice i on i.id = c.invoice_id
        where c.status = 'paid' and not exists (
            select from payment p where p.invoice_id = c.invoice_id and p.connection_id = c.connection_id
        )
        """,
    ),
    (
        "the subscription {names} is live without its provider ever having said that it is paid",
        """
        select id::text from subscription
        where status in ('active', 'past_due', 'paused') and (activated_at is null or remote_id is null)
        """,
    ),
    (
        "{names} were booked for a subscription and are not paid",
        """
        select i.number from subscription_period s join invoice i on i.id = s.invoice_id
        where i.status not in ('paid', 'refunded')
        """,
    ),
    (
        "payments of {names} are in another currency than the invoice",
        "select i.number from payment p join invoice i on i.id = p.invoice_id where p.currency <> i.currency",
    ),
    (
        "{names} have no audit entry of their creation",
        """
        select i.number from invoice i
        where not exists (select from audit_entry a
            where a.entity_type = 'invoice' and a.entity_id = i.id::text and a.action = 'invoice.created')
        """,
    ),
    (
        # Events of earlier ones go in time.
        "{names} have no event of their creation",
        """
        select i.number from invoice i
        where i.created_at >= $1
            and not exists (select from event e where e.subject_id = i.id and e.type = 'invoice.created')
        """,
    ),
)


async def check(settings: Settings) -> list[str]:
    """Returns a sentence for each thing that is wrong; nothing wrong is an empty list."""
    problems = await _check_database(settings)
    problems += Templates(settings.mail_templates).problems()
    if settings.identity == "lanyard":
        problems += await _check_lanyard(settings)
    return problems


async def _check_database(settings: Settings) -> list[str]:
    try:
        connection = await asyncpg.connect(settings.require_database_url(), timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        return [f"The database does not answer ({type(error).__name__}): check DATABASE_URL and the server."]
    try:
        revision = await get_revision(connection)
        if revision is None:
            return ["The database is empty: run `ledger migrate`."]
        if revision < HEAD_REVISION:
            return [f"The schema is at {revision} and {HEAD_REVISION} is needed: run `ledger migrate`."]
        await prepare_connection(connection)
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return [*await check_books(connection), *await check_secrets(connection, settings)]
    except TimeoutError:
        return [f"The books could not be checked within {CHECK_TIMEOUT_S} s: the database is too busy."]
    finally:
        await connection.close(timeout=CONNECT_TIMEOUT_S)


async def check_books(connection: "asyncpg.Connection[asyncpg.Record]", *, now: datetime | None = None) -> list[str]:
    """Recomputes sums, tax, numbers, states and the audit chain, all in one snapshot."""
    events_since = (now or SystemClock().now()) - PAYLOADS_KEPT
    problems = []
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for sentence, query in BOOKS:
            rows = await connection.fetch(f"{query} limit {NAMED_MAX + 1}", *([events_since] if "$1" in query else []))
            if rows:
                names = ", ".join(str(row[0]) for row in rows[:NAMED_MAX])
                names += " and others" if len(rows) > NAMED_MAX else ""
                problems.append(f"The books are wrong: {sentence.format(names=names)}.")
        verified = await verify_chain(connection)
        if not verified.ok:
            problems.append(f"The audit log was changed: its chain breaks at position {verified.broken_at}.")
    return problems


async def check_secrets(connection: Connection, settings: Settings) -> list[str]:
    """Opens every stored secret: one that cannot be opened shows only when it is needed, else."""
    previous = settings.encryption_key_previous
    vault = Vault(settings.encryption_key.reveal(), previous.reveal() if previous else None)
    unreadable = await list_unreadable_secrets(connection, vault)
    if not unreadable:
        return []
    names = ", ".join(unreadable[:NAMED_MAX]) + (" and others" if len(unreadable) > NAMED_MAX else "")
    return [
        f"Stored secrets cannot be opened: {names}; set ENCRYPTION_KEY and ENCRYPTION_KEY_PREVIOUS to the keys they "
        "were sealed with, or enter them anew."
    ]


async def _check_lanyard(settings: Settings) -> list[str]:
    assert settings.lanyard_url is not None
    assert settings.lanyard_service_key is not None
    key = settings.lanyard_service_key.reveal()
    lanyard = LanyardClient(base_url=settings.lanyard_url, slug=settings.slug, service_key=key)
    try:
        await lanyard.verify(f"ServiceKey {key}")
    except LedgerError as error:
        if error.status == 401:
            return ["Lanyard refuses LANYARD_SERVICE_KEY: copy the key that Lanyard shows for Ledger."]
        return ["Lanyard cannot be asked: check LANYARD_URL and whether Lanyard runs."]
    finally:
        await lanyard.close()
    return []
