"""Requests byte by byte: an ordinary client tidies up what these tests are about."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from tests.installation import Answer

Headers = Sequence[tuple[str, str]]


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server of `url`."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return await asyncio.open_connection(parts.hostname, parts.port)


def head_of(method: str, path: str, headers: Headers) -> bytes:
    """The head of a request with exactly these headers, doubled ones and their case included."""
    lines = [f"{method} {path} HTTP/1.1", "Host: ledger", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Reads one answer. Raises `EOFError` when there is none."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.title(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    content = await reader.readexactly(int(headers.get("Content-Length", "0")))
    return Answer(status=int(head[0].split()[1]), headers=headers, content=content)


async def send(url: str, method: str, path: str, *, headers: Headers = (), body: object = None) -> Answer:
    """Sends a request on a connection of its own."""
    content = b"" if body is None else msgspec.json.encode(body)
    reader, writer = await connect(url)
    try:
        framing = [("Content-Length", str(len(content))), ("Connection", "close")]
        writer.write(head_of(method, path, [*headers, *framing]) + content)
        return await asyncio.wait_for(read_answer(reader), timeout=15)
    finally:
        writer.close()
