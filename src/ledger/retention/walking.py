"""How retention goes through large tables: a page at a time, each in a short transaction of its own.

A run can be interrupted between two pages and repeated from the beginning: what was done stays done, and is found to
need nothing the next time. No statement reads or locks more than a page, however large a table is.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from ledger.database.connection import Connection

PAGE = 1_000
"""Rows looked at, and at most locked, in one transaction: about a fifth of a second where all of them change."""


class Place(msgspec.Struct, frozen=True):
    """A place in a table that is walked in the order of time and id (a UUID, or the number of a row)."""

    at: datetime
    id: str


BEGINNING = Place(datetime.min.replace(tzinfo=UTC), "00000000-0000-0000-0000-000000000000")
FIRST_ROW = Place(BEGINNING.at, "0")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is due: financial facts before `kept_since`, the rest before the other moments. All of it as of `now`."""

    now: datetime
    kept_since: datetime
    payloads_before: datetime
    deliveries_before: datetime
    answers_before: datetime
    is_dry: bool
    """Only count what would be done, and lock nothing."""


class Progress(msgspec.Struct, frozen=True):
    """What a page brought: how many things changed, and where the next page begins; None at the end."""

    count: int
    next: Place | None


Walk = Callable[..., Awaitable[Progress]]
"""`async (connection, *, limits, after) -> Progress`: does one page within a transaction."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of thing that retention goes through."""

    name: str
    """Names the count, in the audit log and in answers."""
    phrase: str
    """What happens to it, for people: `invoices lose their person`."""
    walk: Walk
    beginning: Place = BEGINNING


async def read_page(
    connection: Connection, query: str, *values: object, size: int | None = None
) -> tuple[list[str], Place | None]:
    """The ids that a query for a page finds, and its last place when the page is full.

    The query selects `id, at, is_wanted` (which of the page need something) in the order of `at, id`; its last
    parameter is the size of the page, `PAGE` unless told.
    """
    size = PAGE if size is None else size
    rows = await connection.fetch(query, *values, size)
    following = Place(rows[-1]["at"], str(rows[-1]["id"])) if len(rows) == size else None
    return [str(row["id"]) for row in rows if row["is_wanted"]], following


def affected(status: str) -> int:
    """How many rows a statement changed, as the server says it: `UPDATE 5`, `DELETE 5`."""
    return int(status.rsplit(" ", 1)[1])
