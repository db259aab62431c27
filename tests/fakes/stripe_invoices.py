"""The fake Stripe's invoices: their lines and taxes, what is due of them, and how they are paid."""

from decimal import Decimal
from typing import Literal

import stripe

from tests.fakes import stripe_money as money
from tests.fakes.stripe_arithmetic import settled, taxes_on
from tests.fakes.stripe_shapes import Object, blank, shown
from tests.fakes.stripe_world import Refusal, World

EMBEDDED_MAX = 10
"""So many lines stand in an invoice; the others have to be asked for."""

_RETRY_AFTER_S = 3 * 86_400


def line(
    world: World,
    subscription: Object,
    *,
    amount: int,
    price: Object,
    quantity: int,
    period: tuple[int, int],
    description: str,
    rates: list[Object],
    credited: Object | None = None,
    is_proration: bool = False,
) -> Object:
    """A line of an invoice to come. `credited` is the line whose unused time is given back."""
    item = subscription["items"]["data"][0]
    items = {"invoice": credited["invoice"], "invoice_line_items": [credited["id"]]} if credited else None
    details = {
        **{"invoice_item": world.new_id("ii") if is_proration else None, "proration": is_proration},
        **{"proration_details": {"credited_items": items}},
        **{"subscription": subscription["id"], "subscription_item": item["id"]},
    }
    return {
        **blank(stripe.InvoiceLineItem),
        "id": world.new_id("il"),
        "amount": amount,
        "currency": subscription["currency"],
        "description": description,
        "discountable": not is_proration,
        "discount_amounts": [],
        "livemode": False,
        "metadata": dict(subscription["metadata"]),
        "parent": {
            **{"type": "subscription_item_details", "invoice_item_details": None},
            **{"subscription_item_details": details},
        },
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": {
            **{"type": "price_details", "price_details": {"price": price["id"], "product": price["product"]}},
            "unit_amount_decimal": str(amount if is_proration else price["unit_amount"]),
        },
        "quantity": quantity,
        "quantity_decimal": str(Decimal(quantity)),
        "subscription": subscription["id"],
        "subtotal": amount,
        "taxes": taxes_on(amount, rates),
    }


def draft(world: World, subscription: Object, lines: list[Object], *, reason: str, period: tuple[int, int]) -> Object:
    """An invoice with these lines, not yet final. It is the subscription's latest one from now on."""
    customer = world.objects[subscription["customer"]]
    taxes = _added_up([tax for one in lines for tax in one["taxes"]])
    exclusive = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "exclusive")
    inclusive = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "inclusive")
    subtotal = sum(one["amount"] for one in lines)
    made = world.new(
        stripe.Invoice,
        "in",
        auto_advance=True,
        billing_reason=reason,
        collection_method="charge_automatically",
        currency=subscription["currency"],
        customer=customer["id"],
        customer_email=customer["email"],
        customer_name=customer["name"],
        customer_tax_exempt="none",
        default_tax_rates=list(subscription["default_tax_rates"]),
        metadata={},
        parent={
            **{"type": "subscription_details", "quote_details": None},
            "subscription_details": {
                **{"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]},
                "subscription_proration_date": None,
            },
        },
        period_start=period[0],
        period_end=period[1],
        starting_balance=balance_of(customer, subscription["currency"]),
        status="draft",
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal - inclusive,
        total=subtotal + exclusive,
        total_excluding_tax=subtotal - inclusive,
        total_discount_amounts=[],
        total_pretax_credit_amounts=[],
        total_taxes=taxes,
    )
    for one in lines:
        one["invoice"] = made["id"]
    made["_lines"] = lines
    made["lines"] = {
        **{"object": "list", "data": lines[:EMBEDDED_MAX], "has_more": len(lines) > EMBEDDED_MAX},
        **{"total_count": len(lines), "url": f"/v1/invoices/{made['id']}/lines"},
    }
    _owe(world, made)
    subscription["latest_invoice"] = made["id"]
    return made


def _added_up(taxes: list[Object]) -> list[Object]:
    found: dict[str, Object] = {}
    for tax in taxes:
        total = found.setdefault(tax["tax_rate_details"]["tax_rate"], {**tax, "amount": 0, "taxable_amount": 0})
        total["amount"] += tax["amount"]
        total["taxable_amount"] += tax["taxable_amount"]
    return list(found.values())


def _owe(world: World, invoice: Object) -> int:
    """What is due of the invoice as things are; returns the customer's balance after it."""
    smallest = world.smallest.get(invoice["currency"], 50)
    due, balance = settled(invoice["total"], invoice["starting_balance"], smallest)
    invoice.update(amount_due=due, amount_remaining=due)
    return balance


def balance_of(customer: Object, currency: str) -> int:
    """Negative is credit, positive is owed."""
    return int(customer.get("_balances", {}).get(currency, 0))


def set_balance(customer: Object, currency: str, balance: int) -> None:
    balances = customer.setdefault("_balances", {})
    balances[currency] = balance
    customer["currency"] = customer["currency"] or currency
    customer["balance"] = balances.get(customer["currency"], 0)
    customer["invoice_credit_balance"] = {one: -amount for one, amount in balances.items() if amount}


def finalize(world: World, invoice: Object) -> None:
    """Settles it with the customer's balance. It is paid now if nothing is due, else it has a payment intent."""
    customer = world.objects[invoice["customer"]]
    invoice["starting_balance"] = balance_of(customer, invoice["currency"])
    invoice["ending_balance"] = _owe(world, invoice)
    if invoice["ending_balance"] != invoice["starting_balance"]:
        before = shown(customer)
        set_balance(customer, invoice["currency"], invoice["ending_balance"])
        world.happened("customer.updated", customer, before)
    invoice.update(
        status="open",
        number=f"FAKE-{invoice['id'].split('_')[1][:6]}",
        effective_at=world.now,
        hosted_invoice_url=f"https://invoice.stripe.com/i/{invoice['id']}",
        invoice_pdf=f"https://pay.stripe.com/invoice/{invoice['id']}/pdf",
    )
    invoice["status_transitions"] = {**invoice["status_transitions"], "finalized_at": world.now}
    if invoice["amount_due"]:
        _make_payment(world, invoice)
    world.happened("invoice.finalized", invoice)


def _make_payment(world: World, invoice: Object) -> None:
    intent = world.new(
        stripe.PaymentIntent,
        "pi",
        amount=invoice["amount_due"],
        currency=invoice["currency"],
        customer=invoice["customer"],
        description="Subscription creation"
        if invoice["billing_reason"] == "subscription_create"
        else "Subscription update",
        metadata={},
        payment_method_types=["card"],
        status="requires_confirmation",
    )
    payment = world.new(
        stripe.InvoicePayment,
        "inpay",
        amount_requested=invoice["amount_due"],
        currency=invoice["currency"],
        invoice=invoice["id"],
        is_default=True,
        payment={**blank(stripe.InvoicePayment.Payment), "type": "payment_intent", "payment_intent": intent["id"]},
        status="open",
    )
    invoice["_payment"] = payment["id"]
    world.happened("payment_intent.created", intent)


def payment_of(world: World, invoice: Object) -> Object | None:
    return world.objects[invoice["_payment"]] if "_payment" in invoice else None


def intent_of(world: World, invoice: Object) -> Object | None:
    payment = payment_of(world, invoice)
    return world.objects[payment["payment"]["payment_intent"]] if payment else None


def collect(
    world: World,
    invoice: Object,
    outcome: money.Outcome | None = None,
    *,
    method: str = "card",
    message: str = money.DECLINED,
) -> money.Outcome:
    """Tries to get what is due of an open invoice. Without `outcome` it is the customer's bank that decides."""
    intent = intent_of(world, invoice)
    if intent is None:
        _paid(world, invoice)
        return "succeeded"
    if outcome is None:
        customer = invoice["customer"]
        outcome = "failed" if customer in world.declining else "pending" if customer in world.slow else "succeeded"
        method = "sepa_debit" if outcome == "pending" else method
    invoice.update(attempted=True, attempt_count=invoice["attempt_count"] + 1)
    money.charge(world, intent, outcome, method=method, message=message)
    concluded(world, invoice, outcome)
    return outcome


def land(world: World, invoice: Object, outcome: Literal["succeeded", "failed"], message: str) -> None:
    """A payment that was on its way arrives, or does not."""
    intent = intent_of(world, invoice)
    assert intent is not None, "the invoice has no payment"
    assert intent["status"] == "processing", "the invoice has no payment on its way"
    money.land(world, intent, outcome, message)
    concluded(world, invoice, outcome)


def concluded(world: World, invoice: Object, outcome: money.Outcome) -> None:
    """What follows from an attempt to pay."""
    intent = intent_of(world, invoice)
    assert intent is not None
    money.announce(world, intent)
    customer = world.objects[invoice["customer"]]
    if outcome == "succeeded":
        payment = payment_of(world, invoice)
        assert payment is not None
        payment.update(status="paid", amount_paid=invoice["amount_due"])
        payment["status_transitions"] = {"canceled_at": None, "paid_at": world.now}
        customer["delinquent"] = False
        _paid(world, invoice)
        world.happened("invoice_payment.paid", payment)
    elif outcome == "failed":
        customer["delinquent"] = True
        invoice["next_payment_attempt"] = world.now + _RETRY_AFTER_S
        world.happened("invoice.payment_failed", invoice)


def _paid(world: World, invoice: Object) -> None:
    invoice.update(
        status="paid", attempted=True, amount_paid=invoice["amount_due"], amount_remaining=0, next_payment_attempt=None
    )
    invoice["status_transitions"] = {**invoice["status_transitions"], "paid_at": world.now}
    world.happened("invoice.paid", invoice)
    world.happened("invoice.payment_succeeded", invoice)


def void(world: World, invoice: Object) -> None:
    invoice.update(status="void", amount_remaining=invoice["amount_due"], next_payment_attempt=None)
    invoice["status_transitions"] = {**invoice["status_transitions"], "voided_at": world.now}
    intent, payment = intent_of(world, invoice), payment_of(world, invoice)
    if intent is not None and payment is not None:
        intent.update(status="canceled", canceled_at=world.now)
        payment.update(status="canceled")
    customer = world.objects[invoice["customer"]]
    # The credit that it used up comes back.
    given_back = invoice["starting_balance"] - (invoice["ending_balance"] or 0)
    set_balance(customer, invoice["currency"], balance_of(customer, invoice["currency"]) + given_back)
    world.happened("invoice.voided", invoice)


def declined() -> Refusal:
    """What a request gets that needed a payment which the bank refused."""
    return Refusal(402, money.DECLINED, code="card_declined", kind="card_error", decline_code="generic_decline")
