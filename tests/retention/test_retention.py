"""The daily run: what is due loses its person, what is not keeps it, and the books stay as they are."""

from datetime import UTC, datetime, timedelta

import pytest

from ledger.retention import walking
from tests.api.subscribed import add_period, add_subscription, ensure_gold
from tests.conftest import StartLedger
from tests.installation import OTHER, STAFF, USER, Installation
from tests.retention.columns import columns_with
from tests.retention.world import FIRST_DAY, LAST_DAY, SECRET, faults, live_a_life, money, move_to, run

# What is kept for a while only, whatever becomes of the invoice.
SHORT_LIVED = {"inbound_event", "event", "mail", "webhook_attempt", "webhook_delivery"}


async def has_buyer(ledger: Installation, invoice_id: str) -> bool:
    return await ledger.value("select person_id from invoice where id = $1", invoice_id) is not None


async def paid_invoice(ledger: Installation, *, user_id: str = USER) -> str:
    invoice: str = (await ledger.create_invoice(userId=user_id)).body["id"]
    assert (await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")).status == 200
    return invoice


async def test_no_column_of_any_table_holds_somebody_whose_time_is_up(ledger: Installation) -> None:
    life = await live_a_life(ledger)
    still_open = (await ledger.create_invoice(userId=OTHER)).body["id"]
    before = await money(ledger)
    planted = await columns_with(ledger.database_url, SECRET)
    assert len(planted) >= 15
    assert {name.split(".")[0] for name in planted} > SHORT_LIVED - {"event"}

    move_to(ledger, LAST_DAY)
    assert (await run(ledger)).counts["invoices"] == 0
    kept = await columns_with(ledger.database_url, SECRET)
    assert {"invoice.notes", "payment.reference"} <= set(kept)
    assert SHORT_LIVED.isdisjoint(name.split(".")[0] for name in kept)
    assert await has_buyer(ledger, life.invoice)

    move_to(ledger, FIRST_DAY)
    done = await run(ledger)

    # Whoever marked the invoice as paid has left nothing else.
    assert (done.counts["invoices"], done.counts["subscriptions"], done.counts["persons"]) == (2, 1, 2)
    assert await columns_with(ledger.database_url, USER) == []
    assert await columns_with(ledger.database_url, SECRET) == []
    assert await money(ledger) == before
    assert await faults(ledger) == []
    # An invoice that nobody paid or cancelled is kept, and so is who owes it.
    assert await has_buyer(ledger, still_open)
    assert await columns_with(ledger.database_url, OTHER) == ["person.lanyard_user_id"]
    assert (await ledger.staff.get(f"/api/invoices/{life.invoice}")).fields()["user"] == "(erased)"
    log = await ledger.staff.get("/api/audit?action=subscription.cancelled")
    assert log.body["rows"][0]["userId"] == "(erased)"


async def test_an_invoice_is_kept_for_the_days_after_the_end_of_its_year(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"dataRetentionDays": 10})
    invoice = await paid_invoice(ledger)

    for moment, is_kept in (
        (datetime(2027, 1, 10, 23, 59, tzinfo=UTC), True),
        (datetime(2027, 1, 11, 0, 0, tzinfo=UTC), False),
    ):
        move_to(ledger, moment)
        await run(ledger)
        assert await has_buyer(ledger, invoice) == is_kept


async def test_the_end_of_the_year_is_that_of_the_books(start_ledger: StartLedger) -> None:
    ledger = await start_ledger(LEDGER_TIMEZONE="Europe/Berlin")
    await ledger.staff.put("/api/settings", {"dataRetentionDays": 10})
    move_to(ledger, datetime(2026, 12, 31, 23, 30, tzinfo=UTC))
    of_2027 = await paid_invoice(ledger)

    move_to(ledger, datetime(2028, 1, 10, 22, 59, tzinfo=UTC))
    await run(ledger)
    assert await has_buyer(ledger, of_2027)
    move_to(ledger, datetime(2028, 1, 10, 23, 0, tzinfo=UTC))
    await run(ledger)
    assert not await has_buyer(ledger, of_2027)


@pytest.mark.parametrize("fact", ["payment", "refund", "dispute", "open refund", "open dispute"])
async def test_each_later_fact_keeps_an_invoice_longer(ledger: Installation, fact: str) -> None:
    invoice = (await ledger.create_invoice()).body["id"]
    move_to(ledger, datetime(2027, 6, 1, tzinfo=UTC))
    if fact != "payment":
        # What was paid in time is what the later fact is about.
        ledger.clock.move(timedelta(days=-365))
    assert (await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid")).status == 200
    later = datetime(2027, 6, 1, tzinfo=UTC) if " " not in fact else ledger.clock.now()
    if "refund" in fact:
        await ledger.sql(
            """
            insert into refund (id, payment_id, amount_minor, currency, status, created_at, settled_at, looks)
            select $1, id, 1, 'EUR', $2, $3::timestamptz, case when $2::text <> 'requested' then $3::timestamptz end, 0
            from payment
            """,
            ledger.services.ids.new(),
            "requested" if "open" in fact else "succeeded",
            later,
        )
    elif "dispute" in fact:
        await ledger.sql(
            """
            insert into dispute (id, payment_id, remote_id, amount_minor, currency, reason, status, created_at,
                updated_at)
            select $1, id, 'dp_1', 1, 'EUR', 'They say so', $2, $3, $3 from payment
            """,
            ledger.services.ids.new(),
            "under_review" if "open" in fact else "lost",
            later,
        )

    move_to(ledger, FIRST_DAY)
    await run(ledger)
    assert await has_buyer(ledger, invoice)
    move_to(ledger, datetime(2036, 1, 1, tzinfo=UTC))
    await run(ledger)
    assert await has_buyer(ledger, invoice) == ("open" in fact)


async def test_a_subscription_that_is_not_over_keeps_its_person(ledger: Installation) -> None:
    gold = await ensure_gold(ledger)
    live = {
        status: await add_subscription(ledger, user_id=f"user-{status}-0000000001", status=status, product_id=gold)
        for status in ("active", "past_due", "paused")
    }
    rows = await ledger.sql("select * from subscription order by id")
    invoice = await paid_invoice(ledger, user_id="user-active-0000000001")

    move_to(ledger, datetime(2060, 1, 1, tzinfo=UTC))
    await run(ledger)

    assert await ledger.sql("select * from subscription order by id") == rows
    assert not await has_buyer(ledger, invoice)
    assert await ledger.value("select count(*) from person where lanyard_user_id like 'user-%-0000000001'") == len(live)


async def test_a_subscription_that_is_over_is_kept_as_long_as_what_was_billed_for_it(ledger: Installation) -> None:
    subscription = await add_subscription(ledger, status="cancelled")
    move_to(ledger, datetime(2027, 2, 1, tzinfo=UTC))
    await add_period(ledger, subscription, invoice_id=await paid_invoice(ledger))

    move_to(ledger, FIRST_DAY)
    assert (await run(ledger)).counts["subscriptions"] == 0
    move_to(ledger, datetime(2036, 1, 1, tzinfo=UTC))
    assert (await run(ledger)).counts["subscriptions"] == 1
    assert await columns_with(ledger.database_url, USER) == []


async def test_who_acted_is_forgotten_by_the_year_of_the_entry(ledger: Installation) -> None:
    await ledger.staff.put("/api/settings", {"taxLabel": "VAT"})
    move_to(ledger, datetime(2027, 5, 1, tzinfo=UTC))
    await ledger.staff.put("/api/settings", {"taxLabel": "Tax"})

    move_to(ledger, FIRST_DAY)
    assert (await run(ledger)).counts["auditEntries"] == 1
    assert await columns_with(ledger.database_url, STAFF) == ["person.lanyard_user_id"]
    move_to(ledger, datetime(2036, 1, 1, tzinfo=UTC))
    assert (await run(ledger)).counts["auditEntries"] == 1
    assert await columns_with(ledger.database_url, STAFF) == []
    assert await faults(ledger) == []


async def test_the_audit_log_says_how_many_and_not_who(ledger: Installation) -> None:
    await live_a_life(ledger)
    move_to(ledger, FIRST_DAY)
    await run(ledger)
    await run(ledger)

    rows = await ledger.sql("select * from audit_entry where action = 'data_retention.anonymized'")
    assert len(rows) == 1
    assert (rows[0]["actor_kind"], rows[0]["actor_name"], rows[0]["entity_type"]) == (
        "system",
        "retention",
        "retention",
    )
    # Three entries: staff marked one invoice as paid and cancelled the other, and the person did something, too.
    assert rows[0]["details"] == '{"persons": 2, "invoices": 2, "auditEntries": 3, "subscriptions": 1}'


async def test_doing_it_twice_changes_nothing_more(ledger: Installation) -> None:
    await live_a_life(ledger)
    move_to(ledger, FIRST_DAY)
    assert (await run(ledger)).total > 0

    again = await run(ledger)

    assert again.total == 0
    assert not again.was_stopped


async def test_a_dry_run_counts_what_a_run_does_and_changes_nothing(ledger: Installation) -> None:
    await live_a_life(ledger)
    await live_a_life(ledger, user_id=OTHER)
    await paid_invoice(ledger, user_id="user-third-000000000001")
    move_to(ledger, FIRST_DAY)
    planted = await columns_with(ledger.database_url, SECRET)

    dry = await run(ledger, is_dry=True)
    assert await columns_with(ledger.database_url, SECRET) == planted
    done = await run(ledger)

    # Deliveries and attempts go with their events, so there is less left for their own steps.
    apart = {"deliveries", "attempts"}
    assert {name: count for name, count in dry.counts.items() if name not in apart} == {
        name: count for name, count in done.counts.items() if name not in apart
    }
    assert done.counts["persons"] == 4


async def test_a_later_payment_noted_on_a_freed_invoice_is_let_go_of_in_its_own_time(ledger: Installation) -> None:
    invoice = (await ledger.create_invoice()).body["id"]
    await ledger.sql("update invoice set status = 'failed', failed_at = $2 where id = $1", invoice, ledger.clock.now())
    move_to(ledger, FIRST_DAY)
    await run(ledger)
    assert not await has_buyer(ledger, invoice)

    paid = await ledger.shop.post(f"/api/invoices/{invoice}/mark-paid", {"reference": SECRET})
    assert paid.status == 200, paid.content
    await run(ledger)
    assert await columns_with(ledger.database_url, SECRET) == ["payment.reference"]
    move_to(ledger, datetime(2044, 1, 1, tzinfo=UTC))
    await run(ledger)
    assert await columns_with(ledger.database_url, SECRET) == []


async def test_more_than_a_page_is_done_page_by_page(ledger: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "PAGE", 3)
    items = [{"description": "Membership", "unitPrice": 5000}]
    people = [f"user-many-{number:013}" for number in range(8)]
    made = await ledger.shop.post("/api/invoices/batch", {"invoices": [{"userId": p, "items": items} for p in people]})
    assert made.status == 201
    await ledger.sql("update invoice set status = 'failed'")

    move_to(ledger, FIRST_DAY)
    done = await run(ledger)

    assert (done.counts["invoices"], done.counts["persons"], done.counts["deletedEvents"]) == (8, 8, 8)
