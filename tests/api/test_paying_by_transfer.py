"""Paying with the manual provider: instructions, a reference software can find again, a code for banking apps."""

from ledger.payments.reference import is_creditor_reference, normalise_reference
from tests.api.test_providers import IBAN
from tests.api.test_providers import _add as add_provider
from tests.installation import USER, Installation


async def _with_bank(ledger: Installation) -> None:
    provider_id = await add_provider(ledger, "manual", "Our bank", **IBAN)
    assert (await ledger.staff.post(f"/api/providers/{provider_id}/activate")).status == 200


async def test_pay_tells_how_to_transfer_and_keeps_it_on_the_invoice(ledger: Installation) -> None:
    await _with_bank(ledger)
    invoice = (await ledger.create_invoice()).body
    at = f"/api/my/invoices/{invoice['id']}"

    actions = (await ledger.user.get(f"{at}/actions")).body["actions"]
    assert [action["label"] for action in actions] == ["Payment Instructions"]

    paid = await ledger.user.post(f"{at}/pay")
    assert paid.status == 200, paid.content
    assert set(paid.body) == {"message"}
    assert "DE89 3704 0044 0532 0130 00" in paid.body["message"]
    assert "50.00 EUR" in paid.body["message"]

    fields = (await ledger.user.get(at)).fields()
    assert fields["paymentInstructions"] == paid.body["message"]
    reference = str(fields["paymentReference"])
    assert is_creditor_reference(normalise_reference(reference))
    assert reference in paid.body["message"]
    assert fields["epcQr"] == f"https://dashboard.example.org/api/proxy/ledger{at}/epc-qr.png"

    found = await ledger.staff.get(f"/api/invoices?q={reference.replace(' ', '%20')}")
    assert [row["id"] for row in found.body["rows"]] == [invoice["id"]]


async def test_the_transfer_code_is_for_the_owner_and_staff(ledger: Installation) -> None:
    await _with_bank(ledger)
    invoice = (await ledger.create_invoice()).body

    png = await ledger.user.get(f"/api/my/invoices/{invoice['id']}/epc-qr.png")
    assert (png.status, png.headers["Content-Type"]) == (200, "image/png")
    assert png.content.startswith(b"\x89PNG")
    svg = await ledger.staff.get(f"/api/invoices/{invoice['id']}/epc-qr.svg")
    assert (svg.status, svg.headers["Content-Type"].split(";")[0]) == (200, "image/svg+xml")

    assert (await ledger.other.get(f"/api/my/invoices/{invoice['id']}/epc-qr.png")).status == 404
    yen = (await ledger.create_invoice(currency="JPY")).body
    assert (await ledger.user.get(f"/api/my/invoices/{yen['id']}/epc-qr.png")).status == 404


async def test_what_is_settled_cannot_be_paid(ledger: Installation) -> None:
    await _with_bank(ledger)
    paid = (await ledger.create_invoice()).body
    await ledger.staff.post(f"/api/invoices/{paid['id']}/mark-paid")
    cancelled = (await ledger.create_invoice()).body
    await ledger.staff.post(f"/api/invoices/{cancelled['id']}/cancel")
    for invoice in (paid, cancelled):
        refused = await ledger.user.post(f"/api/my/invoices/{invoice['id']}/pay")
        assert (refused.status, refused.error) == (400, "Invoice is not payable")
        assert (await ledger.user.get(f"/api/my/invoices/{invoice['id']}/actions")).body == {"actions": []}


async def test_without_a_provider_paying_is_not_supported(ledger: Installation) -> None:
    invoice = (await ledger.create_invoice()).body
    refused = await ledger.user.post(f"/api/my/invoices/{invoice['id']}/pay")
    assert (refused.status, refused.error) == (501, "No payment provider configured")


async def test_an_invoice_over_nothing_is_settled_by_paying_it(ledger: Installation) -> None:
    await _with_bank(ledger)
    free = (await ledger.create_invoice(items=[{"description": "Helper ticket", "unitPrice": 0}])).body
    paid = await ledger.user.post(f"/api/my/invoices/{free['id']}/pay")
    assert paid.status == 200
    assert (await ledger.staff.get(f"/api/invoices/{free['id']}/status")).body["status"] == "paid"


async def test_money_recorded_by_hand_cannot_be_sent_back_by_ledger(ledger: Installation) -> None:
    await _with_bank(ledger)
    invoice = (await ledger.create_invoice(userId=USER)).body
    await ledger.staff.post(f"/api/invoices/{invoice['id']}/mark-paid", {"method": "cash"})
    refused = await ledger.staff.post(f"/api/invoices/{invoice['id']}/refund")
    assert refused.status == 400
    assert "recorded by hand" in refused.error
    labels = [
        each["label"] for each in (await ledger.staff.get(f"/api/invoices/{invoice['id']}/actions")).body["actions"]
    ]
    assert "Refund" not in labels
