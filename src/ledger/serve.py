"""One API process: the ASGI application under Granian, on the listening socket that the supervisor opened.

Told to stop, Granian answers the requests that run, but it closes every idle keep-alive connection at once, and with
it the requests just on their way (measured: every second busy connection loses one). So a stop has two parts.
First everything is still answered, each answer with `Connection: close`, until no request has come for a while; then
Granian stops. `docs/decisions/0004-processes.md` has the figures.
"""

import asyncio
import resource
import socket
import time
from collections.abc import Awaitable

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ledger.listener import BACKLOG

log = structlog.get_logger("ledger.serve")

# A client gets this long for the head of a request, and an idle connection lives as long.
_HEAD_TIMEOUT_MS = 30_000
# Line and headers of a request, roughly (it reads in larger and larger pieces); what is longer is answered with 431.
_HEAD_MAX_BYTES = 64 * 1024
# Connections of one process, idle ones included; further ones wait to be accepted.
_CONNECTIONS_MAX = 4096
_FILES_MAX = 65_536

# While stopping: how long no request must have come, and how long that is waited for.
_QUIET_S = 0.1
_DRAIN_AT_LEAST_S = 0.25
_DRAIN_AT_MOST_S = 1.0
_DRAIN_POLL_S = 0.02


class DrainingApp:
    """Passes requests on, and once it drains, has the client close each connection after its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._draining = False
        self._last_request_s = 0.0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not a coroutine itself: that would cost every request a frame for the sake of the last ones.
        if self._draining and scope["type"] == ScopeType.HTTP:
            self._last_request_s = time.monotonic()
            return self._app(scope, receive, _closing(send))
        return self._app(scope, receive, send)

    async def drain(self) -> None:
        """Returns when connections that had a request on its way have been told to close: after 0.25 to 1 s."""
        begun_s = self._last_request_s = time.monotonic()
        self._draining = True
        while True:
            await asyncio.sleep(_DRAIN_POLL_S)
            now_s = time.monotonic()
            quiet = now_s - begun_s >= _DRAIN_AT_LEAST_S and now_s - self._last_request_s >= _QUIET_S
            if quiet or now_s - begun_s >= _DRAIN_AT_MOST_S:
                return


def _closing(send: Send) -> Send:
    async def send_closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await send(message)

    return send_closing


class _Server(Server):
    """Granian in this process and event loop, on a socket that is there already."""

    def __init__(self, app: DrainingApp, listener: socket.socket) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=_CONNECTIONS_MAX,
            http1_settings=HTTP1Settings(header_read_timeout=_HEAD_TIMEOUT_MS, max_buffer_size=_HEAD_MAX_BYTES),
            # Without handlers of its own, so that its lines go through ours.
            log_level=LogLevels.error,
            log_dictconfig={"handlers": {}, "formatters": {}, "loggers": {}},
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # The types that Granian ships know neither of these; `tests/process` does. It closes what it is given.
        self._ssp = None
        self._shd = SocketHolder(self._listener.detach(), False, BACKLOG)  # type: ignore[call-arg, assignment]


async def serve_app(app: ASGIApp, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then until every accepted request is answered and the application has shut down.

    Raises what the application raises when it cannot start. The listener must not be used afterwards.
    """
    _allow_many_files()
    draining = DrainingApp(app)
    server = _Server(draining, listener)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        await draining.drain()
        server.stop()  # type: ignore[no-untyped-call]
    await serving


def _allow_many_files() -> None:
    """Raises the soft limit of open files, which is often too low for the connections we accept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
