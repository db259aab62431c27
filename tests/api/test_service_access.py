"""What services may do: their own invoices, and more where staff grants it."""

from datetime import timedelta

from tests.api.shown import cells, columns
from tests.installation import CAMP, SHOP, Answer, Installation


async def grant(ledger: Installation, access: str, service_id: str = CAMP) -> Answer:
    return await ledger.staff.post("/api/service-access", {"serviceId": service_id, "access": access})


async def test_a_service_does_not_see_what_others_created(ledger: Installation) -> None:
    of_shop = (await ledger.create_invoice()).body["id"]
    body = {"userId": SHOP, "items": [{"description": "Fee", "unitPrice": 1}]}
    of_staff = (await ledger.staff.post("/api/invoices", body)).body["id"]

    for invoice_id in (of_shop, of_staff):
        status = await ledger.camp.get(f"/api/invoices/{invoice_id}/status")
        paid = await ledger.camp.post(f"/api/invoices/{invoice_id}/mark-paid")
        assert (status.status, status.error) == (404, "Invoice not found")
        assert (paid.status, paid.error) == (404, "Invoice not found")
    assert (await ledger.shop.get(f"/api/invoices/{of_shop}/status")).body["status"] == "pending"
    assert (await ledger.shop.get(f"/api/invoices/{of_staff}/status")).status == 404


async def test_a_wider_grant_counts_at_once_and_so_does_taking_it_back(ledger: Installation) -> None:
    first = (await ledger.create_invoice()).body["id"]
    second = (await ledger.create_invoice()).body["id"]

    async def may(invoice_id: str) -> tuple[int, int]:
        status = await ledger.camp.get(f"/api/invoices/{invoice_id}/status")
        paid = await ledger.camp.post(f"/api/invoices/{invoice_id}/mark-paid")
        return status.status, paid.status

    assert await may(first) == (404, 404)
    answer = await grant(ledger, "read")
    assert (answer.status, answer.body) == (200, {"success": True, "redirect": "/ledger/service-access"})
    assert await may(first) == (200, 404)
    await grant(ledger, "manage")
    assert await may(first) == (200, 200)
    await grant(ledger, "own")
    assert await may(second) == (404, 404)
    # A grant is not more than it says: staff's operations stay staff's.
    await grant(ledger, "manage")
    for path in ("/api/invoices", f"/api/invoices/{first}", "/api/payments", "/api/service-access"):
        assert (await ledger.camp.get(path)).status == 403
    assert (await ledger.camp.post(f"/api/invoices/{second}/cancel")).status == 403


async def test_grants_are_listed_and_taken_back_from_the_list(ledger: Installation) -> None:
    await grant(ledger, "read", SHOP)
    ledger.clock.move(timedelta(minutes=1))
    await grant(ledger, "manage", CAMP)

    listed = await ledger.staff.get("/api/service-access")

    assert columns(listed) == [("service", "Service"), ("access", "Access"), ("updatedAt", "Since")]
    assert listed.body["rows"] == [
        {
            "id": CAMP,
            "service": CAMP,
            "access": "Read and mark all invoices as paid",
            "updatedAt": "2026-03-15T09:31:00.000Z",
        },
        {
            "id": SHOP,
            "service": SHOP,
            "access": "Read the status of all invoices",
            "updatedAt": "2026-03-15T09:30:00.000Z",
        },
    ]
    assert listed.body["total"] == 2

    taken = await ledger.staff.delete(f"/api/service-access/{CAMP}")
    again = await ledger.staff.delete(f"/api/service-access/{CAMP}")
    assert (taken.status, taken.body) == (200, {"success": True})
    assert (again.status, again.error) == (404, "Service access not found")
    assert cells(await ledger.staff.get("/api/service-access"), "id") == [SHOP]


async def test_the_form_offers_what_can_be_granted(ledger: Installation) -> None:
    fields = (await ledger.staff.get("/api/service-access/form")).body["fields"]

    assert [(field["key"], field["type"], field["required"]) for field in fields] == [
        ("serviceId", "text", True),
        ("access", "select", True),
    ]
    assert [option["value"] for option in fields[1]["options"]] == ["own", "read", "manage"]


async def test_a_refused_grant_says_why(ledger: Installation) -> None:
    missing = await ledger.staff.post("/api/service-access", {})
    assert (missing.status, missing.error) == (400, "serviceId and access are required")
    assert missing.refused() == {"serviceId": "is required", "access": "is required"}
    for service_id in ("a/b", "a b", "x" * 65, "a\n", "nul\0", 5, "ä"):
        answer = await ledger.staff.post("/api/service-access", {"serviceId": service_id, "access": "read"})
        assert (answer.status, list(answer.refused())) == (400, ["serviceId"]), service_id
    unknown = await grant(ledger, "everything")
    assert unknown.refused() == {"access": "must be one of own, read, manage"}
    for service_id in ("%00", "a%2fb", "%27", "x" * 65):
        assert (await ledger.staff.delete(f"/api/service-access/{service_id}")).status == 404
    assert (await ledger.staff.get("/api/service-access")).body["rows"] == []


async def test_grants_are_in_the_audit_log_once_per_change(ledger: Installation) -> None:
    await grant(ledger, "read")
    await grant(ledger, "read")
    await grant(ledger, "own")
    await grant(ledger, "own")

    answer = await ledger.staff.get("/api/audit?action=service_access.updated")

    assert cells(answer, "entityId") == [CAMP, CAMP]
    details = await ledger.sql("select details->>'access' from audit_entry order by id")
    assert [row[0] for row in details] == ["read", "own"]


async def test_grants_are_for_staff(ledger: Installation) -> None:
    for caller, status in ((ledger.user, 403), (ledger.camp, 403), (ledger.nobody, 401)):
        answers = [
            await caller.get("/api/service-access"),
            await caller.get("/api/service-access/form"),
            await caller.post("/api/service-access", {"serviceId": CAMP, "access": "manage"}),
            await caller.delete(f"/api/service-access/{CAMP}"),
        ]
        assert {answer.status for answer in answers} == {status}
