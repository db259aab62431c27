"""As whom the embedded PostgreSQL runs when Ledger was started by root, which PostgreSQL itself refuses to run as."""

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import msgspec
import structlog

if TYPE_CHECKING:
    import pwd

# The first that exists is taken; where there is none, the first is made.
_ACCOUNTS = ("pgserver", "postgres")
_USERADD_TIMEOUT_S = 10.0


class NoAccount(Exception):
    """There is no account to run PostgreSQL as; the message says what to do, without a full stop."""


class Switch(TypedDict, total=False):
    """The arguments that make `subprocess` run a program as another account."""

    user: int
    group: int
    extra_groups: list[int]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The operating system account that the server runs as, where that is not our own."""

    user_id: int
    group_id: int
    # Groups that let it pass through the directories above the data and the programs.
    passing_group_ids: tuple[int, ...] = ()


def run_as(account: Account | None) -> Switch:
    """The arguments with which `subprocess` runs a program as `account`; none for our own."""
    if account is None:
        return {}
    return {
        "user": account.user_id,
        "group": account.group_id,
        "extra_groups": [account.group_id, *account.passing_group_ids],
    }


def account_for(cluster: Path, programs: Path) -> Account | None:
    """None for ordinary users. For root: the owner of the cluster, or for a new one an account for PostgreSQL.

    The account can then reach the cluster and the programs. Raises `NoAccount` where there is none to be had.
    """
    if os.geteuid() != 0:
        return None
    import pwd

    try:
        found = pwd.getpwuid(cluster.stat().st_uid) if cluster.exists() else _unprivileged_account()
    except KeyError:
        raise NoAccount(f"{cluster} belongs to an account that does not exist here: change its owner") from None
    data_dir = cluster.parent
    if not data_dir.stat().st_mode & stat.S_IXGRP:
        data_dir.chmod(0o710)
    groups = _let_pass([*cluster.parents, programs, *programs.parents], found.pw_uid) | _let_run(programs)
    return Account(user_id=found.pw_uid, group_id=found.pw_gid, passing_group_ids=tuple(sorted(groups)))


def _unprivileged_account() -> "pwd.struct_passwd":
    """The account for PostgreSQL that this machine has, or one made for it."""
    import pwd

    for name in _ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    useradd = shutil.which("useradd")
    if useradd is not None:
        command = [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run([*command, _ACCOUNTS[0]], check=False, capture_output=True, timeout=_USERADD_TIMEOUT_S)  # noqa: S603
        with suppress(KeyError):
            return pwd.getpwnam(_ACCOUNTS[0])
    raise NoAccount(
        "PostgreSQL does not run as root, and there is no account for it: start Ledger as an ordinary user, "
        f"make an account named {_ACCOUNTS[0]}"
    )


def _let_pass(directories: Sequence[Path], user_id: int) -> set[int]:
    """Groups whose members may pass through all the directories, which the server is then given.

    Directories closed to everybody (as /root is) are opened to their own group only, and only for passing.
    """
    groups: set[int] = set()
    for directory in directories:
        found = directory.stat()
        if found.st_mode & stat.S_IXOTH or (found.st_uid == user_id and found.st_mode & stat.S_IXUSR):
            continue
        if not found.st_mode & stat.S_IXGRP:
            directory.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)
            log = structlog.get_logger("ledger.embedded")
            log.warning("opened a directory to its group, so that PostgreSQL can pass", directory=str(directory))
        groups.add(found.st_gid)
    return groups


def _let_run(programs: Path) -> set[int]:
    """The group that may run the programs: none is needed unless they were installed for their owner only."""
    found = (programs / "postgres").stat()
    if found.st_mode & stat.S_IXOTH:
        return set()
    for path in programs.parent.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | (mode & stat.S_IRWXU & ~stat.S_IWUSR) >> 3)
    return {found.st_gid}
