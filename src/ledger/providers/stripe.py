"""Stripe: people pay on its Checkout page, and money goes back through it.

`docs/providers/stripe.md` is the document for administrators, `docs/decisions/0006-stripe-calls.md` says how its API is
called and why. The library is imported when Stripe is first needed: that takes about a second and 25 MB.
"""

import asyncio
import hashlib
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import msgspec

from ledger.errors import FieldError
from ledger.money import format_money
from ledger.providers.contract import (
    Capability,
    Checkout,
    CheckoutCompleted,
    CheckoutExpired,
    CheckoutState,
    EventMeaning,
    NothingToDo,
    OutcomeUnknown,
    PaymentFailed,
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
from ledger.providers.provider import ProviderDefaults
from ledger.providers.stripe_calls import Calls, NotKnown, open_client
from ledger.providers.stripe_payloads import (
    Account,
    Event,
    Identified,
    IdentifiedList,
    PaymentIntent,
    Refund,
    RefundList,
    Session,
    SessionList,
    checkout_of,
    checkout_state_of,
    from_stripe_amount,
    made_at_s,
    payment_of,
    refund_state_of,
    session_params,
    time_of,
    to_stripe_amount,
)

if TYPE_CHECKING:
    import stripe
    from stripe.params import PriceCreateParams, RefundListParams
    from stripe.params.checkout import SessionCreateParams, SessionListParams

SIGNATURE_TOLERANCE_S = 300
"""How old a signed event may be (Stripe's own default)."""

_PAGE = 100
_PAGES_MAX = 10
_CLOCK_SKEW_S = 300
_WITH_CHARGE = ["payment_intent.latest_charge"]

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
    """Payments through a Stripe account (implements `contract.ProviderType`)."""

    name: ClassVar[str] = "stripe"
    label: ClassVar[str] = "Stripe"
    syncs_products: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {Capability.INVOICES, Capability.CHECKOUT, Capability.REFUNDS}
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


class StripeProvider(ProviderDefaults):
    """A connection to one Stripe account, in its test or its live mode (implements `contract.Provider`)."""

    def __init__(self, *, secret_key: str, webhook_secret: str, api_base: str | None) -> None:
        self._secret_key = secret_key
        self._webhook_secret = webhook_secret
        self._api_base = api_base
        self._mode = _mode(secret_key)
        self._opening = threading.Lock()
        self._client: stripe.StripeClient | None = None
        self._http: stripe.HTTPXClient | None = None

    async def close(self) -> None:
        http, self._http, self._client = self._http, None, None
        if http is not None:
            await http.close_async()  # type: ignore[no-untyped-call]

    async def test(self) -> str:
        calls = await self._begin()
        # What Ledger cannot do without is tried first; the name of the account is only for people.
        await calls.ask(lambda: calls.v1.checkout.sessions.list_async({"limit": 1}), SessionList)
        try:
            account = await calls.ask(calls.v1.accounts.retrieve_current_async, Account)
        except ProviderRefused:
            return f"Connected to Stripe in {self._mode} mode, with a key that may not read the account's name"
        sentence = f"Connected to Stripe as {account.shown_name} in {self._mode} mode"
        return sentence if account.charges_enabled else f"{sentence}, which cannot take payments yet"

    # Payments

    async def start_payment(self, wanted: WantedPayment) -> Checkout:
        params = session_params(wanted)
        calls = await self._begin()
        key = f"ledger-checkout-{wanted.intent_id}"
        known = wanted.payer.remote_id
        try:
            params["customer"] = known or await self._make_customer(calls, wanted)
            session = await self._create_session(calls, params, key)
        except NotKnown as error:
            if known is None or error.param != "customer":
                raise
            # Somebody deleted the customer in the Stripe Dashboard. The refusal is kept under the key that got it.
            params["customer"] = await self._make_customer(calls, wanted)
            session = await self._create_session(calls, params, f"{key}-{params['customer']}")
        await self._insist_on_total(calls, session, wanted)
        checkout = checkout_of(session)
        if checkout is None:
            raise ProviderRefused("Stripe opened no payment page; try again")
        return msgspec.structs.replace(checkout, customer_remote_id=params["customer"])

    async def _create_session(self, calls: Calls, params: "SessionCreateParams", key: str) -> Session:
        return await calls.ask(
            lambda: calls.v1.checkout.sessions.create_async(params, {"idempotency_key": key}),
            Session,
            doubt=OutcomeUnknown,
        )

    async def _make_customer(self, calls: Calls, wanted: WantedPayment) -> str:
        """Returns the customer of a person: the same one when two checkouts ask for it at once.

        Row ids of persons begin at 1 in every installation, so the key also holds what differs between two
        installations on one Stripe account; else they would share customers, and with them e-mail addresses.
        """
        person = str(wanted.payer.person_id)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(wanted.success_url))
        parts = (self._secret_key, self._webhook_secret, origin, person, wanted.payer.remote_id or "")
        key = f"ledger-customer-{hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"
        # A customer too many does no harm, so an unknown outcome here only means that Stripe cannot be reached.
        customer = await calls.ask(
            lambda: calls.v1.customers.create_async({"metadata": {"person": person}}, {"idempotency_key": key}),
            Identified,
        )
        return customer.id

    async def _insist_on_total(self, calls: Calls, session: Session, wanted: WantedPayment) -> None:
        """Closes a checkout that would take another amount, whatever the reason. Raises `ProviderRefused`."""
        due = to_stripe_amount(wanted.amount_minor, wanted.currency)
        if (session.amount_total, session.currency) == (due, wanted.currency.lower()):
            return
        with suppress(ProviderRefused):
            await calls.ask(lambda: calls.v1.checkout.sessions.expire_async(session.id), Session)
        would = "another amount"
        if session.amount_total is not None and session.currency is not None:
            would = format_money(*from_stripe_amount(session.amount_total, session.currency))
        due_text = format_money(wanted.amount_minor, wanted.currency)
        raise ProviderRefused(
            f"Stripe would have taken {would} instead of {due_text}, so the payment was not started; "
            "check the tax and currency settings of the Stripe account"
        )

    async def look_up_checkout(self, *, intent_id: str, remote_id: str | None) -> CheckoutState:
        """See `contract.Provider`.

        Without its id a session is looked for among those that are not older than the intent, newest first. Stripe
        cannot search sessions, and asking to create it again would open a second one once Stripe has forgotten the key.
        Nobody can have paid one that is overlooked: its address was never shown.
        """
        calls = await self._begin()
        if remote_id is None:
            remote_id = await self._find_session(calls, intent_id)
        if remote_id is None:
            return CheckoutState(status="unknown")
        return await self._fetch_state(calls, remote_id)

    async def _find_session(self, calls: Calls, intent_id: str) -> str | None:
        params: SessionListParams = {"limit": _PAGE}
        made_at = made_at_s(intent_id)
        if made_at is not None:
            params["created"] = {"gte": max(0, made_at - _CLOCK_SKEW_S)}
        for _ in range(_PAGES_MAX):
            page = await calls.ask(lambda: calls.v1.checkout.sessions.list_async(params), SessionList)
            for session in page.data:
                if (session.metadata or {}).get("intent_id") == intent_id:
                    return session.id
            if not page.has_more or not page.data:
                break
            params["starting_after"] = page.data[-1].id
        return None

    async def _fetch_session(self, calls: Calls, remote_id: str) -> Session:
        return await calls.ask(
            lambda: calls.v1.checkout.sessions.retrieve_async(remote_id, {"expand": _WITH_CHARGE}), Session
        )

    async def _fetch_state(self, calls: Calls, remote_id: str) -> CheckoutState:
        try:
            return checkout_state_of(await self._fetch_session(calls, remote_id))
        except NotKnown:
            return CheckoutState(status="unknown")

    async def expire_checkout(self, *, remote_id: str) -> CheckoutState:
        calls = await self._begin()
        try:
            # No key of our own: repeating it is harmless, and a kept refusal would hide that it works by now.
            session = await calls.ask(
                lambda: calls.v1.checkout.sessions.expire_async(remote_id), Session, doubt=OutcomeUnknown
            )
        except ProviderRefused:
            # It is not open any more (or not yet again, while a payment is under way); its state says which.
            return await self._fetch_state(calls, remote_id)
        return checkout_state_of(session)

    # Refunds

    async def refund(self, wanted: WantedRefund) -> RefundState:
        """See `contract.Provider`. The reason stays in Ledger: it is free text that may name people."""
        amount = to_stripe_amount(wanted.amount_minor, wanted.currency)
        calls = await self._begin()
        refund = await calls.ask(
            lambda: calls.v1.refunds.create_async(
                {
                    "payment_intent": wanted.payment_remote_id,
                    "amount": amount,
                    "metadata": {"intent_id": wanted.intent_id},
                },
                {"idempotency_key": f"ledger-refund-{wanted.intent_id}"},
            ),
            Refund,
            doubt=OutcomeUnknown,
        )
        return refund_state_of(refund)

    async def look_up_refund(self, wanted: WantedRefund, *, remote_id: str | None) -> RefundState:
        calls = await self._begin()
        try:
            if remote_id is not None:
                return refund_state_of(await calls.ask(lambda: calls.v1.refunds.retrieve_async(remote_id), Refund))
            return await self._find_refund(calls, wanted)
        except NotKnown:
            return RefundState(status="unknown")

    async def _find_refund(self, calls: Calls, wanted: WantedRefund) -> RefundState:
        params: RefundListParams = {"payment_intent": wanted.payment_remote_id, "limit": _PAGE}
        for _ in range(_PAGES_MAX):
            page = await calls.ask(lambda: calls.v1.refunds.list_async(params), RefundList)
            for refund in page.data:
                if (refund.metadata or {}).get("intent_id") == wanted.intent_id:
                    return refund_state_of(refund)
            if not page.has_more or not page.data:
                break
            params["starting_after"] = page.data[-1].id
        return RefundState(status="unknown")

    # Products

    async def sync_product(self, wanted: WantedProduct) -> SyncedProduct:
        """See `contract.Provider`. Every step may be repeated: ids and lookup keys are Ledger's own."""
        amount = to_stripe_amount(wanted.amount_minor, wanted.currency)
        calls = await self._begin()
        product_id = wanted.product_remote_id or await self._make_product(calls, wanted)
        try:
            price_id = wanted.price_remote_id or await self._make_price(calls, wanted, product_id, amount)
            await self._update_product(calls, wanted, product_id, price_id)
        except NotKnown:
            # The key belongs to another account now, or somebody deleted things there: begin anew.
            product_id = await self._make_product(calls, wanted)
            price_id = await self._make_price(calls, wanted, product_id, amount)
            await self._update_product(calls, wanted, product_id, price_id)
        for old_id in wanted.old_price_remote_ids:
            await self._archive_price(calls, old_id)
        return SyncedProduct(product_remote_id=product_id, price_remote_id=price_id)

    async def _make_product(self, calls: Calls, wanted: WantedProduct) -> str:
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

    async def _make_price(self, calls: Calls, wanted: WantedProduct, product_id: str, amount: int) -> str:
        found = await calls.ask(
            lambda: calls.v1.prices.list_async({"lookup_keys": [wanted.price_id], "limit": 1}), IdentifiedList
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

    async def _update_product(self, calls: Calls, wanted: WantedProduct, product_id: str, price_id: str) -> None:
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

    async def _archive_price(self, calls: Calls, price_id: str) -> None:
        with suppress(NotKnown):
            await calls.ask(lambda: calls.v1.prices.update_async(price_id, {"active": False}), Identified)

    # Events

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        if not self._webhook_secret:
            raise SignatureWrong("This Stripe connection has no webhook signing secret; enter it in its settings")
        client = self._opened()
        from stripe import SignatureVerificationError

        try:
            client.construct_event(
                body, headers.get("stripe-signature"), self._webhook_secret, tolerance=SIGNATURE_TOLERANCE_S
            )
            event = msgspec.json.decode(body, type=Event)
        except (SignatureVerificationError, ValueError, TypeError) as error:
            # `ValueError` covers bytes that are no text and text that is no event; `TypeError` an odd signature.
            raise SignatureWrong("This is not signed by Stripe for this connection, or it is too old") from error
        if event.livemode != (self._mode == "live"):
            raise SignatureWrong(f"This event is not of the {self._mode} mode that this connection works in")
        return ProviderEvent(remote_id=event.id, type=event.type, created_at=time_of(event.created))

    async def understand_event(self, body: bytes) -> EventMeaning:
        try:
            event = msgspec.json.decode(body, type=Event)
            match event.type:
                case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
                    return await self._completed(event, msgspec.json.decode(event.data.object, type=Session))
                case "checkout.session.async_payment_failed":
                    return _debit_failed(msgspec.json.decode(event.data.object, type=Session))
                case "checkout.session.expired":
                    session = msgspec.json.decode(event.data.object, type=Session)
                    return CheckoutExpired(checkout_remote_id=session.id) if session.invoice_id else NothingToDo()
                case "payment_intent.payment_failed":
                    return _attempt_failed(msgspec.json.decode(event.data.object, type=PaymentIntent))
        except msgspec.ValidationError as error:
            raise ProviderRefused(f"An event of Stripe cannot be read: {error}") from error
        return NothingToDo()

    async def _completed(self, event: Event, session: Session) -> EventMeaning:
        if session.invoice_id is None or session.mode not in (None, "payment"):
            return NothingToDo()
        invoice_id = session.invoice_id
        if not session.says_enough:
            session = await self._fetch_session(await self._begin(), session.id)
        return CheckoutCompleted(
            checkout_remote_id=session.id,
            invoice_id=invoice_id,
            intent_id=(session.metadata or {}).get("intent_id"),
            payment=payment_of(session, heard_at=time_of(event.created)),
        )

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


def _debit_failed(session: Session) -> EventMeaning:
    if session.invoice_id is None:
        return NothingToDo()
    return PaymentFailed(
        invoice_id=session.invoice_id, checkout_remote_id=session.id, reason="The bank did not pay the direct debit"
    )


def _attempt_failed(intent: PaymentIntent) -> EventMeaning:
    invoice_id = (intent.metadata or {}).get("invoice_id")
    if invoice_id is None:
        return NothingToDo()
    reason = intent.last_payment_error.message if intent.last_payment_error else None
    return PaymentFailed(invoice_id=invoice_id, checkout_remote_id=None, reason=reason)
