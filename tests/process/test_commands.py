"""What is wrong is said in sentences, without a traceback, and with an exit code that tells."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def ledger(directory: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LEDGER_", "DATABASE_"))}
    return subprocess.run(
        (sys.executable, "-P", "-m", "ledger", *arguments),
        cwd=directory,
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("command", ["run", "serve", "worker", "migrate"])
def test_a_wrong_value_stops_the_start_with_one_sentence(tmp_path: Path, command: str) -> None:
    done = ledger(tmp_path, command, PORT="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "PORT must be a whole number from 1 to 65535.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_missing_database_is_told_with_what_to_do(tmp_path: Path, command: str) -> None:
    done = ledger(tmp_path, command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("DATABASE_URL is not set: set it to postgresql://")
    assert "or use `ledger run`" in done.stderr


def test_check_exits_with_1_and_what_is_wrong(tmp_path: Path) -> None:
    done = ledger(tmp_path, "check", LEDGER_RATE_LIMIT="-1")
    assert (done.returncode, done.stderr) == (1, "LEDGER_RATE_LIMIT must be a whole number from 0 to 1000000.\n")
    done = ledger(tmp_path, "check", DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing")
    assert (done.returncode, done.stdout) == (1, "The settings are in order.\n")
    assert done.stderr.startswith("The database does not answer")


def test_a_database_that_does_not_answer_is_told(tmp_path: Path) -> None:
    done = ledger(tmp_path, "migrate", DATABASE_URL="postgresql://nobody:hidden@127.0.0.1:9/nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("The database does not answer")
    assert "hidden" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = ledger(tmp_path, "run", PORT=str(port))
    assert done.returncode == 2
    assert (
        done.stderr == f"PORT {port} is in use on 127.0.0.1: stop the program that uses it, or set PORT to another.\n"
    )
    assert not (tmp_path / ".ledger" / "postgres").exists()


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    lanyard = {"LANYARD_URL": "http://127.0.0.1:9", "LANYARD_SERVICE_KEY": "sk_svc_x"}
    done = ledger(tmp_path, "run", HOST="203.0.113.7", **lanyard)
    assert done.returncode == 2
    assert done.stderr.startswith("HOST 203.0.113.7 is not an address of this machine")


def test_openapi_needs_no_configuration(tmp_path: Path) -> None:
    done = ledger(tmp_path, "openapi", PORT="many")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["openapi"] == "3.0.3"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_lists_the_known_ones(tmp_path: Path) -> None:
    done = ledger(tmp_path, "srve")
    assert done.returncode == 2
    for command in ("run", "serve", "worker", "migrate", "check", "openapi"):
        assert command in done.stderr


def test_the_working_directory_does_not_take_part(tmp_path: Path) -> None:
    (tmp_path / "ledger.py").write_text("raise SystemExit('imported the wrong one')")
    (tmp_path / ".env").write_text("PORT=many\n")
    assert ledger(tmp_path, "run").stderr.startswith("PORT must be")
