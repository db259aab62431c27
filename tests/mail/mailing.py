"""A Ledger that sends mails to a mail server of the tests, step by step."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from ledger.database.transaction import NewEvent
from ledger.fanout import FanOut
from ledger.invoices.actions import record_payment
from ledger.invoices.store import lock_invoice
from ledger.mail.making import make_reminders
from ledger.mail.sending import MailSender
from ledger.payments.store import Payment
from ledger.subscriptions.settling import subscription_event
from ledger.subscriptions.store import get_subscription
from tests.api.test_providers import _add as add_provider
from tests.fakes.smtp import FakeMailServer, Received
from tests.installation import Installation

IBAN = {
    "paymentMethod": "iban",
    "ibanHolder": "Ruderclub Grün-Weiß e. V.",
    "ibanNumber": "DE89370400440532013000",
    "ibanBank": "Musterbank, COBADEFFXXX",
}


class Mailing:
    """An installation, the mail server it sends through, and what its worker would do."""

    def __init__(self, ledger: Installation, post: FakeMailServer) -> None:
        self.ledger = ledger
        self.post = post

    @property
    def sender(self) -> MailSender:
        return self.ledger.services.get(MailSender)

    async def configure(self, **changes: object) -> None:
        """Tells Ledger of the mail server, with what a test wants different."""
        changed = await self.ledger.staff.put("/api/settings", self.post.settings(**changes))
        assert changed.status == 200, changed.content

    async def fan_out(self) -> None:
        """Makes mails of what happened."""
        fan_out = FanOut(self.ledger.services.database, on_deliveries=lambda: None)
        while await fan_out.fan_out():
            pass

    async def send(self) -> list[Received]:
        """Makes mails of what happened, and sends what is due; returns what arrived by that."""
        before = len(self.post.received)
        await self.fan_out()
        await self.sender.send_due()
        return self.post.received[before:]

    async def remind(self) -> int:
        return await make_reminders(self.ledger.services.database, zone=self.ledger.settings.timezone)

    def later(self, **time: float) -> None:
        self.ledger.clock.move(timedelta(**time))

    async def rows(self) -> list[dict[str, Any]]:
        """The mails as they are stored, the oldest first."""
        return [dict(row) for row in await self.ledger.sql("select * from mail order by created_at, id")]

    async def kinds(self) -> list[str]:
        return [row["kind"] for row in await self.rows()]

    async def only(self) -> dict[str, Any]:
        """The one mail there is."""
        rows = await self.rows()
        assert len(rows) == 1, rows
        return rows[0]

    async def invoice(self, **changes: object) -> str:
        """An invoice over 59.50 EUR; returns its id."""
        items = [{"description": "Membership", "unitPrice": 5950}]
        invoice_id: str = (await self.ledger.create_invoice(**{"items": items, **changes})).body["id"]
        return invoice_id

    async def with_bank(self, **settings: str) -> None:
        """People pay by transfer, or as the settings say."""
        provider_id = await add_provider(self.ledger, "manual", "Our bank", **(settings or IBAN))
        assert (await self.ledger.staff.post(f"/api/providers/{provider_id}/activate")).status == 200

    async def pay(self, invoice_id: str, amount_minor: int | None = None) -> None:
        body = {} if amount_minor is None else {"amount": amount_minor}
        paid = await self.ledger.staff.post(f"/api/invoices/{invoice_id}/mark-paid", body)
        assert paid.status == 200, paid.content

    async def book(self, invoice_id: str, amount_minor: int) -> None:
        """Books a payment as a job does."""
        async with self.ledger.services.database.transaction_by(kind="provider", name="test") as tx:
            invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
            payment = Payment(
                id=tx.ids.new(),
                invoice_id=invoice_id,
                amount_minor=amount_minor,
                currency=invoice.currency,
                provider="manual",
                connection_id=None,
                method="card",
                provider_reference=None,
                reference=None,
                is_unexpected=False,
                received_at=tx.now,
                created_at=tx.now,
            )
            await record_payment(tx, invoice=invoice, payment=payment)

    async def publish(self, events: Iterable[NewEvent]) -> None:
        async with self.ledger.services.database.transaction_by(kind="system", name="test") as tx:
            for event in events:
                tx.publish(event)

    async def about_subscription(self, kind: str, subscription_id: str, **data: object) -> None:
        """Publishes an event about a subscription, as the action that makes it true does."""
        async with self.ledger.services.database.transaction_by(kind="system", name="test") as tx:
            event = subscription_event(kind, await get_subscription(tx.connection, subscription_id=subscription_id))
            tx.publish(event)
