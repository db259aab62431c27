"""A guarantee about speed, and what came of measuring it."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

Tell = Callable[[str], None]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One guarantee and what came of it. `pairs` has a value per pair, `absolutes` what the values come from."""

    key: str
    what: str
    target: float
    bound: Literal["at least", "at most"]
    unit: Literal["×", "s", "/s"]
    pairs: Sequence[float]
    absolutes: Mapping[str, Sequence[float]]

    @property
    def measured(self) -> float:
        return statistics.median(self.pairs)

    @property
    def is_kept(self) -> bool:
        return self.measured >= self.target if self.bound == "at least" else self.measured <= self.target
