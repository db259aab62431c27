"""How subscribers are shown: as a row, as a detail, and as forms with true values."""

from datetime import datetime

from ledger.events import EVENT_TYPES
from ledger.web.shapes import NOTHING, Action, Column, Field, FormField, Option, Row, iso
from ledger.webhooks.rules import EVERY_EVENT, SECRET_MAX, SECRET_MIN, STATE_PHRASES, state_of
from ledger.webhooks.store import LastDelivery, Subscriber

SUBSCRIBER_COLUMNS = (
    Column(key="name", label="Name"),
    Column(key="url", label="URL"),
    Column(key="events", label="Events"),
    Column(key="status", label="Status"),
    Column(key="createdAt", label="Created", type="date"),
)
_YES_OR_NO = (Option(label="Yes", value="true"), Option(label="No", value="false"))
_DELIVERY_PHRASES = {"pending": "on its way", "delivered": "delivered", "failed": "failed"}


def subscriber_row(subscriber: Subscriber) -> Row:
    """A row of the list. What stands after the path of an address may be a secret, so only the page shows it."""
    return {
        "id": subscriber.id,
        "name": subscriber.name,
        "url": subscriber.url.partition("?")[0],
        "events": _events_text(subscriber),
        "status": _state_phrase(subscriber),
        "createdAt": iso(subscriber.created_at),
    }


def subscriber_fields(subscriber: Subscriber, *, last: LastDelivery | None) -> list[Field]:
    """The detail view. The secrets are not in it: they were shown once."""
    return [
        Field(key="name", label="Name", value=subscriber.name),
        Field(key="url", label="URL", value=subscriber.url),
        Field(key="events", label="Events", type="multiline", value=_events_text(subscriber)),
        Field(key="status", label="Status", value=_state_phrase(subscriber)),
        _date("failingSince", "Failing Since", subscriber.failing_since),
        Field(
            key="disabledReason", label="Why Disabled", type="multiline", value=subscriber.disabled_reason or NOTHING
        ),
        Field(key="lastDelivery", label="Last Delivery", value=_delivery_text(last)),
        _date("lastDeliveryAt", "Last Delivery At", None if last is None else last.created_at),
        Field(
            key="sendsHeaderSecret",
            label="Sends X-Webhook-Secret",
            type="boolean",
            value=subscriber.sends_header_secret,
        ),
        Field(key="createdAt", label="Created", type="date", value=iso(subscriber.created_at)),
    ]


def _events_text(subscriber: Subscriber) -> str:
    return "All" if EVERY_EVENT in subscriber.events else ", ".join(subscriber.events)


def _state_phrase(subscriber: Subscriber) -> str:
    return STATE_PHRASES[state_of(is_active=subscriber.is_active, failing_since=subscriber.failing_since)]


def _delivery_text(last: LastDelivery | None) -> str:
    if last is None:
        return NOTHING
    answer = "" if last.last_status is None else f" (HTTP {last.last_status})"
    return f"{last.event_type}: {_DELIVERY_PHRASES[last.status]}{answer}"


def _date(key: str, label: str, moment: datetime | None) -> Field:
    # A dash is no date, so it has no type.
    if moment is None:
        return Field(key=key, label=label, value=NOTHING)
    return Field(key=key, label=label, type="date", value=iso(moment))


def subscriber_actions(subscriber: Subscriber) -> list[Action]:
    """The buttons that make sense in the present state."""
    at, name = f"/api/webhooks/subscribers/{subscriber.id}", subscriber.name
    test = Action(label="Send Test Event", endpoint=f"{at}/test", method="POST")
    switch = (
        Action(
            label="Disable",
            endpoint=f"{at}/toggle",
            method="POST",
            variant="danger",
            confirm=f"Disable {name}? It is told of nothing that happens from now on.",
        )
        if subscriber.is_active
        else Action(
            label="Enable",
            endpoint=f"{at}/toggle",
            method="POST",
            confirm=f"Enable {name}? It is told of what happens from now on.",
        )
    )
    rotate = Action(
        label="Rotate Secrets",
        endpoint=f"{at}/rotate-secret",
        method="POST",
        confirm=f"Make new secrets for {name}? The old signing secret stays valid for 24 hours; the secret in the "
        "header X-Webhook-Secret changes at once.",
    )
    delete = Action(
        label="Delete",
        endpoint=at,
        method="DELETE",
        variant="danger",
        confirm=f"Delete {name} with the list of its deliveries? This cannot be undone.",
    )
    return [test, switch, rotate, delete] if subscriber.is_active else [switch, rotate, delete]


def new_subscriber_fields() -> list[FormField]:
    """The form of a new subscriber."""
    return [
        FormField(key="name", label="Name", type="text", required=True, placeholder="e.g. Shop"),
        FormField(
            key="url", label="URL", type="text", required=True, placeholder="https://shop.example.com/hooks/ledger"
        ),
        FormField(key="events", label="Events", type="textarea", value=EVERY_EVENT, placeholder=_EVENTS_HINT),
        FormField(
            key="secret",
            label="Secret for X-Webhook-Secret",
            type="password",
            placeholder=f"{SECRET_MIN} to {SECRET_MAX} characters; empty to have one made",
        ),
        FormField(key="sendsHeaderSecret", label="Send X-Webhook-Secret", type="select", options=_YES_OR_NO),
    ]


def edit_subscriber_fields(subscriber: Subscriber) -> list[FormField]:
    """The form that changes a subscriber."""
    return [
        FormField(key="name", label="Name", type="text", required=True, value=subscriber.name),
        FormField(key="url", label="URL", type="text", required=True, value=subscriber.url),
        FormField(
            key="events",
            label="Events",
            type="textarea",
            required=True,
            value=", ".join(subscriber.events),
            placeholder=_EVENTS_HINT,
        ),
        FormField(
            key="secret",
            label="Secret for X-Webhook-Secret",
            type="password",
            placeholder="Empty to keep the present one",
        ),
        FormField(
            key="sendsHeaderSecret",
            label="Send X-Webhook-Secret",
            type="select",
            value="true" if subscriber.sends_header_secret else "false",
            options=_YES_OR_NO,
        ),
    ]


_EVENTS_HINT = f"{EVERY_EVENT} for all, or some of: {', '.join(EVENT_TYPES)}"
