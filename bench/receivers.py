"""Programs that receive deliveries, several in one process: they answer at once and count.

Runs as `python -m bench.receivers COUNT`. It prints the ports it listens on; then, for each line on standard input, how
many deliveries have arrived so far. It does as little as it can for each, because it shares two cores with what is
measured.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import msgspec
import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Receivers:
    """Receivers in a process of their own."""

    def __init__(self, process: "subprocess.Popen[bytes]", ports: Sequence[int]) -> None:
        self._process = process
        self.ports = ports

    def count(self) -> int:
        """How many deliveries have arrived at all of them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def receivers(count: int) -> Iterator[Receivers]:
    """Runs so many receivers around the block."""
    command = [sys.executable, "-m", "bench.receivers", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Receivers(process, msgspec.json.decode(process.stdout.readline(), type=list[int]))
        finally:
            process.kill()


class _Receiver(asyncio.Protocol):
    arrived = 0

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not instances of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head_end := self._buffer.find(_HEAD_END)) >= 0:
            at = self._buffer.lower().find(_LENGTH, 0, head_end) + len(_LENGTH)
            end = head_end + len(_HEAD_END) + int(self._buffer[at : self._buffer.find(b"\r", at)])
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            _Receiver.arrived += 1
            self._transport.write(_ANSWER)


async def _serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Receiver, "127.0.0.1", 0) for _ in range(count)]
    print(msgspec.json.encode([server.sockets[0].getsockname()[1] for server in servers]).decode(), flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(_Receiver.arrived, flush=True)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
