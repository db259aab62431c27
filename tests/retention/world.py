"""A Ledger with something in every place that can hold personal data, and retention as a worker runs it."""

import itertools
from datetime import UTC, datetime

import asyncpg
import msgspec

from ledger.audit.actions import seal_entries
from ledger.check import check_books
from ledger.database.connection import prepare_connection
from ledger.retention.jobs import Retained, apply_retention
from tests.api.heard_events import add_event
from tests.api.subscribed import add_change, add_period, add_subscription, ensure_gold
from tests.installation import USER, Installation

# What stands in every free text about the person, beside their id: it has to be gone as well.
SECRET = "Ben-lives-at-Elm-Street-5"
# The last day on which the facts of 2026 are kept, with the usual 2922 days, and the first on which they are not.
LAST_DAY = datetime(2034, 12, 31, 12, tzinfo=UTC)
FIRST_DAY = datetime(2035, 1, 1, 12, tzinfo=UTC)
_counter = itertools.count(1)


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What a person left behind."""

    invoice: str
    cancelled_invoice: str
    subscription: str


async def run(ledger: Installation, *, is_dry: bool = False) -> Retained:
    """The daily run."""
    return await apply_retention(ledger.services.database, zone=ledger.settings.timezone, is_dry=is_dry)


def move_to(ledger: Installation, moment: datetime) -> None:
    ledger.clock.move(moment - ledger.clock.now())


async def live_a_life(ledger: Installation, *, user_id: str = USER) -> Life:
    """Puts the person, by id and by `SECRET`, into every column that can hold either."""
    about = f"{SECRET} {user_id}"
    made = await ledger.create_invoice(userId=user_id, notes=about, metadata={"who": about})
    invoice: str = made.body["id"]
    paid = await ledger.staff.post(f"/api/invoices/{invoice}/mark-paid", {"reference": about}, key=f"key {user_id}")
    assert paid.status == 200, paid.content
    cancelled: str = (await ledger.create_invoice(userId=user_id, notes=about)).body["id"]
    assert (await ledger.staff.post(f"/api/invoices/{cancelled}/cancel")).status == 200
    subscription = await add_subscription(
        ledger, user_id=user_id, status="cancelled", product_id=await ensure_gold(ledger), problem=about
    )
    await add_period(ledger, subscription, invoice_id=invoice)
    await add_change(ledger, subscription, kind="cancel", status="failed", failure=about)
    payload = f'{{"customer": "cus_{user_id}", "email": "{about}"}}'.encode()
    await add_event(ledger, payload=payload, state="applied", error=None, next_try_at=None)
    await _write_between_the_lines(ledger, invoice, subscription, user_id=user_id, about=about)
    return Life(invoice=invoice, cancelled_invoice=cancelled, subscription=subscription)


async def _write_between_the_lines(
    ledger: Installation, invoice: str, subscription: str, *, user_id: str, about: str
) -> None:
    """What other parts of Ledger write in time, written by hand."""
    new, now = ledger.services.ids.new, ledger.clock.now()
    person = await ledger.value("select id from person where lanyard_user_id = $1", user_id)
    connection = await ledger.value("select connection_id from subscription where id = $1", subscription)
    await ledger.sql("update invoice set payment_instructions = $2 where id = $1", invoice, about)
    await ledger.sql("update subscription set checkout_url = $2 where id = $1", subscription, about)
    await ledger.sql(
        """
        insert into checkout (id, invoice_id, connection_id, amount_minor, currency, status, is_unwanted, remote_id,
            url, error, created_at, looks)
        values ($1, $2, $3, 5000, 'EUR', 'expired', false, $4, $5, $5, $6, 1)
        """,
        new(),
        invoice,
        connection,
        f"cs_{new()}",
        about,
        now,
    )
    await ledger.sql(
        """
        insert into refund (id, payment_id, amount_minor, currency, status, reason, failure, created_at, settled_at,
            looks)
        select $1, id, 1, 'EUR', 'failed', $3, $3, $4, $4, 1 from payment where invoice_id = $2
        """,
        new(),
        invoice,
        about,
        now,
    )
    await ledger.sql(
        """
        insert into provider_mapping (connection_id, kind, local_id, remote_id, created_at)
        values ($1, 'customer', $2, $3, $4)
        """,
        connection,
        str(person),
        f"cus_{user_id}",
        now,
    )
    await ledger.sql(
        """
        insert into mail (id, kind, occasion, person_id, invoice_id, status, error, attempts, created_at, settled_at)
        values ($1, 'invoice_created', $2, $3, $4, 'failed', $5, 1, $6, $6)
        """,
        new(),
        f"invoice_created:{invoice}",
        person,
        invoice,
        about,
        now,
    )
    # The person did something themselves, too.
    await ledger.sql(
        """
        insert into audit_entry (action, entity_type, entity_id, actor_kind, actor_person_id, created_at)
        values ('subscription.cancelled', 'subscription', $1, 'person', $2, $3)
        """,
        subscription,
        person,
        now,
    )
    await deliver_events(ledger, about=about, person_id=person)


async def deliver_events(ledger: Installation, *, about: str, person_id: int) -> None:
    """As if the person's events had been delivered to a subscriber that says back what it was told."""
    new, now = ledger.services.ids.new, ledger.clock.now()
    subscriber = new()
    await ledger.sql(
        """
        insert into webhook_subscriber (id, name, url, events, is_active, header_secret_sealed, sends_header_secret,
            signing_secret_sealed, created_at, updated_at)
        values ($1, $2, 'https://example.org', '{*}', true, '', false, '', $3, $3)
        """,
        subscriber,
        f"Shop {next(_counter)}",
        now,
    )
    await ledger.sql(
        """
        with delivered as (
            insert into webhook_delivery (id, event_id, subscriber_id, event_type, status, attempts, last_error,
                created_at, settled_at)
            select gen_random_uuid(), id, $1, type, 'failed', 1, $2, $3, $3 from event where person_id = $4
            returning id
        )
        insert into webhook_attempt (delivery_id, started_at, duration_ms, status, error, answer)
        select id, $3, 5, 500, $2, $2 from delivered
        """,
        subscriber,
        about,
        now,
        person_id,
    )
    await ledger.sql("update event set is_fanned_out = true where person_id = $1", person_id)


async def faults(ledger: Installation) -> list[str]:
    """Seals the audit log as the worker does, and checks the books and the chain."""
    async with ledger.services.database.transaction_by(kind="system", name="test") as tx:
        await seal_entries(tx)
    connection = await asyncpg.connect(ledger.database_url)
    try:
        await prepare_connection(connection)
        return await check_books(connection, now=ledger.clock.now())
    finally:
        await connection.close()


async def money(ledger: Installation) -> list[tuple[object, ...]]:
    """Every amount, number, state and date in the books."""
    rows = await ledger.sql(
        """
        select 'invoice', number, currency, subtotal_minor, tax_minor, total_minor, status, created_at, due_at, paid_at,
            cancelled_at from invoice
        union all
        select 'line', invoice_id::text, description, quantity, unit_price_minor, total_minor, tax_rate_bp::text,
            null, null, null, null from invoice_line
        union all
        select 'payment', invoice_id::text, currency, amount_minor, null, null, method, created_at, received_at, null,
            null from payment
        union all
        select 'refund', payment_id::text, currency, amount_minor, null, null, status, created_at, settled_at, null,
            null from refund
        order by 1, 2, 4, 8
        """
    )
    return [tuple(row) for row in rows]
