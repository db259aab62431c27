"""Sends one delivery to a subscriber that may be slow, broken or hostile, and says in words what came of it."""

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

import aiohttp
import msgspec
import structlog
from yarl import URL

from ledger.deliveries.bounded_connection import AnswerTooLong, BoundedConnector
from ledger.deliveries.messages import SECRET_HEADER
from ledger.deliveries.rules import is_success, why_status_failed
from ledger.settings import Network
from ledger.webhooks.addresses import URL_MAX, AddressRefused, CheckedResolver, Scheme, UrlRefused, check_url
from ledger.webhooks.name_lookup import NameLookup

log = structlog.get_logger("ledger.deliveries")

TIMEOUT_S = 10.0
ANSWER_READ_BYTES = 64 * 1024
ANSWER_KEPT_BYTES = 1024
# Shorter parts of an address would be masked wherever they stand by chance.
_SECRET_MIN = 6
_SECRET_MAX_BYTES = URL_MAX
_MASK = b"********"
# Shorter than servers keep an idle connection, or one would be used just as the receiver closes it.
_IDLE_S = 1.5
_ADDRESSES_KEPT = 1_000
_TOO_SLOW = f"It did not answer within {TIMEOUT_S:.0f} seconds"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended. `status` is None when there was no answer in time; `error` is None after a 2xx.

    `answer` holds its first bytes as text, `retry_after` the header of that name.
    """

    status: int | None
    error: str | None
    retry_after: str | None = None
    answer: str | None = None
    duration_ms: int = 0


class Sender:
    """The connections to subscribers. Open it in the event loop that uses it; close it in the end."""

    def __init__(self, *, allowed: Sequence[Network], names: NameLookup, user_agent: str) -> None:
        self._allowed = tuple(allowed)
        # The same address is the same again: what changes is what names lead to, which the resolver looks at.
        self._checked = lru_cache(maxsize=_ADDRESSES_KEPT)(self._check)
        # Over http only allowed networks are reached, and a resolver cannot tell what a connection is for.
        self._sessions = {scheme: self._session(scheme, names, user_agent) for scheme in ("https", "http")}

    def _session(self, scheme: str, names: NameLookup, user_agent: str) -> aiohttp.ClientSession:
        kind: Scheme = "https" if scheme == "https" else "http"
        return aiohttp.ClientSession(
            connector=BoundedConnector(
                resolver=CheckedResolver(allowed=self._allowed, scheme=kind, names=names),
                # How many there may be at once is decided for each subscriber.
                limit=0,
                keepalive_timeout=_IDLE_S,
            ),
            # What is above the threshold would be rounded up.
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S, ceil_threshold=TIMEOUT_S),
            headers={"User-Agent": user_agent, "Accept": "*/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=ANSWER_READ_BYTES,
        )

    def _check(self, url: str) -> URL:
        """The address, when it may be sent to. What is allowed may have changed since it was saved."""
        check_url(url, allowed=self._allowed)
        return URL(url)

    async def close(self) -> None:
        """Closes all connections."""
        for session in self._sessions.values():
            await session.close()

    async def send(self, *, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """POSTs `body`. It does not raise: whatever goes wrong is an answer, too."""
        began_s = time.perf_counter()
        try:
            answered = await self._post(self._checked(url), headers, body)
        except UrlRefused as refused:
            answered = Answered(status=None, error=refused.sentence)
        except AddressRefused as refused:
            answered = Answered(status=None, error=refused.sentence)
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            answered = Answered(status=None, error=_in_words(failure))
        except Exception as fault:
            # A fault of ours must not keep others waiting, and is tried again like any.
            log.error("sending failed", reason=type(fault).__name__, exc_info=fault)
            answered = Answered(status=None, error=f"It could not be sent ({type(fault).__name__})")
        return msgspec.structs.replace(answered, duration_ms=round((time.perf_counter() - began_s) * 1000))

    async def _post(self, url: URL, headers: Mapping[str, str], body: bytes) -> Answered:
        async with self._sessions[url.scheme].post(url, data=body, headers=headers, allow_redirects=False) as response:
            try:
                # More than is kept, so that a secret which the end would cut through is recognised.
                answer = await _read_beginning(response, kept_bytes=ANSWER_KEPT_BYTES + _SECRET_MAX_BYTES)
            except TimeoutError:
                error = f"It began to answer {response.status} and did not finish within {TIMEOUT_S:.0f} seconds"
                return Answered(status=None, error=error)
            return Answered(
                status=response.status,
                error=None if is_success(response.status) else why_status_failed(response.status),
                retry_after=response.headers.get("Retry-After"),
                answer=_without(answer, _secrets_in(url, headers)).decode(errors="replace").replace("\0", "") or None,
            )


def _secrets_in(url: URL, headers: Mapping[str, str]) -> list[bytes]:
    """What nobody may read in an answer of a receiver that echoes what it is sent, the longest first."""
    found = {headers.get(SECRET_HEADER, ""), url.raw_query_string, url.query_string, *url.query.values()}
    return sorted((text.encode() for text in found if len(text) >= _SECRET_MIN), key=len, reverse=True)


def _without(answer: bytes, secrets: Sequence[bytes]) -> bytes:
    """What is kept of an answer: its first bytes, with secrets masked."""
    for secret in secrets:
        answer = answer.replace(secret, _MASK)
    return answer[:ANSWER_KEPT_BYTES]


async def _read_beginning(response: aiohttp.ClientResponse, *, kept_bytes: int) -> bytes:
    """Reads an answer, but not more of it than is reasonable, and returns its first bytes."""
    kept = bytearray()
    left = ANSWER_READ_BYTES
    while left > 0:
        try:
            chunk = await response.content.read(left)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError):
            # It broke off; what it answered was said before.
            break
        if not chunk:
            return bytes(kept)
        left -= len(chunk)
        kept += chunk[: kept_bytes - len(kept)]
    response.close()
    return bytes(kept)


def _in_words(failure: Exception) -> str:
    """What went wrong, as a sentence without addresses and without what was sent."""
    if isinstance(failure, TimeoutError):
        return _TOO_SLOW
    if isinstance(failure, AnswerTooLong):
        return "Its answer is far too long"
    if isinstance(failure, aiohttp.ClientConnectorDNSError):
        return "Its name does not resolve to an address"
    if isinstance(failure, aiohttp.ClientConnectorCertificateError):
        reason = getattr(failure.certificate_error, "verify_message", None)
        return f"Its certificate cannot be trusted: {reason or 'it does not fit'}"
    if isinstance(failure, aiohttp.ClientSSLError):
        return "No secure connection could be made; does it speak https?"
    if isinstance(failure, aiohttp.ClientConnectorError):
        if isinstance(failure.os_error, ConnectionRefusedError):
            return "Nobody accepts connections there"
        return f"No connection could be made: {failure.os_error.strerror or type(failure.os_error).__name__}"
    if isinstance(failure, (aiohttp.ServerDisconnectedError, OSError)):
        return "It closed the connection without an answer"
    return "Its answer could not be read; does it speak HTTP?"
