"""Disputes are kept as Stripe reports them, shown to staff, and announced whenever their status changes."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import msgspec
import pytest

from ledger.providers.contract import DisputeChanged
from ledger.refunds.disputes import apply_dispute
from tests.api.paid_invoice import PROVIDER, PaidInvoice, add_account, paid_invoice
from tests.installation import START, Installation

Status = Literal["needs_response", "under_review", "won", "lost"]


@pytest.fixture
async def account(ledger: Installation) -> str:
    return await add_account(ledger)


@pytest.fixture
async def paid(ledger: Installation, account: str) -> PaidInvoice:
    return await paid_invoice(ledger, connection_id=account)


async def report(
    ledger: Installation, invoice: PaidInvoice, status: Status, name: str = "dp_1", **changes: object
) -> bool:
    """Stripe says how a dispute stands."""
    meaning = DisputeChanged(
        payment_remote_id=invoice.payment_remote_id,
        remote_id=name,
        amount_minor=5000,
        currency="EUR",
        reason="The payer does not recognise the payment",
        status=status,
        respond_by=datetime(2026, 4, 1, 23, 59, tzinfo=UTC) if status == "needs_response" else None,
        created_at=START - timedelta(days=1),
    )
    async with ledger.services.database.transaction_by(kind="provider", name=PROVIDER) as tx:
        return await apply_dispute(tx, provider=PROVIDER, meaning=msgspec.structs.replace(meaning, **changes))


async def shown(ledger: Installation, invoice: PaidInvoice) -> object:
    return (await ledger.staff.get(f"/api/invoices/{invoice.id}")).fields().get("dispute")


async def on_overview(ledger: Installation) -> tuple[str, str | None]:
    """The figure and its variant."""
    stats = (await ledger.staff.get("/api/overview/stats")).body["stats"]
    stat = next(stat for stat in stats if stat["key"] == "disputes")
    return stat["value"], stat.get("variant")


async def announced(ledger: Installation) -> list[dict[str, Any]]:
    rows = await ledger.sql("select data from event where type = 'payment.disputed' order by created_at, id")
    return [msgspec.json.decode(row["data"]) for row in rows]


async def test_a_dispute_is_shown_announced_and_counted_until_it_is_decided(
    ledger: Installation, paid: PaidInvoice
) -> None:
    assert await shown(ledger, paid) is None
    assert await on_overview(ledger) == ("0", None)

    assert await report(ledger, paid, "needs_response")
    what = "50.00 EUR disputed: the payer does not recognise the payment"
    assert await shown(ledger, paid) == f"{what}; answer in Stripe by 2026-04-01"
    assert await on_overview(ledger) == ("1 · 50.00 EUR", "warning")
    number = await ledger.value("select number from invoice where id = $1", paid.id)
    assert await announced(ledger) == [
        {
            "invoiceId": paid.id,
            "invoiceNumber": number,
            "status": "paid",
            "total": 5000,
            "currency": "EUR",
            "amount": 5000,
            "amountCurrency": "EUR",
            "disputeStatus": "needs_response",
        }
    ]

    await report(ledger, paid, "under_review")
    assert await shown(ledger, paid) == f"{what}; answered, and the bank is looking at it"
    assert await on_overview(ledger) == ("1 · 50.00 EUR", None)

    await report(ledger, paid, "lost")
    assert await shown(ledger, paid) == f"{what}; lost, the money went back"
    assert await on_overview(ledger) == ("0", None)
    assert [each["disputeStatus"] for each in await announced(ledger)] == ["needs_response", "under_review", "lost"]
    rows = await ledger.sql("select actor_kind, details from audit_entry where action = 'payment.disputed' order by id")
    assert [row["actor_kind"] for row in rows] == ["provider"] * 3
    assert msgspec.json.decode(rows[2]["details"])["status"] == "lost"
    # Only staff has to know.
    assert "dispute" not in (await ledger.user.get(f"/api/my/invoices/{paid.id}")).fields()


async def test_hearing_the_same_again_announces_nothing(ledger: Installation, paid: PaidInvoice) -> None:
    await asyncio.gather(*(report(ledger, paid, "needs_response") for _ in range(10)))

    assert len(await announced(ledger)) == 1
    assert await ledger.value("select count(*) from dispute") == 1

    # Other details are kept, but the status is the same.
    await report(ledger, paid, "needs_response", amount_minor=4000, respond_by=None)
    assert len(await announced(ledger)) == 1
    assert await shown(ledger, paid) == (
        "40.00 EUR disputed: the payer does not recognise the payment; answer in Stripe"
    )


@pytest.mark.parametrize("verdict", ["won", "lost"])
async def test_what_the_bank_decided_stays_whatever_is_heard_after(
    ledger: Installation, account: str, verdict: Status
) -> None:
    heard: tuple[Status, ...] = ("needs_response", "under_review", verdict)
    for order in itertools.permutations(heard):
        invoice = await paid_invoice(ledger, connection_id=account)
        for status in order:
            await report(ledger, invoice, status)
        assert await ledger.value("select status from dispute where payment_id = $1", invoice.payment_id) == verdict
    with pytest.raises(asyncpg.PostgresError, match="dispute"):
        await ledger.sql("update dispute set status = 'under_review'")


async def test_two_disputes_of_one_invoice_are_both_shown(ledger: Installation, paid: PaidInvoice) -> None:
    await report(ledger, paid, "won", amount_minor=2000)
    await report(ledger, paid, "needs_response", "dp_2", amount_minor=3000, reason="VISA asks", respond_by=None)

    assert await shown(ledger, paid) == (
        "20.00 EUR disputed: the payer does not recognise the payment; won\n"
        "30.00 EUR disputed: VISA asks; answer in Stripe"
    )
    assert await on_overview(ledger) == ("1 · 30.00 EUR", "warning")


async def test_a_dispute_about_another_programs_payment_is_left_alone(ledger: Installation, paid: PaidInvoice) -> None:
    assert not await report(ledger, paid, "needs_response", payment_remote_id="pi_of_another_program")
    assert await ledger.value("select count(*) from dispute") == 0
