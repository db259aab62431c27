"""What a change of a subscription would cost, as Stripe works it out."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ledger.providers.contract import ProviderRefused
from ledger.providers.stripe_amounts import from_stripe_amount
from ledger.providers.stripe_billing import Bill, Line, Subscription
from ledger.providers.stripe_calls import Calls, NotKnown
from ledger.providers.stripe_payloads import time_of
from ledger.providers.stripe_periods import all_lines
from ledger.providers.stripe_subscriptions import check_can_prorate, fetch_changeable, prorate_at
from ledger.providers.stripe_tax_rates import with_tax_rate
from ledger.providers.subscription_contract import ChangePreview, PreviewLine, WantedChange

if TYPE_CHECKING:
    from stripe.params import InvoiceCreatePreviewParamsSubscriptionDetails

_NO_NEXT_BILL = "invoice_upcoming_none"


async def preview_change(calls: Calls, wanted: WantedChange) -> ChangePreview:
    """See `Provider.preview_change`. The same parameters as the change itself, so that it costs the same."""
    remote_id = wanted.subscription_remote_id
    subscription, item_id = await fetch_changeable(calls, remote_id)
    check_can_prorate(subscription, wanted)

    async def ask(tax_id: str | None, _: str) -> Bill:
        details: InvoiceCreatePreviewParamsSubscriptionDetails = {
            "items": [{"id": item_id, "price": wanted.price_remote_id}],
            "default_tax_rates": [tax_id] if tax_id is not None else "",
            "proration_behavior": "always_invoice" if wanted.prorates else "none",
        }
        if wanted.prorates:
            details["proration_date"] = prorate_at(subscription, wanted)
        # A preview has no effect, so it needs no key of its own.
        return await calls.ask(
            lambda: calls.v1.invoices.create_preview_async(
                {"subscription": remote_id, "subscription_details": details}
            ),
            Bill,
        )

    try:
        bill, _ = await with_tax_rate(calls, wanted.tax, key="", use=ask)
    except NotKnown as error:
        if error.code != _NO_NEXT_BILL:
            raise
        return _no_next_bill(subscription, wanted)
    return _preview_of(bill, await all_lines(calls, bill), subscription, wanted)


def _no_next_bill(subscription: Subscription, wanted: WantedChange) -> ChangePreview:
    """The subscription ends with its period, so a price that would count from the next one is never charged."""
    _, currency = from_stripe_amount(0, subscription.currency)
    return ChangePreview(
        amount_due_minor=0,
        currency=currency,
        credit_minor=0,
        charge_minor=0,
        effective_at=_effective_at((), subscription, wanted),
        lines=(),
    )


def _preview_of(bill: Bill, lines: Sequence[Line], subscription: Subscription, wanted: WantedChange) -> ChangePreview:
    amounts = [line.net + line.tax for line in lines]
    # Taxes may have been rounded on the sum instead of each line. Then the largest line takes the difference.
    difference = bill.total - sum(amounts)
    if abs(difference) > len(amounts):
        raise ProviderRefused("Stripe's preview of this change does not add up, so nobody can say what it would cost")
    if difference:
        amounts[max(range(len(amounts)), key=lambda place: abs(amounts[place]))] += difference
    shown = [from_stripe_amount(amount, bill.currency)[0] for amount in amounts]
    due, currency = from_stripe_amount(max(0, bill.amount_due), bill.currency)
    return ChangePreview(
        amount_due_minor=due,
        currency=currency,
        credit_minor=-sum(amount for amount in shown if amount < 0),
        charge_minor=sum(amount for amount in shown if amount > 0),
        effective_at=_effective_at(lines, subscription, wanted),
        lines=tuple(
            PreviewLine(description=line.description or "Subscription", amount_minor=amount)
            for line, amount in zip(lines, shown, strict=True)
        ),
    )


def _effective_at(lines: Sequence[Line], subscription: Subscription, wanted: WantedChange) -> datetime:
    """From when on the new price counts.

    Without proration that is when the first whole period with it begins: after the present one, or now if the interval
    changes, since Stripe then begins and bills a new period at once.
    """
    if wanted.prorates:
        return time_of(prorate_at(subscription, wanted))
    starts = [
        line.period.start
        for line in lines
        if line.period and not line.is_proration and line.price_id in (None, wanted.price_remote_id)
    ]
    _, end = subscription.period
    if starts:
        return time_of(min(starts))
    return time_of(end) if end is not None else wanted.prorate_at
