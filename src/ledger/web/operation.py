"""Declares operations and carries them out.

An operation says in one place what it is: method, path, who may call it, what it reads and answers. From that the
request is proven, limited, read and answered, and the OpenAPI document is written.
"""

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar, cast

import msgspec
import structlog
from litestar import Request, route
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp, Method, Receive, Scope, Send

from ledger.database.transaction import Tx
from ledger.errors import (
    BadRequest,
    FieldError,
    Forbidden,
    LedgerError,
    TookTooLong,
    TooManyRequests,
    Unauthorized,
)
from ledger.identity import MANAGE_PERMISSION, Caller, Person
from ledger.web import metrics
from ledger.web.bodies import NoBody, decode_body, decode_query
from ledger.web.call import Call, NoQuery, Services
from ledger.web.idempotency import Claim, Replay, claim_keys, complete_claim, read_claim, store_answers
from ledger.web.problems import given_request_id, problem_response, understand
from ledger.web.reading import drain, read_raw_body

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")

# The whole request, the reading of its body included.
REQUEST_TIMEOUT_S = 30.0
# All of it but the reading: the Dashboard's proxy gives up after 10 s, an answer must come in 8.
WORK_TIMEOUT_S = 7.5
SLOW_REQUEST_S = 1.0
_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))

log = structlog.get_logger("ledger.web")


class Callers(enum.Flag):
    """Who may call an operation."""

    PUBLIC = enum.auto()
    """Anybody; nothing is proven."""
    USER = enum.auto()
    """Any proven person, on what is theirs."""
    STAFF = enum.auto()
    """A person holding `ledger:manage`."""
    SERVICE = enum.auto()
    """A registered service, on what it created or was granted."""


PUBLIC, USER, STAFF, SERVICE = Callers.PUBLIC, Callers.USER, Callers.STAFF, Callers.SERVICE


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation's declaration, kept on its handler for the OpenAPI document and the tests."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    summary: str
    callers: Callers
    body: type
    query: type
    answer: type
    status: int
    is_form: bool
    errors: tuple[int, ...]
    description: str
    media_type: str = "application/json"
    other_statuses: tuple[int, ...] = ()
    """Further statuses of success, of the same shape; a `Reply` says which it is."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that is more than a value: other bytes, another status, other headers."""

    content: bytes
    status: int | None = None
    media_type: str = "application/json"
    headers: dict[str, str] = msgspec.field(default_factory=dict)


ReadHandler = Callable[[Call[BodyT, QueryT]], Awaitable[object]]
WriteHandler = Callable[[Call[BodyT, QueryT], Tx], Awaitable[object]]


async def completed(call: Call[BodyT, QueryT], reply: Reply, *, status: int = 200) -> Reply:
    """The reply of an `acts` operation, once it is stored under the request's key, if it has one."""
    if call.claim is not None:
        await complete_claim(call.database, caller=call.caller, claim=call.claim, status=status, answer=reply.content)
    return reply


def reads(
    path: str,
    summary: str,
    *,
    callers: Callers,
    answer: type,
    query: type[QueryT] = NoQuery,  # type: ignore[assignment] # the default stands for "no parameters"
    errors: tuple[int, ...] = (),
    description: str = "",
    media_type: str = "application/json",
) -> Callable[[ReadHandler[NoBody, QueryT]], HTTPRouteHandler]:
    """Declares a GET operation: `async def f(call) -> answer`."""
    declared = Operation(
        method="GET",
        path=path,
        summary=summary,
        callers=callers,
        body=NoBody,
        query=query,
        answer=answer,
        status=200,
        is_form=False,
        errors=errors,
        description=description,
        media_type=media_type,
    )
    return lambda handler: _mount(declared, cast("ReadHandler[object, object]", handler))


def writes(
    method: Literal["POST", "PUT", "DELETE"],
    path: str,
    summary: str,
    *,
    callers: Callers,
    answer: type,
    body: type[BodyT] = NoBody,  # type: ignore[assignment] # the default stands for "no body"
    status: int = 200,
    is_form: bool = False,
    errors: tuple[int, ...] = (),
    description: str = "",
) -> Callable[[WriteHandler[BodyT, NoQuery]], HTTPRouteHandler]:
    """Declares an operation that runs in one transaction: `async def f(call, tx) -> answer`.

    The transaction commits when `f` returned and its answer is stored under the request's idempotency key.
    """
    declared = Operation(
        method=method,
        path=path,
        summary=summary,
        callers=callers,
        body=body,
        query=NoQuery,
        answer=answer,
        status=status,
        is_form=is_form,
        errors=errors,
        description=description,
    )

    def mount(handler: WriteHandler[BodyT, NoQuery]) -> HTTPRouteHandler:
        async def in_transaction(call: Call[BodyT, NoQuery]) -> object:
            async with call.database.transaction_of(call.caller) as tx:
                if call.claim is not None:
                    await _claim_or_raise(tx, call.claim)
                answer = encode(await handler(call, tx))
                if call.claim is not None:
                    await store_answers(
                        tx.connection, answers=[(tx.actor, call.claim, answer.status or status, answer.content)]
                    )
            return answer

        return _mount(declared, cast("ReadHandler[object, object]", in_transaction))

    return mount


def acts(
    method: Literal["POST", "PUT", "DELETE"],
    path: str,
    summary: str,
    *,
    callers: Callers,
    answer: type,
    body: type[BodyT] = NoBody,  # type: ignore[assignment] # the default stands for "no body"
    status: int = 200,
    other_statuses: tuple[int, ...] = (),
    is_form: bool = False,
    errors: tuple[int, ...] = (),
    description: str = "",
) -> Callable[[ReadHandler[BodyT, NoQuery]], HTTPRouteHandler]:
    """Declares an operation that manages its own transactions and idempotency (`call.claim`)."""
    declared = Operation(
        method=method,
        path=path,
        summary=summary,
        callers=callers,
        body=body,
        query=NoQuery,
        answer=answer,
        status=status,
        is_form=is_form,
        errors=errors,
        description=description,
        other_statuses=other_statuses,
    )
    return lambda handler: _mount(declared, cast("ReadHandler[object, object]", handler))


async def _claim_or_raise(tx: Tx, claim: Claim) -> None:
    verdict = (await claim_keys(tx.connection, claims=[(tx.actor, claim)], now=tx.now))[0]
    if verdict is not None:
        raise verdict


def _mount(operation: Operation, handler: ReadHandler[object, object]) -> HTTPRouteHandler:
    """The Litestar handler that carries an operation out."""

    async def endpoint(request: Request[object, object, State]) -> ASGIApp:
        started = time.perf_counter()
        services: Services = request.app.state.services
        request_id = request_id_of(request, services)
        failure: LedgerError | None = None
        response: _Answer | ASGIResponse
        try:
            async with asyncio.timeout(WORK_TIMEOUT_S) as limit:
                response = await _carry_out(operation, handler, request, services, request_id, limit)
        except Replay as replay:
            response = _Answer(
                Reply(content=replay.answer, status=replay.status, headers={"idempotent-replayed": "true"}),
                operation,
                request_id,
            )
        except Exception as error:
            failure = understand(error, may_be_stored=operation.method != "GET")
            if failure.status == 500:
                log.error("request failed", request_id=request_id, operation=operation.path, exc_info=error)
            response = problem_response(failure, request_id=request_id).to_asgi_response(None, request)
        _observe(operation, request_id, response.status_code, time.perf_counter() - started, failure)
        return response

    return route(
        operation.path.replace("{id}", "{id:str}"),
        http_method=cast("list[Method]", ["GET", "HEAD"] if operation.method == "GET" else [operation.method]),
        status_code=operation.status,
        opt={"operation": operation},
    )(endpoint)


def request_id_of(request: Request[object, object, State], services: Services) -> str:
    """The request's id: the one that came with it when it is harmless, else a new one."""
    return given_request_id(request.headers) or services.ids.new()


async def _carry_out(
    operation: Operation,
    handler: ReadHandler[object, object],
    request: Request[object, object, State],
    services: Services,
    request_id: str,
    limit: asyncio.Timeout,
) -> "_Answer":
    try:
        caller = None if operation.callers & PUBLIC else await _prove(operation, request, services)
        query = NoQuery() if operation.query is NoQuery else decode_query(_single_values(request), operation.query)
    except LedgerError:
        await drain(request)
        raise
    body: object = NO_BODY
    raw = b""
    claim = None
    if operation.method != "GET":
        raw = await _read_body(request, limit)
        body = decode_body(raw, operation.body, is_form=operation.is_form) if operation.body is not NoBody else NO_BODY
        if operation.method == "POST" and not operation.callers & PUBLIC:
            key = request.headers.get("idempotency-key")
            claim = (
                read_claim(key=key, method="POST", path=request.scope["path"], body=raw) if key is not None else None
            )
    call: Call[object, object] = Call(
        services=services,
        caller=caller,
        body=body,
        query=query,
        path=request.scope["path_params"],
        claim=claim,
        request_id=request_id,
        raw_body=raw,
        headers=request.headers,
        address=_address_of(request),
    )
    return _Answer(encode(await handler(call)), operation, request_id)


NO_BODY = NoBody()


async def _read_body(request: Request[object, object, State], limit: asyncio.Timeout) -> bytes:
    """The request's body. Who sends slowly uses up time of their own, not that of the work."""
    loop = asyncio.get_running_loop()
    left_s = (limit.when() or loop.time()) - loop.time()
    limit.reschedule(None)
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S - WORK_TIMEOUT_S):
            body = await read_raw_body(request)
    except TimeoutError:
        raise TookTooLong("The body did not arrive in time, so nothing was done; send it again") from None
    limit.reschedule(loop.time() + left_s)
    return body


def _single_values(request: Request[object, object, State]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in values:
            raise BadRequest(
                f"The parameter {name} was given twice", fields=[FieldError(name, "must be given only once")]
            )
        if value != "":
            values[name] = str(value)
    return values


async def _prove(operation: Operation, request: Request[object, object, State], services: Services) -> Caller:
    """Proves the caller and what they may. Raises 401, 403, 429 and 503 as the case is."""
    headers = request.headers
    authorizations = headers.getall("authorization", [])
    address = _address_of(request)
    if len(authorizations) != 1:
        raise Unauthorized
    caller = services.identity.known(authorizations[0])
    if caller is None:
        # The Dashboard is one address for many people: a stale tab that asks again does not count, and who was
        # proven lately is not kept out by others.
        is_new = not services.identity.seen_before(authorizations[0])
        wait_s = services.failure_limit.wait_s(address) if is_new else None
        if wait_s is not None:
            raise _too_many("Too many failed attempts from your address", wait_s)
        try:
            caller = await services.identity.verify(authorizations[0])
        except Unauthorized:
            if is_new:
                services.failure_limit.take(address)
            raise
    if isinstance(caller, Person):
        # The header proves nothing, but one that contradicts the proof means that something is mixed up.
        claimed = headers.getall("x-user-id", [])
        if claimed and claimed != [caller.user_id]:
            raise Unauthorized
        wait_s = services.caller_limit.take(caller.user_id)
    else:
        wait_s = services.service_limit.take(caller.service_id)
    if wait_s is not None:
        raise _too_many("Too many requests", wait_s)
    _check_callers(operation.callers, caller)
    return caller


def _address_of(request: Request[object, object, State]) -> str:
    return request.client.host if request.client else "unknown"


def _too_many(what: str, wait_s: float) -> TooManyRequests:
    seconds = int(wait_s) + 1
    return TooManyRequests(f"{what}; try again in {seconds} s", retry_after_s=seconds)


def _check_callers(callers: Callers, caller: Caller) -> None:
    if isinstance(caller, Person):
        if callers & USER or (callers & STAFF and caller.is_staff):
            return
        raise Forbidden(MANAGE_PERMISSION if callers & STAFF else "service")
    if not callers & SERVICE:
        raise Forbidden(MANAGE_PERMISSION if callers & STAFF else "user")


def encode(answer: object) -> Reply:
    """An answer as it is sent and stored."""
    return answer if isinstance(answer, Reply) else Reply(content=msgspec.json.encode(answer))


class _Answer:
    """An answer as the server takes it; Litestar's `Response` would work out anew for each what is known here."""

    __slots__ = ("_content", "_headers", "status_code")

    def __init__(self, reply: Reply, operation: Operation, request_id: str) -> None:
        self.status_code = reply.status or operation.status
        self._content = reply.content
        self._headers = [
            *_HEADERS,
            (b"content-type", reply.media_type.encode()),
            (b"content-length", str(len(reply.content)).encode()),
            (b"x-request-id", request_id.encode()),
            *((name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()),
        ]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._content, "more_body": False})


def _observe(
    operation: Operation, request_id: str, status: int, duration_s: float, failure: LedgerError | None
) -> None:
    metrics.observe_request(operation.method, operation.path, status, duration_s)
    if operation.method == "GET" and duration_s < SLOW_REQUEST_S and status < 500:
        return
    log.info(
        "request",
        request_id=request_id,
        method=operation.method,
        route=operation.path,
        status=status,
        duration_ms=round(duration_s * 1000, 1),
        **({"refusal": type(failure).__name__} if failure else {}),
    )
