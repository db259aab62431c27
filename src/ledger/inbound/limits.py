"""Keeps who sends forged events from using up the processor. Whoever is genuine never notices."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ledger.errors import NotFound, TooManyRequests
from ledger.providers.contract import SignatureWrong
from ledger.web.limits import RateLimiter

# From one address, before anything more from there is refused without being looked at.
FORGED_EVENTS_PER_MINUTE = 600
# So long after a genuine event its address is not limited. A provider has few addresses, and a proxy one for everybody.
GENUINE_FOR_S = 7 * 24 * 3600.0


class ForgeryLimit:
    """Counts events with a wrong signature by address; genuine ones are not counted, and free their address."""

    def __init__(self, *, per_minute: int, monotonic: Callable[[], float], addresses_max: int = 1_000) -> None:
        self._forged = RateLimiter(per_minute=per_minute, monotonic=monotonic)
        self._monotonic = monotonic
        self._addresses_max = addresses_max
        # When the last genuine event came, the longest ago first.
        self._genuine_at: OrderedDict[str, float] = OrderedDict()

    @contextmanager
    def watching(self, address: str) -> Iterator[None]:
        """Counts how the block ends. Raises `TooManyRequests` instead of entering it, and what the block raises."""
        self._check(address)
        try:
            yield
        except (SignatureWrong, NotFound):
            self._forged.take(address)
            raise
        self._genuine_at[address] = self._monotonic()
        self._genuine_at.move_to_end(address)
        if len(self._genuine_at) > self._addresses_max:
            self._genuine_at.popitem(last=False)

    def _check(self, address: str) -> None:
        wait_s = self._forged.wait_s(address)
        if wait_s is None:
            return
        genuine_at = self._genuine_at.get(address)
        if genuine_at is not None and self._monotonic() - genuine_at < GENUINE_FOR_S:
            return
        seconds = int(wait_s) + 1
        raise TooManyRequests(
            f"Too many events with a wrong signature from your address; try again in {seconds} s",
            retry_after_s=seconds,
        )
