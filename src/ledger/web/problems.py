"""Errors as responses: the only place that does it. RFC 9457 problem details, plus `error` for the Dashboard."""

import re
from collections.abc import Callable, Mapping

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from ledger.database.connection import is_database_away
from ledger.errors import (
    BadRequest,
    FieldError,
    LedgerError,
    TookTooLong,
    TooLarge,
    Unavailable,
)

PROBLEM_JSON = "application/problem+json"
log = structlog.get_logger("ledger.web")

BODY_MAX_BYTES = 1024 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOOK_TOO_LONG = "This took too long and was given up; try again in a few seconds"
_TOOK_TOO_LONG_CHANGE = (
    "This took too long. Look whether it was stored before you try again; with an Idempotency-Key, trying again is safe"
)


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error's body: `error` is the sentence for people, `errors` names each refused field."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    errors: list[FieldError] | None = None
    required: str | None = None


def problem_of(error: LedgerError) -> Problem:
    """The body that says what `error` says."""
    return Problem(
        type=f"urn:ledger:error:{_words(type(error).__name__)}",
        title=error.title,
        status=error.status,
        detail=error.sentence,
        error=error.sentence,
        errors=list(error.fields) or None,
        required=error.details.get("required"),
    )


def understand(error: Exception, *, may_be_stored: bool = False) -> LedgerError:
    """Says in our terms what went wrong; what we did not foresee becomes an internal error without internals.

    `may_be_stored` says that a change which took too long may have been carried out all the same.
    """
    if isinstance(error, LedgerError):
        return error
    if isinstance(error, RequestEntityTooLarge):
        return TooLarge("The body is larger than 1 MiB; send less at once")
    if isinstance(error, TimeoutError | asyncpg.QueryCanceledError):
        return TookTooLong(_TOOK_TOO_LONG_CHANGE if may_be_stored else _TOOK_TOO_LONG, retry_after_s=5)
    if is_database_away(error):
        return Unavailable("The database does not answer; try again in a few seconds", retry_after_s=5)
    if isinstance(error, asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError):
        return Unavailable("Others were changing the same thing; try again", retry_after_s=1)
    return LedgerError("Something went wrong inside Ledger; the log names it by the request's id")


def _words(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def problem_response(error: LedgerError, *, request_id: str) -> Response[bytes]:
    """The response for `error`."""
    headers = {
        "x-request-id": request_id,
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, error.retry_after_s))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer, ServiceKey"
    return Response(
        msgspec.json.encode(problem_of(error)),
        status_code=error.status,
        media_type=PROBLEM_JSON,
        headers=headers,
    )


def given_request_id(headers: Mapping[str, str]) -> str | None:
    """The id that came with a request, when it is harmless: it goes into the log and back to the caller."""
    given = headers.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else None


def outside_operations(
    new_request_id: Callable[[], str],
) -> Callable[[Request[object, object, State], Exception], Response[bytes]]:
    """Answers what no operation handled: unknown paths, wrong methods, faults in the framework."""

    def answer(request: Request[object, object, State], error: Exception) -> Response[bytes]:
        request_id = given_request_id(request.headers) or new_request_id()
        if isinstance(error, NotFoundException):
            known: LedgerError = UnknownPath("There is nothing at this path; the API is described at /api/openapi")
        elif isinstance(error, MethodNotAllowedException):
            known = WrongMethod("This path does not take that method; the API is described at /api/openapi")
        elif isinstance(error, HTTPException) and 400 <= error.status_code < 500:
            known = BadRequest("The request cannot be read")
        else:
            known = understand(error)
            if known.status == 500:
                log.error("request failed", request_id=request_id, exc_info=error)
        response = problem_response(known, request_id=request_id)
        if isinstance(error, MethodNotAllowedException) and error.headers:
            response.headers.update(error.headers)
        return response

    return answer


class UnknownPath(LedgerError):
    """No operation has this path (404)."""

    status = 404
    title = "Not found"


class WrongMethod(LedgerError):
    """The path has operations, but none with this method (405)."""

    status = 405
    title = "Method not allowed"
