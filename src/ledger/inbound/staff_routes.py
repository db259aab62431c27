"""`/api/stripe-events`: what Stripe sent, for staff, and trying again what could not be applied."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from ledger.database.transaction import Tx
from ledger.errors import LedgerError
from ledger.inbound.actions import check_can_retry, retry_event
from ledger.inbound.store import INBOUND_PHRASES, EventSummary, InboundState, get_event_summary, list_events
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads, writes
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import NOTHING, Action, Actions, Column, Detail, Done, Field, Row, Table, iso


class EventQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the list of events."""

    state: InboundState | None = None
    type: Annotated[str, Meta(min_length=1, max_length=100)] | None = None


_COLUMNS = (
    Column(key="receivedAt", label="Time", type="date"),
    Column(key="type", label="Type"),
    Column(key="state", label="State"),
    Column(key="error", label="Error"),
    Column(key="account", label="Account"),
)


@reads(
    "/api/stripe-events",
    "List what Stripe sent",
    callers=STAFF,
    answer=Table,
    query=EventQuery,
    errors=(400,),
    description="What an event says is never shown: it can hold personal data.",
)
async def list_stripe_events(call: Call[NoBody, EventQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        page = await list_events(
            connection,
            after=read_cursor(query.cursor),
            limit=query.limit,
            state=query.state,
            event_type=query.type,
        )
    return Table(
        columns=_COLUMNS,
        rows=[_row(event) for event in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _row(event: EventSummary) -> Row:
    return {
        "id": event.id,
        "receivedAt": iso(event.received_at),
        "type": event.type,
        "state": event.state,
        "error": event.error or NOTHING,
        "account": event.account,
    }


@reads("/api/stripe-events/{id}", "Show what became of an event", callers=STAFF, answer=Detail, errors=(404,))
async def show_stripe_event(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        event = await get_event_summary(connection, event_id=call.id_of("Event"))
    return Detail(
        fields=[
            Field(key="eventId", label="ID at Stripe", type="code", value=event.remote_id),
            Field(key="type", label="Type", value=event.type),
            Field(key="account", label="Account", value=event.account),
            Field(key="state", label="State", value=event.state),
            Field(key="meaning", label="Meaning", value=INBOUND_PHRASES[event.state]),
            Field(key="error", label="Error", type="multiline", value=event.error or NOTHING),
            Field(key="attempts", label="Attempts", type="number", value=event.attempts),
            _time("sentAt", "Sent", event.sent_at),
            _time("receivedAt", "Received", event.received_at),
            _time("appliedAt", "Applied", event.applied_at),
            _time("nextTryAt", "Next Try", event.next_try_at),
        ]
    )


def _time(key: str, label: str, moment: datetime | None) -> Field:
    if moment is None:
        return Field(key=key, label=label, value=NOTHING)
    return Field(key=key, label=label, type="date", value=iso(moment))


@reads(
    "/api/stripe-events/{id}/actions",
    "List what staff can do with an event",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_stripe_event_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        event = await get_event_summary(connection, event_id=call.id_of("Event"))
    try:
        check_can_retry(event.state, has_payload=event.has_payload)
    except LedgerError:
        return Actions(actions=[])
    return Actions(actions=[Action(label="Retry", endpoint=f"/api/stripe-events/{event.id}/retry", method="POST")])


@writes(
    "POST",
    "/api/stripe-events/{id}/retry",
    "Try again to apply an event",
    callers=STAFF,
    answer=Done,
    errors=(400, 404, 409, 410, 422),
    description="Also one that was given up. What was applied or is of no use is 400; what was said is deleted in "
    "time, and then it is 410.",
)
async def retry(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await retry_event(tx, event_id=call.id_of("Event"))
    return Done()


operations = [list_stripe_events, show_stripe_event, list_stripe_event_actions, retry]
