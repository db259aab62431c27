"""SQL for invoices: issuing them in sets, and reading them."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.database.transaction import Actor
from ledger.errors import NotFound
from ledger.invoices.rules import InvoiceDraft, InvoiceStatus, invoice_number, invoice_series
from ledger.payments.reference import creditor_reference, reference_prefix


class UnnumberedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """A draft with all it needs to be issued but its number. `actor` is who asked for it."""

    id: str
    event_id: str
    person_id: int
    actor: Actor
    created_by_service: str | None
    draft: InvoiceDraft
    tax_label: str
    due_at: datetime | None
    notes: str | None
    metadata: dict[str, str] | None


class IssuedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """A draft that got its number."""

    id: str
    number: str
    series: str
    status: InvoiceStatus
    draft: InvoiceDraft
    issued_at: datetime


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice as it is stored, amounts in minor units. `person_id` is null once retention freed the buyer."""

    id: str
    number: str
    person_id: int | None
    created_by_service: str | None
    currency: str
    subtotal_minor: int
    tax_minor: int
    total_minor: int
    tax_label: str
    status: InvoiceStatus
    due_at: datetime | None
    paid_at: datetime | None
    cancelled_at: datetime | None
    failed_at: datetime | None
    provider: str | None
    payment_reference: str
    payment_instructions: str | None
    notes: str | None
    created_at: datetime


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line, amounts in minor units, the rate in basis points."""

    position: int
    description: str
    quantity: int
    unit_price_minor: int
    total_minor: int
    tax_rate_bp: int


class InvoiceState(msgspec.Struct, frozen=True, kw_only=True):
    """The little that a status poll needs."""

    id: str
    status: str
    total_minor: int
    currency: str
    paid_at: datetime | None
    created_by_service: str | None


INVOICE_COLUMNS = (
    "i.id, i.number, i.person_id, i.created_by_service, i.currency, i.subtotal_minor, i.tax_minor, i.total_minor, "
    "i.tax_label, i.status, i.due_at, i.paid_at, i.cancelled_at, i.failed_at, i.provider, i.payment_reference, "
    "i.payment_instructions, i.notes, i.created_at"
)


def invoice_of_row(row: asyncpg.Record) -> Invoice:
    """An invoice from a row that has `INVOICE_COLUMNS`."""
    return Invoice(
        id=str(row["id"]),
        number=row["number"],
        person_id=row["person_id"],
        created_by_service=row["created_by_service"],
        currency=row["currency"],
        subtotal_minor=row["subtotal_minor"],
        tax_minor=row["tax_minor"],
        total_minor=row["total_minor"],
        tax_label=row["tax_label"],
        status=InvoiceStatus(row["status"]),
        due_at=row["due_at"],
        paid_at=row["paid_at"],
        cancelled_at=row["cancelled_at"],
        failed_at=row["failed_at"],
        provider=row["provider"],
        payment_reference=row["payment_reference"],
        payment_instructions=row["payment_instructions"],
        notes=row["notes"],
        created_at=row["created_at"],
    )


# Everything that issuing leaves behind, in one statement, because each further round trip would keep the counter
# locked for longer. Numbers are written as `invoice_number` has them, references as `creditor_reference` has them,
# and the time of issue only grows within a series, whatever the machines' clocks say.
_ISSUE = """
    with taken as (
        insert into counter (series, last_number, last_issued_at) values ($1, $2, $3)
        on conflict (series) do update set
            last_number = counter.last_number + excluded.last_number,
            last_issued_at = greatest(counter.last_issued_at + interval '1 microsecond', excluded.last_issued_at)
        returning last_number - $2 as before, last_issued_at as issued_at
    ), numbered as materialized (
        select wanted.*, taken.issued_at, taken.before + place as series_number, $1 || '-' || counted as number,
            'RF' || lpad((98 - ($34 || counted || '271500')::numeric % 97)::text, 2, '0') || $33 || counted
                as payment_reference
        from taken, unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::text[], $8::bigint[], $9::text[], $10::text[],
            $11::text[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::timestamptz[], $17::text[],
            $18::jsonb[], $19::jsonb[]) with ordinality
            as wanted (id, event_id, person_id, actor_kind, actor_person_id, actor_name, created_by_service,
                currency, subtotal_minor, tax_minor, total_minor, tax_label, due_at, notes, metadata, event_data,
                place),
            lateral lpad(
                (taken.before + place)::text, greatest(4, length((taken.before + place)::text)), '0'
            ) as counted
    ), issued as (
        insert into invoice (id, number, series, series_number, person_id, created_by_service, currency,
            subtotal_minor, tax_minor, total_minor, tax_label, status, due_at, notes, metadata, payment_reference,
            created_at)
        select id, number, $1, series_number, person_id, created_by_service, currency,
            subtotal_minor, tax_minor, total_minor, tax_label, $20, due_at, notes, metadata, payment_reference,
            issued_at
        from numbered
    ), lines as (
        insert into invoice_line (invoice_id, position, description, quantity, unit_price_minor, total_minor,
            tax_rate_bp, product_id)
        select * from unnest($21::uuid[], $22::int[], $23::text[], $24::bigint[], $25::bigint[], $26::bigint[],
            $27::int[], $28::uuid[])
    ), shares as (
        insert into invoice_tax (invoice_id, rate_bp, net_minor, tax_minor)
        select * from unnest($29::uuid[], $30::int[], $31::bigint[], $32::bigint[])
    ), audited as (
        insert into audit_entry
            (action, entity_type, entity_id, actor_kind, actor_person_id, actor_name, details, created_at)
        select 'invoice.created', 'invoice', id::text, actor_kind, actor_person_id, actor_name,
            jsonb_build_object('number', number), issued_at
        from numbered order by place
    ), announced as (
        insert into event (id, type, subject_id, person_id, data, created_at)
        select event_id, 'invoice.created', id, person_id,
            event_data || jsonb_build_object('invoiceNumber', number), issued_at
        from numbered
    )
    select number, series_number, payment_reference, issued_at from numbered order by place
"""


async def issue_invoices(
    connection: Connection, *, year: int, invoices: Sequence[UnnumberedInvoice], now: datetime
) -> list[IssuedInvoice]:
    """Numbers invoices consecutively, in their order, and stores them with lines, tax shares, audit entries and events.

    The counter's row stays locked until the transaction ends, so numbers are committed in order and a rollback gives
    them back.
    """
    series = invoice_series(year)
    prefix = reference_prefix(series)
    lines = [(each.id, position, line) for each in invoices for position, line in enumerate(each.draft.lines, 1)]
    shares = [(each.id, share) for each in invoices for share in each.draft.tax_shares]
    rows = await connection.fetch(
        _ISSUE,
        series,
        len(invoices),
        now,
        [each.id for each in invoices],
        [each.event_id for each in invoices],
        [each.person_id for each in invoices],
        [each.actor.kind for each in invoices],
        [each.actor.person_id for each in invoices],
        [each.actor.name for each in invoices],
        [each.created_by_service for each in invoices],
        [each.draft.currency for each in invoices],
        [each.draft.subtotal_minor for each in invoices],
        [each.draft.tax_minor for each in invoices],
        [each.draft.total_minor for each in invoices],
        [each.tax_label for each in invoices],
        [each.due_at for each in invoices],
        [each.notes for each in invoices],
        [each.metadata for each in invoices],
        [_event_data(each) for each in invoices],
        InvoiceStatus.PENDING.value,
        [invoice_id for invoice_id, _, _ in lines],
        [position for _, position, _ in lines],
        [line.description for _, _, line in lines],
        [line.quantity for _, _, line in lines],
        [line.unit_price_minor for _, _, line in lines],
        [line.total_minor for _, _, line in lines],
        [line.tax_rate_bp for _, _, line in lines],
        [line.product_id for _, _, line in lines],
        [invoice_id for invoice_id, _ in shares],
        [share.rate_bp for _, share in shares],
        [share.net_minor for _, share in shares],
        [share.tax_minor for _, share in shares],
        prefix.body,
        prefix.digits,
    )
    last = rows[-1]
    assert last["number"] == invoice_number(year, last["series_number"]), "SQL and rules write numbers alike"
    assert last["payment_reference"] == creditor_reference(last["number"]), "and references"
    return [
        IssuedInvoice(
            id=invoice.id,
            number=row["number"],
            series=series,
            status=InvoiceStatus.PENDING,
            draft=invoice.draft,
            issued_at=row["issued_at"],
        )
        for invoice, row in zip(invoices, rows, strict=True)
    ]


def _event_data(invoice: UnnumberedInvoice) -> dict[str, str | int]:
    """What subscribers get to know, as `actions.invoice_event` has it; the number is added where it is taken."""
    return {
        "invoiceId": invoice.id,
        "status": InvoiceStatus.PENDING.value,
        "total": invoice.draft.total_minor,
        "currency": invoice.draft.currency,
    }


async def lock_counter(connection: Connection, *, series: str, now: datetime) -> None:
    """Waits until no other transaction holds the series, also one that is just beginning it, and holds it."""
    await connection.execute(
        """
        insert into counter (series, last_number, last_issued_at) values ($1, 0, $2)
        on conflict (series) do update set last_number = counter.last_number
        """,
        series,
        now,
    )


async def get_invoice(connection: Connection, *, invoice_id: str) -> Invoice:
    """An invoice. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {INVOICE_COLUMNS} from invoice i where i.id = $1", invoice_id)
    if row is None:
        raise NotFound("Invoice")
    return invoice_of_row(row)


async def get_invoice_of(connection: Connection, *, invoice_id: str, user_id: str) -> Invoice:
    """A person's own invoice. Raises `NotFound`, for somebody else's as well."""
    row = await connection.fetchrow(
        f"""
        select {INVOICE_COLUMNS} from invoice i join person p on p.id = i.person_id
        where i.id = $1 and p.lanyard_user_id = $2
        """,
        invoice_id,
        user_id,
    )
    if row is None:
        raise NotFound("Invoice")
    return invoice_of_row(row)


async def lock_invoice(connection: Connection, *, invoice_id: str) -> Invoice:
    """An invoice that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(
        f"select {INVOICE_COLUMNS} from invoice i where i.id = $1 for no key update",
        invoice_id,
    )
    if row is None:
        raise NotFound("Invoice")
    return invoice_of_row(row)


async def list_lines(connection: Connection, *, invoice_id: str) -> list[InvoiceLine]:
    """An invoice's lines, in their order."""
    rows = await connection.fetch(
        """
        select position, description, quantity, unit_price_minor, total_minor, tax_rate_bp
        from invoice_line where invoice_id = $1 order by position
        """,
        invoice_id,
    )
    return [InvoiceLine(**dict(row)) for row in rows]


async def list_states(connection: Connection, *, invoice_ids: Sequence[str]) -> dict[str, InvoiceState]:
    """The states of many invoices at once, by id; unknown ids are missing."""
    rows = await connection.fetch(
        """
        select id::text, status, total_minor, currency, paid_at, created_by_service
        from invoice where id = any($1::uuid[])
        """,
        invoice_ids,
    )
    return {
        row[0]: InvoiceState(
            id=row[0], status=row[1], total_minor=row[2], currency=row[3], paid_at=row[4], created_by_service=row[5]
        )
        for row in rows
    }


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the state of an invoice follows from, amounts in minor units."""

    payments_minor: list[int]
    refunded_minor: int

    @property
    def paid_minor(self) -> int:
        return sum(self.payments_minor)

    @property
    def held_minor(self) -> int:
        """What arrived less what went back."""
        return self.paid_minor - self.refunded_minor


async def get_facts(connection: Connection, *, invoice_id: str) -> Facts:
    """The payments of an invoice, and the sum of its refunds that succeeded."""
    row = await connection.fetchrow(
        """
        select coalesce(array_agg(p.amount_minor order by p.created_at, p.id), '{}') as payments,
            coalesce(sum((
                select sum(r.amount_minor) from refund r where r.payment_id = p.id and r.status = 'succeeded'
            )), 0)::bigint as refunded
        from payment p where p.invoice_id = $1
        """,
        invoice_id,
    )
    assert row is not None, "an aggregate returns a row"
    return Facts(payments_minor=row["payments"], refunded_minor=row["refunded"])


async def update_status(
    connection: Connection,
    *,
    invoice_id: str,
    status: InvoiceStatus,
    paid_at: datetime | None,
    cancelled_at: datetime | None = None,
) -> None:
    """Stores the state that the facts give, and when it came about."""
    await connection.execute(
        """
        update invoice set status = $2, paid_at = $3, cancelled_at = coalesce($4, cancelled_at) where id = $1
        """,
        invoice_id,
        status.value,
        paid_at,
        cancelled_at,
    )


async def update_provider(connection: Connection, *, invoice_id: str, provider: str) -> None:
    """Stores which provider took, or was last asked for, a payment."""
    await connection.execute("update invoice set provider = $2 where id = $1", invoice_id, provider)


async def update_payment_instructions(connection: Connection, *, invoice_id: str, text: str, provider: str) -> None:
    """Stores what the payer was told to do, and by which provider."""
    await connection.execute(
        "update invoice set payment_instructions = $2, provider = $3 where id = $1", invoice_id, text, provider
    )


async def clear_payment_instructions(connection: Connection, *, invoice_id: str) -> None:
    """Forgets what the payer was told to do, because it is not true any more."""
    await connection.execute("update invoice set payment_instructions = null where id = $1", invoice_id)


async def update_failed_at(connection: Connection, *, invoice_id: str, failed_at: datetime | None) -> None:
    """Stores when the last attempt to pay failed, or (None) that another one began."""
    await connection.execute("update invoice set failed_at = $2 where id = $1", invoice_id, failed_at)
