"""A fake Stripe with prices and a tax rate, and the real client in front of it: for the fake's own tests."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import stripe
from stripe.checkout import Session

from tests.fakes.stripe import SECRET_KEY, FakeStripe
from tests.fakes.stripe_shapes import Object

if TYPE_CHECKING:
    from stripe._v1_services import V1Services

DAY_S = 86_400
BACK = {"success_url": "https://example.org", "cancel_url": "https://example.org"}


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


class Club:
    """A fake Stripe on 31 January 2026 with prices at 19 %, and the real client in front of it."""

    def __init__(self, fake: FakeStripe, v1: "V1Services") -> None:
        self.fake, self.v1 = fake, v1
        self.prices: dict[str, str] = {}
        self.rate = ""

    async def open(self) -> None:
        self.fake.now = unix("2026-01-31T10:00")
        rate = await self.v1.tax_rates.create_async({"display_name": "VAT", "percentage": 19, "inclusive": False})
        self.rate = rate.id
        for name, amount, interval in (("Gold", 1000, "month"), ("Platinum", 3000, "month"), ("Year", 12_000, "year")):
            product = await self.v1.products.create_async({"name": name})
            price = await self.v1.prices.create_async(
                {
                    **{"product": product.id, "currency": "eur", "unit_amount": amount},
                    "recurring": {"interval": "month" if interval == "month" else "year"},
                }
            )
            self.prices[name] = price.id

    async def session(self, price: str = "Gold") -> Session:
        customer = await self.v1.customers.create_async({"metadata": {"person": "1"}})
        return await self.v1.checkout.sessions.create_async(
            {
                **{"mode": "subscription", "customer": customer.id, "success_url": BACK["success_url"]},
                "cancel_url": BACK["cancel_url"],
                "line_items": [{"price": self.prices[price], "quantity": 1}],
                "subscription_data": {"metadata": {"intent_id": "i"}, "default_tax_rates": [self.rate]},
            }
        )

    async def subscribe(self, price: str = "Gold") -> str:
        event = self.fake.pay((await self.session(price)).id)
        return str(event["data"]["object"]["subscription"])

    def item(self, subscription_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.fake.objects[subscription_id]["items"]["data"][0]
        return found

    def renew(self, subscription_id: str) -> list[str]:
        """The types of what happens at the end of the period."""
        return types(self.fake.travel(self.item(subscription_id)["current_period_end"]))

    async def change(self, subscription_id: str, price: str, **how: Any) -> stripe.Subscription:
        items = [{"id": self.item(subscription_id)["id"], "price": self.prices[price]}]
        params: Any = {"items": items, **how}
        return await self.v1.subscriptions.update_async(subscription_id, params)

    async def preview(self, subscription_id: str, price: str, **how: Any) -> stripe.Invoice:
        items = [{"id": self.item(subscription_id)["id"], "price": self.prices[price]}]
        params: Any = {"subscription": subscription_id, "subscription_details": {"items": items, **how}}
        return await self.v1.invoices.create_preview_async(params)

    async def latest(self, subscription_id: str) -> stripe.Invoice:
        return await self.v1.invoices.retrieve_async(self.fake.objects[subscription_id]["latest_invoice"])


@contextlib.asynccontextmanager
async def open_club() -> AsyncIterator[Club]:
    stripe.enable_telemetry = False
    http = stripe.HTTPXClient()
    async with FakeStripe() as fake:
        club = Club(fake, stripe.StripeClient(SECRET_KEY, base_addresses={"api": fake.url}, http_client=http).v1)
        await club.open()
        yield club
        await http.close_async()  # type: ignore[no-untyped-call]
        assert fake.violations == []


def types(events: list[Object]) -> list[str]:
    return [one["type"] for one in events]


def counted(invoice: stripe.Invoice) -> list[Any]:
    """All that a preview promises."""
    lines = [
        (line.amount, line.description, line.period.start, line.period.end, [tax.amount for tax in line.taxes or []])
        for line in invoice.lines.data
    ]
    return [
        lines,
        invoice.subtotal,
        invoice.total,
        invoice.amount_due,
        invoice.starting_balance,
        invoice.ending_balance,
    ]
