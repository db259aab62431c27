"""D4: which addresses nothing may be sent to, however they are written, and what a name may resolve to."""

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Mapping, Sequence

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.settings import Network
from ledger.webhooks import name_lookup
from ledger.webhooks.addresses import (
    AddressRefused,
    CheckedResolver,
    UrlRefused,
    check_destination,
    check_url,
    read_target,
    why_refused,
)
from ledger.webhooks.name_lookup import NameLookup
from ledger.webhooks.special_networks import Address, why_not_public
from tests.hostile_addresses import AMBIGUOUS, DISGUISED, NO_URLS, NOT_PUBLIC, PUBLIC

PRIVATE_NETWORK = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class TableLookup(NameLookup):
    """Resolves names by a table, as a name server that somebody else controls would."""

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.table = table
        self.asked: list[str] = []

    async def look_up(self, host: str) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [ipaddress.ip_address(each) for each in self.table[host]]


def test_there_are_enough_hostile_addresses() -> None:
    assert len({host for host, _ in NOT_PUBLIC}) + len(AMBIGUOUS) + len(DISGUISED) >= 60


@pytest.mark.parametrize(("host", "reason"), NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused_with_the_reason(host: str, reason: str) -> None:
    for url in (f"https://{host}/hook", f"https://{host}:8443", f"https://{host}?x=1"):
        with pytest.raises(UrlRefused, match=reason) as refused:
            check_url(url, allowed=())
        assert "WEBHOOK_ALLOWED_NETWORKS" in refused.value.sentence
        assert [each.field for each in refused.value.fields] == ["url"]


@pytest.mark.parametrize("host", [*AMBIGUOUS, *DISGUISED])
def test_a_host_that_programs_read_differently_is_refused(host: str) -> None:
    with pytest.raises(UrlRefused):
        check_url(f"https://{host}/hook", allowed=())
    # Even where every network is allowed; characters in disguise are an ordinary address by then.
    if host in AMBIGUOUS:
        with pytest.raises(UrlRefused, match="only some programs read as an address"):
            check_url(f"https://{host}/hook", allowed=(ipaddress.ip_network("0.0.0.0/0"),))


@pytest.mark.parametrize("text", NO_URLS)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(UrlRefused, match=r"^The URL (must|has)"):
        check_url(text, allowed=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_over_https_is_accepted(text: str) -> None:
    check_url(text, allowed=())


@pytest.mark.parametrize("text", [each.replace("https://", "http://", 1) for each in PUBLIC if each[0] == "h"])
def test_http_to_the_public_is_refused_whatever_is_allowed(text: str) -> None:
    with pytest.raises(UrlRefused, match="must begin with https://"):
        check_url(text, allowed=())
    if read_target(text).address is not None:
        with pytest.raises(UrlRefused, match="must begin with https://"):
            check_url(text, allowed=PRIVATE_NETWORK)


def test_a_network_of_the_installation_is_reached_when_it_is_listed_also_over_http() -> None:
    for url in ("http://10.1.2.3:3000/hook", "https://10.1.2.3/hook", "http://[fd00::7]/hook", "http://shop:3000/hook"):
        check_url(url, allowed=PRIVATE_NETWORK)
    for url in ("http://192.168.1.1/", "https://192.168.1.1/", "https://127.0.0.1/", "http://localhost/"):
        with pytest.raises(UrlRefused):
            check_url(url, allowed=PRIVATE_NETWORK)
    check_url("http://localhost:3000/hook", allowed=LOOPBACK)
    check_url("http://127.0.0.1:3000/hook", allowed=LOOPBACK)


def test_listing_an_ipv4_network_does_not_allow_it_in_disguise() -> None:
    for host in ("[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "[::a00:1]"):
        with pytest.raises(UrlRefused):
            check_url(f"https://{host}/", allowed=PRIVATE_NETWORK)


def test_the_metadata_services_of_clouds_are_never_reached() -> None:
    """They lie in link-local, unique-local and shared networks; one has a public address of its own."""
    for address in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192"):
        assert why_not_public(ipaddress.ip_address(address)) is not None
    assert why_not_public(ipaddress.ip_address("168.63.129.16")) == "belongs to a cloud's own services"


def test_an_address_with_a_zone_is_refused_even_in_a_listed_network() -> None:
    zoned = ipaddress.ip_address("fd00::1%eth0")
    assert why_refused(zoned, scheme="https", allowed=PRIVATE_NETWORK) is not None


@given(st.ip_addresses())
def test_whatever_python_takes_for_private_is_refused(address: Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_loopback:
        assert why_not_public(address) is not None


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_gets_through_in_an_ipv6_address(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    for outer in (
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        int(ipaddress.IPv6Address("64:ff9b::")) | number,
        int(ipaddress.IPv6Address("64:ff9b:1::")) | number,
        int(ipaddress.IPv6Address("2002::")) | number << 80,
        int(ipaddress.IPv6Address("2001::")) | number << 64,
        int(ipaddress.IPv6Address("2001::")) | ~number & 0xFFFFFFFF,
        int(ipaddress.IPv6Address("2a00:1450::5efe:0:0")) | number,
    ):
        assert why_not_public(ipaddress.IPv6Address(outer)) is not None


@given(st.text(max_size=60))
def test_no_text_breaks_the_check(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/"):
        try:
            target = read_target(url)
        except UrlRefused:
            continue
        assert target.address is None or isinstance(target.address, ipaddress.IPv4Address | ipaddress.IPv6Address)


async def resolve(resolver: CheckedResolver, host: str, port: int = 443) -> list[str]:
    return [each["host"] for each in await resolver.resolve(host, port)]


async def test_a_name_yields_the_addresses_that_were_checked() -> None:
    lookup = TableLookup({"shop.example.com": ["93.184.216.34", "2606:2800:220:1::1"]})
    resolver = CheckedResolver(allowed=(), names=lookup)

    results = await resolver.resolve("shop.example.com", 8443)

    assert [(each["host"], each["port"], each["family"]) for each in results] == [
        ("93.184.216.34", 8443, socket.AF_INET),
        ("2606:2800:220:1::1", 8443, socket.AF_INET6),
    ]
    # The client must take them as addresses, not as names to look up again.
    assert {each["flags"] for each in results} == {socket.AI_NUMERICHOST | socket.AI_NUMERICSERV}
    only_v4 = await resolver.resolve("shop.example.com", 443, socket.AF_INET)
    assert [each["host"] for each in only_v4] == ["93.184.216.34"]
    assert lookup.asked == ["shop.example.com"] * 2


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["93.184.216.34", "10.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
        ["93.184.216.34", "fd00::1"],
        ["fe80::1%2"],
        ["93.184.216.34"] * 20 + ["192.168.0.1"],
    ],
)
async def test_a_name_with_an_address_that_is_not_public_is_refused_whatever_else_it_has(addresses: list[str]) -> None:
    resolver = CheckedResolver(allowed=(), names=TableLookup({"shop.example.com": addresses}))
    with pytest.raises(AddressRefused, match=r"^The URL names shop\.example\.com, which leads to"):
        await resolver.resolve("shop.example.com", 443)


async def test_over_http_a_name_must_lead_into_a_listed_network() -> None:
    lookup = TableLookup(
        {"shop": ["10.0.0.5"], "public.example.com": ["93.184.216.34"], "both": ["10.0.0.5", "93.184.216.34"]}
    )
    over_http = CheckedResolver(allowed=PRIVATE_NETWORK, scheme="http", names=lookup)
    over_https = CheckedResolver(allowed=PRIVATE_NETWORK, scheme="https", names=lookup)

    assert await resolve(over_http, "shop", 3000) == ["10.0.0.5"]
    for name in ("public.example.com", "both"):
        with pytest.raises(AddressRefused, match="must begin with https://"):
            await over_http.resolve(name, 80)
        assert await resolve(over_https, name)


async def test_a_name_without_addresses_is_unknown_and_not_refused() -> None:
    resolver = CheckedResolver(allowed=(), names=TableLookup({"empty.example.com": []}))
    for name in ("empty.example.com", "unknown.example.com"):
        with pytest.raises(OSError, match=r"unknown|no address"):
            await resolver.resolve(name, 443)


async def test_when_it_is_saved_a_name_may_not_exist_yet_but_not_lead_inside() -> None:
    lookup = TableLookup({"inside.example.com": ["10.0.0.1"], "outside.example.com": ["93.184.216.34"]})

    await check_destination("https://later.example.com/", allowed=(), names=lookup)
    await check_destination("https://outside.example.com/", allowed=(), names=lookup)
    with pytest.raises(UrlRefused, match=r"names inside\.example\.com, which leads to 10\.0\.0\.1, which is private"):
        await check_destination("https://inside.example.com/", allowed=(), names=lookup)
    await check_destination("https://inside.example.com/", allowed=PRIVATE_NETWORK, names=lookup)
    with pytest.raises(UrlRefused, match="must begin with https://"):
        await check_destination("http://outside.example.com/", allowed=PRIVATE_NETWORK, names=lookup)


async def test_saving_does_not_wait_for_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def never_answers(_host: str) -> Sequence[Address]:
        released.wait(20)
        return ()

    monkeypatch.setattr(name_lookup, "_addresses_of", never_answers)
    began_s = time.monotonic()
    await check_destination("https://slow.example.com/", allowed=(), names=NameLookup())
    assert 1.5 < time.monotonic() - began_s < 4
    released.set()


async def test_lookups_are_bounded_and_come_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def waits(_host: str) -> Sequence[Address]:
        released.wait(20)
        return (ipaddress.ip_address("93.184.216.34"),)

    monkeypatch.setattr(name_lookup, "_addresses_of", waits)
    names = NameLookup()
    running = [asyncio.create_task(names.look_up(f"{n}.example.com")) for n in range(name_lookup.LOOKUPS_AT_ONCE)]
    await asyncio.sleep(0.05)
    # Who gives up leaves its place only when the lookup is over.
    running[0].cancel()
    with pytest.raises(OSError, match="too many names"):
        await names.look_up("one-more.example.com")

    released.set()
    answers = await asyncio.gather(*running, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [(ipaddress.ip_address("93.184.216.34"),)] * (name_lookup.LOOKUPS_AT_ONCE - 1)
    await asyncio.sleep(0.05)
    assert await names.look_up("one-more.example.com")


async def test_the_systems_own_names_are_resolved_and_refused() -> None:
    """Really asked: this machine knows its own name without any name server."""
    found = await NameLookup().look_up("localhost")
    assert any(address.is_loopback for address in found)
    for written in ("localhost", "0x7f.1", "127.1", "2130706433", "0177.0.0.1"):
        with pytest.raises((AddressRefused, OSError)):
            await CheckedResolver(allowed=()).resolve(written, 443)
    with pytest.raises(OSError):
        await CheckedResolver(allowed=()).resolve("x" * 300, 443)


class Listener:
    """Listens on every loopback address there is, and counts who connects."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0
        self._servers: list[asyncio.Server] = []

    async def __aenter__(self) -> "Listener":
        async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()

        first = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = first.sockets[0].getsockname()[1]
        self._servers = [first]
        if socket.has_ipv6:
            # A machine without IPv6 has one door less.
            with contextlib.suppress(OSError):
                self._servers.append(await asyncio.start_server(accept, "::1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()


async def deliver(url: str, *, names: NameLookup, allowed: Sequence[Network] = ()) -> int:
    """What a delivery does: the address is checked as written, then connected to through the checking resolver."""
    check_url(url, allowed=allowed)
    scheme = read_target(url).scheme
    connector = aiohttp.TCPConnector(resolver=CheckedResolver(allowed=allowed, scheme=scheme, names=names))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.post(url, data=b"{}", allow_redirects=False) as response,
    ):
        return response.status


async def test_no_hostile_address_reaches_a_listener_on_this_machine() -> None:
    """D4, with a real client and a real listener. Over http as well, so that no failed handshake hides a connection."""
    rebound = {
        f"n{n}.example.com": [text] for n, text in enumerate(("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"))
    }
    names = TableLookup(rebound | {"both.example.com": ["93.184.216.34", "127.0.0.1"]})
    hosts = [*(host for host, _ in NOT_PUBLIC), *AMBIGUOUS, *DISGUISED, *names.table]
    async with Listener() as listener:
        for host in hosts:
            for scheme in ("https", "http"):
                with pytest.raises((UrlRefused, AddressRefused)):
                    await deliver(f"{scheme}://{host}:{listener.port}/hook", names=names)
        assert listener.connections == 0
        # The listener is there, and the client reaches what it may.
        for url in (f"http://127.0.0.1:{listener.port}/hook", f"http://hook.example.com:{listener.port}/hook"):
            reachable = TableLookup({"hook.example.com": ["127.0.0.1"]})
            assert await deliver(url, names=reachable, allowed=LOOPBACK) == 200
        assert listener.connections == 2


async def test_the_resolver_alone_keeps_names_from_the_listener() -> None:
    """Without `check_url`: a name that was public when it was saved, and is not any more when it is connected to."""
    names = TableLookup({"rebound.example.com": ["127.0.0.1"], "n.localhost": ["127.0.0.1"]})
    async with Listener() as listener:
        for host in (*names.table, "0x7f.1", "0x7f000001"):
            # What the system reads as an address comes to its resolver as a name.
            lookup = names if host in names.table else NameLookup()
            connector = aiohttp.TCPConnector(resolver=CheckedResolver(allowed=(), names=lookup))
            async with aiohttp.ClientSession(connector=connector) as session:
                with pytest.raises((AddressRefused, aiohttp.ClientConnectorDNSError)):
                    await session.post(f"http://{host}:{listener.port}/")
        assert listener.connections == 0
