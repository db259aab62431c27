"""What the installed Stripe library says about requests and answers, so that the fake Stripe stays honest.

Requests are checked against the library's parameter types (`stripe/params/…`, typed dictionaries), answers begin with
every field that the library's resource classes declare.
"""

import copy
import re
import types
import typing
from decimal import Decimal
from functools import cache
from typing import Any, ForwardRef, Literal, get_args, get_origin
from urllib.parse import parse_qsl

import stripe
from stripe._request_options import RequestOptions
from stripe._stripe_object import StripeObject, UntypedStripeObject
from typing_extensions import get_type_hints, is_typeddict

Object = dict[str, Any]
Nested = str | dict[str, "Nested"] | list["Nested"]

_KEY = re.compile(r"[^\[\]]+")
_SCALARS = {int: re.compile(r"-?\d{1,18}"), bool: re.compile("true|false"), float: re.compile(r"-?\d+(\.\d+)?")}
# The parameters of lists inherit these; a request must not carry them.
_OPTIONS = frozenset(RequestOptions.__annotations__)


def decode_form(text: str) -> dict[str, Nested]:
    """Returns what Stripe's encoding says: `line_items[0][quantity]=2` is `{"line_items": [{"quantity": "2"}]}`."""
    root: dict[str, Nested] = {}
    for path, value in parse_qsl(text, keep_blank_values=True):
        parts = _KEY.findall(path)
        place = root
        for part in parts[:-1]:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{path} is both a value and a group")
            place = inner
        place[parts[-1]] = value
    return {key: _with_lists(value) for key, value in root.items()}


def _with_lists(value: Nested) -> Nested:
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(one) for key, one in value.items()}
    if inner and sorted(inner) == sorted(str(place) for place in range(len(inner))):
        return [inner[str(place)] for place in range(len(inner))]
    return inner


# Requests


def violations(params_type: type, sent: dict[str, Nested]) -> list[str]:
    """Returns what in a request contradicts the library's type of its parameters."""
    return _against_dictionary(params_type, sent, "")


@cache
def _hints(params_type: type) -> dict[str, Any]:
    module = vars(__import__(params_type.__module__, fromlist=["_"]))
    own = {name: hint for name, hint in params_type.__annotations__.items() if name not in _OPTIONS}
    # Evaluated without the inherited options, whose types exist for type checkers only.
    bare = type(params_type.__name__, (), {"__annotations__": own, "__module__": params_type.__module__})
    return get_type_hints(bare, globalns=module, localns={"UntypedStripeObject": UntypedStripeObject})


def _against_dictionary(params_type: type, sent: Nested, where: str) -> list[str]:
    if not isinstance(sent, dict):
        return [f"{where or 'the request'} must be a group of parameters"]
    hints = _hints(params_type)
    required: frozenset[str] = getattr(params_type, "__required_keys__", frozenset())
    found = [f"{where}{name} is not a parameter of {params_type.__name__}" for name in sent if name not in hints]
    found += [f"{where}{name} is missing" for name in sorted(required - _OPTIONS) if name not in sent]
    for name, value in sent.items():
        if name in hints:
            found += _against(hints[name], value, f"{where}{name}")
    return found


def _against(hint: Any, value: Nested, where: str) -> list[str]:
    origin: object = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [one for one in get_args(hint) if one is not type(None)]
        # `Literal[…] | str` is open for new values of Stripe; what Ledger sends must be one of the known ones.
        if any(get_origin(one) is Literal and any(get_args(one)) for one in options):
            options = [one for one in options if one is not str]
        return min((_against(one, value, where) for one in options), key=len)
    if origin is Literal:
        return [] if value in get_args(hint) else [f"{where} must be one of {get_args(hint)}, not {value!r}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where} must be a list"]
        return [
            fault for place, one in enumerate(value) for fault in _against(get_args(hint)[0], one, f"{where}[{place}]")
        ]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where} must be a mapping"]
        return [fault for key, one in value.items() for fault in _against(get_args(hint)[1], one, f"{where}[{key}]")]
    if origin is UntypedStripeObject:
        return [f"{where} is no mapping", "and a Stripe object is not sent"]
    if is_typeddict(hint):
        return _against_dictionary(hint, value, f"{where}.")
    if hint is str:
        return [] if isinstance(value, str) else [f"{where} must be text"]
    pattern = _SCALARS.get(float if hint is Decimal else hint)
    if pattern is None:
        raise AssertionError(f"The fake Stripe cannot check {where}: {hint}")
    return [] if isinstance(value, str) and pattern.fullmatch(value) else [f"{where} must be {hint}, not {value!r}"]


# Answers


def _fields(resource: type[StripeObject]) -> dict[str, Any]:
    return {
        name: hint
        for name, hint in resource.__annotations__.items()
        # `deleted` is there only when it is true.
        if not name.startswith("_") and name not in ("deleted", "OBJECT_NAME")
    }


def blank(resource: type[StripeObject]) -> dict[str, Any]:
    """Returns an object with every declared field: null where that is allowed, else the simplest value."""
    return {name: _simplest(hint) for name, hint in _fields(resource).items()}


def _simplest(hint: Any) -> Any:
    if isinstance(hint, str | ForwardRef) or hint is type(None):
        return None
    origin: object = get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = get_args(hint)
        return None if type(None) in options else _simplest(options[0])
    if origin is Literal:
        return get_args(hint)[0]
    if origin is list:
        return []
    if origin is stripe.ListObject:
        return {"object": "list", "data": [], "has_more": False, "url": ""}
    if origin in (dict, UntypedStripeObject):
        return {}
    if isinstance(hint, type) and issubclass(hint, StripeObject):
        return blank(hint)
    simplest: dict[Any, Any] = {str: "", int: 0, bool: False, float: 0.0, Decimal: "0"}
    return simplest.get(hint)


def shown(thing: Object) -> Object:
    """A copy of an object without what the fake notes on it for itself."""
    return copy.deepcopy({name: value for name, value in thing.items() if not name.startswith("_")})
