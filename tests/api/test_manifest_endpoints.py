"""Every page of the manifest works: its endpoints answer 200 in the shape their section shows.

Whatever is not 2xx leaves a section at "Loading…" for ever, and a wrong shape shows an empty page.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ledger.app import APP_VERSION, all_operations
from ledger.identity import MANAGE_PERMISSION
from ledger.jobs import SCHEDULES
from ledger.manifest import build_manifest
from ledger.providers.contract import Capability
from ledger.system.run_store import insert_run
from tests.api.heard_events import add_event
from tests.api.made_mails import add_mail
from tests.api.sent_deliveries import add_delivery
from tests.api.subscribed import add_change, add_period, add_subscription, ensure_gold
from tests.installation import SHOP, USER, Answer, Client, Installation

CELL = (str, int, bool, type(None))
COLUMN_TYPES = {"string", "number", "date", "currency", "badge", "avatar", "link", "code"}
FIELD_TYPES = {"string", "number", "boolean", "date", "link", "badge", "code", "multiline"}
FORM_TYPES = {
    "text",
    "number",
    "email",
    "select",
    "textarea",
    "password",
    "search",
    "checkboxes",
    "datetime",
    "date",
}
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# With every capability there is, so that every page is looked at.
MANIFEST = build_manifest(app_version=APP_VERSION, capabilities=list(Capability))
PAGES: list[dict[str, Any]] = MANIFEST["pages"]  # type: ignore[assignment]
# Forms that are refused here, whoever sends them: the invoice is not paid, so there is nothing to refund, and no
# provider keeps subscriptions.
REFUSED_FORMS = {"/refund": 400, "/my/subscribe": 501, "/change": 503}


def check_table(body: dict[str, Any]) -> None:
    keys = [column["key"] for column in body["columns"]]
    assert len(set(keys)) == len(keys)
    for column in body["columns"]:
        assert column["label"]
        assert column.get("type", "string") in COLUMN_TYPES
        # The Dashboard shows dates in the reader's own time, if they are called so.
        assert not column["key"].endswith("At") or column["type"] == "date"
    assert body["rows"], "the page was filled, so there is something to show"
    for row in body["rows"]:
        assert isinstance(row["id"], str)
        assert set(keys) <= set(row)
        # The Dashboard filters by the text of a cell, and an object has none.
        assert all(isinstance(value, CELL) for value in row.values())
        for column in body["columns"]:
            check_value(column.get("type"), row[column["key"]])
    assert isinstance(body["total"], int)


def check_value(kind: str | None, value: object) -> None:
    if kind == "date":
        assert isinstance(value, str)
        assert ISO.fullmatch(value)
    if kind == "number":
        assert isinstance(value, int)


def check_detail(body: dict[str, Any]) -> None:
    assert body["fields"]
    for field in body["fields"]:
        assert field["label"]
        assert isinstance(field["value"], CELL)
        assert field.get("type", "string") in FIELD_TYPES
        check_value(field.get("type"), field["value"])


def check_form(body: dict[str, Any]) -> None:
    assert body["fields"]
    for field in body["fields"]:
        # With a type these fields replace the manifest's own list.
        assert field["type"] in FORM_TYPES
        assert field["label"]
        assert field.get("value") != "—", "what is shown for nothing would be saved"
        assert (field["type"] == "select") == ("options" in field)
        for option in field.get("options", []):
            assert set(option) == {"label", "value"}
            assert isinstance(option["value"], str)
        if "options" in field and "value" in field:
            assert field["value"] in [option["value"] for option in field["options"]]


def check_actions(body: dict[str, Any]) -> None:
    for action in body["actions"]:
        assert action["label"]
        assert action.get("variant", "danger") == "danger"
        assert is_operation(action["method"], action["endpoint"])


def check_stats(body: dict[str, Any]) -> None:
    assert body["stats"]
    for stat in body["stats"]:
        assert stat["key"]
        assert stat["label"]
        assert isinstance(stat["value"], str | int)


CHECKS = {
    "data-table": check_table,
    "detail": check_detail,
    "form": check_form,
    "action-bar": check_actions,
    "stats-row": check_stats,
}


def is_operation(method: str, endpoint: str) -> bool:
    """Tells whether Ledger has this operation, the ids being filled in or still named."""
    return any(
        operation.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", operation.path), endpoint)
        for operation in all_operations()
    )


def page_paths() -> list[re.Pattern[str]]:
    return [re.compile(re.sub(r":\w+", "[^/]+", page["path"])) for page in PAGES]


def sections() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for page in PAGES:
        for section in page["sections"]:
            yield page, section


def filled(template: str, values: dict[str, Any]) -> str:
    """A path with its `:param`s taken from a row; a missing one fails."""
    return re.sub(r":(\w+)", lambda match: str(values[match.group(1)]), template)


def caller_of(ledger: Installation, page: dict[str, Any]) -> Client:
    return ledger.staff if page.get("requiredPermission") else ledger.user


class Filled(NamedTuple):
    """An installation with something in every list: what `:id` is on the pages of each feature."""

    invoice: str
    provider: str
    product: str
    subscription: str
    subscriber: str
    delivery: str

    def values_of(self, page: dict[str, Any]) -> dict[str, str]:
        if page["path"].startswith("/privacy"):
            return {"id": USER}
        if page["path"].startswith("/providers"):
            return {"id": self.provider}
        if page["path"].endswith("/subscriptions/:id"):
            return {"id": self.subscription}
        if page["path"].startswith("/webhooks/subscribers"):
            return {"id": self.subscriber}
        if page["path"].startswith("/webhooks/deliveries"):
            return {"id": self.delivery}
        return {"id": self.product if page["path"].startswith("/products") else self.invoice}


async def something_of_everything(ledger: Installation) -> Filled:
    """Fills every list."""
    provider = (await ledger.staff.post("/api/providers", {"type": "manual", "name": "Cash box"})).body["id"]
    await ledger.staff.put(f"/api/providers/{provider}", {"paymentMethod": "cash"})
    product = {"name": "Ticket", "price": "5000", "type": "one-time"}
    await ledger.staff.post("/api/service-access", {"serviceId": SHOP, "access": "read"})
    paid = (await ledger.create_invoice()).body["id"]
    await ledger.staff.post(f"/api/invoices/{paid}/mark-paid")
    subscription = await add_subscription(ledger)
    await add_period(ledger, subscription, invoice_id=paid)
    await add_change(ledger, subscription, product_id=await ensure_gold(ledger))
    await add_event(ledger)
    await add_mail(ledger)
    async with ledger.services.database.connection() as connection:
        await insert_run(connection, name=SCHEDULES[0].name, now=ledger.clock.now())
    subscriber = {"name": "Shop", "url": "https://93.184.216.34/hooks"}
    subscriber_id = (await ledger.staff.post("/api/webhooks/subscribers", subscriber)).body["id"]
    return Filled(
        invoice=(await ledger.create_invoice(dueDate="2026-03-01")).body["id"],
        provider=provider,
        product=(await ledger.staff.post("/api/products", product)).body["id"],
        subscription=subscription,
        subscriber=subscriber_id,
        delivery=await add_delivery(ledger, subscriber_id),
    )


def test_the_manifest_has_the_pages_it_shall_have() -> None:
    paths = {page["path"] for page in PAGES}

    assert {"/", "/my/invoices/:id", "/overview", "/invoices", "/invoices/:id", "/payments", "/audit"} <= paths
    assert {"/settings", "/service-access"} <= paths
    overview = next(page for page in PAGES if page["path"] == "/overview")
    assert [section["type"] for section in overview["sections"]] == ["stats-row", "data-table"]


async def test_every_section_of_every_page_gets_its_shape(ledger: Installation) -> None:
    things = await something_of_everything(ledger)

    for page, section in sections():
        if not section["endpoint"]:
            assert section["type"] in {"callout", "markdown", "empty-state"}
            continue
        answer: Answer = await caller_of(ledger, page).get(filled(section["endpoint"], things.values_of(page)))
        assert answer.status == 200, (page["path"], section, answer.content)
        assert answer.headers["Content-Type"] == "application/json"
        CHECKS[section["type"]](answer.body)


async def test_an_empty_installation_shows_its_pages_too(ledger: Installation) -> None:
    for page, section in sections():
        if section["endpoint"] and ":" not in section["endpoint"]:
            answer = await caller_of(ledger, page).get(section["endpoint"])
            assert answer.status == 200, (page["path"], section, answer.content)
            # What Ledger does by itself is there from the start.
            if section["type"] == "data-table" and section["endpoint"] != "/api/jobs":
                assert (answer.body["rows"], answer.body["total"]) == ([], 0)
                assert section["config"]["emptyState"]["title"]


async def test_links_of_rows_lead_to_pages_and_their_actions_to_operations(ledger: Installation) -> None:
    things = await something_of_everything(ledger)

    for page, section in sections():
        if section["type"] != "data-table":
            continue
        row = (await caller_of(ledger, page).get(filled(section["endpoint"], things.values_of(page)))).body["rows"][0]
        if "rowLink" in section["config"]:
            path = filled(section["config"]["rowLink"], row)
            assert any(pattern.fullmatch(path) for pattern in page_paths()), path
        for action in section["config"].get("rowActions", []):
            assert is_operation(action["method"], filled(action["endpoint"], row))


def test_forms_are_sent_to_operations_that_take_text() -> None:
    for _, section in sections():
        if section["type"] == "form":
            config = section["config"]
            taking = [
                operation
                for operation in all_operations()
                if (operation.method, operation.path)
                == (config["method"], re.sub(r":(\w+)", r"{\1}", config["submitEndpoint"]))
            ]
            assert [operation.is_form for operation in taking] == [True]


async def test_a_form_can_be_sent_back_as_it_was_shown(ledger: Installation) -> None:
    """Everything as text, what is empty left out, and the first choice where nothing was chosen."""
    things = await something_of_everything(ledger)
    typed_in = {
        "name": "Something",
        "serviceId": SHOP,
        "price": "5000",
        "userId": USER,
        "url": "https://93.184.216.34/hooks",
    }

    for page, section in sections():
        if section["type"] == "form":
            values = things.values_of(page)
            caller = caller_of(ledger, page)
            fields = (await caller.get(filled(section["endpoint"], values))).body["fields"]
            sent = {field["key"]: str(field["value"]) for field in fields if field.get("value") is not None}
            for field in fields:
                if field["key"] not in sent and field["type"] == "select":
                    sent[field["key"]] = field["options"][0]["value"]
                elif field["key"] not in sent and field.get("required"):
                    sent[field["key"]] = typed_in[field["key"]]
            config = section["config"]
            send = caller.put if config["method"] == "PUT" else caller.post
            answer = await send(filled(config["submitEndpoint"], values), sent)
            refused = {status for end, status in REFUSED_FORMS.items() if config["submitEndpoint"].endswith(end)}
            expected = refused or {200, 201}
            assert answer.status in expected, (section, answer.content)


async def test_the_pages_of_staff_are_hidden_and_closed_to_others(ledger: Installation) -> None:
    things = await something_of_everything(ledger)

    for page, section in sections():
        endpoint = filled(section["endpoint"], things.values_of(page))
        if not endpoint:
            continue
        for_staff = page.get("requiredPermission") == MANAGE_PERMISSION
        assert for_staff == (not endpoint.startswith("/api/my/"))
        answer = await ledger.user.get(endpoint)
        assert answer.status == (403 if for_staff else 200), endpoint
        assert (await ledger.nobody.get(endpoint)).status == 401


def test_subscriptions_have_pages_only_where_a_provider_keeps_them() -> None:
    def places(*capabilities: Capability) -> tuple[set[str], list[str]]:
        manifest: dict[str, Any] = build_manifest(app_version=APP_VERSION, capabilities=capabilities)
        links = [*manifest["navigation"], *manifest["sidebar"]["items"], *manifest["sidebar"]["footerItems"]]
        paths = {page["path"] for page in manifest["pages"] if "subscriptions" in page["path"]}
        return paths, [link["path"] for link in links if "subscriptions" in link["path"]]

    paths, links = places(Capability.SUBSCRIPTIONS)
    assert paths == {"/subscriptions", "/subscriptions/:id", "/my/subscriptions", "/my/subscriptions/:id"}
    assert links == ["/my/subscriptions", "/my/subscriptions", "/subscriptions"]
    assert places(*(each for each in Capability if each is not Capability.SUBSCRIPTIONS)) == (set(), [])


def test_the_sidebar_has_what_is_ones_own_above_the_administration() -> None:
    sidebar: dict[str, Any] = MANIFEST["sidebar"]  # type: ignore[assignment]
    assert [link["label"] for link in sidebar["items"]] == ["My Invoices", "Overview", "My Subscriptions"]
    assert "Subscriptions" in [link["label"] for link in sidebar["footerItems"]]


@pytest.mark.parametrize("capabilities", [(), tuple(Capability)], ids=["without a provider", "with everything"])
@pytest.mark.parametrize("where", ["navigation", "sidebar"])
def test_what_stands_in_the_menu_leads_to_pages(where: str, capabilities: tuple[Capability, ...]) -> None:
    manifest: dict[str, Any] = build_manifest(app_version=APP_VERSION, capabilities=capabilities)
    links = manifest[where] if where == "navigation" else [*manifest[where]["items"], *manifest[where]["footerItems"]]
    permissions = {page["path"]: page.get("requiredPermission") for page in PAGES}

    assert links
    for link in links:
        assert permissions[link["path"]] == link.get("requiredPermission")
