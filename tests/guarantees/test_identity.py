"""Identity and access: A1 to A6. (A8, the limits, is in `test_limits.py`; A7 in the tests of the secrets.)"""

import asyncio
import re
from collections.abc import Iterable
from urllib.parse import quote

import msgspec
import pytest

from ledger.app import all_operations
from ledger.lanyard_identity import CachedIdentity
from tests.fakes.lanyard import FakeLanyard, HandMovedTime, Mode
from tests.guarantees.access_matrix import CALLERS, MATRIX, path_for
from tests.guarantees.raw_http import Headers, send
from tests.guarantees.scale import scaled
from tests.installation import OTHER, SHOP, STAFF, USER, Client, Installation

HONEST_USER = ("Authorization", "Bearer token-user")
HONEST_STAFF = ("Authorization", "Bearer token-staff")
# What the Dashboard's proxy would send along for a member of staff.
POSING_AS_STAFF: Headers = (
    ("X-User-Id", STAFF),
    ("X-User-Name", "Ada Admin"),
    ("X-User-Email", "ada@example.org"),
    ("X-User-Role", "admin"),
    ("X-User-Permissions", "ledger:manage"),
    ("X-User-Org-Roles", '[{"orgId":"org1","name":"Finance","slug":"ledger","role":"owner"}]'),
    ("X-Forwarded-For", "127.0.0.1"),
)
CLAIMS = POSING_AS_STAFF[3:]

# Nobody is proven by these: 401, whatever the operation.
PROVES_NOBODY: dict[str, Headers] = {
    "nothing but claims": POSING_AS_STAFF,
    "claims in odd case": [(name.swapcase(), value) for name, value in POSING_AS_STAFF],
    "a made-up token": [("Authorization", "Bearer made-up"), *POSING_AS_STAFF],
    "an expired token": [("Authorization", "Bearer token-expired"), *POSING_AS_STAFF],
    "a revoked service key": [("Authorization", "ServiceKey sk_svc_revoked")],
    "a disabled service's key": [("Authorization", "ServiceKey sk_svc_disabled")],
    "an honest token beside another's id": [HONEST_USER, *POSING_AS_STAFF],
    "another's id in odd case": [HONEST_USER, ("x-uSER-iD", STAFF)],
    "both ids": [HONEST_USER, ("X-User-Id", USER), ("X-User-Id", STAFF)],
    "both ids in one header": [HONEST_USER, ("X-User-Id", f"{USER}, {STAFF}")],
    "an empty id": [HONEST_USER, ("X-User-Id", "")],
    "a reserved id": [HONEST_USER, ("X-User-Id", f"service:{SHOP}")],
    "the id in another case": [HONEST_USER, ("X-User-Id", USER.upper())],
    "staff's token beside the user's id": [HONEST_STAFF, ("X-User-Id", USER)],
    "two tokens, staff's last": [HONEST_USER, HONEST_STAFF],
    "two tokens, staff's first": [HONEST_STAFF, HONEST_USER],
    "the same token twice": [HONEST_STAFF, HONEST_STAFF],
    "an honest token and a made-up one": [HONEST_STAFF, ("authorization", "Bearer made-up")],
    "a token and a service key": [HONEST_STAFF, ("AUTHORIZATION", "ServiceKey sk_svc_shop")],
    "two tokens in one header": [("Authorization", "Bearer token-user, Bearer token-staff")],
    "a service key as a token": [("Authorization", "Bearer sk_svc_shop")],
    "a token as a service key": [("Authorization", "ServiceKey token-staff")],
    "a token without its scheme": [("Authorization", "token-staff")],
    "a scheme without a token": [("Authorization", "Bearer")],
    "another scheme": [("Authorization", "Basic token-staff")],
    "a scheme with a look-alike letter": [("Authorization", "ServiceKey sk_svc_shop".replace("s", "\u017f"))],
    "a token in the place of a proxy's": [("Proxy-Authorization", "Bearer token-staff")],
    "a token in a cookie": [("Cookie", "token=token-staff; session=token-staff")],
}
# These prove somebody, and what they claim beyond that is not heard.
PROVES_LESS_THAN_IT_CLAIMS: dict[str, tuple[str, Headers]] = {
    "a user who claims permissions": ("owner", [HONEST_USER, *CLAIMS]),
    "a user who claims them in odd case": ("owner", [HONEST_USER, *((name.lower(), value) for name, value in CLAIMS)]),
    "another user who claims permissions": (
        "other user",
        [("Authorization", "Bearer token-other"), ("X-User-Id", OTHER), *CLAIMS],
    ),
    "a service that claims to be staff": (
        "other service",
        [("Authorization", "ServiceKey sk_svc_camp"), *POSING_AS_STAFF],
    ),
}
# Odd, but right.
HONEST: dict[str, tuple[str, Headers]] = {
    "a user": ("owner", [HONEST_USER]),
    "a user with all headers of the proxy": (
        "owner",
        [HONEST_USER, ("X-User-Id", USER), ("X-User-Role", "user"), ("X-User-Permissions", "")],
    ),
    "a user in odd case": ("owner", [("aUTHORIZATION", "bEARER token-user"), ("x-user-id", USER)]),
    "staff": ("staff", [HONEST_STAFF]),
    "staff with all headers of the proxy": ("staff", [HONEST_STAFF, *POSING_AS_STAFF]),
    "staff who understate themselves": ("staff", [HONEST_STAFF, ("X-User-Role", "user"), ("X-User-Permissions", "")]),
    "a service": ("creator", [("Authorization", "ServiceKey sk_svc_shop")]),
    "a service in odd case": ("creator", [("AUTHORIZATION", "sERVICEkEY  sk_svc_shop")]),
    "another service": ("other service", [("Authorization", "ServiceKey sk_svc_camp")]),
}


def callers_of(ledger: Installation) -> dict[str, Client]:
    clients = (ledger.nobody, ledger.user, ledger.other, ledger.staff, ledger.shop, ledger.camp)
    return dict(zip(CALLERS, clients, strict=True))


def identity_of(ledger: Installation, moved: HandMovedTime) -> CachedIdentity:
    """The application's identity cache, from now on in a time that the test moves."""
    identity = ledger.services.identity
    assert isinstance(identity, CachedIdentity)
    identity._monotonic_s = moved
    return identity


async def test_a1_no_forged_identity_is_accepted_by_any_operation(ledger: Installation, lanyard: FakeLanyard) -> None:
    """Seen failing with the comparison of `X-User-Id` taken out of `_prove`, with only the first of several
    `Authorization` headers read, and with permissions added from `X-User-Permissions`."""
    lanyard.add_service("svc-gone-0000000000001", "sk_svc_disabled")
    lanyard.disable_service("svc-gone-0000000000001")
    accepted: list[str] = []
    for row in MATRIX:
        path = await path_for(row, ledger)
        for forgery, headers in PROVES_NOBODY.items():
            answer = await send(ledger.url, row.method, path, headers=headers, body=row.body)
            if answer.status != row.status_of("anonymous"):
                accepted.append(f"{row.name} by {forgery}: {answer.status}")
            if not row.is_public and answer.status == 401:
                assert answer.error == "Unauthorized"
                assert answer.headers["Www-Authenticate"] == "Bearer, ServiceKey"
        for forgery, (caller, headers) in PROVES_LESS_THAN_IT_CLAIMS.items():
            answer = await send(ledger.url, row.method, path, headers=headers, body=row.body)
            if answer.status != row.status_of(caller):
                accepted.append(f"{row.name} by {forgery}: {answer.status} instead of {row.status_of(caller)}")
    assert accepted == []
    # A token in the URL is not looked at either.
    assert (await send(ledger.url, "GET", "/api/my/invoices?access_token=token-staff&token=token-staff")).status == 401


async def test_a1_every_honest_request_is_accepted(ledger: Installation) -> None:
    """Seen failing with schemes compared in one case only."""
    refused: list[str] = []
    for row in MATRIX:
        for honest, (caller, headers) in HONEST.items():
            path = await path_for(row, ledger)
            answer = await send(ledger.url, row.method, path, headers=headers, body=row.body)
            if answer.status != row.status_of(caller):
                refused.append(f"{row.name} by {honest}: {answer.status} instead of {row.status_of(caller)}")
    assert refused == []


@pytest.mark.parametrize(
    ("credential", "user_id"),
    [
        ("Bearer token-staff", f"service:{SHOP}"),
        ("Bearer token-staff", "service:"),
        ("Bearer token-staff", ""),
        ("Bearer token-staff", "../../admin"),
        ("Bearer token-staff", f"{STAFF}\x00"),
        ("ServiceKey sk_svc_shop", STAFF),
        ("ServiceKey sk_svc_shop", "service:"),
        ("ServiceKey sk_svc_shop", "service:../x"),
        ("ServiceKey sk_svc_shop", f"SERVICE:{SHOP}"),
    ],
)
async def test_a1_an_answer_of_lanyard_that_does_not_fit_the_credential_proves_nobody(
    ledger: Installation, lanyard: FakeLanyard, credential: str, user_id: str
) -> None:
    """Seen failing with the prefix taken off whatever scheme was sent: a person became a service."""
    body = msgspec.json.encode({"userId": user_id, "permissions": ["ledger:manage"], "orgRoles": []})
    lanyard.permissions_answer = (200, body, {"Content-Type": "application/json"})
    for row in MATRIX:
        if not row.is_public:
            path = row.path.replace("{id}", "01890000-0000-7000-8000-000000000001")
            answer = await send(ledger.url, row.method, path, headers=[("Authorization", credential)], body=row.body)
            assert answer.status == 503, row.name
            assert "Retry-After" in answer.headers


@pytest.mark.parametrize(
    "permissions",
    [
        [],
        ["LEDGER:MANAGE", "ledger:manage ", " ledger:manage", "ledger", "manage", "ledger:*", "*", "admin"],
        ["events:manage", "ledger:managers", "ledger:manage,ledger:manage"],
        [{"ledger:manage": True}, ["ledger:manage"], None, 1],
    ],
)
async def test_a1_nothing_but_the_exact_permission_makes_staff(
    ledger: Installation, lanyard: FakeLanyard, permissions: list[object]
) -> None:
    """Seen failing with permissions compared after `strip().lower()`."""
    lanyard.set_permissions(OTHER, permissions)
    answer = await ledger.other.get("/api/invoices")
    assert (answer.status, answer.body["required"]) == (403, "ledger:manage")


def test_a2_every_operation_has_its_row() -> None:
    """Seen failing with a feature whose operations are not in the table."""
    declared = {f"{operation.method} {operation.path}" for operation in all_operations()}
    assert declared == {row.name for row in MATRIX}
    assert all(len(row.statuses) == len(CALLERS) for row in MATRIX)


async def test_a2_no_cell_of_the_authorisation_matrix_is_wrong(ledger: Installation) -> None:
    """Seen failing with an operation of staff opened to every user, and with a service's foreign invoices shown."""
    wrong: list[str] = []
    for row in MATRIX:
        for caller, client in callers_of(ledger).items():
            path = await path_for(row, ledger)
            data = None if row.body is None else msgspec.json.encode(row.body)
            answer = await client.send(row.method, path, data=data)
            if answer.status != row.status_of(caller):
                wrong.append(f"{row.name} by {caller}: {answer.status} instead of {row.status_of(caller)}")
    assert wrong == []


async def test_a2_a_grant_opens_what_it_says_and_its_end_closes_it(ledger: Installation) -> None:
    """Seen failing with `read` taken for `manage`."""
    seen: dict[str, tuple[int, int]] = {}
    for access in ("own", "read", "manage", "own"):
        await ledger.staff.post("/api/service-access", {"serviceId": "svc-camp-0000000000001", "access": access})
        at = f"/api/invoices/{(await ledger.create_invoice()).body['id']}"
        statuses = ((await ledger.camp.get(f"{at}/status")).status, (await ledger.camp.post(f"{at}/mark-paid")).status)
        assert seen.setdefault(access, statuses) == statuses
    assert seen == {"own": (404, 404), "read": (200, 404), "manage": (200, 200)}


@pytest.mark.parametrize("every_s", [1.0, 15.2])
@pytest.mark.parametrize("what", ["token", "service key", "permission"])
async def test_a3_what_was_revoked_is_last_accepted_within_30_seconds(
    ledger: Installation, lanyard: FakeLanyard, what: str, every_s: float
) -> None:
    """Seen failing with answers kept for 20 s instead of 15."""
    moved = HandMovedTime()
    identity_of(ledger, moved)
    lanyard.monotonic_s, lanyard.own_cache_s = moved, 15.0
    client, path = (ledger.staff, "/api/payments") if what != "service key" else (ledger.shop, "/api/invoices/x/status")
    accepted_status = 200 if what != "service key" else 404

    # The worst case: Lanyard has just answered another program, keeps that for 15 s, and tells us at the very end.
    elsewhere = f"{lanyard.url}/api/services/ledger/permissions"
    async with ledger.session.get(elsewhere, headers=client.headers) as asked:
        assert asked.status == 200
    revoked_at_s = moved()
    {
        "token": lambda: lanyard.revoke("token-staff"),
        "service key": lambda: lanyard.revoke("sk_svc_shop"),
        "permission": lambda: lanyard.set_permissions(STAFF, []),
    }[what]()
    moved.move(14.9)
    last_accepted_s = 0.0
    while moved() - revoked_at_s < 50:
        answer = await client.get(path)
        if answer.status == accepted_status:
            last_accepted_s = moved() - revoked_at_s
        else:
            assert answer.status == (403 if what == "permission" else 401)
        moved.move(every_s)
        await asyncio.sleep(0.01)
    assert 14 < last_accepted_s <= 30


@pytest.mark.parametrize("mode", ["hang", "500", "429", "reset", "garbage"])
async def test_a4_while_lanyard_cannot_say_known_callers_are_served_and_unknown_ones_told_to_wait(
    ledger: Installation, lanyard: FakeLanyard, mode: Mode
) -> None:
    """Seen failing with silence taken for a refusal, and with the last good answer kept for 20 s only."""
    moved = HandMovedTime()
    identity_of(ledger, moved)
    assert (await ledger.staff.get("/api/payments")).status == 200
    lanyard.mode = mode
    for step_s in (16, 120, 150):
        moved.move(step_s)
        assert (await ledger.staff.get("/api/payments")).status == 200
    moved.move(30)
    lanyard.add_person("user-new-0000000000001", "token-new", ["ledger:manage"])
    unknown = [
        ledger.client({"Authorization": "Bearer token-new"}).get("/api/payments"),
        ledger.client({"Authorization": "Bearer made-up"}).get("/api/payments"),
        ledger.client({"Authorization": "ServiceKey sk_svc_camp"}).get("/api/invoices/x/status"),
        # More than five minutes old by now.
        ledger.staff.get("/api/payments"),
    ]
    for answer in await asyncio.gather(*unknown):
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
    lanyard.mode = "ok"
    moved.move(2)
    assert (await ledger.staff.get("/api/payments")).status == 200


async def test_a5_two_hundred_requests_with_a_cold_credential_are_one_call_to_lanyard(
    ledger: Installation, lanyard: FakeLanyard
) -> None:
    """Seen failing with a call of its own for each request."""
    lanyard.delay_s = 0.3
    answers = await asyncio.gather(*(ledger.user.get("/api/my/invoices") for _ in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert len(lanyard.calls_to("/permissions")) == 1


async def test_a5_credentials_are_kept_as_keyed_hashes_in_a_bounded_cache(
    ledger: Installation, lanyard: FakeLanyard
) -> None:
    """Seen failing with the header itself as the key, and with the limit on refused credentials taken out."""
    identity = identity_of(ledger, HandMovedTime())
    limits = msgspec.structs.replace(identity._limits, known_credentials=20, refused_credentials=20)
    identity._limits = limits
    for n in range(scaled(50)):
        lanyard.add_person(f"user-{n:04}", f"token-{n}")
        assert (await ledger.client({"Authorization": f"Bearer token-{n}"}).get("/api/my/invoices")).status == 200
        assert (await ledger.client({"Authorization": f"Bearer made-up-{n}"}).get("/api/my/invoices")).status == 401
    assert identity.credentials_kept <= 40
    kept = [*identity._known, *identity._refused_until_s]
    assert all(isinstance(key, bytes) and len(key) == 16 for key in kept)
    # Another process has another key, so that nobody can look a hash up.
    assert identity._digest("Bearer token-1") != CachedIdentity(identity._lanyard)._digest("Bearer token-1")


EVIL_WORDS = r"""
    .. ../x ../../api/users/1 %2e%2e%2fx ..%2f..%2fetc x?admin=1 x%3fadmin=1 x#y a/b a\b ' " ';-- {id} $1 % %25 * null
    -1 01890000-0000-7000-8000-00000000000g {01890000-0000-7000-8000-000000000001}
"""
EVIL_IDS = (*EVIL_WORDS.split(), "' or '1'='1", "a b", "\u00e9", "\x00", "a" * 65, "a" * 5_000)


async def test_a6_ids_that_are_no_ids_are_refused_before_any_call_leaves(
    ledger: Installation, lanyard: FakeLanyard
) -> None:
    """Seen failing with the check taken out of `id_of` (500), and with any text taken for a `userId`."""
    for client in (ledger.staff, ledger.shop, ledger.user):
        await client.get("/api/my/invoices")
    calls_before = len(lanyard.calls_to("/permissions")) + len(lanyard.calls_to("/users/"))
    wrong: list[str] = []
    for row in MATRIX:
        credential = ("Authorization", "Bearer token-user" if "/my/" in row.path else "Bearer token-staff")
        for evil in EVIL_IDS if "{id}" in row.path else ():
            path = row.path.replace("{id}", quote(evil, safe=""))
            answer = await send(ledger.url, row.method, path, headers=[credential], body=row.body)
            if answer.status not in (400, 404):
                wrong.append(f"{row.method} {path[:80]}: {answer.status}")
    for evil in (*EVIL_IDS, f"service:{SHOP}"):
        for path in (f"/api/invoices?userId={quote(evil, safe='')}", f"/api/payments?invoiceId={quote(evil, safe='')}"):
            listed = await ledger.staff.get(path)
            # An id of Lanyard's may be any short word, of which there are a few among these.
            if listed.status != 400 and not (is_user_id(evil) and "userId" in path):
                wrong.append(f"{path[:80]}: {listed.status}")
        if not is_user_id(evil):
            body = {"userId": evil, "items": [{"description": "x", "unitPrice": 1}]}
            for path, sent in (("/api/invoices", body), ("/api/invoices/batch", {"invoices": [body]})):
                created = await ledger.shop.post(path, sent)
                if created.status != 400 or not any("userId" in field for field in created.refused()):
                    wrong.append(f"{path} for {evil[:40]!r}: {created.status}")
    assert wrong == []
    assert await ledger.value("select count(*) from invoice") == 0
    assert len(lanyard.calls_to("/permissions")) + len(lanyard.calls_to("/users/")) == calls_before
    assert only_plain_paths(call.path for call in lanyard.calls)


def is_user_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) is not None


def only_plain_paths(paths: Iterable[str]) -> bool:
    plain = r"/api/(services/ledger/permissions|services/heartbeat|users/[A-Za-z0-9_-]{1,64})"
    return all(re.fullmatch(plain, path) for path in paths)
