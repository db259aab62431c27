"""Who calls: the kinds of proven callers and what proves them.

Nothing that arrives beside the credential decides anything: `X-User-*` headers are hearsay (`ledger.web.operation`).
"""

import re
from typing import Literal, Protocol

import msgspec

from ledger.errors import Unauthorized

MANAGE_PERMISSION = "ledger:manage"

MAX_TOKEN_CHARACTERS = 8192
# ASCII only: without the flag a long s would pass for an "s" of "ServiceKey" (RFC 9110 section 11.4 for the shape).
_CREDENTIAL = re.compile(rf"(bearer|servicekey) +([\x21-\x7e]{{1,{MAX_TOKEN_CHARACTERS}}})", re.ASCII | re.IGNORECASE)
_MAX_HEADER_CHARACTERS = MAX_TOKEN_CHARACTERS + 64


class Person(msgspec.Struct, frozen=True, tag="person"):
    """A person whom Lanyard vouched for, with the permissions Lanyard itself listed for Ledger."""

    user_id: str
    permissions: frozenset[str] = frozenset()

    @property
    def is_staff(self) -> bool:
        """Staff is whoever holds `ledger:manage`; being an administrator elsewhere grants nothing here."""
        return MANAGE_PERMISSION in self.permissions


class Service(msgspec.Struct, frozen=True, tag="service"):
    """A registered service, proven by its ServiceKey. `service_id` comes without Lanyard's `service:` prefix."""

    service_id: str


Caller = Person | Service


class Credential(msgspec.Struct, frozen=True):
    """What a caller sent to be recognised by. It never shows its token in a log or an error."""

    scheme: Literal["Bearer", "ServiceKey"]
    token: str

    @property
    def header(self) -> str:
        """The one spelling of the `Authorization` header under which this credential travels and is cached."""
        return f"{self.scheme} {self.token}"

    def __repr__(self) -> str:
        return f"Credential({self.scheme} …)"


def read_credential(authorization: str) -> Credential:
    """Reads an `Authorization` header: a scheme in any case and one token of at most 8192 visible ASCII characters.

    Raises `Unauthorized` for everything else, so nothing odd is ever forwarded to Lanyard.
    """
    if len(authorization) > _MAX_HEADER_CHARACTERS:
        raise Unauthorized
    match = _CREDENTIAL.fullmatch(authorization)
    if match is None:
        raise Unauthorized
    return Credential("Bearer" if match[1].lower() == "bearer" else "ServiceKey", match[2])


class Identity(Protocol):
    """Proves a caller from the request's `Authorization` header and nothing else."""

    def known(self, authorization: str) -> Caller | None:
        """The caller, when it was proven a moment ago and nobody needs to be asked; else None."""
        ...

    def remembers(self, authorization: str) -> bool:
        """Whether this credential was proven within the last minutes, so that asking about it again is no guessing."""
        ...

    async def verify(self, authorization: str) -> Caller:
        """Returns the proven caller.

        Raises `Unauthorized` when the credential is missing, malformed or refused by Lanyard's own 401,
        and `Unavailable` (503, with `retry_after_s`) when nobody can say.
        """
        ...

    async def close(self) -> None: ...


class Names(Protocol):
    """Display names of people, which Ledger never stores."""

    async def display_names(self, user_ids: set[str]) -> dict[str, str]:
        """Returns a name for every id: the known display name, or a short form of the id. Waits at most a second."""
        ...

    def find_user_ids(self, fragment: str) -> set[str]:
        """Returns the ids whose cached name contains `fragment`, whatever its case (at most 1000)."""
        ...

    async def close(self) -> None: ...
