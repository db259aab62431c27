"""Invoices through the API: created by services and staff, with the tax and the numbers they get."""

from datetime import datetime, timedelta

import msgspec

from tests.api.shown import cells, columns, labels, types
from tests.conftest import StartLedger
from tests.installation import OTHER, START, USER, Installation

NOW = "2026-03-15T09:30:00.000Z"


def item(unit_price: int, **more: object) -> dict[str, object]:
    return {"description": "Something", "unitPrice": unit_price, **more}


async def test_a_service_creates_an_invoice_and_gets_its_number(ledger: Installation) -> None:
    answer = await ledger.shop.post(
        "/api/invoices",
        {"userId": USER, "items": [{"description": "Membership 2026", "unitPrice": 5000, "quantity": 2}]},
    )

    assert answer.status == 201
    invoice_id = answer.body["id"]
    assert answer.body == {
        "success": True,
        "id": invoice_id,
        "invoiceNumber": "INV-2026-0001",
        "status": "pending",
        "subtotal": 10_000,
        "tax": 0,
        "total": 10_000,
    }
    assert len(invoice_id) <= 64


async def test_staff_creates_invoices_too_and_the_numbers_go_on(ledger: Installation) -> None:
    await ledger.create_invoice()

    answer = await ledger.staff.post("/api/invoices", {"userId": OTHER, "items": [item(1)]})

    assert (answer.status, answer.body["invoiceNumber"]) == (201, "INV-2026-0002")
    refused = await ledger.user.post("/api/invoices", {"userId": USER, "items": [item(1)]})
    assert (refused.status, refused.error, refused.body["required"]) == (403, "Forbidden", "ledger:manage")


async def test_the_detail_shows_the_published_fields_in_their_order(ledger: Installation) -> None:
    created = await ledger.create_invoice(
        items=[item(5000, quantity=2, taxRate=1900)],
        notes="Ask the\ntreasurer",
        dueDate="2026-04-01",
        currency="eur",
        metadata={"order": "4711"},
        somethingUnknown={"is": ["ignored"]},
    )

    answer = await ledger.staff.get(f"/api/invoices/{created.body['id']}")

    assert answer.status == 200
    assert labels(answer) == [
        ("invoiceNumber", "Invoice #"),
        ("user", "User"),
        ("status", "Status"),
        ("subtotal", "Subtotal"),
        ("tax", "Tax"),
        ("total", "Total"),
        ("dueDate", "Due Date"),
        ("paidAt", "Paid At"),
        ("createdAt", "Created"),
        ("notes", "Notes"),
        ("paymentReference", "Payment Reference"),
    ]
    assert answer.fields() == {
        "invoiceNumber": "INV-2026-0001",
        "user": "Ben Buyer",
        "status": "pending",
        "subtotal": "100.00 EUR",
        "tax": "19.00 EUR",
        "total": "119.00 EUR",
        "dueDate": "2026-04-01T00:00:00.000Z",
        "paidAt": "—",
        "createdAt": NOW,
        "notes": "Ask the\ntreasurer",
        "paymentReference": "RF16 INV2 0260 001",
    }
    # A dash is not a date: the Dashboard would show "Invalid Date".
    assert types(answer) == {"dueDate": "date", "createdAt": "date", "notes": "multiline"}
    stored = await ledger.value("select metadata::text from invoice")
    assert stored == '{"order": "4711"}'


async def test_what_is_missing_is_a_dash(ledger: Installation) -> None:
    created = await ledger.create_invoice()

    shown = (await ledger.staff.get(f"/api/invoices/{created.body['id']}")).fields()

    assert (shown["dueDate"], shown["paidAt"], shown["notes"]) == ("—", "—", "—")


async def test_the_lines_are_shown_without_the_currencys_code(ledger: Installation) -> None:
    created = await ledger.create_invoice(
        items=[
            {"description": "Ticket", "unitPrice": 1250, "quantity": 3},
            {"description": 'Fee, "quoted" <b>', "unitPrice": 0},
        ]
    )

    answer = await ledger.staff.get(f"/api/invoices/{created.body['id']}/items")

    assert columns(answer) == [
        ("description", "Description"),
        ("quantity", "Qty"),
        ("unitPrice", "Unit Price"),
        ("total", "Total"),
    ]
    assert answer.body["rows"] == [
        {"id": "1", "description": "Ticket", "quantity": 3, "unitPrice": "12.50", "total": "37.50"},
        {"id": "2", "description": 'Fee, "quoted" <b>', "quantity": 1, "unitPrice": "0.00", "total": "0.00"},
    ]
    assert answer.body["total"] == 2


async def test_amounts_have_their_currencys_own_decimals(ledger: Installation) -> None:
    shown = []
    for currency, unit_price in (("JPY", 5000), ("KWD", 1234), ("EUR", 5950)):
        created = (await ledger.create_invoice(currency=currency, items=[item(unit_price)])).body
        detail = (await ledger.staff.get(f"/api/invoices/{created['id']}")).fields()
        lines = await ledger.staff.get(f"/api/invoices/{created['id']}/items")
        shown.append((detail["total"], cells(lines, "total"), created["total"]))

    assert shown == [
        ("5000 JPY", ["5000"], 5000),
        ("1.234 KWD", ["1.234"], 1234),
        ("59.50 EUR", ["59.50"], 5950),
    ]
    assert cells(await ledger.staff.get("/api/invoices"), "amount") == ["59.50 EUR", "1.234 KWD", "5000 JPY"]


async def test_tax_is_worked_out_per_rate_and_rounded_half_away_from_zero(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"taxRate": 1900, "taxLabel": "VAT"})

    async def taxed(*items: dict[str, object], **more: object) -> tuple[int, int, int]:
        body = (await ledger.create_invoice(items=list(items), **more)).body
        return body["subtotal"], body["tax"], body["total"]

    assert await taxed(item(5000)) == (5000, 950, 5950)
    # 3 × 0.35 at 19 % is 19.95, rounded once over the sum; rounded line by line it would be 21.
    assert await taxed(item(35), item(35), item(35)) == (105, 20, 125)
    # 50 at 1 % is half a unit.
    assert await taxed(item(50, taxRate=100)) == (50, 1, 51)
    # The item's own rate wins over the default, also a rate of 0.
    assert await taxed(item(1000), item(1000, taxRate=700), item(1000, taxRate=0)) == (3000, 260, 3260)
    assert await taxed(item(5000, taxRate=700), skipTax=True) == (5000, 0, 5000)


async def test_an_old_invoice_keeps_its_tax_when_the_rate_changes(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"taxRate": 1900, "taxLabel": "VAT"})
    old = (await ledger.create_invoice()).body

    await ledger.staff.put("/api/settings", {"taxRate": 2000, "taxLabel": "Tax"})

    assert (await ledger.create_invoice()).body["tax"] == 1000
    assert (await ledger.staff.get(f"/api/invoices/{old['id']}")).fields()["tax"] == "9.50 EUR"
    proof = await ledger.sql(
        "select tax_label, rate_bp, net_minor, invoice_tax.tax_minor from invoice join invoice_tax on invoice_id = id "
        "where id = $1",
        old["id"],
    )
    assert [tuple(row.values()) for row in proof] == [("VAT", 1900, 5000, 950)]


async def test_the_configured_currency_is_the_default(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"defaultCurrency": "chf"})

    created = await ledger.create_invoice()

    assert (await ledger.shop.get(f"/api/invoices/{created.body['id']}/status")).body["currency"] == "CHF"


async def test_the_status_is_five_fields(ledger: Installation) -> None:
    created = (await ledger.create_invoice()).body
    path = f"/api/invoices/{created['id']}/status"

    pending = await ledger.shop.get(path)
    await ledger.shop.post(f"/api/invoices/{created['id']}/mark-paid")

    expected = {"id": created["id"], "status": "pending", "total": 5000, "currency": "EUR", "paidAt": None}
    assert pending.body == expected
    paid = expected | {"status": "paid", "paidAt": NOW}
    assert (await ledger.shop.get(path)).body == (await ledger.staff.get(path)).body == paid
    assert (await ledger.user.get(path)).status == 403


async def test_the_list_shows_the_published_columns_newest_first(ledger: Installation) -> None:
    first = (await ledger.create_invoice()).body
    second = (await ledger.create_invoice(userId=OTHER, currency="JPY")).body

    answer = await ledger.staff.get("/api/invoices")

    assert columns(answer) == [
        ("invoiceNumber", "#"),
        ("user", "User"),
        ("provider", "Provider"),
        ("status", "Status"),
        ("amount", "Amount"),
        ("createdAt", "Created"),
    ]
    assert answer.body["rows"] == [
        {
            "id": second["id"],
            "invoiceNumber": "INV-2026-0002",
            "user": "Cleo Other",
            "provider": "—",
            "status": "pending",
            "amount": "5000 JPY",
            "createdAt": NOW,
        },
        {
            "id": first["id"],
            "invoiceNumber": "INV-2026-0001",
            "user": "Ben Buyer",
            "provider": "—",
            "status": "pending",
            "amount": "50.00 EUR",
            "createdAt": NOW,
        },
    ]
    assert answer.body["total"] == 2
    assert "nextCursor" not in answer.body
    assert "totalIsMore" not in answer.body


async def test_the_longest_invoice_that_is_allowed_is_stored_whole(ledger: Installation) -> None:
    created = await ledger.create_invoice(
        items=[{"description": "é" * 500, "unitPrice": 1, "quantity": 1, "taxRate": 10_000}] * 500,
        notes="n" * 5000,
        metadata={f"{n:03d}" + "k" * 97: "v" * 500 for n in range(50)},
    )

    assert (created.body["subtotal"], created.body["tax"], created.body["total"]) == (500, 500, 1000)
    lines = await ledger.staff.get(f"/api/invoices/{created.body['id']}/items")
    assert len(lines.body["rows"]) == 500
    assert lines.body["rows"][0]["description"] == "é" * 500


async def test_amounts_reach_their_limits_exactly(ledger: Installation) -> None:
    most = await ledger.create_invoice(items=[item(10**10, quantity=100)])
    assert most.body["total"] == 10**12
    fields = (await ledger.staff.get(f"/api/invoices/{most.body['id']}")).fields()
    assert fields["total"] == "10000000000.00 EUR"

    over = await ledger.shop.post("/api/invoices", {"userId": USER, "items": [item(10**10, quantity=100), item(1)]})
    assert (over.status, list(over.refused())) == (400, ["items"])


async def test_whom_lanyard_does_not_know_can_be_billed_without_asking_it(ledger: Installation) -> None:
    asked = len(ledger.lanyard.calls_to("/users/"))

    answer = await ledger.shop.post("/api/invoices", {"userId": "nobody-has-this-id-01", "items": [item(1)]})

    assert answer.status == 201
    assert len(ledger.lanyard.calls_to("/users/")) == asked
    assert cells(await ledger.staff.get("/api/invoices"), "user") == ["nobody-h…"]


async def test_the_number_carries_the_year_where_the_books_are_kept(start_ledger: StartLedger) -> None:
    berlin = await start_ledger(LEDGER_TIMEZONE="Europe/Berlin")
    assert (await berlin.create_invoice()).body["invoiceNumber"] == "INV-2026-0001"

    berlin.clock.move(datetime.fromisoformat("2026-12-31T22:59:59Z") - START)
    assert (await berlin.create_invoice()).body["invoiceNumber"] == "INV-2026-0002"
    berlin.clock.move(timedelta(seconds=1))

    assert (await berlin.create_invoice()).body["invoiceNumber"] == "INV-2027-0001"
    assert cells(await berlin.staff.get("/api/invoices"), "createdAt")[0] == "2026-12-31T23:00:00.000Z"


async def test_an_unknown_id_is_not_found_by_any_operation(ledger: Installation) -> None:
    await ledger.create_invoice()
    unknown = "0199c0de-0000-7000-8000-000000000001"
    for invoice_id in (unknown, "1", "INV-2026-0001", "a'b", "%2e%2e", "x" * 64, "%00", "%22"):
        answers = [
            await ledger.staff.get(f"/api/invoices/{invoice_id}"),
            await ledger.staff.get(f"/api/invoices/{invoice_id}/items"),
            await ledger.staff.get(f"/api/invoices/{invoice_id}/status"),
            await ledger.staff.get(f"/api/invoices/{invoice_id}/actions"),
            await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid"),
            await ledger.staff.post(f"/api/invoices/{invoice_id}/cancel"),
            await ledger.staff.post(f"/api/invoices/{invoice_id}/refund"),
        ]
        assert {(answer.status, answer.error) for answer in answers} == {(404, "Invoice not found")}, invoice_id


async def test_an_id_is_understood_in_upper_case(ledger: Installation) -> None:
    created = (await ledger.create_invoice()).body

    answer = await ledger.shop.get(f"/api/invoices/{created['id'].upper()}/status")

    assert (answer.status, answer.body["id"]) == (200, created["id"])


async def test_an_issued_invoice_cannot_be_changed_or_deleted(ledger: Installation) -> None:
    created = (await ledger.create_invoice()).body

    for method in ("PUT", "PATCH", "DELETE"):
        answer = await ledger.staff.send(method, f"/api/invoices/{created['id']}", data=b"{}")
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_every_change_announces_itself_with_what_subscribers_are_promised(ledger: Installation) -> None:
    kept = (await ledger.create_invoice()).body
    dropped = (await ledger.create_invoice()).body
    await ledger.staff.post(f"/api/invoices/{kept['id']}/mark-paid", {"amount": 2000})
    await ledger.staff.post(f"/api/invoices/{kept['id']}/mark-paid")
    await ledger.staff.post(f"/api/invoices/{dropped['id']}/cancel")

    events = await ledger.sql(
        "select type, subject_id::text, lanyard_user_id, data from event join person on person.id = person_id "
        "order by event.id"
    )

    def about(invoice: dict[str, object], status: str) -> dict[str, object]:
        number = invoice["invoiceNumber"]
        return {"invoiceId": invoice["id"], "invoiceNumber": number, "status": status, "total": 5000, "currency": "EUR"}

    assert [(row[0], row[1], row[2], msgspec.json.decode(row[3])) for row in events] == [
        ("invoice.created", kept["id"], USER, about(kept, "pending")),
        ("invoice.created", dropped["id"], USER, about(dropped, "pending")),
        ("invoice.paid", kept["id"], USER, about(kept, "paid") | {"amount": 3000}),
        ("invoice.cancelled", dropped["id"], USER, about(dropped, "cancelled")),
    ]
