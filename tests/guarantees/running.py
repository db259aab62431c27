"""Ledger as it runs in production: `ledger serve` and `ledger worker` as processes, which can be killed."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec

from tests.fakes.lanyard import OWN_KEY, FakeLanyard
from tests.installation import KEY, Client, free_port
from tests.process.processes import Program, program

READY_WITHIN_S = 20.0


class RealLedger:
    """One `ledger` command as processes of its own, with the means to kill, stop and start it again."""

    def __init__(self, *, command: str, directory: Path, environ: Mapping[str, str]) -> None:
        self._command = command
        self._directory = directory
        self._environ = dict(environ)
        self._stack = AsyncExitStack()
        self._program: Program | None = None
        self._outputs: list[Program] = []
        self.url = f"http://127.0.0.1:{self._environ['PORT']}"

    @property
    def supervisor(self) -> Program:
        assert self._program is not None, "it was not started"
        return self._program

    def children(self) -> list[int]:
        """The processes that the supervisor keeps running."""
        return self.supervisor.others()

    async def launch(self) -> None:
        """Starts the processes without waiting for them."""
        await self._stack.aclose()
        self._program = await self._stack.enter_async_context(
            program(
                sys.executable, "-P", "-m", "ledger", self._command, directory=self._directory, environ=self._environ
            )
        )
        self._outputs.append(self._program)

    async def start(self) -> float:
        """Starts the processes and returns how many seconds passed until `/api/ready` said 200."""
        began_s = time.monotonic()
        await self.launch()
        await self.until_ready()
        return time.monotonic() - began_s

    async def until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=6)) as session:
            while True:
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    async with session.get(f"{self.url}/api/ready") as response:
                        if response.status == 200:
                            return
                assert time.monotonic() < deadline_s, self.log
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """`kill -9` of everything at once: the supervisor and its processes."""
        for pid in (self.supervisor.pid, *self.children()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_children(self) -> None:
        """`kill -9` of the serving processes; their supervisor starts them again."""
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze_children(self) -> None:
        """Stops the serving processes where they are; from here on they can only be killed."""
        for pid in self.children():
            os.kill(pid, signal.SIGSTOP)

    async def terminate(self) -> tuple[int, float]:
        """SIGTERM; returns the exit code and how many seconds the end took."""
        began_s = time.monotonic()
        code = await self.supervisor.stop()
        return code, time.monotonic() - began_s

    @property
    def log(self) -> str:
        """Everything its processes have written, earlier starts included."""
        return "\n".join(started.output for started in self._outputs)

    def events(self, name: str) -> list[dict[str, object]]:
        """The log's lines that tell of `name`."""
        lines = [msgspec.json.decode(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == name]

    async def close(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def real_ledger(
    command: str = "serve", *, database_url: str, directory: Path, lanyard: FakeLanyard, **settings: str
) -> AsyncIterator[RealLedger]:
    """A `ledger` command that is not started yet. Keyword arguments are environment variables."""
    environ = {
        "DATABASE_URL": database_url,
        "LANYARD_URL": lanyard.url,
        "LANYARD_SERVICE_KEY": OWN_KEY,
        "ENCRYPTION_KEY": KEY,
        "LEDGER_DATA_DIR": str(directory / "data"),
        "LEDGER_RATE_LIMIT": "0",
        "LEDGER_LOG": "json",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
    }
    directory.mkdir(parents=True, exist_ok=True)
    ledger = RealLedger(command=command, directory=directory, environ=environ | settings)
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def calling(ledger: RealLedger) -> AsyncIterator[tuple[Client, Client]]:
    """A service and a member of staff who call a running Ledger."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
    ) as session:
        yield (
            Client(session, ledger.url, {"Authorization": "ServiceKey sk_svc_shop"}),
            Client(session, ledger.url, {"Authorization": "Bearer token-staff"}),
        )
