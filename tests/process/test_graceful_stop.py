"""Guarantee D7: on SIGTERM Ledger stops accepting, finishes what runs, and exits 0; no accepted request fails."""

import asyncio
import collections
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tests.process.processes import connected, free_port, get, supervised

CLIENTS = 32


async def test_requests_that_run_are_answered(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        running = [asyncio.create_task(get(port, "/?after=1.5")) for _ in range(CLIENTS)]
        await asyncio.sleep(0.3)
        assert await ledger.stop() == 0
        assert {answer.status for answer in await asyncio.gather(*running)} == {200}
        assert "shutdown" in ledger.output
        assert ledger.others() == []


async def keep_alive_client(port: int, seen: collections.Counter[str]) -> None:
    """Sends request after request on one connection, until the server says that it will close it."""
    async with connected(port) as connection:
        while True:
            answer = await connection.get()
            seen["answered"] += 1
            if answer.is_last:
                return


async def new_connection_client(port: int, seen: collections.Counter[str]) -> None:
    """Makes a connection for each request."""
    while True:
        await get(port)
        seen["answered"] += 1


@pytest.mark.parametrize("client", [keep_alive_client, new_connection_client])
async def test_clients_at_full_speed_lose_no_request(
    tmp_path: Path, client: Callable[[int, collections.Counter[str]], Coroutine[None, None, None]]
) -> None:
    port = free_port()
    seen: collections.Counter[str] = collections.Counter()

    async def work() -> None:
        while True:
            try:
                await client(port, seen)
            except ConnectionRefusedError:
                return
            except (OSError, EOFError) as error:
                seen[f"lost: {error!r}"] += 1
                return

    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        clients = [asyncio.create_task(work()) for _ in range(CLIENTS)]
        await asyncio.sleep(0.5)
        assert await ledger.stop() == 0
        # Those who were connecting try again after a second, and are refused then.
        await asyncio.wait_for(asyncio.gather(*clients), timeout=10)
    assert seen["answered"] > CLIENTS
    assert list(seen) == ["answered"]


async def test_no_connection_is_accepted_while_the_last_requests_finish(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        running = asyncio.create_task(get(port, "/?after=2"))
        await asyncio.sleep(0.2)
        ledger.signal(signal.SIGTERM)
        await asyncio.sleep(0.7)
        with pytest.raises(ConnectionRefusedError):
            await get(port)
        assert (await running).status == 200
        assert await ledger.ends() == 0


async def test_idle_connections_are_closed_and_delay_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        async with connected(port) as used, connected(port) as unused:
            assert not (await used.get()).is_last
            begun_s = time.monotonic()
            assert await ledger.stop() == 0
            assert time.monotonic() - begun_s < 2
            assert await used.is_closed_by_server()
            assert await unused.is_closed_by_server()


async def test_a_request_that_does_not_end_is_cut_off(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port, stop_timeout_s=1) as ledger:
        await ledger.says("ready")
        running = asyncio.create_task(get(port, "/?after=600"))
        await asyncio.sleep(0.2)
        assert await ledger.stop() == 0
        assert "process killed" in ledger.output
        with pytest.raises((OSError, EOFError)):
            await running
        assert ledger.others() == []


async def test_a_head_without_end_is_refused(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        async with connected(port) as connection:
            assert (await connection.get(headers=f"X-Long: {'x' * 500_000}\r\n")).status == 431
        async with connected(port) as connection:
            assert (await connection.get(headers=f"X-Long: {'x' * 10_000}\r\n")).status == 200
