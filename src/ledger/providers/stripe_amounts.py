"""Amounts as Stripe counts them, which in some currencies is not how ISO 4217 does."""

from ledger.errors import BadRequest
from ledger.money import currency_exponent, format_money
from ledger.providers.contract import ProviderRefused

AMOUNT_MAX = 10**12 - 1
"""Twelve digits: more is allowed in no currency. The real limit of a currency is Stripe's to know."""

# https://docs.stripe.com/currencies, "Special cases" and "Three-decimal currencies". Everything else is counted in the
# minor unit of ISO 4217. `docs/decisions/0006-stripe-calls.md` says what was checked.
_DECIMALS_AT_STRIPE = {"ISK": 2, "UGX": 2, "MGA": 0}
_SMALLEST_STEP = {"ISK": 100, "UGX": 100, "BHD": 10, "JOD": 10, "KWD": 10, "OMR": 10, "TND": 10}


def to_stripe_amount(amount_minor: int, currency: str) -> int:
    """Returns an amount as Stripe counts it: 5 ISK is 500, 10.00 MGA is 10, all other minor units are the same.

    Raises `ProviderRefused` for a currency whose counting at Stripe is not known, and for an amount that Stripe would
    have to round.
    """
    exponent = currency_exponent(currency)
    step = _SMALLEST_STEP.get(currency, 1)
    if exponent > 2 and step == 1:
        raise ProviderRefused(f"Stripe takes no payments in {currency}; choose another way to pay")
    ours: int = 10**exponent
    stripes: int = 10 ** _DECIMALS_AT_STRIPE.get(currency, exponent)
    amount, rest = divmod(amount_minor * stripes, ours)
    if rest or amount % step:
        unit = f"whole {currency}" if exponent < 3 else f"amounts in {currency} that end in 0"
        shown = format_money(amount_minor, currency)
        raise ProviderRefused(f"Stripe takes only {unit}, so {shown} cannot be paid or returned with it")
    return amount


def from_stripe_amount(amount: int, stripe_currency: str) -> tuple[int, str]:
    """Returns Ledger's minor units and the ISO 4217 code. Raises `ProviderRefused` when it cannot be said in them."""
    currency = stripe_currency.upper()
    try:
        exponent = currency_exponent(currency)
    except BadRequest as error:
        raise ProviderRefused(f"Stripe reports an amount in {currency}, which Ledger does not know") from error
    ours: int = 10**exponent
    stripes: int = 10 ** _DECIMALS_AT_STRIPE.get(currency, exponent)
    minor, rest = divmod(amount * ours, stripes)
    if rest:
        raise ProviderRefused(f"Stripe reports {amount} in {currency}, which is less than the smallest unit of it")
    return minor, currency
