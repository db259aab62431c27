"""The fake Stripe's payment pages: how a session is opened, paid, and given up."""

import re
from typing import TYPE_CHECKING, Literal

import stripe

from tests.fakes import stripe_billing as billing
from tests.fakes import stripe_invoices as invoices
from tests.fakes import stripe_money as money
from tests.fakes.stripe_arithmetic import taxes_on
from tests.fakes.stripe_shapes import Object
from tests.fakes.stripe_world import Refusal, World

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe

_DAY_S = 86_400
_SHORTEST_S = 1_800
_STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}
_NOT_TAKEN = frozenset({"iqd", "lyd", "uyw", "kpw"})
_KEPT = ("mode", "ui_mode", "client_reference_id", "metadata", "success_url", "cancel_url")
# What only one of the modes takes.
_PAYMENT_ONLY = ("payment_intent_data", "customer_creation", "invoice_creation", "submit_type")
_BEGINNINGS = frozenset({"metadata", "default_tax_rates", "description", "billing_mode"})
_SUBSCRIPTION_ONLY = ("subscription_data", "payment_method_collection")


def check_amount(amount: int, currency: str, param: str) -> None:
    """Raises `Refusal` for amounts that Stripe does not take."""
    if currency in _NOT_TAKEN or not re.fullmatch("[a-z]{3}", currency):
        raise Refusal(400, f"Invalid currency: {currency}", param="currency")
    if amount % _STEPS.get(currency, 1):
        code = "invalid_charge_amount_no_decimal_compatible"
        raise Refusal(400, f"Invalid amount. {currency} must end in zeros", code=code, param=param)
    if amount > 99_999_999 and currency not in ("idr", "jpy", "huf", "cop"):
        raise Refusal(400, "Amount must be no more than 99999999", code="amount_too_large", param=param)


def check_metadata(params: Object) -> None:
    for name, value in (params.get("metadata") or {}).items():
        if len(name) > 40 or len(value) > 500:
            raise Refusal(400, "Metadata keys have at most 40 characters, values 500", param="metadata")


# Opening


def create_session(fake: "FakeStripe", params: Object, _: str) -> Object:
    check_metadata(params)
    customer = fake.find("customer", params["customer"], "customer") if "customer" in params else {"id": None}
    is_subscription = params.get("mode") == "subscription"
    for name in _PAYMENT_ONLY if is_subscription else _SUBSCRIPTION_ONLY:
        if name in params:
            mode = "subscription" if is_subscription else "payment"
            raise Refusal(400, f"You can not pass `{name}` in `{mode}` mode.", param=name)
    lines = params.get("line_items", [])
    if not 0 < len(lines) <= 100:
        raise Refusal(400, "A session has 1 to 100 line items", param="line_items")
    for name in ("success_url", "cancel_url"):
        if not re.match("https?://", params.get(name, "")):
            raise Refusal(400, "Not a valid URL", code="url_invalid", param=name)
    expires_at = int(params.get("expires_at", fake.now + _DAY_S))
    if not _SHORTEST_S <= expires_at - fake.now <= _DAY_S:
        sentence = "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation."
        raise Refusal(400, sentence, param="expires_at")
    ordered = _ordered_subscription(fake, params) if is_subscription else None
    subtotal, currency = _totals(ordered) if ordered else _added_up(lines)
    taxes = taxes_on(subtotal, ordered["rates"]) if ordered else []
    tax = sum(one["amount"] for one in taxes if one["tax_behavior"] == "exclusive")
    _check_total(fake, subtotal + tax, currency, may_be_free=is_subscription)
    session = fake.new(
        stripe.checkout.Session,
        "cs_test",
        amount_subtotal=subtotal,
        amount_total=subtotal + tax + fake.surcharge,
        currency=currency,
        customer=customer["id"],
        status="open",
        payment_status="unpaid",
        payment_method_types=list(fake.payment_method_types),
        expires_at=expires_at,
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": tax + fake.surcharge},
        **{name: params[name] for name in _KEPT if name in params},
    )
    session["url"] = f"{fake.url}/pay/{session['id']}"
    session["_line_items"] = lines
    session["_payment_intent_data"] = params.get("payment_intent_data", {})
    session["_ordered"] = ordered
    fake.due(expires_at, _time_is_over, session["id"])
    return session


def _ordered_subscription(world: World, params: Object) -> Object:
    lines = params["line_items"]
    if len(lines) > 1:
        raise world.violation("a subscription has one line item")
    if "price" not in lines[0]:
        raise world.violation("a subscription names a price")
    price = billing.usable_price(world, lines[0]["price"], "line_items[0][price]")
    data = params.get("subscription_data", {})
    check_metadata(data)
    if unknown := set(data) - _BEGINNINGS or data.get("billing_mode", {"type": "flexible"})["type"] != "flexible":
        raise world.violation(f"subscription_data with {unknown}")
    rates = billing.tax_rates(world, data.get("default_tax_rates", []), "subscription_data[default_tax_rates]")
    quantity = int(lines[0].get("quantity", 0))
    if quantity < 1:
        raise Refusal(400, "Quantity is required. Add `quantity` to `line_items[0]`", param="line_items[0][quantity]")
    return {"price": price, "quantity": quantity, "rates": rates, "data": data}


def _totals(ordered: Object) -> tuple[int, str]:
    return ordered["price"]["unit_amount"] * ordered["quantity"], ordered["price"]["currency"]


def _added_up(lines: list[Object]) -> tuple[int, str]:
    total, currency = 0, lines[0]["price_data"]["currency"]
    for line in lines:
        price = line["price_data"]
        name = price["product_data"]["name"]
        if price["currency"] != currency or not name or len(name) > 250:
            raise Refusal(400, "Lines have one currency, and names of 1 to 250 characters", param="line_items")
        check_amount(int(price["unit_amount"]), currency, "line_items[0][price_data][unit_amount]")
        total += int(price["unit_amount"]) * int(line["quantity"])
    return total, currency


def _check_total(world: World, total: int, currency: str, *, may_be_free: bool) -> None:
    check_amount(total, currency, "line_items")
    if total < world.smallest.get(currency, 50) and not (may_be_free and total == 0):
        sentence = "The Checkout Session's total amount due must add up to at least €0.50 eur"
        raise Refusal(400, sentence, code="amount_too_small")


def expire(world: World, session: Object) -> Object:
    session.update(status="expired", url=None)
    return world.happened("checkout.session.expired", session)


def _time_is_over(world: World, session_id: str, _: int) -> None:
    if world.objects[session_id]["status"] == "open":
        expire(world, world.objects[session_id])


# Paying


def pay(world: World, session: Object, *, method: str, status: str) -> Object:
    """Somebody pays; returns the session's event."""
    is_paid = status == "paid"
    session["customer_details"] = {"email": "payer@example.org", "name": "Some Payer"}
    if session["mode"] == "subscription":
        invoice = _first_invoice(world, session)
        if billing.collect(world, invoice, "succeeded" if is_paid else "pending", method=method) == "succeeded":
            status = "paid" if session["amount_total"] else "no_payment_required"
        subscription = invoice["parent"]["subscription_details"]["subscription"]
        session.update(subscription=subscription, invoice=invoice["id"])
    else:
        intent = _payment_intent(world, session)
        session["payment_intent"] = intent["id"]
        money.charge(world, intent, "succeeded" if is_paid else "pending", method=method)
        money.announce(world, intent)
    session.update(status="complete", payment_status=status, url=None)
    return world.happened("checkout.session.completed", session)


def conclude(world: World, session: Object, outcome: Literal["succeeded", "failed"], message: str) -> Object:
    """A bank debit of a completed session arrives, or does not; returns the session's event."""
    if session["mode"] == "subscription":
        land(world, world.objects[session["invoice"]], outcome, message)
    else:
        intent = world.objects[session["payment_intent"]]
        money.land(world, intent, outcome, message)
        money.announce(world, intent)
    if outcome == "succeeded":
        session["payment_status"] = "paid"
    ending = "succeeded" if outcome == "succeeded" else "failed"
    return world.happened(f"checkout.session.async_payment_{ending}", session)


def land(world: World, invoice: Object, outcome: Literal["succeeded", "failed"], message: str) -> None:
    """A debit for an invoice arrives, or does not."""
    invoices.land(world, invoice, outcome, message)
    billing.follow(world, invoice, outcome)


def decline(world: World, session: Object, message: str) -> Object:
    """A card is declined on the open page; returns the intent's event."""
    if session["mode"] == "subscription":
        invoice = _first_invoice(world, session)
        mark = len(world.events)
        billing.collect(world, invoice, "failed", message=message)
        return next(one for one in world.events[mark:] if one["type"] == "payment_intent.payment_failed")
    intent = _payment_intent(world, session)
    session["payment_intent"] = intent["id"]
    money.charge(world, intent, "failed", message=message)
    return money.announce(world, intent)


def _first_invoice(world: World, session: Object) -> Object:
    """The invoice of the subscription that this session begins; the same one after a declined card."""
    began = world.objects.get(session.get("_subscription", ""))
    if began is None or began["status"] != "incomplete":
        if session["customer"] is None:
            session["customer"] = world.new(stripe.Customer, "cus", email="payer@example.org", metadata={})["id"]
        ordered = session["_ordered"]
        began = billing.begin(world, customer=session["customer"], **ordered)
        session["_subscription"] = began["id"]
    return world.objects[began["latest_invoice"]]


def _payment_intent(world: World, session: Object) -> Object:
    if session["payment_intent"] is not None:
        return world.objects[session["payment_intent"]]
    data = session.pop("_payment_intent_data")
    return world.new(
        stripe.PaymentIntent,
        "pi",
        amount=session["amount_total"],
        currency=session["currency"],
        customer=session["customer"],
        status="requires_payment_method",
        **{"metadata": {}, **data},
    )
