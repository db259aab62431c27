"""Products: what can be sold, at which price, and what a change of one means.

Amounts are integers in minor units, tax rates are in basis points (1900 = 19 %). Nothing here is read or stored.
What staff enters comes as the form sends it: as text. A price is only understood as a whole number, since `50.00`
would else be taken for 50 cents.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from ledger.errors import BadRequest, FieldError
from ledger.money import UNIT_PRICE_MAX

NAME_MAX = 250
DESCRIPTION_MAX = 5_000
TAX_RATE_BP_MAX = 10_000
REQUIRED_SENTENCE = "Name, price, and type are required"

# A form leaves empty fields out of what it sends, so there is a text that means "nothing"; so does the dash we show.
CLEARING = frozenset({"", "-", "—"})
# What the form of a new product offers beside the intervals: a select always sends one of its options.
NO_INTERVAL = "none"

_DIGITS = re.compile(r"[0-9]{1,30}")


class ProductKind(StrEnum):
    """How a product is paid for; `PRODUCT_KIND_PHRASES` says what each means."""

    ONE_TIME = "one-time"
    RECURRING = "recurring"


PRODUCT_KIND_PHRASES: Mapping[ProductKind, str] = {
    ProductKind.ONE_TIME: "paid once, on an invoice",
    ProductKind.RECURRING: "paid again every month or year, as a subscription",
}


class Interval(StrEnum):
    """How often a recurring product is paid for."""

    MONTH = "month"
    YEAR = "year"


INTERVAL_PHRASES: Mapping[Interval, str] = {Interval.MONTH: "every month", Interval.YEAR: "every year"}


class SyncState(StrEnum):
    """How far the provider was brought to a product's present version; `SYNC_STATE_PHRASES` says what each means."""

    PENDING = "pending"
    SYNCED = "synced"
    FAILED = "failed"


SYNC_STATE_PHRASES: Mapping[SyncState, str] = {
    SyncState.PENDING: "the provider does not have this version yet; Ledger keeps trying",
    SyncState.SYNCED: "the provider has this version",
    SyncState.FAILED: "the provider refused this version; Ledger asks again from time to time",
}


class ProductRefused(BadRequest):
    """What somebody wants to sell cannot be sold like that. `fields` names every refused field of the body."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit, or one period, costs. A price with other terms is another price."""

    amount_minor: int
    currency: str
    interval: Interval | None


class ProductDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A product as it can be stored. Without a `tax_rate_bp` the configured rate counts."""

    name: str
    description: str | None
    kind: ProductKind
    tax_rate_bp: int | None
    prorate_on_change: bool
    terms: Terms


class ProductWish(msgspec.Struct, frozen=True, kw_only=True):
    """A product, or a change of one, as somebody entered it. None was left out; `CLEARING` texts remove a value."""

    name: str | None = None
    price: int | str | None = None
    kind: ProductKind | None = None
    description: str | None = None
    currency: str | None = None
    interval: str | None = None
    prorate_on_change: bool | None = None
    tax_rate: int | str | None = None


def draft_product(wish: ProductWish, *, default_currency: str) -> ProductDraft:
    """A new product. A change of subscription is prorated unless the wish says otherwise. Raises `ProductRefused`."""
    missing = [
        FieldError(field, "is required")
        for field, value in (("name", (wish.name or "").strip()), ("price", wish.price), ("type", wish.kind))
        if value in (None, "")
    ]
    if missing:
        raise ProductRefused(REQUIRED_SENTENCE, fields=missing)
    assert wish.kind is not None
    empty = ProductDraft(
        name="",
        description=None,
        kind=wish.kind,
        tax_rate_bp=None,
        prorate_on_change=True,
        terms=Terms(amount_minor=0, currency=default_currency, interval=None),
    )
    return change_draft(empty, wish)


def change_draft(before: ProductDraft, wish: ProductWish) -> ProductDraft:
    """The product with what the wish says different; what it leaves out stays. Raises `ProductRefused`."""
    refused: list[FieldError] = []
    terms = before.terms
    after = ProductDraft(
        name=before.name if wish.name is None else _name(wish.name, refused),
        description=before.description if wish.description is None else _description(wish.description, refused),
        kind=before.kind,
        tax_rate_bp=before.tax_rate_bp if wish.tax_rate is None else _tax_rate_bp(wish.tax_rate, refused),
        prorate_on_change=before.prorate_on_change if wish.prorate_on_change is None else wish.prorate_on_change,
        terms=Terms(
            amount_minor=terms.amount_minor if wish.price is None else _amount_minor(wish.price, refused),
            currency=wish.currency or terms.currency,
            interval=_interval(wish.interval, before=terms.interval, kind=before.kind, refused=refused),
        ),
    )
    if wish.kind not in (None, before.kind):
        refused.append(FieldError("type", "cannot be changed; add another product and deactivate this one"))
    if refused:
        raise ProductRefused("; ".join(f"{each.field}: {each.message}" for each in refused), fields=refused)
    return after


def changed_fields(before: ProductDraft, after: ProductDraft) -> Sequence[str]:
    """The names, as the API has them, of what is different."""
    pairs = {
        "name": (before.name, after.name),
        "description": (before.description, after.description),
        "price": (before.terms.amount_minor, after.terms.amount_minor),
        "currency": (before.terms.currency, after.terms.currency),
        "interval": (before.terms.interval, after.terms.interval),
        "prorateOnChange": (before.prorate_on_change, after.prorate_on_change),
        "taxRate": (before.tax_rate_bp, after.tax_rate_bp),
    }
    return [name for name, (old, new) in pairs.items() if old != new]


# Each reads one field, and adds what is wrong with it to `refused`.


def _name(text: str, refused: list[FieldError]) -> str:
    name = text.strip()
    if not name:
        refused.append(FieldError("name", "must not be empty"))
    return name


def _description(text: str, refused: list[FieldError]) -> str | None:
    description = text.strip()
    if len(description) > DESCRIPTION_MAX:
        refused.append(FieldError("description", f"must be text of at most {DESCRIPTION_MAX} characters"))
    return None if description in CLEARING else description


def _amount_minor(price: int | str, refused: list[FieldError]) -> int:
    amount_minor = _whole_number(price)
    if amount_minor is None:
        sentence = "must be a whole number of the currency's smallest unit, for example 1250 for 12.50 EUR"
        refused.append(FieldError("price", sentence))
    elif not 0 <= amount_minor <= UNIT_PRICE_MAX:
        refused.append(FieldError("price", f"must be from 0 to {UNIT_PRICE_MAX} minor units"))
    return amount_minor or 0


def _tax_rate_bp(tax_rate: int | str, refused: list[FieldError]) -> int | None:
    if isinstance(tax_rate, str) and tax_rate.strip() in CLEARING:
        return None
    rate_bp = _whole_number(tax_rate)
    if rate_bp is None or not 0 <= rate_bp <= TAX_RATE_BP_MAX:
        sentence = f"must be a whole number of basis points from 0 to {TAX_RATE_BP_MAX}, for example 1900 for 19 %"
        refused.append(FieldError("taxRate", sentence))
    return rate_bp


def _whole_number(entered: int | str) -> int | None:
    if isinstance(entered, int):
        return entered
    text = entered.strip()
    return int(text) if _DIGITS.fullmatch(text) else None


def _interval(
    entered: str | None, *, before: Interval | None, kind: ProductKind, refused: list[FieldError]
) -> Interval | None:
    if entered is None:
        interval = before
    elif entered == NO_INTERVAL or entered in CLEARING:
        interval = None
    elif entered in tuple(Interval):
        interval = Interval(entered)
    else:
        refused.append(FieldError("interval", f"must be one of {', '.join(Interval)}"))
        return before
    if kind is ProductKind.RECURRING and interval is None:
        refused.append(FieldError("interval", "is required for a recurring product: month or year"))
    if kind is ProductKind.ONE_TIME and interval is not None:
        refused.append(FieldError("interval", "must be left out for a one-time product, or be none"))
    return interval
