"""`/api/webhooks/deliveries`: what subscribers were told, for staff; and telling them again."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ledger.database.transaction import Tx
from ledger.deliveries.actions import REPLAYED_MAX, check_can_replay, replay_delivery, replay_range, send_test
from ledger.deliveries.listing import DeliveryFilter, get_delivery, list_attempts, list_deliveries
from ledger.deliveries.rules import DeliveryStatus
from ledger.deliveries.views import (
    ATTEMPT_COLUMNS,
    DELIVERY_COLUMNS,
    attempt_row,
    delivery_fields,
    delivery_row,
    replay_fields,
)
from ledger.errors import BadRequest, FieldError, LedgerError
from ledger.events import EVENT_TYPES
from ledger.web.bodies import UUID_PATTERN, Body, Instant, LastInstant, NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads, writes
from ledger.web.paging import PageQuery, is_row_number, read_cursor
from ledger.web.shapes import Action, Actions, Detail, Done, Form, Shape, Table
from ledger.webhooks.store import get_subscriber

THING = "Delivery"


class DeliveryQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the list of deliveries. `event` is a type of event."""

    subscriber_id: Annotated[str, Meta(pattern=UUID_PATTERN)] | None = None
    event: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    status: DeliveryStatus | None = None


class ReplayRange(Body, frozen=True, kw_only=True):
    """Which events to send again: those from one moment to another; a date means the whole day. `to` is now at most."""

    from_: Instant = msgspec.field(name="from")
    to: LastInstant | None = None


class Replayed(Shape, frozen=True, kw_only=True):
    """How many events are being sent again."""

    # Never left out of the answer, although it is always the same.
    success: bool
    count: int
    message: str


class PingSent(Shape, frozen=True, kw_only=True):
    """A test is on its way; the Dashboard shows its delivery."""

    success: bool
    id: str
    redirect: str


@reads(
    "/api/webhooks/deliveries",
    "List what subscribers were told",
    callers=STAFF,
    answer=Table,
    query=DeliveryQuery,
    errors=(400,),
)
async def list_all_deliveries(call: Call[NoBody, DeliveryQuery]) -> Table:
    query = call.query
    if query.event is not None and query.event not in EVENT_TYPES:
        sentence = f"must be one of {', '.join(EVENT_TYPES)}"
        raise BadRequest(f"event: {sentence}", fields=[FieldError("event", sentence)])
    async with call.database.connection() as connection:
        page = await list_deliveries(
            connection,
            wanted=DeliveryFilter(subscriber_id=query.subscriber_id, event_type=query.event, status=query.status),
            after=read_cursor(query.cursor),
            limit=query.limit,
        )
    return Table(
        columns=DELIVERY_COLUMNS,
        rows=[delivery_row(delivery) for delivery in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/webhooks/deliveries/{id}", "Show a delivery", callers=STAFF, answer=Detail, errors=(404,))
async def show_delivery(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        delivery = await get_delivery(connection, delivery_id=call.id_of(THING))
    return Detail(fields=delivery_fields(delivery))


@reads(
    "/api/webhooks/deliveries/{id}/attempts",
    "List the attempts of a delivery",
    callers=STAFF,
    answer=Table,
    query=PageQuery,
    errors=(400, 404),
    description="Also those before it was sent again. Of an answer the first 1024 bytes are kept.",
)
async def list_delivery_attempts(call: Call[NoBody, PageQuery]) -> Table:
    after = read_cursor(call.query.cursor, is_row_id=is_row_number)
    async with call.database.connection() as connection:
        delivery = await get_delivery(connection, delivery_id=call.id_of(THING))
        page = await list_attempts(connection, delivery_id=delivery.id, after=after, limit=call.query.limit)
    return Table(
        columns=ATTEMPT_COLUMNS,
        rows=[attempt_row(attempt) for attempt in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads(
    "/api/webhooks/deliveries/{id}/actions",
    "List what staff can do with a delivery",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_delivery_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        delivery = await get_delivery(connection, delivery_id=call.id_of(THING))
    try:
        check_can_replay(delivery, now=call.services.clock.now())
    except LedgerError:
        return Actions(actions=[])
    endpoint = f"/api/webhooks/deliveries/{delivery.id}/replay"
    return Actions(actions=[Action(label="Send Again", endpoint=endpoint, method="POST")])


@writes(
    "POST",
    "/api/webhooks/deliveries/{id}/replay",
    "Send a delivery again",
    callers=STAFF,
    answer=Done,
    errors=(400, 404, 409, 410, 422),
    description="With the same `webhook-id`, whatever became of it before. To a disabled subscriber nothing is sent "
    "(400); what was purged cannot be sent any more (410).",
)
async def replay_one(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await replay_delivery(tx, delivery_id=call.id_of(THING))
    return Done()


@reads(
    "/api/webhooks/subscribers/{id}/replay/form",
    "The form that sends a subscriber a range of events again",
    callers=STAFF,
    answer=Form,
    errors=(404,),
)
async def replay_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        await get_subscriber(connection, subscriber_id=call.id_of("Subscriber"))
    return Form(fields=replay_fields(today=call.services.clock.now().date()))


@writes(
    "POST",
    "/api/webhooks/subscribers/{id}/replay",
    "Send a subscriber the events of a range of time",
    callers=STAFF,
    body=ReplayRange,
    answer=Replayed,
    is_form=True,
    errors=(400, 404, 409, 410, 422),
    description=f"Every event that it asks for, at most {REPLAYED_MAX}: sent before or not, also from when it was "
    "disabled or not there yet. Those that were sent keep their `webhook-id`.",
)
async def replay_many(call: Call[ReplayRange, NoQuery], tx: Tx) -> Replayed:
    count = await replay_range(
        tx,
        subscriber_id=call.id_of("Subscriber"),
        since=call.body.from_,
        until=tx.now if call.body.to is None else call.body.to,
    )
    message = "1 event is sent again" if count == 1 else f"{count or 'No'} events are sent again"
    return Replayed(success=True, count=count, message=message)


@writes(
    "POST",
    "/api/webhooks/subscribers/{id}/test",
    "Send a subscriber a test event",
    callers=STAFF,
    answer=PingSent,
    errors=(400, 404, 409, 422),
    description="An event `ping`, for this subscriber only, whatever it asks for.",
)
async def send_ping(call: Call[NoBody, NoQuery], tx: Tx) -> PingSent:
    delivery_id = await send_test(tx, subscriber_id=call.id_of("Subscriber"))
    # An action's redirect stays inside the service by itself.
    return PingSent(success=True, id=delivery_id, redirect=f"/webhooks/deliveries/{delivery_id}")


operations = [
    list_all_deliveries,
    show_delivery,
    list_delivery_attempts,
    list_delivery_actions,
    replay_one,
    replay_form,
    replay_many,
    send_ping,
]
