"""A Ledger to measure: the embedded PostgreSQL with everything durable, and Ledger's own processes on it."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import asyncpg

from bench.load import http_request
from ledger.database.migrate import migrate
from ledger.embedded import EmbeddedPostgres
from ledger.standalone import load_or_create_credentials

START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.01
_LOG_TOLD_CHARACTERS = 2_000
_TEMPLATE = "bench_template"
LEDGER_COMMAND = str(Path(sys.executable).with_name("ledger"))


class BenchFailed(Exception):
    """Something did not start or did not work; the figures cannot be measured."""


class Databases:
    """The server, and migrated databases on it."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    def url(self, name: str) -> str:
        return self._server.url_for(role="ledger", database=name)

    def make(self, name: str) -> str:
        """Makes a migrated, empty database and returns its URL."""
        self._execute(f'create database "{name}" template "{_TEMPLATE}"')
        return self.url(name)

    def make_template(self) -> None:
        """Migrates the database that the others are copies of."""
        self._execute(f'create database "{_TEMPLATE}"')
        asyncio.run(migrate(self.url(_TEMPLATE)))

    def _execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self._server.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(execute())


@contextmanager
def databases(folder: Path) -> Iterator[Databases]:
    """Starts the embedded PostgreSQL in `folder`, with fsync and synchronous_commit on, and stops it afterwards."""
    # Started as root, the server runs as somebody else, who has to get to its files; these are closed by themselves.
    folder.chmod(0o755)
    data_dir = folder / "postgres"
    data_dir.mkdir(mode=0o755)
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        made = Databases(server)
        made.make_template()
        yield made
    finally:
        server.stop()


class Ledger:
    """Where a started Ledger listens, and the credentials for it."""

    def __init__(self, *, database_url: str, data_dir: Path, **settings: str) -> None:
        """Keyword arguments are further environment variables."""
        self.database_url = database_url
        self._settings = settings
        self.data_dir = data_dir
        self.port = _free_port()
        credentials = load_or_create_credentials(data_dir)
        self.admin = f"Bearer {credentials.admin_token}"
        self.user = f"Bearer {credentials.user_token}"
        self.service = f"ServiceKey {credentials.service_key}"

    def environment(self) -> dict[str, str]:
        """A production's settings, as far as standalone identity allows, without limits that would end a run."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "DATABASE_URL": self.database_url,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "LEDGER_IDENTITY": "standalone",
            "LEDGER_DATA_DIR": str(self.data_dir),
            "LEDGER_LOG": "json",
            "LEDGER_RATE_LIMIT": "1000000",
            **self._settings,
        }

    def request(self, method: str, path: str, *, caller: str | None = None, body: object | None = None) -> bytes:
        """The bytes of a request to this Ledger."""
        return http_request(method, path, port=self.port, authorization=caller, body=body)

    def answers(self, path: str = "/api/ready") -> bool:
        """Whether a request is answered with 200 just now."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @contextmanager
    def serving(self) -> Iterator[float]:
        """Runs `ledger serve` around the block; yields how many seconds it took to the first answered request."""
        began_s = time.perf_counter()
        with self._process("serve") as process:
            self._wait_until(self.answers, process, "serve")
            yield time.perf_counter() - began_s

    @contextmanager
    def working(self) -> Iterator[None]:
        """Runs `ledger worker` around the block."""
        with self._process("worker") as process:
            self._wait_until(self._is_worker_seen, process, "worker")
            yield

    def _is_worker_seen(self) -> bool:
        async def ask() -> bool:
            connection = await asyncpg.connect(self.database_url)
            try:
                return bool(await connection.fetchval("select exists (select from worker_seen)"))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def _wait_until(self, is_so: Callable[[], bool], process: subprocess.Popen[bytes], command: str) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not is_so():
            if process.poll() is not None or time.monotonic() > deadline_s:
                # The log goes with the run's folder, so its end is told.
                said = self._log(command).read_text(errors="replace")[-_LOG_TOLD_CHARACTERS:]
                raise BenchFailed(f"`ledger {command}` did not start; it said:\n{said}")
            time.sleep(_POLL_S)

    def _log(self, command: str) -> Path:
        return self.data_dir / f"{command}.log"

    @contextmanager
    def _process(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log(command).open("ab") as log:
            process = subprocess.Popen(
                [LEDGER_COMMAND, command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.data_dir,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                print(f"ledger {command} did not stop within {_STOP_TIMEOUT_S:.0f} s", file=sys.stderr)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
