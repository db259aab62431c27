"""What an invoice is: how its lines add up, which state its payments put it in, and what may be done in each state.

Everything here is pure: amounts are integers in minor units, the time is handed in, nothing is read or stored.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

from ledger.errors import BadRequest, FieldError, RuleBroken
from ledger.money import ITEMS_MAX, QUANTITY_MAX, TOTAL_MAX, UNIT_PRICE_MAX, UnknownCurrency, normalise_currency

DESCRIPTION_MAX = 500
TAX_RATE_BP_MAX = 10_000
USER_AND_ITEM_REQUIRED = "userId and at least one item are required"

# A body can be wrong in thousands of places: `fields` has them all, the sentence stays readable.
_REASONS_IN_SENTENCE = 5


# Drafts: lines, tax and totals


class WantedLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line as somebody wants it billed. `tax_rate_bp` is the item's own rate, the other one its product's."""

    description: str
    unit_price_minor: int
    quantity: int = 1
    product_id: str | None = None
    tax_rate_bp: int | None = None
    product_tax_rate_bp: int | None = None


class DraftLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line as it will be stored. `total_minor` is net; `tax_rate_bp` is 0 when the invoice skips tax."""

    description: str
    quantity: int
    unit_price_minor: int
    total_minor: int
    tax_rate_bp: int
    product_id: str | None


class TaxShare(msgspec.Struct, frozen=True, kw_only=True):
    """The tax of all lines that have one rate (EN 16931, BG-23): `tax_minor` is the rate of `net_minor`."""

    rate_bp: int
    net_minor: int
    tax_minor: int


class InvoiceDraft(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice that adds up and can be stored as it is; it has no number, buyer or date yet.

    `tax_shares` has one share per distinct rate, the lowest first, rate 0 included, so that their nets add up to
    `subtotal_minor` and their taxes to `tax_minor`; `subtotal_minor + tax_minor = total_minor`.
    """

    currency: str
    lines: tuple[DraftLine, ...]
    tax_shares: tuple[TaxShare, ...]
    subtotal_minor: int
    tax_minor: int
    total_minor: int
    skip_tax: bool


class InvoiceRefused(BadRequest):
    """What somebody wants billed cannot be an invoice. `fields` names every refused field of the body."""


def tax_on(*, net_minor: int, rate_bp: int) -> int:
    """Returns the tax of `rate_bp` basis points on a net amount, rounded half away from zero, in minor units."""
    rounded = (abs(net_minor) * rate_bp + 5_000) // 10_000
    return rounded if net_minor >= 0 else -rounded


def draft_invoice(
    *, lines: Sequence[WantedLine], currency: str, default_tax_rate_bp: int, skip_tax: bool
) -> InvoiceDraft:
    """Works out lines, tax per rate and totals.

    A line's rate is the item's, else its product's, else the default; 0 when tax is skipped. Tax is computed on the
    sum of the lines that share a rate, so a few minor units can lie between it and the sum of taxes per line.
    Raises `InvoiceRefused`.
    """
    refusals = _Refusals()
    try:
        currency = normalise_currency(currency)
    except UnknownCurrency as unknown:
        refusals.add("currency", str(unknown))
    if not 1 <= len(lines) <= ITEMS_MAX:
        problem = f"must be from 1 to {ITEMS_MAX}, not {len(lines)}"
        refusals.add("items", problem, subject="the number of items")
        raise refusals.as_error(None if lines else USER_AND_ITEM_REQUIRED)

    drafted: list[DraftLine] = []
    net_by_rate: dict[int, int] = {}
    for index, line in enumerate(lines):
        rate_bp = 0 if skip_tax else _chosen_rate(line, default_tax_rate_bp)
        _check_line(refusals, index=index, line=line, rate_bp=rate_bp)
        net_minor = line.unit_price_minor * line.quantity
        net_by_rate[rate_bp] = net_by_rate.get(rate_bp, 0) + net_minor
        drafted.append(
            DraftLine(
                description=line.description,
                quantity=line.quantity,
                unit_price_minor=line.unit_price_minor,
                total_minor=net_minor,
                tax_rate_bp=rate_bp,
                product_id=line.product_id,
            )
        )
    shares = tuple(
        TaxShare(rate_bp=rate_bp, net_minor=net, tax_minor=tax_on(net_minor=net, rate_bp=rate_bp))
        for rate_bp, net in sorted(net_by_rate.items())
    )
    subtotal_minor = sum(net_by_rate.values())
    tax_minor = sum(share.tax_minor for share in shares)
    total_minor = subtotal_minor + tax_minor
    if not refusals.in_items and total_minor > TOTAL_MAX:
        refusals.add("items", f"add up to {total_minor}, more than {TOTAL_MAX} minor units", subject="the items")
    if refusals:
        raise refusals.as_error()
    return InvoiceDraft(
        currency=currency,
        lines=tuple(drafted),
        tax_shares=shares,
        subtotal_minor=subtotal_minor,
        tax_minor=tax_minor,
        total_minor=total_minor,
        skip_tax=skip_tax,
    )


class _Refusals:
    """Collects what is wrong with a body, as fields for programs and as words for people."""

    def __init__(self) -> None:
        self._fields: list[FieldError] = []
        self._reasons: list[str] = []
        self.in_items = False

    def __len__(self) -> int:
        return len(self._fields)

    def add(self, field: str, problem: str, *, subject: str = "") -> None:
        self._fields.append(FieldError(field, problem))
        self._reasons.append(f"{subject} {problem}" if subject else problem)

    def add_to_item(self, index: int, key: str, problem: str, *, subject: str) -> None:
        self.in_items = True
        self.add(f"items[{index}].{key}", problem, subject=f"the {subject} of item {index + 1}")

    def as_error(self, sentence: str | None = None) -> InvoiceRefused:
        told = "; ".join(self._reasons[:_REASONS_IN_SENTENCE])
        untold = len(self._reasons) - _REASONS_IN_SENTENCE
        rest = f"; and {untold} more" if untold > 0 else ""
        return InvoiceRefused(sentence or f"The invoice was refused: {told}{rest}", fields=self._fields)


def _chosen_rate(line: WantedLine, default_tax_rate_bp: int) -> int:
    if line.tax_rate_bp is not None:
        return line.tax_rate_bp
    return default_tax_rate_bp if line.product_tax_rate_bp is None else line.product_tax_rate_bp


def _check_line(refusals: _Refusals, *, index: int, line: WantedLine, rate_bp: int) -> None:
    """Adds what is wrong with one line. An item's own rate is checked even when tax is skipped: it was sent."""
    text = line.description
    if not text.strip():
        refusals.add_to_item(index, "description", "must not be empty", subject="description")
    elif len(text) > DESCRIPTION_MAX:
        problem = f"must have at most {DESCRIPTION_MAX} characters, not {len(text)}"
        refusals.add_to_item(index, "description", problem, subject="description")
    elif "\0" in text:
        # PostgreSQL cannot store this character in a text.
        refusals.add_to_item(index, "description", "must not contain a NUL character", subject="description")
    if not 0 <= line.unit_price_minor <= UNIT_PRICE_MAX:
        problem = f"must be from 0 to {UNIT_PRICE_MAX} minor units"
        refusals.add_to_item(index, "unitPrice", problem, subject="unit price")
    if not 1 <= line.quantity <= QUANTITY_MAX:
        refusals.add_to_item(index, "quantity", f"must be from 1 to {QUANTITY_MAX}", subject="quantity")
    allowed = f"must be from 0 to {TAX_RATE_BP_MAX} basis points"
    if line.tax_rate_bp is not None:
        if not 0 <= line.tax_rate_bp <= TAX_RATE_BP_MAX:
            refusals.add_to_item(index, "taxRate", allowed, subject="tax rate")
    elif not 0 <= rate_bp <= TAX_RATE_BP_MAX:
        of_product = line.product_tax_rate_bp is not None
        key, origin = ("productId", "product's") if of_product else ("taxRate", "configured")
        problem = f"{allowed}; correct the {origin} tax rate"
        refusals.add_to_item(index, key, problem, subject=f"{origin} tax rate")


# States


class InvoiceStatus(StrEnum):
    """The states of an invoice; `INVOICE_STATUS_PHRASES` says what each means."""

    PENDING = "pending"
    PAID = "paid"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


INVOICE_STATUS_PHRASES: Mapping[InvoiceStatus, str] = {
    InvoiceStatus.PENDING: "issued, and not or only partly paid",
    InvoiceStatus.PAID: "the whole total arrived; some of it may have gone back since",
    InvoiceStatus.FAILED: "the last attempt to pay it failed; another one may follow",
    InvoiceStatus.CANCELLED: "withdrawn; nothing is owed any more",
    InvoiceStatus.REFUNDED: "it was paid, and everything that arrived went back",
}

_OPEN_STATES = frozenset({InvoiceStatus.PENDING, InvoiceStatus.FAILED})


def invoice_status(
    *,
    total_minor: int,
    payments_minor: Sequence[int],
    refunded_minor: int,
    is_cancelled: bool,
    last_attempt_failed: bool,
) -> InvoiceStatus:
    """Returns the state that follows from the facts: the only place that decides it.

    `payments_minor` has the amount of every payment that arrived, `refunded_minor` is the sum of the refunds that
    succeeded. What is worth knowing:

    * A cancelled invoice stays cancelled, whatever money arrives for it: that money is recorded and flagged.
    * Paid means at least one payment and the whole total. So an invoice over 0 is pending until somebody marks it
      as paid (a payment of 0), and too much money is paid, too.
    * A partial refund leaves it paid: it lowers what was earned and makes no new debt. It is refunded once
      everything that arrived went back, not merely the total of an invoice that was paid twice.
    * Partly paid is pending even when the next attempt fails: money is held and the rest is owed and can be overdue.
    * A payment that its provider gave back before the invoice was paid must not be among the payments, nor its
      refund in `refunded_minor`: sums cannot tell it from a partial refund of a paid invoice.
    """
    if is_cancelled:
        return InvoiceStatus.CANCELLED
    paid_minor = sum(payments_minor)
    if payments_minor and paid_minor >= total_minor:
        all_went_back = 0 < paid_minor <= refunded_minor
        return InvoiceStatus.REFUNDED if all_went_back else InvoiceStatus.PAID
    holds_money = paid_minor > refunded_minor
    return InvoiceStatus.FAILED if last_attempt_failed and not holds_money else InvoiceStatus.PENDING


def open_minor(*, status: InvoiceStatus, total_minor: int, paid_minor: int, refunded_minor: int) -> int:
    """Returns what is still owed, in minor units: never negative, and 0 unless the invoice is pending or failed."""
    if status in _OPEN_STATES:
        return max(total_minor - (paid_minor - refunded_minor), 0)
    return 0


def is_overdue(status: InvoiceStatus, due_at: datetime | None, now: datetime) -> bool:
    """Tells whether the invoice is pending past its due date; without a due date it never is.

    A due date that came without a time is kept as its midnight in UTC, and the whole day is in time.
    `listing.is_overdue_sql` says the same to the database.
    """
    if status is not InvoiceStatus.PENDING or due_at is None:
        return False
    due = due_at.astimezone(UTC)
    return now > (datetime.combine(due, time.max, UTC) if due.time() == time.min else due)


# What may be done in which state


class InvoiceAlreadyPaid(RuleBroken):
    """A paid invoice cannot be marked as paid again."""


class InvoiceCannotBeMarkedPaid(RuleBroken):
    """A cancelled or refunded invoice is closed; money is owed again only with a new invoice."""


class InvoiceNotPayable(RuleBroken):
    """Only a pending or failed invoice can be paid by its buyer."""


class CannotCancelPaidInvoice(RuleBroken):
    """What was paid, wholly or partly, is not cancelled."""


class InvoiceAlreadyCancelled(RuleBroken):
    """A cancelled invoice cannot be cancelled again."""


class OnlyPaidInvoicesRefundable(RuleBroken):
    """Only a paid invoice can be refunded."""


def check_can_mark_paid(status: InvoiceStatus) -> None:
    """Pending and failed invoices can be marked as paid.

    Raises `InvoiceAlreadyPaid` or `InvoiceCannotBeMarkedPaid`.
    """
    if status is InvoiceStatus.PAID:
        raise InvoiceAlreadyPaid("Invoice is already paid")
    if status not in _OPEN_STATES:
        raise InvoiceCannotBeMarkedPaid(f"A {status} invoice cannot be marked as paid; create a new invoice instead")


def check_can_cancel(status: InvoiceStatus, *, held_minor: int) -> None:
    """Pending and failed invoices can be cancelled while Ledger holds no money for them.

    `held_minor` is what arrived less what went back. A partly paid invoice is refused: cancelling says that nothing
    is owed, and the money that came would be left without the debt it paid, refundable by nobody, since only paid
    invoices are refunded. Once the partial payment went back, it can be cancelled.
    Raises `InvoiceAlreadyCancelled` or `CannotCancelPaidInvoice`.
    """
    if status is InvoiceStatus.CANCELLED:
        raise InvoiceAlreadyCancelled("Invoice is already cancelled")
    if status is InvoiceStatus.PAID:
        raise CannotCancelPaidInvoice("Cannot cancel a paid invoice")
    if status is InvoiceStatus.REFUNDED:
        raise CannotCancelPaidInvoice("Cannot cancel a refunded invoice; it is closed already")
    if held_minor > 0:
        raise CannotCancelPaidInvoice(
            "Cannot cancel a partly paid invoice, since money came for it; collect the rest and mark it as paid"
        )


def check_can_pay(status: InvoiceStatus) -> None:
    """Pending invoices can be paid by their buyer, failed ones again. Raises `InvoiceNotPayable`."""
    if status not in _OPEN_STATES:
        raise InvoiceNotPayable("Invoice is not payable")


def check_can_refund(status: InvoiceStatus, *, held_minor: int) -> None:
    """Paid invoices can be refunded, partly refunded ones again, and money that came for a cancelled one.

    `held_minor` is what arrived less what went back. Raises `OnlyPaidInvoicesRefundable`.
    """
    came_too_late = status is InvoiceStatus.CANCELLED and held_minor > 0
    if status is not InvoiceStatus.PAID and not came_too_late:
        raise OnlyPaidInvoicesRefundable("Only paid invoices can be refunded")


def available_actions(status: InvoiceStatus, *, held_minor: int, provider_can_refund: bool) -> tuple[str, ...]:
    """Returns what staff can do now, in the order of the buttons: of `mark-paid`, `cancel`, `refund`.

    It asks the same checks as the actions do. `provider_can_refund` is about the provider that took the payment.
    """
    actions = []
    if _passes(lambda: check_can_mark_paid(status)):
        actions.append("mark-paid")
    if _passes(lambda: check_can_cancel(status, held_minor=held_minor)):
        actions.append("cancel")
    if provider_can_refund and _passes(lambda: check_can_refund(status, held_minor=held_minor)):
        actions.append("refund")
    return tuple(actions)


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except RuleBroken:
        return False
    return True


# Numbers


def invoice_series(year: int) -> str:
    """Returns the name of a year's series of invoice numbers: `INV-2026`."""
    return f"INV-{year}"


def invoice_number(year: int, n: int) -> str:
    """Returns the `n`-th number of a year, counted from 1: `INV-2026-0001`. From 10000 on it has more digits."""
    if n < 1:
        raise ValueError(f"invoice numbers start at 1, not {n}")
    return f"{invoice_series(year)}-{n:04d}"


def issue_year(now: datetime, zone: ZoneInfo) -> int:
    """Returns the calendar year of `now` where the books are kept: it names the series the number comes from."""
    if now.tzinfo is None:
        raise ValueError("issue_year needs a time with a zone")
    return now.astimezone(zone).year
