"""Keeps processes running: those of `ledger serve`, `ledger worker` or `ledger run`, and the embedded PostgreSQL.

Each process is started with the read end of one pipe, its lifeline, whose other end only the supervisor holds: when
the supervisor is killed, all of them notice and stop. Each has a session of its own, so that Ctrl-C in a terminal
reaches the supervisor alone, which stops them in order. The embedded PostgreSQL alone survives a killed supervisor,
and is found by the next one.
"""

import asyncio
import math
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog

from ledger.listener import refuse_connections

if TYPE_CHECKING:
    from ledger.embedded import EmbeddedPostgres

log = structlog.get_logger("ledger.supervisor")

_STOP_TIMEOUT_S = 20.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
# What lived this long before it ended is started again after the first pause, not after a longer one.
_SETTLED_S = 30.0

_READY_POLL_S = 0.05
_READY_TIMEOUT_S = 5.0
_READY_EXPECTED_S = 10.0
_READY_ANSWER_MAX_BYTES = 64 * 1024
_DATABASE_POLL_S = 0.25
_LOG_TRIM_EVERY_S = 60.0


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """A process to keep running. `--lifeline <descriptor>` is added to the command."""

    label: str
    command: tuple[str, ...]


class Supervisor:
    """Runs a set of processes until SIGTERM, SIGINT or SIGHUP. A second signal kills instead of waiting."""

    def __init__(
        self,
        *,
        children: Sequence[Child],
        environ: Mapping[str, str],
        listener: socket.socket | None = None,
        database: "EmbeddedPostgres | None" = None,
        stop_timeout_s: float = _STOP_TIMEOUT_S,
        first_pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        """`listener` is handed to every child; `database` is started before the children and stopped after them."""
        self._children = children
        self._environ = dict(environ)
        self._listener = listener
        self._address = _reachable_address(listener) if listener else ("", 0)
        self._database = database
        self._stop_timeout_s = stop_timeout_s
        self._first_pause_s = first_pause_s
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._children_ended = asyncio.Event()

    async def run(self, *, on_ready: Callable[[], None], first: Child | None = None) -> int:
        """Runs `first` to its end and then the children; returns the exit code when everything has ended.

        `on_ready` is called when `/api/ready` answers 200 on the listener, or at once where there is none. Raises
        `EmbeddedPostgresError` when the database does not start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # Under `nohup`, the end of the terminal is to be overlooked.
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, self._on_signal)
        if self._database is not None:
            self._environ["DATABASE_URL"] = await asyncio.to_thread(self._database.start)
        database = asyncio.create_task(self._keep_database())
        lifeline, held = os.pipe()
        try:
            if first is not None and not self._stop.is_set() and await self._run_once(first, lifeline) != 0:
                return 0 if self._stop.is_set() else 1
            working = [asyncio.create_task(self._keep(child, lifeline)) for child in self._children]
            working.append(asyncio.create_task(self._announce(on_ready)))
            await self._stop.wait()
            if self._listener is not None:
                refuse_connections(self._listener)
                self._listener.close()
            await asyncio.gather(*working)
            return 0
        finally:
            os.close(held)
            os.close(lifeline)
            self._children_ended.set()
            await database

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _start(self, child: Child, lifeline: int) -> Process:
        passed = [lifeline] if self._listener is None else [lifeline, self._listener.fileno()]
        return await asyncio.create_subprocess_exec(
            *child.command,
            "--lifeline",
            str(lifeline),
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environ,
            pass_fds=passed,
            start_new_session=True,
        )

    async def _run_once(self, child: Child, lifeline: int) -> int:
        process = await self._start(child, lifeline)
        await self._until_stop_or_end(process)
        return await self._end(child, process)

    async def _keep(self, child: Child, lifeline: int) -> None:
        """Starts the child, again and again with growing pauses, until told to stop; then ends it."""
        loop = asyncio.get_running_loop()
        pause_s = self._first_pause_s
        while not self._stop.is_set():
            started_s = loop.time()
            try:
                exit_code = await self._run_once(child, lifeline)
            except OSError as error:
                reason = f"cannot be started: {error.strerror}"
            else:
                reason = _reason(exit_code)
            if self._stop.is_set():
                return
            if loop.time() - started_s >= _SETTLED_S:
                pause_s = self._first_pause_s
            log.error("process ended", process=child.label, reason=reason, again_in_s=pause_s)
            await _wait(self._stop, timeout_s=pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _until_stop_or_end(self, process: Process) -> None:
        waits = [asyncio.create_task(self._stop.wait()), asyncio.create_task(process.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _end(self, child: Child, process: Process) -> int:
        """Ends the process: in good order within 20 s, or else by force. Returns its exit code."""
        if process.returncode is not None:
            return process.returncode
        with suppress(ProcessLookupError):
            process.terminate()
        waits = [asyncio.create_task(self._hurry.wait()), asyncio.create_task(process.wait())]
        await asyncio.wait(waits, timeout=self._stop_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if process.returncode is None:
            log.warning("process killed, since it did not stop", process=child.label)
            with suppress(ProcessLookupError):
                process.kill()
        return await process.wait()

    async def _keep_database(self) -> None:
        """Starts the embedded PostgreSQL again whenever it dies; stops it when the children have ended."""
        if self._database is None:
            return
        loop = asyncio.get_running_loop()
        trim_at_s = loop.time() + _LOG_TRIM_EVERY_S
        pause_s = self._first_pause_s
        while not self._children_ended.is_set():
            wait_s = _DATABASE_POLL_S
            if not self._database.is_alive():
                log.error("embedded PostgreSQL ended; starting it again")
                wait_s, pause_s = await self._restart_database(pause_s)
            elif loop.time() >= trim_at_s:
                self._database.trim_log()
                trim_at_s = loop.time() + _LOG_TRIM_EVERY_S
            await _wait(self._children_ended, timeout_s=wait_s)
        await asyncio.to_thread(self._database.stop)

    async def _restart_database(self, pause_s: float) -> tuple[float, float]:
        """Returns how long to wait now, and how long after the next failure."""
        from ledger.embedded import EmbeddedPostgresError

        assert self._database is not None
        try:
            await asyncio.to_thread(self._database.start)
        except EmbeddedPostgresError as error:
            log.error("embedded PostgreSQL does not start", reason=str(error), again_in_s=pause_s)
            return pause_s, min(2 * pause_s, _LONGEST_PAUSE_S)
        log.info("embedded PostgreSQL serves again")
        return _DATABASE_POLL_S, self._first_pause_s

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        warn_at_s = loop.time() + _READY_EXPECTED_S
        pause_s = _READY_POLL_S
        while self._listener is not None and not await _is_ready(self._address):
            if await _wait(self._stop, timeout_s=pause_s):
                return
            pause_s = min(2 * pause_s, _READY_TIMEOUT_S)
            if loop.time() >= warn_at_s:
                log.warning("not ready yet", why="see /api/ready", port=self._address[1])
                warn_at_s = math.inf
        on_ready()


async def _wait(event: asyncio.Event, *, timeout_s: float) -> bool:
    """Waits for the event, at most so long; returns whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()


def _reachable_address(listener: socket.socket) -> tuple[str, int]:
    """An address at which a listener can be reached from this machine."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104


async def _is_ready(address: tuple[str, int]) -> bool:
    """Whether `/api/ready` answers 200."""
    try:
        async with asyncio.timeout(_READY_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(*address, limit=_READY_ANSWER_MAX_BYTES)
            try:
                writer.write(b"GET /api/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                status = await reader.readline()
                return status.split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False


def _reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def ledger_command(*arguments: str) -> tuple[str, ...]:
    """The command line of this very Ledger. `-P` keeps the working directory's files from being imported."""
    return (sys.executable, "-P", "-m", "ledger", *arguments)
