"""Rate limits: so many requests a minute for each caller, so many failed proofs for each address.

Each API process counts for itself and gets its share of the limit. Counting is the generic cell rate algorithm
(ITU-T I.371): one number per caller, no timers, bursts up to the whole minute's allowance.
"""

from collections import OrderedDict
from collections.abc import Callable

WINDOW_S = 60.0


class RateLimiter:
    """Counts by key, at most `keys_max` of them; the one idle longest is forgotten first."""

    def __init__(self, *, per_minute: int, monotonic: Callable[[], float], keys_max: int = 20_000) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._keys_max = keys_max
        # When the key's allowance is whole again, on the monotonic clock.
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> float | None:
        """Counts one. Returns None when it is within the limit, else the seconds to wait."""
        wait_s = self.wait_s(key)
        if wait_s is None and self._per_minute > 0:
            now = self._monotonic()
            self._whole_at[key] = max(self._whole_at.get(key, now), now) + WINDOW_S / self._per_minute
            self._whole_at.move_to_end(key)
            if len(self._whole_at) > self._keys_max:
                self._whole_at.popitem(last=False)
        return wait_s

    def wait_s(self, key: str) -> float | None:
        """Seconds until `key` may come again, or None when it may now. Counts nothing."""
        if self._per_minute <= 0:
            return None
        whole_at = self._whole_at.get(key)
        if whole_at is None:
            return None
        wait_s = whole_at + WINDOW_S / self._per_minute - self._monotonic() - WINDOW_S
        return wait_s if wait_s > 1e-9 else None
