"""Reads request bodies: decoded in one pass, and when that fails, every refused field is named.

The Dashboard sends everything as strings, so form operations also take numbers and booleans written as text.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, TypeVar, cast

import msgspec
from msgspec import Meta, ValidationError

from ledger.errors import BadRequest, FieldError
from ledger.money import normalise_currency

T = TypeVar("T")

FIELDS_NAMED_MAX = 100
_PATH_TAIL = re.compile(r" - at `\$?\.?(.*)`$")


class Currency(str):
    """An ISO 4217 code, in upper case. Lower case is understood."""

    __slots__ = ()


class Instant(datetime):
    """A moment in UTC, written as an ISO 8601 date or date and time; without a zone it is UTC."""


Amount = Annotated[int, Meta(ge=0, le=10**12)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
UserId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request's body. Unknown fields are ignored: forms and old clients send extra ones.

    `missing_sentence` is the published sentence for a body that lacks a required field.
    """

    missing_sentence: ClassVar[str | None] = None


class NoBody(Body, frozen=True, kw_only=True):
    """An operation that reads no body."""


def read_moment(text: str) -> Instant:
    """Reads an ISO 8601 date or date and time as a moment in UTC. Raises ValueError for dates that do not exist."""
    moment = Instant.fromisoformat(text)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).astimezone(UTC)


def decode_value(kind: type, value: object) -> object:
    """Reads the types that JSON does not have. Raises ValueError or a `BadRequest` with the reason."""
    if kind is Currency:
        if not isinstance(value, str):
            raise ValidationError("Expected `str`")
        try:
            return Currency(normalise_currency(value))
        except BadRequest as refused:
            raise ValueError(refused.sentence) from None
    if kind is Instant:
        if not isinstance(value, str):
            raise ValidationError("Expected an ISO 8601 date as `str`")
        try:
            return read_moment(value)
        except (ValueError, OverflowError):
            raise ValueError("is not a date that exists; write it as 2026-12-31 or 2026-12-31T18:00:00Z") from None
    raise NotImplementedError(f"no way to read {kind}")


_decoders: dict[type, msgspec.json.Decoder[object]] = {}


def decode_body(raw: bytes, kind: type[T], *, is_form: bool) -> T:
    """Reads `raw` as `kind`. Raises `BadRequest` that names every refused field, or says `Invalid JSON`."""
    if is_form:
        content = _parse(raw)
        try:
            return msgspec.convert(content, kind, strict=False, dec_hook=decode_value)
        except (ValidationError, BadRequest):
            raise _refusal(content, kind, strict=False) from None
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=decode_value)
    try:
        return cast("T", decoder.decode(raw))
    except (ValidationError, BadRequest):
        raise _refusal(_parse(raw), kind, strict=True) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Invalid JSON") from None


def decode_query(values: dict[str, str], kind: type[T]) -> T:
    """Reads query parameters as `kind`; numbers come as text. Raises `BadRequest` naming each refused one."""
    try:
        return msgspec.convert(values, kind, strict=False, dec_hook=decode_value)
    except (ValidationError, BadRequest):
        raise _refusal(values, kind, strict=False) from None


def _parse(raw: bytes) -> object:
    try:
        content: object = msgspec.json.decode(raw) if raw.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Invalid JSON") from None
    return content


def _refusal(content: object, kind: type, *, strict: bool) -> BadRequest:
    fields = list(explain(content, kind, path="", strict=strict))[:FIELDS_NAMED_MAX]
    sentence = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in fields)
    if issubclass(kind, Body) and kind.missing_sentence and _lacks_required(content, kind):
        sentence = kind.missing_sentence
    return BadRequest(sentence or "The body cannot be read", fields=fields)


def _lacks_required(content: object, kind: type[Body]) -> bool:
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    return isinstance(content, dict) and any(content.get(name) in (None, "", []) for name in required)


def explain(content: object, kind: object, *, path: str, strict: bool) -> list[FieldError]:
    """Every field of `content` that does not fit `kind`, with what is wrong with it in words."""
    struct = _struct_in(kind)
    element = _element_in(kind)
    if struct is not None and isinstance(content, dict):
        return _explain_struct(content, struct, path=path, strict=strict)
    if element is not None and isinstance(content, list):
        whole = _own_refusal(content, kind, path=path, strict=strict)
        parts = [
            refused
            for index, item in enumerate(content[:1000])
            for refused in explain(item, element, path=f"{path}[{index}]", strict=strict)
        ]
        return parts or whole
    return _own_refusal(content, kind, path=path, strict=strict)


def _explain_struct(
    content: dict[object, object], kind: type[msgspec.Struct], *, path: str, strict: bool
) -> list[FieldError]:
    refused: list[FieldError] = []
    for field in msgspec.structs.fields(kind):
        at = f"{path}.{field.encode_name}" if path else field.encode_name
        if field.encode_name in content:
            refused += explain(content[field.encode_name], field.type, path=at, strict=strict)
        elif field.required:
            refused.append(FieldError(at, "is required"))
    return refused


def _own_refusal(content: object, kind: object, *, path: str, strict: bool) -> list[FieldError]:
    try:
        msgspec.convert(content, kind, strict=strict, dec_hook=decode_value)
    except (ValidationError, BadRequest, ValueError) as refused:
        message = str(refused)
        if message.startswith("Invalid enum value"):
            return [FieldError(path, f"must be one of {', '.join(_choices_in(kind))}")]
        inner = _PATH_TAIL.search(message)
        at = path + inner.group(1) if inner and path else path
        return [FieldError(at, _in_words(_PATH_TAIL.sub("", message)))]
    return []


def _choices_in(kind: object) -> list[str]:
    return [str(choice) for choice in _members(kind) if isinstance(choice, str | int)]


_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "nothing",
    "float": "a fraction",
}

_PHRASES = (
    (r" matching regex .*$", " of letters, digits, _ and - (at most 64)"),
    (r"^must be text of length >= 1$", "must not be empty"),
    (r"^must be a list of length >= 1$", "must have at least one entry"),
    (r"of length <= (\d+)$", r"of at most \1 characters"),
    (r"a list of at most (\d+) characters$", r"a list of at most \1 entries"),
    (r"an object of at most (\d+) characters$", r"an object of at most \1 entries"),
    (r">= (\S+)$", r"of at least \1"),
    (r"<= (\S+)$", r"of at most \1"),
)


def _in_words(message: str) -> str:
    """msgspec's message as a person would say it: `Expected int, got str` → `must be a whole number, not text`."""
    said = re.sub(r"`(\w+)`", lambda match: _WORDS.get(match.group(1), match.group(1)), message)
    said = re.sub(r"`([^`]+)`", lambda match: _alternatives(match.group(1)), said)
    said = re.sub(r"^Expected (.*?), got (.*)$", r"must be \1, not \2", said)
    said = re.sub(r"^Expected (.*)$", r"must be \1", said)
    for pattern, phrase in _PHRASES:
        said = re.sub(pattern, phrase, said)
    return said


def _alternatives(kinds: str) -> str:
    """`int | null` → `a whole number`: that a field may be left out need not be said where it was not."""
    words = [_WORDS.get(each.strip(), each.strip()) for each in kinds.split("|") if each.strip() != "null"]
    return " or ".join(words) or _WORDS["null"]


def _struct_in(kind: object) -> type[msgspec.Struct] | None:
    for each in _members(kind):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            return each
    return None


def _element_in(kind: object) -> object | None:
    for each in _members(kind):
        if getattr(each, "__origin__", None) is list:
            return cast("object", each.__args__[0])  # type: ignore[attr-defined]
    return None


def _members(kind: object) -> list[object]:
    """The types a field may have: `list[X] | None`, annotated or not, taken apart."""
    if hasattr(kind, "__metadata__"):
        return _members(kind.__origin__)  # type: ignore[attr-defined]
    if getattr(kind, "__origin__", None) is list:
        return [kind]
    parts = getattr(kind, "__args__", None)
    if parts:
        return [member for part in parts for member in _members(part)]
    return [kind]
