"""A Stripe of our own: a real HTTP server on loopback that keeps state, checks every request, and fails on request.

In a test: `async with FakeStripe() as fake: …; assert fake.violations == []`.
As a process of its own: `python -m tests.fakes.stripe --port 3002 --webhook http://127.0.0.1:3000/api/webhooks/stripe`.
Its payment page takes the money at once and goes back to `success_url`.
"""

import argparse
import asyncio
import contextlib
import copy
import json
import re
import socket
import struct
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
import stripe
from aiohttp import web

from tests.fakes.stripe_operations import ROUTES, Refusal
from tests.fakes.stripe_shapes import Nested, Object, blank, decode_form, shown, violations

Kind = Literal["hang", "hang_after", "reset_before", "reset_after", "429", "500_before", "500_after", "garbage"]

SECRET_KEY = "sk_test_51LedgerFakeStripeSecretKey"
WEBHOOK_SECRET = "whsec_LedgerFakeStripeWebhookSecret"
API_VERSION = "2026-10-28.endive"

_MAX_RECORDED = 100_000


@dataclass(frozen=True)
class Request:
    """One request as it arrived."""

    method: str
    path: str
    params: dict[str, Nested]
    idempotency_key: str | None
    headers: dict[str, str]


@dataclass
class Fault:
    """Something that goes wrong with matching requests, `times` times."""

    kind: Kind
    path: str = ""
    method: str = ""
    times: int = 1
    retry_after_s: int | None = None
    should_retry: str | None = None

    def takes(self, request: web.Request) -> bool:
        fits = re.search(self.path, request.path) is not None and self.method in ("", request.method)
        if not fits or self.times == 0:
            return False
        self.times -= 1
        return True


class FakeStripe:
    """Stripe as Ledger sees it. Public attributes may be changed at any time and count for the next request."""

    def __init__(self, *, port: int = 0) -> None:
        self.keys = {SECRET_KEY}
        self.restricted_keys: set[str] = set()
        """Keys that may do nothing (403)."""
        self.delay_s = 0.0
        """Between the arrival of a request and its effect; meanwhile its idempotency key is taken."""
        self.surcharge = 0
        """Added to the total of new sessions, as a tax setting of the account would."""
        self.refund_status = "succeeded"
        self.payment_method_types = ["card"]
        self.account: Object = {**blank(stripe.Account), "id": "acct_1Ledger", "charges_enabled": True}
        self.account["settings"] = {"dashboard": {"display_name": "Sportverein Beispiel"}}
        self.faults: list[Fault] = []
        self.requests: deque[Request] = deque(maxlen=_MAX_RECORDED)
        self.violations: list[str] = []
        self.events: list[Object] = []
        self.objects: dict[str, Object] = {}
        self.webhook: tuple[str, str] | None = None
        """Where the payment page announces payments, and the secret it signs with."""
        self._answers: dict[str, tuple[tuple[str, str], tuple[int, Object]]] = {}
        self._running: set[str] = set()
        self._counter = count(1)
        self._port = port
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # Running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listens again on the same port when it was stopped before. Its state is kept."""
        self._released = asyncio.Event()
        application = web.Application()
        application.router.add_get("/pay/{id}", self._payment_page)
        application.router.add_route("*", "/v1/{rest:.*}", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Refuses connections from now on; whoever hangs is let go."""
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @contextlib.asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Refuses connections for a while."""
        await self.stop()
        try:
            yield
        finally:
            await self.start()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def release(self) -> None:
        """Lets go (with a reset) whoever hangs, and whoever will."""
        self._released.set()

    # Controls

    def fault(self, kind: Kind, path: str = "", **details: Any) -> Fault:
        """Makes the next matching request fail. `path` is a regular expression, `times=-1` means always."""
        fault = Fault(kind, path, **details)
        self.faults.append(fault)
        return fault

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind (`checkout.session`, `refund`), oldest first."""
        return [one for one in self.objects.values() if one["object"] == kind]

    def requests_to(self, path: str, method: str = "") -> list[Request]:
        """The recorded requests whose path fits the regular expression."""
        return [one for one in self.requests if re.search(path, one.path) and method in ("", one.method)]

    def pay(self, session_id: str, *, method: str = "card", status: str = "paid") -> Object:
        """Somebody pays; returns the event. `status="unpaid"` is a bank debit that is still on its way."""
        session = self.objects[session_id]
        assert session["status"] == "open", "only an open session can be paid"
        intent = self._payment_intent(session)
        session.update(status="complete", payment_status=status, url=None, payment_intent=intent["id"])
        session["customer_details"] = {"email": "payer@example.org", "name": "Some Payer"}
        self._charge(intent, method, "succeeded" if status == "paid" else "pending")
        intent["status"] = "succeeded" if status == "paid" else "processing"
        return self._happened("checkout.session.completed", session)

    def settle(self, session_id: str) -> Object:
        """The money of a bank debit arrives; returns the event."""
        session = self.objects[session_id]
        intent = self.objects[session["payment_intent"]]
        intent.update(status="succeeded", amount_received=intent["amount"])
        self.objects[intent["latest_charge"]].update(status="succeeded", paid=True)
        session["payment_status"] = "paid"
        return self._happened("checkout.session.async_payment_succeeded", session)

    def fail(self, session_id: str, message: str = "Your card was declined.") -> Object:
        """A card is declined, or a bank debit does not work out; returns the event."""
        session = self.objects[session_id]
        is_debit = session["status"] == "complete"
        intent = self.objects[session["payment_intent"]] if is_debit else self._payment_intent(session)
        intent.update(status="requires_payment_method")
        intent["last_payment_error"] = {"type": "card_error", "code": "card_declined", "message": message}
        failed = self._happened("payment_intent.payment_failed", intent)
        return self._happened("checkout.session.async_payment_failed", session) if is_debit else failed

    def expire(self, session_id: str) -> Object:
        """A session's time is over; returns the event."""
        self.objects[session_id].update(status="expired", url=None)
        return self._happened("checkout.session.expired", self.objects[session_id])

    def settle_refund(self, refund_id: str, status: str, failure_reason: str | None = None) -> Object:
        """A refund that was on its way arrives or fails; returns the event."""
        self.objects[refund_id].update(status=status, failure_reason=failure_reason)
        return self._happened("refund.updated" if status != "failed" else "refund.failed", self.objects[refund_id])

    def forget_keys(self) -> None:
        """Forgets all idempotency keys, as Stripe does after a day."""
        self._answers.clear()

    def sign(
        self, event: Object, secret: str = WEBHOOK_SECRET, *, timestamp: int | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """Returns an event as it would arrive: its body, and the header with the signature."""
        body = json.dumps(event, separators=(",", ":"))
        signature = stripe.WebhookSignature.generate_signature_header(body, secret, timestamp)
        return body.encode(), {"stripe-signature": signature}

    async def deliver(self, url: str, event: Object, secret: str = WEBHOOK_SECRET, *, times: int = 1) -> list[int]:
        """Sends an event to a webhook endpoint; returns the statuses it answered with."""
        statuses = []
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for _ in range(times):
                body, headers = self.sign(event, secret)
                async with session.post(
                    url, data=body, headers={**headers, "content-type": "application/json"}
                ) as answer:
                    statuses.append(answer.status)
        return statuses

    # Objects

    def new(self, resource: type[stripe.StripeObject], prefix: str, **values: Any) -> Object:
        made = {**blank(resource), "created": int(time.time()), "livemode": False, **values}
        made["id"] = values.get("id") or f"{prefix}_{next(self._counter):06d}Fake"
        self.objects[made["id"]] = made
        return made

    def find(self, kind: str, object_id: str, param: str = "id") -> Object:
        found = self.objects.get(object_id)
        if found is None or found["object"] != kind or found.get("deleted"):
            raise Refusal(
                404 if param == "id" else 400, f"No such {kind}: '{object_id}'", code="resource_missing", param=param
            )
        return found

    def _payment_intent(self, session: Object) -> Object:
        if session["payment_intent"] is not None:
            return self.objects[session["payment_intent"]]
        data = session.pop("_payment_intent_data")
        intent = self.new(
            stripe.PaymentIntent,
            "pi",
            amount=session["amount_total"],
            currency=session["currency"],
            customer=session["customer"],
            status="requires_payment_method",
            **{"metadata": {}, **data},
        )
        session["payment_intent"] = intent["id"]
        return intent

    def _charge(self, intent: Object, method: str, status: str) -> None:
        charge = self.new(
            stripe.Charge,
            "ch",
            amount=intent["amount"],
            currency=intent["currency"],
            payment_intent=intent["id"],
            status=status,
            paid=status == "succeeded",
            payment_method_details={"type": method},
        )
        intent["latest_charge"] = charge["id"]
        if status == "succeeded":
            intent["amount_received"] = intent["amount"]

    def _happened(self, kind: str, thing: Object) -> Object:
        event = {**blank(stripe.Event), "id": f"evt_{next(self._counter):06d}Fake", "type": kind}
        event.update(created=int(time.time()), livemode=False, api_version=API_VERSION, pending_webhooks=1)
        event["data"] = {"object": shown(thing)}
        self.events.append(event)
        return event

    # Serving

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        text = await request.text() if request.method == "POST" else request.query_string
        params = decode_form(text)
        key = request.headers.get("Idempotency-Key")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(request.method, request.path, params, key, headers))
        fault = next((one for one in self.faults if one.takes(request)), None)
        if fault is not None and fault.kind in ("hang", "reset_before", "429", "500_before", "garbage"):
            return await self._fail(request, fault)
        status, body, is_new = await self._answer(request, params, text, key)
        if fault is not None:
            if fault.kind == "500_after":
                # Stripe keeps a 500, too, and gives it again for the same key.
                status, body = 500, _SERVER_ERROR
                if key is not None and is_new:
                    self._answers[key] = ((request.path, text), (status, body))
            else:
                return await self._fail(request, fault)
        answer_headers = {"Request-Id": f"req_{next(self._counter):06d}"}
        if status == 500:
            answer_headers["Stripe-Should-Retry"] = "false"
        return web.json_response(body, status=status, headers=answer_headers)

    async def _fail(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        headers = {}
        if fault.retry_after_s is not None:
            headers["Retry-After"] = str(fault.retry_after_s)
        if fault.should_retry is not None:
            headers["Stripe-Should-Retry"] = fault.should_retry
        if fault.kind == "429":
            return web.json_response(_RATE_LIMITED, status=429, headers=headers)
        if fault.kind == "500_before":
            return web.json_response(_SERVER_ERROR, status=500, headers=headers)
        if fault.kind == "garbage":
            return web.Response(text="<html>Welcome</html>", content_type="text/html", headers=headers)
        if fault.kind.startswith("hang"):
            await self._released.wait()
        _reset(request)
        return web.Response()

    async def _answer(
        self, request: web.Request, params: dict[str, Nested], text: str, key: str | None
    ) -> tuple[int, Object, bool]:
        """Returns status, body, and whether the request was carried out now (not answered from memory)."""
        try:
            self._check_key(request)
        except Refusal as refusal:
            return refusal.status, refusal.body, False
        if request.method != "POST":
            key = None
        asked = (request.path, text)
        if key is not None and key in self._answers:
            before, answer = self._answers[key]
            if before != asked:
                sentence = f"Keys for idempotent requests can only be used with the same parameters: '{key}'"
                return 400, Refusal(400, sentence, kind="idempotency_error").body, False
            return *answer, False
        if key is not None and key in self._running:
            code = "idempotency_key_in_use"
            return 409, Refusal(409, "Another request is using it", kind="idempotency_error", code=code).body, False
        try:
            if key is not None:
                self._running.add(key)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            status, body, is_kept = self._carry_out(request, params)
        finally:
            self._running.discard(key or "")
        if key is not None and is_kept:
            self._answers[key] = (asked, (status, copy.deepcopy(body)))
        return status, body, True

    def _carry_out(self, request: web.Request, params: dict[str, Nested]) -> tuple[int, Object, bool]:
        is_kept = False
        try:
            for route in ROUTES:
                match = route.path.fullmatch(request.path)
                if match is not None and route.method == request.method:
                    found = violations(route.params, params)
                    if found:
                        self.violations += [f"{request.method} {request.path}: {one}" for one in found]
                        raise Refusal(400, f"Received unknown or wrong parameters: {found}", code="parameter_unknown")
                    is_kept = True
                    body = route.act(self, dict(params), match[1] if match.groups() else "")
                    return 200, self._expanded(shown(body), params), True
            self.violations.append(f"{request.method} {request.path} is not known to the fake")
            raise Refusal(404, f"Unrecognized request URL ({request.method}: {request.path})")
        except Refusal as refusal:
            return refusal.status, refusal.body, is_kept
        except Exception as error:
            self.violations.append(f"{request.method} {request.path} made the fake fail: {error!r}")
            raise

    def _check_key(self, request: web.Request) -> None:
        if request.headers.get("Stripe-Version") != API_VERSION:
            self.violations.append(f"{request.path} asks for version {request.headers.get('Stripe-Version')}")
        if "X-Stripe-Client-Telemetry" in request.headers:
            self.violations.append(f"{request.path} carries telemetry")
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key in self.restricted_keys:
            raise Refusal(403, f"The provided key '{key}' does not have the required permissions for this endpoint")
        if key not in self.keys:
            # The real Stripe masks most of the key. This one does not, to see that Ledger does.
            raise Refusal(401, f"Invalid API Key provided: {key}")

    def _expanded(self, body: Object, params: dict[str, Nested]) -> Object:
        paths = params.get("expand", [])
        for path in paths if isinstance(paths, list) else []:
            place: Any = body
            for name in str(path).split("."):
                if isinstance(place.get(name), str):
                    place[name] = shown(self.objects[place[name]])
                place = place.get(name)
                if place is None:
                    break
        return body

    async def _payment_page(self, request: web.Request) -> web.StreamResponse:
        session = self.objects.get(request.match_info["id"])
        if session is None or session["status"] != "open":
            return web.Response(text="This page can no longer be used.", status=410)
        event = self.pay(session["id"])
        if self.webhook is not None:
            await self.deliver(self.webhook[0], event, self.webhook[1])
        raise web.HTTPSeeOther(session["success_url"])


_SERVER_ERROR: Object = {"error": {"type": "api_error", "message": "An unknown error occurred"}}
_RATE_LIMITED: Object = {
    "error": {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}
}


def _reset(request: web.Request) -> None:
    """Ends the connection with a TCP reset, as a crash does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


async def _serve_forever(arguments: argparse.Namespace) -> None:
    fake = FakeStripe(port=arguments.port)
    fake.keys.add(arguments.key)
    if arguments.webhook:
        fake.webhook = (arguments.webhook, arguments.webhook_secret)
    async with fake:
        print(fake.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Runs until interrupted. Prints its URL as the first line."""
    parser = argparse.ArgumentParser(description="A Stripe for tests and for trying things out.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", default=SECRET_KEY, help="a secret key that is accepted")
    parser.add_argument("--webhook", default="", help="where payments on the payment page are announced")
    parser.add_argument("--webhook-secret", default=WEBHOOK_SECRET)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(parser.parse_args()))


if __name__ == "__main__":
    main()
