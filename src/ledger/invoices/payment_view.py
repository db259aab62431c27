"""The part of an invoice's page that is about paying: reference, instructions, links, and what is on its way."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.database.connection import Connection
from ledger.invoices.rules import InvoiceNotPayable, check_can_pay, open_minor
from ledger.invoices.store import Facts, Invoice
from ledger.money import format_money
from ledger.payments.checkout_store import CHECKOUT_PHRASES, StoredCheckout, list_shown_checkouts
from ledger.payments.dispute_store import DISPUTE_PHRASES, ShownDispute, list_disputes
from ledger.payments.reference import format_reference
from ledger.providers.connections import Connected, Connections, SettingsUnreadable
from ledger.providers.contract import BankAccount
from ledger.settings import Settings
from ledger.web.shapes import Field

# The EPC QR code exists for euros only (EPC069-12).
EPC_CURRENCY = "EUR"


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about paying an invoice just now."""

    active: Connected | None
    checkouts: list[StoredCheckout]
    pending_refunds_minor: int
    disputes: Sequence[ShownDispute]
    period: tuple[datetime, datetime] | None
    """The period of the subscription that it bills, if it does."""
    provider_labels: Mapping[str, str]
    """What the kinds of providers are called on the pages: `stripe` → `Stripe`."""


async def read_payment_view(connection: Connection, connections: Connections, *, invoice: Invoice) -> PaymentView:
    """Reads what the page needs; nobody outside is asked."""
    pending: int = await connection.fetchval(
        """
        select coalesce(sum(r.amount_minor), 0)::bigint from refund r join payment p on p.id = r.payment_id
        where p.invoice_id = $1 and r.status = 'requested'
        """,
        invoice.id,
    )
    period = await connection.fetchrow(
        "select period_start, period_end from subscription_period where invoice_id = $1", invoice.id
    )
    try:
        active = await connections.find_active(connection)
    except SettingsUnreadable:
        # The invoice can be shown all the same; paying says what is wrong.
        active = None
    return PaymentView(
        active=active,
        checkouts=await list_shown_checkouts(connection, invoice_id=invoice.id),
        pending_refunds_minor=pending,
        disputes=await list_disputes(connection, invoice_id=invoice.id),
        period=None if period is None else (period["period_start"], period["period_end"]),
        provider_labels={kind.name: kind.label for kind in connections.registry.all()},
    )


def transfer_account(view: PaymentView, invoice: Invoice, facts: Facts) -> BankAccount | None:
    """The account an EPC QR code can be made for: the active one, for an open invoice in euros."""
    is_open = open_amount_minor(invoice, facts) > 0
    if view.active is None or invoice.currency != EPC_CURRENCY or not is_open:
        return None
    return view.active.provider.bank_account()


def open_amount_minor(invoice: Invoice, facts: Facts) -> int:
    """What is still owed."""
    return open_minor(
        status=invoice.status,
        total_minor=invoice.total_minor,
        paid_minor=facts.paid_minor,
        refunded_minor=facts.refunded_minor,
    )


def owner_fields(view: PaymentView, invoice: Invoice, facts: Facts, settings: Settings) -> list[Field]:
    """What the owner needs for paying."""
    # What was true for another provider, or before the invoice was settled, would make people pay twice.
    is_current = view.active is None or view.active.type.name == invoice.provider
    fields = _instructions(invoice) if is_current and _is_payable(invoice) else []
    if view.active is not None and view.active.type.name == "manual":
        fields.append(_reference(invoice))
    fields += _code_link(view, invoice, facts, settings, at=f"/api/my/invoices/{invoice.id}")
    url = next((each.url for each in view.checkouts if each.status == "open" and not each.is_unwanted), None)
    if url is not None and _is_payable(invoice):
        fields.append(Field(key="payUrl", label="Pay Online", type="link", value=url))
    return fields + _period(view)


def staff_fields(view: PaymentView, invoice: Invoice, facts: Facts, settings: Settings) -> list[Field]:
    """What staff needs for finding a payment again, and what is still on its way."""
    fields = [_reference(invoice), *_instructions(invoice)]
    fields += _code_link(view, invoice, facts, settings, at=f"/api/invoices/{invoice.id}")
    unsettled = [each for each in view.checkouts if each.status != "open" or each.error is not None]
    if unsettled:
        text = "; ".join(f"{each.status}: {each.error or CHECKOUT_PHRASES[each.status]}" for each in unsettled)
        fields.append(Field(key="checkout", label="Online Payment", value=text))
    if view.pending_refunds_minor:
        amount = format_money(view.pending_refunds_minor, invoice.currency)
        fields.append(
            Field(key="pendingRefund", label="Refund Requested", value=f"{amount}, not confirmed by the provider yet")
        )
    if view.disputes:
        text = "\n".join(_dispute_text(each, view, settings) for each in view.disputes)
        fields.append(Field(key="dispute", label="Dispute", type="multiline", value=text))
    return fields + _period(view)


def _dispute_text(shown: ShownDispute, view: PaymentView, settings: Settings) -> str:
    """`59.50 EUR disputed: the payer does not recognise it; answer in Stripe by 2026-04-01`"""
    dispute = shown.dispute
    provider = view.provider_labels.get(shown.provider, shown.provider)
    # The reason is a sentence of its own, but for abbreviations.
    reason = dispute.reason[:1].lower() + dispute.reason[1:] if dispute.reason[1:2].islower() else dispute.reason
    text = f"{format_money(dispute.amount_minor, dispute.currency)} disputed: {reason}; "
    text += DISPUTE_PHRASES[dispute.status].format(provider=provider)
    if dispute.status == "needs_response" and dispute.respond_by is not None:
        text += f" by {dispute.respond_by.astimezone(settings.timezone).date().isoformat()}"
    return text


def _period(view: PaymentView) -> list[Field]:
    if view.period is None:
        return []
    start, end = view.period
    return [Field(key="period", label="Subscription Period", value=f"{start:%Y-%m-%d} to {end:%Y-%m-%d}")]


def _reference(invoice: Invoice) -> Field:
    return Field(key="paymentReference", label="Payment Reference", value=format_reference(invoice.payment_reference))


def _instructions(invoice: Invoice) -> list[Field]:
    if invoice.payment_instructions is None:
        return []
    text = invoice.payment_instructions
    return [Field(key="paymentInstructions", label="Payment Instructions", type="multiline", value=text)]


def _code_link(view: PaymentView, invoice: Invoice, facts: Facts, settings: Settings, *, at: str) -> list[Field]:
    """The browser cannot reach Ledger itself, so the link goes through the Dashboard's proxy."""
    if settings.dashboard_url is None or transfer_account(view, invoice, facts) is None:
        return []
    url = f"{settings.dashboard_url}/api/proxy/{settings.slug}{at}/epc-qr.png"
    return [Field(key="epcQr", label="Bank Transfer QR Code", type="link", value=url)]


def _is_payable(invoice: Invoice) -> bool:
    try:
        check_can_pay(invoice.status)
    except InvoiceNotPayable:
        return False
    return True
