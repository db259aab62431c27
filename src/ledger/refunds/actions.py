"""Sends money back: intent stored, provider asked outside any transaction, outcome stored.

What is not known stays `requested`, with its amount reserved, until the reconciler has asked the provider.
"""

import uuid
from collections.abc import Awaitable, Sequence
from datetime import datetime

import msgspec

from ledger.database.transaction import AuditEntry, Database, NewJob, Tx
from ledger.errors import BadRequest, Conflict, LedgerError, ProviderFailed, RuleBroken
from ledger.identity import Caller
from ledger.invoices.actions import MANUAL_PROVIDER, invoice_event, refresh_invoice
from ledger.invoices.rules import check_can_refund
from ledger.invoices.store import Invoice, lock_invoice
from ledger.money import format_money
from ledger.payments.looks import next_look
from ledger.payments.refundable import RefundablePayment, can_refund, list_refundable
from ledger.payments.rules import check_refund_amount
from ledger.providers.connections import Connected, Connections
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
    get_refund,
    get_refunded_payment,
    insert_refund,
    lock_refund,
    sum_requested,
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


class PartlyRefunded(ProviderFailed):
    """An invoice was paid in several parts, and some of them went back while others did not (502)."""


class RefundUnderWay(Conflict):
    """Whether an earlier refund of this invoice went out is not known yet (409)."""


async def request_refund(
    database: Database,
    connections: Connections,
    *,
    caller: Caller,
    claim: Claim | None,
    invoice_id: str,
    amount_minor: int | None,
    reason: str | None,
) -> None:
    """Refunds an amount (without one, all that is left); each payment it draws on has a refund of its own.

    Raises `NotFound`, `OnlyPaidInvoicesRefundable`, `NotRefundableByProvider`, `RefundAmountRefused`,
    `RefundUnderWay`, `ProviderRefused`, `ProviderUnreachable`, `OutcomeUnknown`, `PartlyRefunded`, `Replay`,
    `IdempotencyKeyReused`.
    """
    async with database.transaction_of(caller) as tx:
        ids: Sequence[str] = [tx.ids.new() for _ in range(PARTS_MAX)]
        taken_up: Sequence[Refund] = []
        if claim is not None:
            claimed_at = await claim_resumable(tx.connection, actor=tx.actor, claim=claim, now=tx.now)
            ids, taken_up = await _taken_up(tx, claim, claimed_at=claimed_at)
        wanted: Sequence[Refund] = []
        if not taken_up:
            wanted = await _store_wish(
                tx,
                connections,
                invoice_id=invoice_id,
                amount_minor=amount_minor,
                reason=reason,
                ids=ids,
                has_key=claim is not None,
            )
    if taken_up:
        outcomes = [await _outcome(_take_up(database, connections, refund)) for refund in taken_up]
    else:
        # Every part is sent, also after one that was refused: none may go out later behind staff's back.
        outcomes = [await _outcome(_send(database, connections, refund)) for refund in wanted]
    faults = [outcome for outcome in outcomes if outcome is not None]
    if not faults:
        return
    if len(faults) < len(outcomes):
        raise PartlyRefunded(
            "Only a part of this refund went out; look at the invoice for what went back, and why the rest did not: "
            f"{faults[0].sentence}",
            retry_after_s=60,
        )
    raise faults[0]


async def _outcome(work: Awaitable[None]) -> LedgerError | None:
    try:
        await work
    except LedgerError as fault:
        return fault
    return None


async def _taken_up(tx: Tx, claim: Claim, *, claimed_at: datetime) -> tuple[Sequence[str], Sequence[Refund]]:
    """The refunds an equal request made before it crashed, or ids for new ones.

    The same key, for as long as its record is kept, names the same refunds. Those that failed had no effect, so the
    request may be made again.
    """
    seed = f"{caller_text(tx.actor)}|{claim.operation}|{claim.key}|{claimed_at.isoformat()}"
    for attempt in range(ATTEMPTS_MAX):
        ids = [str(uuid.uuid5(_NAMESPACE, f"{seed}|{attempt}|{part}")) for part in range(PARTS_MAX)]
        found = await find_refunds(tx.connection, refund_ids=ids)
        if not found:
            return ids, []
        if any(refund.status != "failed" for refund in found):
            return ids, found
    raise BadRequest("This Idempotency-Key was used too often; take a new key")


async def _take_up(database: Database, connections: Connections, refund: Refund) -> None:
    """Goes on with a refund of an earlier request: the provider is asked first, since it may have gone out."""
    if refund.status == "requested":
        refund = await look_at_refund(database, connections, refund_id=refund.id)
    if refund.status == "failed":
        raise ProviderRefused(f"The refund was refused: {refund.failure or 'the provider gave no reason'}")
    if refund.status == "requested":
        raise OutcomeUnknown("Whether this refund went out is not known yet; ask again in a minute", retry_after_s=60)


async def _store_wish(
    tx: Tx,
    connections: Connections,
    *,
    invoice_id: str,
    amount_minor: int | None,
    reason: str | None,
    ids: Sequence[str],
    has_key: bool,
) -> list[Refund]:
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    payments = await list_refundable(tx.connection, invoice_id=invoice.id)
    held_minor = sum(payment.left_minor for payment in payments)
    check_can_refund(invoice.status, held_minor=held_minor)
    under_way_minor = await sum_requested(tx.connection, invoice_id=invoice.id)
    if under_way_minor and not has_key:
        # Somebody pressing again after "not known in time" must not send the same money twice.
        raise RefundUnderWay(
            f"A refund of {format_money(under_way_minor, invoice.currency)} is not confirmed by the provider yet; "
            "look at the invoice again in two minutes",
            retry_after_s=120,
        )
    possible = [payment for payment in payments if can_refund(connections, payment)]
    if not possible:
        if all(payment.provider == MANUAL_PROVIDER for payment in payments):
            raise NotRefundableByProvider(
                "This payment was recorded by hand, so Ledger cannot send it back; return the money the way it came"
            )
        raise NotRefundableByProvider(
            "This invoice was settled from credit or outside of the provider, so there is no payment to send back"
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
        tx.audit(refund_entry("refund.requested", invoice, refund))
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


async def _send(database: Database, connections: Connections, refund: Refund) -> None:
    """Asks the provider for a refund that was just stored, and stores its answer.

    Because nobody asked before, a refusal or a provider out of reach means that nothing happened: the amount is free
    again. An answer that is not known leaves the refund to the reconciler.
    """
    payment, connected = await _payment_of(database, connections, refund)
    failure: LedgerError | None = None
    try:
        state = await connected.provider.refund(wanted_refund(refund, payment))
    except OutcomeUnknown:
        raise
    except (ProviderRefused, ProviderUnreachable) as error:
        state = RefundState(status="failed", failure=error.sentence)
        failure = error
    async with database.transaction_by(kind="provider", name=connected.type.name) as tx:
        # Another request with the same key may have heard more meanwhile; what it stored stays.
        settled = await settle_refund(tx, refund_id=refund.id, state=state, only_if_requested=failure is not None)
    if failure is not None:
        raise failure
    if settled.status == "failed":
        raise ProviderRefused(f"The refund was refused: {settled.failure or 'the provider gave no reason'}")


async def look_at_refund(database: Database, connections: Connections, *, refund_id: str) -> Refund:
    """Asks where one refund stands and stores it. One the provider never heard of is sent again.

    Raises what keeps the provider from answering; the refund stays `requested` then, and the next look comes later.
    """
    async with database.connection() as connection:
        refund = await get_refund(connection, refund_id=refund_id)
    if refund.status != "requested":
        return refund
    payment, connected = await _payment_of(database, connections, refund)
    wanted = wanted_refund(refund, payment)
    try:
        state = await connected.provider.look_up_refund(wanted, remote_id=refund.provider_reference)
        if state.status == "unknown":
            if refund.provider_reference is not None:
                raise ProviderRefused("The provider does not know this refund any more; was the account changed?")
            state = await _send_again(connected, wanted)
    except LedgerError as error:
        await _postpone(database, refund_id=refund_id, error=error)
        raise
    async with database.transaction_by(kind="system", name=SETTLE_JOB) as tx:
        return await settle_refund(tx, refund_id=refund_id, state=state)


async def _send_again(connected: Connected, wanted: WantedRefund) -> RefundState:
    """Staff wanted it, and the same intent has its effect once: so it is done now, or it is known that it cannot be.

    Taking it for failed instead would be wrong if the first request is still on its way.
    """
    try:
        return await connected.provider.refund(wanted)
    except ProviderRefused as refused:
        return RefundState(status="failed", failure=refused.sentence)


async def _postpone(database: Database, *, refund_id: str, error: LedgerError) -> None:
    async with database.transaction_by(kind="system", name=SETTLE_JOB) as tx:
        refund = await lock_refund(tx.connection, refund_id=refund_id)
        if refund.status == "requested":
            looks = refund.looks + 1
            later = msgspec.structs.replace(
                refund, looks=looks, next_look_at=next_look(now=tx.now, looks=looks), failure=error.sentence
            )
            await update_refund(tx.connection, refund=later)


async def _payment_of(
    database: Database, connections: Connections, refund: Refund
) -> tuple[RefundablePayment, Connected]:
    async with database.connection() as connection:
        _, payment = await get_refunded_payment(connection, refund_id=refund.id)
        assert payment.connection_id is not None, "only what a connection took is refunded"
        return payment, await connections.get(connection, connection_id=payment.connection_id)


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


async def settle_refund(tx: Tx, *, refund_id: str, state: RefundState, only_if_requested: bool = False) -> Refund:
    """Stores where a refund stands, and what follows for its invoice. Settling twice changes nothing."""
    invoice_id, _ = await get_refunded_payment(tx.connection, refund_id=refund_id)
    invoice = await lock_invoice(tx.connection, invoice_id=invoice_id)
    before = await lock_refund(tx.connection, refund_id=refund_id)
    if only_if_requested and before.status != "requested":
        return before
    after = _advanced(before, state, now=tx.now)
    if after == before:
        return before
    await update_refund(tx.connection, refund=after)
    if after.status != before.status:
        await announce_refund(tx, invoice, after)
    return after


def _advanced(refund: Refund, state: RefundState, *, now: datetime) -> Refund:
    """The refund with what the provider says, in whatever order that is heard.

    What the provider called failed stays failed: a "succeeded" that comes after was read before. A refund that failed
    without the provider having given it a name was never heard of there, so its word counts.
    """
    if refund.status == "failed" and refund.provider_reference is not None:
        return refund
    named = msgspec.structs.replace(refund, provider_reference=refund.provider_reference or state.remote_id)
    if state.status in ("succeeded", "failed"):
        if state.status == refund.status:
            return named
        return msgspec.structs.replace(
            named, status=state.status, failure=state.failure, settled_at=now, next_look_at=None
        )
    is_under_way_after_all = refund.status == "failed" and named.provider_reference is not None
    if refund.status != "requested" and not is_under_way_after_all:
        return named
    looks = refund.looks + 1
    under_way = msgspec.structs.replace(named, looks=looks, next_look_at=next_look(now=now, looks=looks))
    return msgspec.structs.replace(under_way, status="requested", settled_at=None)


async def announce_refund(tx: Tx, invoice: Invoice, refund: Refund) -> None:
    """What follows for a locked invoice, and for whoever is told, from a refund whose status is new."""
    changed = await refresh_invoice(tx, invoice)
    if refund.status == "succeeded":
        tx.audit(refund_entry("invoice.refunded", invoice, refund))
        event = invoice_event("invoice.refunded", changed, amount_minor=refund.amount_minor)
        # Money that came in another currency goes back in it.
        tx.publish(msgspec.structs.replace(event, data={**event.data, "amountCurrency": refund.currency}))
    else:
        tx.audit(refund_entry(f"refund.{refund.status}", invoice, refund))


def refund_entry(action: str, invoice: Invoice, refund: Refund) -> AuditEntry:
    """The line of the audit log about a refund; it belongs to its invoice."""
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
