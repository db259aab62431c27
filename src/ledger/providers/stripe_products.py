"""Products and prices as Stripe knows them."""

from contextlib import suppress
from typing import TYPE_CHECKING

from ledger.providers.contract import OutcomeUnknown, SyncedProduct, WantedProduct
from ledger.providers.stripe_amounts import to_stripe_amount
from ledger.providers.stripe_calls import Calls, Listed, NotKnown
from ledger.providers.stripe_payloads import Identified

if TYPE_CHECKING:
    from stripe.params import PriceCreateParams


async def sync_product(calls: Calls, wanted: WantedProduct) -> SyncedProduct:
    """See `Provider.sync_product`. Every step may be repeated: ids and lookup keys are Ledger's own."""
    amount = to_stripe_amount(wanted.amount_minor, wanted.currency)
    product_id = wanted.product_remote_id or await _make_product(calls, wanted)
    try:
        price_id = wanted.price_remote_id or await _make_price(calls, wanted, product_id, amount)
        await _update_product(calls, wanted, product_id, price_id)
    except NotKnown:
        # The key belongs to another account now, or somebody deleted things there: begin anew.
        product_id = await _make_product(calls, wanted)
        price_id = await _make_price(calls, wanted, product_id, amount)
        await _update_product(calls, wanted, product_id, price_id)
    for old_id in wanted.old_price_remote_ids:
        await _archive_price(calls, old_id)
    return SyncedProduct(product_remote_id=product_id, price_remote_id=price_id)


async def _make_product(calls: Calls, wanted: WantedProduct) -> str:
    product_id = f"ledger_{wanted.product_id}"
    try:
        await calls.ask(lambda: calls.v1.products.retrieve_async(product_id), Identified)
    except NotKnown:
        await calls.ask(
            lambda: calls.v1.products.create_async(
                {"id": product_id, "name": wanted.name, "metadata": {"product_id": wanted.product_id}},
                {"idempotency_key": f"ledger-product-{wanted.intent_id}"},
            ),
            Identified,
            doubt=OutcomeUnknown,
        )
    return product_id


async def _make_price(calls: Calls, wanted: WantedProduct, product_id: str, amount: int) -> str:
    found = await calls.ask(
        lambda: calls.v1.prices.list_async({"lookup_keys": [wanted.price_id], "limit": 1}), Listed[Identified]
    )
    if found.data:
        return found.data[0].id
    params: PriceCreateParams = {
        "product": product_id,
        "currency": wanted.currency.lower(),
        "unit_amount": amount,
        "lookup_key": wanted.price_id,
        "metadata": {"price_id": wanted.price_id},
    }
    if wanted.interval is not None:
        params["recurring"] = {"interval": wanted.interval}
    price = await calls.ask(
        lambda: calls.v1.prices.create_async(params, {"idempotency_key": f"ledger-price-{wanted.intent_id}"}),
        Identified,
        doubt=OutcomeUnknown,
    )
    return price.id


async def _update_product(calls: Calls, wanted: WantedProduct, product_id: str, price_id: str) -> None:
    await calls.ask(
        lambda: calls.v1.products.update_async(
            product_id,
            {
                "name": wanted.name,
                "description": wanted.description or "",
                "active": wanted.is_active,
                # A price cannot be archived while it is the default one.
                "default_price": price_id,
            },
        ),
        Identified,
        doubt=OutcomeUnknown,
    )


async def _archive_price(calls: Calls, price_id: str) -> None:
    with suppress(NotKnown):
        await calls.ask(lambda: calls.v1.prices.update_async(price_id, {"active": False}), Identified)
