"""Payments and refunds: how money is said to have arrived, and which amounts make sense.

Amounts are integers in minor units. Nothing here is read or stored. These rules are about what people enter; money
that a provider announces is a fact and is recorded whatever its amount.
"""

from collections.abc import Mapping
from enum import StrEnum

from ledger.errors import BadRequest, FieldError
from ledger.money import format_money


class PaymentMethod(StrEnum):
    """How money arrived that staff or a service records; `PAYMENT_METHOD_PHRASES` says what each means."""

    MANUAL = "manual"
    BANK_TRANSFER = "bank_transfer"
    CASH = "cash"
    CARD = "card"
    OTHER = "other"


PAYMENT_METHOD_PHRASES: Mapping[PaymentMethod, str] = {
    PaymentMethod.MANUAL: "recorded by hand, without saying how it came",
    PaymentMethod.BANK_TRANSFER: "transferred to a bank account",
    PaymentMethod.CASH: "handed over in cash",
    PaymentMethod.CARD: "paid by card outside Ledger, at a terminal for example",
    PaymentMethod.OTHER: "none of the others; the reference should say how",
}


class RefundStatus(StrEnum):
    """The states of a refund; `REFUND_STATUS_PHRASES` says what each means."""

    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


REFUND_STATUS_PHRASES: Mapping[RefundStatus, str] = {
    RefundStatus.REQUESTED: "asked of the provider, whose answer is not known yet; the amount is reserved",
    RefundStatus.SUCCEEDED: "the provider said that the money went back",
    RefundStatus.FAILED: "the provider refused; the amount can be refunded again",
}


class UnknownPaymentMethod(BadRequest):
    """The word is not one of the payment methods."""


class PaymentAmountRefused(BadRequest):
    """The amount cannot be a payment of this invoice."""


class RefundAmountRefused(BadRequest):
    """The amount cannot be refunded from this payment."""


def payment_method(word: str | None) -> PaymentMethod:
    """Returns the method a body names, `manual` when it names none. Raises `UnknownPaymentMethod`."""
    if word is None:
        return PaymentMethod.MANUAL
    try:
        return PaymentMethod(word)
    except ValueError:
        sentence = f"The payment method must be one of {', '.join(PaymentMethod)}"
        raise UnknownPaymentMethod(sentence, fields=[FieldError("method", sentence)]) from None


def check_payment_amount(*, amount_minor: int, open_minor: int, currency: str) -> None:
    """Accepts an amount somebody records as paid: all that is open or a part of it.

    `open_minor` is `invoices.rules.open_minor`; it is 0 only for an invoice over 0, which a payment of 0 settles.
    More than is open is refused: it is nearly always a slip (595.00 for 59.50), and a wrong payment cannot be taken
    back. It follows that no amount exceeds `money.TOTAL_MAX`.
    Raises `PaymentAmountRefused`.
    """
    if open_minor == 0:
        if amount_minor != 0:
            raise _payment_refused("Nothing is open on this invoice; leave the amount out or record 0")
        return
    if amount_minor <= 0:
        raise _payment_refused("The amount of a payment must be more than 0 minor units")
    if amount_minor > open_minor:
        raise _payment_refused(
            f"Only {format_money(open_minor, currency)} is open on this invoice, and a payment cannot be more; "
            "correct the amount"
        )


def check_refund_amount(*, amount_minor: int, refundable_minor: int, currency: str) -> None:
    """Accepts an amount to refund: all that is left of the payment or a part of it.

    `refundable_minor` is the payment less all its refunds that succeeded or are still requested.
    Raises `RefundAmountRefused`.
    """
    if refundable_minor <= 0:
        raise _refund_refused("Nothing is left to refund of this payment")
    if amount_minor <= 0:
        raise _refund_refused("The amount of a refund must be more than 0 minor units")
    if amount_minor > refundable_minor:
        raise _refund_refused(
            f"Only {format_money(refundable_minor, currency)} is left to refund of this payment; correct the amount"
        )


def _payment_refused(sentence: str) -> PaymentAmountRefused:
    return PaymentAmountRefused(sentence, fields=[FieldError("amount", sentence)])


def _refund_refused(sentence: str) -> RefundAmountRefused:
    return RefundAmountRefused(sentence, fields=[FieldError("amount", sentence)])
