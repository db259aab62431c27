"""Subscriptions and changes as Ledger would ask a provider for them, with ids of their own each time."""

from datetime import UTC, datetime

import msgspec
from uuid_utils import uuid7

from ledger.providers.contract import Checkout, Payer
from ledger.providers.provider import Provider
from ledger.providers.subscription_contract import WantedChange, WantedSubscription, WantedTax
from tests.providers.wanted import wanted_product

VAT = WantedTax(rate_bp=1900, label="VAT 19 %")


def wanted_subscription(price_remote_id: str, **changes: object) -> WantedSubscription:
    """A subscription without tax."""
    intent_id = str(uuid7())
    wanted = WantedSubscription(
        intent_id=intent_id,
        price_remote_id=price_remote_id,
        tax=None,
        payer=Payer(person_id=7),
        success_url=f"https://dash.example.org/ledger/my/subscriptions/{intent_id}",
        cancel_url=f"https://dash.example.org/ledger/my/subscriptions/{intent_id}",
    )
    return msgspec.structs.replace(wanted, **changes)


def wanted_change(
    subscription_remote_id: str, price_remote_id: str, *, prorate_at: datetime, **changes: object
) -> WantedChange:
    """A prorating change without tax."""
    wanted = WantedChange(
        intent_id=str(uuid7()),
        subscription_remote_id=subscription_remote_id,
        price_remote_id=price_remote_id,
        tax=None,
        prorates=True,
        prorate_at=prorate_at,
    )
    return msgspec.structs.replace(wanted, **changes)


async def priced(provider: Provider, amount_minor: int, currency: str = "EUR", interval: str = "month") -> str:
    """Has a product made; returns what the provider calls its price."""
    wanted = wanted_product(
        amount_minor=amount_minor, currency=currency, interval=interval, name=f"Club {amount_minor}"
    )
    return (await provider.sync_product(wanted)).price_remote_id


async def opened(provider: Provider, wanted: WantedSubscription) -> Checkout:
    """Has a page opened where a subscription can be started."""
    started = await provider.start_subscription(wanted)
    assert isinstance(started, Checkout)
    return started


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
