"""A PostgreSQL of a test's own, which it may kill and freeze."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from ledger.database.migrate import migrate
from ledger.embedded import EmbeddedPostgres


class OwnPostgres:
    """One server, and its processes."""

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedPostgres(directory)
        self.url = self._server.url

    async def start(self) -> None:
        while self._server.is_alive():
            await asyncio.sleep(0.01)
        await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.stop)

    def processes(self) -> list[int]:
        """The postmaster and its children."""
        assert self._server._process is not None
        postmaster = self._server._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    def signal(self, number: int) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@asynccontextmanager
async def own_postgres() -> AsyncIterator[OwnPostgres]:
    """A migrated database on a server of its own."""
    # Not below pytest's directories: each start of pytest closes those to the account that PostgreSQL runs as.
    with TemporaryDirectory(prefix="ledger-test-", ignore_cleanup_errors=True) as directory:
        server = OwnPostgres(Path(directory))
        await server.start()
        try:
            await migrate(server.url)
            yield server
        finally:
            with suppress(OSError):
                server.signal(signal.SIGCONT)
            await server.stop()
