"""The list of payments: what arrived, for which invoice, and how."""

from datetime import timedelta

from tests.api.shown import cells, columns
from tests.installation import Installation


async def test_a_payment_is_listed_with_its_invoices_number(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    await ledger.shop.post(f"/api/invoices/{invoice_id}/mark-paid")

    answer = await ledger.staff.get("/api/payments")

    assert columns(answer) == [
        ("invoiceId", "Invoice"),
        ("amount", "Amount"),
        ("status", "Status"),
        ("provider", "Provider"),
        ("method", "Method"),
        ("createdAt", "Date"),
    ]
    payment_id = answer.body["rows"][0]["id"]
    assert answer.body["rows"] == [
        {
            "id": payment_id,
            "invoiceId": "INV-2026-0001",
            # The id behind the number, for the link to the invoice's page.
            "invoice": invoice_id,
            "amount": "50.00 EUR",
            "status": "succeeded",
            "provider": "manual",
            "method": "manual",
            "createdAt": "2026-03-15T09:30:00.000Z",
        }
    ]
    assert answer.body["total"] == 1


async def test_payments_are_listed_newest_first_and_narrowed_to_one_invoice(ledger: Installation) -> None:
    first = (await ledger.create_invoice(currency="JPY")).body["id"]
    second = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{first}/mark-paid", {"method": "cash", "amount": 1000})
    ledger.clock.move(timedelta(hours=1))
    await ledger.staff.post(f"/api/invoices/{second}/mark-paid", {"method": "card"})
    # Money that came earlier but was recorded later stands where it was recorded.
    ledger.clock.move(timedelta(hours=1))
    await ledger.staff.post(f"/api/invoices/{first}/mark-paid", {"method": "other", "paidAt": "2026-03-01"})

    everything = await ledger.staff.get("/api/payments")
    of_first = await ledger.staff.get(f"/api/payments?invoiceId={first}")

    assert cells(everything, "method") == ["other", "card", "cash"]
    assert cells(everything, "amount") == ["4000 JPY", "50.00 EUR", "1000 JPY"]
    assert cells(of_first, "method") == ["other", "cash"]
    assert of_first.body["total"] == 2


async def test_payments_are_for_staff(ledger: Installation) -> None:
    assert (await ledger.staff.get("/api/payments")).body["rows"] == []
    assert (await ledger.user.get("/api/payments")).status == 403
    assert (await ledger.shop.get("/api/payments")).status == 403
    assert (await ledger.nobody.get("/api/payments")).status == 401
