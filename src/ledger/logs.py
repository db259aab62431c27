"""Logs: one line an event, on standard output, for people (console) or for machines (JSON).

Ledger's own modules log with `structlog.get_logger()`; what libraries log through the standard library goes through
the same steps, from warnings up. What the context holds (`request_id`) is added, and secrets are masked.
"""

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ledger.settings import LogStyle

_MASK = "********"
_DEEPEST_LEVEL = 4
# A key is secret or personal when one of its words is: `service_key`, `smtpPassword`, `display_name`.
_SENSITIVE_WORDS = frozenset(
    {
        "apikey", "authorization", "bearer", "cookie", "credential", "credentials", "dsn", "email", "emails", "iban",
        "key", "keys", "mail", "name", "names", "pass", "passwd", "password", "secret", "secrets", "signature",
        "token", "tokens", "username",
    }
)  # fmt: skip
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# What can be told by its form, for texts that others wrote: exceptions and libraries' messages. PostgreSQL's DETAIL
# quotes the values of a row.
_SENSITIVE_TEXT = re.compile(
    r"(?P<scheme>\b(?:Bearer|ServiceKey)\s+)[^\s'\"]+"
    r"|(?P<user>://[^\s:/@]*:)[^\s@/]+(?=@)"
    r"|\b(?:sk|rk|pk)_(?:svc|live|test)_\w+|\bwhsec_[\w+/=-]+"
    r"|(?<=DETAIL:  )[^\n]+"
)


class _Lines:
    """Writes lines where others do too. A reader that went away takes the log with it, not the request."""

    def __init__(self, out: TextIO, name: str = "ledger") -> None:
        self._out = out
        self.name = name

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._out.flush()

    def msg(self, line: str) -> None:
        self.write(f"{line}\n")
        self.flush()

    debug = info = warning = warn = error = err = exception = critical = fatal = msg


def configure_logs(style: LogStyle, *, stream: TextIO | None = None) -> None:
    """Sets up logging for this process; `stream` is standard output if not given."""
    out = stream or sys.stdout
    steps: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_sensitive,
    ]
    render = _json_line if style == "json" else _console_line(out)
    structlog.configure(
        processors=[*steps, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *names: _Lines(out, *names[:1]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_Lines(out))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def _console_line(out: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=40
    )


def mask_sensitive(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Masks the values of sensitive keys, also in nested mappings, and what looks like a secret in texts."""
    for key, value in event.items():
        event[key] = _masked(key, value, _DEEPEST_LEVEL)
    return event


def _masked(key: str, value: object, levels: int) -> object:
    if _is_sensitive(key) and value is not None:
        return _MASK
    if isinstance(value, str):
        return _SENSITIVE_TEXT.sub(rf"\g<scheme>\g<user>{_MASK}", value)
    if isinstance(value, Mapping):
        if levels == 0:
            return "..."
        return {str(inner): _masked(str(inner), found, levels - 1) for inner, found in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", found, levels - 1) if levels else "..." for found in value]
    return value


@lru_cache(maxsize=1024)
def _is_sensitive(key: str) -> bool:
    return any(word.lower() in _SENSITIVE_WORDS for word in _WORD.findall(key))
