"""Events as the API had them before 2025-03 ("basil"): an endpoint keeps the version that it was created with."""

import copy
from typing import Any

from tests.fakes import stripe_invoices as invoices
from tests.fakes.stripe_shapes import Object, shown
from tests.fakes.stripe_world import World

OLD_API_VERSION = "2024-06-20"


def as_before_basil(world: World, event: Object) -> Object:
    """A copy of an event in the older shape."""
    old = copy.deepcopy(event)
    old["api_version"] = OLD_API_VERSION
    thing = old["data"]["object"]
    match thing["object"]:
        case "subscription":
            old["data"]["object"] = _subscription(thing)
            if "items" in old["data"].get("previous_attributes", {}):
                before = old["data"]["previous_attributes"]
                before.update(_period_taken_from(before["items"]["data"][0]))
        case "invoice":
            old["data"]["object"] = _invoice(world, thing)
        case "charge" | "payment_intent":
            thing["invoice"] = _invoice_of(world, thing)
        case "invoice_payment":
            raise AssertionError("such an event did not exist before basil")
    return old


def _period_taken_from(item: Object) -> Object:
    return {name: item.pop(name) for name in ("current_period_start", "current_period_end")}


def _subscription(thing: Object) -> Object:
    item = thing["items"]["data"][0]
    thing.update(_period_taken_from(item), plan=item["plan"], quantity=item["quantity"], discount=None)
    for name in ("billing_mode", "billing_schedules", "managed_payments", "status_details"):
        thing.pop(name, None)
    return thing


def _invoice_of(world: World, thing: Object) -> str | None:
    intent_id = thing["id"] if thing["object"] == "payment_intent" else thing["payment_intent"]
    for payment in world.of("invoice_payment"):
        if payment["payment"]["payment_intent"] == intent_id:
            return str(payment["invoice"])
    return None


def _invoice(world: World, thing: Object) -> Object:
    intent = invoices.intent_of(world, world.objects[thing["id"]])
    # An event says what was so then: the intent is there from the invoice's final form on.
    is_final = thing["status"] != "draft"
    of = thing.pop("parent")["subscription_details"]
    taxes = thing.pop("total_taxes")
    exclusive = [tax["amount"] for tax in taxes]
    thing.update(
        subscription=of["subscription"],
        subscription_details={"metadata": of["metadata"]},
        payment_intent=intent["id"] if intent is not None and is_final else None,
        charge=intent["latest_charge"] if intent is not None and thing["attempted"] else None,
        paid=thing["status"] == "paid",
        paid_out_of_band=False,
        tax=sum(exclusive) if taxes else None,
        total_tax_amounts=[_tax(tax) for tax in taxes],
        discount=None,
        quote=None,
        application_fee_amount=None,
    )
    for name in ("payments", "amount_overpaid", "confirmation_secret", "status_details"):
        thing.pop(name, None)
    thing["lines"]["data"] = [_line(world, one) for one in thing["lines"]["data"]]
    return thing


def _tax(tax: Object) -> Object:
    return {
        **{name: tax[name] for name in ("amount", "taxability_reason", "taxable_amount")},
        **{"inclusive": tax["tax_behavior"] == "inclusive", "tax_rate": tax["tax_rate_details"]["tax_rate"]},
    }


def _line(world: World, line: Object) -> Object:
    of: dict[str, Any] = line.pop("parent")["subscription_item_details"]
    taxes = line.pop("taxes")
    price = shown(world.objects[line.pop("pricing")["price_details"]["price"]])
    line.pop("subtotal")
    line.pop("quantity_decimal", None)
    line.update(
        type="invoiceitem" if of["proration"] else "subscription",
        price=price,
        plan={"id": price["id"], "object": "plan", "amount": price["unit_amount"], "currency": price["currency"]},
        proration=of["proration"],
        proration_details=of["proration_details"],
        subscription=of["subscription"],
        subscription_item=of["subscription_item"],
        amount_excluding_tax=line["amount"],
        unit_amount_excluding_tax=str(line["amount"] if of["proration"] else price["unit_amount"]),
        tax_amounts=[_tax(tax) for tax in taxes],
        tax_rates=[shown(world.objects[tax["tax_rate_details"]["tax_rate"]]) for tax in taxes],
    )
    if of["invoice_item"] is not None:
        line["invoice_item"] = of["invoice_item"]
    return line
