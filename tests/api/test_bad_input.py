"""Bad input gets an answer that names what is wrong; nothing is stored and no number is consumed."""

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.installation import USER, Answer, Installation

ITEM = {"description": "Fee", "unitPrice": 5000}
BODY: Mapping[str, object] = {"userId": USER, "items": [ITEM]}
NO_DATE = "is not a date Ledger can read; write it as 2026-12-31 or 2026-12-31T18:00:00Z"
NO_ID = "must be text of letters, digits, _ and - (at most 64)"
NUL = "must not contain the character NUL"


def with_item(**changes: object) -> dict[str, object]:
    return {**BODY, "items": [{**ITEM, **changes}]}


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in BODY.items() if name not in names}


async def assert_nothing_happened(ledger: Installation) -> None:
    """Nothing is stored, and the next good invoice gets the first number."""
    counts = await ledger.sql(
        "select (select count(*) from invoice), (select count(*) from person), (select count(*) from event), "
        "(select count(*) from audit_entry), (select count(*) from idempotency_record), (select count(*) from counter)"
    )
    assert tuple(counts[0].values()) == (0, 0, 0, 0, 0, 0)
    assert (await ledger.create_invoice()).body["invoiceNumber"] == "INV-2026-0001"


REFUSED_FIELDS: list[tuple[object, dict[str, str]]] = [
    # Wrong types.
    ({**BODY, "userId": 5}, {"userId": "must be text, not a whole number"}),
    ({**BODY, "items": {}}, {"items": "must be a list, not an object"}),
    (
        {**BODY, "items": ["x", None]},
        {"items[0]": "must be an object, not text", "items[1]": "must be an object, not nothing"},
    ),
    (with_item(unitPrice="5000"), {"items[0].unitPrice": "must be a whole number, written in digits only"}),
    (with_item(unitPrice=True), {"items[0].unitPrice": "must be a whole number, not true or false"}),
    (with_item(unitPrice=None), {"items[0].unitPrice": "must be a whole number, not nothing"}),
    (with_item(quantity=None), {"items[0].quantity": "must be a whole number, not nothing"}),
    (with_item(description=["Fee"]), {"items[0].description": "must be text, not a list"}),
    ({**BODY, "skipTax": "true"}, {"skipTax": "must be true or false, not text"}),
    ({**BODY, "dueDate": 20261231}, {"dueDate": "must be an ISO 8601 date as text"}),
    ({**BODY, "currency": 978}, {"currency": "must be text"}),
    ({**BODY, "notes": {}}, {"notes": "must be text, not an object"}),
    ({**BODY, "metadata": []}, {"metadata": "must be an object, not a list"}),
    (
        {**BODY, "metadata": {"a": 1, "b": "x", "c": None}},
        {
            "metadata.a": "must be text, not a whole number",
            "metadata.c": "must be text, not nothing",
        },
    ),
    # Amounts.
    (with_item(unitPrice=-1), {"items[0].unitPrice": "must be a whole number of at least 0"}),
    (with_item(unitPrice=49.99), {"items[0].unitPrice": "must be a whole number, not a fraction"}),
    (with_item(unitPrice=5000.0), {"items[0].unitPrice": "must be a whole number, not a fraction"}),
    (with_item(unitPrice=10**10 + 1), {"items[0].unitPrice": "must be a whole number of at most 10000000000"}),
    (with_item(unitPrice=2**63), {"items[0].unitPrice": "must be a whole number of at most 10000000000"}),
    (with_item(unitPrice=10**40), {"items[0].unitPrice": "must be a whole number of at most 10000000000"}),
    (with_item(quantity=0), {"items[0].quantity": "must be a whole number of at least 1"}),
    (with_item(quantity=-3), {"items[0].quantity": "must be a whole number of at least 1"}),
    (with_item(quantity=1.5), {"items[0].quantity": "must be a whole number, not a fraction"}),
    (with_item(quantity=10**6 + 1), {"items[0].quantity": "must be a whole number of at most 1000000"}),
    (with_item(taxRate=-1), {"items[0].taxRate": "must be a whole number of at least 0"}),
    (with_item(taxRate=10_001), {"items[0].taxRate": "must be a whole number of at most 10000"}),
    (with_item(taxRate=0.19), {"items[0].taxRate": "must be a whole number, not a fraction"}),
    (
        with_item(unitPrice=10**10, quantity=10**6),
        {"items": "add up to 10000000000000000, more than 1000000000000 minor units"},
    ),
    # Texts.
    (with_item(description=""), {"items[0].description": "must not be empty"}),
    (with_item(description=" \t\n"), {"items[0].description": "must not be empty"}),
    (with_item(description="x" * 501), {"items[0].description": "must be text of at most 500 characters"}),
    ({**BODY, "notes": "x" * 5001}, {"notes": "must be text of at most 5000 characters"}),
    (
        {**BODY, "metadata": {"k" * 101: "v"}},
        {
            "metadata": f"the key '{'k' * 40}…' must be text of at most 100 characters",
        },
    ),
    ({**BODY, "metadata": {"k": "v" * 501}}, {"metadata.k": "must be text of at most 500 characters"}),
    ({**BODY, "metadata": {str(n): "v" for n in range(51)}}, {"metadata": "must be an object of at most 50 entries"}),
    # Characters that PostgreSQL cannot store.
    (with_item(description="a\0b"), {"items[0].description": NUL}),
    ({**BODY, "notes": "\0"}, {"notes": NUL}),
    ({**BODY, "metadata": {"k\0": "v"}}, {"metadata": NUL}),
    ({**BODY, "metadata": {"k": "v\0", "l": "\0"}}, {"metadata.k": NUL, "metadata.l": NUL}),
    # Ids that travel.
    ({**BODY, "userId": "a/b"}, {"userId": NO_ID}),
    ({**BODY, "userId": "../admin"}, {"userId": NO_ID}),
    ({**BODY, "userId": "%2e%2e"}, {"userId": NO_ID}),
    ({**BODY, "userId": "o'brien"}, {"userId": NO_ID}),
    ({**BODY, "userId": 'a"b'}, {"userId": NO_ID}),
    ({**BODY, "userId": "a\n"}, {"userId": NO_ID}),
    ({**BODY, "userId": "a\0"}, {"userId": NO_ID}),
    ({**BODY, "userId": "ä"}, {"userId": NO_ID}),
    ({**BODY, "userId": "x" * 65}, {"userId": NO_ID}),
    (with_item(productId="no-such-product"), {"items[0].productId": "there is no such product"}),
    # Currencies and dates that do not exist.
    ({**BODY, "currency": "XXX"}, {"currency": "Unknown currency 'XXX': use a three-letter ISO 4217 code such as EUR"}),
    ({**BODY, "currency": "€"}, {"currency": "Unknown currency '€': use a three-letter ISO 4217 code such as EUR"}),
    ({**BODY, "currency": ""}, {"currency": "Unknown currency '': use a three-letter ISO 4217 code such as EUR"}),
    ({**BODY, "dueDate": "2026-02-30"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "2026-13-01T00:00:00Z"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "2026-03-15T25:00:00Z"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "31.12.2026"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "next week"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": ""}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "9999-12-31T23:59:59-05:00"}, {"dueDate": NO_DATE}),
    ({**BODY, "dueDate": "2026-04-01\0"}, {"dueDate": NO_DATE}),
    # Lengths.
    ({**BODY, "items": [ITEM] * 501}, {"items": "must be a list of at most 500 entries"}),
    # Several at once.
    (
        {"userId": "a/b", "items": [ITEM, {"description": "", "unitPrice": -1}], "currency": "XXX"},
        {
            "userId": NO_ID,
            "items[1].description": "must not be empty",
            "items[1].unitPrice": "must be a whole number of at least 0",
            "currency": "Unknown currency 'XXX': use a three-letter ISO 4217 code such as EUR",
        },
    ),
]


async def test_every_refused_field_is_named_with_what_is_wrong(ledger: Installation) -> None:
    for body, fields in REFUSED_FIELDS:
        answer = await ledger.shop.post("/api/invoices", body)
        assert (answer.status, answer.refused()) == (400, fields), str(body)[:200]
        # The sentence says the same, for who reads only that.
        assert all(message in answer.error for message in fields.values()), answer.error
        assert answer.headers["Content-Type"] == "application/problem+json"
    await assert_nothing_happened(ledger)


async def test_a_body_without_what_is_required_gets_the_published_sentence(ledger: Installation) -> None:
    for body, fields in (
        ({}, ["userId", "items"]),
        (without("userId"), ["userId"]),
        (without("items"), ["items"]),
        ({**BODY, "items": []}, ["items"]),
        ({**BODY, "userId": ""}, ["userId"]),
        ({**BODY, "userId": None}, ["userId"]),
    ):
        answer = await ledger.shop.post("/api/invoices", body)
        assert (answer.status, answer.error) == (400, "userId and at least one item are required")
        assert list(answer.refused()) == fields, body
    await assert_nothing_happened(ledger)


NOT_JSON = {
    "nothing": b"",
    "half of it": b'{"userId": "a", "items": [',
    "two of it": b"{}{}",
    "a form": b"userId=a&items=1",
    "single quotes": b"{'userId': 'a'}",
    "not a number": b'{"userId":"a","items":[{"description":"x","unitPrice":NaN}]}',
    "an endless number": b'{"userId":"a","items":[{"description":"x","unitPrice":' + b"9" * 5000 + b"}]}",
    "not UTF-8": b'{"userId":"a","items":[{"description":"\xff","unitPrice":5}]}',
    "UTF-16": '{"userId":"a"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a lone surrogate": b'{"userId":"a","items":[{"description":"\\ud800","unitPrice":5}]}',
    "a raw NUL": b'{"userId":"a\0"}',
    "100 000 open brackets": b"[" * 100_000,
    "100 000 lists in a field": b'{"userId":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100 000 objects in an unknown field": b'{"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
}


async def test_what_is_not_json_is_called_so(ledger: Installation) -> None:
    for what, raw in NOT_JSON.items():
        answer = await ledger.shop.send("POST", "/api/invoices", data=raw)
        assert (answer.status, answer.error) == (400, "Invalid JSON"), what
    for what in ("null", "[]", '"x"', "5", "true"):
        answer = await ledger.shop.send("POST", "/api/invoices", data=what.encode())
        assert answer.status == 400
        assert answer.error.startswith("The body must be an object, not "), answer.error
    # A form may be sent without any body, as buttons are, but not with something else.
    for what in NOT_JSON.keys() - {"nothing"}:
        form = await ledger.staff.send("PUT", "/api/settings", data=NOT_JSON[what])
        assert (form.status, form.error) == (400, "Invalid JSON"), what
    await assert_nothing_happened(ledger)


async def test_a_nul_where_nothing_is_stored_does_no_harm(ledger: Installation) -> None:
    raw = b'{"unknown":"\\u0000","userId":"a","items":[{"description":"not \\\\u0000","unitPrice":5}]}'

    answer = await ledger.shop.send("POST", "/api/invoices", data=raw)

    assert answer.status == 201
    lines = await ledger.staff.get(f"/api/invoices/{answer.body['id']}/items")
    assert lines.body["rows"][0]["description"] == "not \\u0000"


async def test_two_mebibytes_are_too_large_and_the_sender_gets_to_read_it(ledger: Installation) -> None:
    large = msgspec.json.encode({**BODY, "notes": "x" * 2 * 1024 * 1024})
    for path in ("/api/invoices", "/api/invoices/batch"):
        for _ in range(3):
            answer = await ledger.shop.send("POST", path, data=large)
            assert (answer.status, answer.error) == (413, "The body is larger than 1 MiB; send less at once")
    # Who may not get in hears that instead, and is not left with a broken connection either.
    assert (await ledger.nobody.send("POST", "/api/invoices", data=large)).status == 401
    assert (await ledger.user.send("POST", "/api/invoices", data=large)).status == 403

    just_fits = msgspec.json.encode({**BODY, "unknown": ""})
    padding = "x" * (1024 * 1024 - len(just_fits))
    fits = await ledger.shop.send("POST", "/api/invoices", data=msgspec.json.encode({**BODY, "unknown": padding}))
    assert (fits.status, fits.body["invoiceNumber"]) == (201, "INV-2026-0001")
    over = await ledger.shop.send("POST", "/api/invoices", data=msgspec.json.encode({**BODY, "unknown": padding + "x"}))
    assert over.status == 413


async def test_a_body_that_breaks_off_is_no_fault_of_ledgers(
    ledger: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    address = urlsplit(ledger.url)
    _, sender = await asyncio.open_connection(address.hostname, address.port)
    head = "POST /api/invoices HTTP/1.1\r\nHost: x\r\nAuthorization: ServiceKey sk_svc_shop\r\n"
    sender.write(f"{head}Content-Length: 500\r\n\r\n{{".encode())
    await sender.drain()
    await asyncio.sleep(0.1)
    sender.close()
    await sender.wait_closed()
    await asyncio.sleep(0.1)

    await assert_nothing_happened(ledger)
    assert "request failed" not in capsys.readouterr().out


QUERIES = {
    "limit=0": "limit",
    "limit=201": "limit",
    "limit=-1": "limit",
    "limit=abc": "limit",
    "limit=1.5": "limit",
    "limit=99999999999999999999": "limit",
    "limit=1&limit=2": "limit",
    "cursor=x": "cursor",
    "cursor=%27": "cursor",
    "cursor=%00": "cursor",
    "cursor=" + "x" * 201: "cursor",
    # A position that cannot be: beyond time, no id, a foreign list's id.
    "cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OmE": "cursor",
    "cursor=MTphYmM": "cursor",
    "cursor=MTo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk": "cursor",
}
INVOICE_QUERIES = {
    "status=open": "status",
    "status=PAID": "status",
    "status=paid&status=failed": "status",
    "userId=a%2Fb": "userId",
    "userId=a%0A": "userId",
    "q=%00": "q",
    "q=" + "x" * 101: "q",
    "from=2026-02-30": "from",
    "from=soon": "from",
    "to=2026-02-30": "to",
    "to=10000-01-01": "to",
}
OTHER_QUERIES = {
    "/api/payments?invoiceId=INV-2026-0001": "invoiceId",
    "/api/payments?invoiceId=0199c0de-0000-7000-8000-000000000001%0A": "invoiceId",
    "/api/audit?action=%00": "action",
    "/api/audit?entityType=%00": "entityType",
    "/api/audit?entityId=a%00b": "entityId",
    "/api/audit?action=" + "x" * 101: "action",
    "/api/my/invoices?status=open": "status",
}


async def test_a_refused_query_parameter_is_named(ledger: Installation) -> None:
    await ledger.create_invoice()
    lists = ("/api/invoices", "/api/my/invoices", "/api/payments", "/api/audit", "/api/service-access")
    wrong = {f"{path}?{query}": field for path in lists for query, field in QUERIES.items()}
    # The ids of services are texts of any form, so these two are places in that list.
    del (
        wrong["/api/service-access?cursor=MTphYmM"],
        wrong["/api/service-access?cursor=MTo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"],
    )
    wrong |= {f"/api/invoices?{query}": field for query, field in INVOICE_QUERIES.items()}
    wrong |= OTHER_QUERIES

    answers: dict[str, Answer] = {path: await ledger.staff.get(path) for path in wrong}

    assert {path: (answer.status, list(answer.refused())) for path, answer in answers.items()} == {
        path: (400, [field]) for path, field in wrong.items()
    }
    assert all(field in answers[path].error for path, field in wrong.items())


async def test_a_cursor_of_one_list_is_refused_by_another(ledger: Installation) -> None:
    for _ in range(2):
        created = (await ledger.create_invoice()).body["id"]
        await ledger.staff.post(f"/api/invoices/{created}/mark-paid")
    of_invoices = (await ledger.staff.get("/api/invoices?limit=1")).body["nextCursor"]
    of_audit = (await ledger.staff.get("/api/audit?limit=1")).body["nextCursor"]

    for path in (
        f"/api/audit?cursor={of_invoices}",
        f"/api/invoices?cursor={of_audit}",
        f"/api/payments?cursor={of_audit}",
    ):
        answer = await ledger.staff.get(path)
        assert (answer.status, answer.error) == (
            400,
            "The cursor is not one that Ledger gave for this list; start again without it",
        )


async def test_paths_that_try_to_get_elsewhere_do_not(ledger: Installation) -> None:
    created = (await ledger.create_invoice()).body["id"]
    for path in (
        "/api/invoices/../settings",
        "/api/invoices/..%2fsettings",
        "/api/invoices/%2e%2e/settings",
        f"/api/invoices/{created}%2f%2e%2e%2fstatus",
        f"/api/invoices/{created}%00",
        f"/api/invoices/{created}%0a",
        f"/api/invoices/{created};a=b",
        "/api/invoices/%ff",
        "/api/invoices/%",
        "/api/invoices/" + "x" * 5000,
    ):
        answer = await ledger.staff.get(path)
        assert answer.status == 404, path
        assert answer.error
