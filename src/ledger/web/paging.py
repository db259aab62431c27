"""Keyset paging: a cursor names the last row seen, so that page 5 000 costs what page 1 costs."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from ledger.errors import BadRequest, FieldError
from ledger.ids import is_id

LIST_MAX = 200
COUNTED_MAX = 10_000

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A `bigint` has up to 19 digits; one digit less always fits.
_ROW_NUMBER_DIGITS = 18
_MICROSECOND = timedelta(microseconds=1)


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every list takes: how many rows, and where to go on."""

    limit: Annotated[int, Meta(ge=1, le=LIST_MAX)] = LIST_MAX
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class Position(msgspec.Struct, frozen=True):
    """A place in a list that is sorted by time and id, newest first."""

    at: datetime
    id: str


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Rows, how many match in all (counted to 10 000), and the cursor of the next page."""

    rows: Sequence[T]
    total: int
    total_is_more: bool
    next_cursor: str | None


def write_cursor(position: Position) -> str:
    """An opaque cursor for the rows after `position`."""
    microseconds = (position.at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{microseconds}:{position.id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, *, is_row_id: Callable[[str], bool] = is_id) -> Position | None:
    """The position a cursor names. `is_row_id` tells what may be the id of a row in this list.

    Raises `BadRequest` for a cursor that Ledger did not write, or wrote for another list.
    """
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        microseconds, row_id = text.split(":", 1)
        at = _EPOCH + int(microseconds) * _MICROSECOND
    except (ValueError, binascii.Error, OverflowError):
        raise _foreign_cursor() from None
    if not is_row_id(row_id):
        raise _foreign_cursor()
    return Position(at, row_id)


def is_row_number(text: str) -> bool:
    """Tells whether `text` may be a number that the database gave to a row."""
    return len(text) <= _ROW_NUMBER_DIGITS and text.isascii() and text.isdecimal()


def _foreign_cursor() -> BadRequest:
    sentence = "is not one that Ledger gave for this list; start again without it"
    return BadRequest(f"The cursor {sentence}", fields=[FieldError("cursor", sentence)])


def counted(found: int) -> tuple[int, bool]:
    """A count that stopped at one more than the limit, as `total` and `totalIsMore`."""
    return min(found, COUNTED_MAX), found > COUNTED_MAX
