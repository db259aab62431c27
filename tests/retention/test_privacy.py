"""What staff can do with one person's data: see how much it is, export all of it, erase what may be erased."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.retention import erasing
from tests.api.heard_events import add_event
from tests.api.subscribed import add_subscription, ensure_gold
from tests.conftest import StartLedger
from tests.installation import OTHER, STAFF, START, USER, Answer, Installation
from tests.retention.columns import columns_with
from tests.retention.world import FIRST_DAY, SECRET, faults, live_a_life, money, move_to, run
from tests.work import work

NEVER_SEEN = "user-nobody-0000000001"
BAD_IDS = ("a%2e%2e", "a'b", "x" * 65, "%3Fq", "a b".replace(" ", "%20"), "a%2Fb", "%00")


async def export(ledger: Installation, user_id: str = USER, query: str = "") -> Any:
    answer = await ledger.staff.get(f"/api/privacy/users/{user_id}/export{query}")
    assert answer.status == 200, answer.content
    assert answer.headers["Content-Type"] == "application/json"
    return answer.body


async def erase(ledger: Installation, user_id: str = USER, *, key: str | None = None) -> Answer:
    return await ledger.staff.post(f"/api/privacy/users/{user_id}/erase", key=key)


async def test_an_export_has_everything_that_is_held(ledger: Installation) -> None:
    life = await live_a_life(ledger)
    await live_a_life(ledger, user_id=OTHER)

    document = await export(ledger)

    assert document["userId"] == USER
    assert document["incomplete"] == []
    invoices = {each["id"]: each for each in document["invoices"]}
    assert set(invoices) == {life.invoice, life.cancelled_invoice}
    paid = invoices[life.invoice]
    assert (paid["invoiceNumber"], paid["status"], paid["total"], paid["currency"]) == (
        "INV-2026-0001",
        "paid",
        5000,
        "EUR",
    )
    assert [line["description"] for line in paid["lines"]] == ["Membership"]
    assert paid["taxes"] == [{"rate": 0, "net": 5000, "tax": 0}]
    (payment,) = paid["payments"]
    assert (payment["amount"], payment["reference"]) == (5000, f"{SECRET} {USER}")
    assert [refund["status"] for refund in payment["refunds"]] == ["failed"]
    (subscription,) = document["subscriptions"]
    assert (subscription["product"], [each["kind"] for each in subscription["changes"]]) == ("Gold", ["cancel"])
    assert [mail["kind"] for mail in document["mails"]] == ["invoice_created"]
    assert [entry["action"] for entry in document["auditEntries"]] == ["subscription.cancelled"]
    assert {event["type"] for event in document["events"]} >= {"invoice.created", "invoice.paid", "invoice.cancelled"}
    assert all(event["sentTo"] for event in document["events"])
    assert [name["name"] for name in document["providerNames"]] == [f"cus_{USER}"]
    (heard,) = document["providerEvents"]
    assert heard["payload"]["customer"] == f"cus_{USER}"
    assert document["notHeld"]
    assert OTHER not in str(document)


async def test_every_text_about_a_person_is_in_the_export(ledger: Installation) -> None:
    """What an erasure would take, an export shows: as many of the planted texts as there are columns of free text."""
    await live_a_life(ledger)
    text = str(await export(ledger))

    # Links, errors and answers of programs are not the person's; the rest is.
    shown = {"invoice.notes", "invoice.metadata", "invoice.payment_instructions", "payment.reference", "refund.reason"}
    assert shown <= set(await columns_with(ledger.database_url, SECRET))
    assert text.count(SECRET) >= len(shown) + 1


async def test_an_export_can_be_cut_into_spans(ledger: Installation) -> None:
    await live_a_life(ledger)
    move_to(ledger, START + timedelta(days=40))
    later = (await ledger.create_invoice()).body["id"]

    first = await export(ledger, query="?to=2026-03-31")
    rest = await export(ledger, query="?from=2026-04-01")

    assert (len(first["invoices"]), [each["id"] for each in rest["invoices"]]) == (2, [later])
    assert (len(first["mails"]), len(rest["mails"])) == (1, 0)
    assert (len(first["providerEvents"]), len(rest["providerEvents"])) == (1, 0)


async def test_an_export_that_is_too_long_says_so(ledger: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.retention.export.INVOICES_MAX", 1)
    monkeypatch.setattr("ledger.retention.export.ROWS_MAX", 2)
    await live_a_life(ledger)

    document = await export(ledger)

    assert len(document["invoices"]) == 1
    assert document["incomplete"] == ["invoices", "events"]


async def test_an_erasure_takes_at_once_what_no_law_keeps(ledger: Installation) -> None:
    life = await live_a_life(ledger)
    before = await money(ledger)

    answer = await erase(ledger)

    assert answer.status == 200, answer.content
    assert answer.body["success"] is True
    assert answer.body["retainedUntil"] == "2035-01-01"
    erased = answer.body["erased"]
    assert (erased["invoices"], erased["subscriptions"], erased["persons"]) == (0, 0, 0)
    assert (erased["mails"], erased["payloads"], erased["providerMappings"]) == (1, 1, 1)
    assert erased["texts"] == 7
    assert erased["events"] >= 4
    assert await columns_with(ledger.database_url, SECRET) == []
    # The id stands in one place, and in a key that staff chose.
    assert await columns_with(ledger.database_url, USER) == ["idempotency_record.key", "person.lanyard_user_id"]
    assert await money(ledger) == before
    assert await faults(ledger) == []
    assert await ledger.value("select person_id is not null from invoice where id = $1", life.invoice) is True


async def test_the_rest_goes_when_its_time_is_up(ledger: Installation) -> None:
    await live_a_life(ledger)
    await erase(ledger)
    move_to(ledger, FIRST_DAY)

    await run(ledger)

    assert await columns_with(ledger.database_url, USER) == []
    assert await columns_with(ledger.database_url, SECRET) == []
    assert (await erase(ledger)).status == 404


async def test_somebody_whose_time_is_up_is_erased_whole(ledger: Installation) -> None:
    await live_a_life(ledger)
    before = await money(ledger)
    move_to(ledger, FIRST_DAY)

    answer = await erase(ledger)

    assert answer.body["retainedUntil"] is None
    assert (answer.body["erased"]["invoices"], answer.body["erased"]["persons"]) == (2, 1)
    # The key of a request by staff, which is kept for 30 days, is all that names them: whoever chose it put them there.
    assert await columns_with(ledger.database_url, USER) == ["idempotency_record.key"]
    assert await money(ledger) == before
    assert (await ledger.staff.get(f"/api/privacy/users/{USER}/export")).status == 404


async def test_somebody_who_only_looked_at_a_subscription_is_erased_whole(ledger: Installation) -> None:
    subscription = await add_subscription(
        ledger, status="cancelled", activated_at=None, remote_id=None, product_id=await ensure_gold(ledger)
    )
    person = await ledger.value("select id from person where lanyard_user_id = $1", USER)
    await ledger.sql(
        """
        insert into audit_entry (action, entity_type, entity_id, actor_kind, actor_person_id, created_at)
        values ('subscription.created', 'subscription', $1, 'person', $2, $3)
        """,
        subscription,
        person,
        ledger.clock.now(),
    )

    answer = await erase(ledger)

    assert (answer.body["erased"]["persons"], answer.body["retainedUntil"]) == (1, None)
    assert await columns_with(ledger.database_url, USER) == []


async def test_what_is_on_its_way_to_a_subscriber_arrives_before_it_goes(ledger: Installation) -> None:
    await live_a_life(ledger)
    await ledger.sql("update webhook_delivery set status = 'pending' where event_type = 'invoice.paid'")

    await erase(ledger)
    left = await ledger.sql("select type, data is not null as is_there from event where person_id is not null")
    assert [tuple(row) for row in left] == [("invoice.paid", True)]

    await ledger.sql("update webhook_delivery set status = 'delivered'")
    await run(ledger)
    assert await ledger.value("select count(*) from event where person_id is not null") == 0


@pytest.mark.parametrize("status", ["incomplete", "active", "past_due", "paused"])
async def test_somebody_with_a_live_subscription_is_not_erased(ledger: Installation, status: str) -> None:
    await live_a_life(ledger)
    await add_subscription(ledger, status=status)
    planted = await columns_with(ledger.database_url, SECRET)

    answer = await erase(ledger)

    assert answer.status == 409
    assert answer.error == "This person has a subscription that is not over; cancel it, and erase when it has ended"
    assert await columns_with(ledger.database_url, SECRET) == planted
    assert await ledger.value("select count(*) from person where restricted_at is not null") == 0
    assert (await ledger.staff.get(f"/api/privacy/users/{USER}/actions")).body == {"actions": []}


async def test_a_restricted_person_is_not_asked_after_any_more(ledger: Installation) -> None:
    life = await live_a_life(ledger)
    subscription = f"/api/subscriptions/{life.subscription}"
    assert (await ledger.staff.get(f"/api/invoices/{life.invoice}")).fields()["user"] == "Ben Buyer"
    await erase(ledger)
    ledger.lanyard.calls.clear()

    shown = [
        (await ledger.staff.get(f"/api/invoices/{life.invoice}")).fields()["user"],
        (await ledger.staff.get(subscription)).fields()["user"],
        (await ledger.staff.get("/api/invoices")).body["rows"][0]["user"],
        (await ledger.staff.get("/api/subscriptions")).body["rows"][0]["user"],
        (await ledger.staff.get("/api/audit?action=subscription.cancelled")).body["rows"][0]["userId"],
    ]

    assert set(shown) == {"(restricted)"}
    assert [call.path for call in ledger.lanyard.calls_to(USER)] == []
    # What is theirs, they still see themselves.
    assert len((await ledger.user.get("/api/my/invoices")).body["rows"]) == 2


async def test_what_comes_up_later_about_a_restricted_person_goes_with_the_daily_run(ledger: Installation) -> None:
    await live_a_life(ledger)
    await erase(ledger)
    await ledger.create_invoice(notes=SECRET)
    assert "invoice.notes" in await columns_with(ledger.database_url, SECRET)

    done = await run(ledger)

    assert done.counts["restricted"] == 1
    assert "invoice.notes" not in await columns_with(ledger.database_url, SECRET)
    assert (await run(ledger)).counts["restricted"] == 0


async def test_an_open_invoice_keeps_its_person_from_the_day_it_is_settled(ledger: Installation) -> None:
    await ledger.create_invoice()
    move_to(ledger, datetime(2030, 2, 1, tzinfo=UTC))

    assert (await erase(ledger)).body["retainedUntil"] == "2039-01-01"


async def test_an_erasure_that_is_sent_again_is_answered_as_the_first_time(ledger: Installation) -> None:
    await live_a_life(ledger)
    await live_a_life(ledger, user_id=OTHER)

    first = await erase(ledger, key="erase-1")
    second = await erase(ledger, key="erase-1")
    other = await erase(ledger, OTHER, key="erase-1")

    assert (first.status, second.status, other.status) == (200, 200, 422)
    assert first.content == second.content
    assert second.headers["Idempotent-Replayed"] == "true"
    rows = await ledger.sql("select operation from idempotency_record where key = 'erase-1'")
    assert [row["operation"] for row in rows] == ["POST /api/privacy/users/erase"]
    assert await ledger.value("select count(*) from audit_entry where action = 'privacy.erased'") == 1


async def test_an_erasure_that_was_cut_off_is_carried_on_by_the_next(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_a_life(ledger)

    async def broken(*_: object, **__: object) -> tuple[int, bool]:
        raise RuntimeError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(erasing, "purge_payloads", broken)
        assert (await erase(ledger, key="erase-1")).status == 500

    answer = await erase(ledger, key="erase-1")
    assert (answer.status, answer.body["erased"]["payloads"]) == (200, 1)


async def test_what_takes_longer_than_a_request_is_done_by_the_worker(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live_a_life(ledger)
    move_to(ledger, FIRST_DAY)
    await add_event(ledger, payload=f'{{"customer": "cus_{USER}"}}'.encode(), state="ignored", error=None)
    monkeypatch.setattr("ledger.retention.erasing.LOOKED_THROUGH_S", -1.0)

    answer = await erase(ledger)
    assert (answer.status, answer.body["erased"]["payloads"], answer.body["erased"]["persons"]) == (200, 0, 0)
    assert "inbound_event.payload" in await columns_with(ledger.database_url, USER)
    queued = await ledger.sql("select entrypoint, payload from pgqueuer where entrypoint = 'privacy.erase'")
    assert len(queued) == 1
    assert USER.encode() not in queued[0]["payload"]

    monkeypatch.undo()
    await work(ledger)
    assert await columns_with(ledger.database_url, USER) == ["idempotency_record.key"]
    # Whoever does it again finds nobody.
    await erasing.finish_erasure(ledger.services.database, person_id=1, zone=ledger.settings.timezone)


async def test_what_providers_sent_about_others_stays(ledger: Installation) -> None:
    await live_a_life(ledger)
    await live_a_life(ledger, user_id=OTHER)
    waiting = await add_event(ledger, payload=f'{{"customer": "cus_{USER}"}}'.encode())

    await erase(ledger)

    rows = await ledger.sql(
        "select id::text, payload from inbound_event where payload is not null order by received_at"
    )
    assert len(rows) == 2
    assert f"cus_{OTHER}".encode() in b"".join(row["payload"] for row in rows)
    # What is not applied yet is needed to book it.
    assert waiting in [row["id"] for row in rows]


async def test_staff_can_erase_what_is_held_about_themselves(ledger: Installation) -> None:
    await ledger.create_invoice(userId=STAFF, notes=SECRET)

    answer = await erase(ledger, STAFF, key="my own")

    assert (answer.status, answer.body["erased"]["texts"], answer.body["erased"]["persons"]) == (200, 1, 0)
    assert await columns_with(ledger.database_url, SECRET) == []
    assert (await erase(ledger, STAFF, key="my own")).content == answer.content


@pytest.mark.parametrize("path", ["/export", "/erase"])
async def test_somebody_ledger_holds_nothing_about_is_not_found(ledger: Installation, path: str) -> None:
    send: Callable[[str], Any] = ledger.staff.get if path == "/export" else ledger.staff.post
    for user_id in (NEVER_SEEN, *BAD_IDS):
        answer = await send(f"/api/privacy/users/{user_id}{path}")
        assert (answer.status, answer.error) in {
            (404, "Person not found"),
            (404, "There is nothing at this path; the API is described at /api/openapi"),
        }, user_id
    assert await ledger.value("select count(*) from person where lanyard_user_id <> $1", STAFF) == 0


async def test_exports_and_erasures_are_in_the_audit_log_without_whom_they_were_about(ledger: Installation) -> None:
    await live_a_life(ledger)
    person = await ledger.value("select id from person where lanyard_user_id = $1", USER)

    await export(ledger)
    await erase(ledger)

    rows = await ledger.sql("select * from audit_entry where action like 'privacy.%' order by id")
    assert [row["action"] for row in rows] == ["privacy.exported", "privacy.erased"]
    for row in rows:
        said = f"{row['entity_type']} {row['details']}"
        assert USER not in said
        assert row["entity_id"] not in (USER, str(person))
    assert (await ledger.staff.get("/api/audit?action=privacy.erased")).body["rows"][0]["userId"] == "Ada Admin"


async def test_the_page_says_in_words_what_goes_when(ledger: Installation) -> None:
    move_to(ledger, datetime(2018, 5, 1, tzinfo=UTC))
    for _ in range(12):
        invoice = (await ledger.create_invoice()).body["id"]
        await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")
    late = (await ledger.create_invoice()).body["id"]
    move_to(ledger, datetime(2019, 2, 1, tzinfo=UTC))
    await ledger.shop.post(f"/api/invoices/{late}/mark-paid")
    await ledger.create_invoice()
    move_to(ledger, START)

    rows = (await ledger.staff.get("/api/privacy/schedule")).body["rows"]

    assert [(row["on"], row["what"]) for row in rows] == [
        ("2027-01-01", "On 2027-01-01 the data of 12 invoices of 2018 will be erased."),
        ("2028-01-01", "On 2028-01-01 the data of 1 invoice of 2019 will be erased."),
        ("Not yet known", "1 invoice not settled yet, and kept until then."),
    ]
    fields = (await ledger.staff.get("/api/privacy")).fields()
    assert "2922 days (about 8 years)" in str(fields["invoices"])
    assert "before 2018-01-01" in str(fields["invoices"])
    await ledger.staff.put("/api/settings", {"dataRetentionDays": 1})
    rows = (await ledger.staff.get("/api/privacy/schedule")).body["rows"]
    assert rows[0]["what"] == "The next daily run will erase the data of 12 invoices of 2018."


async def test_many_invoices_are_not_counted_to_the_end(ledger: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.retention.forecast.COUNTED_A_YEAR", 3)
    for _ in range(5):
        invoice = (await ledger.create_invoice()).body["id"]
        await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")

    rows = (await ledger.staff.get("/api/privacy/schedule")).body["rows"]

    assert rows[0]["what"] == "On 2035-01-01 the data of more than 3 invoices of 2026 will be erased."


async def test_the_page_of_a_person_offers_the_export_through_the_dashboard(ledger: Installation) -> None:
    await live_a_life(ledger)

    found = await ledger.staff.post("/api/privacy/person", {"userId": USER})
    shown = await ledger.staff.get(f"/api/privacy/users/{USER}")
    actions = await ledger.staff.get(f"/api/privacy/users/{USER}/actions")

    assert found.body == {"success": True, "redirect": f"/ledger/privacy/users/{USER}"}
    assert shown.fields()["invoices"] == "2, of these 0 open"
    assert shown.fields()["retainedUntil"] == "2035-01-01 at the earliest"
    at = f"/api/privacy/users/{USER}"
    assert shown.fields()["export"] == f"https://dashboard.example.org/api/proxy/ledger{at}/export"
    (button,) = actions.body["actions"]
    assert (button["method"], button["endpoint"], button["redirect"]) == ("POST", f"{at}/erase", "/privacy")
    await erase(ledger)
    assert (await ledger.staff.get(at)).fields()["restrictedSince"] == "2026-03-15T09:30:00.000Z"


async def test_nobody_has_no_page(ledger: Installation) -> None:
    for path in ("", "/actions"):
        shown = await ledger.staff.get(f"/api/privacy/users/{NEVER_SEEN}{path}")
        assert (shown.status, shown.error) == (404, "Person not found")
    unknown = await ledger.staff.post("/api/privacy/person", {"userId": NEVER_SEEN})
    assert (unknown.status, unknown.error) == (404, "Person not found")
    assert (await ledger.staff.post("/api/privacy/person", {})).error == "Enter the user id, as Lanyard shows it"
    assert (await ledger.staff.post("/api/privacy/person", {"userId": "../x"})).status == 400


async def test_without_a_dashboard_there_is_no_link(start_ledger: StartLedger) -> None:
    ledger = await start_ledger(DASHBOARD_URL="")
    await ledger.create_invoice()

    assert "export" not in (await ledger.staff.get(f"/api/privacy/users/{USER}")).fields()


async def test_a_page_of_an_export_is_read_in_good_time(ledger: Installation) -> None:
    """A person with as much as fits into one export."""
    items = [{"description": "Membership", "unitPrice": 5000} for _ in range(20)]
    for _ in range(5):
        body = {"invoices": [{"userId": USER, "items": items} for _ in range(200)]}
        assert (await ledger.shop.post("/api/invoices/batch", body)).status == 201
    began_s = time.monotonic()

    document = await export(ledger)

    assert time.monotonic() - began_s < 4
    assert len(document["invoices"]) == 1000
    assert document["incomplete"] == []
