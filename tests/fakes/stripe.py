"""A Stripe of our own: a real HTTP server on loopback that keeps state, checks every request, and fails on request.

In a test: `async with FakeStripe() as fake: …; assert fake.violations == []`.
As a process of its own: `python -m tests.fakes.stripe --port 3002 --webhook http://127.0.0.1:3000/api/webhooks/stripe`.
Its payment page takes the money at once and goes back to `success_url`.

What it knows is in `stripe_world` (objects, events, time), what it does in `stripe_checkout`, `stripe_billing`,
`stripe_invoices` and `stripe_money`, how it counts in `stripe_arithmetic`, how it answers in `stripe_serving`.
"""

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Literal, Self

import aiohttp
import stripe
from aiohttp import web

from tests.fakes import stripe_billing as billing
from tests.fakes import stripe_checkout as checkout
from tests.fakes import stripe_invoices as invoices
from tests.fakes import stripe_money as money
from tests.fakes.stripe_old_shapes import as_before_basil
from tests.fakes.stripe_serving import SECRET_KEY, Fault, Kind, Request, Server
from tests.fakes.stripe_shapes import Object, blank
from tests.fakes.stripe_world import API_VERSION

__all__ = ["API_VERSION", "SECRET_KEY", "WEBHOOK_SECRET", "FakeStripe", "Fault", "Kind", "Request"]

WEBHOOK_SECRET = "whsec_LedgerFakeStripeWebhookSecret"


class FakeStripe(Server):
    """Stripe as Ledger sees it. Public attributes may be changed at any time and count for the next request."""

    def __init__(self, *, port: int = 0) -> None:
        super().__init__()
        self.surcharge = 0
        """Added to the total of new sessions, as a tax setting of the account would."""
        self.refund_status = "succeeded"
        self.payment_method_types = ["card"]
        self.account: Object = {**blank(stripe.Account), "id": "acct_1Ledger", "charges_enabled": True}
        self.account["settings"] = {"dashboard": {"display_name": "Sportverein Beispiel"}}
        self.webhook: tuple[str, str] | None = None
        """Where the payment page announces payments, and the secret it signs with."""
        self._port = port
        self._runner: web.AppRunner | None = None

    # Running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens again on the same port when it was stopped before. Its state is kept."""
        self._released = asyncio.Event()
        application = web.Application()
        application.router.add_get("/pay/{id}", self._payment_page)
        application.router.add_route("*", "/v1/{rest:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Refuses connections from now on; whoever hangs is let go."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Refuses connections for a while."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # Payment pages

    def pay(self, session_id: str, *, method: str = "card", status: Literal["paid", "unpaid"] = "paid") -> Object:
        """Somebody pays; returns the session's event. `status="unpaid"` is a bank debit that is still on its way."""
        self.run_due()
        session = self.objects[session_id]
        assert session["status"] == "open", "only an open session can be paid"
        return checkout.pay(self, session, method=method, status=status)

    def settle(self, session_id: str) -> Object:
        """The money of a bank debit arrives; returns the session's event."""
        self.run_due()
        return checkout.conclude(self, self.objects[session_id], "succeeded", "")

    def fail(self, session_id: str, message: str = money.DECLINED) -> Object:
        """A card is declined, or a bank debit does not work out; returns the event.

        A declined card leaves the page open; its subscription exists then, but is incomplete.
        """
        self.run_due()
        session = self.objects[session_id]
        if session["status"] == "complete":
            return checkout.conclude(self, session, "failed", message)
        return checkout.decline(self, session, message)

    def expire(self, session_id: str) -> Object:
        """A session's time is over; returns the event."""
        return checkout.expire(self, self.objects[session_id])

    # Subscriptions

    def subscription_of(self, session_id: str) -> Object:
        """The subscription that a session began."""
        return self.objects[self.objects[session_id]["subscription"]]

    def decline(self, customer_or_subscription_id: str) -> None:
        """The customer's bank says no from now on. Payment pages still take money: people use another card there."""
        self.declining.add(self._customer(customer_or_subscription_id))

    def accept(self, customer_or_subscription_id: str) -> None:
        """The customer's bank says yes at once from now on."""
        self.declining.discard(self._customer(customer_or_subscription_id))
        self.slow.discard(self._customer(customer_or_subscription_id))

    def take_days(self, customer_or_subscription_id: str) -> None:
        """The customer pays by bank debit from now on: until `settle_invoice` or `fail_invoice` it is on its way."""
        self.slow.add(self._customer(customer_or_subscription_id))

    def settle_invoice(self, invoice_id: str) -> list[Object]:
        """The debit for an invoice arrives; returns the events."""
        return self._landed(invoice_id, "succeeded")

    def fail_invoice(self, invoice_id: str) -> list[Object]:
        """The debit for an invoice does not work out; returns the events."""
        return self._landed(invoice_id, "failed")

    def _landed(self, invoice_id: str, outcome: Literal["succeeded", "failed"]) -> list[Object]:
        mark = len(self.events)
        checkout.land(self, self.objects[invoice_id], outcome, "The bank did not pay the direct debit.")
        return self.events[mark:]

    def _customer(self, object_id: str) -> str:
        found = self.objects[object_id]
        return str(found["customer"] if found["object"] == "subscription" else found["id"])

    def retry(self, subscription_id: str) -> list[Object]:
        """Stripe tries again to collect the open invoices, oldest first; returns the events."""
        self.run_due()
        mark = len(self.events)
        for invoice in self.invoices_of(subscription_id):
            intent = invoices.intent_of(self, invoice)
            if invoice["status"] == "open" and intent is not None and intent["status"] != "processing":
                billing.collect(self, invoice)
        return self.events[mark:]

    def invoices_of(self, subscription_id: str) -> list[Object]:
        """All invoices of a subscription, oldest first."""
        found = self.of("invoice")
        return [one for one in found if one["parent"]["subscription_details"]["subscription"] == subscription_id]

    def end(self, subscription_id: str) -> Object:
        """Stripe, or somebody in its dashboard, ends a subscription now; returns the event."""
        self.run_due()
        subscription = self.objects[subscription_id]
        is_behind = subscription["status"] == "past_due"
        return billing.end(self, subscription, "payment_failed" if is_behind else "cancellation_requested")

    # Stripe's own dashboard

    def refund(self, payment_intent_id: str, amount: int | None = None, *, status: str = "succeeded") -> Object:
        """Somebody gives money back in the dashboard: all that is left, or less; returns the refund."""
        self.run_due()
        intent = self.objects[payment_intent_id]
        left = money.left_to_refund(self, intent)
        made = money.refund(self, intent, left if amount is None else amount, status, {}, "requested_by_customer")
        # Its reference number at the bank is known a little later.
        self.happened("refund.updated", made)
        self.happened("charge.refund.updated", made)
        return made

    def settle_refund(self, refund_id: str, status: str, failure_reason: str | None = None) -> Object:
        """A refund that was on its way arrives or fails; returns the refund's event."""
        return money.end_refund(self, self.objects[refund_id], status, failure_reason)

    def dispute(self, payment_intent_id: str, reason: str = "fraudulent", amount: int | None = None) -> Object:
        """The payer goes to the bank, which takes the money back for now; returns the dispute."""
        self.run_due()
        intent = self.objects[payment_intent_id]
        return money.dispute(self, intent, reason, intent["amount_received"] if amount is None else amount)

    def close_dispute(self, dispute_id: str, status: Literal["won", "lost"] = "lost") -> Object:
        """The bank decides, `won` is for the association; returns the event `charge.dispute.closed`."""
        self.run_due()
        return money.close_dispute(self, self.objects[dispute_id], status)

    # Events

    def as_before_basil(self, event: Object) -> Object:
        """An event as an endpoint of an older API version gets it."""
        return as_before_basil(self, event)

    def sign(
        self, event: Object, secret: str = WEBHOOK_SECRET, *, timestamp: int | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """Returns an event as it would arrive: its body, and the header with the signature (of the present time)."""
        body = json.dumps(event, separators=(",", ":"))
        signature = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp)
        return body.encode(), {"stripe-signature": signature}

    async def deliver(self, url: str, event: Object, secret: str = WEBHOOK_SECRET, *, times: int = 1) -> list[int]:
        """Sends an event to a webhook endpoint; returns the statuses it answered with."""
        return await self.deliver_all(url, [event] * times, secret)

    async def deliver_all(self, url: str, events: Sequence[Object], secret: str = WEBHOOK_SECRET) -> list[int]:
        """Sends events to a webhook endpoint, in this order; returns the statuses it answered with."""
        statuses = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for event in events:
                body, headers = self.sign(event, secret)
                headers["content-type"] = "application/json"
                async with session.post(url, data=body, headers=headers) as answer:
                    statuses.append(answer.status)
        return statuses

    async def _payment_page(self, request: web.Request) -> web.StreamResponse:
        self.run_due()
        session = self.objects.get(request.match_info["id"])
        if session is None or session["status"] != "open":
            return web.Response(text="This page can no longer be used.", status=410)
        mark = len(self.events)
        self.pay(session["id"])
        if self.webhook is not None:
            await self.deliver_all(self.webhook[0], self.events[mark:], self.webhook[1])
        raise web.HTTPSeeOther(session["success_url"])


async def _serve_forever(arguments: argparse.Namespace) -> None:
    fake = FakeStripe(port=arguments.port)
    fake.keys.add(arguments.key)
    if arguments.webhook:
        fake.webhook = (arguments.webhook, arguments.webhook_secret)
    async with fake:
        print(fake.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Runs until interrupted. Prints its URL as the first line."""
    parser = argparse.ArgumentParser(description="A Stripe for tests and for trying things out.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", default=SECRET_KEY, help="a secret key that is accepted")
    parser.add_argument("--webhook", default="", help="where payments on the payment page are announced")
    parser.add_argument("--webhook-secret", default=WEBHOOK_SECRET)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(parser.parse_args()))


if __name__ == "__main__":
    main()
