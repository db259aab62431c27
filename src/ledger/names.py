"""Display names of people: asked from Lanyard, kept for minutes, never stored.

Every look-up costs Lanyard about 0.3 s of work, so they are few at a time and mostly in the background.
The figures and their reasons are in `docs/decisions/0003-identity-cache.md`.
"""

import asyncio
import itertools
import time
import unicodedata
from collections.abc import Callable

import msgspec
import structlog

from ledger.database.persons import RESTRICTED
from ledger.lanyard import LanyardClient, LanyardSilent, is_lanyard_id

_log = structlog.get_logger("ledger.names")

_SHORT_ID_CHARACTERS = 8
_MAX_NAME_CHARACTERS = 200
_MAX_FOUND = 1000


class NamesLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a name counts, how long a list waits for names, and how much is kept."""

    fresh_s: float = 600.0
    # From this age on a name in use is looked up again in the background.
    refresh_after_s: float = 480.0
    # For so long a name stands in when Lanyard does not answer; then it is forgotten.
    last_good_s: float = 1800.0

    wait_s: float = 1.0
    # Without any answer for so long (longer where Lanyard took longer the last time), a list stops waiting.
    sign_of_life_s: float = 0.4
    patience_factor: float = 1.5
    # After Lanyard was silent: the time until a single call tries whether it is back.
    back_off_s: float = 2.0

    calls_at_once: int = 8
    waiting: int = 1000
    names: int = 50_000


class NamesCounts(msgspec.Struct):
    """Counters since the start, for the metrics."""

    calls: int = 0
    silent: int = 0
    dropped: int = 0


class _Name(msgspec.Struct, frozen=True):
    # None: Lanyard knows nobody by this id any more, or shows no name.
    name: str | None
    folded: str
    asked_at_s: float


class LanyardNames:
    """Names from Lanyard (implements `ledger.identity.Names`)."""

    def __init__(
        self,
        lanyard: LanyardClient,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        limits: NamesLimits | None = None,
    ) -> None:
        self.counts = NamesCounts()
        self._lanyard = lanyard
        self._monotonic_s = monotonic_s
        self._limits = limits or NamesLimits()
        # In the order of age: the oldest is dropped first.
        self._names: dict[str, _Name] = {}
        # Ids to look up, the newest last. The newest goes first, because somebody is looking at it now.
        self._waiting: dict[str, None] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}
        # Who waits for an id; done when its answer came, or when there is no point in waiting any longer.
        self._signals: dict[str, asyncio.Future[None]] = {}
        self._silent = False
        self._probe: asyncio.TimerHandle | None = None
        self._took_s = 0.0
        self._answers = 0
        self._closed = False

    @property
    def calls_under_way(self) -> int:
        return len(self._calls)

    @property
    def ids_waiting(self) -> int:
        return len(self._waiting)

    async def display_names(self, user_ids: set[str]) -> dict[str, str]:
        """Returns a name for every id: the display name where it is known, else a short form of the id.

        Waits at most 1 s, and not at all while Lanyard is silent; what is missing then is looked up later.
        """
        now_s = self._monotonic_s()
        self._forget_the_oldest(now_s)
        missing: list[str] = []
        for user_id in user_ids:
            known = self._names.get(user_id)
            age_s = now_s - known.asked_at_s if known is not None else self._limits.last_good_s
            if age_s >= self._limits.refresh_after_s and is_lanyard_id(user_id):
                self._want(user_id)
                if age_s >= self._limits.fresh_s:
                    missing.append(user_id)
        self._start_calls()
        await self._wait_for(missing)
        return {user_id: self._shown(user_id) for user_id in user_ids}

    def find_user_ids(self, fragment: str) -> set[str]:
        """Returns the ids whose cached name contains `fragment`, whatever its case (at most 1000; none for blank)."""
        wanted = _fold(fragment.strip())
        if not wanted:
            return set()
        oldest_s = self._monotonic_s() - self._limits.last_good_s
        found = (
            user_id for user_id, known in self._names.items() if wanted in known.folded and known.asked_at_s > oldest_s
        )
        return set(itertools.islice(found, _MAX_FOUND))

    async def close(self) -> None:
        """Stops the look-ups. The client is closed by whoever made it."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
        self._waiting.clear()
        self._release_everybody()
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calls.clear()
        self._names.clear()

    def _shown(self, user_id: str) -> str:
        known = self._names.get(user_id)
        usable = known is not None and self._monotonic_s() - known.asked_at_s < self._limits.last_good_s
        return (known.name if known is not None and usable else None) or short_id(user_id)

    def _want(self, user_id: str) -> None:
        """Queues a look-up, unless it is queued or under way. When the queue is full the oldest wish is dropped."""
        if user_id in self._calls or user_id in self._waiting or self._closed:
            return
        self._waiting[user_id] = None
        if len(self._waiting) > self._limits.waiting:
            dropped = next(iter(self._waiting))
            del self._waiting[dropped]
            self.counts.dropped += 1
            self._release(dropped)

    def _start_calls(self) -> None:
        """Starts as many look-ups as may run. While Lanyard is silent that is one after each pause, by `_try_again`."""
        while self._waiting and not self._silent and len(self._calls) < self._limits.calls_at_once:
            self._start_call()

    def _start_call(self) -> None:
        user_id, _ = self._waiting.popitem()
        self._calls[user_id] = asyncio.get_running_loop().create_task(self._look_up(user_id))

    async def _wait_for(self, user_ids: list[str]) -> None:
        """Waits until all are answered, Lanyard shows itself silent, or the second is over."""
        if not user_ids or self._silent or self._closed:
            return
        if self._lanyard.silent_for_s() >= self._limits.sign_of_life_s:
            # Another call, of this very request perhaps, has waited in vain already.
            self._fall_silent("no_sign_of_life")
            return
        loop = asyncio.get_running_loop()
        began_s, answers_before = loop.time(), self._answers
        pending = {self._signal(user_id) for user_id in user_ids if self._is_pending(user_id)}
        if not pending:
            return
        patience_s = max(self._took_s * self._limits.patience_factor, self._limits.sign_of_life_s)
        done, pending = await asyncio.wait(
            pending, timeout=min(patience_s, self._limits.wait_s), return_when=asyncio.FIRST_COMPLETED
        )
        if not done and self._answers == answers_before:
            self._fall_silent("no_sign_of_life")
        remaining_s = self._limits.wait_s - (loop.time() - began_s)
        if pending and not self._silent and remaining_s > 0:
            await asyncio.wait(pending, timeout=remaining_s)

    def _is_pending(self, user_id: str) -> bool:
        return user_id in self._calls or user_id in self._waiting

    def _signal(self, user_id: str) -> asyncio.Future[None]:
        """The future all requests share that wait for this id. Nobody's cancellation reaches it (`asyncio.wait`)."""
        signal = self._signals.get(user_id)
        if signal is None:
            signal = self._signals[user_id] = asyncio.get_running_loop().create_future()
        return signal

    async def _look_up(self, user_id: str) -> None:
        """Asks Lanyard for one name and keeps the answer; then lets the next one go."""
        self.counts.calls += 1
        loop = asyncio.get_running_loop()
        asked_at_s, began_s = self._monotonic_s(), loop.time()
        try:
            user = await self._lanyard.user(user_id)
        except LanyardSilent as silence:
            self._fall_silent(silence.reason)
        except Exception as error:
            # Names are a courtesy: no fault here may fail a list. Only its class is sure to hold nothing personal.
            _log.error("name_look_up_failed", error=type(error).__name__)
            self._fall_silent("fault")
        else:
            self._took_s = loop.time() - began_s
            self._keep(user_id, _readable(user.name) if user is not None else None, asked_at_s)
            self._hear()
        finally:
            self._calls.pop(user_id, None)
            self._release(user_id)
        self._start_calls()

    def _keep(self, user_id: str, name: str | None, asked_at_s: float) -> None:
        self._names.pop(user_id, None)
        self._names[user_id] = _Name(name, _fold(name or ""), asked_at_s)
        if len(self._names) > self._limits.names:
            del self._names[next(iter(self._names))]

    def _forget_the_oldest(self, now_s: float) -> None:
        """Drops names that may not be shown any more; a few at a time, since new ones come one by one."""
        for oldest in list(itertools.islice(self._names, 16)):
            if now_s - self._names[oldest].asked_at_s >= self._limits.last_good_s:
                del self._names[oldest]

    def _fall_silent(self, reason: str) -> None:
        """Lanyard does not answer: nobody waits until it does, and one call at a time tries whether it is back."""
        self.counts.silent += 1
        if not self._silent:
            _log.info("names_shown_as_short_ids", reason=reason)
        self._silent = True
        self._release_everybody()
        if self._probe is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._probe = loop.call_later(self._limits.back_off_s, self._try_again)

    def _try_again(self) -> None:
        self._probe = None
        if not self._waiting and not self._calls:
            # Nothing is left to ask. The next list finds out by itself.
            self._silent = False
        elif self._silent and self._waiting and len(self._calls) < self._limits.calls_at_once:
            self._start_call()

    def _hear(self) -> None:
        """Lanyard answered: everything goes at full pace again."""
        self._answers += 1
        if self._silent:
            _log.info("names_known_again")
        self._silent = False

    def _release(self, user_id: str) -> None:
        signal = self._signals.pop(user_id, None)
        if signal is not None and not signal.done():
            signal.set_result(None)

    def _release_everybody(self) -> None:
        for user_id in list(self._signals):
            self._release(user_id)


class StandaloneNames:
    """The names of the two people of standalone mode (implements `ledger.identity.Names`)."""

    def __init__(self, names: dict[str, str]) -> None:
        """`names` by user id."""
        self._names = dict(names)

    async def display_names(self, user_ids: set[str]) -> dict[str, str]:
        return {user_id: self._names.get(user_id) or short_id(user_id) for user_id in user_ids}

    def find_user_ids(self, fragment: str) -> set[str]:
        wanted = _fold(fragment.strip())
        return {user_id for user_id, name in self._names.items() if wanted and wanted in _fold(name)}

    async def close(self) -> None:
        """Has nothing to close."""


def short_id(user_id: str) -> str:
    """What stands for a person without a known name: the first 8 characters of the id and an ellipsis.

    What stands for people who are not asked after is no id, and is shown whole.
    """
    if len(user_id) <= _SHORT_ID_CHARACTERS or user_id == RESTRICTED:
        return user_id
    return f"{user_id[:_SHORT_ID_CHARACTERS]}…"


def _fold(text: str) -> str:
    """Text as it is compared: whatever its case, and however its accents are encoded."""
    return unicodedata.normalize("NFC", text.casefold())


def _readable(name: str | None) -> str | None:
    """A name on one line, of at most 200 characters, without control characters; None when nothing is left."""
    if name is None:
        return None
    shown = "".join(" " if unicodedata.category(character) == "Cc" else character for character in name[:1000])
    return " ".join(shown.split())[:_MAX_NAME_CHARACTERS] or None
