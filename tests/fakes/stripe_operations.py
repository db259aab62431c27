"""What the operations of the fake Stripe do with its objects, and which parameters of the library each one takes."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stripe
from stripe import params as kinds
from stripe.params import checkout as checkout_kinds

from tests.fakes.stripe_shapes import Object, blank, shown

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe

Act = Callable[["FakeStripe", Object, str], Object]
"""Fake, parameters and the id in the path in; the object out. Raises `Refusal`."""

_DAY_S = 86_400
_STEPS = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}
_SMALLEST = {"gbp": 30, "jpy": 50, "huf": 17_500, "kwd": 150, "isk": 10_000}
_NOT_TAKEN = frozenset({"iqd", "lyd", "uyw", "kpw"})


class Refusal(Exception):
    """An error answer, in Stripe's form."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Object = {"error": {"type": kind or "invalid_request_error", "message": message}}
        if code is not None:
            self.body["error"]["code"] = code
        if param is not None:
            self.body["error"]["param"] = param


@dataclass(frozen=True)
class Route:
    """An operation of Stripe's API."""

    method: str
    path: re.Pattern[str]
    params: type
    act: Act


def _check_amount(amount: int, currency: str, param: str) -> None:
    if currency in _NOT_TAKEN or not re.fullmatch("[a-z]{3}", currency):
        raise Refusal(400, f"Invalid currency: {currency}", param="currency")
    if amount % _STEPS.get(currency, 1):
        code = "invalid_charge_amount_no_decimal_compatible"
        raise Refusal(400, f"Invalid amount. {currency} must end in zeros", code=code, param=param)
    if amount > 99_999_999 and currency not in ("idr", "jpy", "huf", "cop"):
        raise Refusal(400, "Amount must be no more than 99999999", code="amount_too_large", param=param)


def _check_metadata(params: Object) -> None:
    for name, value in params.get("metadata", {}).items():
        if len(name) > 40 or len(value) > 500:
            raise Refusal(400, "Metadata keys have at most 40 characters, values 500", param="metadata")


def _create_customer(fake: "FakeStripe", params: Object, _: str) -> Object:
    _check_metadata(params)
    return fake.new(stripe.Customer, "cus", metadata=params.get("metadata", {}))


def _create_session(fake: "FakeStripe", params: Object, _: str) -> Object:
    _check_metadata(params)
    customer = fake.find("customer", params["customer"], "customer") if "customer" in params else {"id": None}
    lines = params.get("line_items", [])
    if not 0 < len(lines) <= 100:
        raise Refusal(400, "A session has 1 to 100 line items", param="line_items")
    for name in ("success_url", "cancel_url"):
        if not re.match("https?://", params.get(name, "")):
            raise Refusal(400, "Not a valid URL", code="url_invalid", param=name)
    total, currency = 0, lines[0]["price_data"]["currency"]
    for line in lines:
        price = line["price_data"]
        name = price["product_data"]["name"]
        if price["currency"] != currency or not name or len(name) > 250:
            raise Refusal(400, "Lines have one currency, and names of 1 to 250 characters", param="line_items")
        _check_amount(int(price["unit_amount"]), currency, "line_items[0][price_data][unit_amount]")
        total += int(price["unit_amount"]) * int(line["quantity"])
    _check_amount(total, currency, "line_items")
    if total < _SMALLEST.get(currency, 50):
        raise Refusal(
            400, "The Checkout Session's total amount due must add up to at least €0.50 eur", code="amount_too_small"
        )
    session = fake.new(
        stripe.checkout.Session,
        "cs_test",
        amount_subtotal=total,
        amount_total=total + fake.surcharge,
        currency=currency,
        customer=customer["id"],
        status="open",
        payment_status="unpaid",
        payment_method_types=list(fake.payment_method_types),
        expires_at=int(time.time()) + _DAY_S,
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": fake.surcharge},
        **{name: params[name] for name in _KEPT if name in params},
    )
    session["url"] = f"{fake.url}/pay/{session['id']}"
    session["_line_items"] = lines
    session["_payment_intent_data"] = params.get("payment_intent_data", {})
    return session


_KEPT = ("mode", "ui_mode", "client_reference_id", "metadata", "success_url", "cancel_url")


def _expire_session(fake: "FakeStripe", _: Object, session_id: str) -> Object:
    session = fake.find("checkout.session", session_id)
    if session["status"] != "open":
        sentence = 'Only Checkout Sessions with a status in ["open"] can be expired.'
        raise Refusal(400, f"{sentence} This Checkout Session has a status of `{session['status']}`.")
    fake.expire(session_id)
    return session


def _create_refund(fake: "FakeStripe", params: Object, _: str) -> Object:
    _check_metadata(params)
    intent = fake.find("payment_intent", params["payment_intent"], "payment_intent")
    if intent["status"] != "succeeded":
        raise Refusal(400, "This PaymentIntent does not have a successful charge to refund.")
    before = [one for one in fake.of("refund") if one["payment_intent"] == intent["id"]]
    left = intent["amount_received"] - sum(
        one["amount"] for one in before if one["status"] not in ("failed", "canceled")
    )
    amount = int(params.get("amount", left))
    _check_amount(amount, intent["currency"], "amount")
    if left == 0:
        raise Refusal(400, "Charge has already been refunded.", code="charge_already_refunded")
    if not 0 < amount <= left:
        raise Refusal(
            400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount"
        )
    refund = fake.new(
        stripe.Refund,
        "re",
        amount=amount,
        currency=intent["currency"],
        payment_intent=intent["id"],
        charge=intent["latest_charge"],
        metadata=params.get("metadata", {}),
        status=fake.refund_status,
    )
    fake._happened("refund.created", refund)
    return refund


def _create_product(fake: "FakeStripe", params: Object, _: str) -> Object:
    if params.get("description") == "" or not params["name"]:
        raise Refusal(400, "You passed an empty string; unset it by leaving it out", code="parameter_invalid_empty")
    if params.get("id") in fake.objects:
        raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
    return fake.new(stripe.Product, "prod", **{"active": True, **params})


def _create_price(fake: "FakeStripe", params: Object, _: str) -> Object:
    fake.find("product", params["product"], "product")
    _check_amount(int(params["unit_amount"]), params["currency"], "unit_amount")
    if any(one["lookup_key"] == params.get("lookup_key") for one in fake.of("price") if one["lookup_key"]):
        raise Refusal(400, "A price already uses that lookup key.", param="lookup_key")
    values = {**params, "unit_amount": int(params["unit_amount"]), "active": True}
    return fake.new(stripe.Price, "price", **values, type="recurring" if "recurring" in params else "one_time")


def _update(kind: str) -> Act:
    def update(fake: "FakeStripe", params: Object, object_id: str) -> Object:
        thing = fake.find(kind, object_id)
        if "default_price" in params:
            price = fake.find("price", params["default_price"], "default_price")
            if price["product"] != object_id or not price["active"]:
                raise Refusal(400, "The default price must be an active price of the product", param="default_price")
        is_default = any(one["default_price"] == object_id for one in fake.of("product"))
        if kind == "price" and params.get("active") == "false" and is_default:
            raise Refusal(400, "This price cannot be archived because it is the default price of its product.")
        for name, value in params.items():
            thing[name] = (
                {"true": True, "false": False, "": None}.get(value, value) if isinstance(value, str) else value
            )
        return thing

    return update


_WORDS: dict[str, bool | None] = {"true": True, "false": False, "": None}


def _get(kind: str) -> Act:
    return lambda fake, _, object_id: fake.find(kind, object_id)


def _list(kind: str) -> Act:
    def fits(one: Object, params: Object) -> bool:
        created = params.get("created", {})
        if not int(created.get("gte", 0)) <= one["created"] <= int(created.get("lte", one["created"])):
            return False
        if "lookup_keys" in params and one["lookup_key"] not in params["lookup_keys"]:
            return False
        return all(one[name] == params[name] for name in _FILTERS if name in params)

    def page(fake: "FakeStripe", params: Object, _: str) -> Object:
        found = [one for one in reversed(fake.of(kind)) if fits(one, params)]
        if "payment_intent" in params and kind == "refund":
            fake.find("payment_intent", params["payment_intent"], "payment_intent")
        if "starting_after" in params:
            ids = [one["id"] for one in found]
            found = found[ids.index(params["starting_after"]) + 1 :]
        limit = int(params.get("limit", 10))
        if not 1 <= limit <= 100:
            raise Refusal(400, "This value must be between 1 and 100", param="limit")
        return {
            "object": "list",
            "data": [shown(one) for one in found[:limit]],
            "has_more": len(found) > limit,
            "url": f"/v1/{kind}s",
        }

    return page


_FILTERS = ("customer", "payment_intent", "status", "product")


def _list_events(fake: "FakeStripe", params: Object, _: str) -> Object:
    found = [one for one in reversed(fake.events) if params.get("type") in (None, one["type"])]
    limit = int(params.get("limit", 10))
    return {"object": "list", "data": found[:limit], "has_more": len(found) > limit, "url": "/v1/events"}


def _routes() -> Iterator[Route]:
    def route(method: str, path: str, params: type, act: Act) -> Route:
        return Route(method, re.compile(f"/v1/{path}"), params, act)

    one = r"/([\w%-]+)"
    session = "checkout.session"
    yield route("POST", "customers", kinds.CustomerCreateParams, _create_customer)
    yield route("GET", f"customers{one}", kinds.CustomerRetrieveParams, _get("customer"))
    yield route("POST", "checkout/sessions", checkout_kinds.SessionCreateParams, _create_session)
    yield route("GET", "checkout/sessions", checkout_kinds.SessionListParams, _list(session))
    yield route("GET", f"checkout/sessions{one}", checkout_kinds.SessionRetrieveParams, _get(session))
    yield route("POST", f"checkout/sessions{one}/expire", checkout_kinds.SessionExpireParams, _expire_session)
    yield route("GET", "payment_intents", kinds.PaymentIntentListParams, _list("payment_intent"))
    yield route("GET", f"payment_intents{one}", kinds.PaymentIntentRetrieveParams, _get("payment_intent"))
    yield route("GET", f"charges{one}", kinds.ChargeRetrieveParams, _get("charge"))
    yield route("POST", "refunds", kinds.RefundCreateParams, _create_refund)
    yield route("GET", "refunds", kinds.RefundListParams, _list("refund"))
    yield route("GET", f"refunds{one}", kinds.RefundRetrieveParams, _get("refund"))
    yield route("POST", "products", kinds.ProductCreateParams, _create_product)
    yield route("GET", "products", kinds.ProductListParams, _list("product"))
    yield route("GET", f"products{one}", kinds.ProductRetrieveParams, _get("product"))
    yield route("POST", f"products{one}", kinds.ProductUpdateParams, _update("product"))
    yield route("POST", "prices", kinds.PriceCreateParams, _create_price)
    yield route("GET", "prices", kinds.PriceListParams, _list("price"))
    yield route("GET", f"prices{one}", kinds.PriceRetrieveParams, _get("price"))
    yield route("POST", f"prices{one}", kinds.PriceUpdateParams, _update("price"))
    yield route("GET", "account", kinds.AccountRetrieveCurrentParams, lambda fake, _p, _i: fake.account)
    yield route("GET", "balance", kinds.BalanceRetrieveParams, lambda _f, _p, _i: blank(stripe.Balance))
    yield route("GET", "events", kinds.EventListParams, _list_events)


ROUTES = tuple(_routes())
