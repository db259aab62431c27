"""What an operation is handed: the proven caller, the read body and query, and the services of this process."""

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from ledger.clock import Clock
from ledger.crypto import Vault
from ledger.database.transaction import Database
from ledger.errors import NotFound
from ledger.identity import Caller, Identity, Names, Person, Service
from ledger.ids import Ids, is_id
from ledger.settings import Settings
from ledger.web.idempotency import Claim
from ledger.web.limits import RateLimiter

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")
PartT = TypeVar("PartT")


class NoQuery(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that takes no query parameters."""


class Services:
    """What one process has once: built in `ledger.app`, read by every operation.

    Features keep singletons of their own here by type (the invoice writer, for one), so that this class
    does not have to know them.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        clock: Clock,
        ids: Ids,
        identity: Identity,
        names: Names,
        vault: Vault,
        caller_limit: RateLimiter,
        service_limit: RateLimiter,
        failure_limit: RateLimiter,
    ) -> None:
        self.settings = settings
        self.database = database
        self.clock = clock
        self.ids = ids
        self.identity = identity
        self.names = names
        self.vault = vault
        self.caller_limit = caller_limit
        self.service_limit = service_limit
        self.failure_limit = failure_limit
        self._parts: dict[type, object] = {}

    def put(self, part: object) -> None:
        """Keeps a feature's singleton under its type."""
        self._parts[type(part)] = part

    def get(self, kind: type[PartT]) -> PartT:
        """Returns the singleton of that type."""
        part = self._parts[kind]
        assert isinstance(part, kind)
        return part


class Call(Generic[BodyT, QueryT]):
    """One request, proven and read."""

    __slots__ = (
        "_caller",
        "address",
        "body",
        "claim",
        "headers",
        "path",
        "query",
        "raw_body",
        "request_id",
        "services",
    )

    def __init__(
        self,
        *,
        services: Services,
        caller: Caller | None,
        body: BodyT,
        query: QueryT,
        path: Mapping[str, str],
        claim: Claim | None,
        request_id: str,
        raw_body: bytes,
        headers: Mapping[str, str],
        address: str,
    ) -> None:
        self.services = services
        self.body = body
        self.query = query
        self.path = path
        self.claim = claim
        self.request_id = request_id
        # As they came, for what is proven by a signature over them. Header names are in lower case.
        self.raw_body = raw_body
        self.headers = headers
        # Who is connected: behind a proxy that is the proxy.
        self.address = address
        self._caller = caller

    @property
    def caller(self) -> Caller:
        """Who calls; public operations have none and do not ask."""
        assert self._caller is not None, "a public operation has no caller"
        return self._caller

    @property
    def person(self) -> Person:
        """The person who calls, in operations that only people may call."""
        assert isinstance(self.caller, Person)
        return self.caller

    @property
    def service_id(self) -> str | None:
        """The calling service's id, or None when a person calls."""
        return self.caller.service_id if isinstance(self.caller, Service) else None

    @property
    def database(self) -> Database:
        """Shorthand for the process's database."""
        return self.services.database

    def id_of(self, thing: str) -> str:
        """The id in the path. Raises `NotFound` for anything that is no id of ours, before a query sees it."""
        row_id = self.path["id"]
        if not is_id(row_id):
            raise NotFound(thing)
        return row_id
