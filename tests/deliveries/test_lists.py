"""What staff sees of deliveries and their attempts."""

from datetime import timedelta

from ledger.events import EVENT_TYPES
from tests.api.shown import cells, columns, labels, types
from tests.deliveries.telling import Telling
from tests.fakes.receiver import Receiver

DELIVERIES = "/api/webhooks/deliveries"
NOBODY = "018f0000-0000-7000-8000-000000000000"


async def test_the_list_shows_the_newest_first_and_its_filters_narrow_it(shop: Telling, receiver: Receiver) -> None:
    first = await shop.subscribe(receiver, name="Shop", events="invoice.created")
    receiver.next_modes = ["500"]
    await shop.tell()
    async with Receiver() as other:
        second = await shop.subscribe(other, name="Camp")
        for number, name in enumerate(("invoice.created", "invoice.paid"), 1):
            shop.ledger.clock.move(timedelta(milliseconds=number))
            await shop.tell(type_=name)

    answer = await shop.ledger.staff.get(DELIVERIES)
    assert columns(answer) == [
        ("createdAt", "Time"),
        ("event", "Event"),
        ("subscriber", "Subscriber"),
        ("status", "Status"),
        ("attempts", "Attempts"),
        ("lastAnswer", "Last Answer"),
    ]
    assert answer.body["total"] == 4
    assert sorted(zip(cells(answer, "event"), cells(answer, "subscriber"), strict=True)) == [
        ("invoice.created", "Camp"),
        ("invoice.created", "Shop"),
        ("invoice.created", "Shop"),
        ("invoice.paid", "Camp"),
    ]
    assert cells(answer, "createdAt") == sorted(cells(answer, "createdAt"), key=str, reverse=True)
    assert answer.body["rows"][-1] == {
        "id": (await shop.deliveries(first))[0]["id"],
        "createdAt": "2026-03-15T09:30:00.000Z",
        "event": "invoice.created",
        "subscriber": "Shop",
        "status": "pending",
        "attempts": 1,
        "lastAnswer": "It answered 500",
    }

    async def found(query: str) -> int:
        listed = await shop.ledger.staff.get(f"{DELIVERIES}?{query}")
        assert listed.body["total"] == len(listed.body["rows"])
        return len(listed.body["rows"])

    assert await found(f"subscriberId={first.id}") == 2
    assert await found(f"subscriberId={NOBODY}") == 0
    assert await found("event=invoice.paid") == 1
    assert await found("event=ping") == 0
    assert [await found(f"status={status}") for status in ("pending", "delivered", "failed")] == [1, 3, 0]
    assert await found(f"subscriberId={second.id}&event=invoice.paid&status=delivered") == 1
    assert await found(f"subscriberId={first.id}&status=failed") == 0


async def test_the_list_is_read_page_by_page(shop: Telling, receiver: Receiver) -> None:
    subscribed = await shop.subscribe(receiver)
    await shop.tell(7)
    for query in ("limit=3", f"limit=3&subscriberId={subscribed.id}", "limit=3&status=delivered"):
        seen: list[object] = []
        cursor = ""
        while True:
            answer = await shop.ledger.staff.get(f"{DELIVERIES}?{query}{cursor}")
            seen += cells(answer, "id")
            if answer.body.get("nextCursor") is None:
                break
            cursor = f"&cursor={answer.body['nextCursor']}"
        assert len(seen) == len(set(seen)) == 7


async def test_filters_that_mean_nothing_are_refused(shop: Telling) -> None:
    for query in ("status=lost", "subscriberId=1", "limit=0", "limit=201", "cursor=nonsense", "event=invoice.lost"):
        answer = await shop.ledger.staff.get(f"{DELIVERIES}?{query}")
        assert (answer.status, query.split("=")[0] in answer.refused()) == (400, True), query
    assert all(name in answer.error for name in EVENT_TYPES)


async def test_a_delivery_is_shown_with_its_attempts(shop: Telling, receiver: Receiver) -> None:
    await shop.subscribe(receiver)
    receiver.next_modes = ["500", "reset"]
    (event_id,) = await shop.tell()
    await shop.pass_by(timedelta(seconds=7))
    at = f"{DELIVERIES}/{(await shop.delivery())['id']}"

    answer = await shop.ledger.staff.get(at)
    assert labels(answer) == [
        ("event", "Event"),
        ("eventId", "Event ID (webhook-id)"),
        ("subscriber", "Subscriber"),
        ("status", "Status"),
        ("meaning", "Meaning"),
        ("attempts", "Attempts"),
        ("lastAnswer", "Last Answer"),
        ("createdAt", "Created"),
        ("nextTryAt", "Next Try"),
        ("settledAt", "Settled"),
    ]
    fields = answer.fields()
    assert (fields["eventId"], fields["status"], fields["attempts"], fields["settledAt"]) == (
        event_id,
        "pending",
        2,
        "—",
    )
    assert fields["meaning"] == "waits to be sent, for the first time or once more"
    assert fields["lastAnswer"] == "It closed the connection without an answer"
    assert ("settledAt" in types(answer), types(answer)["nextTryAt"]) == (False, "date")

    await shop.pass_by(timedelta(minutes=7))
    fields = (await shop.ledger.staff.get(at)).fields()
    assert (fields["status"], fields["lastAnswer"], fields["nextTryAt"]) == ("delivered", "200", "—")
    attempts = await shop.ledger.staff.get(f"{at}/attempts")
    assert columns(attempts) == [
        ("startedAt", "Time"),
        ("status", "Status"),
        ("duration", "Duration"),
        ("error", "Error"),
        ("answer", "Answer"),
    ]
    assert cells(attempts, "startedAt") == [
        "2026-03-15T09:37:07.000Z",
        "2026-03-15T09:30:07.000Z",
        "2026-03-15T09:30:00.000Z",
    ]
    assert cells(attempts, "status") == ["200", "—", "500"]
    assert cells(attempts, "error") == ["—", "It closed the connection without an answer", "It answered 500"]
    assert cells(attempts, "answer") == ["thanks", "—", "no thanks"]
    assert all(str(cell).endswith(" ms") for cell in cells(attempts, "duration"))
    assert attempts.body["total"] == 3

    page = await shop.ledger.staff.get(f"{at}/attempts?limit=2")
    rest = await shop.ledger.staff.get(f"{at}/attempts?limit=2&cursor={page.body['nextCursor']}")
    assert [*cells(page, "id"), *cells(rest, "id")] == cells(attempts, "id")
    assert (await shop.ledger.staff.get(f"{at}/attempts?cursor=nonsense")).status == 400
