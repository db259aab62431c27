"""Receivers whose answers never end in ways that no limit of a body sees: they are cut off, at nobody's cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from ledger.deliveries import bounded_connection
from tests.deliveries.telling import Telling
from tests.fakes.receiver import Receiver

_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
# What comes first, and what comes again and again.
ENDLESS = {
    "a chunk whose description never ends": (_OK + b"5;", b"a" * 65_536),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2_000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a:b\r\n" * 10_000),
}
OUTCOMES = {
    # As with any answer of which not everything is read: what it said first counts.
    "a chunk whose description never ends": ("delivered", 200, None),
    "interim answers": ("pending", None, "Its answer is far too long"),
    "headers": ("pending", None, "Its answer could not be read; does it speak HTTP?"),
}
# What the system's own buffers take in of what nobody reads.
_BUFFERED_BYTES = 16 * 1024 * 1024


class Flood:
    """Answers without end, as fast as it is read."""

    def __init__(self, first: bytes, again: bytes) -> None:
        self.first, self.again = first, again
        self.bytes_sent = 0
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.first)
            while True:
                writer.write(self.again)
                self.bytes_sent += len(self.again)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def flooding(first: bytes, again: bytes) -> AsyncIterator[Flood]:
    flood = Flood(first, again)
    server = await asyncio.start_server(flood.answer, "127.0.0.1", 0)
    flood.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield flood
    finally:
        server.close()


@pytest.mark.parametrize("kind", ENDLESS)
async def test_an_answer_without_end_is_cut_off(shop: Telling, kind: str) -> None:
    """Seen failing with aiohttp's own protocol, which reads all of the first two until the time is up."""
    async with flooding(*ENDLESS[kind]) as flood:
        await shop.subscribe(flood.url)
        await shop.tell()
    row = await shop.delivery()
    assert (row["status"], row["last_status"], row["last_error"]) == OUTCOMES[kind]
    assert flood.bytes_sent < _BUFFERED_BYTES
    assert await shop.ledger.value("select duration_ms from webhook_attempt") < 2_000


async def test_a_connection_is_used_for_many_answers_but_not_for_ever(
    shop: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen failing with a bound on all answers of a connection together."""
    monkeypatch.setattr(bounded_connection, "_REUSED_UNTIL_BYTES", 1_000)
    monkeypatch.setattr(bounded_connection, "ANSWER_MAX_BYTES", 500)
    await shop.subscribe(receiver)
    for _ in range(20):
        await shop.tell()
    assert {row["last_error"] for row in await shop.deliveries()} == {None}
    assert 1 < len(receiver.connections) < 10
