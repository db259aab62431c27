"""What is kept for a while only: 90 days what was said, a year more that it was said."""

from datetime import timedelta

from ledger.jobs import SCHEDULES
from ledger.retention.purging import PURGED_EVENT, PURGED_PAYLOAD
from tests.api.heard_events import add_event
from tests.installation import Installation
from tests.retention.columns import columns_with
from tests.retention.world import SECRET, faults, live_a_life, run


async def test_what_was_said_is_kept_for_90_days(ledger: Installation) -> None:
    await live_a_life(ledger)
    ledger.clock.move(timedelta(days=89, hours=23))
    kept = await run(ledger)
    assert [kept.counts[name] for name in ("payloads", "events", "attempts", "deliveries", "mails")] == [0] * 5

    ledger.clock.move(timedelta(hours=2))
    done = await run(ledger)

    events = await ledger.value("select count(*) from event")
    assert done.counts["events"] == events
    assert done.counts["payloads"] == done.counts["mails"] == 1
    assert (
        done.counts["attempts"]
        == done.counts["deliveries"]
        == await ledger.value("select count(*) from webhook_delivery")
    )
    assert await ledger.value("select count(*) from event where data is not null or person_id is not null") == 0
    assert await ledger.value("select count(*) from webhook_attempt") == 0
    assert await ledger.value("select count(*) from webhook_delivery where status = 'failed'") > 0
    assert await ledger.value("select count(*) from mail") == 0
    # That it came is known for good, so that it is not applied again.
    assert await ledger.value("select count(*) from inbound_event where payload is null") == 1
    assert await faults(ledger) == []


async def test_that_a_webhook_was_sent_is_known_for_a_year_more(ledger: Installation) -> None:
    await live_a_life(ledger)
    ledger.clock.move(timedelta(days=454))
    await run(ledger)
    assert await ledger.value("select count(*) from webhook_delivery") > 0

    ledger.clock.move(timedelta(days=2))
    done = await run(ledger)

    assert done.counts["deletedEvents"] > 0
    assert await ledger.value("select count(*) from webhook_delivery") == 0
    assert await ledger.value("select count(*) from event where type <> 'ping'") == 0
    assert await faults(ledger) == []


async def test_what_was_not_delivered_in_90_days_never_is(ledger: Installation) -> None:
    await live_a_life(ledger)
    await ledger.sql(
        "update webhook_delivery set status = 'pending', next_try_at = created_at, last_error = null, settled_at = null"
    )
    await ledger.sql("update event set is_fanned_out = false where type = 'invoice.created'")
    ledger.clock.move(timedelta(days=91))

    await run(ledger)

    rows = await ledger.sql("select distinct status, last_error, next_try_at, settled_at from webhook_delivery")
    assert [tuple(row) for row in rows] == [("failed", PURGED_EVENT, None, ledger.clock.now())]
    assert await ledger.value("select count(*) from event where not is_fanned_out") == 0
    # Why they failed is told for as long as for any other.
    ledger.clock.move(timedelta(days=89))
    await run(ledger)
    assert await ledger.value("select count(*) from webhook_delivery where last_error is not null") > 0
    ledger.clock.move(timedelta(days=2))
    await run(ledger)
    assert await ledger.value("select count(*) from webhook_delivery where last_error is not null") == 0


async def test_an_event_that_could_not_be_applied_loses_what_it_said_as_well(ledger: Installation) -> None:
    failed = await add_event(ledger, error=f"No such customer: {SECRET}")
    ledger.clock.move(timedelta(days=91))

    await run(ledger)

    assert await columns_with(ledger.database_url, SECRET) == []
    shown = await ledger.staff.get(f"/api/stripe-events/{failed}")
    assert shown.fields()["error"] == PURGED_PAYLOAD
    assert (await ledger.staff.post(f"/api/stripe-events/{failed}/retry")).status == 410


async def test_the_worker_does_it_daily(ledger: Installation) -> None:
    (schedule,) = [each for each in SCHEDULES if each.name == "retention"]
    await live_a_life(ledger)
    ledger.clock.move(timedelta(days=91))

    assert schedule.interval == timedelta(days=1)
    assert await schedule.run(ledger.services) > 0
    assert await schedule.run(ledger.services) == 0
    # Invoices are kept for years.
    assert await ledger.value("select count(*) from invoice where person_id is not null") == 2


async def test_the_books_miss_an_event_only_of_an_invoice_that_must_have_one(ledger: Installation) -> None:
    number = (await ledger.create_invoice()).body["invoiceNumber"]
    await ledger.sql("delete from event")
    assert await faults(ledger) == [f"The books are wrong: {number} have no event of their creation."]

    ledger.clock.move(timedelta(days=91))
    assert await faults(ledger) == []
