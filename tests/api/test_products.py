"""Products through the API: added, shown, changed and taken off sale by staff, without any provider."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from ledger.products.store import ProductForLine, ProductNotOnSale, find_products, get_active_product
from tests.api.shown import buttons, cells, columns, labels, types
from tests.installation import Answer, Installation

NOW = "2026-03-15T09:30:00.000Z"
TICKET = {"name": "Ticket", "price": 5000, "type": "one-time"}
MEMBERSHIP = {"name": "Membership", "price": 1200, "type": "recurring", "interval": "year"}


async def add(ledger: Installation, body: dict[str, object], **more: object) -> str:
    answer = await ledger.staff.post("/api/products", body | more)
    assert answer.status == 201, answer.content
    product_id: str = answer.body["id"]
    return product_id


async def shown(ledger: Installation, product_id: str) -> dict[str, object]:
    return (await ledger.staff.get(f"/api/products/{product_id}")).fields()


def form_values(answer: Answer) -> dict[str, object]:
    """A form's values by key, as the Dashboard would send them back: as text, without what is empty."""
    return {field["key"]: str(field["value"]) for field in answer.body["fields"] if field.get("value") is not None}


async def prices(ledger: Installation, product_id: str) -> list[tuple[object, ...]]:
    rows = await ledger.sql(
        "select amount_minor, currency, interval, is_current from product_price where product_id = $1 order by id",
        product_id,
    )
    return [tuple(row.values()) for row in rows]


async def audit(ledger: Installation, product_id: str) -> list[tuple[str, dict[str, object]]]:
    rows = await ledger.sql(
        "select action, details from audit_entry where entity_type = 'product' and entity_id = $1 order by id",
        product_id,
    )
    return [(row["action"], msgspec.json.decode(row["details"])) for row in rows]


async def test_staff_adds_a_product_and_is_led_to_its_page(ledger: Installation) -> None:
    answer = await ledger.staff.post("/api/products", TICKET)

    assert answer.status == 201
    product_id = answer.body["id"]
    assert answer.body == {"success": True, "id": product_id, "redirect": f"/ledger/products/{product_id}"}
    assert await audit(ledger, product_id) == [
        (
            "product.created",
            {"version": 1, "type": "one-time", "price": 5000, "currency": "EUR", "interval": None},
        )
    ]


async def test_the_detail_shows_the_published_fields_in_their_order(ledger: Installation) -> None:
    product_id = await add(
        ledger, MEMBERSHIP, description="All\nyear", currency="chf", taxRate=700, prorateOnChange=False, unknown=[1]
    )

    answer = await ledger.staff.get(f"/api/products/{product_id}")

    assert labels(answer) == [
        ("name", "Name"),
        ("description", "Description"),
        ("price", "Price (cents)"),
        ("currency", "Currency"),
        ("type", "Type"),
        ("interval", "Interval"),
        ("active", "Active"),
        ("createdAt", "Created"),
        ("taxRate", "Tax Rate (basis points)"),
        ("prorateOnChange", "Prorate Changes"),
    ]
    assert answer.fields() == {
        "name": "Membership",
        "description": "All\nyear",
        "price": 1200,
        "currency": "CHF",
        "type": "recurring",
        "interval": "year",
        "active": True,
        "createdAt": NOW,
        "taxRate": 700,
        "prorateOnChange": False,
    }
    assert types(answer)["description"] == "multiline"


async def test_what_a_product_does_not_have_is_a_dash(ledger: Installation) -> None:
    answer = await ledger.staff.get(f"/api/products/{await add(ledger, TICKET)}")

    fields = answer.fields()
    assert (fields["description"], fields["interval"], fields["taxRate"]) == ("—", "—", "—")
    # A dash is no number, and a one-time product has no subscription that could change.
    assert "taxRate" not in types(answer)
    assert not {"prorateOnChange", "sync"} & fields.keys()


async def test_the_list_shows_the_published_columns_newest_first(ledger: Installation) -> None:
    ticket = await add(ledger, TICKET)
    membership = await add(ledger, MEMBERSHIP, currency="JPY")
    await ledger.staff.post(f"/api/products/{ticket}/toggle")

    answer = await ledger.staff.get("/api/products")

    assert columns(answer) == [("name", "Name"), ("amount", "Price"), ("type", "Type"), ("status", "Status")]
    assert answer.body["rows"] == [
        {"id": membership, "name": "Membership", "amount": "1200 JPY", "type": "recurring", "status": "Active"},
        {"id": ticket, "name": "Ticket", "amount": "50.00 EUR", "type": "one-time", "status": "Inactive"},
    ]
    assert answer.body["total"] == 2


async def test_the_list_is_narrowed_and_paged(ledger: Installation) -> None:
    ids = [await add(ledger, TICKET | {"name": f"Ticket {n}"}) for n in range(5)]
    other = await add(ledger, MEMBERSHIP)
    await ledger.staff.post(f"/api/products/{ids[0]}/toggle")

    async def named(query: str) -> list[object]:
        return cells(await ledger.staff.get(f"/api/products?{query}"), "name")

    assert await named("status=inactive") == ["Ticket 0"]
    assert await named("type=recurring") == ["Membership"]
    assert await named("type=one-time&status=active") == ["Ticket 4", "Ticket 3", "Ticket 2", "Ticket 1"]
    assert await named("type=recurring&status=inactive") == []
    seen: list[object] = []
    path = "/api/products?limit=2"
    for _ in range(3):
        page = await ledger.staff.get(path)
        assert page.body["total"] == 6
        seen += cells(page, "id")
        path = f"/api/products?limit=2&cursor={page.body.get('nextCursor')}"
    assert "nextCursor" not in page.body
    assert seen == [other, *reversed(ids)]
    for query in ("status=gone", "type=rent", "limit=0", "limit=201", "cursor=x"):
        assert (await ledger.staff.get(f"/api/products?{query}")).status == 400


@pytest.mark.parametrize(
    "body",
    [{}, {"name": "Ticket", "price": 1}, {"name": "", "price": "1", "type": "one-time"}, TICKET | {"price": None}],
)
async def test_a_product_that_lacks_something_is_refused(ledger: Installation, body: dict[str, object]) -> None:
    answer = await ledger.staff.post("/api/products", body)

    assert (answer.status, answer.error) == (400, "Name, price, and type are required")
    assert answer.refused()
    assert await ledger.value("select count(*) from product") == 0


async def test_bad_input_is_refused_with_its_reason_and_leaves_nothing_behind(ledger: Installation) -> None:
    refused = {
        "price": ["abc", "50.00", -1, 10**10 + 1, True, [], "1e3"],
        "type": ["rent", "one_time", 1],
        "name": ["  ", "two\nlines", "x" * 251, 5],
        "interval": ["month", "week", 1],
        "currency": ["euro", "XXX", "", 978],
        "taxRate": [-1, 10_001, "19 %", "19.0", [1]],
        "description": ["x" * 5001, "\0", 1],
        "prorateOnChange": ["perhaps", 2],
    }
    for field, values in refused.items():
        for value in values:
            answer = await ledger.staff.post("/api/products", TICKET | {field: value})
            assert (answer.status, list(answer.refused())) == (400, [field]), (field, value)
            assert field.lower() in answer.error.lower()
    without = await ledger.staff.post("/api/products", MEMBERSHIP | {"interval": None})
    assert (without.status, list(without.refused())) == (400, ["interval"])
    assert (await ledger.staff.send("POST", "/api/products", data=b"{")).error == "Invalid JSON"
    assert await ledger.value("select count(*) from product") == 0
    assert await ledger.value("select count(*) from audit_entry") == 0


async def test_the_form_of_a_new_product_sends_what_is_accepted(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"defaultCurrency": "CHF"})
    form = await ledger.staff.get("/api/products/form")
    options = {field["key"]: field.get("options") for field in form.body["fields"]}
    # The Dashboard sends the first option of a select nobody touched, and everything as text.
    chosen = {key: choices[0]["value"] for key, choices in options.items() if choices}

    product_id = await add(ledger, form_values(form) | chosen | {"name": "Ticket", "price": "5000"})

    fields = await shown(ledger, product_id)
    assert (fields["type"], fields["currency"], fields["price"]) == ("one-time", "CHF", 5000)
    assert list(options) == [
        "name",
        "price",
        "currency",
        "type",
        "interval",
        "description",
        "taxRate",
        "prorateOnChange",
    ]
    assert [option["value"] for option in options["interval"]] == ["none", "month", "year"]


async def test_the_edit_form_holds_true_values_and_saving_it_untouched_changes_nothing(ledger: Installation) -> None:
    for body in (TICKET, MEMBERSHIP | {"description": "All\nyear", "taxRate": 0, "prorateOnChange": False}):
        product_id = await add(ledger, body)
        before = await ledger.sql("select * from product where id = $1", product_id)
        ledger.clock.move(timedelta(minutes=1))

        values = form_values(await ledger.staff.get(f"/api/products/{product_id}/form"))
        saved = await ledger.staff.put(f"/api/products/{product_id}", values)

        assert (saved.status, saved.body) == (200, {"success": True})
        assert "—" not in values.values()
        assert await ledger.sql("select * from product where id = $1", product_id) == before
        assert len(await prices(ledger, product_id)) == len(await audit(ledger, product_id)) == 1
    assert values == {
        "name": "Membership",
        "price": "1200",
        "currency": "EUR",
        "description": "All\nyear",
        "taxRate": "0",
        "interval": "year",
        "prorateOnChange": "false",
    }


async def test_a_changed_price_is_a_new_one_and_the_old_one_is_kept(ledger: Installation) -> None:
    product_id = await add(ledger, MEMBERSHIP)
    for change in ({"price": "1500"}, {"currency": "usd"}, {"interval": "month"}, {"name": "Club"}):
        assert (await ledger.staff.put(f"/api/products/{product_id}", change)).status == 200

    assert await prices(ledger, product_id) == [
        (1200, "EUR", "year", False),
        (1500, "EUR", "year", False),
        (1500, "USD", "year", False),
        (1500, "USD", "month", True),
    ]
    fields = await shown(ledger, product_id)
    assert (fields["name"], fields["price"], fields["currency"], fields["interval"]) == ("Club", 1500, "USD", "month")
    assert (await audit(ledger, product_id))[1:] == [
        ("product.updated", {"version": 2, "changed": "price"}),
        ("product.updated", {"version": 3, "changed": "currency"}),
        ("product.updated", {"version": 4, "changed": "interval"}),
        ("product.updated", {"version": 5, "changed": "name"}),
    ]


async def test_changes_at_the_same_time_are_made_one_after_the_other(ledger: Installation) -> None:
    product_id = await add(ledger, MEMBERSHIP)
    path = f"/api/products/{product_id}"

    answers = await asyncio.gather(
        *(ledger.staff.put(path, {"price": 2000 + n}) for n in range(20)),
        *(ledger.staff.post(f"{path}/toggle") for _ in range(5)),
    )

    assert {answer.status for answer in answers} == {200}
    kept = await prices(ledger, product_id)
    assert {row[0] for row in kept} == {1200, *range(2000, 2020)}
    assert len(kept) == 21
    assert [row[0] for row in kept if row[3]] == [(await shown(ledger, product_id))["price"]]
    assert [details["version"] for _, details in await audit(ledger, product_id)] == list(range(1, 27))
    assert (await shown(ledger, product_id))["active"] is False


async def test_what_a_change_leaves_out_stays_and_a_dash_removes(ledger: Installation) -> None:
    product_id = await add(ledger, TICKET, description="Two days", taxRate=1900)
    path = f"/api/products/{product_id}"

    await ledger.staff.put(path, {"name": "Pass", "description": None, "taxRate": None})
    kept = await shown(ledger, product_id)
    await ledger.staff.put(path, {"description": "-", "taxRate": "-"})
    removed = await shown(ledger, product_id)

    assert (kept["name"], kept["description"], kept["taxRate"]) == ("Pass", "Two days", 1900)
    assert (removed["name"], removed["description"], removed["taxRate"]) == ("Pass", "—", "—")


async def test_a_refused_change_changes_nothing(ledger: Installation) -> None:
    product_id = await add(ledger, MEMBERSHIP)
    before = await shown(ledger, product_id)
    for field, value in {
        "type": "one-time",
        "interval": "none",
        "price": "abc",
        "name": "",
        "currency": "euro",
        "taxRate": "x",
    }.items():
        answer = await ledger.staff.put(f"/api/products/{product_id}", {"name": "Club"} | {field: value})
        assert (answer.status, list(answer.refused())) == (400, [field])

    assert await shown(ledger, product_id) == before
    assert len(await audit(ledger, product_id)) == 1


async def test_a_product_goes_off_sale_and_comes_back(ledger: Installation) -> None:
    product_id = await add(ledger, TICKET)
    path = f"/api/products/{product_id}"

    on_sale = await ledger.staff.get(f"{path}/actions")
    assert (await ledger.staff.post(f"{path}/toggle")).body == {"success": True}
    off_sale = await ledger.staff.get(f"{path}/actions")
    assert (await shown(ledger, product_id))["active"] is False
    assert (await ledger.staff.post(f"{path}/toggle")).status == 200

    assert buttons(on_sale) == {"Deactivate": ("POST", f"{path}/toggle")}
    assert buttons(off_sale) == {"Activate": ("POST", f"{path}/toggle")}
    assert on_sale.body["actions"][0]["variant"] == "danger"
    assert all("Ticket" in answer.body["actions"][0]["confirm"] for answer in (on_sale, off_sale))
    assert [action for action, _ in await audit(ledger, product_id)] == [
        "product.created",
        "product.deactivated",
        "product.activated",
    ]
    assert (await shown(ledger, product_id))["active"] is True


async def test_pressing_twice_with_one_key_toggles_once(ledger: Installation) -> None:
    product_id = await add(ledger, TICKET)

    answers = [await ledger.staff.post(f"/api/products/{product_id}/toggle", key="k") for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert (await shown(ledger, product_id))["active"] is False


async def test_an_unknown_product_is_not_found_by_any_operation(ledger: Installation) -> None:
    for product_id in ("0199c0de-0000-7000-8000-000000000001", "1", "a'b", "%2e%2e", "x" * 64, "%00"):
        path = f"/api/products/{product_id}"
        answers = [
            await ledger.staff.get(path),
            await ledger.staff.put(path, {"name": "Club"}),
            await ledger.staff.get(f"{path}/form"),
            await ledger.staff.get(f"{path}/actions"),
            await ledger.staff.post(f"{path}/toggle"),
        ]
        assert {(answer.status, answer.error) for answer in answers} == {(404, "Product not found")}


async def test_products_are_for_staff_only(ledger: Installation) -> None:
    path = f"/api/products/{await add(ledger, TICKET)}"
    for client, status in ((ledger.nobody, 401), (ledger.user, 403), (ledger.shop, 403)):
        answers = [
            await client.get("/api/products"),
            await client.get("/api/products/form"),
            await client.post("/api/products", TICKET),
            await client.get(path),
            await client.get(f"{path}/form"),
            await client.put(path, {"name": "Club"}),
            await client.get(f"{path}/actions"),
            await client.post(f"{path}/toggle"),
        ]
        assert {answer.status for answer in answers} == {status}


async def test_invoice_lines_find_products_on_sale_or_not_and_subscriptions_only_those_on_sale(
    ledger: Installation,
) -> None:
    ticket = await add(ledger, TICKET)
    membership = await add(ledger, MEMBERSHIP, taxRate=700)
    await ledger.staff.post(f"/api/products/{ticket}/toggle")

    async with ledger.services.database.connection() as connection:
        found = await find_products(connection, product_ids=[ticket.upper(), membership, "no id", ticket[:-1] + "z"])
        on_sale = await get_active_product(connection, product_id=membership)
        for product_id in (ticket, "no id", "0199c0de-0000-7000-8000-000000000001"):
            with pytest.raises(ProductNotOnSale, match="Product not found or inactive"):
                await get_active_product(connection, product_id=product_id)

    assert found == {
        ticket: ProductForLine(id=ticket, is_active=False, tax_rate_bp=None),
        membership: ProductForLine(id=membership, is_active=True, tax_rate_bp=700),
    }
    assert on_sale.draft.name == "Membership"


async def test_without_a_provider_that_keeps_products_nobody_is_asked_to(ledger: Installation) -> None:
    product_id = await add(ledger, TICKET)
    await ledger.staff.put(f"/api/products/{product_id}", {"price": 1})

    assert await ledger.value("select count(*) from product_sync") == 0
    assert await ledger.value("select count(*) from pgqueuer") == 0
