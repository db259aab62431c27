"""The shapes the Dashboard renders: tables, details, actions and forms, exactly as its contract has them.

Status columns are text (the Dashboard filters by `String(value)`), dates are ISO 8601 with `Z` and milliseconds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

NOTHING = "—"

Cell = str | int | bool | None
ColumnType = Literal["string", "number", "date", "currency", "badge", "avatar", "link", "code"]
FieldType = Literal["string", "number", "boolean", "date", "link", "badge", "code", "multiline"]
FormFieldType = Literal[
    "text", "number", "email", "select", "textarea", "password", "search", "checkboxes", "datetime", "date"
]


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An answer's part: camelCase keys, and what is absent is left out."""


class Column(Shape, frozen=True, kw_only=True):
    """A column of a table."""

    key: str
    label: str
    type: ColumnType | None = None
    sortable: bool | None = None


class Action(Shape, frozen=True, kw_only=True):
    """A button: what it is called, what it calls, and which page (below Ledger's own path) is shown after it."""

    label: str
    endpoint: str
    method: Literal["POST", "PUT", "DELETE"]
    variant: Literal["danger"] | None = None
    confirm: str | None = None
    redirect: str | None = None


class Actions(Shape, frozen=True, kw_only=True):
    """The buttons that make sense in the present state; none of them would be refused by it."""

    actions: Sequence[Action]


Row = dict[str, Cell]


class Table(Shape, frozen=True, kw_only=True):
    """A list, newest first. `total` is exact up to 10 000; beyond, `totalIsMore` says so."""

    columns: Sequence[Column]
    rows: Sequence[Row]
    total: int
    # None and False are left out of the answer, since they are the defaults.
    total_is_more: bool = False
    next_cursor: str | None = None


class Field(Shape, frozen=True, kw_only=True):
    """One labelled value of a detail view."""

    key: str
    label: str
    value: Cell
    type: FieldType | None = None


class Detail(Shape, frozen=True, kw_only=True):
    """A thing's fields, in the order they are shown."""

    fields: Sequence[Field]


class Option(Shape, frozen=True, kw_only=True):
    """One choice of a select."""

    label: str
    value: str


class FormField(Shape, frozen=True, kw_only=True):
    """One input of a form with its true value; the Dashboard skips null values."""

    key: str
    label: str
    type: FormFieldType
    value: Cell = None
    required: bool = False
    placeholder: str | None = None
    options: Sequence[Option] | None = None


class Form(Shape, frozen=True, kw_only=True):
    """A form's inputs. Fields with a `type` replace the manifest's own list."""

    fields: Sequence[FormField]


class Stat(Shape, frozen=True, kw_only=True):
    """One figure of an overview."""

    key: str
    label: str
    value: str | int
    variant: Literal["default", "success", "warning", "danger", "info"] | None = None
    icon: str | None = None


class Stats(Shape, frozen=True, kw_only=True):
    """A row of figures."""

    stats: Sequence[Stat]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A change was made."""

    success: Literal[True] = True


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A thing was made; the Dashboard goes to its page."""

    success: Literal[True] = True
    id: str
    redirect: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """It worked, and this is what to know about it."""

    success: Literal[True] = True
    message: str


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`, as every time in the API is written."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
