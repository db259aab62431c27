"""What makes a subscriber: the events it may ask for, the secrets it may have, the states it can be in. Pure."""

import enum
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.errors import BadRequest, FieldError
from ledger.events import EVENT_TYPES

NAME_MAX = 100
SECRET_MIN, SECRET_MAX = 16, 255
# Instead of names of events: all of them, those to come as well.
EVERY_EVENT = "*"
REQUIRED_SENTENCE = "Name and URL are required"

_SECRET = re.compile(rf"[\x21-\x7e]{{{SECRET_MIN},{SECRET_MAX}}}")


class EventsUnknown(BadRequest):
    """A subscriber asks for events that do not exist (400)."""


class SecretRefused(BadRequest):
    """A secret that anybody could guess, or that no HTTP header can carry (400)."""


class SubscriberWish(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscriber shall be like; None leaves it as it is, or to what is usual."""

    name: str | None = None
    url: str | None = None
    events: tuple[str, ...] | None = None
    header_secret: str | None = None
    sends_header_secret: bool | None = None


class SubscriberState(enum.StrEnum):
    """How a subscriber is doing."""

    ACTIVE = "active"
    FAILING = "failing"
    DISABLED = "disabled"


STATE_PHRASES = {
    SubscriberState.ACTIVE: "Active",
    SubscriberState.FAILING: "Failing",
    SubscriberState.DISABLED: "Disabled",
}


def state_of(*, is_active: bool, failing_since: datetime | None) -> SubscriberState:
    """A subscriber's state, as far as deliveries have told."""
    if not is_active:
        return SubscriberState.DISABLED
    return SubscriberState.ACTIVE if failing_since is None else SubscriberState.FAILING


def read_events(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """The events somebody asks for, in the catalogue's order; `*` stands alone. Empty when none is named.

    `wanted` is a list, or names separated by commas. Raises `EventsUnknown` with the names that exist.
    """
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    names = {part.strip() for part in parts} - {""}
    unknown = sorted(names - {*EVENT_TYPES, EVERY_EVENT})
    if unknown:
        shown = ", ".join(name if len(name) <= 50 else f"{name[:50]}…" for name in unknown[:5])
        known = f"known are {', '.join(EVENT_TYPES)}, and {EVERY_EVENT} for all of them"
        raise EventsUnknown(
            f"There is no event {shown}; {known}", fields=[FieldError("events", f"has no event {shown}; {known}")]
        )
    if EVERY_EVENT in names:
        return (EVERY_EVENT,)
    return tuple(name for name in EVENT_TYPES if name in names)


def check_header_secret(secret: str) -> None:
    """Raises `SecretRefused` for a secret that is too short, too long, or not fit for a header."""
    if not _SECRET.fullmatch(secret):
        reason = (
            f"must be {SECRET_MIN} to {SECRET_MAX} printable ASCII characters without blanks; "
            "leave it out to have one made"
        )
        raise SecretRefused(f"The secret {reason}", fields=[FieldError("secret", reason)])
