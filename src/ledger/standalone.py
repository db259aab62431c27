"""Standalone identity: Ledger without Lanyard, for trying it out on one machine.

Three credentials are made at the first start and kept in the data directory. The settings see to it that this mode
never runs in production and listens on loopback only.
"""

import contextlib
import os
import secrets
import stat
from hmac import compare_digest
from pathlib import Path

import msgspec

from ledger.errors import Unauthorized
from ledger.identity import MANAGE_PERMISSION, Caller, Person, Service, read_credential

ADMIN_USER_ID = "standalone-admin"
USER_ID = "standalone-user"
SERVICE_ID = "standalone-service"

# For `ledger.names.StandaloneNames`.
DISPLAY_NAMES = {ADMIN_USER_ID: "Standalone Admin", USER_ID: "Standalone User"}

_FILE_NAME = "standalone.json"
_MAX_FILE_BYTES = 4096


class StandaloneFileError(Exception):
    """The file with the credentials cannot be used; the sentence says which file and what to do."""


class StandaloneCredentials(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The credentials of standalone mode, each random with 256 bits. They are never shown by `repr`."""

    admin_token: str
    user_token: str
    service_key: str

    def __post_init__(self) -> None:
        for scheme, token in (
            ("Bearer", self.admin_token),
            ("Bearer", self.user_token),
            ("ServiceKey", self.service_key),
        ):
            try:
                read_credential(f"{scheme} {token}")
            except Unauthorized:
                raise ValueError("a credential is empty or has characters that cannot be sent") from None
        if len({self.admin_token, self.user_token, self.service_key}) != 3:
            raise ValueError("two credentials are equal")

    def __repr__(self) -> str:
        return "StandaloneCredentials(…)"


def load_or_create_credentials(data_dir: Path) -> StandaloneCredentials:
    """Reads `standalone.json` in `data_dir`, which is made first (mode 0600) when there is none.

    Any number of processes may start at once: all get the same credentials, and none sees half a file.
    Raises `StandaloneFileError` when the file is there and cannot be used, and `OSError` from the file system.
    """
    path = data_dir / _FILE_NAME
    if not os.path.lexists(path):
        data_dir.mkdir(parents=True, exist_ok=True)
        _create(path)
    return _read(path)


class StandaloneIdentity:
    """Proves callers by the three stored credentials (implements `ledger.identity.Identity`)."""

    def __init__(self, credentials: StandaloneCredentials) -> None:
        admin = Person(ADMIN_USER_ID, frozenset({MANAGE_PERMISSION}))
        self._callers: tuple[tuple[bytes, Caller], ...] = (
            (f"Bearer {credentials.admin_token}".encode(), admin),
            (f"Bearer {credentials.user_token}".encode(), Person(USER_ID)),
            (f"ServiceKey {credentials.service_key}".encode(), Service(SERVICE_ID)),
        )

    def known(self, authorization: str) -> Caller | None:
        """Returns the caller of a credential in its canonical spelling, else None. Compares in constant time."""
        sent = authorization.encode("utf-8", "surrogatepass")
        proven: Caller | None = None
        for credential, caller in self._callers:
            if compare_digest(credential, sent):
                proven = caller
        return proven

    def remembers(self, authorization: str) -> bool:
        """Whether this is one of the credentials."""
        return self.known(authorization) is not None

    async def verify(self, authorization: str) -> Caller:
        """Returns the proven caller, or raises `Unauthorized`."""
        caller = self.known(read_credential(authorization).header)
        if caller is None:
            raise Unauthorized
        return caller

    async def close(self) -> None:
        """Has nothing to close."""


def _create(path: Path) -> None:
    """Makes the file complete under another name and links it to its own: that fails when somebody was faster."""
    credentials = StandaloneCredentials(
        admin_token=f"standalone_admin_{secrets.token_urlsafe(32)}",
        user_token=f"standalone_user_{secrets.token_urlsafe(32)}",
        service_key=f"sk_svc_{secrets.token_urlsafe(32)}",
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(credentials)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> StandaloneCredentials:
    advice = "Delete it, and new credentials are made at the next start."
    try:
        # A link could point at a file of somebody else's choice.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        raise StandaloneFileError(f"{path} belongs to another user. Run Ledger as that user, or delete it.") from None
    except OSError:
        raise StandaloneFileError(f"{path} is not a file that can be opened. {advice}") from None
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise StandaloneFileError(f"{path} is not an ordinary file. {advice}")
        if stat.S_IMODE(state.st_mode) & 0o077:
            raise StandaloneFileError(f"{path} can be read by other users, so its credentials are no secret. {advice}")
        content = os.read(descriptor, _MAX_FILE_BYTES)
    finally:
        os.close(descriptor)
    try:
        return msgspec.json.decode(content, type=StandaloneCredentials)
    except (ValueError, RecursionError):
        raise StandaloneFileError(f"{path} does not hold the credentials of standalone mode. {advice}") from None
