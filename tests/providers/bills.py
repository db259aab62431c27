"""What every bill of a subscription has to be like, whoever made it."""

from typing import Any

from ledger.providers.provider import Provider
from ledger.providers.subscription_contract import BilledPeriod


async def billed(provider: Provider, invoice: dict[str, Any]) -> BilledPeriod:
    """What a provider says about a bill that it has."""
    period = await provider.look_up_period(remote_id=invoice["id"])
    assert period is not None
    adds_up(period)
    return period


def adds_up(period: BilledPeriod) -> None:
    """What `BilledPeriod` promises."""
    for line in period.lines:
        assert line.quantity * line.unit_price_minor == line.total_minor
    assert sum(line.total_minor for line in period.lines) == period.subtotal_minor
    assert sum(tax.net_minor for tax in period.taxes) == period.subtotal_minor
    assert sum(tax.tax_minor for tax in period.taxes) == period.tax_minor
    assert period.subtotal_minor + period.tax_minor == period.total_minor
    for tax in period.taxes:
        assert tax.net_minor == sum(line.total_minor for line in period.lines if line.tax_rate_bp == tax.rate_bp)
    assert period.credit_minor >= 0
    if period.is_paid:
        paid = sum(one.amount_minor for one in period.payments) + period.credit_minor
        assert paid == max(period.total_minor, 0)
