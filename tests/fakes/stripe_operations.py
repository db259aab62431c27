"""What the operations of the fake Stripe do with its objects, and which parameters of the library each one takes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import stripe
from stripe import params as kinds
from stripe.params import checkout as checkout_kinds

from tests.fakes import stripe_billing_operations as billing
from tests.fakes import stripe_money as money
from tests.fakes.stripe_checkout import check_amount, check_metadata, create_session
from tests.fakes.stripe_paging import Act, listed
from tests.fakes.stripe_shapes import Object, blank
from tests.fakes.stripe_world import Refusal

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe


@dataclass(frozen=True)
class Route:
    """An operation of Stripe's API."""

    method: str
    path: re.Pattern[str]
    params: type
    act: Act


def _create_customer(fake: "FakeStripe", params: Object, _: str) -> Object:
    check_metadata(params)
    values = {"metadata": {}, "balance": 0, "delinquent": False, **params}
    return fake.new(stripe.Customer, "cus", **{name: value for name, value in values.items() if name != "expand"})


def _expire_session(fake: "FakeStripe", _: Object, session_id: str) -> Object:
    session = fake.find("checkout.session", session_id)
    if session["status"] != "open":
        sentence = 'Only Checkout Sessions with a status in ["open"] can be expired.'
        raise Refusal(400, f"{sentence} This Checkout Session has a status of `{session['status']}`.")
    fake.expire(session_id)
    return session


def _create_refund(fake: "FakeStripe", params: Object, _: str) -> Object:
    check_metadata(params)
    intent = fake.find("payment_intent", params["payment_intent"], "payment_intent")
    amount = int(params.get("amount", money.left_to_refund(fake, intent)))
    check_amount(amount, intent["currency"], "amount")
    return money.refund(fake, intent, amount, fake.refund_status, params.get("metadata", {}), params.get("reason"))


def _create_product(fake: "FakeStripe", params: Object, _: str) -> Object:
    if params.get("description") == "" or not params["name"]:
        raise Refusal(400, "You passed an empty string; unset it by leaving it out", code="parameter_invalid_empty")
    if params.get("id") in fake.objects:
        raise Refusal(400, "Product already exists.", code="resource_already_exists", param="id")
    return fake.new(stripe.Product, "prod", **{"active": True, **params})


def _create_price(fake: "FakeStripe", params: Object, _: str) -> Object:
    fake.find("product", params["product"], "product")
    check_amount(int(params["unit_amount"]), params["currency"], "unit_amount")
    if any(one["lookup_key"] == params.get("lookup_key") for one in fake.of("price") if one["lookup_key"]):
        raise Refusal(400, "A price already uses that lookup key.", param="lookup_key")
    values = {**params, "unit_amount": int(params["unit_amount"]), "active": True, "type": "one_time"}
    values["unit_amount_decimal"] = str(values["unit_amount"])
    if "recurring" in params:
        values["type"] = "recurring"
    return fake.new(stripe.Price, "price", **values)


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


def _list_refunds(fake: "FakeStripe", params: Object, _: str) -> Object:
    if "payment_intent" in params:
        fake.find("payment_intent", params["payment_intent"], "payment_intent")
    return listed("refund", "/v1/refunds", ("payment_intent", "charge"))(fake, params, _)


def _price_fits(one: Object, params: Object) -> bool:
    return "lookup_keys" not in params or one["lookup_key"] in params["lookup_keys"]


_list_customers = listed("customer", "/v1/customers", ("email",))
_list_sessions = listed(
    "checkout.session", "/v1/checkout/sessions", ("customer", "payment_intent", "status", "subscription")
)
_list_intents = listed("payment_intent", "/v1/payment_intents", ("customer",))
_list_products = listed("product", "/v1/products", ())
_list_prices = listed("price", "/v1/prices", ("product", "currency"), _price_fits)
_list_disputes = listed("dispute", "/v1/disputes", ("payment_intent", "charge"))
_list_tax_rates = listed("tax_rate", "/v1/tax_rates", ())


def _route(method: str, path: str, params: type, act: Act) -> Route:
    return Route(method, re.compile(f"/v1/{path}"), params, act)


def _routes() -> Iterator[Route]:
    one = r"/([\w%-]+)"
    yield _route("POST", "customers", kinds.CustomerCreateParams, _create_customer)
    yield _route("GET", f"customers{one}", kinds.CustomerRetrieveParams, _get("customer"))
    yield _route("POST", "checkout/sessions", checkout_kinds.SessionCreateParams, create_session)
    yield _route("GET", "checkout/sessions", checkout_kinds.SessionListParams, _list_sessions)
    yield _route("GET", f"checkout/sessions{one}", checkout_kinds.SessionRetrieveParams, _get("checkout.session"))
    yield _route("POST", f"checkout/sessions{one}/expire", checkout_kinds.SessionExpireParams, _expire_session)
    yield _route("GET", "payment_intents", kinds.PaymentIntentListParams, _list_intents)
    yield _route("GET", f"payment_intents{one}", kinds.PaymentIntentRetrieveParams, _get("payment_intent"))
    yield _route("GET", f"charges{one}", kinds.ChargeRetrieveParams, _get("charge"))
    yield _route("POST", "refunds", kinds.RefundCreateParams, _create_refund)
    yield _route("GET", "refunds", kinds.RefundListParams, _list_refunds)
    yield _route("GET", f"refunds{one}", kinds.RefundRetrieveParams, _get("refund"))
    yield _route("POST", "products", kinds.ProductCreateParams, _create_product)
    yield _route("GET", "products", kinds.ProductListParams, _list_products)
    yield _route("GET", f"products{one}", kinds.ProductRetrieveParams, _get("product"))
    yield _route("POST", f"products{one}", kinds.ProductUpdateParams, _update("product"))
    yield _route("POST", "prices", kinds.PriceCreateParams, _create_price)
    yield _route("GET", "prices", kinds.PriceListParams, _list_prices)
    yield _route("GET", f"prices{one}", kinds.PriceRetrieveParams, _get("price"))
    yield _route("POST", f"prices{one}", kinds.PriceUpdateParams, _update("price"))
    yield _route("GET", "account", kinds.AccountRetrieveCurrentParams, lambda fake, _p, _i: fake.account)
    yield _route("GET", "balance", kinds.BalanceRetrieveParams, lambda _f, _p, _i: blank(stripe.Balance))
    yield _route("GET", "events", kinds.EventListParams, billing.list_events)
    yield _route("GET", f"events{one}", kinds.EventRetrieveParams, billing.get_event)
    yield _route("GET", "disputes", kinds.DisputeListParams, _list_disputes)
    yield _route("GET", f"disputes{one}", kinds.DisputeRetrieveParams, _get("dispute"))
    yield from _billing_routes()


def _billing_routes() -> Iterator[Route]:
    one = r"/([\w%-]+)"
    yield _route("POST", "tax_rates", kinds.TaxRateCreateParams, billing.create_tax_rate)
    yield _route("GET", "tax_rates", kinds.TaxRateListParams, _list_tax_rates)
    yield _route("GET", f"tax_rates{one}", kinds.TaxRateRetrieveParams, _get("tax_rate"))
    yield _route("POST", f"tax_rates{one}", kinds.TaxRateUpdateParams, _update("tax_rate"))
    yield _route("GET", "subscriptions", kinds.SubscriptionListParams, billing.list_subscriptions)
    yield _route("GET", f"subscriptions{one}", kinds.SubscriptionRetrieveParams, _get("subscription"))
    yield _route("POST", f"subscriptions{one}", kinds.SubscriptionUpdateParams, billing.update_subscription)
    yield _route("DELETE", f"subscriptions{one}", kinds.SubscriptionCancelParams, billing.cancel_subscription)
    yield _route("GET", "invoices", kinds.InvoiceListParams, billing.list_invoices)
    yield _route("POST", "invoices/create_preview", kinds.InvoiceCreatePreviewParams, billing.create_preview)
    yield _route("GET", f"invoices{one}", kinds.InvoiceRetrieveParams, _get("invoice"))
    yield _route("POST", f"invoices{one}/pay", kinds.InvoicePayParams, billing.pay_invoice)
    yield _route("GET", f"invoices{one}/lines", kinds.InvoiceListLinesParams, billing.list_lines)
    yield _route("GET", "invoice_payments", kinds.InvoicePaymentListParams, billing.list_payments)
    yield _route("GET", f"invoice_payments{one}", kinds.InvoicePaymentRetrieveParams, _get("invoice_payment"))


ROUTES = tuple(_routes())
