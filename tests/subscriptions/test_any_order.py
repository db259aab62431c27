"""M5: whatever order Stripe's events come in, however often, and whichever are lost: in the end the books are right.

The oracle is not another run of Ledger but what Stripe has in the end, read from the fake's objects.
"""

import random
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from ledger.check import check_books
from ledger.reconciling import reconcile_all
from tests.fakes.stripe import FakeStripe
from tests.guarantees.scale import scaled, seeded
from tests.subscriptions.club import Club, Event
from tests.work import work

_STATUS = {
    "active": "active",
    "trialing": "active",
    "past_due": "past_due",
    "unpaid": "past_due",
    "paused": "paused",
    "canceled": "cancelled",
}
LIVES = 4


class Life:
    """Things that happen to one subscription, some of them in Stripe's own dashboard."""

    def __init__(self, club: Club, rng: random.Random, products: list[str]) -> None:
        self.club, self.rng, self.products = club, rng, products
        self.id = self.at_stripe = ""
        self.waiting: list[Event] = []

    @property
    def stripe(self) -> FakeStripe:
        return self.club.stripe

    async def begin(self) -> None:
        self.id, session_id = await self.club.subscribe(self.rng.choice(self.products))
        if self.rng.random() < 0.3:
            self.stripe.pay(session_id, method="sepa_debit", status="unpaid")
            await self.some_news()
            self.stripe.settle(session_id)
        else:
            self.stripe.pay(session_id)
        self.at_stripe = self.stripe.subscription_of(session_id)["id"]

    async def step(self) -> None:
        await self.rng.choice(
            [self.pass_a_month, self.pass_a_month, self.change, self.change, self.fail_or_recover, self.cancel]
        )()

    async def pass_a_month(self) -> None:
        await self.club.pass_days(self.rng.randint(5, 32))

    async def change(self) -> None:
        """Refused while Ledger does not know yet that it is paid: that is right, too."""
        product_id = self.rng.choice(self.products)
        answer = await self.club.ledger.staff.post(f"/api/subscriptions/{self.id}/change", {"productId": product_id})
        assert answer.status in (200, 400, 409), answer.content

    async def fail_or_recover(self) -> None:
        if self.stripe.objects[self.at_stripe]["status"] == "past_due":
            self.stripe.accept(self.at_stripe)
            self.stripe.retry(self.at_stripe)
        else:
            self.stripe.decline(self.at_stripe)

    async def cancel(self) -> None:
        word = self.rng.choice(["cancel", "reactivate", "reactivate"])
        answer = await self.club.ledger.staff.post(f"/api/subscriptions/{self.id}/{word}")
        assert answer.status in (200, 400, 409), answer.content

    async def some_news(self, *, lost: float = 0.0) -> None:
        """New events join those that wait, each one to five times, or never; some of all of them arrive."""
        for event in self.club.news():
            times = 0 if self.rng.random() < lost else self.rng.randint(1, 5)
            self.waiting += [event] * times
        self.rng.shuffle(self.waiting)
        arriving = self.rng.randint(0, len(self.waiting))
        now, self.waiting = self.waiting[:arriving], self.waiting[arriving:]
        if self.rng.random() < 0.3:
            now = [self.club.as_old(event) for event in now]
        await self.club.receive(now)
        if self.rng.random() < 0.7:
            await work(self.club.ledger)

    async def all_news(self, *, lost: float = 0.0) -> None:
        await self.some_news(lost=lost)
        await self.club.receive(self.waiting)
        self.waiting = []
        await work(self.club.ledger, rounds=20)


async def truth(club: Club, at_stripe: str) -> dict[str, Any]:
    """What Stripe has of a subscription in the end."""
    subscription = club.stripe.objects[at_stripe]
    item = subscription["items"]["data"][0]
    rows = await club.ledger.sql(
        """
        select pp.product_id::text from provider_mapping m join product_price pp on pp.id::text = m.local_id
        where m.kind = 'price' and m.remote_id = $1
        """,
        item["price"]["id"],
    )
    is_over = subscription["status"] == "canceled"
    return {
        "status": _STATUS[subscription["status"]],
        "cancelling": not is_over
        and (subscription["cancel_at_period_end"] is True or subscription["cancel_at"] is not None),
        "period_end": datetime.fromtimestamp(item["current_period_end"], UTC),
        "product": rows[0][0],
        "bills": {
            invoice["id"]: (invoice["total"], invoice["lines"].get("total_count") or len(invoice["lines"]["data"]))
            for invoice in club.stripe.invoices_of(at_stripe)
            if invoice["status"] == "paid"
        },
    }


async def booked(club: Club, subscription_id: str) -> dict[str, Any]:
    """What Ledger has of it."""
    books = await club.books(subscription_id)
    assert all(bill[0] == "paid" for bill in books.bills.values())
    assert all(bill[3] == max(bill[1], 0) for bill in books.bills.values())
    return {
        "status": books.status,
        "cancelling": books.cancels_at_period_end,
        "period_end": books.period_end,
        "product": books.product_id,
        "bills": {remote_id: (bill[1], bill[2]) for remote_id, bill in books.bills.items()},
    }


async def judge(club: Club, life: Life) -> None:
    assert await booked(club, life.id) == await truth(club, life.at_stripe)
    references = [row[0] for row in await club.ledger.sql("select provider_reference from payment")]
    named = [reference for reference in references if reference is not None]
    assert len(named) == len(set(named))
    paid = await club.ledger.value(
        "select count(*) from event where type = 'subscription.paid' and data->>'subscriptionId' = $1", life.id
    )
    assert paid == len((await club.books(life.id)).bills)
    assert await club.ledger.value("select count(*) from inbound_event where state = 'failed'") == 0
    connection = await asyncpg.connect(club.ledger.database_url)
    try:
        assert await check_books(connection) == []
    finally:
        await connection.close()


@pytest.mark.parametrize("life_number", range(scaled(LIVES)))
async def test_m5_events_in_any_order_and_number_give_the_same_books(club: Club, life_number: int) -> None:
    """M5. Seen failing without `list_booked`. `test_crossing_wishes` sees the check of `version`."""
    rng = seeded()
    life = await _life(club, rng, steps=12, lost=0.0)
    await life.all_news()
    await judge(club, life)


@pytest.mark.parametrize("life_number", range(scaled(LIVES)))
async def test_m5_what_was_lost_is_found_by_the_reconciler(club: Club, life_number: int) -> None:
    """M5. Seen failing without the reconciler's half about subscriptions."""
    rng = seeded()
    life = await _life(club, rng, steps=12, lost=0.4)
    await life.all_news(lost=0.4)
    findings = await reconcile_all(club.ledger.services)
    assert findings.failed == []
    await work(club.ledger, rounds=20)
    await judge(club, life)
    again = await reconcile_all(club.ledger.services)
    assert (again.mended, again.failed) == ([], [])


async def _life(club: Club, rng: random.Random, *, steps: int, lost: float) -> Life:
    await club.ledger.staff.put("/api/settings", {"taxRate": str(rng.choice([0, 700, 1900])), "taxLabel": "VAT"})
    products = [
        await club.add_product(f"Plan {price}", price, interval=interval, prorateOnChange=prorates)
        for price, interval, prorates in ((999, "month", True), (2500, "month", False), (5049, "month", True))
    ]
    life = Life(club, rng, products)
    await life.begin()
    for _ in range(steps):
        await life.step()
        await life.some_news(lost=lost)
        if club.stripe.objects[life.at_stripe]["status"] == "canceled":
            break
    return life
