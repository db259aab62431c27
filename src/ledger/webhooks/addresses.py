"""Where a delivery may connect: public addresses over https, and what `WEBHOOK_ALLOWED_NETWORKS` lists.

Two checks, since one is not enough: `check_url` reads the address as it is written, and `CheckedResolver` checks what
a name resolves to, at the moment of connecting, and hands on only what it checked. aiohttp asks no resolver for an IP
address written in a URL, so `check_url` comes before every delivery as well.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ledger.errors import BadRequest, FieldError
from ledger.settings import Network
from ledger.webhooks.name_lookup import NameLookup
from ledger.webhooks.special_networks import Address, why_not_public

Scheme = Literal["https", "http"]

URL_MAX = 2_000
# A name that answers slowly must not keep who saves it waiting.
LOOKUP_AT_SAVING_S = 2.0
# More addresses than this are checked, but not tried.
ADDRESSES_TRIED_MAX = 8

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<rest>[/?][^#]*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_NAME_MAX = 253
# The last part of a name that every resolver reads as a number, so the whole is an address (as the URL standard says).
_NUMBER_AT_END = re.compile(r"(^|\.)([0-9]+|0[xX][0-9A-Fa-f]*)\.?$")
_OCTET = r"(0|[1-9][0-9]{0,2})"
_DOTTED = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}")
_PORT_MAX = 65_535
_LOOPBACK = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


class UrlRefused(BadRequest):
    """A subscriber's address that nothing will be sent to (400)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The URL {reason}", fields=[FieldError("url", reason)])
        self.reason = reason


class AddressRefused(Exception):
    """A name resolves to an address that nothing may be sent to; `sentence` says which and why."""

    def __init__(self, reason: str) -> None:
        self.sentence = f"The URL {reason}"
        self.reason = reason
        super().__init__(self.sentence)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a URL points to. `address` is there when its host is written as one; `host` is lower case, IDNA-encoded."""

    scheme: Scheme
    host: str
    port: int
    address: Address | None


def check_url(text: str, *, allowed: Sequence[Network]) -> None:
    """Raises `UrlRefused` with the reason when `text` is no URL, or one that nothing may be sent to.

    Names are not resolved here.
    """
    target = read_target(text)
    if target.address is not None:
        reason = why_refused(target.address, scheme=target.scheme, allowed=allowed)
        if reason is not None:
            raise UrlRefused(reason)
        return
    if target.scheme == "http" and not allowed:
        raise UrlRefused(_HTTPS_ONLY)
    if _is_localhost(target.host) and not any(each in network for network in allowed for each in _LOOPBACK):
        raise UrlRefused(f"leads to this machine itself ({target.host}); {_HOW_TO_ALLOW}")


async def check_destination(text: str, *, allowed: Sequence[Network], names: NameLookup) -> None:
    """The same when an address is saved: what a name resolves to is checked as well. Raises `UrlRefused`.

    A name that does not resolve, or not within two seconds, passes: names may come later, and every delivery checks.
    """
    check_url(text, allowed=allowed)
    target = read_target(text)
    if target.address is not None:
        return
    resolver = CheckedResolver(allowed=allowed, scheme=target.scheme, names=names)
    try:
        async with asyncio.timeout(LOOKUP_AT_SAVING_S):
            await resolver.resolve(target.host, target.port, socket.AF_UNSPEC)
    except AddressRefused as refused:
        raise UrlRefused(refused.reason) from None
    except (OSError, TimeoutError):
        return


class CheckedResolver(AbstractResolver):
    """Resolves a name once and yields its addresses when all of them may be connected to.

    For aiohttp's connector: `TCPConnector(resolver=CheckedResolver(...))`. It cannot see whether a connection is for
    http or https, so each scheme takes a connector of its own: over http only allowed networks are reached.
    Raises `AddressRefused`, and OSError for a name that does not resolve.
    """

    def __init__(
        self, *, allowed: Sequence[Network], scheme: Scheme = "https", names: NameLookup | None = None
    ) -> None:
        self._allowed = tuple(allowed)
        self._scheme: Scheme = scheme
        self._names = names or NameLookup()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._names.look_up(host)
        for address in found:
            reason = why_refused(address, scheme=self._scheme, allowed=self._allowed)
            if reason is not None:
                raise AddressRefused(reason if reason == _HTTPS_ONLY else f"names {host}, which {reason}")
        results = [_result(host, port, address) for address in found]
        wanted = [each for each in results if family in (socket.AF_UNSPEC, each["family"])]
        if not wanted:
            raise socket.gaierror(socket.EAI_NONAME, f"{host} has no address")
        return wanted[:ADDRESSES_TRIED_MAX]

    async def close(self) -> None:
        """Nothing is held."""


def why_refused(address: Address, *, scheme: Scheme, allowed: Sequence[Network]) -> str | None:
    """Why nothing may be sent to an address, in words that follow "The URL"; None when it may."""
    # A zone names a network interface of this machine.
    has_zone = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    if not has_zone and any(address in network for network in allowed):
        return None
    what = "is bound to a network interface" if has_zone else why_not_public(address)
    if what is not None:
        return f"leads to {address}, which {what}; {_HOW_TO_ALLOW}"
    return _HTTPS_ONLY if scheme == "http" else None


_HTTPS_ONLY = "must begin with https://; http:// is only for receivers in a network that WEBHOOK_ALLOWED_NETWORKS lists"
_HOW_TO_ALLOW = (
    "use a public address, or have the administrator list the receiver's network in WEBHOOK_ALLOWED_NETWORKS"
)


def read_target(text: str) -> Target:
    """The scheme, host and port of a URL. Raises `UrlRefused` for everything that programs could read differently."""
    if len(text) > URL_MAX:
        raise UrlRefused(f"must be at most {URL_MAX} characters")
    if not text.isprintable() or " " in text or "\\" in text:
        raise UrlRefused("must not contain blanks, backslashes or invisible characters")
    if "#" in text:
        raise UrlRefused("must not have a part after #; receivers never see it")
    match = _URL.fullmatch(text)
    if match is None:
        raise UrlRefused("must look like https://example.com/path")
    if "@" in match["authority"]:
        raise UrlRefused("must not contain a user or password; the receiver knows Ledger by its signature")
    authority = _AUTHORITY.fullmatch(match["authority"])
    port = None if authority is None else int(authority["port"] or 443)
    if authority is None or port not in range(1, _PORT_MAX + 1):
        raise UrlRefused("must name a host, and after a colon at most a port from 1 to 65535")
    try:
        # As the client will read it.
        url = URL(text)
        host = url.raw_host
    except ValueError:
        host = None
    if host is None or url.port is None:
        raise UrlRefused("must name a host that can exist, such as example.com")
    scheme: Scheme = "https" if match["scheme"].lower() == "https" else "http"
    return Target(scheme=scheme, host=host, port=url.port, address=_address_in(host))


def _address_in(host: str) -> Address | None:
    """The address a host is written as; None for a name. Raises `UrlRefused` for what is neither."""
    if ":" in host:
        with suppress(ValueError):
            return ipaddress.IPv6Address(host)
        raise UrlRefused(f"has a host that is no IPv6 address: {host}")
    if _NUMBER_AT_END.search(host):
        if _DOTTED.fullmatch(host):
            with suppress(ValueError):
                return ipaddress.IPv4Address(host)
        raise UrlRefused(f"has a host that only some programs read as an address: {host}; write it as four numbers")
    if len(host.rstrip(".")) > _NAME_MAX or not _NAME.fullmatch(host):
        raise UrlRefused("must name a host that can exist, such as example.com")
    return None


def _is_localhost(host: str) -> bool:
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")


def _result(host: str, port: int, address: Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
