"""Answers OPTIONS: which methods a path takes. Litestar's own answer knows only those of one handler."""

from collections.abc import Iterable
from typing import cast

from litestar import Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.types import Method


def options_handlers(handlers: Iterable[HTTPRouteHandler]) -> list[HTTPRouteHandler]:
    """One handler for every path of `handlers`, to be registered before them, since Litestar adds its own otherwise.

    Who asks need not be proven: the API document tells everybody the same.
    """
    methods: dict[str, set[str]] = {}
    for handler in handlers:
        for path in handler.paths:
            methods.setdefault(path, {"OPTIONS"}).update(map(str, handler.http_methods))
    return [_answer(path, ", ".join(sorted(taken))) for path, taken in methods.items()]


def _answer(path: str, allow: str) -> HTTPRouteHandler:
    async def answer() -> Response[None]:
        headers = {"allow": allow, "cache-control": "no-store", "x-content-type-options": "nosniff"}
        return Response(None, status_code=204, headers=headers)

    return route(path, http_method=cast("list[Method]", ["OPTIONS"]), status_code=204)(answer)
