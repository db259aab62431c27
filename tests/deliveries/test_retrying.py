"""Failed deliveries over days, with the clock moved by hand: when they are repeated, and who is given up."""

from datetime import datetime, timedelta

import msgspec
import pytest

from ledger.deliveries.rules import ATTEMPTS_MAX, RETRY_DELAYS
from tests.deliveries.telling import Telling
from tests.fakes.receiver import Mode, Receiver
from tests.installation import START

A_SECOND = timedelta(seconds=1)


async def wait_for_next_try(shop: Telling) -> timedelta:
    """Moves the clock to just before the next try, when nothing may happen, and then there; returns the wait."""
    due: datetime = (await shop.delivery())["next_try_at"]
    waited = due - shop.ledger.clock.now()
    before = await shop.ledger.value("select count(*) from webhook_attempt")
    await shop.pass_by(waited - timedelta(milliseconds=1))
    assert await shop.ledger.value("select count(*) from webhook_attempt") == before
    await shop.pass_by(timedelta(milliseconds=1))
    return waited


async def test_a_delivery_is_repeated_for_about_76_hours_with_the_same_id_and_then_given_up(
    shop: Telling, receiver: Receiver
) -> None:
    receiver.mode = "500"
    subscribed = await shop.subscribe(receiver)
    (event_id,) = await shop.tell()
    for number, delay in enumerate(RETRY_DELAYS, 1):
        row = await shop.delivery()
        assert (row["status"], row["attempts"], row["settled_at"]) == ("pending", number, None)
        assert delay * 0.8 <= await wait_for_next_try(shop) <= delay * 1.2
    row = await shop.delivery()
    assert (row["status"], row["attempts"], row["next_try_at"]) == ("failed", ATTEMPTS_MAX, None)
    assert (row["last_status"], row["last_error"]) == (500, "It answered 500")
    assert row["settled_at"] == shop.ledger.clock.now()
    assert timedelta(hours=60) < shop.ledger.clock.now() - START < timedelta(hours=92)

    assert receiver.ids == [event_id] * ATTEMPTS_MAX
    assert len({each.body for each in receiver.received}) == 1
    # Each is signed anew, at its own time.
    assert len({each.headers["webhook-timestamp"] for each in receiver.received}) == ATTEMPTS_MAX
    assert await shop.ledger.value("select count(*) from webhook_attempt where status = 500") == ATTEMPTS_MAX
    # The subscriber is not disabled yet, and learns of what happens next.
    assert (await shop.subscriber(subscribed))["is_active"]
    await shop.pass_by(timedelta(days=30))
    assert len(receiver.received) == ATTEMPTS_MAX


@pytest.mark.parametrize("failures", [1, 4, ATTEMPTS_MAX - 1])
async def test_a_receiver_that_works_again_gets_it_at_the_next_try(
    shop: Telling, receiver: Receiver, failures: int
) -> None:
    receiver.next_modes = ["503"] * failures
    receiver.retry_after = "0"
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    failing_since = (await shop.subscriber(subscribed))["failing_since"]
    assert failing_since == START
    for _ in range(failures):
        await wait_for_next_try(shop)
    row = await shop.delivery()
    assert (row["status"], row["attempts"], row["last_error"]) == ("delivered", failures + 1, None)
    assert (await shop.subscriber(subscribed))["failing_since"] is None
    assert len(set(receiver.ids)) == 1


async def test_what_fails_together_is_not_repeated_together(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "500"
    await shop.subscribe(receiver)
    await shop.tell(30)
    dues = {row["next_try_at"] for row in await shop.deliveries()}
    assert len(dues) > 20
    assert max(dues) - min(dues) > A_SECOND / 2


@pytest.mark.parametrize("mode", ["429", "503"])
@pytest.mark.parametrize(
    ("retry_after", "waits"),
    [
        ("120", timedelta(seconds=120)),
        ("Sun, 15 Mar 2026 09:50:00 GMT", timedelta(minutes=20)),
        ("604800", timedelta(hours=24)),
    ],
)
async def test_retry_after_is_honoured(
    shop: Telling, receiver: Receiver, mode: Mode, retry_after: str, waits: timedelta
) -> None:
    receiver.next_modes = [mode]
    receiver.retry_after = retry_after
    await shop.subscribe(receiver)
    await shop.tell()
    assert await wait_for_next_try(shop) == waits
    assert (await shop.delivery())["status"] == "delivered"


async def test_410_disables_the_subscriber_at_once(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "410"
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    row = await shop.subscriber(subscribed)
    assert (row["is_active"], row["disabled_reason"]) == (
        False,
        "It answered 410 (Gone): it wants no deliveries any more.",
    )
    assert (await shop.delivery())["status"] == "failed"
    assert await audited_as_disabled(shop) == [row["disabled_reason"]]
    assert await notices(shop) == ["1 webhook subscriber was disabled"]

    # Nothing is sent to it any more.
    await shop.tell(3)
    await shop.pass_by(timedelta(days=5))
    assert len(receiver.received) == 1
    assert len(await shop.deliveries()) == 1


async def test_a_subscriber_that_fails_for_five_days_is_disabled_and_shown(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "500"
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    for _ in range(9):
        await shop.pass_by(timedelta(hours=13))
        await shop.tell()
    assert shop.ledger.clock.now() - START < timedelta(days=5)
    assert (await shop.subscriber(subscribed))["is_active"]
    assert await notices(shop) == []

    await shop.pass_by(timedelta(hours=13))
    row = await shop.subscriber(subscribed)
    assert not row["is_active"]
    assert row["disabled_reason"] == "Every delivery has failed for 5 days, since 2026-03-15."
    assert await audited_as_disabled(shop) == [row["disabled_reason"]]
    assert await notices(shop) == ["1 webhook subscriber was disabled"]
    await until_swept(shop)
    statuses = {(each["status"], each["next_try_at"]) for each in await shop.deliveries()}
    assert statuses == {("failed", None)}
    assert "The subscriber is disabled" in {each["last_error"] for each in await shop.deliveries()}

    # Once it is enabled, it begins anew, and what it missed can be sent again.
    receiver.mode = "ok"
    assert (await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/toggle")).status == 200
    assert await notices(shop) == []
    missed = (await shop.deliveries())[-1]["id"]
    assert (await shop.ledger.staff.post(f"/api/webhooks/deliveries/{missed}/replay")).status == 200
    await shop.settle()
    assert (await shop.deliveries())[-1]["status"] == "delivered"


async def test_one_success_in_between_keeps_a_subscriber(shop: Telling, receiver: Receiver) -> None:
    """Seen failing with `failing_since` left where it was."""
    receiver.mode = "500"
    subscribed = await shop.subscribe(receiver)
    await shop.tell()
    await shop.pass_by(timedelta(days=4))
    receiver.next_modes = ["ok"]
    await shop.tell()
    await shop.tell()
    assert (await shop.subscriber(subscribed))["failing_since"] == START + timedelta(days=4)
    await shop.pass_by(timedelta(days=4))
    await shop.tell()
    assert (await shop.subscriber(subscribed))["is_active"]


async def test_what_waits_for_a_subscriber_that_staff_disables_is_given_up(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "500"
    subscribed = await shop.subscribe(receiver)
    await shop.tell(3)
    assert (await shop.ledger.staff.post(f"/api/webhooks/subscribers/{subscribed.id}/toggle")).status == 200
    await until_swept(shop)
    assert {row["status"] for row in await shop.deliveries()} == {"failed"}
    assert {row["last_error"] for row in await shop.deliveries()} == {"The subscriber is disabled"}
    await shop.pass_by(timedelta(days=2))
    assert len(receiver.received) == 3
    # Staff knows what it did.
    assert await notices(shop) == []


async def test_a_subscriber_that_is_deleted_while_it_is_told_harms_nobody(shop: Telling, receiver: Receiver) -> None:
    """Its deliveries go with it, and their outcomes find nothing to be noted at; those of others are noted."""
    async with Receiver() as slow:
        slow.delay_s = 0.3
        doomed = await shop.subscribe(slow)
        kept = await shop.subscribe(receiver)
        await shop.publish(5)
        while len(slow.received) < 5:
            await shop.engine_turn()
        assert (await shop.ledger.staff.delete(f"/api/webhooks/subscribers/{doomed.id}")).status == 200
        await shop.settle()
        await shop.tell()
    assert {row["status"] for row in await shop.deliveries(kept)} == {"delivered"}
    assert len(receiver.received) == 6
    assert await shop.ledger.value("select count(*) from webhook_attempt") == 6


async def test_an_event_that_was_purged_meanwhile_is_not_sent(shop: Telling, receiver: Receiver) -> None:
    receiver.mode = "500"
    await shop.subscribe(receiver)
    await shop.tell()
    await shop.ledger.sql("update event set data = null")
    await shop.pass_by(timedelta(seconds=7))
    row = await shop.delivery()
    assert (row["status"], row["attempts"]) == ("failed", 2)
    assert "was deleted in time" in row["last_error"]
    assert len(receiver.received) == 1


async def until_swept(shop: Telling) -> None:
    """Waits until nothing is pending any more."""
    while await shop.ledger.value("select count(*) from webhook_delivery where status = 'pending'"):
        await shop.engine_turn()


async def audited_as_disabled(shop: Telling) -> list[str]:
    """The reasons that the audit log gives for disabled subscribers."""
    rows = await shop.ledger.sql(
        "select details, actor_kind, actor_name from audit_entry where action = 'subscriber.disabled' order by id"
    )
    assert {(row["actor_kind"], row["actor_name"]) for row in rows} <= {("system", "deliveries")}
    return [msgspec.json.decode(row["details"])["reason"] for row in rows]


async def notices(shop: Telling) -> list[object]:
    """What the overview page says of webhooks."""
    stats = (await shop.ledger.staff.get("/api/overview/stats")).body["stats"]
    return [stat["value"] for stat in stats if stat["key"] == "webhooks"]
