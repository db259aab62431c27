"""Settings: read once from the environment and `.env`, checked, frozen, handed on.

`.env.example` explains each variable to people; this file is what they are checked against. An empty variable counts
as not set, and the environment wins over `.env`.
"""

import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

import msgspec

Env = Literal["development", "production"]
IdentityKind = Literal["lanyard", "standalone"]
LogStyle = Literal["console", "json"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEY_LENGTH = 32
_KEY_FORM = "64 hexadecimal digits, not all zero (`openssl rand -hex 32` makes one)"
_DATABASE_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
_DATABASE_FORM = "postgresql://user:password@host:5432/database, with special characters percent-encoded"
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:,\s]*)(:(?P<port>[0-9]{1,5}))?")
_LARGEST_PORT = 65_535

T = TypeVar("T", str, bytes)
Choice = TypeVar("Choice", bound=str)


class SettingsError(Exception):
    """Settings that Ledger cannot start with: a sentence for each wrong variable, never with a secret's value."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class Secret(Generic[T]):
    """A value that shows itself only when asked with `reveal()`, so that no log or error prints it by accident."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        return self._value

    def __repr__(self) -> str:
        return "Secret(********)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and bool(self._value == other._value)

    def __hash__(self) -> int:
        return hash(self._value)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be configured from outside. URLs have no trailing slash."""

    env: Env
    identity: IdentityKind
    slug: str
    timezone: ZoneInfo
    log: LogStyle

    host: str
    port: int
    data_dir: Path
    database_url: Secret[str] | None
    dashboard_url: str | None
    lanyard_url: str | None
    lanyard_service_key: Secret[str] | None

    # Keys are 32 bytes. The previous one is only for reading what was sealed before a change of keys.
    encryption_key: Secret[bytes]
    encryption_key_previous: Secret[bytes] | None
    # Without a token, `/metrics` answers loopback only.
    metrics_token: Secret[str] | None

    # Pools are connections per process.
    api_processes: int
    worker_processes: int
    worker_concurrency: int
    database_pool: int
    worker_database_pool: int

    # Requests a minute for each caller; 0 means that they are not limited.
    rate_limit: int
    service_rate_limit: int

    # An administrator's own texts of mails; files there stand in for the built-in ones of the same name.
    mail_templates: Path | None

    stripe_api_base: str | None
    webhook_allowed_networks: tuple[Network, ...]

    def require_database_url(self) -> str:
        """The database's URL. Raises `SettingsError` where none is configured."""
        if self.database_url is None:
            raise SettingsError(
                f"DATABASE_URL is not set: set it to {_DATABASE_FORM}, or use `ledger run`, which brings a database."
            )
        return self.database_url.reveal()


def environment(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """The variables that count: those of the file `dotenv` and, over them, the environment's that are not empty."""
    values: dict[str, str] = {}
    if dotenv is not None and dotenv.exists():
        # Imported here because most installations have no such file, and starting is to be quick.
        from dotenv import dotenv_values

        try:
            found = dotenv_values(dotenv, interpolate=False, encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise SettingsError(f"{dotenv} must be a readable text file in UTF-8.") from None
        values = {name: value for name, value in found.items() if value}
    return values | {name: value for name, value in environ.items() if value or name not in values}


def load_settings(environ: Mapping[str, str], dotenv: Path | None = None) -> Settings:
    """Reads and checks every variable. Raises `SettingsError` with a sentence for each wrong one.

    In development, a missing ENCRYPTION_KEY is made once and kept in the data directory.
    """
    read = _Reader(environment(environ, dotenv))
    env: Env = read.choice("LEDGER_ENV", ("development", "production"), "development")
    service_key = read.secret("LANYARD_SERVICE_KEY")
    identity: IdentityKind = read.choice(
        "LEDGER_IDENTITY", ("lanyard", "standalone"), "lanyard" if service_key else "standalone"
    )
    key = read.key("ENCRYPTION_KEY")
    settings = Settings(
        env=env,
        identity=identity,
        slug=read.slug("LEDGER_SLUG", "ledger"),
        timezone=read.timezone("LEDGER_TIMEZONE"),
        log=read.choice("LEDGER_LOG", ("console", "json"), "json" if env == "production" else "console"),
        host=read.host("HOST", "127.0.0.1" if identity == "standalone" else "0.0.0.0"),  # noqa: S104 (as published)
        port=read.number("PORT", 5_002, smallest=1, largest=_LARGEST_PORT),
        data_dir=read.directory("LEDGER_DATA_DIR", ".ledger"),
        database_url=read.database_url("DATABASE_URL"),
        dashboard_url=read.url("DASHBOARD_URL"),
        lanyard_url=read.url("LANYARD_URL"),
        lanyard_service_key=service_key,
        encryption_key=key or Secret(bytes(_KEY_LENGTH)),
        encryption_key_previous=read.key("ENCRYPTION_KEY_PREVIOUS"),
        metrics_token=read.secret("LEDGER_METRICS_TOKEN", shortest=16),
        api_processes=read.number("LEDGER_API_PROCESSES", 1, smallest=1, largest=64),
        worker_processes=read.number("LEDGER_WORKER_PROCESSES", 1, smallest=1, largest=64),
        worker_concurrency=read.number("LEDGER_WORKER_CONCURRENCY", 50, smallest=1, largest=1_000),
        database_pool=read.number("LEDGER_DATABASE_POOL", 10, smallest=1, largest=500),
        worker_database_pool=read.number("LEDGER_WORKER_DATABASE_POOL", 10, smallest=3, largest=500),
        rate_limit=read.number("LEDGER_RATE_LIMIT", 1_200, smallest=0, largest=1_000_000),
        service_rate_limit=read.number("LEDGER_SERVICE_RATE_LIMIT", 0, smallest=0, largest=1_000_000),
        mail_templates=read.directory("LEDGER_MAIL_TEMPLATES", "mail") if read.text("LEDGER_MAIL_TEMPLATES") else None,
        stripe_api_base=read.url("STRIPE_API_BASE"),
        webhook_allowed_networks=read.networks("WEBHOOK_ALLOWED_NETWORKS"),
    )
    _check_together(read, settings)
    if read.wrong:
        raise SettingsError(*read.wrong.values())
    if key is None:
        return msgspec.structs.replace(settings, encryption_key=_development_key(settings.data_dir))
    return settings


def _check_together(read: "_Reader", settings: Settings) -> None:
    """The rules that concern more than one variable. A variable that is wrong by itself is not refused twice."""
    production = settings.env == "production"
    if settings.identity == "standalone" and production:
        read.refuse(
            "LEDGER_IDENTITY",
            "must be lanyard in production, with LANYARD_URL and LANYARD_SERVICE_KEY: standalone is for trying Ledger",
        )
    elif settings.identity == "standalone" and not _is_loopback(settings.host):
        read.refuse(
            "HOST",
            "must be a loopback address such as 127.0.0.1 while LEDGER_IDENTITY is standalone "
            "(as it is without a LANYARD_SERVICE_KEY)",
        )
    if settings.identity == "lanyard" and settings.lanyard_url is None:
        read.refuse("LANYARD_URL", "must be set to Lanyard's address while LEDGER_IDENTITY is lanyard")
    if settings.identity == "lanyard" and settings.lanyard_service_key is None:
        read.refuse(
            "LANYARD_SERVICE_KEY", "must be set to the key Lanyard gave Ledger while LEDGER_IDENTITY is lanyard"
        )
    if production and settings.database_url is None:
        read.refuse("DATABASE_URL", f"must be set in production, to {_DATABASE_FORM}")
    if production and not any(settings.encryption_key.reveal()):
        read.refuse("ENCRYPTION_KEY", f"must be set in production, to {_KEY_FORM}")


class _Reader:
    """Turns variables into values. What is wrong is collected, so that all of it can be said at once."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.wrong: dict[str, str] = {}

    def refuse(self, name: str, rule: str) -> None:
        """Notes that `name` is wrong; the first rule that it breaks is the one that is told."""
        self.wrong.setdefault(name, f"{name} {rule}.")

    def text(self, name: str) -> str | None:
        return self._variables.get(name, "").strip() or None

    def choice(self, name: str, allowed: tuple[Choice, ...], default: Choice) -> Choice:
        text = self.text(name)
        if text is None:
            return default
        for value in allowed:
            if text == value:
                return value
        self.refuse(name, f"must be {' or '.join(allowed)}")
        return default

    def number(self, name: str, default: int, *, smallest: int, largest: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        # Eleven digits are more than any limit here has, and keep `int` from working through a novel.
        if re.fullmatch(r"[0-9]{1,11}", text) and smallest <= int(text) <= largest:
            return int(text)
        self.refuse(name, f"must be a whole number from {smallest} to {largest}")
        return default

    def slug(self, name: str, default: str) -> str:
        text = self.text(name) or default
        if not re.fullmatch(r"[a-z0-9-]{1,40}", text):
            self.refuse(name, "must be 1 to 40 lower-case letters, digits or hyphens, as registered in Lanyard")
        return text

    def timezone(self, name: str) -> ZoneInfo:
        try:
            return ZoneInfo(self.text(name) or "UTC")
        except (ValueError, KeyError, OSError):
            self.refuse(name, "must be the name of a time zone, such as Europe/Berlin or UTC")
            return ZoneInfo("UTC")

    def host(self, name: str, default: str) -> str:
        text = self.text(name) or default
        if _address(text) is None and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text):
            self.refuse(name, "must be an address to listen on, such as 127.0.0.1, 0.0.0.0 or ::")
            return default
        return text

    def directory(self, name: str, default: str) -> Path:
        text = self.text(name) or default
        try:
            path = Path(text).expanduser().absolute()
            if path.is_dir() or not path.exists():
                return path
        except (OSError, RuntimeError):
            pass
        self.refuse(name, "must be a directory, or the name of one that can be made")
        return Path(default).absolute()

    def secret(self, name: str, *, shortest: int = 1) -> Secret[str] | None:
        text = self.text(name)
        if text is None:
            return None
        if not re.fullmatch(r"[\x21-\x7e]+", text) or len(text) < shortest:
            least = f"at least {shortest} " if shortest > 1 else ""
            self.refuse(name, f"must consist of {least}visible ASCII characters without spaces")
        return Secret(text)

    def key(self, name: str) -> Secret[bytes] | None:
        text = self.text(name)
        if text is None:
            return None
        key = _parse_key(text)
        if key is None:
            self.refuse(name, f"must be {_KEY_FORM}")
            return None
        return Secret(key)

    def url(self, name: str) -> str | None:
        text = self.text(name)
        if text is None:
            return None
        url = _split(text)
        if (
            url is None
            or url.scheme not in ("http", "https")
            or not url.hostname
            or "@" in url.netloc
            or url.query
            or url.fragment
        ):
            self.refuse(name, "must be an http:// or https:// address without user, password or query")
            return None
        return text.rstrip("/")

    def database_url(self, name: str) -> Secret[str] | None:
        text = self.text(name)
        if text is None:
            return None
        url = _split(text)
        if url is None or url.scheme not in _DATABASE_SCHEMES or url.fragment:
            self.refuse(name, f"must look like {_DATABASE_FORM}")
            return None
        return Secret(f"postgresql:{text.split(':', 1)[1]}")

    def networks(self, name: str) -> tuple[Network, ...]:
        texts = [part.strip() for part in (self.text(name) or "").split(",") if part.strip()]
        try:
            return tuple(ipaddress.ip_network(text) for text in texts)
        except ValueError:
            self.refuse(name, "must be networks in CIDR form separated by commas, such as 10.0.0.0/8, fd00::/8")
            return ()


def _split(text: str) -> SplitResult | None:
    """The parts of a URL whose hosts and ports make sense (a database's URL may name several), else None."""
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        return None
    try:
        url = urlsplit(text)
    except ValueError:
        return None
    for host in url.netloc.rpartition("@")[2].split(","):
        match = _HOST_AND_PORT.fullmatch(host)
        if match is None or int(match["port"] or 1) not in range(1, _LARGEST_PORT + 1):
            return None
    return url


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _parse_key(text: str) -> bytes | None:
    """The 32 bytes of a key written as 64 hexadecimal digits; None for anything else, and for the key of zeros."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return None
    key = bytes.fromhex(text)
    return key if any(key) else None


def _development_key(data_dir: Path) -> Secret[bytes]:
    """The key kept in the data directory, made by whichever process needs it first.

    It is written beside its place and linked there whole, so that nobody reads half a key and nobody's key is
    replaced by another's.
    """
    path = data_dir / "encryption.key"
    try:
        if not path.exists():
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = data_dir / f"encryption.key.{secrets.token_hex(8)}"
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secrets.token_hex(_KEY_LENGTH)}\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        key = _parse_key(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SettingsError(
            f"LEDGER_DATA_DIR must be a directory Ledger can write to, for its encryption key ({path}: {reason})."
        ) from None
    if key is None:
        raise SettingsError(
            f"ENCRYPTION_KEY is not set and {path} does not hold one: restore the file, "
            "or delete it to have a new key made (what was encrypted with the old one is then lost)."
        )
    return Secret(key)
