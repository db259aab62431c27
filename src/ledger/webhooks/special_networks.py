"""Which addresses are not public: the registries of special addresses, written out.

Source: IANA's special-purpose address registries for IPv4 and IPv6 (RFC 6890) and those for multicast and unicast
space. Python's own `is_global` differs between versions and takes some tunnels for public, so it is only asked
additionally. Addresses of cloud metadata services (169.254.169.254, fd00:ec2::254, 100.100.100.200) lie in the
link-local, unique-local and shared networks below.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_IPV4 = tuple(
    (ipaddress.IPv4Network(network), phrase)
    for network, phrase in (
        ("0.0.0.0/8", "stands for this machine itself"),
        ("10.0.0.0/8", "is private"),
        ("100.64.0.0/10", "is shared by a provider's customers"),
        ("127.0.0.0/8", "is this machine itself"),
        ("168.63.129.16/32", "belongs to a cloud's own services"),
        ("169.254.0.0/16", "is link-local (clouds keep their metadata there)"),
        ("172.16.0.0/12", "is private"),
        ("192.0.0.0/24", "is reserved for protocols"),
        ("192.0.2.0/24", "is for documentation"),
        ("192.88.99.0/24", "was for 6to4 relays"),
        ("192.168.0.0/16", "is private"),
        ("198.18.0.0/15", "is for benchmarks"),
        ("198.51.100.0/24", "is for documentation"),
        ("203.0.113.0/24", "is for documentation"),
        ("224.0.0.0/4", "is multicast"),
        ("255.255.255.255/32", "is the broadcast address"),
        ("240.0.0.0/4", "is reserved"),
    )
)

# Only this part of IPv6 is handed out for use on the internet.
_UNICAST = ipaddress.IPv6Network("2000::/3")

# The first that fits gives the phrase, so smaller networks come before larger ones.
_IPV6 = tuple(
    (ipaddress.IPv6Network(network), phrase)
    for network, phrase in (
        ("::/128", "stands for this machine itself"),
        ("::1/128", "is this machine itself"),
        ("::ffff:0:0/96", "is an IPv4 address in disguise"),
        ("::/96", "is an IPv4 address in disguise"),
        ("::ffff:0:0:0/96", "is an IPv4 address in disguise"),
        ("64:ff9b::/96", "is translated into an IPv4 address (NAT64)"),
        ("64:ff9b:1::/48", "is translated into an IPv4 address (NAT64)"),
        ("100::/64", "is a black hole"),
        ("2001::/32", "is a tunnel to an IPv4 address (Teredo)"),
        ("2001:2::/48", "is for benchmarks"),
        ("2001::/23", "is reserved for protocols"),
        ("2001:db8::/32", "is for documentation"),
        ("2002::/16", "is a tunnel to an IPv4 address (6to4)"),
        ("3ffe::/16", "is reserved"),
        ("3fff::/20", "is for documentation"),
        ("5f00::/16", "is for segment routing"),
        ("fc00::/7", "is private (unique local)"),
        ("fe80::/10", "is link-local"),
        ("fec0::/10", "is site-local"),
        ("ff00::/8", "is multicast"),
    )
)
# The interface part of an address that ISATAP tunnels make of an IPv4 address, whatever the network (RFC 5214).
_ISATAP = (0x00005EFE, 0x02005EFE)


def why_not_public(address: Address) -> str | None:
    """What makes an address not public, in words that follow "which"; None for a public one."""
    if isinstance(address, ipaddress.IPv4Address):
        named = next((phrase for network, phrase in _IPV4 if address in network), None)
    else:
        named = next((phrase for network, phrase in _IPV6 if address in network), None)
        if named is None and address not in _UNICAST:
            named = "is reserved"
        if named is None and (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            named = "is a tunnel to an IPv4 address (ISATAP)"
    if named is None and not address.is_global:
        named = "is not public"
    return named
