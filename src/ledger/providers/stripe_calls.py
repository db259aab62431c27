"""How Stripe's API is called: within a time, again where that helps, and with faults told apart by what they mean.

A call that failed ends in one of three ways: Stripe refused (nothing happened), Stripe was never reached (nothing
happened), or nobody knows. `docs/decisions/0006-stripe-calls.md` has the reasons and the figures.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import msgspec

from ledger.errors import Unavailable
from ledger.providers.contract import ProviderRefused, ProviderUnreachable

if TYPE_CHECKING:
    import stripe
    from stripe._v1_services import V1Services

BUDGET_S = 7.5
"""For all calls of one method together, so that an answer is out after 8 s."""
ATTEMPT_S = 5.0
"""For one attempt: a lost answer leaves time for a second one."""
CONNECT_S = 2.0
"""For connecting. No attempt begins with less time left, so a deadline that passes means that something was sent."""

PAGE = 100
"""How many things of a list are asked for at once; Stripe gives no more."""
PAGES_MAX = 10
"""How many parts of a list are asked for at most."""

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
_RETRY_AFTER_S = 30
_RETRY_AFTER_MAX_S = 600
_MESSAGE_CHARACTERS_MAX = 300
_KEY = re.compile(r"\b(?:(?:sk|rk|pk)_(?:test|live)|whsec)_[\w*+/=-]+")

_T = TypeVar("_T")


class Named(Protocol):
    """A thing of Stripe's."""

    @property
    def id(self) -> str: ...


_Named = TypeVar("_Named", bound=Named)
_Params = TypeVar("_Params", bound=Mapping[str, object])


class Listed(msgspec.Struct, Generic[_Named], frozen=True, kw_only=True):
    """A list, or the part of it that was asked for, newest first."""

    data: tuple[_Named, ...] = ()
    has_more: bool = False


_RESTRICTED = (
    "The Stripe key may not do this: use the account's secret key, "
    "or give the restricted key the rights that Ledger's document on Stripe lists"
)
_PAYER_CONFIRMS = (
    "The bank wants the payer to confirm this; nothing was taken. End this subscription and subscribe again: "
    "that leads to a page where the payer can confirm"
)
_SENTENCES = {
    "amount_too_small": "The amount is below what Stripe takes in this currency (about half a euro); "
    "choose another way to pay",
    "amount_too_large": "The amount is more than Stripe allows here",
    "authentication_required": _PAYER_CONFIRMS,
    "balance_insufficient": "The balance of the Stripe account is too low for this refund; top it up in Stripe first",
    "card_declined": "The bank declined the payment; nothing was taken. The payer should ask the bank, "
    "or use another card",
    "charge_already_refunded": "Stripe has already returned this payment in full",
    "charge_disputed": "The payer disputed this payment at their bank, so Stripe cannot return it",
    "expired_card": "The payer's card has expired; nothing was taken. Another card is needed",
    "incorrect_cvc": "The bank declined the payment because of the card's security code; nothing was taken",
    "insufficient_funds": "The payer's card or account does not cover the amount; nothing was taken",
    "invalid_charge_amount_no_decimal_compatible": "Stripe takes only whole units of this currency",
    "invoice_payment_intent_requires_action": _PAYER_CONFIRMS,
    "livemode_mismatch": "What this is about belongs to Stripe's other mode (test or live); check the keys",
    "processing_error": "The bank could not work on the payment; nothing was taken, try again later",
    "subscription_payment_intent_requires_action": _PAYER_CONFIRMS,
    "testmode_charges_only": "The Stripe account can only take test payments yet; activate it in the Stripe Dashboard",
    "url_invalid": "Stripe does not accept the address people return to; check DASHBOARD_URL",
}


_SERVICES = (
    *("accounts", "checkout", "customers", "disputes", "events", "invoice_payments", "invoices", "prices", "products"),
    *("refunds", "subscriptions", "tax_rates"),
)
_RESOURCES = (
    *("Account", "Charge", "Customer", "Dispute", "Event", "Invoice", "InvoiceLineItem", "InvoicePayment"),
    *("PaymentIntent", "Plan", "Price", "Product", "Refund", "Subscription", "SubscriptionItem", "TaxRate"),
)


def open_client(secret_key: str, api_base: str | None) -> "tuple[stripe.StripeClient, stripe.HTTPXClient]":
    """Returns a client, and what has to be closed after it. Imports the library: about a second, the first time."""
    import httpx
    import stripe

    # Telemetry would write into the home directory and tell Stripe about the machine.
    stripe.enable_telemetry = False
    http = stripe.HTTPXClient(timeout=httpx.Timeout(ATTEMPT_S, connect=CONNECT_S))
    client = stripe.StripeClient(
        secret_key,
        base_addresses={"api": api_base} if api_base else None,
        max_network_retries=0,
        http_client=http,
    )
    # The library would load these one by one when they are first used, while everybody waits.
    for service in _SERVICES:
        getattr(client.v1, service)
    for resource in _RESOURCES:
        getattr(stripe, resource)
    _ = client.v1.checkout.sessions, client.v1.invoices.line_items, stripe.checkout.Session
    return client, http


class NotKnown(ProviderRefused):
    """Stripe has no such thing (any more). `param` is the parameter that named it, if any did; `code` is Stripe's."""

    def __init__(self, sentence: str, *, param: str | None, code: str | None = None) -> None:
        super().__init__(sentence)
        self.param = param
        self.code = code


class Calls:
    """The calls of one method, which share its time."""

    v1: "V1Services"
    """The library's services; set as soon as the library is there."""

    def __init__(self) -> None:
        self._until = asyncio.get_running_loop().time() + BUDGET_S

    @property
    def _left_s(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    async def within(self, work: Awaitable[_T]) -> _T:
        """Waits for something that sends nothing. Raises `ProviderUnreachable` when the time is over."""
        try:
            async with asyncio.timeout_at(self._until):
                return await work
        except TimeoutError:
            raise _unreachable(None) from None

    async def ask(
        self,
        send: Callable[[], "Awaitable[stripe.StripeObject]"],
        shape: type[_T],
        *,
        doubt: type[Unavailable] = ProviderUnreachable,
    ) -> _T:
        """Returns Stripe's answer. `send` is called again with the same parameters and the same idempotency key.

        `doubt` is raised when the request may have had its effect: leave it out where that does no harm. Raises
        `ProviderRefused` (`NotKnown` for a thing that is not there) and `ProviderUnreachable` as well.
        """
        import stripe

        may_have_happened = False
        pause_s = _FIRST_PAUSE_S
        while self._left_s > CONNECT_S:
            try:
                async with asyncio.timeout_at(self._until):
                    answer = await send()
                return msgspec.convert(answer.to_dict(), shape)
            except TimeoutError:
                may_have_happened = True
                break
            except msgspec.ValidationError as error:
                raise doubt(f"Stripe answered something unexpected ({error})", retry_after_s=_RETRY_AFTER_S) from error
            except stripe.StripeError as error:
                fault = _Fault(error)
                may_have_happened = may_have_happened or fault.may_have_happened
                # Only an attempt that got past the key's check tells what became of an earlier one.
                if fault.is_refusal and not (may_have_happened and fault.is_about_the_key):
                    raise _refusal(error) from error
                wait_s = max(pause_s * random.uniform(0.5, 1.0), fault.retry_after_s or 0)  # noqa: S311
                if not fault.is_worth_another_try or wait_s >= self._left_s - CONNECT_S:
                    raise _gave_up(doubt if may_have_happened else None, fault.retry_after_s) from error
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        raise _gave_up(doubt if may_have_happened else None, None)

    async def find(
        self,
        list_part: Callable[[_Params], "Awaitable[stripe.StripeObject]"],
        params: _Params,
        shape: type[Listed[_Named]],
        fits: Callable[[_Named], bool],
    ) -> _Named | None:
        """Returns the first thing of a list that fits; looks at no more than `PAGES_MAX` parts. Raises like `ask`."""
        asked = cast("_Params", {**params, "limit": PAGE})
        for _ in range(PAGES_MAX):
            part = await self.ask(partial(list_part, asked), shape)
            for one in part.data:
                if fits(one):
                    return one
            if not part.has_more or not part.data:
                break
            asked = cast("_Params", {**asked, "starting_after": part.data[-1].id})
        return None

    async def list_all(
        self,
        list_part: Callable[[_Params], "Awaitable[stripe.StripeObject]"],
        params: _Params,
        shape: type[Listed[_Named]],
    ) -> list[_Named]:
        """Returns what is in a list, newest first: at most `PAGES_MAX` parts of it. Raises like `ask`."""
        found: list[_Named] = []

        def keep(one: _Named) -> bool:
            found.append(one)
            return False

        await self.find(list_part, params, shape, keep)
        return found


class _Fault:
    """What an error of the library says about the request."""

    def __init__(self, error: "stripe.StripeError") -> None:
        import httpx
        import stripe

        status = error.http_status
        advice = (error.headers or {}).get("stripe-should-retry")
        self.retry_after_s = _seconds((error.headers or {}).get("retry-after"))
        self.is_about_the_key = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
        if isinstance(error, stripe.APIConnectionError):
            never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
            self.may_have_happened = not isinstance(error.__cause__, never_sent)
            self.is_refusal = False
        elif isinstance(error, stripe.RateLimitError):
            self.may_have_happened = self.is_refusal = False
        elif status == HTTPStatus.CONFLICT:
            # An earlier attempt with this key is still running.
            self.may_have_happened, self.is_refusal = True, False
        else:
            is_a_no = status is not None and 400 <= status < 500
            self.is_refusal = is_a_no and advice != "true"
            self.may_have_happened = not is_a_no
        self.is_worth_another_try = not self.is_refusal and advice != "false"


def _seconds(text: str | None) -> int | None:
    """The seconds of `Retry-After`; its other form, a date, is not used by Stripe."""
    return min(int(text), _RETRY_AFTER_MAX_S) if text is not None and text.isascii() and text.isdigit() else None


def _gave_up(doubt: type[Unavailable] | None, retry_after_s: int | None) -> Unavailable:
    if doubt is None or doubt is ProviderUnreachable:
        return _unreachable(retry_after_s)
    sentence = "Stripe did not say in time whether it worked; Ledger asks again by itself within a minute"
    return doubt(sentence, retry_after_s=retry_after_s or _RETRY_AFTER_S)


def _unreachable(retry_after_s: int | None) -> ProviderUnreachable:
    sentence = "Stripe cannot be reached at the moment; nothing was changed, try again in a little while"
    return ProviderUnreachable(sentence, retry_after_s=retry_after_s or _RETRY_AFTER_S)


def _refusal(error: "stripe.StripeError") -> ProviderRefused:
    """Says why in words for a treasurer, never with a key in them."""
    import stripe

    code = error.code or (error.error.code if error.error else None) or ""
    param = getattr(error, "param", None)
    message = _KEY.sub("(key)", error.user_message or "")[:_MESSAGE_CHARACTERS_MAX].strip()
    if isinstance(error, stripe.AuthenticationError):
        return ProviderRefused(
            "Stripe does not accept this secret key; copy it again from the Stripe Dashboard: Developers, API keys"
        )
    if isinstance(error, stripe.PermissionError):
        return ProviderRefused(_RESTRICTED)
    if isinstance(error, stripe.IdempotencyError):
        return ProviderRefused("Stripe has already been asked this with other amounts or names; start again")
    # A tax rate cannot be deleted, only archived, and then nothing new can have it.
    is_gone = code == "resource_missing" or error.http_status == HTTPStatus.NOT_FOUND or "tax_rates" in str(param)
    if is_gone:
        sentence = f"Stripe does not know this (any more): {message or 'no reason given'}"
        return NotKnown(sentence, param=param, code=code)
    if param == "currency" or str(param).endswith("[currency]"):
        return ProviderRefused("Stripe takes no payments in this currency on this account; choose another way to pay")
    decline_code = (error.error.decline_code if error.error else None) or ""
    ours = _SENTENCES.get(decline_code) or _SENTENCES.get(code)
    return ProviderRefused(ours or f"Stripe refused: {message or 'it gives no reason'}")
