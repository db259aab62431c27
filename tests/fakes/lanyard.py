"""A Lanyard of our own: a real HTTP server on loopback that answers as the wire contract says, and fails on request.

In a test: `async with FakeLanyard() as lanyard: lanyard.add_person(...)`.
As a process of its own: `python -m tests.fakes.lanyard --port 3001 --person admin:token-a:ledger:manage`.
"""

import argparse
import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

import msgspec
from aiohttp import web

Mode = Literal["ok", "hang", "500", "429", "reset", "garbage", "404-permissions"]

OWN_SERVICE_ID = "ledgerServiceId0000001"
OWN_KEY = "sk_svc_ledger"

_MAX_RECORDED = 100_000
_HEARTBEATS_A_MINUTE = 60
_UNAUTHORIZED = {"error": "Unauthorized"}


@dataclass(frozen=True)
class Call:
    """One request as it arrived."""

    method: str
    path: str
    authorization: str
    headers: dict[str, str]


@dataclass
class _Person:
    user_id: str
    name: str | None
    email: str | None
    permissions: list[object] = field(default_factory=list)


@dataclass
class HandMovedTime:
    """A monotonic time in seconds that stands still until a test moves it."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def move(self, step_s: float) -> None:
        self.now_s += step_s


class FakeLanyard:
    """Lanyard as Ledger sees it. Public attributes may be changed at any time and count for the next call."""

    def __init__(
        self, *, port: int = 0, monotonic_s: Callable[[], float] = time.monotonic, own_cache_s: float = 0.0
    ) -> None:
        """`own_cache_s=15` keeps a good answer about a credential for 15 s, as Lanyard does; 0 switches that off."""
        self.mode: Mode = "ok"
        self.delay_s = 0.0
        # What the permissions call answers whatever was asked: status, body, headers. For malformed answers.
        self.permissions_answer: tuple[int, bytes, dict[str, str]] | None = None
        self.calls: deque[Call] = deque(maxlen=_MAX_RECORDED)
        self.heartbeats: deque[dict[str, object]] = deque(maxlen=_MAX_RECORDED)
        self.heartbeats_a_minute = _HEARTBEATS_A_MINUTE
        self.calls_at_once = 0
        self.most_calls_at_once = 0
        self.most_user_calls_at_once = 0
        self.monotonic_s = monotonic_s
        self.own_cache_s = own_cache_s
        self._user_calls_at_once = 0
        self._people: dict[str, _Person] = {}
        self._tokens: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._disabled: set[str] = set()
        self._cache: dict[str, tuple[float, dict[str, object]]] = {}
        self._heartbeat_times: deque[float] = deque()
        self._port = port
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.add_service(OWN_SERVICE_ID, OWN_KEY)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def add_person(
        self,
        user_id: str,
        token: str,
        permissions: list[str] | None = None,
        name: str | None = None,
        email: str | None = None,
    ) -> None:
        """A person who is logged in with `token`. Several tokens of one person are several calls."""
        self._people[user_id] = _Person(user_id, name, email, list(permissions or []))
        self._tokens[token] = user_id

    def add_service(self, service_id: str, key: str) -> None:
        self._keys[key] = service_id

    def set_permissions(self, user_id: str, permissions: list[object]) -> None:
        self._people[user_id].permissions = permissions

    def revoke(self, credential: str) -> None:
        """Forgets a token or a service key (the bare text, without its scheme)."""
        self._tokens.pop(credential, None)
        self._keys.pop(credential, None)

    def delete_person(self, user_id: str) -> None:
        del self._people[user_id]
        self._tokens = {token: owner for token, owner in self._tokens.items() if owner != user_id}

    def disable_service(self, service_id: str) -> None:
        self._disabled.add(service_id)

    def calls_to(self, part: str) -> list[Call]:
        """The recorded calls whose path contains `part` (`/permissions`, `/users/`, `/heartbeat`)."""
        return [call for call in self.calls if part in call.path]

    async def start(self) -> None:
        """Listens again on the same port when it was stopped before."""
        self._released = asyncio.Event()
        application = web.Application(middlewares=[self._recorded], client_max_size=4 * 1024 * 1024)
        application.router.add_get("/api/services/{slug}/permissions", self._permissions)
        application.router.add_get("/api/users/{id}", self._user)
        application.router.add_post("/api/services/heartbeat", self._heartbeat)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=1.0,
            # A caller who gives up no longer counts as a call at once.
            handler_cancellation=True,
            # Node, which Lanyard runs on, takes 16 KiB of headers.
            max_field_size=16384,
            max_line_size=16384,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Refuses connections from now on; whoever hangs is let go."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @web.middleware
    async def _recorded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.calls.append(
            Call(
                request.method,
                request.raw_path,
                request.headers.get("Authorization", ""),
                {name.lower(): value for name, value in request.headers.items()},
            )
        )
        asks_user = request.path.startswith("/api/users/")
        self.calls_at_once += 1
        self._user_calls_at_once += asks_user
        self.most_calls_at_once = max(self.most_calls_at_once, self.calls_at_once)
        self.most_user_calls_at_once = max(self.most_user_calls_at_once, self._user_calls_at_once)
        try:
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            failure = await self._failure(request)
            return await handler(request) if failure is None else failure
        finally:
            self.calls_at_once -= 1
            self._user_calls_at_once -= asks_user

    async def _failure(self, request: web.Request) -> web.StreamResponse | None:
        if self.mode == "hang":
            await self._released.wait()
            _reset(request)
        elif self.mode == "reset":
            _reset(request)
        elif self.mode == "500":
            return web.json_response({"error": "Internal Server Error"}, status=500)
        elif self.mode == "429":
            return web.json_response({"error": "Too many requests"}, status=429, headers={"Retry-After": "7"})
        elif self.mode == "garbage":
            return web.Response(text="<html>Welcome</html>", content_type="text/html")
        return None

    async def _permissions(self, request: web.Request) -> web.StreamResponse:
        if self.permissions_answer is not None:
            status, body, headers = self.permissions_answer
            return web.Response(status=status, body=body, headers=headers)
        if self.mode == "404-permissions":
            return web.json_response({"error": "Not found"}, status=404)
        authorization = request.headers.get("Authorization", "")
        kept = self._cache.get(authorization)
        if kept is not None and self.monotonic_s() - kept[0] < self.own_cache_s:
            return web.json_response(kept[1])
        scheme, _, credential = authorization.partition(" ")
        answer: dict[str, object]
        if scheme == "Bearer" and credential in self._tokens:
            person = self._people[self._tokens[credential]]
            roles = [{"orgId": "org1", "name": "Finance", "slug": "finance", "role": "member"}]
            answer = {"userId": person.user_id, "permissions": list(person.permissions), "orgRoles": roles}
        elif scheme == "ServiceKey" and self._keys.get(credential, "") not in {"", *self._disabled}:
            answer = {"userId": f"service:{self._keys[credential]}", "permissions": [], "orgRoles": []}
        else:
            return web.json_response(_UNAUTHORIZED, status=401)
        self._cache[authorization] = (self.monotonic_s(), answer)
        return web.json_response(answer)

    async def _user(self, request: web.Request) -> web.StreamResponse:
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        is_service = scheme == "ServiceKey" and credential in self._keys
        if not is_service and not (scheme == "Bearer" and credential in self._tokens):
            return web.json_response(_UNAUTHORIZED, status=401)
        person = self._people.get(request.match_info["id"])
        if person is None:
            return web.json_response({"error": "User not found"}, status=404)
        shown: dict[str, object] = {"id": person.user_id, "name": person.name, "image": None}
        if is_service:
            shown["email"] = person.email
        return web.json_response(shown)

    async def _heartbeat(self, request: web.Request) -> web.StreamResponse:
        now_s = self.monotonic_s()
        while self._heartbeat_times and now_s - self._heartbeat_times[0] >= 60:
            self._heartbeat_times.popleft()
        if len(self._heartbeat_times) >= self.heartbeats_a_minute:
            return web.json_response({"error": "Too many requests"}, status=429, headers={"Retry-After": "60"})
        self._heartbeat_times.append(now_s)
        scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
        if scheme != "ServiceKey" or credential not in self._keys:
            return web.json_response(_UNAUTHORIZED, status=401)
        if self._keys[credential] in self._disabled:
            return web.json_response({"error": "Service is disabled"}, status=403)
        self.heartbeats.append(msgspec.json.decode(await request.read(), type=dict[str, object]))
        return web.json_response({"status": "ok"})


def _reset(request: web.Request) -> None:
    """Ends the connection with a TCP reset, as a crash does."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _serve(arguments: argparse.Namespace) -> None:
    lanyard = FakeLanyard(port=arguments.port)
    lanyard.heartbeats_a_minute = 1_000_000
    lanyard.delay_s = arguments.delay_s
    for text in arguments.person:
        user_id, token, permissions = [*text.split(":", 2), ""][:3]
        lanyard.add_person(user_id, token, [one for one in permissions.split(",") if one], name=user_id.title())
    for text in arguments.service:
        service_id, key = text.split(":", 1)
        lanyard.add_service(service_id, key)
    async with lanyard:
        print(lanyard.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Runs until interrupted. Prints its URL as the first line."""
    parser = argparse.ArgumentParser(description="A Lanyard for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay-s", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--person", action="append", default=[], metavar="ID:TOKEN[:PERMISSION,…]")
    parser.add_argument("--service", action="append", default=[], metavar="ID:KEY")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
