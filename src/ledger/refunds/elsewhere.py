"""Refunds as the provider has them, brought into the books: also those that were made in its own dashboard."""

from collections.abc import Sequence

from ledger.database.transaction import Tx
from ledger.invoices.store import lock_invoice
from ledger.money import format_money
from ledger.payments.looks import next_look
from ledger.providers.contract import ProviderRefused, RefundsChanged, RefundState, RemoteRefund
from ledger.refunds.actions import announce_refund, refund_entry, settle_refund
from ledger.refunds.store import KnownPayment, Refund, find_known_payment, insert_refund, list_refunds_of_payment


async def apply_refunds(tx: Tx, *, provider: str, meaning: RefundsChanged) -> bool:
    """Books a payment's refunds as they stand; returns whether it is a payment of ours. Twice changes nothing.

    Raises `ProviderRefused` while they cannot be booked: because a refund of ours is under way that would not leave
    room for them, or because they contradict the books.
    """
    payment = await find_known_payment(tx.connection, provider=provider, remote_id=meaning.payment_remote_id)
    if payment is None:
        return False
    # Everything that changes a refund holds its invoice, so what is read now is what it is compared with.
    await lock_invoice(tx.connection, invoice_id=payment.invoice_id)
    # Those that failed come first: what they held is free for others.
    for refund in sorted(meaning.refunds, key=lambda each: each.status != "failed"):
        booked = await list_refunds_of_payment(tx.connection, payment_id=payment.id)
        known = _find_booked(booked, refund)
        if known is not None and _has_nothing_to_learn(known, refund):
            continue
        _check_is_possible(payment, booked, known=known, refund=refund)
        if known is None:
            await _book(tx, payment, refund)
        else:
            state = RefundState(status=refund.status, remote_id=refund.remote_id, failure=refund.failure)
            await settle_refund(tx, refund_id=known.id, state=state)
    return True


def _find_booked(booked: Sequence[Refund], refund: RemoteRefund) -> Refund | None:
    """The row of a refund. One whose answer was not stored yet is found by the intent that the provider was told.

    A refund that names an intent of another payment, or one that is another refund already, is none of ours: what is
    written beside a refund can be copied in the provider's dashboard.
    """
    for each in booked:
        if each.provider_reference == refund.remote_id:
            return each
    intent_id = (refund.intent_id or "").lower()
    return next((each for each in booked if each.id == intent_id and each.provider_reference is None), None)


def _has_nothing_to_learn(known: Refund, refund: RemoteRefund) -> bool:
    """It stands as before, or it failed and that is final.

    Hearing again that it is on its way is no look at it, and does not put off the next one.
    """
    return known.provider_reference is not None and known.status in (refund.status, "failed")


def _check_is_possible(
    payment: KnownPayment, booked: Sequence[Refund], *, known: Refund | None, refund: RemoteRefund
) -> None:
    reported = format_money(refund.amount_minor, refund.currency)
    if refund.currency != payment.currency:
        raise ProviderRefused(
            f"The provider reports a refund of {reported} for a payment in {payment.currency}; look at it there"
        )
    if known is not None and known.amount_minor != refund.amount_minor:
        asked = format_money(known.amount_minor, known.currency)
        raise ProviderRefused(f"The provider reports {reported} for a refund of {asked}; look at it there")
    if refund.status == "failed" or (known is not None and known.status != "failed"):
        return
    others_minor = sum(each.amount_minor for each in booked if each.status != "failed")
    if others_minor + refund.amount_minor > payment.amount_minor:
        paid = format_money(payment.amount_minor, payment.currency)
        others = format_money(others_minor, payment.currency)
        raise ProviderRefused(
            f"The provider reports a refund of {reported}, but {others} of the {paid} went back already or is on its "
            "way; this is tried again, since a refund that is under way may still turn out to have failed"
        )


async def _book(tx: Tx, payment: KnownPayment, refund: RemoteRefund) -> None:
    """Stores a refund that Ledger did not ask for. It is recorded now, and settled when the provider made it."""
    is_open = refund.status == "requested"
    booked = Refund(
        id=tx.ids.new(),
        payment_id=payment.id,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        status=refund.status,
        reason=None,
        provider_reference=refund.remote_id,
        failure=refund.failure,
        created_at=tx.now,
        settled_at=None if is_open else min(refund.created_at, tx.now),
        next_look_at=next_look(now=tx.now, looks=0) if is_open else None,
        looks=0,
    )
    await insert_refund(tx.connection, refund=booked)
    # Read again, since the refund before this one may have changed its state.
    invoice = await lock_invoice(tx.connection, invoice_id=payment.invoice_id)
    if refund.status == "succeeded":
        tx.audit(refund_entry("refund.requested", invoice, booked))
    await announce_refund(tx, invoice, booked)
