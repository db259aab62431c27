"""The calls to Lanyard, over real HTTP: what counts as an answer, and what proves nothing."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs

from ledger.errors import BadRequest, Unauthorized, Unavailable
from ledger.identity import Credential, Person, Service, read_credential
from ledger.lanyard import LanyardClient, LanyardLimits, LanyardSilent, LanyardUser, service_id_of_key
from tests.fakes.lanyard import OWN_KEY, OWN_SERVICE_ID, FakeLanyard, Mode

ADA = "adaUserId000000000001"
SHOP = "shopServiceId00000001"
FAILURES: list[Mode] = ["500", "429", "reset", "garbage", "hang"]


@pytest.fixture
async def lanyard() -> AsyncIterator[FakeLanyard]:
    async with FakeLanyard() as server:
        server.add_person(ADA, "token-a", ["ledger:manage"], name="Ada", email="ada@example.org")
        server.add_service(SHOP, "sk_svc_shop")
        yield server


@pytest.fixture
async def client(lanyard: FakeLanyard) -> AsyncIterator[LanyardClient]:
    limits = LanyardLimits(verify_timeout_s=0.3, user_timeout_s=0.3, heartbeat_timeout_s=0.3)
    client = LanyardClient(base_url=lanyard.url + "/", slug="ledger", service_key=OWN_KEY, limits=limits)
    yield client
    await client.close()


async def test_a_person_is_proven_by_their_token(lanyard: FakeLanyard, client: LanyardClient) -> None:
    assert await client.verify("Bearer token-a") == Person(ADA, frozenset({"ledger:manage"}))
    assert [(call.path, call.authorization) for call in lanyard.calls] == [
        ("/api/services/ledger/permissions", "Bearer token-a")
    ]


async def test_a_service_is_proven_by_its_key_and_named_without_the_prefix(client: LanyardClient) -> None:
    assert await client.verify("ServiceKey sk_svc_shop") == Service(SHOP)


async def test_the_scheme_is_sent_in_its_canonical_spelling(lanyard: FakeLanyard, client: LanyardClient) -> None:
    await client.verify("bEaReR   token-a")
    assert lanyard.calls[0].authorization == "Bearer token-a"


async def test_an_unknown_credential_is_unauthorized(client: LanyardClient) -> None:
    for authorization in ("Bearer nobody", "ServiceKey sk_svc_nobody", "Bearer sk_svc_shop", "ServiceKey token-a"):
        with pytest.raises(Unauthorized):
            await client.verify(authorization)


HOSTILE_HEADERS = [
    "",
    " ",
    "Bearer",
    "Bearer ",
    "token-a",
    "Basic dXNlcjpwYXNz",
    "Bearer token-a extra",
    "Bearer token-a, Bearer token-b",
    " Bearer token-a",
    "Bearer token-a ",
    "Bearer\ttoken-a",
    "Bearer token-a\r\nX-User-Id: root",
    "Bearer token-a\n",
    "Bearer token\x00a",
    "Bearer token\x7fa",
    "Bearer tokén",
    "Bearer \ud800",
    "\u017ferviceKey sk_svc_shop",  # noqa: RUF100 - a long s, which folds to "s" outside ASCII
    "Service\u212aey sk_svc_shop",  # a Kelvin sign, which folds to "k"
    "Bearer " + "a" * 8193,
    "Bearer" + " " * 100_000 + "a",
]


@pytest.mark.parametrize("header", HOSTILE_HEADERS, ids=[repr(text[:24]) for text in HOSTILE_HEADERS])
async def test_a_hostile_header_is_refused_before_any_call_leaves(
    lanyard: FakeLanyard, client: LanyardClient, header: str
) -> None:
    with pytest.raises(Unauthorized):
        await client.verify(header)
    assert not lanyard.calls


async def test_a_token_of_8192_characters_is_sent(lanyard: FakeLanyard, client: LanyardClient) -> None:
    token = "a" * 8192
    lanyard.add_person(ADA, token)
    assert await client.verify(f"Bearer {token}") == Person(ADA)


def test_a_credential_never_shows_its_token() -> None:
    credential = read_credential("Bearer very-secret")
    assert credential == Credential("Bearer", "very-secret")
    assert "very-secret" not in f"{credential!r} {credential} {[credential]}"


@pytest.mark.parametrize("mode", FAILURES)
async def test_a_fault_of_lanyard_says_nothing_about_the_caller(
    lanyard: FakeLanyard, client: LanyardClient, mode: Mode
) -> None:
    lanyard.mode = mode
    for authorization in ("Bearer token-a", "ServiceKey sk_svc_shop"):
        with pytest.raises(Unavailable) as caught:
            await client.verify(authorization)
        assert caught.value.retry_after_s == (7 if mode == "429" else 5)


async def test_nobody_listening_says_nothing_about_the_caller() -> None:
    client = LanyardClient(base_url="http://127.0.0.1:1", slug="ledger", service_key=OWN_KEY)
    with pytest.raises(Unavailable):
        await client.verify("Bearer token-a")
    await client.close()


MALFORMED = {
    "no JSON": b"<html>",
    "empty": b"",
    "not UTF-8": b'{"userId": "\xff", "permissions": []}',
    "another shape": b'["userId"]',
    "no userId": b'{"permissions": ["ledger:manage"]}',
    "no permissions": b'{"userId": "adaUserId000000000001"}',
    "a number as id": b'{"userId": 7, "permissions": []}',
    "an empty id": b'{"userId": "", "permissions": []}',
    "an id with a slash": b'{"userId": "../admin", "permissions": []}',
    "an id with a line feed": b'{"userId": "ada\\n", "permissions": []}',
    "an id of 65 characters": b'{"userId": "%s", "permissions": []}' % (b"a" * 65),
    "permissions as text": b'{"userId": "ada", "permissions": "ledger:manage"}',
    "deep nesting": b'{"userId": "ada", "permissions": ' + b"[" * 50_000,
    "too large": b'{"userId": "ada", "permissions": [], "orgRoles": "' + b"a" * 1024 * 1024 + b'"}',
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_answer_proves_nothing(lanyard: FakeLanyard, client: LanyardClient, body: bytes) -> None:
    lanyard.permissions_answer = (200, body, {"Content-Type": "application/json"})
    for authorization in ("Bearer token-a", "ServiceKey sk_svc_shop"):
        with pytest.raises(LanyardSilent):
            await client.verify(authorization)


@pytest.mark.parametrize(
    ("authorization", "user_id"),
    [
        ("Bearer token-a", f"service:{SHOP}"),
        ("ServiceKey sk_svc_shop", ADA),
        ("ServiceKey sk_svc_shop", "service:"),
        ("ServiceKey sk_svc_shop", "service:service:x"),
        ("ServiceKey sk_svc_shop", "SERVICE:shop"),
    ],
)
async def test_an_id_of_the_other_kind_proves_nothing(
    lanyard: FakeLanyard, client: LanyardClient, authorization: str, user_id: str
) -> None:
    body = msgspec.json.encode({"userId": user_id, "permissions": ["ledger:manage"], "orgRoles": []})
    lanyard.permissions_answer = (200, body, {})
    with pytest.raises(LanyardSilent):
        await client.verify(authorization)


async def test_only_texts_of_the_permission_list_grant_anything(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.set_permissions(ADA, [None, 1, ["ledger:manage"], {"ledger:manage": True}, "other:read"])
    assert await client.verify("Bearer token-a") == Person(ADA, frozenset({"other:read"}))


@pytest.mark.parametrize("status", [204, 302, 307, 400, 403, 418, 503])
async def test_an_undocumented_status_proves_nothing_and_no_redirect_is_followed(
    lanyard: FakeLanyard, client: LanyardClient, status: int
) -> None:
    lanyard.permissions_answer = (status, b"", {"Location": f"{lanyard.url}/api/users/{ADA}"})
    with pytest.raises(LanyardSilent):
        await client.verify("Bearer token-a")
    assert len(lanyard.calls) == 1


async def test_no_cookie_of_one_caller_travels_with_another(lanyard: FakeLanyard) -> None:
    # By name, because cookies of plain addresses are refused anyway.
    url = lanyard.url.replace("127.0.0.1", "localhost")
    client = LanyardClient(base_url=url, slug="ledger", service_key=OWN_KEY)
    body = msgspec.json.encode({"userId": ADA, "permissions": []})
    lanyard.permissions_answer = (200, body, {"Set-Cookie": "session=ada; Path=/"})
    await client.verify("Bearer token-a")
    await client.verify("Bearer token-b")
    assert ["cookie" in call.headers for call in lanyard.calls] == [False, False]
    await client.close()


async def test_an_older_lanyard_proves_a_key_by_its_heartbeat(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.mode = "404-permissions"
    service = await client.verify("ServiceKey sk_svc_shop")
    assert service == Service(service_id_of_key("sk_svc_shop"))
    assert isinstance(service, Service)
    assert service.service_id.startswith("key-")
    assert "shop" not in service.service_id
    assert lanyard.calls_to("/heartbeat")[0].authorization == "ServiceKey sk_svc_shop"
    assert list(lanyard.heartbeats) == [{"status": "healthy"}]


async def test_an_older_lanyard_refuses_unknown_and_disabled_services(
    lanyard: FakeLanyard, client: LanyardClient
) -> None:
    lanyard.mode = "404-permissions"
    lanyard.disable_service(SHOP)
    for key in ("sk_svc_nobody", "sk_svc_shop"):
        with pytest.raises(Unauthorized):
            await client.verify(f"ServiceKey {key}")


async def test_an_older_lanyard_cannot_say_who_a_person_is(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.mode = "404-permissions"
    with pytest.raises(LanyardSilent):
        await client.verify("Bearer token-a")
    assert not lanyard.calls_to("/heartbeat")


async def test_an_older_lanyard_over_its_limit_proves_nothing(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.mode = "404-permissions"
    lanyard.heartbeats_a_minute = 0
    with pytest.raises(LanyardSilent) as caught:
        await client.verify("ServiceKey sk_svc_shop")
    assert caught.value.retry_after_s == 60


async def test_a_person_is_looked_up_with_ledgers_own_key(lanyard: FakeLanyard, client: LanyardClient) -> None:
    assert await client.user(ADA) == LanyardUser(user_id=ADA, name="Ada", email="ada@example.org")
    assert await client.user("deletedPerson00000001") is None
    assert {call.authorization for call in lanyard.calls} == {f"ServiceKey {OWN_KEY}"}


@pytest.mark.parametrize(
    "user_id",
    [
        *("", ".", "..", "../admin", "a/b", "a?b", "a#b", "a;b", "a\\b", "%2e%2e", "a%2fb", "service:x"),
        *("a'b", 'a"b', "a b", "a\n", "a\x00", "ä", "a" * 65),
    ],
)
async def test_an_id_that_could_change_the_url_is_refused_before_any_call_leaves(
    lanyard: FakeLanyard, client: LanyardClient, user_id: str
) -> None:
    with pytest.raises(BadRequest):
        await client.user(user_id)
    assert not lanyard.calls


def test_a_slug_that_could_change_the_url_is_refused() -> None:
    for slug in ("", "../x", "a/b", "a?b", "Ledger"):
        with pytest.raises(ValueError, match="slug"):
            LanyardClient(base_url="http://127.0.0.1", slug=slug, service_key=OWN_KEY)


async def test_an_answer_about_somebody_else_is_no_answer(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.add_person("other", "token-b", name="Other")
    lanyard._people[ADA] = lanyard._people["other"]
    with pytest.raises(LanyardSilent):
        await client.user(ADA)


@pytest.mark.parametrize("mode", FAILURES)
async def test_a_person_cannot_be_looked_up_while_lanyard_fails(
    lanyard: FakeLanyard, client: LanyardClient, mode: Mode
) -> None:
    lanyard.mode = mode
    with pytest.raises(LanyardSilent):
        await client.user(ADA)


async def test_the_heartbeat_carries_version_and_manifest(lanyard: FakeLanyard, client: LanyardClient) -> None:
    outcome = await client.heartbeat(app_version="1.2.3", manifest={"name": "Ledger", "pages": []})
    assert outcome.kind == "accepted"
    assert list(lanyard.heartbeats) == [
        {"status": "healthy", "version": "1.2.3", "uiManifest": {"name": "Ledger", "pages": []}}
    ]


async def test_a_refused_heartbeat_says_what_to_do(lanyard: FakeLanyard, client: LanyardClient) -> None:
    lanyard.disable_service(OWN_SERVICE_ID)
    disabled = await client.heartbeat(app_version="1", manifest={})
    lanyard.revoke(OWN_KEY)
    unknown = await client.heartbeat(app_version="1", manifest={})
    assert (disabled.kind, unknown.kind) == ("refused", "refused")
    assert "disabled in Lanyard" in disabled.reason
    assert "LANYARD_SERVICE_KEY" in unknown.reason


@pytest.mark.parametrize("mode", FAILURES)
async def test_a_heartbeat_never_raises_for_what_lanyard_does(
    lanyard: FakeLanyard, client: LanyardClient, mode: Mode
) -> None:
    lanyard.mode = mode
    outcome = await client.heartbeat(app_version="1", manifest={})
    assert outcome.kind == "unreachable"
    assert outcome.reason


async def test_a_long_outage_is_logged_once_and_without_secrets(lanyard: FakeLanyard, client: LanyardClient) -> None:
    with capture_logs() as logged:
        lanyard.mode = "500"
        for _ in range(5):
            with pytest.raises(LanyardSilent):
                await client.verify("Bearer token-a")
            with pytest.raises(LanyardSilent):
                await client.user(ADA)
        lanyard.mode = "ok"
        await client.verify("Bearer token-a")
    assert [line["event"] for line in logged] == ["lanyard_cannot_say"] * 2 + ["lanyard_answers_again"]
    assert not any(secret in str(logged) for secret in ("token-a", ADA, OWN_KEY))


async def test_a_closed_client_cannot_say(client: LanyardClient) -> None:
    await client.close()
    with pytest.raises(LanyardSilent):
        await client.verify("Bearer token-a")
