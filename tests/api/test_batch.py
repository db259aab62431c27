"""Many invoices at once: all or none, in order, with consecutive numbers."""

from tests.api.shown import cells
from tests.installation import OTHER, USER, Answer, Installation


def wanted(unit_price: int = 5000, **changes: object) -> dict[str, object]:
    return {"userId": USER, "items": [{"description": "Fee", "unitPrice": unit_price}], **changes}


async def create(ledger: Installation, *invoices: object, key: str | None = None) -> Answer:
    return await ledger.shop.post("/api/invoices/batch", {"invoices": list(invoices)}, key=key)


async def test_a_batch_is_answered_in_order_with_consecutive_numbers(ledger: Installation) -> None:
    await ledger.create_invoice()

    answer = await create(ledger, wanted(1), wanted(2, userId=OTHER), wanted(3, currency="JPY"))

    assert answer.status == 201
    assert list(answer.body) == ["results"]
    results = answer.body["results"]
    assert [each["invoiceNumber"] for each in results] == ["INV-2026-0002", "INV-2026-0003", "INV-2026-0004"]
    assert [each["total"] for each in results] == [1, 2, 3]
    assert results[0] == {
        "success": True,
        "id": results[0]["id"],
        "invoiceNumber": "INV-2026-0002",
        "status": "pending",
        "subtotal": 1,
        "tax": 0,
        "total": 1,
    }
    # The list has them newest first, also where they were issued in one moment.
    listed = await ledger.staff.get("/api/invoices")
    assert cells(listed, "invoiceNumber") == ["INV-2026-0004", "INV-2026-0003", "INV-2026-0002", "INV-2026-0001"]
    assert cells(listed, "user")[1] == "Cleo Other"


async def test_a_thousand_invoices_fit_and_one_more_does_not(ledger: Installation) -> None:
    too_many = await create(ledger, *[wanted()] * 1001)
    assert (too_many.status, too_many.refused()) == (400, {"invoices": "must be a list of at most 1000 entries"})

    answer = await create(ledger, *[wanted()] * 1000)

    assert answer.status == 201
    numbers = [each["invoiceNumber"] for each in answer.body["results"]]
    assert numbers == [f"INV-2026-{n:04d}" for n in range(1, 1001)]


async def test_one_bad_invoice_refuses_the_whole_batch_and_no_number_is_taken(ledger: Installation) -> None:
    bodies = await create(ledger, wanted(), wanted(-1), wanted(userId="no/body", items=[]))
    assert bodies.status == 400
    assert list(bodies.refused()) == ["invoices[1].items[0].unitPrice", "invoices[2].userId", "invoices[2].items"]

    sums = await create(
        ledger,
        wanted(),
        wanted(items=[{"description": "Much", "unitPrice": 10**10, "quantity": 10**6}]),
        wanted(items=[{"description": "   ", "unitPrice": 1}]),
    )
    assert sums.status == 400
    assert list(sums.refused()) == ["invoices[1].items", "invoices[2].items[0].description"]
    assert sums.error.startswith("invoices[1].items: add up to 10000000000000000, more than 1000000000000 minor units")

    assert (await ledger.staff.get("/api/invoices")).body["total"] == 0
    assert (await ledger.create_invoice()).body["invoiceNumber"] == "INV-2026-0001"


async def test_a_batch_needs_a_list_with_something_in_it(ledger: Installation) -> None:
    bodies: list[dict[str, object]] = [{}, {"invoices": []}, {"invoices": None}]
    for body in bodies:
        answer = await ledger.shop.post("/api/invoices/batch", body)
        assert (answer.status, answer.error) == (400, "At least one invoice is required")
        assert list(answer.refused()) == ["invoices"]
    for wrong in ('"x"', "{}", "5"):
        answer = await ledger.shop.send("POST", "/api/invoices/batch", data=f'{{"invoices": {wrong}}}'.encode())
        assert (answer.status, list(answer.refused())) == (400, ["invoices"])
    assert list((await create(ledger, "x", None)).refused()) == ["invoices[0]", "invoices[1]"]


async def test_staff_may_send_a_batch_and_users_may_not(ledger: Installation) -> None:
    body = {"invoices": [wanted()]}

    assert (await ledger.staff.post("/api/invoices/batch", body)).status == 201
    assert (await ledger.user.post("/api/invoices/batch", body)).status == 403
    assert (await ledger.nobody.post("/api/invoices/batch", body)).status == 401


async def test_a_repeated_batch_with_the_same_key_is_issued_once(ledger: Installation) -> None:
    first = await create(ledger, wanted(), wanted(), key="march")
    again = await create(ledger, wanted(), wanted(), key="march")
    other = await create(ledger, wanted(), key="march")

    assert (again.status, again.content) == (201, first.content)
    assert other.status == 422
    assert (await ledger.staff.get("/api/invoices")).body["total"] == 2


async def test_every_refused_field_of_a_large_batch_is_named_up_to_a_hundred(ledger: Installation) -> None:
    answer = await create(ledger, *[wanted(-1)] * 300)

    assert len(answer.refused()) == 100
    assert answer.error.count(";") == 5
    assert answer.error.endswith("; and many more")
