"""Reads request bodies: decoded in one pass, and when that fails, every refused field is named.

The Dashboard sends everything as strings, so form operations also take numbers and booleans written as text.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time
from itertools import islice
from typing import Annotated, ClassVar, TypeVar, cast

import msgspec
from msgspec import Meta, ValidationError

from ledger.errors import BadRequest, FieldError
from ledger.money import normalise_currency

T = TypeVar("T")

FIELDS_NAMED_MAX = 100
FIELDS_IN_SENTENCE = 5
_PATH_TAIL = re.compile(r" - at `\$?\.?(.*)`$")
_KEY_SHOWN_CHARACTERS = 40
# PostgreSQL cannot store this character in a text. JSON has only this way to write it.
_NUL_ESCAPED = b"\\u0000"
_NUL_REFUSED = "must not contain the character NUL"
# A `$` alone also matches before a line break at the end.
_END = r"$(?!\n)"
ID_PATTERN = rf"^[A-Za-z0-9_-]{{1,64}}{_END}"
UUID_PATTERN = rf"^[0-9A-Fa-f]{{8}}-([0-9A-Fa-f]{{4}}-){{3}}[0-9A-Fa-f]{{12}}{_END}"
LINE_PATTERN = rf"^[^\x00-\x1f\x7f]*{_END}"


class Currency(str):
    """An ISO 4217 code, in upper case. Lower case is understood."""

    __slots__ = ()


class Instant(datetime):
    """A moment in UTC, written as an ISO 8601 date or date and time; without a zone it is UTC."""


class LastInstant(Instant):
    """The same as the end of a span: a date means the whole day."""


Amount = Annotated[int, Meta(ge=0, le=10**12)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
UserId = Annotated[str, Meta(pattern=ID_PATTERN)]


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


def read_last_moment(text: str) -> LastInstant:
    """Reads the end of a span: of a date its last microsecond, else the moment itself. Raises like `read_moment`."""
    moment = read_moment(text)
    # A text with a time of its own is no date.
    with suppress(ValueError):
        moment = Instant.combine(date.fromisoformat(text), time.max, UTC)
    return LastInstant.fromisoformat(moment.isoformat())


def decode_value(kind: type, value: object) -> object:
    """Reads the types that JSON does not have. Raises ValueError or a `BadRequest` with the reason."""
    if kind is Currency:
        if not isinstance(value, str):
            raise ValidationError("Expected `str`")
        try:
            return Currency(normalise_currency(value))
        except BadRequest as refused:
            raise ValueError(refused.sentence) from None
    if kind in (Instant, LastInstant):
        if not isinstance(value, str):
            raise ValidationError("Expected an ISO 8601 date as `str`")
        try:
            return read_moment(value) if kind is Instant else read_last_moment(value)
        except (ValueError, OverflowError):
            raise ValueError("is not a date Ledger can read; write it as 2026-12-31 or 2026-12-31T18:00:00Z") from None
    raise NotImplementedError(f"no way to read {kind}")


_decoders: dict[type, msgspec.json.Decoder[object]] = {}


def decode_body(raw: bytes, kind: type[T], *, is_form: bool) -> T:
    """Reads `raw` as `kind`. Raises `BadRequest` that names every refused field, or says `Invalid JSON`."""
    if is_form:
        content = _typed(_parse(raw), kind)
        try:
            read = msgspec.convert(content, kind, dec_hook=decode_value)
        except (ValidationError, BadRequest):
            raise _refusal(content, kind) from None
        _refuse_nul(raw, kind)
        return read
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, dec_hook=decode_value)
    try:
        decoded = decoder.decode(raw)
    except (ValidationError, BadRequest):
        raise _refusal(_parse(raw), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Invalid JSON") from None
    _refuse_nul(raw, kind)
    return cast("T", decoded)


def decode_query(values: dict[str, str], kind: type[T]) -> T:
    """Reads query parameters as `kind`; numbers come as text. Raises `BadRequest` naming each refused one."""
    typed = _typed(values, kind)
    try:
        read = msgspec.convert(typed, kind, dec_hook=decode_value)
    except (ValidationError, BadRequest):
        raise _refusal(typed, kind) from None
    if any("\0" in value for value in values.values()):
        raise refusal_of(list(_texts_with_nul(values, kind, path="")))
    return read


_WHOLE_NUMBER = re.compile(r"\s*-?[0-9]{1,20}\s*")
_BOOLEANS = {"true": True, "false": False}


def _typed(content: object, kind: type) -> object:
    """What a form or a query says as text, as the numbers and booleans it stands for.

    Only digits make a number: `50.00` typed for 50.00 EUR must not be read as 50 cents.
    """
    struct = _struct_in(kind)
    if struct is None or not isinstance(content, dict):
        return content
    typed = dict(content)
    for field in msgspec.structs.fields(struct):
        value = content.get(field.encode_name)
        if not isinstance(value, str):
            continue
        members = _members(field.type)
        if int in members and _WHOLE_NUMBER.fullmatch(value):
            typed[field.encode_name] = int(value)
        elif bool in members and value in _BOOLEANS:
            typed[field.encode_name] = _BOOLEANS[value]
    return typed


def _refuse_nul(raw: bytes, kind: type) -> None:
    """Raises `BadRequest` when a text that would be stored cannot be. Unknown fields may hold anything."""
    if _NUL_ESCAPED in raw:
        fields = list(islice(_texts_with_nul(_parse(raw), kind, path=""), FIELDS_NAMED_MAX))
        if fields:
            raise refusal_of(fields)


def _texts_with_nul(content: object, kind: object, *, path: str) -> Iterator[FieldError]:
    if isinstance(content, str):
        if "\0" in content:
            yield FieldError(path, _NUL_REFUSED)
    elif isinstance(content, list):
        for index, item in enumerate(content):
            yield from _texts_with_nul(item, _element_in(kind), path=f"{path}[{index}]")
    elif isinstance(content, dict) and (struct := _struct_in(kind)) is not None:
        for field in msgspec.structs.fields(struct):
            at = f"{path}.{field.encode_name}" if path else field.encode_name
            yield from _texts_with_nul(content.get(field.encode_name), field.type, path=at)
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _texts_with_nul(key, str, path=path)
            yield from _texts_with_nul(value, str, path=_at_key(path, key))


def _parse(raw: bytes) -> object:
    try:
        content: object = msgspec.json.decode(raw) if raw.strip() else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequest("Invalid JSON") from None
    return content


def _refusal(content: object, kind: type) -> BadRequest:
    fields = list(islice(explain(content, kind, path=""), FIELDS_NAMED_MAX))
    if isinstance(kind, type) and issubclass(kind, Body) and kind.missing_sentence and _lacks_required(content, kind):
        return BadRequest(kind.missing_sentence, fields=fields)
    return refusal_of(fields)


def refusal_of(fields: list[FieldError]) -> BadRequest:
    """What a request with refused fields is answered: it names a hundred of them, the sentence only the first few."""
    told = [
        f"{each.field}: {each.message}" if each.field else f"The body {each.message}"
        for each in fields[:FIELDS_IN_SENTENCE]
    ]
    if len(fields) > FIELDS_IN_SENTENCE:
        untold = len(fields) - FIELDS_IN_SENTENCE
        told.append(f"and {untold} more" if len(fields) < FIELDS_NAMED_MAX else "and many more")
    return BadRequest("; ".join(told) or "The body cannot be read", fields=fields[:FIELDS_NAMED_MAX])


def _lacks_required(content: object, kind: type[Body]) -> bool:
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    return isinstance(content, dict) and any(content.get(name) in (None, "", []) for name in required)


def explain(content: object, kind: object, *, path: str) -> Iterator[FieldError]:
    """Every field of `content` that does not fit `kind`, with what is wrong with it in words."""
    own = _own_refusal(content, kind, path=path)
    if not own:
        return
    parts: Iterator[FieldError] = iter(())
    if isinstance(content, dict) and (struct := _struct_in(kind)) is not None:
        parts = _explain_struct(content, struct, path=path)
    elif isinstance(content, dict) and (mapping := _mapping_in(kind)) is not None:
        parts = _explain_mapping(content, mapping, path=path)
    elif isinstance(content, list) and (element := _element_in(kind)) is not None:
        parts = (
            refused for index, item in enumerate(content) for refused in explain(item, element, path=f"{path}[{index}]")
        )
    # What no part is to blame for is wrong with the whole, as too many entries are.
    first = next(parts, None)
    yield from own if first is None else (first,)
    yield from parts


def _explain_struct(content: dict[object, object], kind: type[msgspec.Struct], *, path: str) -> Iterator[FieldError]:
    for field in msgspec.structs.fields(kind):
        at = f"{path}.{field.encode_name}" if path else field.encode_name
        if field.encode_name in content:
            yield from explain(content[field.encode_name], field.type, path=at)
        elif field.required:
            yield FieldError(at, "is required")


def _explain_mapping(content: dict[object, object], kinds: tuple[object, object], *, path: str) -> Iterator[FieldError]:
    for key, value in content.items():
        for refused in _own_refusal(key, kinds[0], path=path):
            yield FieldError(path, f"the key {_shown_key(key)!r} {refused.message}")
        yield from explain(value, kinds[1], path=_at_key(path, key))


def _at_key(path: str, key: object) -> str:
    return f"{path}.{_shown_key(key)}" if path else _shown_key(key)


def _shown_key(key: object) -> str:
    text = str(key)
    return text if len(text) <= _KEY_SHOWN_CHARACTERS else f"{text[:_KEY_SHOWN_CHARACTERS]}…"


def _own_refusal(content: object, kind: object, *, path: str) -> list[FieldError]:
    try:
        msgspec.convert(content, kind, dec_hook=decode_value)
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
    (r"^must be a whole number(.*), not text$", r"must be a whole number\1, written in digits only"),
    (r" matching regex .*x1f.*$", " on one line"),
    (r" matching regex .*\{12\}.*$", " that is an id as Ledger writes it"),
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


def _mapping_in(kind: object) -> tuple[object, object] | None:
    for each in _members(kind):
        if getattr(each, "__origin__", None) is dict:
            return cast("tuple[object, object]", each.__args__)  # type: ignore[attr-defined]
    return None


def _members(kind: object) -> list[object]:
    """The types a field may have: `list[X] | None`, annotated or not, taken apart."""
    if hasattr(kind, "__metadata__"):
        return _members(kind.__origin__)  # type: ignore[attr-defined]
    if getattr(kind, "__origin__", None) in (list, dict):
        return [kind]
    parts = getattr(kind, "__args__", None)
    if parts:
        return [member for part in parts for member in _members(part)]
    return [kind]
