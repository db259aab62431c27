"""How Stripe's API is called: within a time, again where that helps, and with faults told apart by what they mean.

A call that failed ends in one of three ways: Stripe refused (nothing happened), Stripe was never reached (nothing
happened), or nobody knows. `docs/decisions/0006-stripe-calls.md` has the reasons and the figures.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

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

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 2.0
_RETRY_AFTER_S = 30
_RETRY_AFTER_MAX_S = 600
_MESSAGE_CHARACTERS_MAX = 300
_KEY = re.compile(r"\b(?:(?:sk|rk|pk)_(?:test|live)|whsec)_[\w*+/=-]+")

_T = TypeVar("_T")

_RESTRICTED = (
    "The Stripe key may not do this: use the account's secret key, "
    "or give the restricted key the rights that Ledger's document on Stripe lists"
)
_SENTENCES = {
    "amount_too_small": "The amount is below what Stripe takes in this currency (about half a euro); "
    "choose another way to pay",
    "amount_too_large": "The amount is more than Stripe allows here",
    "balance_insufficient": "The balance of the Stripe account is too low for this refund; top it up in Stripe first",
    "charge_already_refunded": "Stripe has already returned this payment in full",
    "charge_disputed": "The payer disputes this payment at their bank, so Stripe cannot return it",
    "invalid_charge_amount_no_decimal_compatible": "Stripe takes only whole units of this currency",
    "livemode_mismatch": "What this is about belongs to Stripe's other mode (test or live); check the keys",
    "testmode_charges_only": "The Stripe account can only take test payments yet; activate it in the Stripe Dashboard",
    "url_invalid": "Stripe does not accept the address people return to; check DASHBOARD_URL",
}


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
    for service in ("checkout", "accounts", "customers", "prices", "products", "refunds"):
        getattr(client.v1, service)
    for resource in ("Account", "Charge", "Customer", "PaymentIntent", "Price", "Product", "Refund"):
        getattr(stripe, resource)
    _ = client.v1.checkout.sessions, stripe.checkout.Session
    return client, http


class NotKnown(ProviderRefused):
    """Stripe has no such thing (any more). `param` is the parameter that named it, if any did."""

    def __init__(self, sentence: str, *, param: str | None) -> None:
        super().__init__(sentence)
        self.param = param


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
    if code == "resource_missing" or error.http_status == HTTPStatus.NOT_FOUND:
        return NotKnown(f"Stripe does not know this (any more): {message or 'no reason given'}", param=param)
    if param == "currency" or str(param).endswith("[currency]"):
        return ProviderRefused("Stripe takes no payments in this currency on this account; choose another way to pay")
    return ProviderRefused(_SENTENCES.get(code) or f"Stripe refused: {message or 'it gives no reason'}")
