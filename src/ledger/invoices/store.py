"""SQL for invoices: issuing them in sets, and reading them."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.transaction import Connection
from ledger.errors import NotFound
from ledger.invoices.rules import InvoiceDraft, InvoiceStatus


class IssuedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """A draft that got its number."""

    id: str
    number: str
    series: str
    series_number: int
    person_id: int
    created_by_service: str | None
    status: InvoiceStatus
    draft: InvoiceDraft
    tax_label: str
    due_at: datetime | None
    notes: str | None
    metadata: dict[str, str] | None
    payment_reference: str
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


async def take_numbers(connection: Connection, *, series: str, count: int, now: datetime) -> tuple[int, datetime]:
    """Takes `count` consecutive numbers and returns the first, with the time of issue.

    The counter's row stays locked until the transaction ends, so numbers are committed in order and a rollback gives
    them back. The time of issue only grows within a series, whatever the machines' clocks say.
    """
    row = await connection.fetchrow(
        """
        insert into counter (series, last_number, last_issued_at) values ($1, $2, $3)
        on conflict (series) do update set
            last_number = counter.last_number + excluded.last_number,
            last_issued_at = greatest(counter.last_issued_at + interval '1 microsecond', excluded.last_issued_at)
        returning last_number, last_issued_at
        """,
        series,
        count,
        now,
    )
    assert row is not None, "an upsert returns its row"
    return row["last_number"] - count + 1, row["last_issued_at"]


async def insert_invoices(connection: Connection, *, invoices: Sequence[IssuedInvoice], issued_at: datetime) -> None:
    """Stores invoices with their lines and tax shares, all in one statement: the counter is locked meanwhile."""
    lines = [(each.id, position, line) for each in invoices for position, line in enumerate(each.draft.lines, 1)]
    shares = [(each.id, share) for each in invoices for share in each.draft.tax_shares]
    await connection.execute(
        """
        with issued as (
            insert into invoice (id, number, series, series_number, person_id, created_by_service, currency,
                subtotal_minor, tax_minor, total_minor, tax_label, status, due_at, notes, metadata, payment_reference,
                created_at)
            select *, $16::timestamptz from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[],
                $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[],
                $13::timestamptz[], $14::text[], $15::jsonb[], $29::text[])
        ), lines as (
            insert into invoice_line (invoice_id, position, description, quantity, unit_price_minor, total_minor,
                tax_rate_bp, product_id)
            select * from unnest($17::uuid[], $18::int[], $19::text[], $20::bigint[], $21::bigint[], $22::bigint[],
                $23::int[], $24::uuid[])
        )
        insert into invoice_tax (invoice_id, rate_bp, net_minor, tax_minor)
        select * from unnest($25::uuid[], $26::int[], $27::bigint[], $28::bigint[])
        """,
        [each.id for each in invoices],
        [each.number for each in invoices],
        [each.series for each in invoices],
        [each.series_number for each in invoices],
        [each.person_id for each in invoices],
        [each.created_by_service for each in invoices],
        [each.draft.currency for each in invoices],
        [each.draft.subtotal_minor for each in invoices],
        [each.draft.tax_minor for each in invoices],
        [each.draft.total_minor for each in invoices],
        [each.tax_label for each in invoices],
        [each.status.value for each in invoices],
        [each.due_at for each in invoices],
        [each.notes for each in invoices],
        [each.metadata for each in invoices],
        issued_at,
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
        [each.payment_reference for each in invoices],
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


async def update_failed_at(connection: Connection, *, invoice_id: str, failed_at: datetime | None) -> None:
    """Stores when the last attempt to pay failed, or (None) that another one began."""
    await connection.execute("update invoice set failed_at = $2 where id = $1", invoice_id, failed_at)
