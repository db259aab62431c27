"""Stripe: people pay and subscribe on its Checkout page, and money goes back through it.

`docs/providers/stripe.md` is the document for administrators, `docs/decisions/0006-stripe-calls.md` says how its API is
called and why. The library is imported when Stripe is first needed: that takes about a second and 25 MB.
"""

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from ledger.errors import FieldError
from ledger.providers.contract import (
    BankAccount,
    Capability,
    Checkout,
    CheckoutState,
    EventMeaning,
    EventPage,
    ProviderEvent,
    ProviderRefused,
    RefundState,
    SettingField,
    Settings,
    SignatureWrong,
    SyncedProduct,
    WantedPayment,
    WantedProduct,
    WantedRefund,
)
from ledger.providers.stripe_calls import Calls, Listed, open_client
from ledger.providers.stripe_checkout import expire_checkout, look_up_checkout, start_payment
from ledger.providers.stripe_events import list_events, provider_event, understand_event
from ledger.providers.stripe_payloads import Account, Event, Session
from ledger.providers.stripe_periods import list_paid_periods, look_up_period
from ledger.providers.stripe_preview import preview_change
from ledger.providers.stripe_products import sync_product
from ledger.providers.stripe_refunds import look_up_refund, refund
from ledger.providers.stripe_subscriptions import (
    cancel_subscription,
    change_subscription,
    look_up_subscription,
    reactivate_subscription,
    start_subscription,
)
from ledger.providers.subscription_contract import (
    BilledPeriod,
    ChangePreview,
    SubscriptionState,
    WantedChange,
    WantedSubscription,
)

if TYPE_CHECKING:
    import stripe

SIGNATURE_TOLERANCE_S = 300
"""How old a signed event may be (Stripe's own default)."""

_FIELDS = (
    SettingField(
        key="secretKey",
        label="Secret Key",
        kind="password",
        is_secret=True,
        is_required=True,
        placeholder="sk_live_… or rk_live_…",
    ),
    SettingField(key="publicKey", label="Publishable Key", placeholder="pk_live_…"),
    SettingField(
        key="webhookSecret", label="Webhook Signing Secret", kind="password", is_secret=True, placeholder="whsec_…"
    ),
)
_SECRET_KEY = re.compile(r"(?:sk|rk)_(test|live)_[A-Za-z0-9_]{8,300}")
_PUBLIC_KEY = re.compile(r"pk_(test|live)_[A-Za-z0-9_]{8,300}")
_WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{8,300}")


class StripeType:
    """Payments through a Stripe account (implements `provider.ProviderType`)."""

    name: ClassVar[str] = "stripe"
    label: ClassVar[str] = "Stripe"
    syncs_products: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {
            Capability.INVOICES,
            Capability.CHECKOUT,
            Capability.REFUNDS,
            Capability.SUBSCRIPTIONS,
            Capability.RECURRING_BILLING,
        }
    )

    def __init__(self, api_base: str | None = None) -> None:
        """`api_base` replaces `https://api.stripe.com`, for tests."""
        self._api_base = api_base

    def fields(self) -> Sequence[SettingField]:
        return _FIELDS

    def check(self, settings: Settings) -> Sequence[FieldError]:
        """Looks at the form of the keys only; `StripeProvider.test` asks Stripe."""
        faults = []
        secret_key, public_key, webhook_secret = (_setting(settings, field.key) for field in _FIELDS)
        if not secret_key:
            faults.append(
                FieldError("secretKey", "Enter the secret key from the Stripe Dashboard: Developers, API keys")
            )
        elif secret_key.startswith("pk_"):
            faults.append(FieldError("secretKey", "This is the publishable key; the secret key begins with sk_ or rk_"))
        elif not _SECRET_KEY.fullmatch(secret_key):
            faults.append(FieldError("secretKey", "A secret key begins with sk_test_, sk_live_, rk_test_ or rk_live_"))
        if public_key and not _PUBLIC_KEY.fullmatch(public_key):
            faults.append(FieldError("publicKey", "A publishable key begins with pk_test_ or pk_live_"))
        elif public_key and not faults and _mode(public_key) != _mode(secret_key):
            sentence = (
                f"The secret key is of the {_mode(secret_key)} mode, this one is not; take both from the same mode"
            )
            faults.append(FieldError("publicKey", sentence))
        if webhook_secret and not _WEBHOOK_SECRET.fullmatch(webhook_secret):
            faults.append(FieldError("webhookSecret", "The signing secret of a webhook endpoint begins with whsec_"))
        return faults

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """Test and live mode are two worlds: what was paid in one is unknown in the other."""
        if _is_live(before.get("secretKey", "")) == _is_live(after.get("secretKey", "")):
            return ()
        sentence = (
            "This connection took payments in the other mode already; add a second Stripe provider for this key instead"
        )
        return (FieldError("secretKey", sentence),)

    def connect(self, settings: Settings) -> "StripeProvider":
        """Costs nothing: neither the library nor Stripe is needed yet."""
        return StripeProvider(
            secret_key=_setting(settings, "secretKey"),
            webhook_secret=_setting(settings, "webhookSecret"),
            api_base=self._api_base,
        )


def _setting(settings: Settings, key: str) -> str:
    return settings.get(key, "").strip()


def _mode(key: str) -> str:
    return "live" if key[3:].startswith("live_") else "test"


def _is_live(secret_key: str) -> bool:
    return "_live_" in secret_key


class StripeProvider:
    """A connection to one Stripe account, in its test or its live mode (implements `provider.Provider`)."""

    def __init__(self, *, secret_key: str, webhook_secret: str, api_base: str | None) -> None:
        self._secret_key = secret_key
        self._webhook_secret = webhook_secret
        self._secrets = secret_key, webhook_secret
        self._api_base = api_base
        self._mode = _mode(secret_key)
        self._opening = threading.Lock()
        self._client: stripe.StripeClient | None = None
        self._http: stripe.HTTPXClient | None = None

    def bank_account(self) -> BankAccount | None:
        """None: Stripe pays out to an account that payers never see."""
        return None

    async def close(self) -> None:
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.close_async()  # type: ignore[no-untyped-call]

    async def test(self) -> str:
        calls = await self._begin()
        # What Ledger cannot do without is tried first; the name of the account is only for people.
        await calls.ask(lambda: calls.v1.checkout.sessions.list_async({"limit": 1}), Listed[Session])
        try:
            account = await calls.ask(calls.v1.accounts.retrieve_current_async, Account)
        except ProviderRefused:
            return f"Connected to Stripe in {self._mode} mode, with a key that may not read the account's name"
        sentence = f"Connected to Stripe as {account.shown_name} in {self._mode} mode"
        return sentence if account.charges_enabled else f"{sentence}, which cannot take payments yet"

    # Payments

    async def start_payment(self, wanted: WantedPayment) -> Checkout:
        return await start_payment(await self._begin(), secrets=self._secrets, wanted=wanted)

    async def look_up_checkout(self, *, intent_id: str, remote_id: str | None) -> CheckoutState:
        return await look_up_checkout(await self._begin(), intent_id=intent_id, remote_id=remote_id)

    async def expire_checkout(self, *, remote_id: str) -> CheckoutState:
        return await expire_checkout(await self._begin(), remote_id=remote_id)

    async def refund(self, wanted: WantedRefund) -> RefundState:
        return await refund(await self._begin(), wanted)

    async def look_up_refund(self, wanted: WantedRefund, *, remote_id: str | None) -> RefundState:
        return await look_up_refund(await self._begin(), wanted, remote_id=remote_id)

    # Products and subscriptions

    async def sync_product(self, wanted: WantedProduct) -> SyncedProduct:
        return await sync_product(await self._begin(), wanted)

    async def start_subscription(self, wanted: WantedSubscription) -> Checkout | SubscriptionState:
        return await start_subscription(await self._begin(), secrets=self._secrets, wanted=wanted)

    async def look_up_subscription(
        self, *, intent_id: str, remote_id: str | None, checkout_remote_id: str | None
    ) -> SubscriptionState:
        return await look_up_subscription(
            await self._begin(), intent_id=intent_id, remote_id=remote_id, checkout_remote_id=checkout_remote_id
        )

    async def preview_change(self, wanted: WantedChange) -> ChangePreview:
        return await preview_change(await self._begin(), wanted)

    async def change_subscription(self, wanted: WantedChange) -> SubscriptionState:
        return await change_subscription(await self._begin(), wanted)

    async def cancel_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        return await cancel_subscription(await self._begin(), intent_id=intent_id, remote_id=remote_id)

    async def reactivate_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        return await reactivate_subscription(await self._begin(), intent_id=intent_id, remote_id=remote_id)

    async def look_up_period(self, *, remote_id: str) -> BilledPeriod | None:
        return await look_up_period(await self._begin(), remote_id=remote_id)

    async def list_paid_periods(self, *, subscription_remote_id: str, since: datetime) -> Sequence[str]:
        calls = await self._begin()
        return await list_paid_periods(calls, subscription_remote_id=subscription_remote_id, since=since)

    # Events

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        if not self._webhook_secret:
            raise SignatureWrong("This Stripe connection has no webhook signing secret; enter it in its settings")
        from stripe import SignatureVerificationError, WebhookSignature

        try:
            # Not `construct_event`, which fails in its own way for text that is no event.
            WebhookSignature.verify_header(
                body.decode(), headers.get("stripe-signature", ""), self._webhook_secret, SIGNATURE_TOLERANCE_S
            )
            event = msgspec.json.decode(body, type=Event)
        except (SignatureVerificationError, ValueError, TypeError) as error:
            # `ValueError` covers bytes that are no text and text that is no event; `TypeError` an odd signature.
            raise SignatureWrong("This is not signed by Stripe for this connection, or it is too old") from error
        if event.livemode != (self._mode == "live"):
            raise SignatureWrong(f"This event is not of the {self._mode} mode that this connection works in")
        return provider_event(event)

    async def understand_event(self, body: bytes) -> EventMeaning:
        return await understand_event(body, self._begin)

    async def list_events(self, *, since: datetime, after: str | None) -> EventPage:
        calls = await self._begin()
        return await list_events(calls, is_live=self._mode == "live", since=since, after=after)

    # The client

    async def _begin(self) -> Calls:
        """Starts a method's time. The library is imported in a thread, so that other requests go on meanwhile."""
        calls = Calls()
        client = self._client
        if client is None:
            client = await calls.within(asyncio.to_thread(self._opened))
        calls.v1 = client.v1
        return calls

    def _opened(self) -> "stripe.StripeClient":
        with self._opening:
            if self._client is None:
                self._client, self._http = open_client(self._secret_key, self._api_base)
            return self._client
