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
        # A future for each caller, so that one who gives up takes the answer from nobody else.
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """The value of `key`, or None when there is none. Raises what the query raises."""
        found: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(found)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name="coalescing reader")
        return await found

    async def _run(self) -> None:
        # One turn of the loop lets the requests that arrived together gather.
        await asyncio.sleep(0)
        while self._waiting:
            keys = list(self._waiting)[:KEYS_AT_ONCE]
            asked = {key: self._waiting.pop(key) for key in keys}
            try:
                values = await self._read(keys)
            except Exception as error:
                for futures in asked.values():
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
            else:
                for key, futures in asked.items():
                    value = values.get(key)
                    for future in futures:
                        if not future.done():
                            future.set_result(value)
