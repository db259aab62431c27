"""The life of a subscription at the fake Stripe: begun, renewed, changed, behind with payments, ended.

As in the flexible billing mode: what is given back for unused time is a part of what was charged for that time.
"""

from typing import Literal

import stripe

from tests.fakes import stripe_invoices as invoices
from tests.fakes.stripe_arithmetic import next_boundary, share, spelled
from tests.fakes.stripe_money import DECLINED, Outcome
from tests.fakes.stripe_shapes import Object, blank, shown
from tests.fakes.stripe_world import Refusal, World

Behavior = Literal["always_invoice", "create_prorations", "none"]

ENDED = ("canceled", "incomplete_expired")

_INCOMPLETE_S = 23 * 3600
_SIGNS = {"eur": "€", "usd": "$", "gbp": "£"}
_WHOLE = frozenset({"jpy", "krw", "clp", "vnd"})


def item_of(subscription: Object) -> Object:
    """Its only item: the fake knows no subscriptions with several."""
    item: Object = subscription["items"]["data"][0]
    return item


def usable_price(world: World, price_id: str, param: str) -> Object:
    """A price that can be subscribed to. Raises `Refusal`."""
    price = world.find("price", price_id, param)
    if not price["active"]:
        raise Refusal(400, "The price specified is inactive. This field only accepts active prices.", param=param)
    if price["type"] != "recurring":
        sentence = "The price specified is set to `type=one_time` but this field only accepts prices with"
        raise Refusal(400, f"{sentence} `type=recurring`.", param=param)
    return price


def tax_rates(world: World, ids: list[str], param: str) -> list[Object]:
    """Tax rates as they stand inside other objects. Raises `Refusal`."""
    found = [world.find("tax_rate", one, param) for one in ids]
    for rate in found:
        if not rate["active"]:
            raise Refusal(400, f"The tax rate {rate['id']} is archived and cannot be used.", param=param)
    return [shown(rate) for rate in found]


# Beginning


def begin(world: World, *, customer: str, price: Object, quantity: int, rates: list[Object], data: Object) -> Object:
    """An incomplete subscription with its first invoice, which waits to be paid."""
    subscription = world.new(
        stripe.Subscription,
        "sub",
        billing_cycle_anchor=world.now,
        billing_mode={"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": None},
        cancel_at_period_end=False,
        cancellation_details={**blank(stripe.Subscription.CancellationDetails)},
        collection_method="charge_automatically",
        currency=price["currency"],
        customer=customer,
        default_payment_method=world.new_id("pm"),
        default_tax_rates=rates,
        description=data.get("description"),
        metadata=dict(data.get("metadata", {})),
        start_date=world.now,
        status="incomplete",
    )
    item = {
        **blank(stripe.SubscriptionItem),
        **{"id": world.new_id("si"), "created": world.now, "subscription": subscription["id"], "tax_rates": []},
    }
    subscription["items"] = {
        **{"object": "list", "data": [item], "has_more": False, "total_count": 1},
        "url": f"/v1/subscription_items?subscription={subscription['id']}",
    }
    _put_price(item, price, quantity)
    subscription.update(_debits=[], _pending=[])
    _begin_period(world, subscription, world.now)
    lines = [_period_line(world, subscription)]
    world.happened("customer.subscription.created", subscription)
    invoice = invoices.draft(world, subscription, lines, reason="subscription_create", period=(world.now, world.now))
    world.happened("invoice.created", invoice)
    invoices.finalize(world, invoice)
    world.due(world.now + _INCOMPLETE_S, _give_up, subscription["id"])
    return subscription


def _give_up(world: World, subscription_id: str, due: int) -> None:
    """A first invoice that nobody paid within a day."""
    subscription = world.objects[subscription_id]
    if subscription["status"] == "incomplete":
        before = shown(subscription)
        invoices.void(world, world.objects[subscription["latest_invoice"]])
        subscription.update(status="incomplete_expired", ended_at=due)
        world.happened("customer.subscription.updated", subscription, before)


def _put_price(item: Object, price: Object, quantity: int) -> None:
    recurring = {**blank(stripe.Price.Recurring), "usage_type": "licensed", **price["recurring"]}
    recurring["interval_count"] = int(recurring["interval_count"] or 1)
    item.update(price={**shown(price), "recurring": recurring}, quantity=quantity)
    item["plan"] = {
        **blank(stripe.Plan),
        **{name: price[name] for name in ("id", "active", "created", "currency", "metadata", "product")},
        **{"amount": price["unit_amount"], "amount_decimal": str(price["unit_amount"]), "usage_type": "licensed"},
        **{"interval": recurring["interval"], "interval_count": recurring["interval_count"]},
    }


def _begin_period(world: World, subscription: Object, start: int) -> None:
    item = item_of(subscription)
    every = item["plan"]
    end = next_boundary(subscription["billing_cycle_anchor"], start, every["interval"], every["interval_count"])
    item.update(current_period_start=start, current_period_end=end)
    subscription["_debits"] = []
    if subscription["cancel_at_period_end"]:
        subscription["cancel_at"] = end
    world.due(end, _period_over, subscription["id"])


def rates_of(subscription: Object) -> list[Object]:
    """The tax rates that its lines get."""
    own: list[Object] = item_of(subscription)["tax_rates"]
    return own or list(subscription["default_tax_rates"])


def _period_line(world: World, subscription: Object) -> Object:
    """The line for a whole period at the present price."""
    item = item_of(subscription)
    price, quantity = item["price"], item["quantity"]
    currency = price["currency"]
    amount = str(price["unit_amount"]) if currency in _WHOLE else f"{price['unit_amount'] / 100:.2f}"
    each = f"{_SIGNS.get(currency, f'{currency.upper()} ')}{amount} / {item['plan']['interval']}"
    return _debit(
        world,
        subscription,
        price["unit_amount"] * quantity,
        (item["current_period_start"], item["current_period_end"]),
        f"{quantity} × {world.objects[price['product']]['name']} (at {each})",
    )


def _debit(
    world: World,
    subscription: Object,
    amount: int,
    period: tuple[int, int],
    description: str,
    *,
    is_proration: bool = False,
) -> Object:
    item = item_of(subscription)
    rates = rates_of(subscription)
    line = invoices.line(
        world,
        subscription,
        amount=amount,
        price=item["price"],
        quantity=item["quantity"],
        period=period,
        description=description,
        rates=rates,
        is_proration=is_proration,
    )
    subscription["_debits"].append(
        {"line": line, "price": item["price"], "rates": rates, "quantity": item["quantity"], "credited": 0}
    )
    return line


# Renewing


def _period_over(world: World, subscription_id: str, due: int) -> None:
    subscription = world.objects[subscription_id]
    is_live = subscription["status"] not in (*ENDED, "incomplete")
    if is_live and item_of(subscription)["current_period_end"] == due:
        if subscription["cancel_at"] is not None and subscription["cancel_at"] <= due:
            _end_with_the_period(world, subscription)
        else:
            _, invoice = renew(world, subscription)
            if world.draft_s:
                world.due(world.now + world.draft_s, _finish, invoice["id"])
            else:
                _finish(world, invoice["id"], world.now)


def renew(world: World, subscription: Object) -> tuple[Object, Object]:
    """Begins the next period; returns the subscription and the draft of its invoice."""
    before = shown(subscription)
    item = item_of(subscription)
    over = item["current_period_start"], item["current_period_end"]
    _begin_period(world, subscription, over[1])
    lines = [*_taken(subscription), _period_line(world, subscription)]
    invoice = invoices.draft(world, subscription, lines, reason="subscription_cycle", period=over)
    world.happened("customer.subscription.updated", subscription, before)
    world.happened("invoice.created", invoice)
    return subscription, invoice


def _taken(subscription: Object) -> list[Object]:
    """The lines that waited for an invoice."""
    pending: list[Object] = subscription["_pending"]
    subscription["_pending"] = []
    return pending


def _finish(world: World, invoice_id: str, _: int) -> None:
    """A draft becomes final and is collected."""
    invoice = world.objects[invoice_id]
    if invoice["status"] == "draft" and invoice["auto_advance"]:
        invoices.finalize(world, invoice)
        collect(world, invoice)


def collect(
    world: World, invoice: Object, outcome: Outcome | None = None, *, method: str = "card", message: str = DECLINED
) -> Outcome:
    """Tries to get the money of an invoice; the subscription's status follows."""
    outcome = invoices.collect(world, invoice, outcome, method=method, message=message)
    follow(world, invoice, outcome)
    return outcome


def follow(world: World, invoice: Object, outcome: Outcome) -> None:
    """What became of an invoice tells how its subscription stands; only the latest invoice counts."""
    subscription = world.objects[invoice["parent"]["subscription_details"]["subscription"]]
    present = status = subscription["status"]
    if present in ENDED or subscription["latest_invoice"] != invoice["id"]:
        return
    if outcome == "failed":
        status = "incomplete" if present == "incomplete" else "past_due"
    elif outcome == "succeeded" or present == "incomplete":
        status = "active"
    if status != present:
        before = shown(subscription)
        subscription["status"] = status
        world.happened("customer.subscription.updated", subscription, before)


# Changing


def change_item(
    world: World, subscription: Object, price: Object, quantity: int, *, behavior: Behavior, prorated_at: int
) -> Object | None:
    """Another price or quantity; returns the draft of an invoice if the change makes one at once."""
    item = item_of(subscription)
    old = item["price"]
    if (old["id"], item["quantity"]) == (price["id"], quantity):
        return None
    if price["currency"] != subscription["currency"]:
        sentence = f"The price specified only supports `{price['currency']}`. This doesn't match the expected currency:"
        raise Refusal(400, f"{sentence} `{subscription['currency']}`.", param="items[0][price]")
    if not item["current_period_start"] <= prorated_at <= item["current_period_end"]:
        raise Refusal(400, "Cannot specify `proration_date` outside of the current period.", param="proration_date")
    end = item["current_period_end"]
    credits_ = [] if behavior == "none" else _credits(world, subscription, prorated_at)
    interval = item["plan"]["interval"], item["plan"]["interval_count"]
    _put_price(item, price, quantity)
    begins_anew = interval != (item["plan"]["interval"], item["plan"]["interval_count"])
    if begins_anew or (old["unit_amount"] == 0 < price["unit_amount"]):
        subscription["billing_cycle_anchor"] = world.now
        _begin_period(world, subscription, world.now)
        lines = [*_taken(subscription), *credits_, _period_line(world, subscription)]
    elif behavior == "none":
        return None
    else:
        lines = [*_taken(subscription), *credits_, _remaining(world, subscription, prorated_at, end)]
        if behavior == "create_prorations":
            subscription["_pending"] = lines
            return None
    return invoices.draft(world, subscription, lines, reason="subscription_update", period=(world.now, world.now))


def _credits(world: World, subscription: Object, at: int) -> list[Object]:
    """Unused time, for every line that charged for it; never more than was charged."""
    found = []
    for debit in subscription["_debits"]:
        line, price = debit["line"], debit["price"]
        start, end = line["period"]["start"], line["period"]["end"]
        amount = share(line["amount"], end - max(at, start), end - start) - debit["credited"] if end > start else 0
        if amount <= 0:
            continue
        debit["credited"] += amount
        credit = invoices.line(
            world,
            subscription,
            amount=-amount,
            price=price,
            quantity=debit["quantity"],
            period=(max(at, start), end),
            description=f"Unused time on {_name(world, price, debit['quantity'])} after {spelled(at)}",
            rates=debit["rates"],
            credited=line,
            is_proration=True,
        )
        found.append(credit)
    return found


def _remaining(world: World, subscription: Object, at: int, end: int) -> Object:
    item = item_of(subscription)
    price, quantity = item["price"], item["quantity"]
    amount = share(price["unit_amount"] * quantity, end - at, end - item["current_period_start"])
    description = f"Remaining time on {_name(world, price, quantity)} after {spelled(at)}"
    return _debit(world, subscription, amount, (at, end), description, is_proration=True)


def _name(world: World, price: Object, quantity: int) -> str:
    name = world.objects[price["product"]]["name"]
    return f"{quantity} × {name}" if quantity != 1 else str(name)


# Ending


def end(world: World, subscription: Object, reason: str = "cancellation_requested") -> Object:
    """It is over now; returns the event."""
    subscription.update(status="canceled", ended_at=world.now, canceled_at=subscription["canceled_at"] or world.now)
    latest = world.objects[subscription["latest_invoice"]]
    if latest["status"] in ("draft", "open"):
        # Stripe does not try by itself any more; it can still be paid.
        latest.update(auto_advance=False, next_payment_attempt=None)
    details = subscription["cancellation_details"]
    details["reason"] = details["reason"] or reason
    return world.happened("customer.subscription.deleted", subscription)


def _end_with_the_period(world: World, subscription: Object) -> None:
    """Lines that still wait for an invoice get one first."""
    item = item_of(subscription)
    if subscription["_pending"]:
        period = item["current_period_start"], item["current_period_end"]
        lines = _taken(subscription)
        invoice = invoices.draft(world, subscription, lines, reason="subscription_cycle", period=period)
        world.happened("invoice.created", invoice)
        _finish(world, invoice["id"], world.now)
    end(world, subscription)


def plan_end(world: World, subscription: Object, at: int | None) -> None:
    """Is to end at a moment, or no longer."""
    subscription.update(cancel_at=at, canceled_at=world.now if at is not None else None)
    subscription["cancellation_details"]["reason"] = "cancellation_requested" if at is not None else None
    if at is not None:
        world.due(at, _ends_by_plan, subscription["id"])


def _ends_by_plan(world: World, subscription_id: str, due: int) -> None:
    subscription = world.objects[subscription_id]
    if subscription["status"] not in ENDED and subscription["cancel_at"] == due:
        end(world, subscription)
