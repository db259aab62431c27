"""A user's own invoices: they see theirs and nothing of anybody else's."""

from tests.api.shown import buttons, cells, columns, labels, types
from tests.installation import OTHER, STAFF, Installation

NOW = "2026-03-15T09:30:00.000Z"


async def test_a_user_lists_their_own_invoices_newest_first(ledger: Installation) -> None:
    first = (await ledger.create_invoice()).body
    await ledger.create_invoice(userId=OTHER)
    third = (await ledger.create_invoice(currency="JPY")).body

    answer = await ledger.user.get("/api/my/invoices")

    assert columns(answer) == [
        ("invoiceNumber", "#"),
        ("status", "Status"),
        ("amount", "Amount"),
        ("createdAt", "Date"),
    ]
    assert answer.body["rows"] == [
        {
            "id": third["id"],
            "invoiceNumber": "INV-2026-0003",
            "status": "pending",
            "amount": "5000 JPY",
            "createdAt": NOW,
        },
        {
            "id": first["id"],
            "invoiceNumber": "INV-2026-0001",
            "status": "pending",
            "amount": "50.00 EUR",
            "createdAt": NOW,
        },
    ]
    assert answer.body["total"] == 2


async def test_somebody_who_was_never_billed_has_an_empty_list(ledger: Installation) -> None:
    await ledger.create_invoice()

    for nobody_billed in (ledger.other, ledger.staff):
        answer = await nobody_billed.get("/api/my/invoices")
        assert (answer.status, answer.body["rows"], answer.body["total"]) == (200, [], 0)


async def test_the_owner_sees_the_detail_without_what_is_internal(ledger: Installation) -> None:
    created = await ledger.create_invoice(notes="Internal: pays late", dueDate="2026-04-01T12:00:00+02:00")

    answer = await ledger.user.get(f"/api/my/invoices/{created.body['id']}")

    assert [key for key, _ in labels(answer)] == [
        "invoiceNumber",
        "status",
        "subtotal",
        "tax",
        "total",
        "dueDate",
        "paidAt",
        "createdAt",
    ]
    assert answer.fields() == {
        "invoiceNumber": "INV-2026-0001",
        "status": "pending",
        "subtotal": "50.00 EUR",
        "tax": "0.00 EUR",
        "total": "50.00 EUR",
        "dueDate": "2026-04-01T10:00:00.000Z",
        "paidAt": "—",
        "createdAt": NOW,
    }
    assert types(answer) == {"dueDate": "date", "createdAt": "date"}
    assert b"pays late" not in answer.content


async def test_the_owner_sees_the_lines_as_staff_does(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]

    own = await ledger.user.get(f"/api/my/invoices/{invoice_id}/items")

    assert own.status == 200
    assert own.body == (await ledger.staff.get(f"/api/invoices/{invoice_id}/items")).body


async def test_somebody_elses_invoice_is_not_found_even_for_staff(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    path = f"/api/my/invoices/{invoice_id}"

    for stranger in (ledger.other, ledger.staff):
        answers = [
            await stranger.get(path),
            await stranger.get(f"{path}/items"),
            await stranger.get(f"{path}/actions"),
            await stranger.post(f"{path}/pay"),
        ]
        assert {(answer.status, answer.error) for answer in answers} == {(404, "Invoice not found")}
    assert (await ledger.user.get("/api/my/invoices/nonsense")).error == "Invoice not found"


async def test_a_service_has_no_invoices_of_its_own(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]

    for path in ("/api/my/invoices", f"/api/my/invoices/{invoice_id}"):
        answer = await ledger.shop.get(path)
        assert (answer.status, answer.error) == (403, "Forbidden")


async def test_a_pending_invoice_offers_one_button(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    path = f"/api/my/invoices/{invoice_id}"

    pending = await ledger.user.get(f"{path}/actions")
    await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid")
    paid = await ledger.user.get(f"{path}/actions")

    assert buttons(pending) == {"Payment Instructions": ("POST", f"{path}/pay")}
    assert paid.body == {"actions": []}


async def test_paying_needs_an_open_invoice_and_a_provider(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    cancelled = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{cancelled}/cancel")

    pending = await ledger.user.post(f"/api/my/invoices/{invoice_id}/pay")
    await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid")

    assert (pending.status, pending.error) == (501, "No payment provider configured")
    for closed in (invoice_id, cancelled):
        answer = await ledger.user.post(f"/api/my/invoices/{closed}/pay")
        assert (answer.status, answer.error) == (400, "Invoice is not payable")


async def test_a_user_narrows_their_list_to_a_status(ledger: Installation) -> None:
    paid = (await ledger.create_invoice()).body
    overdue = (await ledger.create_invoice(dueDate="2026-03-01")).body
    await ledger.staff.post(f"/api/invoices/{paid['id']}/mark-paid")

    async def ids(status: str) -> list[object]:
        return cells(await ledger.user.get(f"/api/my/invoices?status={status}"), "id")

    assert await ids("paid") == [paid["id"]]
    assert await ids("pending") == await ids("overdue") == [overdue["id"]]
    assert await ids("refunded") == []


async def test_staff_who_is_billed_sees_that_invoice_as_their_own(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice(userId=STAFF)).body["id"]

    assert cells(await ledger.staff.get("/api/my/invoices"), "id") == [invoice_id]
    assert (await ledger.staff.get(f"/api/my/invoices/{invoice_id}")).status == 200
