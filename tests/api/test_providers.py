"""Payment providers: configured by staff, one active at a time, secrets never shown."""

from tests.installation import Answer, Installation

IBAN = {"paymentMethod": "iban", "ibanHolder": "Fur Club e.V.", "ibanNumber": "DE89370400440532013000"}
KEY = "sk_test_abcdefghijklmnop"
WEBHOOK = "whsec_abcdefghijklmnop"


async def _add(ledger: Installation, kind: str, name: str = "Account", **settings: str) -> str:
    added = await ledger.staff.post("/api/providers", {"type": kind, "name": name})
    assert added.status == 201, added.content
    if settings:
        changed = await ledger.staff.put(f"/api/providers/{added.body['id']}", settings)
        assert changed.status == 200, changed.content
    provider_id: str = added.body["id"]
    return provider_id


def _values(answer: Answer) -> dict[str, object]:
    return {field["key"]: field.get("value") for field in answer.body["fields"]}


async def test_a_provider_is_added_filled_in_and_activated(ledger: Installation) -> None:
    added = await ledger.staff.post("/api/providers", {"type": "manual", "name": "Our bank"})
    assert added.status == 201
    provider_id = added.body["id"]
    assert added.body == {"success": True, "id": provider_id, "redirect": f"/ledger/providers/{provider_id}"}

    early = await ledger.staff.post(f"/api/providers/{provider_id}/activate")
    assert early.status == 400
    assert early.error == "Fill in the settings of this provider before you activate it"

    assert (await ledger.staff.put(f"/api/providers/{provider_id}", IBAN)).status == 200
    assert (await ledger.staff.post(f"/api/providers/{provider_id}/activate")).body == {"success": True}

    listed = await ledger.staff.get("/api/providers")
    assert listed.body["rows"] == [{"id": provider_id, "name": "Our bank", "type": "manual", "status": "Active"}]
    shown = (await ledger.staff.get(f"/api/providers/{provider_id}")).fields()
    assert (shown["name"], shown["type"], shown["active"]) == ("Our bank", "manual", True)
    labels = [
        each["label"] for each in (await ledger.staff.get(f"/api/providers/{provider_id}/actions")).body["actions"]
    ]
    assert labels == ["Deactivate", "Test connection"]


async def test_what_a_provider_needs_is_told_in_words(ledger: Installation) -> None:
    missing = await ledger.staff.post("/api/providers", {"name": "x"})
    assert (missing.status, missing.error) == (400, "Type and name are required")
    unknown = await ledger.staff.post("/api/providers", {"type": "paypal", "name": "x"})
    assert (unknown.status, unknown.error) == (400, "Unknown provider type: paypal")

    provider_id = await _add(ledger, "manual")
    for wrong in (
        IBAN | {"ibanNumber": "DE88370400440532013000"},
        IBAN | {"ibanHolder": ""},
        {"paymentMethod": "custom"},
        {"paymentMethod": "barter"},
    ):
        refused = await ledger.staff.put(f"/api/providers/{provider_id}", wrong)
        assert refused.status == 400, wrong
        assert refused.refused(), wrong
    assert await ledger.value("select settings_sealed is null from provider_connection") is True


async def test_only_one_provider_is_active(ledger: Installation) -> None:
    first = await _add(ledger, "manual", "First", **IBAN)
    second = await _add(ledger, "manual", "Second", paymentMethod="cash")
    await ledger.staff.post(f"/api/providers/{first}/activate")
    await ledger.staff.post(f"/api/providers/{second}/activate")

    rows = await ledger.sql("select id::text from provider_connection where is_active")
    assert [row["id"] for row in rows] == [second]

    unknown = await ledger.staff.post("/api/providers/00000000-0000-7000-8000-000000000009/activate")
    assert (unknown.status, unknown.error) == (404, "Provider not found")
    rows = await ledger.sql("select id::text from provider_connection where is_active")
    assert [row["id"] for row in rows] == [second]

    await ledger.staff.post(f"/api/providers/{second}/deactivate")
    assert await ledger.sql("select 1 from provider_connection where is_active") == []
    actions = [row["action"] for row in (await ledger.staff.get("/api/audit?entityType=provider")).body["rows"]]
    assert actions == [
        "provider.deactivated",
        "provider.activated",
        "provider.activated",
        "provider.updated",
        "provider.created",
        "provider.updated",
        "provider.created",
    ]


async def test_secrets_are_masked_and_a_mask_leaves_them_alone(ledger: Installation) -> None:
    """A7: a secret is never in a response after it was entered, nor readable in the database."""
    provider_id = await _add(ledger, "stripe", "Card payments", secretKey=KEY, webhookSecret=WEBHOOK)

    shown = await ledger.staff.get(f"/api/providers/{provider_id}")
    form = await ledger.staff.get(f"/api/providers/{provider_id}/settings")
    for answer in (shown, form):
        assert KEY.encode() not in answer.content
        assert WEBHOOK.encode() not in answer.content
    assert _values(form)["secretKey"] == "********"

    masked = {"name": "Cards", "secretKey": "********", "webhookSecret": "whsec_anotherone1234567"}
    assert (await ledger.staff.put(f"/api/providers/{provider_id}", masked)).status == 200
    from ledger.providers.connections import Connections
    from ledger.providers.store import get_connection

    async with ledger.services.database.connection() as connection:
        stored = await get_connection(connection, connection_id=provider_id)
    assert stored.settings_sealed is not None
    assert KEY.encode() not in stored.settings_sealed
    settings = ledger.services.get(Connections).open_settings(stored)
    assert settings == {"secretKey": KEY, "webhookSecret": "whsec_anotherone1234567"}


async def test_a_changed_provider_reaches_lanyard_at_once(ledger: Installation) -> None:
    import asyncio

    for _ in range(60):
        if ledger.lanyard.heartbeats:
            break
        await asyncio.sleep(0.1)
    before = len(ledger.lanyard.heartbeats)
    provider_id = await _add(ledger, "manual", "Ours", **IBAN)
    await ledger.staff.post(f"/api/providers/{provider_id}/activate")
    for _ in range(60):
        if len(ledger.lanyard.heartbeats) > before:
            break
        await asyncio.sleep(0.1)
    assert len(ledger.lanyard.heartbeats) > before
