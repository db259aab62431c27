"""Reads that arrive together share one query: while one is under way, the next gathers its keys.

Services poll the status of invoices, and a query for fifty ids costs hardly more than one for a single id. A key is
always read by a query that starts after it was asked for, so an answer is never older than the question.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

KEYS_AT_ONCE = 500


class CoalescingReader(Generic[K, V]):
    """Answers single keys with queries for many."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read = read
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The value of `key`, or None when there is none. Raises what the query raises."""
        found = self._waiting.get(key)
        if found is None:
            found = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._runner is None or self._runner.done():
                self._runner = asyncio.create_task(self._run(), name="coalescing reader")
        # Shielded: one caller giving up must not take the answer from the others.
        return await asyncio.shield(found)

    async def _run(self) -> None:
        # One turn of the loop lets the requests that arrived together gather.
        await asyncio.sleep(0)
        while self._waiting:
            keys = list(self._waiting)[:KEYS_AT_ONCE]
            asked = {key: self._waiting.pop(key) for key in keys}
            try:
                values = await self._read(keys)
            except Exception as error:
                for future in asked.values():
                    if not future.done():
                        future.set_exception(error)
                        # Somebody who gave up does not collect it; that is no fault to report.
                        future.exception()
            else:
                for key, future in asked.items():
                    if not future.done():
                        future.set_result(values.get(key))
