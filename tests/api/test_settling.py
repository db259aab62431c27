"""Settling invoices through the API: marking as paid, cancelling, refunding, and the buttons that offer it."""

from tests.api.shown import buttons, cells, labels, types
from tests.installation import Answer, Installation

NOW = "2026-03-15T09:30:00.000Z"


async def state(ledger: Installation, invoice_id: str) -> str:
    status: str = (await ledger.staff.get(f"/api/invoices/{invoice_id}/status")).body["status"]
    return status


async def mark_paid(ledger: Installation, invoice_id: str, body: object = None) -> Answer:
    return await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid", body)


async def test_the_service_that_created_an_invoice_marks_it_paid(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]

    answer = await ledger.shop.post(f"/api/invoices/{invoice_id}/mark-paid")

    assert (answer.status, answer.body) == (200, {"success": True})
    shown = await ledger.staff.get(f"/api/invoices/{invoice_id}")
    assert (shown.fields()["status"], shown.fields()["paidAt"]) == ("paid", NOW)
    assert types(shown)["paidAt"] == "date"
    assert (await ledger.user.post(f"/api/invoices/{invoice_id}/mark-paid")).status == 403


async def test_a_paid_invoice_is_not_marked_paid_again(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    await mark_paid(ledger, invoice_id)

    answer = await mark_paid(ledger, invoice_id)

    assert (answer.status, answer.error) == (400, "Invoice is already paid")
    assert (await ledger.staff.get("/api/payments")).body["total"] == 1


async def test_a_form_says_how_the_money_came_with_everything_as_text(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]

    answer = await mark_paid(
        ledger,
        invoice_id,
        {"method": "bank_transfer", "reference": "Statement 7, line 3", "paidAt": "2026-03-12", "amount": "5000"},
    )

    assert (answer.status, answer.body) == (200, {"success": True})
    assert (await ledger.staff.get(f"/api/invoices/{invoice_id}")).fields()["paidAt"] == "2026-03-12T00:00:00.000Z"
    assert cells(await ledger.staff.get("/api/payments"), "method") == ["bank_transfer"]
    assert await ledger.value("select reference from payment") == "Statement 7, line 3"


async def test_a_partly_paid_invoice_stays_pending_and_shows_what_is_open(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]

    assert (await mark_paid(ledger, invoice_id, {"amount": 2000})).status == 200

    for seen in (
        await ledger.staff.get(f"/api/invoices/{invoice_id}"),
        await ledger.user.get(f"/api/my/invoices/{invoice_id}"),
    ):
        assert {("paid", "Paid So Far"), ("open", "Still Open")} <= set(labels(seen))
        fields = seen.fields()
        assert (fields["status"], fields["paid"], fields["open"]) == ("pending", "20.00 EUR", "30.00 EUR")
        assert fields["paidAt"] == "—"
    too_much = await mark_paid(ledger, invoice_id, {"amount": 3001})
    assert too_much.status == 400
    assert too_much.error == (
        "Only 30.00 EUR is open on this invoice, and a payment cannot be more; correct the amount"
    )
    assert list(too_much.refused()) == ["amount"]

    # Without an amount it is all that is open.
    assert (await mark_paid(ledger, invoice_id)).status == 200
    assert await state(ledger, invoice_id) == "paid"
    paid = (await ledger.staff.get(f"/api/invoices/{invoice_id}")).fields()
    assert "open" not in paid
    assert cells(await ledger.staff.get("/api/payments"), "amount") == ["30.00 EUR", "20.00 EUR"]


async def test_what_is_wrong_with_a_payment_is_said_and_nothing_is_recorded(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    refused = {
        "amount": [0, -1, "-1", 1.5, "1.5", "fifty", "", [], 10**13, "5,000"],
        "paidAt": ["2026-02-30", "yesterday", "2026-03-16", 20260312, "2026-03-15T09:30:00.001Z"],
        "method": ["stripe", "", 5],
        "reference": ["x" * 201, 5, "line\0end"],
    }

    for field, values in refused.items():
        for value in values:
            answer = await mark_paid(ledger, invoice_id, {field: value})
            assert (answer.status, list(answer.refused())) == (400, [field]), (field, value, answer.content)
    assert (await mark_paid(ledger, invoice_id, {"method": "stripe"})).error == (
        "method: must be one of manual, bank_transfer, cash, card, other"
    )
    assert (await mark_paid(ledger, invoice_id, {"paidAt": "2026-03-16"})).error == (
        "paidAt is in the future; record the payment when the money is there"
    )
    assert await state(ledger, invoice_id) == "pending"
    assert (await ledger.staff.get("/api/payments")).body["total"] == 0


async def test_an_invoice_over_nothing_is_settled_by_a_payment_of_nothing(ledger: Installation) -> None:
    free = (await ledger.create_invoice(items=[{"description": "Free place", "unitPrice": 0}])).body
    assert (free["status"], free["total"]) == ("pending", 0)

    assert (await mark_paid(ledger, free["id"], {"amount": 1})).status == 400
    assert (await mark_paid(ledger, free["id"])).status == 200

    assert await state(ledger, free["id"]) == "paid"
    assert cells(await ledger.staff.get("/api/payments"), "amount") == ["0.00 EUR"]


async def test_staff_cancels_an_open_invoice_and_it_stays_cancelled(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    path = f"/api/invoices/{invoice_id}"
    assert (await ledger.shop.post(f"{path}/cancel")).status == 403

    answer = await ledger.staff.post(f"{path}/cancel")

    assert (answer.status, answer.body) == (200, {"success": True})
    assert await state(ledger, invoice_id) == "cancelled"
    again = await ledger.staff.post(f"{path}/cancel")
    assert (again.status, again.error) == (400, "Invoice is already cancelled")
    paid = await mark_paid(ledger, invoice_id)
    assert (paid.status, paid.error) == (
        400,
        "A cancelled invoice cannot be marked as paid; create a new invoice instead",
    )
    # The number stays taken.
    assert (await ledger.create_invoice()).body["invoiceNumber"] == "INV-2026-0002"


async def test_what_was_paid_wholly_or_partly_cannot_be_cancelled(ledger: Installation) -> None:
    paid = (await ledger.create_invoice()).body["id"]
    partly = (await ledger.create_invoice()).body["id"]
    await mark_paid(ledger, paid)
    await mark_paid(ledger, partly, {"amount": 1})

    refused = await ledger.staff.post(f"/api/invoices/{paid}/cancel")
    refused_partly = await ledger.staff.post(f"/api/invoices/{partly}/cancel")

    assert (refused.status, refused.error) == (400, "Cannot cancel a paid invoice")
    assert (refused_partly.status, refused_partly.error) == (
        400,
        "Cannot cancel a partly paid invoice, since money came for it; collect the rest and mark it as paid",
    )
    assert (await state(ledger, paid), await state(ledger, partly)) == ("paid", "pending")


async def test_only_paid_invoices_can_be_refunded_and_only_through_who_took_the_money(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    path = f"/api/invoices/{invoice_id}/refund"

    pending = await ledger.staff.post(path)
    await mark_paid(ledger, invoice_id)
    by_hand = await ledger.staff.post(path, {"amount": "1000", "reason": "One ticket returned"})

    assert (pending.status, pending.error) == (400, "Only paid invoices can be refunded")
    assert by_hand.status == 400
    assert by_hand.error == (
        "This payment was recorded by hand, so Ledger cannot send it back; return the money the way it came"
    )
    assert list((await ledger.staff.post(path, {"amount": 0})).refused()) == ["amount"]
    assert list((await ledger.staff.post(path, {"reason": "x" * 501})).refused()) == ["reason"]
    assert await state(ledger, invoice_id) == "paid"
    assert (await ledger.shop.post(path)).status == 403


async def test_the_buttons_are_those_that_would_work_now(ledger: Installation) -> None:
    created = (await ledger.create_invoice()).body
    path = f"/api/invoices/{created['id']}"

    pending = await ledger.staff.get(f"{path}/actions")

    assert pending.body["actions"] == [
        {
            "label": "Mark as Paid",
            "endpoint": f"{path}/mark-paid",
            "method": "POST",
            "confirm": "Record that INV-2026-0001 was paid?",
        },
        {
            "label": "Cancel",
            "endpoint": f"{path}/cancel",
            "method": "POST",
            "variant": "danger",
            "confirm": "Cancel INV-2026-0001? This cannot be undone.",
        },
    ]
    await mark_paid(ledger, created["id"], {"amount": 1})
    # Cancelling a partly paid invoice would be refused, so it is not offered.
    assert list(buttons(await ledger.staff.get(f"{path}/actions"))) == ["Mark as Paid"]
    await mark_paid(ledger, created["id"])
    # No provider took this money, so none can give it back.
    assert (await ledger.staff.get(f"{path}/actions")).body == {"actions": []}

    cancelled = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{cancelled}/cancel")
    assert (await ledger.staff.get(f"/api/invoices/{cancelled}/actions")).body == {"actions": []}


async def test_the_buttons_work_as_the_dashboard_presses_them_without_a_body(ledger: Installation) -> None:
    first = (await ledger.create_invoice()).body["id"]
    second = (await ledger.create_invoice()).body["id"]

    for invoice_id, label in ((first, "Mark as Paid"), (second, "Cancel")):
        method, endpoint = buttons(await ledger.staff.get(f"/api/invoices/{invoice_id}/actions"))[label]
        answer = await ledger.staff.send(method, endpoint)
        assert (answer.status, answer.body) == (200, {"success": True})

    assert (await state(ledger, first), await state(ledger, second)) == ("paid", "cancelled")
