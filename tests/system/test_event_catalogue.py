"""The catalogue of events is what is published, and what the documents say."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, get_args

import jsonschema_rs
import msgspec
import pytest

from ledger.events import (
    EVENT_TYPES,
    EVENTS,
    DisputeStatusName,
    InvoiceStatusName,
    SubscriptionStatusName,
)
from ledger.events_docs import FOLDER, data_schema, documents
from ledger.invoices.rules import InvoiceStatus
from ledger.payments.dispute_store import DisputeStatus
from ledger.subscriptions.rules import SubscriptionStatus
from tests.api.test_paying_by_card import announce, opened
from tests.conftest import StartLedger
from tests.fakes.stripe import FakeStripe
from tests.installation import USER, Installation
from tests.subscriptions.club import Club, open_club


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    """A Stripe whose requests all have to fit the library's parameter types."""
    async with FakeStripe() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def club(start_ledger: StartLedger, stripe: FakeStripe) -> Club:
    """A Ledger with an active Stripe account."""
    return await open_club(start_ledger, stripe)


def test_the_documents_say_what_the_catalogue_says() -> None:
    """Else: `python -m ledger.events_docs`."""
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert written == documents()


def test_every_event_has_a_sentence_and_an_example_that_fits_its_schema() -> None:
    for kind in EVENTS.values():
        assert kind.when.endswith("."), kind.name
        schema = data_schema(kind)
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema).validate(schema["examples"][0])
        msgspec.convert(schema["examples"][0], kind.data)


def test_the_catalogue_knows_every_state() -> None:
    assert set(get_args(InvoiceStatusName)) == set(InvoiceStatus)
    assert set(get_args(SubscriptionStatusName)) == set(SubscriptionStatus)
    assert set(get_args(DisputeStatusName)) == set(get_args(DisputeStatus))


async def published(ledger: Installation) -> Counter[str]:
    """How often each event was published; fails on an event whose data is not what the catalogue promises."""
    rows = await ledger.sql(
        """
        select e.type, e.data, p.lanyard_user_id as user_id from event e left join person p on p.id = e.person_id
        order by e.created_at, e.id
        """
    )
    for row in rows:
        data: dict[str, Any] = msgspec.json.decode(row["data"])
        assert "userId" not in data, "who a person is stands in one table only"
        sent = {**data, "userId": row["user_id"]}
        assert sent["userId"] == USER
        schema = data_schema(EVENTS[row["type"]])
        jsonschema_rs.validator_for(schema).validate(sent)
        # New fields may come, but none that the catalogue does not name.
        assert set(sent) == set(schema["properties"]), row["type"]
    return Counter(row["type"] for row in rows)


async def refund(ledger: Installation, invoice_id: str, **body: object) -> None:
    answer = await ledger.staff.post(f"/api/invoices/{invoice_id}/refund", body or None)
    assert answer.status == 200, answer.content


async def test_every_event_of_an_invoices_life_is_in_the_catalogue(club: Club) -> None:
    ledger, stripe = club.ledger, club.stripe
    by_hand: str = (await ledger.create_invoice()).body["id"]
    assert (await ledger.staff.post(f"/api/invoices/{by_hand}/mark-paid", {"amount": 2000})).status == 200
    assert (await ledger.staff.post(f"/api/invoices/{by_hand}/mark-paid")).status == 200
    withdrawn: str = (await ledger.create_invoice()).body["id"]
    assert (await ledger.staff.post(f"/api/invoices/{withdrawn}/cancel")).status == 200

    by_card, session_id = await opened(ledger)
    await announce(ledger, stripe, stripe.fail(session_id))
    paid = stripe.pay(session_id)
    await announce(ledger, stripe, paid)
    await refund(ledger, by_card, amount=1000)
    await refund(ledger, by_card)

    too_late, session_id = await opened(ledger)
    late = stripe.pay(session_id)
    assert (await ledger.staff.post(f"/api/invoices/{too_late}/cancel")).status == 200
    await announce(ledger, stripe, late)
    other_currency, session_id = await opened(ledger)
    odd = stripe.pay(session_id)
    odd["data"]["object"] |= {"currency": "usd"}
    await announce(ledger, stripe, odd)

    disputed, session_id = await opened(ledger)
    paid = stripe.pay(session_id)
    await announce(ledger, stripe, paid)
    stripe.dispute(paid["data"]["object"]["payment_intent"])
    await announce(ledger, stripe, stripe.events[-1])
    assert len({by_hand, by_card, too_late, other_currency, disputed}) == 5

    assert await published(ledger) == {
        "invoice.created": 6,
        "invoice.paid": 3,
        "invoice.payment_failed": 1,
        "invoice.cancelled": 2,
        "invoice.refunded": 2,
        "payment.unexpected": 2,
        "payment.disputed": 1,
        "subscription.paid": 2,
        "subscription.payment_failed": 1,
    }


async def test_every_event_of_a_subscriptions_life_is_in_the_catalogue(club: Club) -> None:
    ledger, stripe = club.ledger, club.stripe
    silver, gold = await club.add_product("Silver", 1000), await club.add_product("Gold", 2500)
    subscription_id, at_stripe = await club.member(silver)
    await club.pass_days(10)
    assert (await club.change(subscription_id, gold)).status == 200
    await club.hear()
    stripe.decline(at_stripe)
    await club.pass_days(23)
    await club.hear()
    assert await club.status(subscription_id) == "past_due"
    stripe.accept(at_stripe)
    stripe.retry(at_stripe)
    await club.hear()
    assert (await ledger.user.post(f"/api/my/subscriptions/{subscription_id}/cancel")).status == 200
    await club.pass_days(32)
    await club.hear()
    assert await club.status(subscription_id) == "cancelled"

    events = await published(ledger)
    assert events["subscription.updated"] >= 3
    assert {name: count for name, count in events.items() if name != "subscription.updated"} == {
        "invoice.created": 3,
        "invoice.paid": 3,
        "subscription.created": 1,
        "subscription.paid": 3,
        "subscription.payment_failed": 1,
        "subscription.cancelled": 1,
    }
    assert set(events) <= set(EVENT_TYPES)
