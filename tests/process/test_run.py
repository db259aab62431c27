"""`ledger run` as a user starts it: one command, nothing configured, nothing left behind."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from ledger.embedded import EmbeddedPostgres
from tests.process.processes import Program, command_line, free_port, program, until

LEDGER = (sys.executable, "-P", "-m", "ledger")
# Guarantee D1.
SERVES_AGAIN_WITHIN_S = 10


@asynccontextmanager
async def ledger_run(directory: Path, *, port: int | None = None) -> AsyncIterator[Program]:
    environ = {"PORT": str(port or free_port()), "LEDGER_DATA_DIR": ".data"}
    async with program(*LEDGER, "run", directory=directory, environ=environ) as running:
        yield running


def example(ledger: Program) -> str:
    """The command line that it printed, to be pasted."""
    found = re.search(r"^curl .*$", ledger.output, re.MULTILINE)
    assert found is not None, ledger.output
    return found[0]


def paste(command: str) -> str:
    """Does what the command line says (not every machine has curl) and returns the new invoice's number.

    Raises `OSError` when there is no invoice.
    """
    program, silent, url, *options = shlex.split(command)
    assert (program, silent) == ("curl", "-sS")
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in given if option == "-H")
    body = next(value for option, value in given if option == "-d")
    request = urllib.request.Request(url, data=body.encode(), headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=SERVES_AGAIN_WITHIN_S) as answer:
        assert answer.status == 201
        return str(json.load(answer)["invoiceNumber"])


async def paste_until_it_works(command: str) -> str:
    deadline_s = time.monotonic() + SERVES_AGAIN_WITHIN_S
    while True:
        try:
            return await asyncio.to_thread(paste, command)
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.1)


def number(n: int) -> str:
    return f"INV-{datetime.now(UTC).year}-{n:04}"


def find(ledger: Program, part: str) -> int:
    """The process of it with `part` in its command line."""
    return next(pid for pid in ledger.others() if part in command_line(pid))


def postmaster(directory: Path) -> int:
    return int((directory / ".data" / "postgres" / "postmaster.pid").read_text().split()[0])


async def test_the_printed_command_makes_the_first_invoice_and_nothing_is_left_behind(tmp_path: Path) -> None:
    async with ledger_run(tmp_path) as ledger:
        await ledger.says("Stop with Ctrl-C")
        assert await asyncio.to_thread(paste, example(ledger)) == number(1)

        async with ledger_run(tmp_path) as second:
            assert await second.ends() == 1
            assert f"Ledger already runs on {tmp_path}/.data (process {ledger.pid})" in second.output

        assert await ledger.stop() == 0
        assert ledger.others() == []
        assert not EmbeddedPostgres(tmp_path / ".data").is_alive()


async def test_whatever_is_killed_serves_again_and_no_invoice_is_lost(tmp_path: Path) -> None:
    port = free_port()
    async with ledger_run(tmp_path, port=port) as ledger:
        await ledger.says("Stop with Ctrl-C")
        command = example(ledger)
        assert await asyncio.to_thread(paste, command) == number(1)

        os.kill(postmaster(tmp_path), signal.SIGKILL)
        assert await paste_until_it_works(command) == number(2)

        os.kill(find(ledger, "ledger serve"), signal.SIGKILL)
        assert await paste_until_it_works(command) == number(3)

        worker = find(ledger, "ledger worker")
        os.kill(worker, signal.SIGKILL)
        await until(lambda: any("ledger worker" in command_line(pid) for pid in ledger.others() if pid != worker))

        database = postmaster(tmp_path)
        ledger.signal(signal.SIGKILL)
        await ledger.ends()
        await until(lambda: ledger.others() == [])
        async with ledger_run(tmp_path, port=port) as successor:
            await successor.says("Stop with Ctrl-C")
            assert postmaster(tmp_path) == database
            assert await asyncio.to_thread(paste, command) == number(4)
            assert await successor.stop() == 0
            assert successor.others() == []
    assert not EmbeddedPostgres(tmp_path / ".data").is_alive()


async def test_several_machines_migrate_at_once_and_the_books_are_in_order(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, durable=False)
    try:
        environ = {"DATABASE_URL": server.start(), "LEDGER_DATA_DIR": str(tmp_path)}
        said = await asyncio.gather(*(run_to_end("migrate", directory=tmp_path, environ=environ) for _ in range(2)))
        assert [code for code, _ in said] == [0, 0]
        assert any("applied 0001" in text for _, text in said)
        assert await run_to_end("migrate", directory=tmp_path, environ=environ) == (0, "The database is up to date.\n")
        code, text = await run_to_end("check", directory=tmp_path, environ=environ)
        assert (code, text.splitlines()[-1]) == (0, "Everything is in order: database, migrations and the books.")
    finally:
        server.stop()


async def run_to_end(command: str, *, directory: Path, environ: dict[str, str]) -> tuple[int, str]:
    async with program(*LEDGER, command, directory=directory, environ=environ) as running:
        return await running.ends(), running.output
