"""Logs: one line an event, with the request's id, without secrets and personal data, whoever wrote it."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from ledger.logs import configure_logs, mask_sensitive


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where the lines go. Everything global is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs("json", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_has_time_level_logger_and_the_requests_id(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("ledger.invoices").info("created", count=2)
    (line,) = lines(out)
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {
        "event": "created",
        "count": 2,
        "request_id": "r-1",
        "logger": "ledger.invoices",
        "level": "info",
    }


def test_libraries_are_heard_from_warnings_up_in_the_same_form(out: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-2"):
        logging.getLogger("pgqueuer").info("chatter")
        logging.getLogger("pgqueuer").warning("lost %s", "Bearer abc")
    (line,) = lines(out)
    assert (line["logger"], line["level"]) == ("pgqueuer", "warning")
    assert (line["event"], line["request_id"]) == ("lost Bearer ********", "r-2")


def test_an_error_has_its_traceback_without_what_is_secret_in_it(out: io.StringIO) -> None:
    try:
        raise ValueError(
            "duplicate key\nDETAIL:  Key (user_id)=(ben-123) exists.\npostgresql://u:hidden@h/d sk_live_hidden"
        )
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(out)
    assert "Traceback" in str(line["exception"])
    assert "duplicate key" in str(line["exception"])
    assert "postgresql://u:********@h/d" in str(line["exception"])
    for secret in ("hidden", "ben-123"):
        # The source line that a traceback quotes is not a value; here it happens to hold one.
        assert secret not in str(line["exception"]).split("ValueError: ", 1)[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("authorization", "Bearer x"),
        ("service_key", "x"),
        ("apiKey", "x"),
        ("smtpPass", "x"),
        ("smtp_password", "x"),
        ("webhookSecret", "x"),
        ("email", "a@b.example"),
        ("displayName", "Ben"),
        ("name", "Ben"),
        ("username", "ben"),
        ("body", {"data": [{"token": "x"}]}),
    ],
)
def test_values_of_sensitive_keys_are_masked(key: str, value: object) -> None:
    masked = mask_sensitive(None, "info", {"event": "e", key: value})
    assert "x" not in str(masked[key])
    assert "********" in str(masked[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("route", "/api/invoices"),
        ("status", 200),
        ("url", "http://127.0.0.1:5002/api"),
        ("hostname", "web-1"),
        ("monkey", "x"),
        ("token", None),
        ("count", 3),
    ],
)
def test_other_values_are_left_alone(key: str, value: object) -> None:
    assert mask_sensitive(None, "info", {"event": "e", key: value})[key] == value


def test_nesting_without_end_is_cut() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert "..." in str(mask_sensitive(None, "info", {"event": "e", "value": endless}))


def test_a_log_that_nobody_reads_any_more_stops_nothing() -> None:
    code = """
import logging, structlog, sys, time
from ledger.logs import configure_logs
configure_logs("json")
sys.stdin.readline()
structlog.get_logger().info("one")
logging.getLogger("x").warning("two")
sys.stderr.write("still here")
sys.stderr.flush()
__import__("os")._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(b"\n", timeout=20)[1] == b"still here"


def test_the_console_is_for_people() -> None:
    code = 'import structlog; from ledger.logs import configure_logs; configure_logs("console")\n'
    code += 'structlog.get_logger("ledger.x").info("created", count=2)'
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "[info     ] created" in said
    assert "count=2" in said
    assert "\x1b" not in said
