"""Standalone identity: three credentials in a file that only its owner can read."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from ledger.errors import Unauthorized
from ledger.identity import Person, Service
from ledger.standalone import (
    StandaloneCredentials,
    StandaloneFileError,
    StandaloneIdentity,
    load_or_create_credentials,
)

CREDENTIALS = StandaloneCredentials(admin_token="admin-t", user_token="user-t", service_key="sk_svc_t")


def test_the_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    data_dir = tmp_path / "not" / "there" / "yet"
    previous = os.umask(0)
    try:
        made = load_or_create_credentials(data_dir)
    finally:
        os.umask(previous)
    file = data_dir / "standalone.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_or_create_credentials(data_dir) == made
    assert [path.name for path in data_dir.iterdir()] == ["standalone.json"]
    assert made.service_key.startswith("sk_svc_")
    assert all(len(text) > 40 for text in (made.admin_token, made.user_token, made.service_key))
    assert set(msgspec.json.decode(file.read_bytes())) == {"adminToken", "userToken", "serviceKey"}


def test_two_installations_have_different_credentials(tmp_path: Path) -> None:
    assert load_or_create_credentials(tmp_path / "a") != load_or_create_credentials(tmp_path / "b")


def test_processes_that_start_at_once_get_the_same_credentials(tmp_path: Path) -> None:
    program = (
        "import sys, time, hashlib, pathlib; from ledger.standalone import load_or_create_credentials as load\n"
        "time.sleep(max(0.0, float(sys.argv[2]) - time.time()))\n"
        "print(load(pathlib.Path(sys.argv[1])).admin_token)"
    )
    for round_ in range(3):
        data_dir = tmp_path / str(round_)
        start_at = str(time.time() + 1.0)
        command = [sys.executable, "-c", program, str(data_dir), start_at]
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
        printed = {process.communicate(timeout=30)[0] for process in processes}
        assert [process.returncode for process in processes] == [0] * 6
        assert len(printed) == 1
        assert [path.name for path in data_dir.iterdir()] == ["standalone.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"adminToken": "a"}',
        b'{"adminToken": "", "userToken": "b", "serviceKey": "c"}',
        b'{"adminToken": "a", "userToken": "a", "serviceKey": "c"}',
        b'{"adminToken": "a b", "userToken": "b", "serviceKey": "c"}',
        b'{"adminToken": 1, "userToken": "b", "serviceKey": "c"}',
        b'{"adminToken": "a", "userToken": "b", "serviceKey": "' + b"c" * 5000 + b'"}',
    ],
)
def test_a_broken_file_stops_the_start_with_advice(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "standalone.json"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(StandaloneFileError, match="Delete it"):
        load_or_create_credentials(tmp_path)
    assert file.read_bytes() == content


def test_a_file_others_can_read_stops_the_start(tmp_path: Path) -> None:
    load_or_create_credentials(tmp_path)
    (tmp_path / "standalone.json").chmod(0o644)
    with pytest.raises(StandaloneFileError, match="other users"):
        load_or_create_credentials(tmp_path)


def test_neither_a_link_nor_a_directory_nor_a_pipe_is_followed(tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    load_or_create_credentials(tmp_path)
    (tmp_path / "standalone.json").rename(target)
    for make in (
        lambda path: path.symlink_to(target),
        lambda path: path.symlink_to(tmp_path / "nowhere"),
        lambda path: path.mkdir(),
        lambda path: os.mkfifo(path, 0o600),
    ):
        path = tmp_path / "standalone.json"
        make(path)
        with pytest.raises(StandaloneFileError):
            load_or_create_credentials(tmp_path)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


async def test_each_credential_proves_its_caller() -> None:
    identity = StandaloneIdentity(CREDENTIALS)
    admin = await identity.verify("Bearer admin-t")
    assert admin == Person("standalone-admin", frozenset({"ledger:manage"}))
    assert isinstance(admin, Person)
    assert admin.is_staff
    assert await identity.verify("bearer user-t") == Person("standalone-user")
    assert await identity.verify("ServiceKey sk_svc_t") == Service("standalone-service")
    assert identity.known("Bearer admin-t") == admin
    await identity.close()


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer ADMIN-T",
        "Bearer admin-",
        "Bearer admin-tt",
        "Bearer sk_svc_t",
        "ServiceKey admin-t",
        "Basic admin-t",
        "Bearer admin-t\n",
        "Bearer \ud800",
    ],
)
async def test_everything_else_is_unauthorized(authorization: str) -> None:
    identity = StandaloneIdentity(CREDENTIALS)
    assert identity.known(authorization) is None
    with pytest.raises(Unauthorized):
        await identity.verify(authorization)


def test_credentials_are_never_shown() -> None:
    assert "admin-t" not in f"{CREDENTIALS!r} {CREDENTIALS}"
