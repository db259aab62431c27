"""A program that receives deliveries, on loopback: well-behaved, or in one of the ways in which receivers misbehave."""

import asyncio
import gzip
import socket
import struct
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiohttp import web

Mode = Literal[
    "ok", "204", "400", "410", "429", "500", "503", "redirect", "drip head", "drip body", "hang", "giant", "endless",
    "bomb", "reset", "garbage", "binary", "cut off", "cookie",
]  # fmt: skip

GIANT_BYTES = 64 * 1024 * 1024


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it arrived. Header names are in lower case; `at_s` is monotonic."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at_s: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> Any:
        return msgspec.json.decode(self.body)


class Receiver:
    """Listens on a port of its own. `mode` may be changed at any time and counts for what arrives next."""

    def __init__(self, mode: Mode = "ok") -> None:
        self.mode: Mode = mode
        # How the next deliveries are answered, before `mode` counts.
        self.next_modes: list[Mode] = []
        self.retry_after = "120"
        self.redirects_to = ""
        self.delay_s = 0.0
        self.received: list[Received] = []
        self.bytes_sent = 0
        self.at_once = 0
        self.most_at_once = 0
        self.connections: set[object] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hook"

    @property
    def ids(self) -> list[str]:
        """The `webhook-id` of everything that arrived."""
        return [each.id for each in self.received]

    @property
    def events(self) -> list[str]:
        """The types of everything that arrived."""
        return [each.headers["x-webhook-event"] for each in self.received]

    async def start(self) -> None:
        """Listens; again on the same port when it was stopped before."""
        self._released = asyncio.Event()
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True, backlog=1024)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Refuses connections from now on; whoever hangs is let go."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(path=request.raw_path, headers=headers, body=body, at_s=time.monotonic()))
        self.connections.add(request.transport)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            return await self._answer(request, self.next_modes.pop(0) if self.next_modes else self.mode)
        finally:
            self.at_once -= 1

    async def _answer(self, request: web.Request, mode: Mode) -> web.StreamResponse:
        match mode:
            case "ok":
                return web.Response(text="thanks")
            case "204" | "400" | "410" | "500":
                return web.Response(status=int(mode), text="" if mode == "204" else "no thanks")
            case "429" | "503":
                return web.Response(status=int(mode), text="later", headers={"Retry-After": self.retry_after})
            case "redirect":
                return web.Response(status=302, headers={"Location": self.redirects_to or f"{self.url}/elsewhere"})
            case "cookie":
                return web.Response(text="thanks", headers={"Set-Cookie": "who=ledger; Path=/"})
            case "binary":
                return web.Response(body=b"\xff\x00\x80caf\xc3\xa9")
            case "bomb":
                content = gzip.compress(bytes(GIANT_BYTES))
                return web.Response(body=content, headers={"Content-Encoding": "gzip"})
            case "hang":
                await self._released.wait()
                _reset(request)
                return web.Response()
            case _:
                await self._misbehave(request, mode)
                return web.Response()

    async def _misbehave(self, request: web.Request, mode: Mode) -> None:
        """Answers what no framework would let one answer, byte by byte."""
        transport = request.transport
        assert transport is not None
        if mode == "reset":
            _reset(request)
        elif mode == "garbage":
            transport.write(b"220 mail.example.org ESMTP\r\n")
            transport.close()
        elif mode == "cut off":
            transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfirst part")
            transport.close()
        elif mode in ("drip head", "drip body"):
            transport.write(
                b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 100000\r\n\r\n" if mode == "drip body" else b"")
            )
            while not transport.is_closing() and not self._released.is_set():
                transport.write(b"x" if mode == "drip body" else b"X-A: b\r\n")
                await asyncio.sleep(0.05)
            transport.abort()
        else:
            head = f"Content-Length: {GIANT_BYTES}" if mode == "giant" else "Connection: close"
            transport.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
            while not transport.is_closing() and self.bytes_sent < GIANT_BYTES and not self._released.is_set():
                if transport.get_write_buffer_size() < 1024 * 1024:
                    transport.write(bytes(65_536))
                    self.bytes_sent += 65_536
                await asyncio.sleep(0)
            transport.abort()


def _reset(request: web.Request) -> None:
    """Ends the connection with a TCP reset, as a crash does."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
