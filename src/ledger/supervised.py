"""How a process behaves that the supervisor started: it stops when told, or when the supervisor is gone, in time."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog
import uvloop

log = structlog.get_logger("ledger.process")

# The supervisor kills after 20 s; this leaves a second to say what was cut off.
_STOP_TIMEOUT_S = 19.0

# Runs until the event is set, and then finishes what it is doing.
Work = Callable[[asyncio.Event], Awaitable[None]]


def run_supervised(work: Work, *, lifeline: int | None) -> int:
    """Runs `work` until SIGTERM, SIGINT or the end of the lifeline, a pipe whose other end the supervisor holds.

    Returns the exit code: 0 when it stopped as told, 1 when it failed. Work that takes longer than 19 s to stop is
    cut off, with a line in the log.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(work, lifeline))


async def _run(work: Work, lifeline: int | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        # Nobody writes to it: it becomes readable when it ends.
        loop.add_reader(lifeline, stop.set)
    working = asyncio.ensure_future(work(stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if lifeline is not None:
        loop.remove_reader(lifeline)
    if not working.done():
        await asyncio.wait({working}, timeout=_STOP_TIMEOUT_S)
    stopping.cancel()
    if not working.done():
        log.warning("cut off what was still running", after_s=_STOP_TIMEOUT_S)
        sys.stdout.flush()
        # Without ceremony: what did not end by itself would keep the interpreter from ending, too.
        os._exit(0)
    failure = working.exception()
    if failure is not None:
        log.error("ended by an error", exc_info=failure)
        return 1
    return 0
