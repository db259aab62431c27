"""Payments, refunds and products as Ledger would ask a provider for them, with ids of their own each time."""

from datetime import UTC, datetime

import msgspec
from uuid_utils import uuid7

from ledger.providers.contract import Payer, PaymentLine, WantedPayment, WantedProduct, WantedRefund

DUE_AT = datetime(2026, 12, 1, tzinfo=UTC)


def wanted_payment(
    *, currency: str = "EUR", tax_minor: int = 950, person_id: int = 7, **changes: object
) -> WantedPayment:
    """59.50 EUR, of which 9.50 are tax, unless `changes` say something else."""
    invoice_id = str(uuid7())
    lines = (
        PaymentLine(description="Membership 2026", unit_price_minor=4000, quantity=1),
        PaymentLine(description="Locker", unit_price_minor=500, quantity=2),
    )
    wanted = WantedPayment(
        intent_id=str(uuid7()),
        invoice_id=invoice_id,
        invoice_number="INV-2026-0001",
        amount_minor=5000 + tax_minor,
        currency=currency,
        lines=lines,
        tax_minor=tax_minor,
        tax_label="VAT 19 %",
        payer=Payer(person_id=person_id),
        payment_reference="RF16INV20260001",
        due_at=DUE_AT,
        success_url=f"https://dash.example.org/ledger/my/invoices/{invoice_id}",
        cancel_url=f"https://dash.example.org/ledger/my/invoices/{invoice_id}",
    )
    return msgspec.structs.replace(wanted, **changes)


def one_line(amount_minor: int, currency: str, **changes: object) -> WantedPayment:
    """A payment of a single line without tax."""
    lines = (PaymentLine(description="Membership", unit_price_minor=amount_minor, quantity=1),)
    wanted = wanted_payment(currency=currency, tax_minor=0, amount_minor=amount_minor, lines=lines)
    return msgspec.structs.replace(wanted, **changes)


def wanted_refund(payment_remote_id: str, amount_minor: int, currency: str = "EUR") -> WantedRefund:
    return WantedRefund(
        intent_id=str(uuid7()),
        payment_remote_id=payment_remote_id,
        amount_minor=amount_minor,
        currency=currency,
        reason="Ada Example left the club",
    )


def wanted_product(**changes: object) -> WantedProduct:
    """A yearly membership of 40.00 EUR that the provider does not know yet."""
    wanted = WantedProduct(
        intent_id=str(uuid7()),
        product_id=str(uuid7()),
        price_id=str(uuid7()),
        name="Membership",
        description="One year",
        amount_minor=4000,
        currency="EUR",
        interval="year",
        is_active=True,
        product_remote_id=None,
        price_remote_id=None,
        old_price_remote_ids=(),
    )
    return msgspec.structs.replace(wanted, **changes)
