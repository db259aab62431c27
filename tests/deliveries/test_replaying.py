"""Sending again: one delivery, what failed, a range of time; and what staff is told when that makes no sense."""

from datetime import timedelta

import msgspec
import pytest

from ledger.deliveries import actions
from tests.api.shown import buttons
from tests.deliveries.telling import Subscribed, Telling
from tests.fakes.receiver import Receiver
from tests.installation import Answer

DELIVERIES = "/api/webhooks/deliveries"
GONE = "What was to be sent was deleted in time, so it cannot be sent again"
NOBODY = "018f0000-0000-7000-8000-000000000000"


async def replay(shop: Telling, delivery_id: str) -> Answer:
    return await shop.ledger.staff.post(f"{DELIVERIES}/{delivery_id}/replay")


async def replay_range(shop: Telling, subscribed: Subscribed, **span: str) -> Answer:
    return await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/replay", span)


async def offered(shop: Telling, delivery_id: str) -> dict[str, tuple[str, str]]:
    return buttons(await shop.ledger.staff.get(f"{DELIVERIES}/{delivery_id}/actions"))


async def test_a_delivery_is_sent_again_with_the_same_id_and_body(shop: Telling, receiver: Receiver) -> None:
    await shop.subscribe(receiver)
    await shop.tell()
    row = await shop.delivery()
    assert await offered(shop, row["id"]) == {"Send Again": ("POST", f"{DELIVERIES}/{row['id']}/replay")}

    shop.ledger.clock.move(timedelta(days=3))
    answer = await replay(shop, row["id"])
    assert (answer.status, answer.body) == (200, {"success": True})
    await shop.settle()
    first, again = receiver.received
    assert (first.id, first.body) == (again.id, again.body)
    assert first.headers["webhook-timestamp"] != again.headers["webhook-timestamp"]
    assert await shop.ledger.value("select count(*) from webhook_attempt") == 2
    (entry,) = await shop.ledger.sql("select * from audit_entry where action = 'delivery.replayed'")
    assert (entry["entity_type"], entry["entity_id"], entry["actor_kind"]) == ("delivery", row["id"], "person")


async def test_what_failed_for_good_begins_anew_with_all_its_attempts(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "410"
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    row = await shop.delivery()
    assert row["status"] == "failed"
    assert await offered(shop, row["id"]) == {}
    refused = await replay(shop, row["id"])
    assert (refused.status, refused.error) == (400, "The subscriber Shop is disabled; enable it first, then send again")

    await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/toggle")
    receiver.mode = "500"
    assert (await replay(shop, row["id"])).status == 200
    await shop.settle()
    row = await shop.delivery()
    assert (row["status"], row["attempts"]) == ("pending", 1)
    assert timedelta(seconds=4) <= row["next_try_at"] - shop.ledger.clock.now() <= timedelta(seconds=6)

    # One that waits for its next try need not wait, either.
    receiver.mode = "ok"
    assert (await replay(shop, row["id"])).status == 200
    await shop.settle()
    assert (await shop.delivery())["status"] == "delivered"
    assert await shop.ledger.value("select count(*) from webhook_attempt") == 3


async def test_what_is_being_sent_just_now_is_not_sent_twice(shop: Telling, receiver: Receiver) -> None:
    receiver.delay_s = 0.5
    await shop.subscribe(receiver)
    await shop.publish()
    while not receiver.received:
        await shop.engine_turn()
    row = await shop.delivery()
    assert await offered(shop, row["id"]) == {}
    refused = await replay(shop, row["id"])
    assert refused.status == 409
    assert refused.error == "This delivery is being sent just now; look again in a few seconds"
    await shop.settle()
    assert len(receiver.received) == 1


async def test_what_was_purged_is_gone(shop: Telling, receiver: Receiver) -> None:
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    await shop.ledger.sql("update event set data = null")
    row = await shop.delivery()
    for answer in (await replay(shop, row["id"]), await replay_range(shop, subscribed, **{"from": "2026-03-15"})):
        assert (answer.status, answer.error) == (410, GONE)
    assert await offered(shop, row["id"]) == {}
    assert (await shop.delivery())["status"] == "delivered"
    # What is left of a range is sent.
    await shop.tell()
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-15"})
    assert (answer.status, answer.body["count"]) == (200, 1)
    await shop.settle()
    assert len(receiver.received) == 3


async def test_a_range_is_sent_again_also_what_the_subscriber_missed(shop: Telling, receiver: Receiver) -> None:
    await shop.tell()
    shop.ledger.clock.move(timedelta(days=1))
    subscribed = await shop.subscribe(receiver, events="invoice.created, invoice.paid")
    delivered = await shop.tell()
    shop.ledger.clock.move(timedelta(days=1))
    await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/toggle")
    missed = await shop.tell(2)
    await shop.tell(type_="invoice.refunded")
    await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/test")
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-16"})
    assert (answer.status, "is disabled" in answer.error) == (400, True)
    await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/toggle")
    await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/test")
    await shop.settle()
    receiver.received.clear()

    # A date is the whole day, to its end; without an end it is up to now.
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-16", "to": "2026-03-16"})
    assert answer.body == {"success": True, "count": 1, "message": "1 event is sent again"}
    await shop.settle()
    assert receiver.ids == delivered
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-16T00:00:00Z"})
    assert answer.body == {"success": True, "count": 3, "message": "3 events are sent again"}
    await shop.settle()
    assert sorted(receiver.ids[1:]) == sorted([*delivered, *missed])
    # From before it was there.
    assert (await replay_range(shop, subscribed, **{"from": "2026-01-01", "to": "2026-03-15"})).body["count"] == 1
    answer = await replay_range(shop, subscribed, **{"from": "2025-01-01", "to": "2025-12-31"})
    assert answer.body == {"success": True, "count": 0, "message": "No events are sent again"}
    await shop.settle()
    assert len(receiver.received) == 5
    assert {row["status"] for row in await shop.deliveries()} == {"delivered"}
    entries = await shop.ledger.sql(
        "select details from audit_entry where action = 'subscriber.replayed' order by id limit 1"
    )
    assert msgspec.json.decode(entries[0]["details"]) == {
        "from": "2026-03-16T00:00:00.000Z",
        "to": "2026-03-16T23:59:59.999Z",
        "count": 1,
    }


async def test_a_range_of_too_many_events_is_refused_and_nothing_of_it_sent(
    shop: Telling, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "REPLAYED_MAX", 5)
    await shop.tell(6)
    subscribed = await shop.subscribe(receiver)
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-15"})
    assert (answer.status, answer.error) == (400, "The range has more than 5 events; send it again in shorter parts")
    await shop.settle()
    assert receiver.received == []


async def test_ten_thousand_events_are_made_due_within_a_request(shop: Telling) -> None:
    await shop.publish(10_000)
    await shop.settle()
    subscribed = await shop.subscribe("http://127.0.0.1:9/")
    answer = await replay_range(shop, subscribed, **{"from": "2026-03-15"})
    assert (answer.status, answer.body["count"]) == (200, 10_000)
    assert await shop.ledger.value("select count(*) from webhook_delivery") == 10_000


@pytest.mark.parametrize(
    ("span", "field"),
    [
        ({}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-03-15", "to": "2026-03-14"}, "to"),
        ({"from": "2026-03-15", "to": "2026-02-30"}, "to"),
    ],
)
async def test_a_range_that_is_none_is_refused(
    shop: Telling, receiver: Receiver, span: dict[str, str], field: str
) -> None:
    subscribed = await shop.subscribe(receiver)
    answer = await replay_range(shop, subscribed, **span)
    assert answer.status == 400
    assert field in answer.refused()


async def test_a_test_event_needs_an_active_subscriber(shop: Telling, receiver: Receiver) -> None:
    subscribed = await shop.subscribe(receiver)
    at = f"/api/webhooks/subscribers/{subscribed.id}"
    await shop.ledger.staff.post(f"{at}/toggle")
    answer = await shop.ledger.staff.post(f"{at}/test")
    assert (answer.status, answer.error) == (400, "The subscriber Shop is disabled; enable it first, then send again")
    assert await shop.ledger.value("select count(*) from event") == 0


async def test_what_does_not_exist_is_not_found(shop: Telling) -> None:
    staff = shop.ledger.staff
    for method, path in (
        ("GET", f"{DELIVERIES}/{NOBODY}"),
        ("GET", f"{DELIVERIES}/{NOBODY}/attempts"),
        ("GET", f"{DELIVERIES}/{NOBODY}/actions"),
        ("POST", f"{DELIVERIES}/{NOBODY}/replay"),
        ("GET", f"{DELIVERIES}/1"),
    ):
        answer = await staff.send(method, path)
        assert (answer.status, answer.error) == (404, "Delivery not found")
    for method, path, body in (
        ("POST", "test", None),
        ("POST", "replay", b'{"from": "2026-03-15"}'),
        ("GET", "replay/form", None),
    ):
        answer = await staff.send(method, f"/api/webhooks/subscribers/{NOBODY}/{path}", data=body)
        assert (answer.status, answer.error) == (404, "Subscriber not found")


async def test_the_form_of_a_range_is_filled_with_the_present_day(shop: Telling, receiver: Receiver) -> None:
    subscribed = await shop.subscribe(receiver)
    at = f"/api/webhooks/subscribers/{subscribed.id}/replay"
    form = await shop.ledger.staff.get(f"{at}/form")
    fields = {field["key"]: (field["type"], field["value"]) for field in form.body["fields"]}
    assert fields == {"from": ("date", "2026-03-15"), "to": ("date", "2026-03-15")}
    await shop.tell()
    sent = {key: value for key, (_, value) in fields.items()}
    assert (await shop.ledger.staff.post(at, sent)).body["count"] == 1
