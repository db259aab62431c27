"""Lists of the fake Stripe, page by page."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.fakes.stripe_shapes import Object, shown
from tests.fakes.stripe_world import Refusal

if TYPE_CHECKING:
    from tests.fakes.stripe import FakeStripe

Pick = Callable[[Object, Object], bool]
"""Does an object fit the parameters of a list?"""
Act = Callable[["FakeStripe", Object, str], Object]
"""Fake, parameters and the id in the path in; the object out. Raises `Refusal`."""

_LIMIT_MAX = 100


def page(everything: Sequence[Object], params: Object, url: str, fits: Pick = lambda _one, _params: True) -> Object:
    """A page of what fits, in the order of `everything`. The page may begin after something that does not fit."""
    limit = int(params.get("limit", 10))
    if not 1 <= limit <= _LIMIT_MAX:
        raise Refusal(400, "This value must be between 1 and 100", param="limit")
    if "ending_before" in params:
        raise AssertionError("The fake Stripe pages forwards only")
    if "starting_after" in params:
        ids = [one["id"] for one in everything]
        if params["starting_after"] not in ids:
            raise Refusal(400, f"No such object: '{params['starting_after']}'", param="starting_after")
        everything = everything[ids.index(params["starting_after"]) + 1 :]
    found = [one for one in everything if _is_of_that_time(one, params.get("created", {})) and fits(one, params)]
    data = [shown(one) for one in found[:limit]]
    return {"object": "list", "data": data, "has_more": len(found) > limit, "url": url}


def _is_of_that_time(one: Object, created: Object | str) -> bool:
    if isinstance(created, str):
        return bool(one["created"] == int(created))
    if not created:
        return True
    at = one["created"]
    bounds = {name: int(value) for name, value in created.items()}
    return bool(
        bounds.get("gt", at - 1) < at < bounds.get("lt", at + 1)
        and bounds.get("gte", at) <= at <= bounds.get("lte", at)
    )


def listed(kind: str, url: str, filters: Sequence[str], fits: Pick = lambda _one, _params: True) -> Act:
    """The operation that lists objects, newest first."""

    def fits_all(one: Object, params: Object) -> bool:
        return all(one[name] == params[name] for name in filters if name in params) and fits(one, params)

    def act(fake: "FakeStripe", params: Object, _: str) -> Object:
        return page(fake.of(kind)[::-1], params, url, fits_all)

    return act
