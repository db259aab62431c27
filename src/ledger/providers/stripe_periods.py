"""Bills that Stripe made for subscriptions, in Ledger's words: what was charged, taxed and paid."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from ledger.providers.contract import MoneyArrived, ProviderRefused
from ledger.providers.stripe_amounts import from_stripe_amount
from ledger.providers.stripe_billing import Bill, BillPayment, Line, Tax
from ledger.providers.stripe_calls import Calls, Listed, NotKnown
from ledger.providers.stripe_payloads import UNKNOWN_METHOD, PaymentIntent, method_of, time_of
from ledger.providers.stripe_tax_rates import rates_bp
from ledger.providers.subscription_contract import BilledLine, BilledPeriod, BilledTax

if TYPE_CHECKING:
    from stripe.params import InvoiceLineItemListParams, InvoiceListParams, InvoicePaymentListParams

_EXTERNAL = "external"
"""The method of what Stripe calls paid although no payment went through it."""


async def look_up_period(calls: Calls, *, remote_id: str) -> BilledPeriod | None:
    """See `Provider.look_up_period`. Raises `ProviderRefused` when the bill does not add up."""
    try:
        bill = await calls.ask(lambda: calls.v1.invoices.retrieve_async(remote_id), Bill)
    except NotKnown:
        return None
    lines = await all_lines(calls, bill)
    payments: Sequence[BillPayment] = ()
    if bill.status == "paid":
        params: InvoicePaymentListParams = {
            "invoice": remote_id,
            "status": "paid",
            "expand": ["data.payment.payment_intent.latest_charge"],
        }
        payments = await calls.list_all(calls.v1.invoice_payments.list_async, params, Listed[BillPayment])
    rate_ids = {tax.rate_id for line in lines for tax in line.taxes or () if tax.is_charged and tax.rate_id}
    return _billed_period(bill, lines, await rates_bp(calls, rate_ids), tuple(reversed(payments)))


async def all_lines(calls: Calls, bill: Bill) -> Sequence[Line]:
    """The lines of a bill: it carries only the first of them."""
    if not bill.lines.has_more:
        return bill.lines.data
    params: InvoiceLineItemListParams = {}
    return await calls.list_all(partial(calls.v1.invoices.line_items.list_async, bill.id), params, Listed[Line])


async def list_paid_periods(calls: Calls, *, subscription_remote_id: str, since: datetime) -> Sequence[str]:
    """See `Provider.list_paid_periods`."""
    params: InvoiceListParams = {
        "subscription": subscription_remote_id,
        "status": "paid",
        "created": {"gte": int(since.timestamp())},
    }
    try:
        bills = await calls.list_all(calls.v1.invoices.list_async, params, Listed[Bill])
    except NotKnown:
        return ()
    return [bill.id for bill in reversed(bills)]


# What a bill says


def _billed_period(
    bill: Bill, lines: Sequence[Line], rates: Mapping[str, int], payments: Sequence[BillPayment]
) -> BilledPeriod:
    total, currency = from_stripe_amount(bill.total, bill.currency)
    billed = tuple(_billed_line(line, _rate_of(line, rates), bill.currency) for line in lines)
    taxes = _billed_taxes(bill, lines, billed, rates)
    subtotal = sum(line.total_minor for line in billed)
    tax = sum(one.tax_minor for one in taxes)
    if subtotal + tax != total:
        raise ProviderRefused(
            f"The lines and taxes of Stripe's invoice {bill.id} do not add up to its total, so Ledger cannot book it; "
            "compare it in the Stripe Dashboard"
        )
    is_paid = bill.status == "paid"
    credit = _credit_of(bill, currency) if is_paid else 0
    own = [line.period for line in lines if line.period and not line.is_proration]
    return BilledPeriod(
        remote_id=bill.id,
        subscription_remote_id=bill.subscription_id,
        intent_id=bill.intent_id,
        is_paid=is_paid,
        currency=currency,
        lines=billed,
        taxes=taxes,
        subtotal_minor=subtotal,
        tax_minor=tax,
        total_minor=total,
        payments=_payments_of(bill, payments, currency, total - credit) if is_paid else (),
        credit_minor=credit,
        period_start=time_of(min((one.start for one in own), default=bill.period_start)),
        period_end=time_of(max((one.end for one in own), default=bill.period_end)),
    )


def _rate_of(line: Line, rates: Mapping[str, int]) -> int:
    """The basis points of all taxes on a line together."""
    return sum(rates.get(one.rate_id or "", 0) for one in line.taxes or () if one.is_charged)


def _billed_line(line: Line, rate_bp: int, stripe_currency: str) -> BilledLine:
    total, _ = from_stripe_amount(line.net, stripe_currency)
    quantity = line.quantity or 1
    # A share of a period, or a price after a discount, need not be a multiple of the quantity.
    if total % quantity:
        quantity = 1
    return BilledLine(
        description=line.description or "Subscription",
        quantity=quantity,
        unit_price_minor=total // quantity,
        total_minor=total,
        tax_rate_bp=rate_bp,
        price_remote_id=line.price_id,
    )


def _billed_taxes(
    bill: Bill, lines: Sequence[Line], billed: Sequence[BilledLine], rates: Mapping[str, int]
) -> tuple[BilledTax, ...]:
    nets: dict[int, int] = defaultdict(int)
    for one in billed:
        nets[one.tax_rate_bp] += one.total_minor
    taxes: dict[int, int] = defaultdict(int)
    # Where each of Stripe's tax rates weighs most, for what rounding the sum instead of each line left over.
    weights: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        rate_bp = _rate_of(line, rates)
        for tax in line.taxes or ():
            taxes[rate_bp] += tax.amount
            weights[_key(tax)][rate_bp] += abs(tax.amount)
    for key, difference in _differences(bill, lines).items():
        if key in weights:
            by_rate = weights[key]
            taxes[max(by_rate, key=lambda rate_bp: by_rate[rate_bp])] += difference
    return tuple(
        BilledTax(rate_bp=rate_bp, net_minor=net, tax_minor=from_stripe_amount(taxes[rate_bp], bill.currency)[0])
        for rate_bp, net in sorted(nets.items(), reverse=True)
    )


def _key(tax: Tax) -> str:
    return f"{tax.rate_id} {tax.tax_behavior}"


def _differences(bill: Bill, lines: Sequence[Line]) -> Mapping[str, int]:
    """What Stripe charged of each tax beyond the sum over the lines. Inclusive taxes are in the lines as they are."""
    found: dict[str, int] = defaultdict(int)
    for tax in bill.total_taxes or ():
        if not tax.is_inclusive:
            found[_key(tax)] += tax.amount
    for key in list(found):
        found[key] -= sum(one.amount for line in lines for one in line.taxes or () if _key(one) == key)
    return found


def _credit_of(bill: Bill, currency: str) -> int:
    """What nobody had to pay: credit from earlier bills, credit notes, or too little to be charged at all."""
    if bill.total <= 0:
        return 0
    from_balance = 0 if bill.ending_balance is None else bill.ending_balance - bill.starting_balance
    credit, _ = from_stripe_amount(max(0, from_balance) + bill.pre_payment_credit_notes_amount, currency)
    total, _ = from_stripe_amount(bill.total, currency)
    return max(0, min(credit, total))


def _payments_of(
    bill: Bill, payments: Sequence[BillPayment], currency: str, due_minor: int
) -> tuple[MoneyArrived, ...]:
    """The payments of a paid bill, which add up to what was due.

    What an earlier bill had left open is collected with the next one: that part belongs to the earlier one and is cut.
    """
    found = []
    left = max(0, due_minor)
    for payment in payments:
        arrived = _arrived(bill, payment, currency, left)
        if arrived is not None:
            found.append(arrived)
            left -= arrived.amount_minor
    if left > 0:
        external = MoneyArrived(
            remote_id=bill.id,
            amount_minor=left,
            currency=currency,
            method=_EXTERNAL,
            received_at=time_of(bill.paid_at),
        )
        found.append(external)
    return tuple(found)


def _arrived(bill: Bill, payment: BillPayment, currency: str, at_most_minor: int) -> MoneyArrived | None:
    """A payment that went through Stripe; None for any other, and for one of nothing."""
    intent = payment.payment.payment_intent if payment.payment else None
    amount, _ = from_stripe_amount(payment.amount_paid or 0, currency)
    if intent is None or min(amount, at_most_minor) <= 0:
        return None
    charge = intent.charge if isinstance(intent, PaymentIntent) else None
    return MoneyArrived(
        remote_id=intent.id if isinstance(intent, PaymentIntent) else intent,
        amount_minor=min(amount, at_most_minor),
        currency=currency,
        method=method_of(charge) or UNKNOWN_METHOD,
        received_at=time_of(charge.created if charge and charge.created else bill.paid_at),
    )
