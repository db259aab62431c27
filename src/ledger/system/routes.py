"""`/api/health`, `/api/ready`, `/api/openapi` and `/metrics`: answered to anybody (metrics: where it is allowed)."""

import asyncio
import hmac
import ipaddress
from datetime import datetime

import msgspec
import structlog
from litestar import Request, Response, route
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CONTENT_TYPE_LATEST

from ledger.database.installation import find_worker_seen_at, get_revision
from ledger.database.revision import HEAD_REVISION
from ledger.database.transaction import Database
from ledger.errors import Unauthorized
from ledger.settings import Secret
from ledger.system.exposition import gauges
from ledger.system.figures import Figures, FiguresReader
from ledger.system.schedules import WorkList
from ledger.web import metrics
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery, Services
from ledger.web.operation import PUBLIC, Reply, reads, request_id_of
from ledger.web.problems import problem_response
from ledger.web.shapes import iso

# Lanyard's health checker waits 5 s; a database that needs longer than this is not serving anybody.
CHECK_TIMEOUT_S = 2.0

log = structlog.get_logger("ledger.system")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether Ledger can serve."""

    ok: bool
    service: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether this process can serve, check by check. A worker is not needed for serving, so it only shows."""

    ready: bool
    checks: dict[str, str]
    worker_last_seen: str | None


class ApiDocument:
    """The OpenAPI document, encoded once."""

    def __init__(self, content: bytes) -> None:
        self.content = content


@reads("/api/health", "Tell whether Ledger serves", callers=PUBLIC, answer=Health, errors=(503,))
async def show_health(call: Call[NoBody, NoQuery]) -> Reply:
    problem = await _database_problem(call.database, is_strict=False)
    ok = problem is None
    return Reply(
        content=msgspec.json.encode(Health(ok=ok, service="ledger")), status=200 if ok else 503, headers=_again(ok)
    )


@reads(
    "/api/ready",
    "Tell whether this process can serve, check by check",
    callers=PUBLIC,
    answer=Readiness,
    errors=(503,),
)
async def show_readiness(call: Call[NoBody, NoQuery]) -> Reply:
    checks = {"database": "ok", "migrations": "ok"}
    worker_seen_at: datetime | None = None
    problem = await _database_problem(call.database, is_strict=True)
    if problem is not None:
        checks |= problem
    if checks["database"] == "ok" and checks["migrations"] == "ok":
        async with asyncio.timeout(CHECK_TIMEOUT_S), call.database.connection() as connection:
            worker_seen_at = await find_worker_seen_at(connection)
    ready = problem is None
    answer = Readiness(
        ready=ready, checks=checks, worker_last_seen=None if worker_seen_at is None else iso(worker_seen_at)
    )
    return Reply(content=msgspec.json.encode(answer), status=200 if ready else 503, headers=_again(ready))


def _again(ok: bool) -> dict[str, str]:
    return {} if ok else {"retry-after": "5"}


async def _database_problem(database: Database, *, is_strict: bool) -> dict[str, str] | None:
    """What keeps the database from serving, by check, or None. `is_strict` also asks whether it is migrated."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S), database.connection() as connection:
            if not is_strict:
                await connection.fetchval("select 1")
                return None
            revision = await get_revision(connection)
    except Exception as error:
        return {"database": f"does not answer ({type(error).__name__})", "migrations": "unknown"}
    if revision is None:
        return {"migrations": "missing; run `ledger migrate`"}
    # A newer schema is fine: during an upgrade the database is migrated before the last old process ends.
    if revision < HEAD_REVISION:
        return {"migrations": f"the schema is at {revision}, {HEAD_REVISION} is needed; run `ledger migrate`"}
    return None


@reads(
    "/api/openapi",
    "This document",
    callers=PUBLIC,
    answer=dict,
    description="OpenAPI 3.0.3, every schema inline.",
)
async def show_openapi(call: Call[NoBody, NoQuery]) -> Reply:
    return Reply(content=call.services.get(ApiDocument).content, headers={"access-control-allow-origin": "*"})


@route("/metrics", http_method=["GET", "HEAD"], status_code=200, opt={"operation": None})
async def show_metrics(request: Request[object, object, State]) -> Response[bytes]:
    """Prometheus metrics, for loopback or for who holds the metrics token."""
    services: Services = request.app.state.services
    request_id = request_id_of(request, services)
    if not _may_see_metrics(request, services.settings.metrics_token):
        return problem_response(Unauthorized(), request_id=request_id)
    return Response(
        await _exposition(services),
        # Litestar adds the character set to every text.
        media_type=CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8"),
        headers={"cache-control": "no-store", "x-content-type-options": "nosniff", "x-request-id": request_id},
    )


async def _exposition(services: Services) -> bytes:
    """What this process and the workers counted, and how the installation stands: one scrape sees everything."""
    figures: Figures | None
    try:
        figures = await services.get(FiguresReader).get()
    except Exception as error:
        # What is measured while the database is away matters most.
        log.warning("figures not read", reason=type(error).__name__)
        figures = None
    return metrics.exposition(
        figures=gauges(figures, schedules=services.get(WorkList).schedules, now=services.clock.now()),
        by_worker={} if figures is None else {worker.worker_id: worker.counted for worker in figures.workers},
    )


def _may_see_metrics(request: Request[object, object, State], token: Secret[str] | None) -> bool:
    if token is not None:
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {token.reveal()}".encode())
    if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        # A proxy on this machine comes from loopback, too, and speaks for anybody.
        return False
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


operations: list[HTTPRouteHandler] = [show_health, show_readiness, show_openapi]
