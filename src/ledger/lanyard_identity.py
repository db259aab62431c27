"""Who calls, as Lanyard says, remembered for seconds: one call for many requests, and a last good answer for outages.

The figures and their reasons are in `docs/decisions/0003-identity-cache.md`. Two clocks are in use on purpose: how
old an answer is follows the clock that is handed in, how long a request waits follows the event loop.
"""

import asyncio
import contextlib
import hashlib
import itertools
import secrets
import time
from collections.abc import Callable

import msgspec
import structlog

from ledger.errors import Unauthorized, Unavailable
from ledger.identity import MAX_TOKEN_CHARACTERS, Caller, read_credential
from ledger.lanyard import RETRY_AFTER_S, LanyardClient, LanyardSilent

_log = structlog.get_logger("ledger.identity")

_LONGEST_HEADER = len("ServiceKey ") + MAX_TOKEN_CHARACTERS


class IdentityLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long an answer counts, how long a request waits, and how much is kept."""

    # Lanyard keeps its own answer for 15 s: together a revoked credential is accepted for at most 30 s.
    fresh_s: float = 15.0
    # From this age on a request starts a new call in the background, so a steady caller never waits.
    refresh_after_s: float = 10.0
    # For so long the last good answer stands in for a Lanyard that cannot say.
    last_good_s: float = 300.0
    refused_s: float = 5.0

    # A known caller waits so long for an answer before the last good one is used; longer where Lanyard
    # itself took longer the last time, so that a slow refusal is not mistaken for silence.
    patience_s: float = 0.35
    longest_patience_s: float = 2.0
    patience_factor: float = 1.3
    # After Lanyard could not say: no waiting for so long, and no new call for this credential for so long.
    doubt_s: float = 5.0
    pause_s: float = 1.0
    # A call including the wait for its turn.
    call_s: float = 5.0

    calls_at_once: int = 32
    # Made-up credentials leave room, so that they cannot delay the renewal of good ones.
    unknown_calls_at_once: int = 24
    known_calls_waiting: int = 1024
    unknown_calls_waiting: int = 512
    known_credentials: int = 10_000
    refused_credentials: int = 10_000


class IdentityCounts(msgspec.Struct):
    """Counters since the start, for the metrics."""

    hits: int = 0
    calls: int = 0
    refused: int = 0
    last_good_served: int = 0
    unavailable: int = 0


class _Known(msgspec.Struct):
    caller: Caller
    # When the call left, not when the answer came: the answer may be as old as that.
    verified_at_s: float
    took_s: float
    no_call_until_s: float = 0.0
    doubt_until_s: float = 0.0


class _Refused(msgspec.Struct, frozen=True):
    """Lanyard said no."""


class _Silent(msgspec.Struct, frozen=True):
    """Lanyard could not say."""

    retry_after_s: int


_Outcome = Caller | _Refused | _Silent


class _Call(msgspec.Struct, frozen=True):
    """A call under way. `began_s` is the event loop's time."""

    task: asyncio.Task[_Outcome]
    began_s: float


class CachedIdentity:
    """Proves callers with Lanyard's answers (implements `ledger.identity.Identity`).

    Credentials are kept only as keyed hashes, with a key that is made for this process and never leaves it.
    """

    def __init__(
        self,
        lanyard: LanyardClient,
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
        limits: IdentityLimits | None = None,
    ) -> None:
        self.counts = IdentityCounts()
        self._lanyard = lanyard
        self._monotonic_s = monotonic_s
        self._limits = limits or IdentityLimits()
        self._key = secrets.token_bytes(32)
        # Both in the order of insertion, which is the order of age: the oldest is dropped first.
        self._known: dict[bytes, _Known] = {}
        self._refused_until_s: dict[bytes, float] = {}
        self._calls: dict[bytes, _Call] = {}
        self._slots = asyncio.Semaphore(self._limits.calls_at_once)
        self._unknown_slots = asyncio.Semaphore(self._limits.unknown_calls_at_once)
        self._closed = False

    @property
    def calls_under_way(self) -> int:
        return len(self._calls)

    @property
    def credentials_kept(self) -> int:
        return len(self._known) + len(self._refused_until_s)

    def known(self, authorization: str) -> Caller | None:
        """Returns the caller whom a fresh answer proves, or None when `verify` has to be awaited. Never waits.

        Must be called in the running event loop: it starts the renewal of an answer that is about to expire.
        """
        if len(authorization) > _LONGEST_HEADER:
            return None
        digest = self._digest(authorization)
        entry = self._known.get(digest)
        if entry is None:
            return None
        age_s = self._monotonic_s() - entry.verified_at_s
        if age_s >= self._limits.fresh_s:
            return None
        if age_s >= self._limits.refresh_after_s:
            # Only the canonical spelling has this digest, so the header can be sent as it is.
            self._start_call_for_known(digest, authorization, entry)
        self.counts.hits += 1
        return entry.caller

    def remembers(self, authorization: str) -> bool:
        """Whether a good answer about this credential is kept, be it a fresh or the last good one."""
        try:
            entry = self._known.get(self._digest(read_credential(authorization).header))
        except Unauthorized:
            return False
        return entry is not None and self._monotonic_s() - entry.verified_at_s <= self._limits.last_good_s

    async def verify(self, authorization: str) -> Caller:
        """Returns the proven caller, from a fresh answer, a new one, or the last good one when Lanyard is silent.

        Raises `Unauthorized` for a malformed header and when Lanyard refused, `Unavailable` when nobody can say.
        Waits at most 5 s; for a credential that was good within the last 5 minutes, 0.35 s in most cases.
        """
        header = read_credential(authorization).header
        caller = self.known(header)
        if caller is not None:
            return caller
        digest = self._digest(header)
        now_s = self._monotonic_s()
        if self._refused_until_s.get(digest, 0.0) > now_s:
            self.counts.refused += 1
            raise Unauthorized
        entry = self._known.get(digest)
        if entry is not None and now_s - entry.verified_at_s > self._limits.last_good_s:
            del self._known[digest]
            entry = None
        if entry is None:
            return await self._verify_unknown(digest, header)
        return await self._verify_known(digest, header, entry)

    async def close(self) -> None:
        """Stops the calls under way. The client is closed by whoever made it."""
        self._closed = True
        tasks = [call.task for call in self._calls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calls.clear()
        self._known.clear()
        self._refused_until_s.clear()

    async def _verify_unknown(self, digest: bytes, header: str) -> Caller:
        call = self._calls.get(digest)
        if call is None and len(self._calls) < self._limits.unknown_calls_waiting and not self._closed:
            call = self._start_call(digest, header, known=False)
        outcome = await _wait_for(call.task, self._limits.call_s) if call is not None else None
        if outcome is None or isinstance(outcome, _Silent):
            self.counts.unavailable += 1
            raise LanyardSilent("no answer", retry_after_s=RETRY_AFTER_S if outcome is None else outcome.retry_after_s)
        return self._caller_or_refusal(outcome)

    async def _verify_known(self, digest: bytes, header: str, entry: _Known) -> Caller:
        """Renews an expired answer; falls back to it when Lanyard does not say anything in time."""
        self._start_call_for_known(digest, header, entry)
        call = self._calls.get(digest)
        outcome: _Outcome | None = None
        if call is not None and entry.doubt_until_s <= self._monotonic_s():
            waited_s = asyncio.get_running_loop().time() - call.began_s
            outcome = await _wait_for(call.task, self._patience_s(entry) - waited_s)
        if outcome is None or isinstance(outcome, _Silent):
            self.counts.last_good_served += 1
            return entry.caller
        return self._caller_or_refusal(outcome)

    def _caller_or_refusal(self, outcome: Caller | _Refused) -> Caller:
        if isinstance(outcome, _Refused):
            self.counts.refused += 1
            raise Unauthorized
        return outcome

    def _patience_s(self, entry: _Known) -> float:
        limits = self._limits
        return min(max(entry.took_s * limits.patience_factor, limits.patience_s), limits.longest_patience_s)

    def _start_call_for_known(self, digest: bytes, header: str, entry: _Known) -> None:
        """Starts a call unless one is under way, or the last one failed a moment ago."""
        if digest in self._calls or self._closed or entry.no_call_until_s > self._monotonic_s():
            return
        if len(self._calls) < self._limits.known_calls_waiting:
            self._start_call(digest, header, known=True)

    def _start_call(self, digest: bytes, header: str, *, known: bool) -> _Call:
        """Starts a call as a task of its own: a request that goes away does not take it along."""
        loop = asyncio.get_running_loop()
        # Registered before the task can run: from here on everybody with this credential joins it.
        call = _Call(loop.create_task(self._call(digest, header, known=known)), loop.time())
        self._calls[digest] = call
        return call

    async def _call(self, digest: bytes, header: str, *, known: bool) -> _Outcome:
        """One call to Lanyard and what follows from it. The outcome is a value, so nobody needs to be waiting."""
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(self._limits.call_s),
                contextlib.nullcontext() if known else self._unknown_slots,
                self._slots,
            ):
                self.counts.calls += 1
                left_at_s, began_s = self._monotonic_s(), loop.time()
                caller = await self._lanyard.verify(header)
        except Unauthorized:
            return self._remember_refusal(digest)
        except (Unavailable, TimeoutError) as silence:
            return self._remember_silence(digest, silence)
        except Exception as error:
            # A fault of our own must not decide about a caller either. Only its class is sure to hold no secret.
            _log.error("identity_call_failed", error=type(error).__name__)
            return self._remember_silence(digest, error)
        else:
            self._remember_caller(digest, _Known(caller, left_at_s, loop.time() - began_s))
            return caller
        finally:
            self._calls.pop(digest, None)

    def _remember_caller(self, digest: bytes, entry: _Known) -> None:
        self._refused_until_s.pop(digest, None)
        self._known.pop(digest, None)
        self._known[digest] = entry
        if len(self._known) > self._limits.known_credentials:
            del self._known[next(iter(self._known))]
        # What is too old to serve anybody goes as well: two for each one that comes.
        for oldest in list(itertools.islice(self._known, 2)):
            if self._monotonic_s() - self._known[oldest].verified_at_s > self._limits.last_good_s:
                del self._known[oldest]

    def _remember_refusal(self, digest: bytes) -> _Refused:
        self._known.pop(digest, None)
        self._refused_until_s.pop(digest, None)
        self._refused_until_s[digest] = self._monotonic_s() + self._limits.refused_s
        if len(self._refused_until_s) > self._limits.refused_credentials:
            del self._refused_until_s[next(iter(self._refused_until_s))]
        return _Refused()

    def _remember_silence(self, digest: bytes, silence: Exception) -> _Silent:
        entry = self._known.get(digest)
        if entry is not None:
            now_s = self._monotonic_s()
            entry.no_call_until_s = now_s + self._limits.pause_s
            entry.doubt_until_s = now_s + self._limits.doubt_s
        told_s = silence.retry_after_s if isinstance(silence, Unavailable) else None
        return _Silent(told_s or RETRY_AFTER_S)

    def _digest(self, header: str) -> bytes:
        # Requests can hold any text; what is not canonical ASCII merely has a digest that nothing is kept under.
        return hashlib.blake2b(header.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).digest()


async def _wait_for(task: asyncio.Task[_Outcome], timeout_s: float) -> _Outcome | None:
    """The task's outcome, or None when it takes longer. Neither the timeout nor our own end cancels the task."""
    if timeout_s > 0:
        await asyncio.wait({task}, timeout=timeout_s)
    return task.result() if task.done() and not task.cancelled() else None
