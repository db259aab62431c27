"""The fake Stripe counts as the real one: periods, taxes, unused time, credit, and previews that come true."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.stripe_arithmetic import next_boundary, settled, share, tax_on
from tests.fakes.stripe_club import DAY_S, Club, counted, open_club, types, unix


@pytest.fixture
async def club() -> AsyncIterator[Club]:
    async with open_club() as club:
        yield club


@pytest.mark.parametrize(
    ("anchor", "interval", "count", "ends"),
    [
        ("2026-01-31T10:00", "month", 1, ["2026-02-28T10:00", "2026-03-31T10:00", "2026-04-30T10:00"]),
        (
            "2024-02-29T00:00",
            "year",
            1,
            ["2025-02-28T00:00", "2026-02-28T00:00", "2027-02-28T00:00", "2028-02-29T00:00"],
        ),
        ("2025-11-30T23:59:59", "month", 3, ["2026-02-28T23:59:59", "2026-05-30T23:59:59"]),
        ("2026-03-28T01:30", "week", 2, ["2026-04-11T01:30", "2026-04-25T01:30"]),
    ],
)
def test_periods_end_by_the_calendar(anchor: str, interval: str, count: int, ends: list[str]) -> None:
    found, at = [], unix(anchor)
    for _ in ends:
        at = next_boundary(unix(anchor), at, interval, count)
        found.append(at)
    assert found == [unix(end) for end in ends]


def test_half_a_cent_goes_away_from_zero() -> None:
    assert [tax_on(amount, 19) for amount in (50, 150, -50, -150, 0)] == [10, 29, -10, -29, 0]
    assert [tax_on(1000, rate) for rate in (7.7, 8.875, 0)] == [77, 89, 0]
    assert tax_on(1190, 19, is_inclusive=True) == 190
    assert [share(1000, 1, 3), share(1001, 1, 2), share(-1001, 1, 2)] == [333, 501, -501]


def test_an_invoice_uses_up_credit_and_passes_on_what_is_too_little_to_charge() -> None:
    assert settled(1190, 0, 50) == (1190, 0)
    assert settled(-1996, 0, 50) == (0, -1996)
    assert settled(1190, -1996, 50) == (0, -806)
    assert settled(1190, -806, 50) == (384, 0)
    assert settled(1190, -1150, 50) == (0, 40)
    assert settled(1190, 40, 50) == (1230, 0)


async def test_a_subscription_renews_over_the_ends_of_months(club: Club) -> None:
    subscription_id = await club.subscribe()
    ends = []
    for _ in range(4):
        assert club.renew(subscription_id) == [
            *("customer.subscription.updated", "invoice.created", "payment_intent.created", "invoice.finalized"),
            *("charge.succeeded", "payment_intent.succeeded", "invoice.paid", "invoice.payment_succeeded"),
            "invoice_payment.paid",
        ]
        invoice = await club.latest(subscription_id)
        assert (invoice.billing_reason, invoice.total, invoice.created) == ("subscription_cycle", 1190, club.fake.now)
        [line] = invoice.lines.data
        assert line.period.start == club.fake.now
        ends.append(line.period.end)
    assert ends == [unix(f"2026-{day}T10:00") for day in ("03-31", "04-30", "05-31", "06-30")]


async def test_a_year_passes_at_once_in_order(club: Club) -> None:
    subscription_id = await club.subscribe()
    events = club.fake.advance(365 * DAY_S)
    assert types(events).count("invoice.paid") == 12
    assert [one["created"] for one in events] == sorted(one["created"] for one in events)
    assert len(club.fake.invoices_of(subscription_id)) == 13


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    after_s=st.integers(0, 27 * DAY_S),
    ago_s=st.integers(0, 3600),
    start=st.sampled_from(["Gold", "Platinum", "Year"]),
    target=st.sampled_from(["Gold", "Platinum", "Year"]),
    behavior=st.sampled_from(["always_invoice", "create_prorations", "none"]),
)
async def test_a_preview_is_what_is_charged(
    club: Club, after_s: int, ago_s: int, start: str, target: str, behavior: str
) -> None:
    subscription_id = await club.subscribe(start)
    club.fake.advance(after_s)
    how: dict[str, Any] = {"proration_behavior": behavior}
    if behavior != "none":
        how["proration_date"] = max(club.fake.now - ago_s, club.item(subscription_id)["current_period_start"])
    before = repr(club.fake.objects)
    mark = len(club.fake.events)
    promised = await club.preview(subscription_id, target, **how)
    assert (repr(club.fake.objects), len(club.fake.events)) == (before, mark)

    invoices = len(club.fake.invoices_of(subscription_id))
    await club.change(subscription_id, target, **how)
    if len(club.fake.invoices_of(subscription_id)) == invoices:
        club.renew(subscription_id)
    charged = await club.latest(subscription_id)
    assert counted(promised) == counted(charged)
    assert (promised.status, charged.status) == ("draft", "paid")


async def test_an_upgrade_is_charged_by_the_second_and_with_tax(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.travel(unix("2026-02-14T10:00"))
    changed = await club.change(subscription_id, "Platinum", proration_behavior="always_invoice")
    invoice = await club.latest(subscription_id)
    # Half of the 28 days are left: 15.00 less 5.00, and tax on each.
    assert [(line.amount, [tax.amount for tax in line.taxes or []]) for line in invoice.lines.data] == [
        (-500, [-95]),
        (1500, [285]),
    ]
    assert [line.description for line in invoice.lines.data] == [
        "Unused time on Gold after 14 Feb 2026",
        "Remaining time on Platinum after 14 Feb 2026",
    ]
    assert (invoice.billing_reason, invoice.total, invoice.status) == ("subscription_update", 1190, "paid")
    unused = invoice.lines.data[0]
    assert unused.parent is not None
    details = unused.parent.subscription_item_details
    assert details is not None
    assert (details.proration, details.subscription) == (True, subscription_id)
    assert unused.pricing is not None
    assert unused.pricing.price_details is not None
    assert unused.pricing.price_details.price == club.prices["Gold"]
    assert changed["items"].data[0].price.id == club.prices["Platinum"]
    assert changed["items"].data[0].current_period_end == unix("2026-02-28T10:00")


async def test_a_downgrade_is_credit_that_later_invoices_use_up(club: Club) -> None:
    subscription_id = await club.subscribe("Platinum")
    club.fake.travel(unix("2026-02-14T10:00"))
    await club.change(subscription_id, "Gold", proration_behavior="always_invoice")
    found = [await club.latest(subscription_id)]
    for _ in range(2):
        club.renew(subscription_id)
        found.append(await club.latest(subscription_id))
    assert [(one.total, one.amount_due, one.starting_balance, one.ending_balance, one.status) for one in found] == [
        (-1190, 0, 0, -1190, "paid"),
        (1190, 0, -1190, 0, "paid"),
        (1190, 1190, 0, 0, "paid"),
    ]
    customer = await club.v1.customers.retrieve_async(str(found[0].customer))
    assert customer.balance == 0


async def test_what_is_too_little_to_charge_is_owed_with_the_next_invoice(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.travel(unix("2026-02-28T09:00"))
    await club.change(subscription_id, "Platinum", proration_behavior="always_invoice")
    small = await club.latest(subscription_id)
    assert (small.total, small.amount_due, small.ending_balance, small.status) == (4, 0, 4, "paid")
    club.renew(subscription_id)
    assert (await club.latest(subscription_id)).amount_due == 3574


async def test_prorations_can_wait_for_the_next_invoice(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.travel(unix("2026-02-14T10:00"))
    await club.change(subscription_id, "Platinum", proration_behavior="create_prorations")
    assert len(club.fake.invoices_of(subscription_id)) == 1
    club.renew(subscription_id)
    invoice = await club.latest(subscription_id)
    assert [line.amount for line in invoice.lines.data] == [-500, 1500, 3000]
    assert invoice.total == 4760


async def test_without_proration_the_old_price_is_what_is_given_back_later(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.travel(unix("2026-02-14T10:00"))
    await club.change(subscription_id, "Platinum", proration_behavior="none")
    assert len(club.fake.invoices_of(subscription_id)) == 1
    await club.change(subscription_id, "Year", proration_behavior="always_invoice")
    invoice = await club.latest(subscription_id)
    assert [line.amount for line in invoice.lines.data] == [-500, 12_000]
    assert club.item(subscription_id)["current_period_end"] == unix("2027-02-14T10:00")


async def test_never_more_is_given_back_than_was_charged(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.travel(unix("2026-02-14T10:00"))
    for price in ("Platinum", "Gold", "Platinum", "Gold"):
        await club.change(
            subscription_id, price, proration_behavior="always_invoice", proration_date=unix("2026-02-07T10:00")
        )
    assert sum(one["subtotal"] for one in club.fake.invoices_of(subscription_id)) == 1000


async def test_the_same_price_again_changes_nothing(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.advance(DAY_S)
    mark = len(club.fake.events)
    await club.change(subscription_id, "Gold", proration_behavior="always_invoice")
    assert (len(club.fake.events), len(club.fake.invoices_of(subscription_id))) == (mark, 1)


async def test_a_change_whose_payment_fails_is_refused_or_leaves_it_past_due(club: Club) -> None:
    subscription_id = await club.subscribe()
    club.fake.advance(DAY_S)
    club.fake.decline(subscription_id)
    before, mark = repr(club.fake.objects), len(club.fake.events)
    how: dict[str, Any] = {"proration_behavior": "always_invoice", "payment_behavior": "error_if_incomplete"}
    with pytest.raises(stripe.CardError) as refused:
        await club.change(subscription_id, "Platinum", **how)
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    assert (repr(club.fake.objects), len(club.fake.events)) == (before, mark)

    changed = await club.change(subscription_id, "Platinum", proration_behavior="always_invoice")
    assert (changed.status, (await club.latest(subscription_id)).status) == ("past_due", "open")


async def test_an_invoice_shows_ten_lines_and_lists_the_others(club: Club) -> None:
    subscription_id = await club.subscribe()
    for day in range(6):
        club.fake.advance(DAY_S)
        await club.change(subscription_id, "Gold" if day % 2 else "Platinum", proration_behavior="create_prorations")
    club.renew(subscription_id)
    invoice = await club.latest(subscription_id)
    assert (len(invoice.lines.data), invoice.lines.has_more) == (10, True)
    rest = await club.v1.invoices.line_items.list_async(
        invoice.id, {"limit": 100, "starting_after": invoice.lines.data[-1].id}
    )
    lines = [*invoice.lines.data, *rest.data]
    assert (len(lines), rest.has_more) == (13, False)
    assert invoice.total == sum(one.amount + sum(tax.amount for tax in one.taxes or []) for one in lines)
