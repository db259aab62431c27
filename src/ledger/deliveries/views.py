"""How deliveries and their attempts are shown."""

from datetime import date, datetime

from ledger.deliveries.listing import Attempt, DeliveryView
from ledger.deliveries.rules import DELIVERY_PHRASES
from ledger.web.shapes import NOTHING, Column, Field, FormField, Row, iso

DELIVERY_COLUMNS = (
    Column(key="createdAt", label="Time", type="date"),
    Column(key="event", label="Event"),
    Column(key="subscriber", label="Subscriber"),
    Column(key="status", label="Status"),
    Column(key="attempts", label="Attempts", type="number"),
    Column(key="lastAnswer", label="Last Answer"),
)
ATTEMPT_COLUMNS = (
    Column(key="startedAt", label="Time", type="date"),
    Column(key="status", label="Status"),
    Column(key="duration", label="Duration"),
    Column(key="error", label="Error"),
    Column(key="answer", label="Answer"),
)


def delivery_row(delivery: DeliveryView) -> Row:
    """A row of the list."""
    return {
        "id": delivery.id,
        "createdAt": iso(delivery.created_at),
        "event": delivery.event_type,
        "subscriber": delivery.subscriber_name,
        "status": delivery.status.value,
        "attempts": delivery.attempts,
        "lastAnswer": _last_answer(delivery),
    }


def delivery_fields(delivery: DeliveryView) -> list[Field]:
    """The detail view."""
    return [
        Field(key="event", label="Event", value=delivery.event_type),
        Field(key="eventId", label="Event ID (webhook-id)", type="code", value=delivery.event_id),
        Field(key="subscriber", label="Subscriber", value=delivery.subscriber_name),
        Field(key="status", label="Status", value=delivery.status.value),
        Field(key="meaning", label="Meaning", value=DELIVERY_PHRASES[delivery.status]),
        Field(key="attempts", label="Attempts", type="number", value=delivery.attempts),
        Field(key="lastAnswer", label="Last Answer", type="multiline", value=_last_answer(delivery)),
        _date("createdAt", "Created", delivery.created_at),
        _date("nextTryAt", "Next Try", delivery.next_try_at),
        _date("settledAt", "Settled", delivery.settled_at),
    ]


def _last_answer(delivery: DeliveryView) -> str:
    if delivery.last_error is not None:
        return delivery.last_error
    return NOTHING if delivery.last_status is None else str(delivery.last_status)


def _date(key: str, label: str, moment: datetime | None) -> Field:
    # A dash is no date, so it has no type.
    if moment is None:
        return Field(key=key, label=label, value=NOTHING)
    return Field(key=key, label=label, type="date", value=iso(moment))


def attempt_row(attempt: Attempt) -> Row:
    """A row of a delivery's attempts."""
    return {
        "id": str(attempt.id),
        "startedAt": iso(attempt.started_at),
        "status": NOTHING if attempt.status is None else str(attempt.status),
        "duration": f"{attempt.duration_ms} ms",
        "error": attempt.error or NOTHING,
        "answer": attempt.answer or NOTHING,
    }


def replay_fields(*, today: date) -> list[FormField]:
    """The form that sends a range of events again; it is filled with the present day."""
    return [
        FormField(key="from", label="From", type="date", required=True, value=today.isoformat()),
        FormField(key="to", label="To (whole day, UTC)", type="date", value=today.isoformat()),
    ]
