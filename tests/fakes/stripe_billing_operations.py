"""What the fake Stripe's API answers about tax rates, subscriptions, invoices, their payments, disputes and events."""

import fnmatch
from typing import TYPE_CHECKING

import stripe

from tests.fakes import stripe_billing as billing
from tests.fakes import stripe_invoices as invoices
from tests.fakes.stripe_checkout import check_metadata
from tests.fakes.stripe_paging import listed, page
from tests.fakes.stripe_shapes import Object, shown
from tests.fakes.stripe_world import Refusal, World

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe

_EVENTS_KEPT_S = 30 * 86_400
_TYPES_MAX = 20
# What the fake does with a subscription; anything else is a violation.
_CHANGES = frozenset(
    {
        *("items", "cancel_at_period_end", "cancel_at", "proration_behavior", "proration_date", "payment_behavior"),
        *("default_tax_rates", "metadata", "cancellation_details", "description", "expand", "off_session"),
    }
)
_PREVIEWED = frozenset({"subscription", "subscription_details", "customer", "expand"})


def create_tax_rate(fake: "FakeStripe", params: Object, _: str) -> Object:
    check_metadata(params)
    percentage = float(params["percentage"])
    if not 0 <= percentage <= 100 or round(percentage, 4) != percentage:
        raise Refusal(400, "A percentage is 0 to 100, with at most 4 decimals", param="percentage")
    if not params["display_name"]:
        raise Refusal(400, "You passed an empty string", code="parameter_invalid_empty", param="display_name")
    values = {
        **{"active": True, "metadata": {}, "rate_type": "percentage", **params},
        **{"percentage": percentage, "inclusive": params["inclusive"] == "true"},
        "effective_percentage": None,
    }
    values["active"] = values["active"] in (True, "true")
    return fake.new(stripe.TaxRate, "txr", **values)


# Subscriptions


def _check_open(subscription: Object, params: Object) -> None:
    if subscription["status"] in billing.ENDED and set(params) - {"metadata", "cancellation_details", "expand"}:
        sentence = "A canceled subscription can only update its cancellation_details and metadata."
        raise Refusal(400, sentence)


def update_subscription(fake: "FakeStripe", params: Object, subscription_id: str) -> Object:
    subscription = fake.find("subscription", subscription_id)
    check_metadata(params)
    _check_open(subscription, params)
    if unknown := set(params) - _CHANGES:
        raise fake.violation(f"change {sorted(unknown)} of a subscription")
    if params.get("payment_behavior") not in (None, "allow_incomplete", "error_if_incomplete"):
        raise fake.violation(f"payment_behavior={params['payment_behavior']}")
    if params.get("payment_behavior") == "error_if_incomplete" and _would_fail(fake, subscription, params):
        raise invoices.declined()
    _change(fake, subscription, params)
    return subscription


def _would_fail(world: World, subscription: Object, params: Object) -> bool:
    with world.trial(subscription["id"], subscription["customer"]):
        invoice = _change(world, world.objects[subscription["id"]], params)
        return invoice is not None and invoice["status"] == "open" and invoice["next_payment_attempt"] is not None


def _change(world: World, subscription: Object, params: Object) -> Object | None:
    """Does what an update asks for; returns the invoice that it made at once. Refuses before it changes anything."""
    before = shown(subscription)
    rates = _new_rates(world, params)
    wanted = _wanted_item(world, subscription, params)
    if "metadata" in params:
        _merge(subscription["metadata"], params["metadata"])
    if rates is not None:
        subscription["default_tax_rates"] = rates
    invoice = None
    if wanted is not None:
        behavior = params.get("proration_behavior", "create_prorations")
        prorated_at = int(params.get("proration_date", world.now))
        price, quantity = wanted
        invoice = billing.change_item(world, subscription, price, quantity, behavior=behavior, prorated_at=prorated_at)
    _plan_end(world, subscription, params)
    if "description" in params:
        subscription["description"] = params["description"] or None
    for name, value in params.get("cancellation_details", {}).items():
        subscription["cancellation_details"][name] = value or None
    if shown(subscription) != before:
        world.happened("customer.subscription.updated", subscription, before)
    if invoice is not None:
        world.happened("invoice.created", invoice)
        invoices.finalize(world, invoice)
        billing.collect(world, invoice)
    return invoice


def _merge(metadata: Object, changes: Object | str) -> None:
    if isinstance(changes, str):
        metadata.clear()
        return
    metadata.update(changes)
    for name in [name for name, value in metadata.items() if value == ""]:
        del metadata[name]


def _new_rates(world: World, params: Object) -> list[Object] | None:
    if "default_tax_rates" not in params:
        return None
    return billing.tax_rates(world, params["default_tax_rates"] or [], "default_tax_rates")


def _wanted_item(world: World, subscription: Object, params: Object) -> tuple[Object, int] | None:
    if "items" not in params:
        return None
    item = billing.item_of(subscription)
    [wanted, *others] = params["items"]
    if others or set(wanted) - {"id", "price", "quantity"}:
        raise world.violation("a subscription has one item, with a price and a quantity")
    if "id" not in wanted:
        raise world.violation("without its id the item would be a second one")
    if wanted["id"] != item["id"]:
        raise Refusal(
            400, f"No such subscription item: '{wanted['id']}'", code="resource_missing", param="items[0][id]"
        )
    quantity = int(wanted.get("quantity", item["quantity"]))
    if wanted.get("price", item["price"]["id"]) == item["price"]["id"]:
        return item["price"], quantity
    price = billing.usable_price(world, wanted["price"], "items[0][price]")
    if price["currency"] != subscription["currency"]:
        sentence = f"The price specified only supports `{price['currency']}`. This doesn't match the expected currency:"
        raise Refusal(400, f"{sentence} `{subscription['currency']}`.", param="items[0][price]")
    period = range(item["current_period_start"], item["current_period_end"] + 1)
    if int(params.get("proration_date", world.now)) not in period:
        raise Refusal(400, "`proration_date` must be within the current period.", param="proration_date")
    return price, quantity


def _plan_end(world: World, subscription: Object, params: Object) -> None:
    if "cancel_at_period_end" in params:
        wanted = params["cancel_at_period_end"] == "true"
        if wanted != subscription["cancel_at_period_end"]:
            subscription["cancel_at_period_end"] = wanted
            end = billing.item_of(subscription)["current_period_end"]
            billing.plan_end(world, subscription, end if wanted else None)
    if "cancel_at" in params:
        end = billing.item_of(subscription)["current_period_end"]
        named = {"": None, "min_period_end": end, "max_period_end": end}
        at = named[params["cancel_at"]] if params["cancel_at"] in named else int(params["cancel_at"])
        if at is not None and at <= world.now:
            raise Refusal(400, "`cancel_at` must be in the future.", param="cancel_at")
        subscription["cancel_at_period_end"] = False
        billing.plan_end(world, subscription, at)


def cancel_subscription(fake: "FakeStripe", params: Object, subscription_id: str) -> Object:
    subscription = fake.find("subscription", subscription_id)
    if subscription["status"] in billing.ENDED:
        raise Refusal(404, f"No such subscription: '{subscription_id}'", code="resource_missing", param="id")
    if "true" in (params.get("prorate"), params.get("invoice_now")):
        raise fake.violation("cancelling does not prorate")
    billing.end(fake, subscription)
    return subscription


def _subscription_fits(one: Object, params: Object) -> bool:
    wanted = params.get("status")
    if wanted is None and one["status"] == "canceled":
        return False
    if wanted == "ended" and one["status"] not in billing.ENDED:
        return False
    if wanted not in (None, "all", "ended", one["status"]):
        return False
    return params.get("price") in (None, billing.item_of(one)["price"]["id"])


# Invoices


def create_preview(fake: "FakeStripe", params: Object, _: str) -> Object:
    """The invoice that a change would make at once, else the one of the next renewal. Changes nothing."""
    details = params.get("subscription_details", {})
    if unknown := (set(params) - _PREVIEWED) | (set(details) - _CHANGES):
        raise fake.violation(f"preview {sorted(unknown)}")
    if "subscription" not in params:
        raise fake.violation("a preview is about a subscription")
    subscription = fake.find("subscription", params["subscription"], "subscription")
    if params.get("customer", subscription["customer"]) != subscription["customer"]:
        raise Refusal(400, "The subscription does not belong to this customer.", param="subscription")
    _check_open(subscription, {**details, "items": []})
    if "proration_date" in details and (details.get("proration_behavior") == "none" or "items" not in details):
        sentence = "You can only pass `proration_date` with items, and not with `proration_behavior=none`."
        raise Refusal(400, sentence, param="subscription_details[proration_date]")
    with fake.trial(subscription["id"], subscription["customer"]):
        tried = fake.objects[subscription["id"]]
        invoice = _change(fake, tried, details)
        is_update = invoice is not None
        if invoice is None:
            invoice = _next_invoice(fake, tried)
        # As it was before it was collected.
        invoice.update(
            **{"id": fake.new_id("upcoming_in"), "status": "draft", "attempted": False, "attempt_count": 0},
            **{"amount_paid": 0, "amount_remaining": invoice["amount_due"], "next_payment_attempt": None},
            **{"billing_reason": "subscription_update" if is_update else "upcoming", "number": None},
            **{"hosted_invoice_url": None, "invoice_pdf": None, "effective_at": None},
        )
        invoice["status_transitions"] = dict.fromkeys(invoice["status_transitions"])
        if "proration_date" in details:
            of = invoice["parent"]["subscription_details"]
            of["subscription_proration_date"] = int(details["proration_date"])
        for line in invoice["_lines"]:
            line["invoice"] = None
        return shown(invoice)


def _next_invoice(world: World, subscription: Object) -> Object:
    end = billing.item_of(subscription)["current_period_end"]
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= end and not subscription["_pending"]:
        raise Refusal(
            404, f"No upcoming invoices for customer: {subscription['customer']}", code="invoice_upcoming_none"
        )
    with world.at(end):
        _, invoice = billing.renew(world, subscription)
        invoices.finalize(world, invoice)
    return invoice


def pay_invoice(fake: "FakeStripe", params: Object, invoice_id: str) -> Object:
    invoice = fake.find("invoice", invoice_id)
    if set(params) - {"expand", "off_session"}:
        raise fake.violation(f"pay an invoice with {sorted(params)}")
    if invoice["status"] == "paid":
        raise Refusal(400, "Invoice is already paid")
    if invoice["status"] == "draft":
        invoices.finalize(fake, invoice)
    if invoice["status"] != "open":
        raise Refusal(400, f"You can only pay an open invoice. This invoice is {invoice['status']}.")
    intent = invoices.intent_of(fake, invoice)
    if intent is not None and intent["status"] == "processing":
        raise Refusal(400, "This invoice has a payment that is still processing.")
    if billing.collect(fake, invoice) == "failed":
        raise invoices.declined()
    return invoice


def list_lines(fake: "FakeStripe", params: Object, invoice_id: str) -> Object:
    invoice = fake.find("invoice", invoice_id)
    return page(invoice["_lines"], params, f"/v1/invoices/{invoice_id}/lines")


def payments_of(world: World, invoice: Object) -> Object:
    """The list that stands in an invoice when it is asked for."""
    payment = invoices.payment_of(world, world.objects[invoice["id"]]) if invoice["id"] in world.objects else None
    data = [shown(payment)] if payment else []
    url = f"/v1/invoice_payments?invoice={invoice['id']}"
    return {"object": "list", "data": data, "has_more": False, "url": url}


def _invoice_fits(one: Object, params: Object) -> bool:
    return params.get("subscription") in (None, one["parent"]["subscription_details"]["subscription"])


def _payment_fits(one: Object, params: Object) -> bool:
    return params.get("payment", {}).get("payment_intent") in (None, one["payment"]["payment_intent"])


list_subscriptions = listed("subscription", "/v1/subscriptions", ("customer",), _subscription_fits)
list_invoices = listed("invoice", "/v1/invoices", ("customer", "status"), _invoice_fits)
list_payments = listed("invoice_payment", "/v1/invoice_payments", ("invoice", "status"), _payment_fits)


# Events


def list_events(fake: "FakeStripe", params: Object, _: str) -> Object:
    wanted = [*params.get("types", []), *([params["type"]] if "type" in params else [])]
    if len(params.get("types", [])) > _TYPES_MAX or ("types" in params and "type" in params):
        raise Refusal(400, "Give `type`, or at most 20 `types`.", param="types")
    kept_from = fake.now - _EVENTS_KEPT_S

    def fits(one: Object, _: Object) -> bool:
        is_wanted = not wanted or any(fnmatch.fnmatchcase(one["type"], kind) for kind in wanted)
        return bool(is_wanted and one["created"] >= kept_from)

    return page(fake.events[::-1], params, "/v1/events", fits)


def get_event(fake: "FakeStripe", _: Object, event_id: str) -> Object:
    for one in fake.events:
        if one["id"] == event_id and one["created"] >= fake.now - _EVENTS_KEPT_S:
            return one
    raise Refusal(404, f"No such event: '{event_id}'", code="resource_missing", param="id")
