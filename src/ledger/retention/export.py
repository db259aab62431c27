"""Reads everything that is held about a person, in one snapshot, with a limit on every list."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.errors import NotFound
from ledger.retention.held import (
    NOT_HELD,
    ExportedAuditEntry,
    ExportedChange,
    ExportedDispute,
    ExportedEvent,
    ExportedInvoice,
    ExportedLine,
    ExportedMail,
    ExportedPayment,
    ExportedProviderEvent,
    ExportedProviderName,
    ExportedRefund,
    ExportedSubscription,
    ExportedTax,
    PersonExport,
)
from ledger.retention.payloads import LOOKED_THROUGH_S, as_bytes, find_payloads, list_names
from ledger.retention.walking import BEGINNING, Place
from ledger.web.shapes import iso

INVOICES_MAX = 1_000
LINES_MAX = 20_000
ROWS_MAX = 5_000
PAYLOADS_MAX = 1_000

_Rows = Sequence[asyncpg.Record]
_Grouped = Mapping[str, list[asyncpg.Record]]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """What was created from one moment until another; None is open."""

    begins_at: datetime | None = None
    ends_at: datetime | None = None


class _Reader:
    """Reads lists of one person within a span, and notes which of them were cut."""

    def __init__(self, connection: Connection, *, person_id: int, span: Span) -> None:
        self.connection = connection
        self.person_id = person_id
        self.span = span
        self.cut: list[str] = []

    async def rows(self, name: str, select: str, *, at: str = "created_at", most: int | None = None) -> _Rows:
        """The newest rows of a query that names the person `$1`; it ends with its conditions."""
        most = ROWS_MAX if most is None else most
        rows = await self.connection.fetch(
            f"""
            {select} and {at} >= coalesce($2::timestamptz, '-infinity')
                and {at} <= coalesce($3::timestamptz, 'infinity') order by {at} desc limit $4
            """,
            self.person_id,
            self.span.begins_at,
            self.span.ends_at,
            most + 1,
        )
        if len(rows) > most:
            self.cut.append(name)
        return rows[:most]

    async def children(self, query: str, ids: Sequence[str]) -> _Grouped:
        """Rows of a query over the ids `$1`, by their column `parent`, in the query's order."""
        grouped: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in await self.connection.fetch(query, list(ids)):
            grouped[row["parent"]].append(row)
        return grouped


async def export_person(database: Database, *, user_id: str, span: Span) -> PersonExport:
    """Everything about the person with this id at Lanyard. Raises `NotFound` for somebody Ledger does not know."""
    async with (
        database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        person = await connection.fetchrow(
            "select id, created_at, restricted_at from person where lanyard_user_id = $1", user_id
        )
        if person is None:
            raise NotFound("Person")
        reader = _Reader(connection, person_id=person["id"], span=span)
        exported = PersonExport(
            user_id=user_id,
            exported_at=iso(database.clock.now()),
            known_since=iso(person["created_at"]),
            restricted_since=_iso(person["restricted_at"]),
            invoices=await _invoices(reader),
            subscriptions=await _subscriptions(reader),
            mails=await _mails(reader),
            audit_entries=await _audit_entries(reader),
            events=await _events(reader),
            provider_names=await _provider_names(reader),
            provider_events=[],
            stored_answers=await _count_answers(reader),
            incomplete=[],
            not_held=NOT_HELD,
        )
        names = await list_names(connection, person_ids=[person["id"]])
    found, is_whole = await _provider_events(database, names=names, user_id=user_id, span=span)
    cut = [*reader.cut, *([] if is_whole else ["providerEvents"])]
    return msgspec.structs.replace(exported, provider_events=found, incomplete=cut)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else iso(moment)


async def _invoices(reader: _Reader) -> list[ExportedInvoice]:
    rows = await reader.rows(
        "invoices",
        """
        select *, id::text as id_text, (select count(*) from invoice_line l where l.invoice_id = invoice.id) as lines
        from invoice where person_id = $1
        """,
        most=INVOICES_MAX,
    )
    rows = _within_lines(reader, rows)
    ids = [row["id_text"] for row in rows]
    lines = await reader.children(
        "select *, invoice_id::text as parent from invoice_line where invoice_id = any($1::uuid[]) order by position",
        ids,
    )
    taxes = await reader.children(
        "select *, invoice_id::text as parent from invoice_tax where invoice_id = any($1::uuid[]) order by rate_bp", ids
    )
    payments = await _payments(reader, ids)
    return [
        ExportedInvoice(
            id=row["id_text"],
            invoice_number=row["number"],
            status=row["status"],
            currency=row["currency"],
            subtotal=row["subtotal_minor"],
            tax=row["tax_minor"],
            total=row["total_minor"],
            tax_label=row["tax_label"],
            created_at=iso(row["created_at"]),
            due_date=_iso(row["due_at"]),
            paid_at=_iso(row["paid_at"]),
            cancelled_at=_iso(row["cancelled_at"]),
            failed_at=_iso(row["failed_at"]),
            provider=row["provider"],
            payment_reference=row["payment_reference"],
            payment_instructions=row["payment_instructions"],
            notes=row["notes"],
            metadata=row["metadata"],
            created_by_service=row["created_by_service"],
            lines=[_line(line) for line in lines.get(row["id_text"], [])],
            taxes=[
                ExportedTax(rate=tax["rate_bp"], net=tax["net_minor"], tax=tax["tax_minor"])
                for tax in taxes.get(row["id_text"], [])
            ],
            payments=payments.get(row["id_text"], []),
        )
        for row in rows
    ]


def _within_lines(reader: _Reader, rows: _Rows) -> _Rows:
    """As many of the invoices as have a bearable number of lines together; at least one."""
    total = 0
    for index, row in enumerate(rows):
        total += row["lines"]
        if total > LINES_MAX and index:
            reader.cut.append("invoices")
            return rows[:index]
    return rows


def _line(row: asyncpg.Record) -> ExportedLine:
    return ExportedLine(
        description=row["description"],
        quantity=row["quantity"],
        unit_price=row["unit_price_minor"],
        total=row["total_minor"],
        tax_rate=row["tax_rate_bp"],
    )


async def _payments(reader: _Reader, invoice_ids: Sequence[str]) -> dict[str, list[ExportedPayment]]:
    payments = await reader.children(
        """
        select *, id::text as id_text, invoice_id::text as parent from payment
        where invoice_id = any($1::uuid[]) order by created_at, id
        """,
        invoice_ids,
    )
    ids = [row["id_text"] for rows in payments.values() for row in rows]
    refunds = await reader.children(
        "select *, payment_id::text as parent from refund where payment_id = any($1::uuid[]) order by created_at", ids
    )
    disputes = await reader.children(
        "select *, payment_id::text as parent from dispute where payment_id = any($1::uuid[]) order by created_at", ids
    )
    return {
        parent: [
            ExportedPayment(
                amount=row["amount_minor"],
                currency=row["currency"],
                provider=row["provider"],
                method=row["method"],
                provider_reference=row["provider_reference"],
                reference=row["reference"],
                received_at=iso(row["received_at"]),
                refunds=[_refund(each) for each in refunds.get(row["id_text"], [])],
                disputes=[_dispute(each) for each in disputes.get(row["id_text"], [])],
            )
            for row in rows
        ]
        for parent, rows in payments.items()
    }


def _refund(row: asyncpg.Record) -> ExportedRefund:
    return ExportedRefund(
        amount=row["amount_minor"],
        status=row["status"],
        reason=row["reason"],
        provider_reference=row["provider_reference"],
        created_at=iso(row["created_at"]),
        settled_at=_iso(row["settled_at"]),
    )


def _dispute(row: asyncpg.Record) -> ExportedDispute:
    return ExportedDispute(
        amount=row["amount_minor"],
        currency=row["currency"],
        reason=row["reason"],
        status=row["status"],
        created_at=iso(row["created_at"]),
    )


async def _subscriptions(reader: _Reader) -> list[ExportedSubscription]:
    rows = await reader.rows(
        "subscriptions",
        """
        select s.*, s.id::text as id_text, p.name as product from subscription s join product p on p.id = s.product_id
        where s.person_id = $1
        """,
        at="s.created_at",
    )
    changes = await reader.children(
        """
        select *, subscription_id::text as parent from subscription_change
        where subscription_id = any($1::uuid[]) order by created_at, id
        """,
        [row["id_text"] for row in rows],
    )
    return [
        ExportedSubscription(
            id=row["id_text"],
            product=row["product"],
            status=row["status"],
            cancels_at_period_end=row["cancels_at_period_end"],
            provider_reference=row["remote_id"],
            period_start=_iso(row["period_start"]),
            period_end=_iso(row["period_end"]),
            activated_at=_iso(row["activated_at"]),
            cancelled_at=_iso(row["cancelled_at"]),
            created_at=iso(row["created_at"]),
            changes=[
                ExportedChange(
                    kind=change["kind"],
                    status=change["status"],
                    failure=change["failure"],
                    created_at=iso(change["created_at"]),
                )
                for change in changes.get(row["id_text"], [])
            ],
        )
        for row in rows
    ]


async def _mails(reader: _Reader) -> list[ExportedMail]:
    rows = await reader.rows(
        "mails",
        """
        select kind, status, invoice_id::text, subscription_id::text, created_at, settled_at from mail
        where person_id = $1
        """,
    )
    return [
        ExportedMail(
            kind=row["kind"],
            status=row["status"],
            invoice_id=row["invoice_id"],
            subscription_id=row["subscription_id"],
            created_at=iso(row["created_at"]),
            settled_at=_iso(row["settled_at"]),
        )
        for row in rows
    ]


async def _audit_entries(reader: _Reader) -> list[ExportedAuditEntry]:
    rows = await reader.rows("auditEntries", "select * from audit_entry where actor_person_id = $1")
    return [
        ExportedAuditEntry(
            action=row["action"],
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            details=row["details"],
            created_at=iso(row["created_at"]),
        )
        for row in rows
    ]


async def _events(reader: _Reader) -> list[ExportedEvent]:
    rows = await reader.rows("events", "select *, id::text as id_text from event where person_id = $1")
    sent = await reader.children(
        """
        select d.event_id::text as parent, w.name from webhook_delivery d
        join webhook_subscriber w on w.id = d.subscriber_id where d.event_id = any($1::uuid[]) order by w.name
        """,
        [row["id_text"] for row in rows],
    )
    return [
        ExportedEvent(
            type=row["type"],
            data=row["data"],
            sent_to=[each["name"] for each in sent.get(row["id_text"], [])],
            created_at=iso(row["created_at"]),
        )
        for row in rows
    ]


async def _provider_names(reader: _Reader) -> list[ExportedProviderName]:
    rows = await reader.rows(
        "providerNames",
        """
        select c.name as provider, m.remote_id, m.created_at from provider_mapping m
        join provider_connection c on c.id = m.connection_id
        where m.kind = 'customer' and m.local_id = $1::bigint::text
        """,
        at="m.created_at",
    )
    return [
        ExportedProviderName(provider=row["provider"], name=row["remote_id"], created_at=iso(row["created_at"]))
        for row in rows
    ]


async def _count_answers(reader: _Reader) -> int:
    count: int = await reader.connection.fetchval(
        "select count(*) from idempotency_record where caller = 'person:' || $1::bigint::text", reader.person_id
    )
    return count


async def _provider_events(
    database: Database, *, names: list[str], user_id: str, span: Span
) -> tuple[list[ExportedProviderEvent], bool]:
    """What providers sent about the person, and whether all that is kept was looked through."""
    wanted = as_bytes(names, user_id=user_id)
    deadline_s = time.monotonic() + LOOKED_THROUGH_S
    found: list[ExportedProviderEvent] = []
    after: Place | None = BEGINNING if span.begins_at is None else Place(span.begins_at, BEGINNING.id)
    while after is not None and time.monotonic() < deadline_s and len(found) < PAYLOADS_MAX:
        page, after = await find_payloads(database, names=wanted, after=after)
        for each in page:
            if span.ends_at is None or each.received_at <= span.ends_at:
                found.append(
                    ExportedProviderEvent(
                        type=each.type, received_at=iso(each.received_at), payload=_as_json(each.payload)
                    )
                )
    return found, after is None


def _as_json(payload: bytes) -> object:
    """What was sent, as the JSON that it is."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return payload.decode(errors="replace")
