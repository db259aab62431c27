"""Payments and refunds: the words for how money came, and the amounts that make sense."""

import pytest

from ledger.money import TOTAL_MAX
from ledger.payments.rules import (
    PAYMENT_METHOD_PHRASES,
    REFUND_STATUS_PHRASES,
    PaymentAmountRefused,
    PaymentMethod,
    RefundAmountRefused,
    RefundStatus,
    UnknownPaymentMethod,
    check_payment_amount,
    check_refund_amount,
    payment_method,
)


@pytest.mark.parametrize("word", ["manual", "bank_transfer", "cash", "card", "other"])
def test_each_published_method_is_accepted(word: str) -> None:
    assert payment_method(word) == word


def test_a_payment_without_a_method_was_recorded_by_hand() -> None:
    assert payment_method(None) is PaymentMethod.MANUAL


@pytest.mark.parametrize("word", ["", "Cash", "stripe", "cheque"])
def test_another_method_is_refused_with_the_words_that_exist(word: str) -> None:
    with pytest.raises(UnknownPaymentMethod) as refused:
        payment_method(word)
    assert str(refused.value) == "The payment method must be one of manual, bank_transfer, cash, card, other"
    assert [error.field for error in refused.value.fields] == ["method"]


def test_every_method_and_every_refund_state_has_a_phrase() -> None:
    assert set(PAYMENT_METHOD_PHRASES) == set(PaymentMethod)
    assert set(REFUND_STATUS_PHRASES) == set(RefundStatus)


@pytest.mark.parametrize(
    ("amount", "still_open"), [(5950, 5950), (1, 5950), (5949, 5950), (0, 0), (TOTAL_MAX, TOTAL_MAX)]
)
def test_a_payment_of_all_or_a_part_of_what_is_open_is_accepted(amount: int, still_open: int) -> None:
    check_payment_amount(amount_minor=amount, open_minor=still_open, currency="EUR")


@pytest.mark.parametrize(
    ("amount", "still_open"), [(5951, 5950), (59_500, 5950), (0, 5950), (-1, 5950), (1, 0), (-1, 0), (10**400, 1)]
)
def test_a_payment_of_more_than_is_open_or_of_nothing_is_refused(amount: int, still_open: int) -> None:
    with pytest.raises(PaymentAmountRefused) as refused:
        check_payment_amount(amount_minor=amount, open_minor=still_open, currency="EUR")
    assert [error.field for error in refused.value.fields] == ["amount"]


def test_the_refusal_of_a_payment_says_how_much_is_open() -> None:
    with pytest.raises(PaymentAmountRefused) as refused:
        check_payment_amount(amount_minor=59_500, open_minor=5950, currency="EUR")
    assert str(refused.value) == (
        "Only 59.50 EUR is open on this invoice, and a payment cannot be more; correct the amount"
    )


@pytest.mark.parametrize("amount", [1, 5949, 5950])
def test_a_refund_of_all_or_a_part_of_what_is_left_is_accepted(amount: int) -> None:
    check_refund_amount(amount_minor=amount, refundable_minor=5950, currency="EUR")


@pytest.mark.parametrize(("amount", "left"), [(5951, 5950), (0, 5950), (-1, 5950), (1, 0), (0, 0)])
def test_a_refund_of_more_than_is_left_or_of_nothing_is_refused(amount: int, left: int) -> None:
    with pytest.raises(RefundAmountRefused) as refused:
        check_refund_amount(amount_minor=amount, refundable_minor=left, currency="EUR")
    assert [error.field for error in refused.value.fields] == ["amount"]
