"""States: which facts make which state, what may be done in each, and the numbers of invoices."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest

from ledger.errors import RuleBroken
from ledger.invoices.rules import (
    INVOICE_STATUS_PHRASES,
    CannotCancelPaidInvoice,
    InvoiceAlreadyCancelled,
    InvoiceAlreadyPaid,
    InvoiceCannotBeMarkedPaid,
    InvoiceNotPayable,
    InvoiceStatus,
    OnlyPaidInvoicesRefundable,
    available_actions,
    check_can_cancel,
    check_can_mark_paid,
    check_can_pay,
    check_can_refund,
    invoice_number,
    invoice_series,
    invoice_status,
    is_overdue,
    issue_year,
    open_minor,
)

PENDING, PAID, FAILED, CANCELLED, REFUNDED = InvoiceStatus

DUE = datetime(2026, 5, 1, 18, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def status(
    *payments_minor: int, total: int = 100, refunded: int = 0, cancelled: bool = False, failed: bool = False
) -> InvoiceStatus:
    return invoice_status(
        total_minor=total,
        payments_minor=payments_minor,
        refunded_minor=refunded,
        is_cancelled=cancelled,
        last_attempt_failed=failed,
    )


def refusal(check: Callable[[], None]) -> RuleBroken | None:
    """The rule that a check says is broken, or None when it passes."""
    try:
        check()
    except RuleBroken as broken:
        return broken
    return None


# The state that follows from the facts


def test_a_new_invoice_is_pending() -> None:
    assert status() is PENDING


def test_an_invoice_is_paid_when_the_whole_total_arrived() -> None:
    assert status(100) is PAID
    assert status(60, 40) is PAID


def test_a_partly_paid_invoice_stays_pending() -> None:
    assert status(99) is PENDING


def test_too_much_money_is_paid_too() -> None:
    assert status(150) is PAID
    assert status(100, 100) is PAID


def test_an_invoice_over_nothing_is_pending_until_a_payment_of_nothing_is_recorded() -> None:
    assert status(total=0) is PENDING
    assert status(0, total=0) is PAID


def test_a_partly_refunded_invoice_stays_paid() -> None:
    assert status(100, refunded=99) is PAID
    assert status(60, 40, refunded=60) is PAID


def test_an_invoice_is_refunded_when_everything_that_arrived_went_back() -> None:
    assert status(100, refunded=100) is REFUNDED
    assert status(60, 40, refunded=100) is REFUNDED


def test_giving_back_the_second_payment_of_an_invoice_paid_twice_leaves_it_paid() -> None:
    assert status(100, 100, refunded=100) is PAID
    assert status(100, 100, refunded=200) is REFUNDED


def test_an_attempt_that_failed_makes_an_unpaid_invoice_failed() -> None:
    assert status(failed=True) is FAILED


def test_a_new_attempt_makes_a_failed_invoice_pending_again() -> None:
    assert status(failed=False) is PENDING


def test_an_attempt_that_failed_after_the_money_arrived_changes_nothing() -> None:
    assert status(100, failed=True) is PAID
    assert status(100, refunded=100, failed=True) is REFUNDED


def test_a_partly_paid_invoice_stays_pending_when_the_next_attempt_fails() -> None:
    assert status(60, failed=True) is PENDING


def test_a_cancelled_invoice_stays_cancelled_whatever_money_arrives() -> None:
    assert status(cancelled=True) is CANCELLED
    assert status(100, cancelled=True) is CANCELLED
    assert status(100, refunded=100, cancelled=True) is CANCELLED
    assert status(failed=True, cancelled=True) is CANCELLED


def test_every_combination_of_facts_has_the_state_the_domain_gives_it() -> None:
    """The rule once more, as the sentences of the domain say it, over every combination of small amounts."""
    amounts = (0, 1, 2, 3)
    payments = [(), *((one,) for one in amounts), *product(amounts, repeat=2)]
    flags = (False, True)
    for total, paid, refunded, cancelled, failed in product(amounts, payments, range(7), flags, flags):
        if refunded > sum(paid):
            continue
        whole_total_arrived = len(paid) > 0 and sum(paid) >= total
        expected = {
            CANCELLED: cancelled,
            REFUNDED: not cancelled and whole_total_arrived and refunded == sum(paid) > 0,
            PAID: not cancelled and whole_total_arrived and not refunded == sum(paid) > 0,
            FAILED: not cancelled and not whole_total_arrived and failed and refunded == sum(paid),
            PENDING: not cancelled and not whole_total_arrived and not (failed and refunded == sum(paid)),
        }
        assert sum(expected.values()) == 1
        found = status(*paid, total=total, refunded=refunded, cancelled=cancelled, failed=failed)
        assert expected[found], (total, paid, refunded, cancelled, failed)


def test_every_state_has_a_phrase() -> None:
    assert set(INVOICE_STATUS_PHRASES) == set(InvoiceStatus)
    assert all(INVOICE_STATUS_PHRASES.values())


def test_states_are_the_published_words() -> None:
    assert [str(state) for state in InvoiceStatus] == ["pending", "paid", "failed", "cancelled", "refunded"]


# What is open, and since when


@pytest.mark.parametrize(
    ("state", "paid", "refunded", "still_open"),
    [
        (PENDING, 0, 0, 100),
        (PENDING, 60, 0, 40),
        (PENDING, 60, 60, 100),
        (FAILED, 0, 0, 100),
        (PAID, 100, 0, 0),
        (PAID, 100, 30, 0),
        (PAID, 150, 0, 0),
        (REFUNDED, 100, 100, 0),
        (CANCELLED, 0, 0, 0),
        (CANCELLED, 60, 0, 0),
    ],
)
def test_what_is_open_is_the_total_less_what_is_held_while_it_is_owed(
    state: InvoiceStatus, paid: int, refunded: int, still_open: int
) -> None:
    assert open_minor(status=state, total_minor=100, paid_minor=paid, refunded_minor=refunded) == still_open


@pytest.mark.parametrize("state", InvoiceStatus)
def test_only_a_pending_invoice_is_overdue_once_its_due_date_is_past(state: InvoiceStatus) -> None:
    assert is_overdue(state, DUE, DUE + SECOND) is (state is PENDING)
    assert not is_overdue(state, DUE, DUE)
    assert not is_overdue(state, DUE, DUE - SECOND)
    assert not is_overdue(state, None, DUE + SECOND)


def test_a_due_date_without_a_time_lasts_the_whole_day() -> None:
    midnight = datetime(2026, 5, 1, tzinfo=UTC)
    for due in (midnight, midnight.astimezone(ZoneInfo("Europe/Berlin"))):
        assert not is_overdue(PENDING, due, midnight + timedelta(hours=23, minutes=59, seconds=59))
        assert is_overdue(PENDING, due, midnight + timedelta(days=1))
    assert not is_overdue(PENDING, datetime(9999, 12, 31, tzinfo=UTC), midnight)


# What may be done in which state


@pytest.mark.parametrize(
    ("state", "mark_paid", "cancel", "pay", "refund"),
    [
        (PENDING, None, None, None, OnlyPaidInvoicesRefundable),
        (FAILED, None, None, None, OnlyPaidInvoicesRefundable),
        (PAID, InvoiceAlreadyPaid, CannotCancelPaidInvoice, InvoiceNotPayable, None),
        (
            CANCELLED,
            InvoiceCannotBeMarkedPaid,
            InvoiceAlreadyCancelled,
            InvoiceNotPayable,
            OnlyPaidInvoicesRefundable,
        ),
        (
            REFUNDED,
            InvoiceCannotBeMarkedPaid,
            CannotCancelPaidInvoice,
            InvoiceNotPayable,
            OnlyPaidInvoicesRefundable,
        ),
    ],
)
def test_each_state_allows_what_the_table_says(
    state: InvoiceStatus,
    mark_paid: type[RuleBroken] | None,
    cancel: type[RuleBroken] | None,
    pay: type[RuleBroken] | None,
    refund: type[RuleBroken] | None,
) -> None:
    broken = [
        refusal(lambda: check_can_mark_paid(state)),
        refusal(lambda: check_can_cancel(state, held_minor=0)),
        refusal(lambda: check_can_pay(state)),
        refusal(lambda: check_can_refund(state, held_minor=0)),
    ]
    assert [None if rule is None else type(rule) for rule in broken] == [mark_paid, cancel, pay, refund]


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (lambda: check_can_mark_paid(PAID), "Invoice is already paid"),
        (
            lambda: check_can_mark_paid(CANCELLED),
            "A cancelled invoice cannot be marked as paid; create a new invoice instead",
        ),
        (
            lambda: check_can_mark_paid(REFUNDED),
            "A refunded invoice cannot be marked as paid; create a new invoice instead",
        ),
        (lambda: check_can_cancel(PAID, held_minor=100), "Cannot cancel a paid invoice"),
        (lambda: check_can_cancel(CANCELLED, held_minor=0), "Invoice is already cancelled"),
        (
            lambda: check_can_cancel(REFUNDED, held_minor=0),
            "Cannot cancel a refunded invoice; it is closed already",
        ),
        (
            lambda: check_can_cancel(PENDING, held_minor=1),
            "Cannot cancel a partly paid invoice, since money came for it; collect the rest and mark it as paid",
        ),
        (lambda: check_can_pay(CANCELLED), "Invoice is not payable"),
        (lambda: check_can_refund(PENDING, held_minor=5000), "Only paid invoices can be refunded"),
    ],
)
def test_a_refusal_is_the_published_sentence_or_says_what_to_do(check: Callable[[], None], sentence: str) -> None:
    broken = refusal(check)
    assert broken is not None
    assert str(broken) == sentence
    assert broken.status == 400


@pytest.mark.parametrize("state", [PENDING, FAILED])
def test_a_partly_paid_invoice_can_be_cancelled_only_after_the_money_went_back(state: InvoiceStatus) -> None:
    with pytest.raises(CannotCancelPaidInvoice):
        check_can_cancel(state, held_minor=60)
    check_can_cancel(state, held_minor=0)


@pytest.mark.parametrize("provider_can_refund", [False, True])
@pytest.mark.parametrize("held_minor", [0, 60, 100])
@pytest.mark.parametrize("state", InvoiceStatus)
def test_a_button_is_offered_exactly_when_its_action_would_be_allowed(
    state: InvoiceStatus, held_minor: int, provider_can_refund: bool
) -> None:
    offered = available_actions(state, held_minor=held_minor, provider_can_refund=provider_can_refund)
    assert ("mark-paid" in offered) is (refusal(lambda: check_can_mark_paid(state)) is None)
    assert ("cancel" in offered) is (refusal(lambda: check_can_cancel(state, held_minor=held_minor)) is None)
    assert ("refund" in offered) is (
        refusal(lambda: check_can_refund(state, held_minor=held_minor)) is None and provider_can_refund
    )
    assert set(offered) <= {"mark-paid", "cancel", "refund"}


def test_the_buttons_are_the_published_ones() -> None:
    assert available_actions(PENDING, held_minor=0, provider_can_refund=True) == ("mark-paid", "cancel")
    assert available_actions(FAILED, held_minor=0, provider_can_refund=True) == ("mark-paid", "cancel")
    assert available_actions(PENDING, held_minor=60, provider_can_refund=True) == ("mark-paid",)
    assert available_actions(PAID, held_minor=100, provider_can_refund=True) == ("refund",)
    assert available_actions(PAID, held_minor=100, provider_can_refund=False) == ()
    assert available_actions(CANCELLED, held_minor=0, provider_can_refund=True) == ()
    assert available_actions(REFUNDED, held_minor=0, provider_can_refund=True) == ()


# Numbers


def test_a_number_has_its_year_and_at_least_four_digits() -> None:
    assert invoice_series(2026) == "INV-2026"
    assert invoice_number(2026, 1) == "INV-2026-0001"
    assert invoice_number(2026, 9999) == "INV-2026-9999"
    assert invoice_number(2026, 10_000) == "INV-2026-10000"


def test_numbers_start_at_one() -> None:
    with pytest.raises(ValueError, match="start at 1"):
        invoice_number(2026, 0)


@pytest.mark.parametrize(
    ("zone", "year"),
    [("UTC", 2026), ("Europe/Berlin", 2027), ("America/New_York", 2026), ("Pacific/Kiritimati", 2027)],
)
def test_the_year_of_issue_is_the_one_where_the_books_are_kept(zone: str, year: int) -> None:
    assert issue_year(datetime(2026, 12, 31, 23, 30, tzinfo=UTC), ZoneInfo(zone)) == year


def test_a_time_without_a_zone_has_no_year_of_issue() -> None:
    with pytest.raises(ValueError, match="zone"):
        issue_year(datetime(2026, 12, 31), ZoneInfo("UTC"))  # noqa: DTZ001 (that is the point)
