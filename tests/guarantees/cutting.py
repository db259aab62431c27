"""A wire between Ledger and PostgreSQL that can be cut in the middle of a commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import parse_qs, urlsplit

# What reaches PostgreSQL of the commit, when the wire is cut: nothing, all of it, or all of it half a second later.
Cut = Literal["before the commit", "after the commit", "before the commit ends"]
LATE_S = 0.5
COMMIT = b"COMMIT;\x00"
CHUNK = 65_536


class Wire:
    """Passes bytes on in both directions until it is cut."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._listening: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._cut: Cut | None = None
        self._cuts_all = False
        self._is_down = False

    async def start(self) -> str:
        """Listens, and returns the database's URL by way of this wire."""
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        parts = urlsplit(self._server_url)
        return f"postgresql://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}{parts.path}"

    async def stop(self) -> None:
        assert self._listening is not None
        self._listening.close()
        self._abort_all()
        while self._clients:
            await asyncio.sleep(0.01)

    def cut_at_next_commit(self, cut: Cut, *, everything: bool = False) -> None:
        """The next commit is the end of its connection; with `everything`, of all connections until `mend`."""
        self._cut, self._cuts_all = cut, everything

    @property
    def was_cut(self) -> bool:
        return self._cut is None

    def mend(self) -> None:
        """Carries again; a cut that found no commit is off."""
        self._is_down, self._cut = False, None

    def _abort_all(self) -> None:
        for client in self._clients:
            client.transport.abort()

    async def _open_server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._server_url)
        host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
        port = parts.port or int(parse_qs(parts.query).get("port", ["5432"])[0])
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        try:
            if not self._is_down:
                await self._carry(reader, writer)
        finally:
            writer.transport.abort()
            self._clients.discard(writer)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await self._open_server()
        back = asyncio.create_task(_pass_on(server, to_client))
        try:
            while sent := await client.read(CHUNK):
                if self._cut is not None and COMMIT in sent:
                    back.cancel()
                    await asyncio.wait({back})
                    await self._carry_last(sent, server, to_client, to_server)
                    return
                to_server.write(sent)
        except OSError:
            pass
        finally:
            back.cancel()
            await asyncio.wait({back})
            to_server.transport.abort()

    async def _carry_last(
        self,
        sent: bytes,
        server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        cut, self._cut, self._is_down = self._cut, None, self._cuts_all
        if cut == "before the commit ends":
            to_client.transport.abort()
            await asyncio.sleep(LATE_S)
        if cut != "before the commit":
            to_server.write(sent)
            # The answer to the commit gets this far and no further.
            await server.read(CHUNK)
        if self._is_down:
            self._abort_all()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while received := await reader.read(CHUNK):
            writer.write(received)
        writer.close()


@asynccontextmanager
async def wired(server_url: str) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to a server, and the URL by way of it."""
    wire = Wire(server_url)
    url = await wire.start()
    try:
        yield wire, url
    finally:
        await wire.stop()
