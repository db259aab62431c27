"""The figures a treasurer looks at first."""

from datetime import datetime

from tests.conftest import StartLedger
from tests.installation import START, Installation


async def figures(ledger: Installation) -> dict[str, object]:
    answer = await ledger.staff.get("/api/overview/stats")
    assert answer.status == 200
    return {stat["label"]: stat["value"] for stat in answer.body["stats"]}


def item(unit_price: int) -> list[dict[str, object]]:
    return [{"description": "Fee", "unitPrice": unit_price}]


async def test_the_figures_count_what_is_open_overdue_and_was_paid_this_month(ledger: Installation) -> None:
    assert await figures(ledger) == {"Open": "0", "Overdue": "0", "Paid This Month": "0", "Disputes": "0"}

    await ledger.create_invoice(items=item(2500), dueDate="2026-03-01")
    partly = (await ledger.create_invoice(items=item(10_000), dueDate="2026-04-01")).body["id"]
    await ledger.create_invoice(items=item(5000), currency="JPY")
    for kind in ("cancel", "mark-paid"):
        settled = (await ledger.create_invoice(items=item(700), dueDate="2026-03-01")).body["id"]
        await ledger.staff.post(f"/api/invoices/{settled}/{kind}")
    await ledger.staff.post(f"/api/invoices/{partly}/mark-paid", {"amount": 4000})

    # What was paid of an open invoice is not open any more.
    assert await figures(ledger) == {
        "Open": "3 · 85.00 EUR, 5000 JPY",
        "Overdue": "1 · 25.00 EUR",
        "Paid This Month": "2 · 47.00 EUR",
        "Disputes": "0",
    }
    stats = (await ledger.staff.get("/api/overview/stats")).body["stats"]
    assert [(stat["key"], stat.get("variant")) for stat in stats] == [
        ("open", None),
        ("overdue", "warning"),
        ("paidThisMonth", None),
        ("disputes", None),
    ]
    assert (await ledger.user.get("/api/overview/stats")).status == 403


async def test_the_month_begins_where_the_books_are_kept(start_ledger: StartLedger) -> None:
    berlin = await start_ledger(LEDGER_TIMEZONE="Europe/Berlin")
    first, second = [(await berlin.create_invoice()).body["id"] for _ in range(2)]
    berlin.clock.move(datetime.fromisoformat("2026-04-15T12:00:00Z") - START)
    # Midnight of April 1st in Berlin is 22:00 UTC of the day before.
    await berlin.staff.post(f"/api/invoices/{first}/mark-paid", {"paidAt": "2026-03-31T21:59:59Z"})
    assert (await figures(berlin))["Paid This Month"] == "0"
    await berlin.staff.post(f"/api/invoices/{second}/mark-paid", {"paidAt": "2026-03-31T22:00:00Z"})
    assert (await figures(berlin))["Paid This Month"] == "1 · 50.00 EUR"
