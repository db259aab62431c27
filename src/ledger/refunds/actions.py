"""Sends money back: intent stored, provider asked outside any transaction, outcome stored.

What is not known stays `requested`, with its amount reserved, until the reconciler has asked the provider.
"""

import uuid
from collections.abc import Sequence

import msgspec

from ledger.database.transaction import AuditEntry, Database, NewJob, Tx
from ledger.errors import BadRequest, LedgerError, RuleBroken
from ledger.identity import Caller
from ledger.invoices.actions import invoice_event, refresh_invoice
from ledger.invoices.rules import check_can_refund
from ledger.invoices.store import Invoice, lock_invoice
from ledger.payments.looks import next_look
from ledger.payments.refundable import RefundablePayment, can_refund, list_refundable
from ledger.payments.rules import check_refund_amount
from ledger.providers.connections import Connections
from ledger.providers.contract import (
    OutcomeUnknown,
    ProviderRefused,
    ProviderUnreachable,
    RefundState,
    WantedRefund,
)
from ledger.refunds.store import (
    Refund,
    find_refunds,
    get_refunded_payment,
    insert_refund,
    lock_refund,
    update_refund,
)
from ledger.web.idempotency import Claim, caller_text, claim_resumable

SETTLE_JOB = "refunds.settle"
# One refund of an invoice can draw on several payments; more than this is not one treasurer's click.
PARTS_MAX = 20
ATTEMPTS_MAX = 50
_NAMESPACE = uuid.UUID("6a1f1f0e-8f6e-5d5b-9a55-0d5d4c1c9f3a")


class NotRefundableByProvider(RuleBroken):
    """The money was not taken by a provider that can send it back."""


async def request_refund(
    database: Database,
    connections: Connections,
    *,
    caller: Caller,
    claim: Claim | None,
    invoice_id: str,
    amount_minor: int | None,
    reason: str | None,
) -> Sequence[Refund]:
    """Refunds an amount (without one, all that is left) and returns the refunds made for it.

    Raises `NotFound`, `OnlyPaidInvoicesRefundable`, `NotRefundableByProvider`, `RefundAmountRefused`,
    `ProviderRefused`, `ProviderUnreachable`, `OutcomeUnknown`, `Replay`, `IdempotencyKeyReused`.
    """
    async with database.transaction_of(caller) as tx:
        ids: Sequence[str] = [tx.ids.new() for _ in range(PARTS_MAX)]
        wanted: Sequence[Refund] = []
        if claim is not None:
            await claim_resumable(tx.connection, actor=tx.actor, claim=claim, now=tx.now)
            ids, wanted = await _taken_up(tx, claim)
        if not wanted:
            wanted = await _store_wish(
                tx, connections, invoice_id=invoice_id, amount_minor=amount_minor, reason=reason, ids=ids
            )
    return [await _send(database, connections, refund) for refund in wanted]


async def _taken_up(tx: Tx, claim: Claim) -> tuple[Sequence[str], Sequence[Refund]]:
    """The refunds an equal request made before it crashed, or ids for new ones.

    The same key names the same refunds. Those that failed had no effect, so the request may be made again.
    """
    seed = f"{caller_text(tx.actor)}|{claim.operation}|{claim.key}"
    for attempt in range(ATTEMPTS_MAX):
        ids = [str(uuid.uuid5(_NAMESPACE, f"{seed}|{attempt}|{part}")) for part in range(PARTS_MAX)]
        found = await find_refunds(tx.connection, refund_ids=ids)
        if not found:
            return ids, []
        if any(refund.status != "failed" for refund in found):
            return ids, found
    raise BadRequest("This Idempotency-Key was used too often; take a new key")


async def _store_wish(
    tx: Tx,
    connections: Connections,
    *,
    invoice_id: str,
    amount_minor: int | None,
    reason: str | None,
    ids: Sequence[str],
) -> list[Refund]:
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    check_can_refund(invoice.status)
    payments = await list_refundable(tx.connection, invoice_id=invoice.id)
    possible = [payment for payment in payments if can_refund(connections, payment)]
    if not possible:
        raise NotRefundableByProvider(
            "This payment was recorded by hand, so Ledger cannot send it back; return the money the way it came"
        )
    left_minor = sum(payment.left_minor for payment in possible)
    total_minor = left_minor if amount_minor is None else amount_minor
    check_refund_amount(amount_minor=total_minor, refundable_minor=left_minor, currency=invoice.currency)
    refunds: list[Refund] = []
    for payment in possible:
        part_minor = min(payment.left_minor, total_minor)
        if part_minor > 0 and len(refunds) < PARTS_MAX:
            refunds.append(_wish(tx, payment, amount_minor=part_minor, reason=reason, refund_id=ids[len(refunds)]))
            total_minor -= part_minor
    if total_minor > 0:
        raise BadRequest("This invoice was paid in too many parts to refund at once; refund a smaller amount first")
    for refund in refunds:
        await insert_refund(tx.connection, refund=refund)
        tx.audit(_entry("refund.requested", invoice, refund))
        tx.defer(NewJob(name=SETTLE_JOB, payload=refund.id.encode(), delay=next_look(now=tx.now, looks=0) - tx.now))
    return refunds


def _wish(tx: Tx, payment: RefundablePayment, *, amount_minor: int, reason: str | None, refund_id: str) -> Refund:
    return Refund(
        id=refund_id,
        payment_id=payment.id,
        amount_minor=amount_minor,
        currency=payment.currency,
        status="requested",
        reason=reason,
        provider_reference=None,
        failure=None,
        created_at=tx.now,
        settled_at=None,
        next_look_at=next_look(now=tx.now, looks=0),
        looks=0,
    )


async def _send(database: Database, connections: Connections, refund: Refund) -> Refund:
    """Asks the provider and stores its answer; an answer that is not known leaves the refund to the reconciler."""
    if refund.status != "requested":
        return refund
    async with database.connection() as connection:
        _, payment = await get_refunded_payment(connection, refund_id=refund.id)
        assert payment.connection_id is not None
        connected = await connections.get(connection, connection_id=payment.connection_id)
    failure: LedgerError | None = None
    try:
        state = await connected.provider.refund(wanted_refund(refund, payment))
    except OutcomeUnknown:
        raise
    except (ProviderRefused, ProviderUnreachable) as error:
        # Nothing happened there, so the amount is free again.
        state = RefundState(status="failed", failure=error.sentence)
        failure = error
    async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
        settled = await settle_refund(tx, refund_id=refund.id, state=state)
    if failure is not None:
        raise failure
    if settled.status == "failed":
        raise ProviderRefused(f"The refund was refused: {settled.failure or 'the provider gave no reason'}")
    return settled


def wanted_refund(refund: Refund, payment: RefundablePayment) -> WantedRefund:
    """What the provider is asked for; the same refund is always asked for in the same words."""
    assert payment.provider_reference is not None
    return WantedRefund(
        intent_id=refund.id,
        payment_remote_id=payment.provider_reference,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
    )


async def settle_refund(tx: Tx, *, refund_id: str, state: RefundState) -> Refund:
    """Stores where a refund stands, and what follows for its invoice. Settling twice changes nothing."""
    invoice_id, _ = await get_refunded_payment(tx.connection, refund_id=refund_id)
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    before = await lock_refund(tx.connection, refund_id=refund_id)
    after = msgspec.structs.replace(before, provider_reference=state.remote_id or before.provider_reference)
    if state.status in ("succeeded", "failed") and before.status != state.status:
        after = msgspec.structs.replace(
            after, status=state.status, failure=state.failure, settled_at=tx.now, next_look_at=None
        )
    elif before.status == "requested":
        after = msgspec.structs.replace(
            after, looks=before.looks + 1, next_look_at=next_look(now=tx.now, looks=before.looks + 1)
        )
    if after == before:
        return before
    await update_refund(tx.connection, refund=after)
    if after.status == before.status:
        return after
    changed = await refresh_invoice(tx, invoice)
    if after.status == "succeeded":
        tx.audit(_entry("invoice.refunded", invoice, after))
        tx.publish(invoice_event("invoice.refunded", changed, amount_minor=after.amount_minor))
    else:
        tx.audit(_entry("refund.failed", invoice, after))
    return after


def _entry(action: str, invoice: Invoice, refund: Refund) -> AuditEntry:
    return AuditEntry(
        action=action,
        entity_type="invoice",
        entity_id=invoice.id,
        details={
            "number": invoice.number,
            "refund": refund.id,
            "amount": refund.amount_minor,
            "currency": refund.currency,
        },
    )
