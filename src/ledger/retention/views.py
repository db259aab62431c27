"""How privacy is shown to staff: what is kept for how long, what goes when, and how much is held about one person."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import msgspec

from ledger.billing_settings.store import get_settings
from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.retention.erasing import find_retained_until
from ledger.retention.forecast import Due, Forecast
from ledger.retention.jobs import RETENTION_SCHEDULE
from ledger.retention.rules import ANSWERS_KEPT, DELIVERIES_KEPT, PAYLOADS_KEPT, kept_since
from ledger.settings import Settings
from ledger.web.paging import COUNTED_MAX
from ledger.web.shapes import NOTHING, Action, Actions, Column, Field, Row, Table, iso

_DAYS_A_YEAR = 365.25


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for everybody just now."""

    retention_days: int
    restricted: int
    last_run_at: datetime | None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """How much is held about a person; counts end at 10 000."""

    known_since: datetime
    restricted_at: datetime | None
    invoices: int
    open_invoices: int
    subscriptions: int
    live_subscriptions: int
    audit_entries: int
    mails: int
    retained_until: date | None


async def read_policy(connection: Connection) -> Policy:
    """Settings and figures for the page about privacy."""
    settings = await get_settings(connection)
    row = await connection.fetchrow(
        """
        select (
            select count(*) from (select from person where restricted_at is not null limit $2) counted
        ) as restricted, (
            select max(started_at) from schedule_run where name = $1 and error is null
        ) as last_run_at
        """,
        RETENTION_SCHEDULE,
        COUNTED_MAX,
    )
    assert row is not None, "counts are a row"
    return Policy(retention_days=settings.data_retention_days, **dict(row))


def policy_fields(policy: Policy, *, now: datetime, zone: ZoneInfo) -> list[Field]:
    """The rules in words, with the present figures in them."""
    since = kept_since(now, retention_days=policy.retention_days, zone=zone).astimezone(zone).date()
    years = policy.retention_days / _DAYS_A_YEAR
    days = f"{policy.retention_days} days" + (f" (about {years:.0f} years)" if years >= 2 else "")
    sentences = (
        (
            "invoices",
            "Invoices",
            f"The person is kept for {days} after the end of the year of the last issue, payment, refund or dispute. "
            f"What ended before {since.isoformat()} is let go of now. What is not settled is kept until it is.",
        ),
        (
            "subscriptions",
            "Subscriptions",
            "The same, counted from their end and from all that was billed for them. Live ones are kept.",
        ),
        ("auditLog", "Audit Log", "Who acted is kept equally long, counted from the year of the entry."),
        (
            "payloads",
            "Provider Events, Webhooks, Mails",
            f"What they said goes after {PAYLOADS_KEPT.days} days; that a webhook was sent is known for "
            f"{DELIVERIES_KEPT.days} days.",
        ),
        ("answers", "Answers to Repeated Requests", f"Kept for {ANSWERS_KEPT.days} days."),
        (
            "restricted",
            "People Who Asked for Erasure",
            f"{policy.restricted} kept restricted, until their time is up.",
        ),
    )
    fields = [Field(key=key, label=label, type="multiline", value=text) for key, label, text in sentences]
    return [*fields, _date_field("lastRun", "Last Daily Run", policy.last_run_at, nothing=NOTHING)]


def _date_field(key: str, label: str, moment: datetime | None, *, nothing: str) -> Field:
    """A date; what stands for none is plain text, which the Dashboard would else show as an invalid date."""
    if moment is None:
        return Field(key=key, label=label, value=nothing)
    return Field(key=key, label=label, type="date", value=iso(moment))


def schedule_table(forecast: Forecast, *, today: date) -> Table:
    """What goes when, in words, the earliest first; what is open comes last."""
    rows: list[Row] = [
        {"id": str(due.year), "on": due.on.isoformat(), "what": sentence_of(due, today=today)} for due in forecast.due
    ]
    if forecast.open:
        invoices = _invoices(forecast.open, is_more=forecast.open_is_more)
        rows.append({"id": "open", "on": "Not yet known", "what": f"{invoices} not settled yet, and kept until then."})
    return Table(columns=(Column(key="on", label="On"), Column(key="what", label="What")), rows=rows, total=len(rows))


def sentence_of(due: Due, *, today: date) -> str:
    """`On 2027-01-01 the data of 12 invoices of 2018 will be erased.`"""
    invoices = _invoices(due.invoices, is_more=due.is_more)
    if due.on <= today:
        return f"The next daily run will erase the data of {invoices} of {due.year}."
    return f"On {due.on.isoformat()} the data of {invoices} of {due.year} will be erased."


def _invoices(count: int, *, is_more: bool) -> str:
    return f"more than {count} invoices" if is_more else "1 invoice" if count == 1 else f"{count} invoices"


async def read_held(connection: Connection, *, user_id: str, now: datetime, zone: ZoneInfo) -> Held:
    """How much is held about the person with this id at Lanyard. Raises `NotFound` when Ledger does not know them."""
    row = await connection.fetchrow(
        """
        select p.id, p.created_at as known_since, p.restricted_at,
            (select count(*) from (select from invoice where person_id = p.id limit $2) c) as invoices,
            (select count(*) from (
                select from invoice where person_id = p.id and status = 'pending' limit $2
            ) c) as open_invoices,
            (select count(*) from (select from subscription where person_id = p.id limit $2) c) as subscriptions,
            (select count(*) from (
                select from subscription where person_id = p.id and status <> 'cancelled' limit $2
            ) c) as live_subscriptions,
            (select count(*) from (select from audit_entry where actor_person_id = p.id limit $2) c) as audit_entries,
            (select count(*) from (select from mail where person_id = p.id limit $2) c) as mails
        from person p where p.lanyard_user_id = $1
        """,
        user_id,
        COUNTED_MAX,
    )
    if row is None:
        raise NotFound("Person")
    values = dict(row)
    until = await find_retained_until(connection, person_id=values.pop("id"), now=now, zone=zone)
    return Held(**values, retained_until=until)


def held_fields(held: Held, *, user_id: str, settings: Settings) -> list[Field]:
    """A person's page. The browser cannot reach Ledger itself, so the link goes through the Dashboard's proxy."""
    until = NOTHING if held.retained_until is None else f"{held.retained_until.isoformat()} at the earliest"
    fields = [
        Field(key="userId", label="User ID", type="code", value=user_id),
        _date_field("knownSince", "Known Since", held.known_since, nothing=NOTHING),
        _date_field("restrictedSince", "Restricted Since", held.restricted_at, nothing="Not restricted"),
        Field(key="invoices", label="Invoices", value=f"{held.invoices}, of these {held.open_invoices} open"),
        Field(
            key="subscriptions",
            label="Subscriptions",
            value=f"{held.subscriptions}, of these {held.live_subscriptions} not over",
        ),
        Field(key="auditEntries", label="Entries in the Audit Log", type="number", value=held.audit_entries),
        Field(key="mails", label="Mails", type="number", value=held.mails),
        Field(key="retainedUntil", label="Has to Be Kept Until", value=until),
    ]
    if settings.dashboard_url is not None:
        url = f"{settings.dashboard_url}/api/proxy/{settings.slug}/api/privacy/users/{user_id}/export"
        fields.append(Field(key="export", label="Export", type="link", value=url))
    return fields


def erase_actions(held: Held, *, user_id: str) -> Actions:
    """The button that erases; it is not there while a subscription keeps the person."""
    if held.live_subscriptions:
        return Actions(actions=[])
    erase = Action(
        label="Erase",
        endpoint=f"/api/privacy/users/{user_id}/erase",
        method="POST",
        variant="danger",
        confirm="Erase at once what no law keeps, and restrict the rest? This cannot be undone.",
        # The person's own page may have nothing to show any more.
        redirect="/privacy",
    )
    return Actions(actions=[erase])
