"""The audit log: who changed what, and whether anybody changed the log."""

from ledger.audit.actions import seal_entries
from ledger.database.transaction import Actor
from tests.api.shown import cells, columns
from tests.installation import SHOP, Installation


async def seal(ledger: Installation) -> None:
    """What the worker does every minute."""
    async with ledger.services.database.transaction(Actor(kind="system", name="audit.seal")) as tx:
        await seal_entries(tx)


async def test_every_change_is_listed_with_who_made_it(ledger: Installation) -> None:
    paid = (await ledger.create_invoice()).body["id"]
    dropped = (await ledger.staff.post("/api/invoices/batch", {"invoices": [_body()]})).body["results"][0]["id"]
    await ledger.shop.post(f"/api/invoices/{paid}/mark-paid")
    await ledger.staff.post(f"/api/invoices/{dropped}/cancel")
    await ledger.staff.put("/api/settings", {"taxRate": 1900})
    await ledger.staff.post("/api/service-access", {"serviceId": SHOP, "access": "read"})

    answer = await ledger.staff.get("/api/audit")

    assert columns(answer) == [
        ("action", "Action"),
        ("entityType", "Type"),
        ("entityId", "Entity"),
        ("userId", "By"),
        ("createdAt", "Date"),
    ]
    shop, ada = f"service:{SHOP}", "Ada Admin"
    assert [(row["action"], row["entityType"], row["entityId"], row["userId"]) for row in answer.body["rows"]] == [
        ("service_access.updated", "service", SHOP, ada),
        ("settings.updated", "settings", "billing", ada),
        ("invoice.cancelled", "invoice", dropped, ada),
        ("payment.succeeded", "invoice", paid, shop),
        ("invoice.created", "invoice", dropped, ada),
        ("invoice.created", "invoice", paid, shop),
    ]
    assert set(cells(answer, "createdAt")) == {"2026-03-15T09:30:00.000Z"}
    assert len(set(cells(answer, "id"))) == 6


def _body() -> dict[str, object]:
    return {"userId": SHOP, "items": [{"description": "Fee", "unitPrice": 1}]}


async def test_what_was_refused_or_changed_nothing_is_not_in_the_log(ledger: Installation) -> None:
    invoice_id = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{invoice_id}/refund")
    await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid", {"amount": 0})
    await ledger.staff.put("/api/settings", {"taxRate": 0})
    await ledger.staff.post("/api/service-access", {"serviceId": SHOP, "access": "own"})
    await ledger.shop.post("/api/invoices", {})

    assert cells(await ledger.staff.get("/api/audit"), "action") == ["invoice.created"]


async def test_the_log_is_narrowed_by_action_and_by_what_it_is_about(ledger: Installation) -> None:
    first = (await ledger.create_invoice()).body["id"]
    second = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{first}/cancel")
    await ledger.staff.put("/api/settings", {"taxRate": 1})

    async def actions(query: str) -> list[object]:
        answer = await ledger.staff.get(f"/api/audit?{query}")
        assert answer.body["total"] == len(answer.body["rows"])
        return cells(answer, "action")

    assert await actions("action=invoice.cancelled") == ["invoice.cancelled"]
    assert await actions("entityType=settings") == ["settings.updated"]
    assert await actions(f"entityId={first}") == ["invoice.cancelled", "invoice.created"]
    assert await actions(f"entityId={second}&action=invoice.created") == ["invoice.created"]
    assert await actions("action=invoice.%25") == []


async def test_a_sealed_log_is_verified_and_a_changed_entry_is_found(ledger: Installation) -> None:
    await ledger.create_invoice()
    await ledger.create_invoice()
    unsealed = await ledger.staff.get("/api/audit/verify")
    assert unsealed.body == {"ok": True, "sealed": 0, "waiting": 2, "brokenAt": None}

    await seal(ledger)
    await ledger.create_invoice()
    sealed = await ledger.staff.get("/api/audit/verify")
    assert sealed.body == {"ok": True, "sealed": 2, "waiting": 1, "brokenAt": None}

    # Only who owns the tables can do this, and it does not go unseen.
    await ledger.sql("alter table audit_entry disable trigger user")
    await ledger.sql("update audit_entry set action = 'invoice.paid' where id = (select max(id) - 1 from audit_entry)")
    broken = await ledger.staff.get("/api/audit/verify")
    assert (broken.status, broken.body) == (200, {"ok": False, "sealed": 1, "waiting": 1, "brokenAt": 2})


async def test_the_log_is_for_staff(ledger: Installation) -> None:
    for path in ("/api/audit", "/api/audit/verify"):
        assert (await ledger.user.get(path)).status == 403
        assert (await ledger.shop.get(path)).status == 403
        assert (await ledger.nobody.get(path)).status == 401
