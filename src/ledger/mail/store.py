"""SQL for mails."""

from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from ledger.billing_settings.mail_kinds import MailKind
from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.mail.rules import MailStatus
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

ERROR_MAX = 500


class NewMail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail to be made. `occasion` says what it is about and why, so that the same is not made twice."""

    id: str
    kind: MailKind
    occasion: str
    person_id: int
    invoice_id: str | None = None
    subscription_id: str | None = None
    amount_minor: int | None = None
    amount_currency: str | None = None


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail as it is stored: to whom (by row) and about what. Neither text nor address is stored.

    While somebody sends it, `claimed_until` is set; if they die, another takes over after it. `attempts` counts up
    with each of them, so whoever lost the claim notices.
    """

    id: str
    kind: MailKind
    person_id: int | None
    invoice_id: str | None
    subscription_id: str | None
    amount_minor: int | None
    amount_currency: str | None
    status: MailStatus
    error: str | None
    attempts: int
    next_try_at: datetime | None
    claimed_until: datetime | None
    created_at: datetime
    settled_at: datetime | None


class ListedMail(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the staff's list."""

    id: str
    kind: str
    invoice_number: str | None
    status: str
    error: str | None
    created_at: datetime


class OpenInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """What decides whether somebody is reminded of an open invoice."""

    id: str
    person_id: int
    due_at: datetime
    created_at: datetime
    total_minor: int


_COLUMNS = (
    "id::text, kind, person_id, invoice_id::text, subscription_id::text, amount_minor, amount_currency, status, error, "
    "attempts, next_try_at, claimed_until, created_at, settled_at"
)


def _read(row: asyncpg.Record) -> Mail:
    return Mail(**{**dict(row), "kind": MailKind(row["kind"]), "status": MailStatus(row["status"])})


async def insert_mails(connection: Connection, *, mails: Sequence[NewMail], now: datetime) -> int:
    """Stores mails that are not made yet, to be sent at once; returns how many there were."""
    status = await connection.execute(
        """
        insert into mail (id, kind, occasion, person_id, invoice_id, subscription_id, amount_minor, amount_currency,
            status, attempts, next_try_at, created_at)
        select *, 'waiting', 0, $9::timestamptz, $9::timestamptz
        from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::uuid[], $7::bigint[],
            $8::text[])
        on conflict (occasion) do nothing
        """,
        [mail.id for mail in mails],
        [mail.kind.value for mail in mails],
        [mail.occasion for mail in mails],
        [mail.person_id for mail in mails],
        [mail.invoice_id for mail in mails],
        [mail.subscription_id for mail in mails],
        [mail.amount_minor for mail in mails],
        [mail.amount_currency for mail in mails],
        now,
    )
    return int(status.removeprefix("INSERT 0 "))


async def claim_due_mail(connection: Connection, *, now: datetime, until: datetime) -> Mail | None:
    """Takes the mail that is due the longest; nobody else takes it before `until`. None when none is due."""
    row = await connection.fetchrow(
        f"""
        update mail set attempts = attempts + 1, claimed_until = $2, next_try_at = $2
        where id = (
            select id from mail where status = 'waiting' and next_try_at <= $1
            order by next_try_at limit 1 for update skip locked
        )
        returning {_COLUMNS}
        """,
        now,
        until,
    )
    return None if row is None else _read(row)


async def has_due_mail(connection: Connection, *, now: datetime) -> bool:
    """Whether a mail waits whose time has come."""
    found: bool = await connection.fetchval(
        "select exists (select from mail where status = 'waiting' and next_try_at <= $1)", now
    )
    return found


async def count_waiting(connection: Connection) -> int:
    """How many mails are to be sent, now or later; counted to `COUNTED_MAX` + 1."""
    found: int = await connection.fetchval(
        f"select count(*) from (select from mail where status = 'waiting' limit {COUNTED_MAX + 1}) counted"
    )
    return found


async def update_handed_over(connection: Connection, *, mail: Mail, until: datetime) -> bool:
    """Says that the server is about to be given the mail; False when the claim was lost, and then it must not be."""
    status = await connection.execute(
        """
        update mail set status = 'handed_over', claimed_until = $3, next_try_at = $3
        where id = $1 and attempts = $2 and status = 'waiting'
        """,
        mail.id,
        mail.attempts,
        until,
    )
    return status == "UPDATE 1"


async def update_settled(
    connection: Connection, *, mail: Mail, status: MailStatus, error: str | None, now: datetime
) -> None:
    """Stores how it ended, unless somebody else took it over."""
    await connection.execute(
        """
        update mail set status = $3, error = $4, settled_at = $5, next_try_at = null, claimed_until = null
        where id = $1 and attempts = $2 and status in ('waiting', 'handed_over')
        """,
        mail.id,
        mail.attempts,
        status.value,
        None if error is None else error[:ERROR_MAX],
        now,
    )


async def update_postponed(connection: Connection, *, mail: Mail, error: str, next_try_at: datetime) -> None:
    """Stores why it was not sent, and when it is tried again, unless somebody else took it over."""
    await connection.execute(
        """
        update mail set status = 'waiting', error = $3, next_try_at = $4, claimed_until = null
        where id = $1 and attempts = $2 and status in ('waiting', 'handed_over')
        """,
        mail.id,
        mail.attempts,
        error[:ERROR_MAX],
        next_try_at,
    )


async def update_forgotten(connection: Connection, *, error: str, now: datetime) -> list[str]:
    """Gives up mails that were being handed over by somebody who died. Returns their ids."""
    rows = await connection.fetch(
        """
        update mail set status = 'failed', error = $2, settled_at = $1, next_try_at = null, claimed_until = null
        where status = 'handed_over' and next_try_at <= $1 returning id::text
        """,
        now,
        error,
    )
    return [row["id"] for row in rows]


async def update_waiting(connection: Connection, *, mail_id: str, now: datetime) -> None:
    """Says that a mail is to be sent now, as if it had not been tried."""
    await connection.execute(
        """
        update mail set status = 'waiting', error = null, attempts = 0, next_try_at = $2, claimed_until = null,
            settled_at = null
        where id = $1
        """,
        mail_id,
        now,
    )


async def lock_mail(connection: Connection, *, mail_id: str) -> Mail:
    """A mail that nobody else changes until the transaction ends. Raises `NotFound`."""
    row = await connection.fetchrow(f"select {_COLUMNS} from mail where id = $1 for update", mail_id)
    if row is None:
        raise NotFound("Mail")
    return _read(row)


async def list_mails(
    connection: Connection, *, status: MailStatus | None, after: Position | None, limit: int
) -> Page[ListedMail]:
    """Mails, the newest first."""
    values: list[object] = []
    matching = "true"
    if status is not None:
        values.append(status.value)
        matching = "m.status = $1"
    found = await connection.fetchval(
        f"select count(*) from (select from mail m where {matching} limit {COUNTED_MAX + 1}) counted", *values
    )
    if after is not None:
        values += [after.at, after.id]
        matching += f" and (m.created_at, m.id) < (${len(values) - 1}, ${len(values)})"
    values.append(limit + 1)
    rows = await connection.fetch(
        f"""
        select m.id::text, m.kind, i.number as invoice_number, m.status, m.error, m.created_at
        from mail m left join invoice i on i.id = m.invoice_id
        where {matching} order by m.created_at desc, m.id desc limit ${len(values)}
        """,
        *values,
    )
    mails = [ListedMail(**dict(row)) for row in rows[:limit]]
    total, is_more = counted(found)
    last = mails[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.created_at, last.id)) if last else None
    return Page(rows=mails, total=total, total_is_more=is_more, next_cursor=cursor)


async def list_booked_periods(connection: Connection, *, invoice_ids: Sequence[str]) -> set[str]:
    """Those of the invoices that were made of a subscription's paid period."""
    rows = await connection.fetch(
        "select invoice_id::text from subscription_period where invoice_id = any($1::uuid[])", invoice_ids
    )
    return {row["invoice_id"] for row in rows}


async def list_open_invoices(
    connection: Connection, *, due_from: datetime, due_before: datetime, after: Position, limit: int
) -> list[OpenInvoice]:
    """Open invoices of known people that are due in a span of time, by when and id, beginning after a position."""
    rows = await connection.fetch(
        """
        select id::text, person_id, due_at, created_at, total_minor from invoice
        where status in ('pending', 'failed') and due_at >= $1 and due_at < $2 and (due_at, id) > ($3, $4)
            and person_id is not null
        order by due_at, id limit $5
        """,
        due_from,
        due_before,
        after.at,
        after.id,
        limit,
    )
    return [OpenInvoice(**dict(row)) for row in rows]


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a person's row is about. Whoever asked to be erased gets no mail."""

    user_id: str
    is_restricted: bool


async def find_recipient(connection: Connection, *, person_id: int) -> Recipient | None:
    """The person of a row, or None when Ledger has let go of them."""
    row = await connection.fetchrow(
        "select lanyard_user_id as user_id, restricted_at is not null as is_restricted from person where id = $1",
        person_id,
    )
    return None if row is None else Recipient(**dict(row))
