"""What the fake Stripe knows: its objects, its events, its own time, and what is due when."""

import contextlib
import copy
import heapq
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import stripe

from tests.fakes.stripe_shapes import Object, blank, shown

API_VERSION = "2026-10-28.endive"

Due = Callable[["World", str, int], None]
"""Something that happens by itself: the world, the object's id, and when it was due."""


class Refusal(Exception):
    """An error answer, in Stripe's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str | None = None,
        decline_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body: Object = {"error": {"type": kind or "invalid_request_error", "message": message}}
        for name, value in (("code", code), ("param", param), ("decline_code", decline_code)):
            if value is not None:
                self.body["error"][name] = value


class World:
    """Objects by id, events in order, and a clock that everything follows."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.events: list[Object] = []
        self.violations: list[str] = []
        self.declining: set[str] = set()
        """Customers whose bank says no."""
        self.slow: set[str] = set()
        """Customers who pay by bank debit: a charge is on its way until `settle_invoice` or `fail_invoice`."""
        self.draft_s = 0
        """How long a renewal's invoice stays a draft; the real Stripe takes about an hour."""
        self.smallest: dict[str, int] = {"gbp": 30, "jpy": 50, "huf": 17_500, "kwd": 150, "isk": 10_000}
        """The least that is charged, by currency; 50 otherwise. Less of an invoice goes to the next one."""
        self._counter = count(1)
        self._clock: Callable[[], float] = time.time
        self._offset_s = 0
        self._at: int | None = None
        self._agenda: list[tuple[int, int, Due, str]] = []

    # Time

    @property
    def now(self) -> int:
        """Unix seconds. May be set to a number (time stands still) or to a function (it follows that clock)."""
        return self._at if self._at is not None else int(self._clock()) + self._offset_s

    @now.setter
    def now(self, value: int | Callable[[], float]) -> None:
        self._clock = value if callable(value) else lambda: value
        self._offset_s = 0

    def advance(self, seconds: int) -> list[Object]:
        """Lets time pass, with everything that becomes due in it; returns the events of that time."""
        return self.travel(self.now + seconds)

    def travel(self, to: int) -> list[Object]:
        """As `advance`, up to a moment."""
        assert to >= self.now, "time does not go back"
        mark = len(self.events)
        self._offset_s += to - self.now
        self.run_due()
        return self.events[mark:]

    def due(self, at: int, act: Due, object_id: str) -> None:
        """`act` looks for itself whether it still applies, as nothing is ever taken off the agenda."""
        heapq.heappush(self._agenda, (at, next(self._counter), act, object_id))

    def run_due(self) -> None:
        """Does what has become due, each at its own time. Happens before every request, too."""
        while self._agenda and self._agenda[0][0] <= self.now:
            at, _, act, object_id = heapq.heappop(self._agenda)
            if object_id not in self.objects:
                continue
            self._at = at
            try:
                act(self, object_id, at)
            finally:
                self._at = None

    @contextlib.contextmanager
    def trial(self, *object_ids: str) -> Iterator[None]:
        """What happens inside never happened afterwards. Only the named and the new objects may be changed."""
        before = self.objects, self.events, self._agenda, self._at
        self.objects = self.objects | {one: copy.deepcopy(self.objects[one]) for one in object_ids}
        self.events, self._agenda = [], []
        try:
            yield
        finally:
            self.objects, self.events, self._agenda, self._at = before

    @contextlib.contextmanager
    def at(self, moment: int) -> Iterator[None]:
        """As if it were another time."""
        before, self._at = self._at, moment
        try:
            yield
        finally:
            self._at = before

    # Objects

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._counter):06d}Fake"

    def new(self, resource: type[stripe.StripeObject], prefix: str, **values: Any) -> Object:
        made = {**blank(resource), "created": self.now, "livemode": False, **values}
        made["id"] = values.get("id") or self.new_id(prefix)
        self.objects[made["id"]] = made
        return made

    def of(self, kind: str) -> list[Object]:
        """All objects of a kind (`checkout.session`, `refund`), oldest first."""
        return [one for one in self.objects.values() if one["object"] == kind]

    def find(self, kind: str, object_id: str, param: str = "id") -> Object:
        found = self.objects.get(object_id)
        if found is None or found["object"] != kind or found.get("deleted"):
            raise Refusal(
                404 if param == "id" else 400, f"No such {kind}: '{object_id}'", code="resource_missing", param=param
            )
        return found

    def violation(self, sentence: str) -> Refusal:
        """For requests that the real Stripe takes and the fake does not: the test fails."""
        self.violations.append(sentence)
        return Refusal(400, f"The fake Stripe cannot do that: {sentence}")

    def happened(self, kind: str, thing: Object, before: Object | None = None) -> Object:
        """An event. `before` is what `shown` gave before a change."""
        event = {**blank(stripe.Event), "id": self.new_id("evt"), "type": kind}
        event.update(created=self.now, livemode=False, api_version=API_VERSION, pending_webhooks=1)
        event["data"] = {"object": shown(thing)}
        if before is not None:
            present = event["data"]["object"]
            event["data"]["previous_attributes"] = {
                name: value for name, value in before.items() if present.get(name) != value
            }
        self.events.append(event)
        return event
