"""Invoices through the API: created by services, seen by their owners, settled by staff."""

from tests.installation import USER, Installation


async def test_a_service_creates_an_invoice_and_gets_its_number(ledger: Installation) -> None:
    answer = await ledger.shop.post(
        "/api/invoices",
        {"userId": USER, "items": [{"description": "Membership 2026", "unitPrice": 5000, "quantity": 2}]},
    )

    assert answer.status == 201
    assert answer.body["success"] is True
    assert answer.body["invoiceNumber"] == "INV-2026-0001"
    assert answer.body["status"] == "pending"
    assert (answer.body["subtotal"], answer.body["tax"], answer.body["total"]) == (10_000, 0, 10_000)
