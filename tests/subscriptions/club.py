"""A club whose members subscribe: a Ledger with an active Stripe account, whose clock is Stripe's clock too."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from tests.api.test_providers import _add as add_provider
from tests.conftest import StartLedger
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET, FakeStripe
from tests.installation import Answer, Client, Installation
from tests.work import sweep, work

Event = dict[str, Any]


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What is left in the end, whatever way it came about: states, and the booked bills by Stripe's names."""

    status: str
    cancels_at_period_end: bool
    period_end: datetime | None
    product_id: str
    bills: dict[str, tuple[str, int, int, int]]
    """By Stripe's invoice: state, total, number of lines, sum of the payments; amounts in minor units."""


class Club:
    """What happens in a club, in its words."""

    def __init__(self, ledger: Installation, stripe: FakeStripe, provider_id: str) -> None:
        self.ledger = ledger
        self.stripe = stripe
        self.provider_id = provider_id
        self.told = 0
        """How many of Stripe's events were delivered, or are known to be lost."""

    async def add_product(self, name: str, price: int, **details: object) -> str:
        """A product with its price in minor units, known to Stripe."""
        body: dict[str, object] = {"name": name, "price": price, "type": "recurring", "interval": "month"}
        added = await self.ledger.staff.post("/api/products", body | details)
        assert added.status == 201, added.content
        await work(self.ledger)
        product_id: str = added.body["id"]
        return product_id

    async def subscribe(self, product_id: str, *, client: Client | None = None) -> tuple[str, str]:
        """A member opens the payment page: the ids of the subscription and of Stripe's session."""
        answer = await (client or self.ledger.user).post("/api/my/subscribe", {"productId": product_id})
        assert answer.status == 200, answer.content
        subscription_id: str = answer.body["id"]
        session_id: str = await self.ledger.value(
            "select checkout_remote_id from subscription where id = $1", subscription_id
        )
        assert self.stripe.objects[session_id]["url"] == answer.body["url"]
        return subscription_id, session_id

    async def member(self, product_id: str) -> tuple[str, str]:
        """A member who subscribed and paid: the ids of the subscription, here and at Stripe."""
        subscription_id, session_id = await self.subscribe(product_id)
        self.stripe.pay(session_id)
        await self.hear()
        assert await self.status(subscription_id) == "active"
        return subscription_id, self.stripe.subscription_of(session_id)["id"]

    def news(self) -> list[Event]:
        """Stripe's events since the last time."""
        events = self.stripe.events[self.told :]
        self.told = len(self.stripe.events)
        return list(events)

    def old_news(self) -> list[Event]:
        """The same, as an endpoint gets them that was made for an API version before 2025-03."""
        return [self.as_old(event) for event in self.news() if not event["type"].startswith("invoice_payment.")]

    def as_old(self, event: Event) -> Event:
        return event if event["type"].startswith("invoice_payment.") else self.stripe.as_before_basil(event)

    async def hear(self, events: Sequence[Event] | None = None) -> None:
        """Stripe's events arrive, and the worker applies them."""
        await self.receive(self.news() if events is None else events)
        await work(self.ledger)

    async def receive(self, events: Sequence[Event]) -> None:
        """Stripe's events arrive; nobody has applied them yet."""
        url = f"{self.ledger.url}/api/webhooks/stripe"
        for event in events:
            assert await self.stripe.deliver(url, event) == [200]

    async def pass_days(self, days: float) -> None:
        """Time passes, for Stripe and for Ledger."""
        self.ledger.clock.move(timedelta(days=days))
        self.stripe.run_due()

    async def sweep(self) -> None:
        await sweep(self.ledger)
        await work(self.ledger)

    async def status(self, subscription_id: str) -> str:
        shown = await self.ledger.staff.get(f"/api/subscriptions/{subscription_id}")
        assert shown.status == 200, shown.content
        return str(shown.fields()["status"])

    async def bills(self, subscription_id: str) -> list[tuple[str, str, int]]:
        """The invoices of a subscription: number, state, total in minor units; oldest first."""
        rows = await self.ledger.sql(
            """
            select i.number, i.status, i.total_minor from subscription_period s join invoice i on i.id = s.invoice_id
            where s.subscription_id = $1 order by i.number
            """,
            subscription_id,
        )
        return [tuple(row) for row in rows]

    async def books(self, subscription_id: str) -> Books:
        (row,) = await self.ledger.sql(
            "select status, cancels_at_period_end, period_end, product_id::text from subscription where id = $1",
            subscription_id,
        )
        bills = await self.ledger.sql(
            """
            select s.remote_id, i.status, i.total_minor,
                (select count(*) from invoice_line l where l.invoice_id = i.id) as lines,
                (select sum(p.amount_minor)::bigint from payment p where p.invoice_id = i.id) as paid
            from subscription_period s join invoice i on i.id = s.invoice_id where s.subscription_id = $1
            """,
            subscription_id,
        )
        return Books(**dict(row), bills={bill[0]: tuple(bill.values())[1:] for bill in bills})

    async def preview(self, subscription_id: str, product_id: str) -> Any:
        answer = await self.ledger.user.post(
            f"/api/my/subscriptions/{subscription_id}/change/preview", {"productId": product_id}
        )
        assert answer.status == 200, answer.content
        return answer.body

    async def change(self, subscription_id: str, product_id: str, **details: object) -> Answer:
        return await self.ledger.user.post(
            f"/api/my/subscriptions/{subscription_id}/change", {"productId": product_id, **details}
        )


async def open_club(start_ledger: StartLedger, stripe: FakeStripe, **settings: str) -> Club:
    """Starts a Ledger whose active provider is the fake Stripe."""
    ledger = await start_ledger(STRIPE_API_BASE=stripe.url, **settings)
    stripe.now = lambda: ledger.clock.now().timestamp()
    provider_id = await add_provider(ledger, "stripe", "Cards", secretKey=SECRET_KEY, webhookSecret=WEBHOOK_SECRET)
    activated = await ledger.staff.post(f"/api/providers/{provider_id}/activate")
    assert activated.status == 200, activated.content
    return Club(ledger, stripe, provider_id)
