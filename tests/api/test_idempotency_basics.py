"""`Idempotency-Key`: the same request again gets the first answer and has no second effect."""

import asyncio

from tests.installation import USER, Installation

BODY = {"userId": USER, "items": [{"description": "Fee", "unitPrice": 5000}]}


async def test_the_same_request_again_gets_the_first_answer(ledger: Installation) -> None:
    first = await ledger.shop.post("/api/invoices", BODY, key="order-4711")
    again = await ledger.shop.post("/api/invoices", BODY, key="order-4711")

    assert (first.status, again.status) == (201, 201)
    assert again.content == first.content
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await ledger.staff.get("/api/invoices")).body["total"] == 1


async def test_the_key_with_another_body_is_refused(ledger: Installation) -> None:
    await ledger.shop.post("/api/invoices", BODY, key="order-4711")

    answer = await ledger.shop.post("/api/invoices", {**BODY, "notes": "changed"}, key="order-4711")

    assert answer.status == 422
    assert answer.error == "This Idempotency-Key was used with another body; take a new key for a new request"
    assert (await ledger.staff.get("/api/invoices")).body["total"] == 1


async def test_a_key_belongs_to_its_caller_and_its_operation(ledger: Installation) -> None:
    first, second = [(await ledger.create_invoice()).body["id"] for _ in range(2)]

    made = [
        await ledger.shop.post("/api/invoices", BODY, key="k"),
        await ledger.camp.post("/api/invoices", BODY, key="k"),
        await ledger.staff.post("/api/invoices", BODY, key="k"),
        await ledger.shop.post("/api/invoices/batch", {"invoices": [BODY]}, key="k"),
        await ledger.shop.post(f"/api/invoices/{first}/mark-paid", key="k"),
        await ledger.shop.post(f"/api/invoices/{second}/mark-paid", key="k"),
    ]

    assert [answer.status for answer in made] == [201, 201, 201, 201, 200, 200]
    assert all("Idempotent-Replayed" not in answer.headers for answer in made)
    assert (await ledger.staff.get("/api/payments")).body["total"] == 2


async def test_every_change_of_an_invoice_is_made_once_per_key(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    path = f"/api/invoices/{invoice_id}"

    # Without the key the second half of the money would be recorded.
    for _ in range(2):
        assert (await ledger.staff.post(f"{path}/mark-paid", {"amount": 2500}, key="half")).status == 200
    assert (await ledger.staff.get("/api/payments")).body["total"] == 1

    dropped = (await ledger.create_invoice()).body["id"]
    for _ in range(2):
        assert (await ledger.staff.post(f"/api/invoices/{dropped}/cancel", key="c")).body == {"success": True}
    grant = {"serviceId": "svc", "access": "read"}
    for _ in range(2):
        assert (await ledger.staff.post("/api/service-access", grant, key="g")).status == 200


async def test_a_refused_request_leaves_its_key_free(ledger: Installation) -> None:
    refused = await ledger.shop.post("/api/invoices", {**BODY, "currency": "XXX"}, key="order-4711")
    corrected = await ledger.shop.post("/api/invoices", BODY, key="order-4711")
    assert (refused.status, corrected.status) == (400, 201)

    invoice_id = corrected.body["id"]
    pending = await ledger.staff.post(f"/api/invoices/{invoice_id}/refund", key="r")
    await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid")
    assert pending.error == "Only paid invoices can be refunded"
    assert (await ledger.staff.post(f"/api/invoices/{invoice_id}/refund", key="r")).error != pending.error
    assert await ledger.value("select count(*) from idempotency_record") == 1


async def test_a_key_is_1_to_255_printable_characters(ledger: Installation) -> None:
    for key in ("", "x" * 256, "tab\there", "ümlaut"):
        answer = await ledger.shop.post("/api/invoices", BODY, key=key)
        assert (answer.status, answer.error) == (400, "Idempotency-Key must be 1 to 255 printable ASCII characters")
    for key in ("x", "x" * 255, 'a "quoted" key; with=signs'):
        assert (await ledger.shop.post("/api/invoices", BODY, key=key)).status == 201


async def test_equal_requests_at_once_have_one_effect(ledger: Installation) -> None:
    answers = await asyncio.gather(*(ledger.shop.post("/api/invoices", BODY, key="once") for _ in range(20)))

    created = [answer for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} <= {201, 409}
    assert len({answer.content for answer in created}) == 1
    assert (await ledger.staff.get("/api/invoices")).body["total"] == 1
    # Who came while the first ran asks again and gets its answer.
    assert (await ledger.shop.post("/api/invoices", BODY, key="once")).content == created[0].content
