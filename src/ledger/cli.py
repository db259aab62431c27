"""The command `ledger`. What a command needs is imported when it runs, so that each starts quickly."""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.settings import Settings, SettingsError, environment, load_settings

if TYPE_CHECKING:
    from ledger.supervisor import Child

_DOTENV = Path(".env")
# Exit codes: something went wrong, and (as argparse has it) the call or the settings are wrong.
_FAILED = 1
_MISUSED = 2
_CONNECT_TIMEOUT_S = 10
_RECONCILED_DAYS_MAX = 30

_EXAMPLE_INVOICE = '{"userId":"standalone-user","items":[{"description":"Membership 2026","unitPrice":5000}]}'


class CommandFailed(Exception):
    """A command cannot do what it is for; the message is the sentence to print."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. What goes wrong is told in sentences, without a traceback."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _MISUSED
    except CommandFailed as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    except KeyboardInterrupt:
        return _FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ledger",
        description="Billing and payment service of ConvStack. Configured by environment variables and .env; "
        ".env.example explains each.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command, text in (
        ("run", _run, "run everything, with a PostgreSQL of its own where DATABASE_URL is not set"),
        ("serve", _serve, "run the HTTP API"),
        ("worker", _worker, "run jobs and schedules"),
        ("migrate", _migrate, "bring the database to this version's schema; safe from several machines at once"),
        ("check", _check, "check settings, database, migrations, Lanyard and the books; exit 1 with what is wrong"),
        ("reconcile", _reconcile, "compare with the payment providers and mend what was missed; can run at any time"),
        ("retention", _retention, "let go of personal data whose time is up, as the worker does daily"),
        ("openapi", _openapi, "print the OpenAPI document"),
        ("rotate-key", _rotate_key, "seal stored secrets anew with ENCRYPTION_KEY; can run while Ledger serves"),
    ):
        described = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        described.set_defaults(command=command)
        if command is _reconcile:
            described.add_argument("--days", type=int, default=30, help="how far back to look (1 to 30, default 30)")
        if command is _retention:
            described.add_argument("--dry-run", action="store_true", help="only count what would be done")
        # Descriptors that the supervisor hands to the processes it starts.
        described.add_argument("--lifeline", type=int, help=argparse.SUPPRESS)
        described.add_argument("--listener", type=int, help=argparse.SUPPRESS)
    return parser


def _run(_parsed: argparse.Namespace) -> int:
    environ, settings = _read_settings()
    if settings.database_url is not None:
        return _supervise(environ, settings, api=True, worker=True, migrate=True)
    with _alone_on(settings.data_dir):
        return _supervise(environ, settings, api=True, worker=True, migrate=True)


def _serve(parsed: argparse.Namespace) -> int:
    if parsed.lifeline is None:
        return _supervise(*_read_settings(needs_database=True), api=True)
    settings = load_settings(os.environ)
    from ledger.logs import configure_logs

    configure_logs(settings.log)
    from ledger.app import create_app
    from ledger.serve import serve_app
    from ledger.supervised import run_supervised

    listener = socket.socket(fileno=parsed.listener)
    return run_supervised(lambda stop: serve_app(create_app(settings), listener, stop), lifeline=parsed.lifeline)


def _worker(parsed: argparse.Namespace) -> int:
    if parsed.lifeline is None:
        return _supervise(*_read_settings(needs_database=True), worker=True)
    settings = load_settings(os.environ)
    from ledger.logs import configure_logs

    configure_logs(settings.log)
    from ledger.supervised import run_supervised
    from ledger.worker import run_worker

    return run_supervised(lambda stop: run_worker(settings, stop), lifeline=parsed.lifeline)


def _migrate(parsed: argparse.Namespace) -> int:
    _, settings = _read_settings(needs_database=True)
    import asyncpg

    try:
        applied = asyncio.run(_apply_missing(settings))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        reason = str(error) or type(error).__name__
        raise CommandFailed(f"The database does not answer ({reason}): check DATABASE_URL and the server.") from None
    if parsed.lifeline is None:
        _say(f"Migrated the database: applied {', '.join(applied)}." if applied else "The database is up to date.")
    elif applied:
        import structlog

        structlog.get_logger("ledger.database").info("migrated", applied=applied)
    return 0


async def _apply_missing(settings: Settings) -> list[str]:
    import asyncpg

    from ledger.database.installation import get_revision
    from ledger.database.revision import HEAD_REVISION

    database_url = settings.require_database_url()
    connection = await asyncpg.connect(database_url, timeout=_CONNECT_TIMEOUT_S)
    try:
        revision = await get_revision(connection)
    finally:
        await connection.close()
    if revision == HEAD_REVISION:
        # The usual start: it does not have to wait until the migration tool is loaded.
        return []
    from sqlalchemy.exc import DBAPIError

    from ledger.database.migrate import migrate
    from ledger.logs import configure_logs

    configure_logs(settings.log)
    try:
        return await migrate(database_url)
    except DBAPIError as error:
        raise CommandFailed(
            f"The database could not be migrated ({error.orig}): DATABASE_URL's role must be allowed to create tables."
        ) from None


def _check(_parsed: argparse.Namespace) -> int:
    try:
        _, settings = _read_settings(needs_database=True)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    import structlog

    from ledger.check import check

    # The problems are told below, in sentences; log lines between them would only repeat them.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    _say("The settings are in order.")
    problems = asyncio.run(check(settings))
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return _FAILED
    asked = "database, migrations, Lanyard" if settings.identity == "lanyard" else "database, migrations"
    _say(f"Everything is in order: {asked} and the books.")
    return 0


def _rotate_key(_parsed: argparse.Namespace) -> int:
    _, settings = _read_settings(needs_database=True)
    from ledger.rotation import KeyUnknown, rotate_stored_secrets

    try:
        rotated = asyncio.run(rotate_stored_secrets(settings))
    except KeyUnknown as error:
        raise CommandFailed(str(error)) from error
    except OSError as error:
        raise CommandFailed("The database does not answer: check DATABASE_URL and the server.") from error
    _say(
        f"Sealed anew: {rotated}. ENCRYPTION_KEY_PREVIOUS is not needed any more."
        if rotated
        else "Every secret is sealed with ENCRYPTION_KEY already."
    )
    return 0


def _reconcile(parsed: argparse.Namespace) -> int:
    if not 1 <= parsed.days <= _RECONCILED_DAYS_MAX:
        raise SettingsError(f"--days must be from 1 to {_RECONCILED_DAYS_MAX}: providers list events no longer.")
    _, settings = _read_settings(needs_database=True)
    import structlog

    from ledger.database.connection import is_database_away
    from ledger.worker import NotMigrated, reconcile_once

    # What was found is told below, in sentences.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        findings = asyncio.run(reconcile_once(settings, days=parsed.days))
    except NotMigrated as error:
        raise CommandFailed(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
    except Exception as error:
        if not is_database_away(error):
            raise
        raise CommandFailed("The database does not answer: check DATABASE_URL and the server.") from error
    for sentence in findings.mended:
        _say(sentence)
    for sentence in findings.failed:
        sys.stderr.write(f"{sentence}\n")
    nothing = "nothing was mended" if findings.failed_count else "nothing was missed"
    mended = f"mended {findings.mended_count}" if findings.mended_count else nothing
    failed = f", and {findings.failed_count} could not be settled" if findings.failed_count else ""
    _say(f"Looked at {findings.looked} events, subscriptions and payment pages: {mended}{failed}.")
    return _FAILED if findings.failed_count else 0


def _retention(parsed: argparse.Namespace) -> int:
    _, settings = _read_settings(needs_database=True)
    import structlog

    from ledger.database.connection import is_database_away
    from ledger.retention.command import told
    from ledger.worker import NotMigrated, retain_once

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        retained = asyncio.run(retain_once(settings, is_dry=parsed.dry_run))
    except NotMigrated as error:
        raise CommandFailed(f"{str(error)[0].upper()}{str(error)[1:]}.") from error
    except Exception as error:
        if not is_database_away(error):
            raise
        raise CommandFailed("The database does not answer: check DATABASE_URL and the server.") from error
    for sentence in told(retained, is_dry=parsed.dry_run):
        _say(sentence)
    return 0


def _openapi(_parsed: argparse.Namespace) -> int:
    from ledger.app import api_document

    _say(json.dumps(api_document(), indent=2, ensure_ascii=False))
    return 0


def _read_settings(*, needs_database: bool = False) -> tuple[dict[str, str], Settings]:
    """The variables and the settings they make. A database that `ledger run` has started counts as configured."""
    environ = environment(os.environ, _DOTENV)
    settings = load_settings(environ)
    if settings.database_url is None and needs_database:
        from ledger.embedded import find_running

        url = find_running(settings.data_dir)
        if url is not None:
            environ["DATABASE_URL"] = url
            settings = load_settings(environ)
        settings.require_database_url()
    return environ, settings


def _supervise(
    environ: dict[str, str], settings: Settings, *, api: bool = False, worker: bool = False, migrate: bool = False
) -> int:
    from ledger.embedded import EmbeddedPostgres, EmbeddedPostgresError
    from ledger.listener import open_listener
    from ledger.supervisor import Child, Supervisor, ledger_command

    on_ready = _announcer(settings) if api else _say_nothing
    listener = open_listener(settings.host, settings.port) if api else None
    from ledger.logs import configure_logs

    configure_logs(settings.log)
    children: list[Child] = []
    if listener is not None:
        command = ledger_command("serve", "--listener", str(listener.fileno()))
        children += _several(settings.api_processes, "API", command)
    if worker:
        children += _several(settings.worker_processes, "worker", ledger_command("worker"))

    async def supervise() -> int:
        supervisor = Supervisor(
            children=children,
            environ=environ,
            listener=listener,
            database=EmbeddedPostgres(settings.data_dir) if settings.database_url is None else None,
        )
        first = Child(label="migration", command=ledger_command("migrate")) if migrate else None
        return await supervisor.run(first=first, on_ready=on_ready)

    try:
        return asyncio.run(supervise())
    except EmbeddedPostgresError as error:
        raise CommandFailed(str(error)) from error


def _several(count: int, label: str, command: tuple[str, ...]) -> list["Child"]:
    from ledger.supervisor import Child

    return [Child(label=f"{label} {number}", command=command) for number in range(1, count + 1)]


@contextmanager
def _alone_on(data_dir: Path) -> Iterator[None]:
    """Sees to it that one `ledger run` at a time has its database in the data directory."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (data_dir / "run.lock").open("a+")
    except OSError as error:
        raise SettingsError(
            f"LEDGER_DATA_DIR must be a directory Ledger can write to ({error.filename}: {error.strerror})."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CommandFailed(
                f"Ledger already runs on {data_dir} (process {file.read().strip() or 'unknown'}): stop it first, "
                "or set LEDGER_DATA_DIR and PORT to run another."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _announcer(settings: Settings) -> Callable[[], None]:
    """What is to be said when Ledger is ready: where it listens and, standalone, how to try it."""
    import structlog

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{settings.port}"
    if settings.log == "json":
        return lambda: structlog.get_logger("ledger").info("ready", url=url)
    if settings.identity == "lanyard":
        return lambda: _say(f"\nLedger is ready at {url}.\n")
    from ledger.standalone import StandaloneFileError, load_or_create_credentials

    try:
        credentials = load_or_create_credentials(settings.data_dir)
    except StandaloneFileError as error:
        raise CommandFailed(str(error)) from None
    except OSError as error:
        raise SettingsError(f"LEDGER_DATA_DIR must be a directory Ledger can write to ({error.strerror}).") from None
    # One line, so that it can be pasted whole.
    curl = (
        f"curl -sS {url}/api/invoices -H 'Authorization: ServiceKey {credentials.service_key}' "
        f"-H 'Content-Type: application/json' -d '{_EXAMPLE_INVOICE}'"
    )
    text = f"""
Ledger is ready at {url}, standalone: without Lanyard, for trying it on this machine.

  staff    Authorization: Bearer {credentials.admin_token}
  a user   Authorization: Bearer {credentials.user_token}
  service  Authorization: ServiceKey {credentials.service_key}

Create an invoice:

{curl}

Stop with Ctrl-C.
"""
    return lambda: _say(text)


def _say_nothing() -> None:
    """For processes that serve nobody who would wait for them."""


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
