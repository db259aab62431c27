"""What the tests of this folder share: started programs, their descendants, and requests over plain sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

SUPERVISOR = (sys.executable, str(Path(__file__).with_name("stand_in_supervisor.py")))
WAIT_S = 30.0


class Answer(msgspec.Struct, frozen=True):
    """What came back on a connection."""

    status: int
    headers: bytes
    body: bytes

    @property
    def is_last(self) -> bool:
        """Whether the server told the client to close the connection."""
        return b"connection: close" in self.headers.lower()


class Program:
    """A running program. Its processes are known by a mark in their environment or command line."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str, output: Path) -> None:
        self._process = process
        self.mark = mark
        self._output = output

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        return self._output.read_text()

    async def says(self, text: str) -> None:
        """Waits until the program has written `text`."""
        await until(lambda: text in self.output or self._process.returncode is not None, self._output.read_text)
        assert text in self.output, self.output

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def stop(self) -> int:
        """Sends SIGTERM and returns the exit code."""
        self.signal(signal.SIGTERM)
        return await self.ends()

    async def ends(self) -> int:
        """Waits for the end and returns the exit code."""
        async with asyncio.timeout(WAIT_S):
            return await self._process.wait()

    def others(self) -> list[int]:
        """The living processes that belong to it, itself excepted."""
        return [pid for pid in marked(self.mark) if pid != self.pid]


def marked(mark: str) -> list[int]:
    """The ids of all living processes with `mark` in their environment or command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                if mark.encode() in told:
                    found.append(int(entry.name))
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def until(holds: Callable[[], bool], explain: Callable[[], object] = lambda: "") -> None:
    """Waits until something holds, at most 30 s."""
    deadline_s = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline_s, explain()
        await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def program(*command: str, directory: Path, environ: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
    """Starts a program in `directory`, and ends whatever of it is left in the end."""
    mark = f"LEDGER_TEST_MARK={directory}-{time.monotonic_ns()}"
    output = directory / f"output-{time.monotonic_ns()}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_", "DATABASE_"))}
    name, value = mark.split("=", 1)
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            env={**inherited, **(environ or {}), name: value},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Program(process, value, output)
    try:
        yield started
    finally:
        for pid in marked(value):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


@asynccontextmanager
async def supervised(directory: Path, **plan: object) -> AsyncIterator[Program]:
    """Starts a supervisor of stand-ins; see `stand_in_supervisor`."""
    async with program(*SUPERVISOR, json.dumps(plan), directory=directory) as started:
        yield started


class Connection:
    """One client connection, of which requests and answers are seen as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, path: str = "/", *, headers: str = "") -> Answer:
        """Sends a request and reads its answer. Raises `OSError` or `EOFError` when there is none."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return Answer(int(head.split()[1]), head, await self._reader.readexactly(length))

    async def is_closed_by_server(self) -> bool:
        """Waits for the server to close the connection; whether it did so in good order."""
        async with asyncio.timeout(WAIT_S):
            return await self._reader.read() == b""


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def get(port: int, path: str = "/") -> Answer:
    """One request on a connection of its own."""
    async with connected(port) as connection:
        return await connection.get(path, headers="Connection: close\r\n")
