"""Money that goes back through Stripe, and payments that payers dispute at their bank."""

from typing import TYPE_CHECKING

import msgspec

from ledger.providers.contract import (
    DisputeChanged,
    OutcomeUnknown,
    RefundsChanged,
    RefundState,
    RemoteRefund,
    WantedRefund,
)
from ledger.providers.stripe_amounts import from_stripe_amount, to_stripe_amount
from ledger.providers.stripe_calls import Calls, Listed, NotKnown
from ledger.providers.stripe_payloads import Identified, Refund, id_of, refund_state_of, time_of

if TYPE_CHECKING:
    from stripe.params import RefundListParams


async def refund(calls: Calls, wanted: WantedRefund) -> RefundState:
    """See `Provider.refund`. The reason stays in Ledger: it is free text that may name people."""
    amount = to_stripe_amount(wanted.amount_minor, wanted.currency)
    made = await calls.ask(
        lambda: calls.v1.refunds.create_async(
            {
                "payment_intent": wanted.payment_remote_id,
                "amount": amount,
                "metadata": {"intent_id": wanted.intent_id},
            },
            {"idempotency_key": f"ledger-refund-{wanted.intent_id}"},
        ),
        Refund,
        doubt=OutcomeUnknown,
    )
    return refund_state_of(made)


async def look_up_refund(calls: Calls, wanted: WantedRefund, *, remote_id: str | None) -> RefundState:
    """See `Provider.look_up_refund`."""
    found: Refund | None
    try:
        if remote_id is not None:
            found = await calls.ask(lambda: calls.v1.refunds.retrieve_async(remote_id), Refund)
        else:
            params: RefundListParams = {"payment_intent": wanted.payment_remote_id}
            found = await calls.find(
                calls.v1.refunds.list_async,
                params,
                Listed[Refund],
                lambda one: (one.metadata or {}).get("intent_id") == wanted.intent_id,
            )
    except NotKnown:
        found = None
    return refund_state_of(found) if found else RefundState(status="unknown")


async def refunds_of(calls: Calls, payment_remote_id: str) -> RefundsChanged:
    """All refunds of a payment as they stand now, oldest first."""
    params: RefundListParams = {"payment_intent": payment_remote_id}
    found = await calls.list_all(calls.v1.refunds.list_async, params, Listed[Refund])
    refunds = tuple(_remote_refund(one) for one in reversed(found))
    return RefundsChanged(payment_remote_id=payment_remote_id, refunds=refunds)


def _remote_refund(refund: Refund) -> RemoteRefund:
    amount_minor, currency = from_stripe_amount(refund.amount, refund.currency)
    state = refund_state_of(refund)
    return RemoteRefund(
        remote_id=refund.id,
        amount_minor=amount_minor,
        currency=currency,
        status="requested" if state.status == "unknown" else state.status,
        failure=state.failure,
        created_at=time_of(refund.created),
        intent_id=(refund.metadata or {}).get("intent_id"),
    )


# Disputes


class _EvidenceDetails(msgspec.Struct, frozen=True, kw_only=True):
    due_by: int | None = None


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A payer who wants money back from their bank. What begins with `warning_` is only an inquiry of the bank."""

    id: str
    amount: int = 0
    currency: str = ""
    created: int = 0
    reason: str | None = None
    status: str | None = None
    payment_intent: str | Identified | None = None
    evidence_details: _EvidenceDetails | None = None


_REASONS = {
    "bank_cannot_process": "The payer's bank cannot work on the payment",
    "check_returned": "The check was returned",
    "credit_not_processed": "The payer was promised money back and did not get it",
    "customer_initiated": "The payer took the direct debit back",
    "debit_not_authorized": "The payer says the direct debit was not allowed",
    "duplicate": "The payer says this was paid twice",
    "fraudulent": "The payer says somebody else used the card",
    "incorrect_account_details": "The account the money was taken from is wrong",
    "insufficient_funds": "The account the money was taken from did not cover it",
    "noncompliant": "The payment broke a rule of the card network",
    "product_not_received": "The payer says nothing was delivered",
    "product_unacceptable": "The payer says what was delivered is not as described",
    "subscription_canceled": "The payer says the subscription had been cancelled",
    "unrecognized": "The payer does not recognise the payment",
}


async def look_up_dispute(calls: Calls, remote_id: str) -> DisputeChanged | None:
    """A dispute as it stands now; None when it is about no payment that Ledger could know."""
    dispute = await calls.ask(lambda: calls.v1.disputes.retrieve_async(remote_id), Dispute)
    payment = id_of(dispute.payment_intent)
    if payment is None:
        return None
    amount_minor, currency = from_stripe_amount(dispute.amount, dispute.currency)
    due_by = dispute.evidence_details.due_by if dispute.evidence_details else None
    changed = DisputeChanged(
        payment_remote_id=payment,
        remote_id=dispute.id,
        amount_minor=amount_minor,
        currency=currency,
        reason=_REASONS.get(dispute.reason or "", "The payer's bank gives no particular reason"),
        status="under_review",
        respond_by=None,
        created_at=time_of(dispute.created),
    )
    match dispute.status:
        case "needs_response" | "warning_needs_response" | "appeal_needs_response":
            # The deadline is 0 where the bank takes no answer.
            respond_by = time_of(due_by) if due_by else None
            return msgspec.structs.replace(changed, status="needs_response", respond_by=respond_by)
        # A closed inquiry, a prevented dispute and one that ended with a refund take no money beyond that.
        case "won" | "warning_closed" | "prevented" | "charge_refunded":
            return msgspec.structs.replace(changed, status="won")
        case "lost":
            return msgspec.structs.replace(changed, status="lost")
    return changed
