"""The composition root: settings → pool, clock, identity, names, writer → the HTTP application."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.handlers import HTTPRouteHandler

from ledger.audit import routes as audit
from ledger.billing_settings import routes as billing_settings
from ledger.billing_settings.store import SettingsReader
from ledger.clock import Clock, SystemClock
from ledger.crypto import Vault
from ledger.database.transaction import Database
from ledger.deliveries import routes as deliveries
from ledger.heartbeat import Heartbeat
from ledger.identity import Identity, Names
from ledger.ids import Ids, TimeOrderedIds
from ledger.inbound import routes as inbound
from ledger.inbound import staff_routes as inbound_events
from ledger.inbound.limits import FORGED_EVENTS_PER_MINUTE, ForgeryLimit
from ledger.invoices import epc_routes, overview
from ledger.invoices import my_routes as my_invoices
from ledger.invoices import routes as invoices
from ledger.invoices.writer import InvoiceWriter
from ledger.jobs import JOBS, SCHEDULES
from ledger.lanyard import LanyardClient
from ledger.lanyard_identity import CachedIdentity
from ledger.mail import routes as mail
from ledger.mail.addressees import Addressees
from ledger.mail.rendering import Templates
from ledger.mail.sending import MailSender
from ledger.manifest import build_manifest
from ledger.names import LanyardNames, StandaloneNames
from ledger.payments import routes as payments
from ledger.products import routes as products
from ledger.providers import routes as providers
from ledger.providers.connections import Connections
from ledger.providers.contract import Capability
from ledger.providers.manual import ManualType
from ledger.providers.registry import ProviderRegistry
from ledger.providers.store import list_connections
from ledger.providers.stripe import StripeType
from ledger.refunds import routes as refunds
from ledger.retention import routes as retention
from ledger.retention.jobs import Stopping
from ledger.service_access import routes as service_access
from ledger.settings import Settings
from ledger.standalone import DISPLAY_NAMES, StandaloneIdentity, load_or_create_credentials
from ledger.subscriptions import my_routes as my_subscriptions
from ledger.subscriptions import routes as subscriptions
from ledger.system import job_routes as system_jobs
from ledger.system import routes as system
from ledger.system.figures import FiguresReader
from ledger.system.schedules import WorkList
from ledger.web.call import Services
from ledger.web.limits import RateLimiter
from ledger.web.openapi import openapi_document
from ledger.web.operation import Operation
from ledger.web.options import options_handlers
from ledger.web.problems import BODY_MAX_BYTES, outside_operations
from ledger.webhooks import routes as webhooks
from ledger.webhooks.name_lookup import NameLookup

APP_VERSION = version("ledger")
FEATURES = (
    invoices,
    my_invoices,
    epc_routes,
    refunds,
    overview,
    payments,
    products,
    providers,
    subscriptions,
    my_subscriptions,
    webhooks,
    deliveries,
    inbound,
    inbound_events,
    audit,
    billing_settings,
    mail,
    retention,
    service_access,
    system_jobs,
    system,
)
# What counts as long as a connection that can do it is stored, whatever is active now: what was paid through it can be
# refunded there, and who subscribed there still is.
_OUTLASTING = (Capability.REFUNDS, Capability.SUBSCRIPTIONS)
# Failed proofs a minute from one address, before further unknown credentials from there have to wait.
FAILED_PROOFS_PER_MINUTE = 120


def all_handlers() -> list[HTTPRouteHandler]:
    """Every operation's handler, in the order of the API document."""
    return [handler for feature in FEATURES for handler in feature.operations]


def all_operations() -> list[Operation]:
    """Every operation's declaration."""
    return [handler.opt["operation"] for handler in all_handlers()]


def api_document() -> dict[str, object]:
    """The OpenAPI document of everything that is served."""
    return openapi_document(all_operations(), version=APP_VERSION)


@cache
def encoded_api_document() -> bytes:
    """The same as it is served. It takes a tenth of a second to write, and does not change while a process lives."""
    return msgspec.json.encode(api_document())


def provider_registry(settings: Settings) -> ProviderRegistry:
    """The kinds of providers there are."""
    return ProviderRegistry([StripeType(api_base=settings.stripe_api_base), ManualType()])


async def current_manifest(database: Database, registry: ProviderRegistry) -> Mapping[str, object]:
    """The manifest for what the active provider can do just now, and for what people have with the others."""
    async with database.connection() as connection:
        stored = await list_connections(connection)
    active = next((each for each in stored if each.is_active), None)
    kind = None if active is None else registry.find(active.type)
    capabilities = set() if kind is None else set(kind.capabilities)
    kinds = [registry.find(each.type) for each in stored]
    for capability in _OUTLASTING:
        if any(kind is not None and capability in kind.capabilities for kind in kinds):
            capabilities.add(capability)
    return build_manifest(app_version=APP_VERSION, capabilities=capabilities)


def build_services(
    settings: Settings,
    *,
    lanyard: LanyardClient | None,
    clock: Clock | None = None,
    ids: Ids | None = None,
    pool_size: int | None = None,
) -> Services:
    """Builds what one process has once. Nothing connects yet. Call it in the event loop that will use it."""
    clock = clock or SystemClock()
    ids = ids or TimeOrderedIds()
    database = Database(
        settings.require_database_url(), pool_size=pool_size or settings.database_pool, clock=clock, ids=ids
    )
    identity, names = build_identity(settings, lanyard)
    share = settings.api_processes
    services = Services(
        settings=settings,
        database=database,
        clock=clock,
        ids=ids,
        identity=identity,
        names=names,
        vault=Vault(
            settings.encryption_key.reveal(),
            settings.encryption_key_previous.reveal() if settings.encryption_key_previous else None,
        ),
        caller_limit=RateLimiter(per_minute=-(-settings.rate_limit // share), monotonic=time.monotonic),
        service_limit=RateLimiter(
            per_minute=-(-settings.service_rate_limit // share) if settings.rate_limit else 0, monotonic=time.monotonic
        ),
        failure_limit=RateLimiter(
            per_minute=-(-FAILED_PROOFS_PER_MINUTE // share) if settings.rate_limit else 0, monotonic=time.monotonic
        ),
    )
    services.put(SettingsReader(database, time.monotonic))
    services.put(Connections(registry=provider_registry(settings), vault=services.vault))
    services.put(
        ForgeryLimit(
            per_minute=-(-FORGED_EVENTS_PER_MINUTE // share) if settings.rate_limit else 0, monotonic=time.monotonic
        )
    )
    services.put(NameLookup())
    services.put(Stopping())
    services.put(
        MailSender(
            database=database,
            connections=services.get(Connections),
            settings=settings,
            vault=services.vault,
            addressees=Addressees(lanyard),
            templates=Templates(settings.mail_templates),
        )
    )
    services.put(InvoiceWriter(database, zone=settings.timezone))
    services.put(invoices.InvoiceStates(database))
    services.put(system.ApiDocument(encoded_api_document()))
    work = WorkList(schedules=SCHEDULES, jobs=tuple(JOBS))
    services.put(work)
    services.put(FiguresReader(database, work=work, clock=clock, monotonic=time.monotonic))
    return services


async def close_services(services: Services, lanyard: LanyardClient | None) -> None:
    """Gives back what `build_services` holds, who asks before who answers."""
    await services.get(Connections).close()
    await services.identity.close()
    await services.names.close()
    await services.database.close()
    if lanyard is not None:
        await lanyard.close()


def build_identity(settings: Settings, lanyard: LanyardClient | None) -> tuple[Identity, Names]:
    """Who proves callers and knows their names: Lanyard, or the credentials made for trying Ledger alone."""
    if lanyard is None:
        credentials = load_or_create_credentials(settings.data_dir)
        return StandaloneIdentity(credentials), StandaloneNames(dict(DISPLAY_NAMES))
    return CachedIdentity(lanyard), LanyardNames(lanyard)


def build_lanyard(settings: Settings) -> LanyardClient | None:
    """A client for the configured Lanyard; standalone there is none."""
    if settings.identity == "standalone":
        return None
    assert settings.lanyard_url is not None
    assert settings.lanyard_service_key is not None
    return LanyardClient(
        base_url=settings.lanyard_url, slug=settings.slug, service_key=settings.lanyard_service_key.reveal()
    )


@asynccontextmanager
async def heartbeating(
    lanyard: LanyardClient | None, database: Database, registry: ProviderRegistry
) -> AsyncIterator[None]:
    """Keeps the heartbeat loop running around the block; standalone, there is nobody to tell."""
    if lanyard is None:
        yield
        return
    heartbeat = Heartbeat(
        database=database,
        lanyard=lanyard,
        clock=database.clock,
        app_version=APP_VERSION,
        build_manifest=lambda: current_manifest(database, registry),
    )
    task = asyncio.create_task(heartbeat.run(), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def create_app(settings: Settings, *, clock: Clock | None = None, ids: Ids | None = None) -> Litestar:
    """The HTTP application. It opens its pool when it starts and answers what runs before it ends."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        lanyard = build_lanyard(settings)
        services = build_services(settings, lanyard=lanyard, clock=clock, ids=ids)
        app.state.services = services
        await services.database.open()
        async with heartbeating(lanyard, services.database, services.get(Connections).registry):
            yield
        await services.get(InvoiceWriter).close()
        await close_services(services, lanyard)

    new_ids = ids or TimeOrderedIds()
    handlers = [*all_handlers(), system.show_metrics]
    return Litestar(
        route_handlers=[*options_handlers(handlers), *handlers],
        lifespan=[lifespan],
        openapi_config=None,
        exception_handlers={Exception: outside_operations(new_ids.new)},
        request_max_body_size=BODY_MAX_BYTES,
        state=State(),
        logging_config=None,
        debug=False,
    )
