"""A whole Ledger for a test: real PostgreSQL, the application behind real HTTP, a fake Lanyard, a clock by hand."""

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import msgspec
from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar
from yarl import URL

from ledger.app import create_app
from ledger.clock import ManualClock
from ledger.settings import Settings, load_settings
from ledger.web.call import Services
from tests.fakes.lanyard import OWN_KEY, FakeLanyard

# A Sunday morning well inside a year, so that nothing turns over by accident.
START = datetime(2026, 3, 15, 9, 30, tzinfo=UTC)
KEY = "5b" * 32

STAFF, USER, OTHER = "staff-ada-000000000001", "user-ben-0000000000001", "user-cleo-000000000001"
SHOP, CAMP = "svc-shop-0000000000001", "svc-camp-0000000000001"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What Ledger answered. `body` is the parsed JSON, whatever shape it has; headers are found in any case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return msgspec.json.decode(self.content)

    @property
    def error(self) -> str:
        """The sentence for people."""
        sentence: str = self.body["error"]
        return sentence

    def fields(self) -> dict[str, object]:
        """A detail's values by key."""
        return {field["key"]: field["value"] for field in self.body["fields"]}

    def refused(self) -> dict[str, str]:
        """The refused fields of a body and why."""
        return {each["field"]: each["message"] for each in self.body.get("errors", [])}


class Client:
    """Somebody who calls Ledger, with their credential."""

    def __init__(self, session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> None:
        self._session = session
        self._url = url
        self.headers = dict(headers)

    async def send(
        self, method: str, path: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        async with self._session.request(
            method,
            # The path travels as a test writes it: nobody shall resolve its dots or its percent signs.
            URL(f"{self._url}{path}", encoded=True),
            data=data if data is None else io.BytesIO(data),
            headers={**self.headers, **(headers or {})},
            allow_redirects=False,
        ) as response:
            return Answer(status=response.status, headers=response.headers.copy(), content=await response.read())

    async def get(self, path: str) -> Answer:
        return await self.send("GET", path)

    async def post(self, path: str, body: object = None, *, key: str | None = None) -> Answer:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.send("POST", path, data=None if body is None else msgspec.json.encode(body), headers=headers)

    async def put(self, path: str, body: object) -> Answer:
        return await self.send("PUT", path, data=msgspec.json.encode(body))

    async def delete(self, path: str) -> Answer:
        return await self.send("DELETE", path)


class Installation:
    """A running Ledger and everybody who calls it."""

    def __init__(
        self,
        *,
        url: str,
        app: Litestar,
        settings: Settings,
        clock: ManualClock,
        lanyard: FakeLanyard,
        session: aiohttp.ClientSession,
    ) -> None:
        self.url = url
        self.app = app
        self.settings = settings
        self.clock = clock
        self.lanyard = lanyard
        self.session = session
        self.staff = self.client({"Authorization": "Bearer token-staff"})
        self.user = self.client({"Authorization": "Bearer token-user"})
        self.other = self.client({"Authorization": "Bearer token-other"})
        self.shop = self.client({"Authorization": "ServiceKey sk_svc_shop"})
        self.camp = self.client({"Authorization": "ServiceKey sk_svc_camp"})
        self.nobody = self.client({})

    @property
    def database_url(self) -> str:
        return self.settings.require_database_url()

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def client(self, headers: Mapping[str, str]) -> Client:
        return Client(self.session, self.url, headers)

    async def sql(self, query: str, *values: object) -> list[asyncpg.Record]:
        """Asks the database directly, for what no operation shows."""
        connection = await asyncpg.connect(self.database_url)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *values)
            return rows
        finally:
            await connection.close()

    async def value(self, query: str, *values: object) -> Any:
        """The first column of the first row."""
        return (await self.sql(query, *values))[0][0]

    async def create_invoice(self, **changes: object) -> Answer:
        """An invoice for `USER`, made by the shop, with what a test wants different."""
        body: dict[str, object] = {"userId": USER, "items": [{"description": "Membership", "unitPrice": 5000}]}
        answer = await self.shop.post("/api/invoices", body | changes)
        assert answer.status == 201, answer.content
        return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_settings(database_url: str, data_dir: Path, lanyard_url: str, **changes: str) -> Settings:
    """Settings as an administrator would give them, with what a test wants different."""
    environ = {
        "DATABASE_URL": database_url,
        "LANYARD_URL": lanyard_url,
        "LANYARD_SERVICE_KEY": OWN_KEY,
        "ENCRYPTION_KEY": KEY,
        "DASHBOARD_URL": "https://dashboard.example.org",
        "LEDGER_DATA_DIR": str(data_dir),
        "LEDGER_RATE_LIMIT": "0",
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
    }
    return load_settings(environ | changes)


def add_everybody(lanyard: FakeLanyard) -> None:
    """The people and services of the tests."""
    lanyard.add_person(STAFF, "token-staff", ["ledger:manage"], "Ada Admin", "ada@example.org")
    lanyard.add_person(USER, "token-user", [], "Ben Buyer", "ben@example.org")
    lanyard.add_person(OTHER, "token-other", [], "Cleo Other", "cleo@example.org")
    lanyard.add_service(SHOP, "sk_svc_shop")
    lanyard.add_service(CAMP, "sk_svc_camp")


@contextlib.asynccontextmanager
async def serving(app: Litestar, *, port: int) -> AsyncIterator[str]:
    """Serves the application as production does, on this event loop. Yields its URL."""
    server = Server(
        app,
        address="127.0.0.1",
        port=port,
        interface=Interfaces.ASGI,
        log_enabled=False,
        websockets=False,
        # Without these, the 129th connection waits until another one closes.
        backlog=1024,
        backpressure=4096,
    )
    running = asyncio.create_task(server.serve())
    try:
        url = f"http://127.0.0.1:{port}"
        await _wait_until_served(url, running)
        yield url
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait_for(running, timeout=10)


async def _wait_until_served(url: str, running: asyncio.Task[None]) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            assert not running.done(), "the server ended while starting"
            with contextlib.suppress(aiohttp.ClientConnectionError):
                async with session.get(f"{url}/api/health"):
                    return
            await asyncio.sleep(0.02)
    raise AssertionError("the server did not start")


@contextlib.asynccontextmanager
async def installed(
    *, database_url: str, data_dir: Path, lanyard: FakeLanyard, **settings: str
) -> AsyncIterator[Installation]:
    """Starts Ledger on a migrated database. Keyword arguments are environment variables."""
    read = test_settings(database_url, data_dir, lanyard.url, **settings)
    clock = ManualClock(START)
    app = create_app(read, clock=clock)
    async with (
        serving(app, port=read.port) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield Installation(url=url, app=app, settings=read, clock=clock, lanyard=lanyard, session=session)
