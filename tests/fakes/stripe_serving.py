"""How the fake Stripe answers over HTTP: keys, versions, idempotency, faults, and the expansion of ids."""

import asyncio
import copy
import re
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from aiohttp import web

from tests.fakes.stripe_billing_operations import payments_of
from tests.fakes.stripe_operations import ROUTES
from tests.fakes.stripe_shapes import Nested, Object, decode_form, shown, violations
from tests.fakes.stripe_world import API_VERSION, Refusal, World

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe

Kind = Literal["hang", "hang_after", "reset_before", "reset_after", "429", "500_before", "500_after", "garbage"]

SECRET_KEY = "sk_test_51LedgerFakeStripeSecretKey"

_MAX_RECORDED = 100_000
_EXPANDED_LEVELS_MAX = 4


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    params: dict[str, Nested]
    idempotency_key: str | None
    headers: dict[str, str]


@dataclass
class Fault:
    """Something that goes wrong with matching requests, `times` times."""

    kind: Kind
    path: str = ""
    method: str = ""
    times: int = 1
    retry_after_s: int | None = None
    should_retry: str | None = None

    def takes(self, request: web.Request) -> bool:
        fits = re.search(self.path, request.path) is not None and self.method in ("", request.method)
        if not fits or self.times == 0:
            return False
        self.times -= 1
        return True


class Server(World):
    """A world that is asked over HTTP. Public attributes may be changed at any time and count for the next request."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = {SECRET_KEY}
        self.restricted_keys: set[str] = set()
        """Keys that may do nothing (403)."""
        self.delay_s = 0.0
        """Between the arrival of a request and its effect; meanwhile its idempotency key is taken."""
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=_MAX_RECORDED)
        self.on_answer: Callable[[Request], Awaitable[None]] | None = None
        """Awaited when a request was carried out and before its answer is sent."""
        self._answers: dict[str, tuple[tuple[str, str], tuple[int, Object]]] = {}
        self._running: set[str] = set()
        self._released = asyncio.Event()

    def release(self) -> None:
        """Lets go (with a reset) whoever hangs, and whoever will."""
        self._released.set()

    def fault(self, kind: Kind, path: str = "", **details: Any) -> Fault:
        """Makes the next matching request fail. `path` is a regular expression, `times=-1` means always."""
        fault = Fault(kind, path, **details)
        self.faults.append(fault)
        return fault

    def requests_to(self, path: str, method: str = "") -> list[Request]:
        """The recorded requests whose path fits the regular expression."""
        return [one for one in self.requests if re.search(path, one.path) and method in ("", one.method)]

    def forget_keys(self) -> None:
        """Forgets all idempotency keys, as Stripe does after a day."""
        self._answers.clear()

    # Serving

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        text = await request.text() if request.method == "POST" else request.query_string
        params = decode_form(text)
        key = request.headers.get("Idempotency-Key")
        headers = {name.lower(): value for name, value in request.headers.items()}
        recorded = Request(request.method, request.path, params, key, headers)
        self.requests.append(recorded)
        fault = next((one for one in self.faults if one.takes(request)), None)
        if fault is not None and fault.kind in ("hang", "reset_before", "429", "500_before", "garbage"):
            return await self._fail(request, fault)
        status, body, is_new = await self._answer(request, params, text, key)
        if is_new and self.on_answer is not None:
            await self.on_answer(recorded)
        if fault is not None:
            if fault.kind == "500_after":
                # Stripe keeps a 500, too, and gives it again for the same key.
                status, body = 500, _SERVER_ERROR
                if key is not None and is_new:
                    self._answers[key] = ((request.path, text), (status, body))
            else:
                return await self._fail(request, fault)
        answer_headers = {"Request-Id": f"req_{next(self._counter):06d}"}
        if status == 500:
            answer_headers["Stripe-Should-Retry"] = "false"
        return web.json_response(body, status=status, headers=answer_headers)

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        headers = {}
        if fault.retry_after_s is not None:
            headers["Retry-After"] = str(fault.retry_after_s)
        if fault.should_retry is not None:
            headers["Stripe-Should-Retry"] = fault.should_retry
        if fault.kind == "429":
            return web.json_response(_RATE_LIMITED, status=429, headers=headers)
        if fault.kind == "500_before":
            return web.json_response(_SERVER_ERROR, status=500, headers=headers)
        if fault.kind == "garbage":
            return web.Response(text="<html>Welcome</html>", content_type="text/html", headers=headers)
        if fault.kind.startswith("hang"):
            await self._released.wait()
        _reset(request)
        return web.Response()

    async def _answer(
        self, request: web.Request, params: dict[str, Nested], text: str, key: str | None
    ) -> tuple[int, Object, bool]:
        """Returns status, body, and whether the request was carried out now (not answered from memory)."""
        try:
            self._check_key(request)
        except Refusal as refusal:
            return refusal.status, refusal.body, False
        if request.method != "POST":
            key = None
        asked = (request.path, text)
        if key is not None and key in self._answers:
            before, answer = self._answers[key]
            if before != asked:
                sentence = f"Keys for idempotent requests can only be used with the same parameters: '{key}'"
                return 400, Refusal(400, sentence, kind="idempotency_error").body, False
            return *answer, False
        if key is not None and key in self._running:
            code = "idempotency_key_in_use"
            return 409, Refusal(409, "Another request is using it", kind="idempotency_error", code=code).body, False
        try:
            if key is not None:
                self._running.add(key)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            status, body, is_kept = self._carry_out(request, params)
        finally:
            self._running.discard(key or "")
        if key is not None and is_kept:
            self._answers[key] = (asked, (status, copy.deepcopy(body)))
        return status, body, True

    def _carry_out(self, request: web.Request, params: dict[str, Nested]) -> tuple[int, Object, bool]:
        is_kept = False
        self.run_due()
        try:
            for route in ROUTES:
                match = route.path.fullmatch(request.path)
                if match is not None and route.method == request.method:
                    found = violations(route.params, params)
                    if found:
                        self.violations += [f"{request.method} {request.path}: {one}" for one in found]
                        raise Refusal(400, f"Received unknown or wrong parameters: {found}", code="parameter_unknown")
                    is_kept = True
                    body = route.act(cast("FakeStripe", self), dict(params), match[1] if match.groups() else "")
                    return 200, self._expanded(shown(body), params), True
            self.violations.append(f"{request.method} {request.path} is not known to the fake")
            raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path})")
        except Refusal as refusal:
            return refusal.status, refusal.body, is_kept
        except Exception as error:
            self.violations.append(f"{request.method} {request.path} made the fake fail: {error!r}")
            raise

    def _check_key(self, request: web.Request) -> None:
        if request.headers.get("Stripe-Version") != API_VERSION:
            self.violations.append(f"{request.path} asks for version {request.headers.get('Stripe-Version')}")
        if "X-Stripe-Client-Telemetry" in request.headers:
            self.violations.append(f"{request.path} carries telemetry")
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key in self.restricted_keys:
            raise Refusal(403, f"The provided key '{key}' does not have the required permissions for this endpoint")
        if key not in self.keys:
            # The real Stripe masks most of the key. This one does not, to see that Ledger does.
            raise Refusal(401, f"Invalid API Key provided: {key}")

    def _expanded(self, body: Object, params: dict[str, Nested]) -> Object:
        paths = params.get("expand", [])
        for path in paths if isinstance(paths, list) else []:
            names = str(path).split(".")
            if len(names) > _EXPANDED_LEVELS_MAX:
                raise Refusal(400, f"You cannot expand more than 4 levels of a property. Property: {path}")
            self._expand(body, names, str(path))
        return body

    def _expand(self, place: Any, names: list[str], path: str) -> None:
        if isinstance(place, list):
            for one in place:
                self._expand(one, names, path)
            return
        name, *rest = names
        if name == "payments" and place.get("object") == "invoice":
            place[name] = place[name] or payments_of(self, place)
        value = place.get(name)
        if isinstance(value, str) and value in self.objects:
            place[name] = shown(self.objects[value])
        elif name not in place or not isinstance(value, dict | list | None):
            self.violations.append(f"{path} cannot be expanded")
            raise Refusal(400, f"This property cannot be expanded ({path}).")
        if rest and place[name] is not None:
            self._expand(place[name], rest, path)


_SERVER_ERROR: Object = {"error": {"type": "api_error", "message": "An unknown error occurred"}}
_RATE_LIMITED: Object = {
    "error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}
}


def _reset(request: web.Request) -> None:
    """Ends the connection with a TCP reset, as a crash does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
