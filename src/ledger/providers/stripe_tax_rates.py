"""Taxes on subscriptions, which Stripe keeps as tax rates: made when they are needed, and read when a bill has them."""

import hashlib
from collections.abc import Awaitable, Callable, Collection
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import TypeVar

import msgspec

from ledger.providers.stripe_calls import Calls, NotKnown
from ledger.providers.stripe_payloads import Identified
from ledger.providers.subscription_contract import WantedTax

_LABEL_CHARACTERS_MAX = 50

_T = TypeVar("_T")


async def with_tax_rate(
    calls: Calls, tax: WantedTax | None, *, key: str, use: Callable[[str | None, str], Awaitable[_T]]
) -> tuple[_T, str | None]:
    """Does something with what Stripe calls a tax, and returns the outcome with that name.

    `use` takes the name and an idempotency key. When somebody archived the rate in the Stripe Dashboard, it is called
    once more with a new rate and a key of its own, since the refusal may be kept under the first.
    """
    if tax is None:
        return await use(None, key), None
    rate_id = tax.remote_id or await _make_tax_rate(calls, tax, instead_of=None)
    try:
        return await use(rate_id, key), rate_id
    except NotKnown as error:
        if "tax_rates" not in (error.param or ""):
            raise
    rate_id = await _make_tax_rate(calls, tax, instead_of=rate_id)
    return await use(rate_id, f"{key}-{rate_id}"), rate_id


async def _make_tax_rate(calls: Calls, tax: WantedTax, *, instead_of: str | None) -> str:
    parts = (tax.rate_bp, tax.label, instead_of or "")
    key = f"ledger-tax-{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"
    # A rate too many does no harm, so an unknown outcome here only means that Stripe cannot be reached.
    rate = await calls.ask(
        lambda: calls.v1.tax_rates.create_async(
            {
                "display_name": (tax.label.strip() or "Tax")[:_LABEL_CHARACTERS_MAX],
                "inclusive": False,
                # Basis points have at most two decimals as a percentage, which a float of this size spells exactly.
                "percentage": tax.rate_bp / 100,
                "metadata": {"rate_bp": str(tax.rate_bp)},
            },
            {"idempotency_key": key},
        ),
        Identified,
    )
    return rate.id


class _TaxRate(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    percentage: float | None = None
    effective_percentage: float | None = None
    """What Stripe's automatic tax applied."""

    @property
    def rate_bp(self) -> int:
        percentage = self.percentage if self.effective_percentage is None else self.effective_percentage
        exact = Decimal(str(percentage or 0)) * 100
        return int(exact.to_integral_value(ROUND_HALF_UP))


async def rates_bp(calls: Calls, rate_ids: Collection[str]) -> dict[str, int]:
    """Returns the basis points of tax rates; those with finer percentages (8.875 %) are rounded."""
    found: dict[str, int] = {}
    for rate_id in sorted(rate_ids):
        rate = await calls.ask(partial(calls.v1.tax_rates.retrieve_async, rate_id), _TaxRate)
        found[rate_id] = rate.rate_bp
    return found
