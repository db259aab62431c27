"""Ids: how they are made, and what may pass for one.

Ids are handed in like time is, so a test can say which ones come out.
"""

import re
from typing import Protocol

from uuid_utils import uuid7

# Every part has a fixed length, so matching takes at most 36 steps whatever is sent.
_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}")


class Ids(Protocol):
    """Makes new ids: canonical UUID text, lower case, 36 characters."""

    def new(self) -> str: ...


class TimeOrderedIds:
    """UUID version 7: an id made later sorts after one made earlier, so inserts go to the end of an index.

    Within one process the order is strict, across threads, within the same millisecond and when the clock is
    set back (the generator of the `uuid` crate, which counts up behind a lock). Two processes are ordered only
    as well as their clocks are. Calling `uuid7` with a time of our own would give all of this up.
    """

    def new(self) -> str:
        return str(uuid7())


class SequentialIds:
    """Ids that count up from 1, the same in every run; for tests. They are valid version 7 UUIDs."""

    def __init__(self) -> None:
        self._made = 0

    def new(self) -> str:
        self._made += 1
        return f"00000000-0000-7000-8000-{self._made:012x}"


def is_id(text: str) -> bool:
    """Tells whether `text` is a UUID in its canonical 36 characters, in either case, of any version.

    Everything else (`../x`, quotes, braces, blanks, `urn:uuid:`) is refused before it reaches a query or a URL.
    """
    return _UUID_TEXT.fullmatch(text) is not None
