"""The calls Ledger makes to Lanyard, the identity provider: verify a caller, look up a person, send the heartbeat.

Whatever Lanyard answers is checked before it counts. Anything but its documented answers proves nothing about a
caller and is reported as `LanyardSilent`: only Lanyard's own refusal makes a caller unauthorized.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Literal, TypeVar

import aiohttp
import msgspec
import structlog

from ledger.errors import BadRequest, Unauthorized, Unavailable
from ledger.identity import Caller, Credential, Person, Service, read_credential

_log = structlog.get_logger("ledger.lanyard")

_LANYARD_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SLUG = re.compile(r"[a-z0-9-]{1,64}")
_SERVICE_PREFIX = "service:"
_MAX_VERSION_CHARACTERS = 20
RETRY_AFTER_S = 5
_MAX_RETRY_AFTER_S = 60

_Body = TypeVar("_Body", bound=msgspec.Struct)


def is_lanyard_id(text: str) -> bool:
    """Tells whether `text` may be an id of Lanyard's. Only such text may become part of a URL."""
    return _LANYARD_ID.fullmatch(text) is not None


class LanyardSilent(Unavailable):
    """Lanyard cannot say: it did not answer, or not as documented. `reason` is for logs and operators."""

    def __init__(self, reason: str, *, retry_after_s: int = RETRY_AFTER_S) -> None:
        super().__init__(
            "Lanyard, which knows who is calling, cannot be asked right now. Try again in a few seconds.",
            retry_after_s=retry_after_s,
        )
        self.reason = reason


class LanyardLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long Ledger waits for Lanyard and how much of an answer it reads."""

    # Less than the 5 s a caller waits, so that this limit ends a silent call and the log says why.
    verify_timeout_s: float = 4.5
    user_timeout_s: float = 4.0
    heartbeat_timeout_s: float = 8.0
    # A person in many departments has a long answer; the others are a few hundred bytes.
    permissions_bytes: int = 1024 * 1024
    answer_bytes: int = 64 * 1024
    # 32 verifications, 8 look-ups of names and the heartbeat never queue for a connection.
    connections: int = 48


class LanyardUser(msgspec.Struct, frozen=True, kw_only=True):
    """A person as Lanyard describes them to a service. Ledger keeps neither name nor e-mail address."""

    user_id: str
    name: str | None
    email: str | None


class HeartbeatOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a heartbeat. `reason` is empty when it was accepted, else a phrase for operators."""

    kind: Literal["accepted", "refused", "unreachable"]
    reason: str = ""
    retry_after_s: int | None = None


class LanyardCounts(msgspec.Struct):
    """Counters since the start, for the metrics."""

    verify_calls: int = 0
    user_calls: int = 0
    heartbeat_calls: int = 0
    silent: int = 0


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes
    retry_after_s: int


class _PermissionsBody(msgspec.Struct, frozen=True):
    userId: str  # noqa: N815 - the wire's name
    permissions: list[object]


class _UserBody(msgspec.Struct, frozen=True):
    id: str
    name: str | None = None
    email: str | None = None


class _StatusBody(msgspec.Struct, frozen=True):
    status: str


class LanyardClient:
    """Asks Lanyard, over one shared HTTP session that is opened with the first call.

    No redirect is followed, no cookie is kept, and a caller's credential travels in its own request only.
    """

    def __init__(self, *, base_url: str, slug: str, service_key: str, limits: LanyardLimits | None = None) -> None:
        """`base_url` is Lanyard's address without a path; `service_key` is Ledger's own (`sk_svc_…`)."""
        if _SLUG.fullmatch(slug) is None:
            raise ValueError("A service's slug consists of lower case letters, digits and hyphens.")
        self.counts = LanyardCounts()
        self._base_url = base_url.rstrip("/")
        self._permissions_path = f"/api/services/{slug}/permissions"
        self._own_authorization = f"ServiceKey {service_key}"
        self._limits = limits or LanyardLimits()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._last_fault: dict[str, str] = {}
        # When the calls under way began, the oldest first, and when anything was last heard: the event loop's time.
        self._under_way: dict[object, float] = {}
        self._heard_at_s = 0.0

    def silent_for_s(self) -> float:
        """How long calls have been waiting without a word from Lanyard; 0 when no call is under way."""
        if not self._under_way:
            return 0.0
        waiting_since_s = max(next(iter(self._under_way.values())), self._heard_at_s)
        return asyncio.get_running_loop().time() - waiting_since_s

    async def verify(self, authorization: str) -> Caller:
        """Asks Lanyard who holds this credential, with that very credential.

        Raises `Unauthorized` when the header is malformed (nothing is sent) or when Lanyard refuses it, and
        `LanyardSilent` when Lanyard cannot say. A 403 is not among the documented answers and says nothing.
        """
        credential = read_credential(authorization)
        self.counts.verify_calls += 1
        answer = await self._ask(
            "verify",
            "GET",
            self._permissions_path,
            authorization=credential.header,
            timeout_s=self._limits.verify_timeout_s,
            max_bytes=self._limits.permissions_bytes,
        )
        if answer.status == 401:
            self._answered("verify")
            raise Unauthorized
        if answer.status == 404 and credential.scheme == "ServiceKey":
            return await self._verify_by_heartbeat(credential)
        if answer.status == 404:
            raise self._silent("verify", "this Lanyard is too old to verify people (404)")
        body = self._read("verify", answer, _PermissionsBody)
        caller = _caller_of(credential, body)
        if caller is None:
            raise self._silent("verify", "answered with an id that does not fit the credential")
        self._answered("verify")
        return caller

    async def user(self, user_id: str) -> LanyardUser | None:
        """Returns the person, or None when Lanyard knows nobody by this id (404: never existed, or deleted).

        Raises `BadRequest` for text that cannot be an id, before any call leaves, and `LanyardSilent`.
        """
        if not is_lanyard_id(user_id):
            raise BadRequest("A user id consists of at most 64 letters, digits, hyphens and underscores.")
        self.counts.user_calls += 1
        answer = await self._ask(
            "user",
            "GET",
            f"/api/users/{user_id}",
            authorization=self._own_authorization,
            timeout_s=self._limits.user_timeout_s,
            max_bytes=self._limits.answer_bytes,
        )
        if answer.status == 404:
            self._answered("user")
            return None
        body = self._read("user", answer, _UserBody)
        if body.id != user_id:
            raise self._silent("user", "answered about somebody else")
        self._answered("user")
        return LanyardUser(user_id=user_id, name=body.name, email=body.email)

    async def heartbeat(self, *, app_version: str, manifest: Mapping[str, object]) -> HeartbeatOutcome:
        """Reports Ledger as healthy with its manifest (validated before: Lanyard drops a faulty one silently).

        Never raises for what Lanyard does: refusals and silence are outcomes. `app_version` has ≤ 20 characters.
        """
        if not 1 <= len(app_version) <= _MAX_VERSION_CHARACTERS:
            raise ValueError("Lanyard takes a version of 1 to 20 characters.")
        self.counts.heartbeat_calls += 1
        body = {"status": "healthy", "version": app_version, "uiManifest": manifest}
        try:
            answer = await self._post_heartbeat("heartbeat", self._own_authorization, body)
            if answer.status in (401, 403):
                self._answered("heartbeat")
                return HeartbeatOutcome(kind="refused", reason=_REFUSALS[answer.status])
            self._read("heartbeat", answer, _StatusBody)
        except LanyardSilent as silence:
            return HeartbeatOutcome(kind="unreachable", reason=silence.reason, retry_after_s=silence.retry_after_s)
        self._answered("heartbeat")
        return HeartbeatOutcome(kind="accepted")

    async def close(self) -> None:
        """Closes the connections; calls after this are answered with `LanyardSilent`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def _verify_by_heartbeat(self, credential: Credential) -> Service:
        """Proves a ServiceKey to an older Lanyard, which answers 404 to the permissions call.

        Its heartbeat says whether a key is good, but not whose it is. So the service is named after its key, by a
        hash that stays the same over restarts: what it created stays its own as long as it keeps the key.
        The 403 is documented here ("service disabled") and a refusal like the 401.
        """
        answer = await self._post_heartbeat("verify", credential.header, {"status": "healthy"})
        if answer.status in (401, 403):
            self._answered("verify")
            raise Unauthorized
        body = self._read("verify", answer, _StatusBody)
        if body.status != "ok":
            raise self._silent("verify", "answered the heartbeat with something unknown")
        self._answered("verify")
        return Service(service_id_of_key(credential.token))

    async def _post_heartbeat(self, operation: str, authorization: str, body: Mapping[str, object]) -> _Answer:
        verifying = operation == "verify"
        return await self._ask(
            operation,
            "POST",
            "/api/services/heartbeat",
            authorization=authorization,
            timeout_s=self._limits.verify_timeout_s if verifying else self._limits.heartbeat_timeout_s,
            max_bytes=self._limits.answer_bytes,
            body=msgspec.json.encode(body),
        )

    async def _ask(
        self,
        operation: str,
        method: Literal["GET", "POST"],
        path: str,
        *,
        authorization: str,
        timeout_s: float,
        max_bytes: int,
        body: bytes | None = None,
    ) -> _Answer:
        """One call: its status and its whole body, or `LanyardSilent`. The timeout covers the body as well."""
        headers = {"Authorization": authorization}
        if body is not None:
            headers["Content-Type"] = "application/json"
        loop, call = asyncio.get_running_loop(), object()
        self._under_way[call] = loop.time()
        try:
            async with self._opened_session().request(
                method,
                self._base_url + path,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                self._heard_at_s = loop.time()
                content = await _read_at_most(response.content, max_bytes)
                if content is None:
                    raise self._silent(operation, f"answered with more than {max_bytes} bytes")
                return _Answer(
                    status=response.status,
                    body=content,
                    retry_after_s=_retry_after_s(response.headers.get("Retry-After", "")),
                )
        except TimeoutError:
            raise self._silent(operation, f"did not answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The class is enough: the text of some of these errors holds the URL, and with it a person's id.
            raise self._silent(operation, f"could not be reached ({type(error).__name__})") from None
        finally:
            del self._under_way[call]

    def _opened_session(self) -> aiohttp.ClientSession:
        """The shared session. It is opened here because it belongs to the event loop that is running then."""
        if self._closed:
            raise LanyardSilent("Ledger is stopping")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._limits.connections, ttl_dns_cache=30),
                # A session cookie set for one caller must never travel with another caller's request.
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": f"ledger/{version('ledger')}",
                },
            )
        return self._session

    def _read(self, operation: str, answer: _Answer, shape: type[_Body]) -> _Body:
        """The body of a 200 in the documented shape (further fields are allowed), or `LanyardSilent`."""
        if answer.status != 200:
            raise self._silent(operation, f"answered {answer.status}", retry_after_s=answer.retry_after_s)
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (ValueError, RecursionError):
            raise self._silent(operation, "answered with something that is not documented") from None

    def _silent(self, operation: str, reason: str, *, retry_after_s: int = RETRY_AFTER_S) -> LanyardSilent:
        """Counts a fault, and logs it unless the same was logged since the last good answer."""
        self.counts.silent += 1
        if self._last_fault.get(operation) != reason:
            self._last_fault[operation] = reason
            _log.warning("lanyard_cannot_say", operation=operation, reason=reason)
        return LanyardSilent(reason, retry_after_s=retry_after_s)

    def _answered(self, operation: str) -> None:
        if self._last_fault.pop(operation, None) is not None:
            _log.info("lanyard_answers_again", operation=operation)


_REFUSALS = {
    401: "Lanyard does not know this service key: check LANYARD_SERVICE_KEY.",
    403: "The service is disabled in Lanyard: an administrator can enable it there.",
}


def service_id_of_key(service_key: str) -> str:
    """The id of a service whose Lanyard does not tell its own: `key-` and 64 bits of a hash of its random key."""
    return "key-" + hashlib.sha256(b"ledger service id of " + service_key.encode("ascii")).hexdigest()[:16]


def _caller_of(credential: Credential, body: _PermissionsBody) -> Caller | None:
    """The proven caller, if the kinds of credential and id agree. What else the answer holds grants nothing."""
    if credential.scheme == "ServiceKey":
        service_id = body.userId.removeprefix(_SERVICE_PREFIX)
        is_service = body.userId.startswith(_SERVICE_PREFIX) and is_lanyard_id(service_id)
        return Service(service_id) if is_service else None
    if not is_lanyard_id(body.userId):
        return None
    return Person(body.userId, frozenset(text for text in body.permissions if isinstance(text, str)))


def _retry_after_s(header: str) -> int:
    """The seconds of a `Retry-After` header, between 1 and 60; its date form and nonsense count as absent."""
    if not (header.isascii() and header.isdigit() and len(header) <= 9):
        return RETRY_AFTER_S
    return min(max(int(header), 1), _MAX_RETRY_AFTER_S)


async def _read_at_most(content: aiohttp.StreamReader, max_bytes: int) -> bytes | None:
    """The whole content, or None when there is more of it than `max_bytes`."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
