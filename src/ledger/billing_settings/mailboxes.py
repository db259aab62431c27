"""Mail addresses as people enter them: `ledger@example.org`, or with a name, `Ruderclub <ledger@example.org>`."""

import re
import unicodedata

import msgspec

# RFC 5321, without quoted local parts and address literals, which nobody uses for people.
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", re.ASCII)
_DOMAIN = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_NAMED = re.compile(r"(?P<name>[^<>\x00-\x1f\x7f]*)<(?P<address>[^<>]*)>")
_ADDRESS_CHARACTERS_MAX = 254
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
# Python encodes as IDNA 2003 had it, which takes these for other letters, or for none. Since 2008 a name with them is a
# name of its own, so mail would go to somebody else.
_OWN_LETTERS = frozenset("\u00df\u03c2")
_JOINERS = frozenset("\u200c\u200d")


class Mailbox(msgspec.Struct, frozen=True, kw_only=True):
    """Where mail comes from or goes to. The address is ASCII: a domain with umlauts is in its encoded form."""

    name: str | None
    address: str

    @property
    def domain(self) -> str:
        return self.address.rpartition("@")[2]


def find_mailbox(text: str) -> Mailbox | None:
    """The mailbox that a text on one line names, or None when it names none, or more than one."""
    named = _NAMED.fullmatch(text.strip())
    address = find_address(named["address"] if named else text)
    if address is None:
        return None
    name = named["name"].strip().strip('"').strip() if named else ""
    return Mailbox(name=name or None, address=address)


def find_address(text: str) -> str | None:
    """The address as mail servers take it, or None for what is none."""
    local, at, domain = text.strip().rpartition("@")
    try:
        domain = ".".join(_encoded(label) for label in _DOTS.split(domain))
    except UnicodeError:
        return None
    if not at or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        return None
    address = f"{local}@{domain}"
    return address if len(address) <= _ADDRESS_CHARACTERS_MAX else None


def _encoded(label: str) -> str:
    """A part of a domain in ASCII. Raises UnicodeError for what cannot be written so, or is better not guessed."""
    if label.isascii():
        return label
    label = unicodedata.normalize("NFKC", label).lower()
    if not _JOINERS.isdisjoint(label):
        raise UnicodeError("invisible joiners")
    if not _OWN_LETTERS.isdisjoint(label):
        return f"xn--{label.encode('punycode').decode()}"
    return label.encode("idna").decode()
