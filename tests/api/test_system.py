"""What other programs ask about Ledger itself, and what every answer carries."""

from openapi_spec_validator import OpenAPIV30SpecValidator

from ledger.app import APP_VERSION, all_operations
from ledger.database.installation import upsert_worker
from ledger.web.operation import PUBLIC
from tests.conftest import StartLedger
from tests.installation import USER, Answer, Client, Installation, free_port

UNKNOWN = "0199c0de-0000-7000-8000-000000000001"
# Stripe proves itself by a signature.
SIGNED = {"/api/webhooks/stripe", "/api/webhooks/stripe/{providerId}", "/api/webhooks/stripe/{id}"}
TOKEN = "scrape-me-0123456789"


async def test_health_is_public_and_says_ok(ledger: Installation) -> None:
    answer = await ledger.nobody.get("/api/health")

    assert (answer.status, answer.body) == (200, {"ok": True, "service": "ledger"})
    # A credential that proves nothing does no harm where none is needed.
    stranger = ledger.client({"Authorization": "Bearer made-up"})
    assert (await stranger.get("/api/health")).status == 200


async def test_ready_names_each_check_and_when_a_worker_was_seen(ledger: Installation) -> None:
    before = await ledger.nobody.get("/api/ready")
    async with ledger.services.database.connection() as connection:
        await upsert_worker(connection, worker_id="w", version=APP_VERSION, now=ledger.clock.now())
    after = await ledger.nobody.get("/api/ready")

    # A worker is not needed for serving.
    assert (before.status, before.body) == (
        200,
        {"ready": True, "checks": {"database": "ok", "migrations": "ok"}, "workerLastSeen": None},
    )
    assert after.body["workerLastSeen"] == "2026-03-15T09:30:00.000Z"


async def test_a_database_that_is_not_migrated_is_not_ready(ledger: Installation) -> None:
    await ledger.sql("update alembic_version set version_num = '0000'")

    answer = await ledger.nobody.get("/api/ready")

    assert (answer.status, answer.body["ready"]) == (503, False)
    assert answer.body["checks"]["database"] == "ok"
    assert answer.body["checks"]["migrations"].endswith("run `ledger migrate`")
    assert answer.headers["Retry-After"]


async def test_without_its_database_ledger_says_so(start_ledger: StartLedger) -> None:
    nowhere = f"postgresql://ledger@127.0.0.1:{free_port()}/ledger"
    ledger = await start_ledger(DATABASE_URL=nowhere)

    health = await ledger.nobody.get("/api/health")
    ready = await ledger.nobody.get("/api/ready")
    listed = await ledger.staff.get("/api/invoices")
    body = {"userId": USER, "items": [{"description": "Fee", "unitPrice": 1}]}
    created = await ledger.shop.post("/api/invoices", body)

    assert (health.status, health.body) == (503, {"ok": False, "service": "ledger"})
    assert (ready.status, ready.body["ready"]) == (503, False)
    assert ready.body["checks"]["database"].startswith("does not answer")
    assert ready.body["checks"]["migrations"] == "unknown"
    for answer in (listed, created):
        assert (answer.status, answer.error) == (503, "The database does not answer; try again in a few seconds")
    for answer in (health, ready, listed, created):
        assert int(answer.headers["Retry-After"]) > 0
        assert nowhere.encode() not in answer.content


async def test_the_api_document_is_public_valid_and_has_every_schema_in_place(ledger: Installation) -> None:
    answer = await ledger.nobody.get("/api/openapi")

    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.body
    assert (document["openapi"], document["info"]["version"]) == ("3.0.3", APP_VERSION)
    OpenAPIV30SpecValidator(document).validate()
    assert b'"$ref"' not in answer.content
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(operation.method, operation.path) for operation in all_operations()}


async def test_metrics_count_requests_and_invoices_and_name_nobody(ledger: Installation) -> None:
    await ledger.create_invoice()

    answer = await ledger.nobody.get("/metrics")

    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    text = answer.content.decode()
    assert 'ledger_requests_total{method="POST",route="/api/invoices",status="201"}' in text
    assert "ledger_invoices_issued_total" in text
    assert USER not in text


async def test_metrics_are_for_this_machine_unless_there_is_a_token(
    ledger: Installation, start_ledger: StartLedger
) -> None:
    # A proxy on this machine comes from loopback as well, on behalf of anybody.
    proxied = ledger.client({"X-Forwarded-For": "203.0.113.7"})
    assert (await proxied.get("/metrics")).status == 401

    guarded = await start_ledger(LEDGER_METRICS_TOKEN=TOKEN)
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer tökén"}, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "203.0.113.7"}, 200),
    ):
        assert (await guarded.client(headers).get("/metrics")).status == status, headers


async def some_answers(ledger: Installation, caller: Client) -> list[Answer]:
    """One answer of every kind: data, refusals, unknown paths, methods, and the documents."""
    return [
        await caller.get("/api/invoices"),
        await caller.get("/api/invoices?limit=0"),
        await caller.get(f"/api/invoices/{UNKNOWN}"),
        await caller.post("/api/invoices", {}),
        await caller.put("/api/settings", {}),
        await caller.delete("/api/service-access/nobody"),
        await caller.get("/api/nothing"),
        await caller.get("/"),
        await caller.send("PATCH", "/api/invoices"),
        await caller.send("OPTIONS", "/api/invoices"),
        await caller.send("HEAD", "/api/invoices"),
        await caller.get("/api/health"),
        await caller.get("/api/ready"),
        await caller.get("/api/openapi"),
        await caller.get("/metrics"),
    ]


async def test_every_answer_forbids_storing_and_sniffing(ledger: Installation) -> None:
    for caller in (ledger.staff, ledger.user, ledger.shop, ledger.nobody):
        for answer in await some_answers(ledger, caller):
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_error_is_a_problem_with_a_sentence_for_people(ledger: Installation) -> None:
    for caller in (ledger.staff, ledger.user, ledger.nobody):
        for answer in await some_answers(ledger, caller):
            if answer.status >= 400 and answer.content:
                problem = answer.body
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert set(problem) - {"errors", "required"} == {"type", "title", "status", "detail", "error"}
                assert problem["status"] == answer.status
                assert problem["error"] == problem["detail"] != ""
                assert ("required" in problem) == (answer.status == 403)


async def test_a_requests_id_is_given_back_or_made_up(ledger: Installation) -> None:
    async def id_of_answer(path: str, given: str | None) -> str:
        headers = {} if given is None else {"X-Request-Id": given}
        return (await ledger.staff.send("GET", path, headers=headers)).headers["X-Request-Id"]

    for path in ("/api/invoices", "/api/health", "/api/nothing", "/metrics", f"/api/invoices/{UNKNOWN}"):
        for harmless in ("order-4711.retry_2", "x" * 64):
            assert await id_of_answer(path, harmless) == harmless
        odd = (None, "", "two words", "x" * 65, 'a"b', "ü", "<script>")
        made = [await id_of_answer(path, given) for given in odd]
        assert len(set(made)) == len(odd)
        assert all(len(each) == 36 for each in made)


async def test_head_is_answered_like_get_without_the_body(ledger: Installation) -> None:
    for path in ("/api/health", "/api/invoices", f"/api/invoices/{UNKNOWN}", "/metrics"):
        get = await ledger.staff.send("GET", path)
        head = await ledger.staff.send("HEAD", path)
        assert (head.status, head.content) == (get.status, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert (await ledger.nobody.send("HEAD", "/api/invoices")).status == 401


async def test_options_and_wrong_methods_name_the_right_ones(ledger: Installation) -> None:
    for path, methods in (
        ("/api/invoices", {"GET", "HEAD", "OPTIONS", "POST"}),
        (f"/api/invoices/{UNKNOWN}/cancel", {"OPTIONS", "POST"}),
        ("/api/settings", {"GET", "HEAD", "OPTIONS", "PUT"}),
        ("/api/health", {"GET", "HEAD", "OPTIONS"}),
        ("/metrics", {"GET", "HEAD", "OPTIONS"}),
    ):
        options = await ledger.nobody.send("OPTIONS", path)
        assert (options.status, options.content) == (204, b"")
        assert set(options.headers["Allow"].split(", ")) == methods
        wrong = await ledger.staff.send("PATCH", path, data=b"{}")
        assert wrong.status == 405
        assert set(wrong.headers["Allow"].split(", ")) == methods
        assert wrong.error == "This path does not take that method; the API is described at /api/openapi"
    assert (await ledger.nobody.send("OPTIONS", "/api/nothing")).status == 404


async def test_an_unknown_path_is_not_found_by_anybody(ledger: Installation) -> None:
    for caller in (ledger.staff, ledger.nobody):
        answer = await caller.get("/api/nothing")
        assert answer.status == 404
        assert answer.error == "There is nothing at this path; the API is described at /api/openapi"


def test_only_these_operations_are_answered_to_anybody() -> None:
    public = {operation.path for operation in all_operations() if operation.callers & PUBLIC}

    assert public - SIGNED == {"/api/health", "/api/ready", "/api/openapi"}


async def test_nobody_proven_is_turned_away_and_told_how_to_come_back(ledger: Installation) -> None:
    for headers in (
        {},
        {"X-User-Id": USER, "X-User-Permissions": "ledger:manage", "X-User-Role": "admin"},
        {"Authorization": "Bearer made-up"},
        {"Authorization": "ServiceKey made-up"},
        {"Authorization": "Basic c3RhZmY6c3RhZmY="},
        {"Authorization": "token-staff"},
        # The proof says another name than the header: something is mixed up.
        {"Authorization": "Bearer token-staff", "X-User-Id": USER},
    ):
        answer = await ledger.client(headers).get("/api/invoices")
        assert (answer.status, answer.error) == (401, "Unauthorized"), headers
        assert answer.headers["WWW-Authenticate"] == "Bearer, ServiceKey"


async def test_who_asks_too_often_is_told_when_to_come_back(start_ledger: StartLedger) -> None:
    limited = await start_ledger(LEDGER_RATE_LIMIT="5")

    answers = [await limited.user.get("/api/my/invoices") for _ in range(6)]

    assert [answer.status for answer in answers] == [200] * 5 + [429]
    wait_s = int(answers[-1].headers["Retry-After"])
    assert 1 <= wait_s <= 60
    assert answers[-1].error == f"Too many requests; try again in {wait_s} s"
    assert (await limited.staff.get("/api/my/invoices")).status == 200
    assert (await limited.nobody.get("/api/health")).status == 200
