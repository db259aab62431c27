"""Processes are kept running, and none is left behind (guarantees D1 and D9)."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.process.processes import connected, free_port, get, supervised, until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    'import signal, time; signal.signal(15, signal.SIG_IGN); print("stubborn", flush=True); time.sleep(600)',
]


async def test_a_killed_process_is_started_again_and_connections_wait_for_it(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        first = int((await get(port)).body)
        os.kill(first, signal.SIGKILL)
        await ledger.says("killed by SIGKILL")
        # The socket is the supervisor's: nobody is refused in between.
        second = int((await get(port)).body)
        assert second != first
        assert await ledger.stop() == 0
        assert ledger.others() == []


async def test_a_crash_takes_down_one_process_of_several(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port, api=2) as ledger:
        await until(lambda: ledger.output.count("startup") == 2, lambda: ledger.output)
        async with connected(port) as connection:
            connection_pid = int((await connection.get()).body)
            other = next(pid for pid in ledger.others() if pid != connection_pid and f"startup {pid}" in ledger.output)
            os.kill(other, signal.SIGKILL)
            await until(lambda: ledger.output.count("startup") == 3, lambda: ledger.output)
            assert int((await connection.get()).body) == connection_pid
        assert await ledger.stop() == 0
        assert ledger.others() == []


async def test_a_process_that_keeps_failing_is_started_at_growing_intervals(tmp_path: Path) -> None:
    async with supervised(tmp_path, children=[[sys.executable, "-c", "raise SystemExit(3)"]]) as ledger:
        await until(lambda: ledger.output.count("exit code 3") >= 3, lambda: ledger.output)
        pauses = [word for word in ledger.output.split() if word.startswith("again_in_s=")]
        assert pauses[:3] == ["again_in_s=0.1", "again_in_s=0.2", "again_in_s=0.4"]
        assert await ledger.stop() == 0


async def test_a_command_that_does_not_exist_is_a_failure_like_others(tmp_path: Path) -> None:
    async with supervised(tmp_path, children=[["/nowhere/ledger"], SLEEPER]) as ledger:
        await ledger.says("cannot be started")
        assert await ledger.stop() == 0
        assert ledger.others() == []


async def test_processes_notice_that_the_supervisor_was_killed(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port, api=2) as ledger:
        await ledger.says("ready")
        running = asyncio.create_task(get(port, "/?after=1"))
        await asyncio.sleep(0.2)
        ledger.signal(signal.SIGKILL)
        assert await ledger.ends() == -signal.SIGKILL
        assert (await running).status == 200
        await until(lambda: ledger.others() == [])
    async with supervised(tmp_path, port=port) as successor:
        await successor.says("ready")
        assert await successor.stop() == 0


async def test_ctrl_c_in_a_terminal_stops_everything_in_order(tmp_path: Path) -> None:
    port = free_port()
    async with supervised(tmp_path, port=port) as ledger:
        await ledger.says("ready")
        running = asyncio.create_task(get(port, "/?after=1"))
        await asyncio.sleep(0.2)
        # A terminal sends it to every process of the foreground group.
        os.killpg(ledger.pid, signal.SIGINT)
        assert await ledger.ends() == 0
        assert (await running).status == 200
        assert ledger.others() == []


async def test_a_process_that_does_not_stop_is_killed_in_time(tmp_path: Path) -> None:
    async with supervised(tmp_path, children=[STUBBORN], stop_timeout_s=0.5) as ledger:
        await ledger.says("stubborn")
        assert await ledger.stop() == 0
        assert "process killed" in ledger.output
        assert ledger.others() == []


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    async with supervised(tmp_path, children=[STUBBORN]) as ledger:
        await ledger.says("stubborn")
        ledger.signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        ledger.signal(signal.SIGINT)
        async with asyncio.timeout(2):
            assert await ledger.ends() == 0
        assert ledger.others() == []


async def test_nothing_is_started_when_the_first_command_fails(tmp_path: Path) -> None:
    fails = [sys.executable, "-c", "raise SystemExit(1)"]
    async with supervised(tmp_path, first=fails, children=[STUBBORN]) as ledger:
        assert await ledger.ends() == 1
        assert "stubborn" not in ledger.output
