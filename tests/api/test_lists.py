"""What every list does: newest first, paged by cursors, narrowed by filters, with the true total."""

import asyncio
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest

from tests.api.shown import cells
from tests.installation import CAMP, OTHER, SHOP, START, USER, Installation

PAGED = ("/api/invoices", "/api/my/invoices", "/api/payments", "/api/audit", "/api/service-access")


async def fill(ledger: Installation, *, count: int) -> None:
    """So many rows in every list, some of them of the same moment."""
    for n in range(count):
        invoice_id = (await ledger.create_invoice()).body["id"]
        await ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid")
        await ledger.staff.post("/api/service-access", {"serviceId": f"svc-{n}", "access": "read"})
        ledger.clock.move(timedelta(seconds=n % 2))


async def numbers(ledger: Installation, query: str) -> list[object]:
    """The invoices a query finds, by the last digits of their numbers; the total has to agree."""
    answer = await ledger.staff.get(f"/api/invoices?{query}")
    assert answer.status == 200, answer.content
    assert answer.body["total"] == len(answer.body["rows"])
    return [int(str(number).rsplit("-", 1)[1]) for number in cells(answer, "invoiceNumber")]


@pytest.mark.parametrize("path", PAGED)
async def test_a_list_is_read_in_pages_without_gaps_or_repetitions(ledger: Installation, path: str) -> None:
    await fill(ledger, count=5)
    caller = ledger.user if path.startswith("/api/my/") else ledger.staff
    whole = await caller.get(path)
    assert whole.body["total"] == len(whole.body["rows"]) >= 5
    assert "nextCursor" not in whole.body

    pages: list[object] = []
    cursor = ""
    while True:
        page = (await caller.get(f"{path}?limit=2{cursor}")).body
        assert page["total"] == whole.body["total"]
        pages += page["rows"]
        if "nextCursor" not in page:
            break
        assert len(page["rows"]) == 2
        cursor = f"&cursor={page['nextCursor']}"

    assert pages == whole.body["rows"]


async def test_what_is_new_does_not_disturb_who_is_paging(ledger: Installation) -> None:
    for _ in range(4):
        await ledger.create_invoice()
    first = (await ledger.staff.get("/api/invoices?limit=2")).body

    await ledger.create_invoice()
    second = await ledger.staff.get(f"/api/invoices?limit=2&cursor={first['nextCursor']}")

    assert cells(second, "invoiceNumber") == ["INV-2026-0002", "INV-2026-0001"]
    assert second.body["total"] == 5


async def test_a_list_sends_at_most_200_rows_unless_told_fewer(ledger: Installation) -> None:
    body = {"userId": USER, "items": [{"description": "Fee", "unitPrice": 1}]}
    await ledger.shop.post("/api/invoices/batch", {"invoices": [body] * 201})

    for query in ("", "?limit=200", "?limit="):
        answer = await ledger.staff.get(f"/api/invoices{query}")
        assert (len(answer.body["rows"]), answer.body["total"]) == (200, 201)
        assert answer.body["rows"][0]["invoiceNumber"] == "INV-2026-0201"
    rest = await ledger.staff.get(f"/api/invoices?cursor={answer.body['nextCursor']}")
    assert cells(rest, "invoiceNumber") == ["INV-2026-0001"]
    assert len((await ledger.staff.get("/api/invoices?limit=1")).body["rows"]) == 1


async def test_a_total_is_exact_up_to_ten_thousand_and_then_says_that_there_is_more(ledger: Installation) -> None:
    async def total(query: str = "") -> tuple[object, object]:
        body = (await ledger.staff.get(f"/api/audit?limit=1{query}")).body
        return body["total"], body.get("totalIsMore")

    await ledger.sql(
        "insert into audit_entry (action, entity_type, entity_id, actor_kind, created_at) "
        "select 'test.counted', 'test', n::text, 'system', now() from generate_series(1, 10000) n"
    )
    assert await total() == (10_000, None)
    await ledger.create_invoice()
    assert await total() == (10_000, True)
    assert await total("&action=test.counted") == (10_000, None)
    assert await total("&action=invoice.created") == (1, None)


async def test_invoices_are_narrowed_to_a_status(ledger: Installation) -> None:
    ids = [(await ledger.create_invoice(dueDate=due)).body["id"] for due in ("2026-03-14", "2026-03-15", None, None)]
    await ledger.staff.post(f"/api/invoices/{ids[2]}/mark-paid")
    await ledger.staff.post(f"/api/invoices/{ids[3]}/cancel")

    assert await numbers(ledger, "status=pending") == [2, 1]
    assert await numbers(ledger, "status=paid") == [3]
    assert await numbers(ledger, "status=cancelled") == [4]
    assert await numbers(ledger, "status=failed") == await numbers(ledger, "status=refunded") == []
    # Overdue is no state: the row says pending.
    assert await numbers(ledger, "status=overdue") == [1]
    assert cells(await ledger.staff.get("/api/invoices?status=overdue"), "status") == ["pending"]


async def test_an_invoice_is_overdue_once_its_due_day_or_its_due_time_is_over(ledger: Installation) -> None:
    await ledger.create_invoice(dueDate="2026-03-15")
    await ledger.create_invoice(dueDate="2026-03-15T12:00:00Z")
    await ledger.create_invoice(dueDate="2026-03-13T12:00:00Z")

    async def overdue_at(moment: str) -> list[object]:
        ledger.clock.move(datetime.fromisoformat(moment) - ledger.clock.now())
        found = await numbers(ledger, "status=overdue")
        stats = (await ledger.staff.get("/api/overview/stats")).body["stats"]
        assert next(stat["value"] for stat in stats if stat["key"] == "overdue").startswith(str(len(found)))
        return found

    assert await overdue_at("2026-03-15T12:00:00Z") == [3]
    assert await overdue_at("2026-03-15T12:00:00.000001Z") == [3, 2]
    # Who was given a date has the whole day.
    assert await overdue_at("2026-03-15T23:59:59.999999Z") == [3, 2]
    assert await overdue_at("2026-03-16T00:00:00Z") == [3, 2, 1]


async def test_invoices_are_narrowed_to_a_user(ledger: Installation) -> None:
    await ledger.create_invoice()
    await ledger.create_invoice(userId=OTHER)

    assert await numbers(ledger, f"userId={OTHER}") == [2]
    # Nobody Ledger knows: an empty list, and Lanyard is not asked inside the request.
    asked = len(ledger.lanyard.calls_to("/users/"))
    assert await numbers(ledger, "userId=nobody-has-this-id-01") == []
    assert len(ledger.lanyard.calls_to("/users/")) == asked
    assert await numbers(ledger, f"userId={USER}&status=pending&q=inv-2026") == [1]


async def test_invoices_are_narrowed_to_a_time_and_a_date_means_the_whole_day(ledger: Installation) -> None:
    for moment in ("15T09:30:00Z", "15T23:59:59.999999Z", "16T00:00:00Z", "17T08:00:00Z"):
        ledger.clock.move(datetime.fromisoformat(f"2026-03-{moment}") - ledger.clock.now())
        await ledger.create_invoice()

    assert await numbers(ledger, "to=2026-03-15") == [2, 1]
    assert await numbers(ledger, "from=2026-03-16") == [4, 3]
    assert await numbers(ledger, "from=2026-03-16&to=2026-03-16") == [3]
    assert await numbers(ledger, "from=2026-03-18") == await numbers(ledger, "to=2026-03-14") == []
    assert await numbers(ledger, "from=2026-03-17&to=2026-03-16") == []
    # A time is taken exactly, both ends included; without a zone it is UTC.
    assert await numbers(ledger, "to=2026-03-16T00:00:00Z") == [3, 2, 1]
    assert await numbers(ledger, "to=2026-03-15T23:59:59.999998Z") == [1]
    assert await numbers(ledger, "from=2026-03-15T09:30:00&to=2026-03-15T09:30:00.000Z") == [1]
    assert await numbers(ledger, f"from={quote('2026-03-16T01:00:00+01:00')}") == [4, 3]
    assert await numbers(ledger, "from=0001-01-01&to=9999-12-31") == [4, 3, 2, 1]


async def test_invoices_are_found_by_their_number(ledger: Installation) -> None:
    body = {"userId": USER, "items": [{"description": "Fee", "unitPrice": 1}]}
    await ledger.shop.post("/api/invoices/batch", {"invoices": [body] * 12})

    assert await numbers(ledger, "q=INV-2026-0003") == [3]
    assert await numbers(ledger, "q=inv-2026-000") == [9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert await numbers(ledger, "q=%20inv-2026-0012%20") == [12]
    # Who has the paper in hand types the last digits.
    assert await numbers(ledger, "q=12") == await numbers(ledger, "q=0012") == [12]
    assert await numbers(ledger, "q=2026") == await numbers(ledger, "q=0") == []
    assert await numbers(ledger, "q=99999999999999999999999999") == []


async def test_what_is_a_wildcard_elsewhere_is_taken_literally(ledger: Installation) -> None:
    await ledger.create_invoice()

    for text in ("%", "_", "INV_2026", "INV-2026-%", "\\", "'", '"', "1'; drop table invoice; --", "*", "²"):
        assert await numbers(ledger, f"q={quote(text)}") == [], text
    # Bytes that are no text, and half a character.
    assert await numbers(ledger, "q=%ff") == await numbers(ledger, "q=%ED%A0%80") == []
    assert await numbers(ledger, "q=inv-2026-0001") == [1]


async def test_invoices_are_found_by_a_name_that_was_seen(ledger: Installation) -> None:
    await ledger.create_invoice()
    await ledger.create_invoice(userId=OTHER)
    # Names are not stored, so the search knows those that were shown a while ago.
    assert await numbers(ledger, "q=cleo") == []
    assert cells(await ledger.staff.get("/api/invoices"), "user") == ["Cleo Other", "Ben Buyer"]

    assert await numbers(ledger, "q=cleo") == [2]
    assert await numbers(ledger, "q=BUY") == [1]
    assert await numbers(ledger, "q=b") == [1]
    assert await numbers(ledger, f"q=b&userId={OTHER}") == []


async def test_a_list_is_answered_with_short_ids_when_lanyard_is_away(ledger: Installation) -> None:
    await ledger.create_invoice()
    assert (await ledger.staff.get("/api/settings")).status == 200
    ledger.lanyard.mode = "500"

    for path, key in (("/api/invoices", "user"), ("/api/audit", "userId")):
        answer = await ledger.staff.get(path)
        assert answer.status == 200
        assert cells(answer, key) == ["user-ben…" if key == "user" else f"service:{SHOP}"]


async def test_a_list_waits_no_longer_than_a_second_for_names(ledger: Installation) -> None:
    await ledger.create_invoice()
    assert (await ledger.staff.get("/api/settings")).status == 200
    ledger.lanyard.delay_s = 30

    async with asyncio.timeout(2):
        answer = await ledger.staff.get("/api/invoices")

    assert cells(answer, "user") == ["user-ben…"]


async def test_invoices_of_one_moment_are_listed_by_number(ledger: Installation) -> None:
    made = await asyncio.gather(*(ledger.create_invoice() for _ in range(20)))

    listed = await ledger.staff.get("/api/invoices")

    expected = sorted((answer.body["invoiceNumber"] for answer in made), reverse=True)
    assert cells(listed, "invoiceNumber") == expected
    assert set(cells(listed, "createdAt")) == {START.isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    assert CAMP not in listed.content.decode()
