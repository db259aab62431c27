"""Settings: every variable with its right and wrong values. A wrong one is told in one sentence that names it."""

import re
import stat
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from threading import Thread

import pytest

from ledger import settings as settings_module
from ledger.settings import Secret, Settings, SettingsError, load_settings

KEY = "5b" * 32
PRODUCTION = {
    "LEDGER_ENV": "production",
    "DATABASE_URL": "postgresql://ledger:pw@db.example/ledger",
    "LANYARD_URL": "https://lanyard.example",
    "LANYARD_SERVICE_KEY": "sk_svc_abc",
    "ENCRYPTION_KEY": KEY,
}


def load(**variables: str) -> Settings:
    return load_settings({"ENCRYPTION_KEY": KEY, **variables})


def refused(variables: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({"ENCRYPTION_KEY": KEY, **variables})
    return str(caught.value)


def test_nothing_configured_is_a_standalone_ledger_on_this_machine() -> None:
    settings = load()
    assert (settings.env, settings.identity, settings.log) == ("development", "standalone", "console")
    assert (settings.host, settings.port, settings.slug) == ("127.0.0.1", 5002, "ledger")
    assert (settings.timezone.key, settings.data_dir) == ("UTC", Path(".ledger").absolute())
    assert (settings.database_url, settings.lanyard_url, settings.dashboard_url) == (None, None, None)
    assert (settings.api_processes, settings.worker_processes, settings.worker_concurrency) == (1, 1, 50)
    assert (settings.database_pool, settings.worker_database_pool) == (10, 10)
    assert (settings.rate_limit, settings.service_rate_limit) == (1200, 0)
    assert (settings.metrics_token, settings.stripe_api_base) == (None, None)
    assert settings.webhook_allowed_networks == ()


def test_production_is_lanyard_on_every_address_with_a_log_for_machines() -> None:
    settings = load_settings(PRODUCTION)
    assert (settings.env, settings.identity, settings.host, settings.log) == (
        "production",
        "lanyard",
        "0.0.0.0",
        "json",
    )
    assert settings.encryption_key == Secret(bytes.fromhex(KEY))


def test_a_service_key_means_lanyard() -> None:
    settings = load(LANYARD_URL="http://lanyard:3000/", LANYARD_SERVICE_KEY="sk_svc_abc")
    assert (settings.identity, settings.lanyard_url) == ("lanyard", "http://lanyard:3000")


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("PORT", "8080", "port", 8080),
        ("PORT", " 8080 ", "port", 8080),
        ("PORT", "", "port", 5002),
        ("HOST", "::1", "host", "::1"),
        ("HOST", "localhost", "host", "localhost"),
        ("LEDGER_SLUG", "billing-2", "slug", "billing-2"),
        ("LEDGER_LOG", "json", "log", "json"),
        ("LEDGER_RATE_LIMIT", "0", "rate_limit", 0),
        ("LEDGER_SERVICE_RATE_LIMIT", "600", "service_rate_limit", 600),
        ("LEDGER_API_PROCESSES", "4", "api_processes", 4),
        ("LEDGER_WORKER_PROCESSES", "2", "worker_processes", 2),
        ("LEDGER_WORKER_CONCURRENCY", "200", "worker_concurrency", 200),
        ("LEDGER_DATABASE_POOL", "25", "database_pool", 25),
        ("LEDGER_WORKER_DATABASE_POOL", "5", "worker_database_pool", 5),
        ("DASHBOARD_URL", "https://dash.example/app/", "dashboard_url", "https://dash.example/app"),
        ("STRIPE_API_BASE", "http://127.0.0.1:12111", "stripe_api_base", "http://127.0.0.1:12111"),
        ("LEDGER_MAIL_TEMPLATES", "/etc/ledger/mail", "mail_templates", Path("/etc/ledger/mail")),
        ("LEDGER_MAIL_TEMPLATES", "", "mail_templates", None),
        ("ENCRYPTION_KEY_PREVIOUS", "AB" * 32, "encryption_key_previous", Secret(b"\xab" * 32)),
        ("LEDGER_METRICS_TOKEN", "0123456789abcdef", "metrics_token", Secret("0123456789abcdef")),
        (
            "WEBHOOK_ALLOWED_NETWORKS",
            "10.0.0.0/8, fd00::/8,127.0.0.1",
            "webhook_allowed_networks",
            (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32")),
        ),
    ],
)
def test_a_right_value_is_taken(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load(**{name: text}), field) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("postgres://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgresql://u:p@h:5433/d?sslmode=require", "postgresql://u:p@h:5433/d?sslmode=require"),
        ("postgresql+asyncpg://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u@h1:5432,h2:5433/d", "postgresql://u@h1:5432,h2:5433/d"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://u@/d?host=/run/pg&port=5432", "postgresql://u@/d?host=/run/pg&port=5432"),
        ("postgresql:///d", "postgresql:///d"),
        ("postgresql://u:p%40%2F@h/d", "postgresql://u:p%40%2F@h/d"),
    ],
)
def test_a_database_url_is_taken_in_its_usual_forms(text: str, value: str) -> None:
    settings = load(DATABASE_URL=text)
    assert settings.require_database_url() == value


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("PORT", "many", "must be a whole number from 1 to 65535"),
        ("PORT", "0", "must be a whole number"),
        ("PORT", "65536", "must be a whole number"),
        ("PORT", "5002.0", "must be a whole number"),
        ("PORT", "-1", "must be a whole number"),
        ("PORT", "9" * 5000, "must be a whole number"),
        ("PORT", "٣", "must be a whole number"),
        ("HOST", "http://127.0.0.1", "must be an address to listen on"),
        ("HOST", "127.0.0.1:80", "must be an address to listen on"),
        ("HOST", "a b", "must be an address to listen on"),
        ("HOST", "0.0.0.0", "must be a loopback address"),
        ("HOST", "192.168.1.5", "must be a loopback address"),
        ("LEDGER_MAIL_TEMPLATES", "/etc/passwd", "must be a directory"),
        ("LEDGER_SLUG", "Ledger", "must be 1 to 40 lower-case letters"),
        ("LEDGER_SLUG", "a/b", "must be 1 to 40 lower-case letters"),
        ("LEDGER_SLUG", "a" * 41, "must be 1 to 40 lower-case letters"),
        ("LEDGER_TIMEZONE", "Mars/Olympus", "must be the name of a time zone"),
        ("LEDGER_TIMEZONE", "../../etc/passwd", "must be the name of a time zone"),
        ("LEDGER_TIMEZONE", "Europe", "must be the name of a time zone"),
        ("LEDGER_IDENTITY", "none", "must be lanyard or standalone"),
        ("LEDGER_ENV", "prod", "must be development or production"),
        ("LEDGER_LOG", "text", "must be console or json"),
        ("LEDGER_RATE_LIMIT", "-1", "must be a whole number from 0"),
        ("LEDGER_SERVICE_RATE_LIMIT", "lots", "must be a whole number from 0"),
        ("LEDGER_API_PROCESSES", "0", "must be a whole number from 1"),
        ("LEDGER_WORKER_PROCESSES", "two", "must be a whole number from 1"),
        ("LEDGER_WORKER_CONCURRENCY", "1e3", "must be a whole number from 1"),
        ("LEDGER_DATABASE_POOL", "0", "must be a whole number from 1"),
        ("LEDGER_WORKER_DATABASE_POOL", "501", "must be a whole number from 3"),
        ("LANYARD_URL", "lanyard.example", "must be an http:// or https:// address"),
        ("LANYARD_URL", "ftp://lanyard.example", "must be an http:// or https:// address"),
        ("LANYARD_URL", "https://", "must be an http:// or https:// address"),
        ("LANYARD_URL", "https://user:hidden@h", "must be an http:// or https:// address without user"),
        ("LANYARD_URL", "https://h:99999", "must be an http:// or https:// address"),
        ("LANYARD_URL", "https://[::1", "must be an http:// or https:// address"),
        ("DASHBOARD_URL", "https://h/?x=1", "must be an http:// or https:// address"),
        ("STRIPE_API_BASE", "https://h/ x", "must be an http:// or https:// address"),
        ("DATABASE_URL", "mysql://u:hidden@h/d", "must look like postgresql://"),
        ("DATABASE_URL", "u:hidden@h/d", "must look like postgresql://"),
        ("DATABASE_URL", "postgresql://u:hid#den@h/d", "must look like postgresql://"),
        ("DATABASE_URL", "postgresql://u:hidden@h:port/d", "must look like postgresql://"),
        ("DATABASE_URL", "postgresql://u:hid den@h/d", "must look like postgresql://"),
        ("ENCRYPTION_KEY", "0" * 64, "must be 64 hexadecimal digits, not all zero"),
        ("ENCRYPTION_KEY", "hidden", "must be 64 hexadecimal digits"),
        ("ENCRYPTION_KEY", "g" * 64, "must be 64 hexadecimal digits"),
        ("ENCRYPTION_KEY", "ab" * 33, "must be 64 hexadecimal digits"),
        ("ENCRYPTION_KEY_PREVIOUS", "0" * 64, "must be 64 hexadecimal digits"),
        ("LANYARD_SERVICE_KEY", "two hidden", "must consist of visible ASCII characters"),
        ("LEDGER_METRICS_TOKEN", "hidden", "must consist of at least 16 visible ASCII characters"),
        ("WEBHOOK_ALLOWED_NETWORKS", "10.0.0.1/8", "must be networks in CIDR form"),
        ("WEBHOOK_ALLOWED_NETWORKS", "everywhere", "must be networks in CIDR form"),
        ("LEDGER_DATA_DIR", "/dev/null", "must be a directory"),
        ("LEDGER_DATA_DIR", "~nobody-of-this-name/x", "must be a directory"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_variable_and_shows_no_secret(
    name: str, text: str, part: str
) -> None:
    # A service key makes other rules apply, which are not the matter here.
    needed = {"LANYARD_URL": "http://lanyard"} if name == "LANYARD_SERVICE_KEY" else {}
    sentence = refused({**needed, name: text})
    assert sentence.startswith(f"{name} {part}"), sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "hid" not in sentence


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"LEDGER_IDENTITY": "standalone"}, "LEDGER_IDENTITY"),
        ({"LANYARD_SERVICE_KEY": ""}, "LEDGER_IDENTITY"),
        ({"LANYARD_URL": ""}, "LANYARD_URL"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"ENCRYPTION_KEY": ""}, "ENCRYPTION_KEY"),
        ({"ENCRYPTION_KEY": "0" * 64}, "ENCRYPTION_KEY"),
        ({"ENCRYPTION_KEY": "short"}, "ENCRYPTION_KEY"),
    ],
)
def test_production_refuses_what_is_only_for_trying(changes: dict[str, str], name: str) -> None:
    sentence = refused(PRODUCTION | changes)
    assert sentence.startswith(f"{name} must be ")
    assert "\n" not in sentence


def test_lanyard_needs_its_address_and_a_key() -> None:
    assert refused({"LEDGER_IDENTITY": "lanyard"}).splitlines() == [
        "LANYARD_URL must be set to Lanyard's address while LEDGER_IDENTITY is lanyard.",
        "LANYARD_SERVICE_KEY must be set to the key Lanyard gave Ledger while LEDGER_IDENTITY is lanyard.",
    ]


def test_everything_wrong_is_told_at_once() -> None:
    sentences = refused({"PORT": "x", "LEDGER_ENV": "x", "LEDGER_SLUG": "X"}).splitlines()
    assert [sentence.split()[0] for sentence in sentences] == ["LEDGER_ENV", "LEDGER_SLUG", "PORT"]


def test_a_command_that_needs_a_database_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_URL is not set.*`ledger run`, which brings a database"):
        load().require_database_url()


def test_secrets_are_not_shown() -> None:
    secrets = {
        "DATABASE_URL": "postgresql://u:hidden-password@h/d",
        "LANYARD_SERVICE_KEY": "sk_svc_hidden",
        "LEDGER_METRICS_TOKEN": "hidden-hidden-hidden",
        "ENCRYPTION_KEY_PREVIOUS": "ab" * 32,
    }
    settings = load(LANYARD_URL="http://lanyard", **secrets)
    for shown in (repr(settings), str(settings), f"{settings.database_url}", f"{settings.encryption_key}"):
        assert "hidden" not in shown
        assert KEY not in shown
        assert r"\xab" not in shown


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        f"PORT=6001\nexport LEDGER_SLUG='from-file'\nENCRYPTION_KEY={KEY}\nDASHBOARD_URL=http://${{HOST}}\n"
    )
    settings = load_settings({"PORT": "6002", "LEDGER_SLUG": "", "DASHBOARD_URL": "http://dash"}, file)
    assert (settings.port, settings.slug, settings.dashboard_url) == (6002, "from-file", "http://dash")


def test_the_file_is_taken_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(f"ENCRYPTION_KEY={KEY}\nDATABASE_URL='postgresql://u:a${{HOME}}b@h/d'\n")
    assert load_settings({}, file).require_database_url() == "postgresql://u:a${HOME}b@h/d"


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"PORT=\xff\xfe\n")
    with pytest.raises(SettingsError, match="must be a readable text file in UTF-8"):
        load_settings({}, file)


def test_a_key_for_development_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    first = load_settings({"LEDGER_DATA_DIR": str(directory)})
    assert load_settings({"LEDGER_DATA_DIR": str(directory)}).encryption_key == first.encryption_key
    assert len(first.encryption_key.reveal()) == 32
    assert any(first.encryption_key.reveal())
    assert stat.S_IMODE((directory / "encryption.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [path.name for path in directory.iterdir()] == ["encryption.key"]


def test_processes_that_start_together_get_the_same_key(tmp_path: Path) -> None:
    keys: list[bytes] = []

    def start() -> None:
        keys.append(load_settings({"LEDGER_DATA_DIR": str(tmp_path)}).encryption_key.reveal())

    threads = [Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 16
    assert len(set(keys)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["encryption.key"]


@pytest.mark.parametrize("content", ["", "0" * 64, "rubbish", "ab" * 31])
def test_a_damaged_key_file_is_told_and_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "encryption.key").write_text(content)
    with pytest.raises(SettingsError, match=r"ENCRYPTION_KEY is not set and .* does not hold one"):
        load_settings({"LEDGER_DATA_DIR": str(tmp_path)})
    assert (tmp_path / "encryption.key").read_text() == content


def test_nothing_is_written_when_a_value_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        load_settings({"LEDGER_DATA_DIR": str(tmp_path), "PORT": "x"})
    assert list(tmp_path.iterdir()) == []


def test_the_example_file_names_every_variable_and_its_values_are_right() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    shown = dict(re.findall(r"^#([A-Z_]+)=(.*)$", example, re.MULTILINE))
    source = Path(settings_module.__file__).read_text()
    assert set(shown) == set(re.findall(r'read\.\w+\(\s*"([A-Z_]+)"', source))
    assert load(**shown).port == 5002
