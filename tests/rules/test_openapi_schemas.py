"""Schemas of types as OpenAPI 3.0.3 has them: in place, exact for answers, and lenient for forms."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from openapi_schema_validator import OAS30Validator

from ledger.errors import FieldError
from ledger.web.bodies import Body, Currency, Instant
from ledger.web.openapi_schemas import Use, convert_schema, schema_of
from ledger.web.problems import Problem
from ledger.web.shapes import Detail, Done, Field, Form, FormField, Option, Table

USES: tuple[Use, ...] = ("body", "form", "query", "answer")


class Part(Body, frozen=True, kw_only=True):
    """A part of an order."""

    name: Annotated[str, Meta(min_length=1, max_length=9)]
    count: Annotated[int, Meta(ge=1, le=500)] = 1


class Order(Body, frozen=True, kw_only=True):
    """An order."""

    parts: Annotated[list[Part], Meta(min_length=1)]
    main_part: Part | None = None
    currency: Currency | None = None
    due_at: Instant | None = None
    kind: Literal["big", "small"] | None = None
    is_gift: bool = False
    labels: Annotated[dict[Annotated[str, Meta(max_length=10)], str], Meta(max_length=3)] | None = None


class Chain(msgspec.Struct):
    next: "Chain | None" = None


def convert(schema: dict[str, Any], *, use: Use = "body") -> dict[str, Any]:
    return convert_schema(schema, components={}, use=use)


def accepts(schema: dict[str, Any], value: object) -> bool:
    return bool(OAS30Validator(schema).is_valid(value))


def words_in(schema: object) -> set[str]:
    if isinstance(schema, dict):
        return set(schema) | {word for value in schema.values() for word in words_in(value)}
    if isinstance(schema, list):
        return {word for value in schema for word in words_in(value)}
    return set()


@pytest.mark.parametrize("use", USES)
def test_parts_are_written_out_where_they_are_used(use: Use) -> None:
    schema = schema_of(Order, use=use)
    assert "$ref" not in words_in(schema)
    assert schema["properties"]["parts"]["items"]["properties"]["name"] == {
        "type": "string",
        "minLength": 1,
        "maxLength": 9,
    }
    assert schema["properties"]["mainPart"]["title"] == "Part"


def test_a_type_that_contains_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="Chain contains itself"):
        schema_of(Chain, use="answer")


def test_a_type_nobody_described_is_refused() -> None:
    with pytest.raises(TypeError):
        schema_of(dict[str, complex], use="answer")


def test_null_is_said_with_nullable() -> None:
    assert convert({"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}], "default": None}) == {
        "type": "string",
        "maxLength": 5,
        "nullable": True,
    }
    assert convert({"type": ["string", "null"]}) == {"type": "string", "nullable": True}


def test_a_nullable_choice_names_null() -> None:
    schema = schema_of(Order, use="body")["properties"]["kind"]
    assert schema == {"type": "string", "enum": ["big", "small", None], "nullable": True}
    assert accepts(schema, None)
    assert convert({"enum": ["a", None]}) == {"type": "string", "enum": ["a", None], "nullable": True}


def test_a_nullable_part_takes_null_and_the_part() -> None:
    schema = schema_of(Order, use="body")
    assert accepts(schema, {"parts": [{"name": "a"}], "mainPart": None})
    assert accepts(schema, {"parts": [{"name": "a"}], "mainPart": {"name": "b", "count": 2}})
    assert not accepts(schema, {"parts": [{"name": "a"}], "mainPart": "b"})


@pytest.mark.parametrize(
    ("value", "is_taken"), [("a", True), (1, True), (True, True), (None, True), (1.5, False), ([], False)]
)
def test_null_among_several_types_is_taken(value: object, is_taken: bool) -> None:
    assert accepts(schema_of(str | int | bool | None, use="answer"), value) is is_taken


def test_a_constant_is_a_choice_of_one() -> None:
    assert convert({"const": "on"}) == {"type": "string", "enum": ["on"]}
    assert schema_of(Literal[True], use="answer") == {"type": "boolean", "enum": [True]}


def test_exclusive_limits_are_said_with_booleans() -> None:
    assert convert({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 9}) == {
        "type": "integer",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 9,
        "exclusiveMaximum": True,
        "format": "int64",
    }


def test_a_pair_is_a_list_of_its_length() -> None:
    schema = schema_of(tuple[int, str], use="answer")
    assert schema == {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": {"anyOf": [{"type": "integer", "format": "int64"}, {"type": "string"}]},
    }
    assert schema_of(tuple[str, str], use="answer")["items"] == {"type": "string"}


def test_a_list_always_says_what_it_holds() -> None:
    assert schema_of(list, use="answer") == {"type": "array", "items": {}}


def test_the_first_of_several_examples_is_kept() -> None:
    assert convert({"type": "string", "examples": ["a", "b"]}) == {"type": "string", "example": "a"}


def test_bytes_travel_as_base64() -> None:
    assert schema_of(bytes, use="answer") == {"type": "string", "format": "byte"}


def test_a_limit_on_keys_is_said_in_words() -> None:
    schema = schema_of(Order, use="body")["properties"]["labels"]
    assert schema == {
        "type": "object",
        "description": "Keys have at most 10 characters.",
        "additionalProperties": {"type": "string"},
        "maxProperties": 3,
        "nullable": True,
    }
    described = convert({"type": "object", "propertyNames": {"maxLength": 4}, "description": "Labels."})
    assert described["description"] == "Labels. Keys have at most 4 characters."


def test_an_empty_list_of_required_fields_is_left_out() -> None:
    assert convert({"type": "object", "properties": {}, "required": []}) == {"type": "object", "properties": {}}


def test_a_keyword_without_a_counterpart_is_not_dropped_silently() -> None:
    with pytest.raises(ValueError, match="unevaluatedProperties"):
        convert({"type": "object", "unevaluatedProperties": False})
    with pytest.raises(ValueError, match="no list of types"):
        convert({"type": ["string", "integer"]})


def test_a_currency_has_three_letters() -> None:
    schema = schema_of(Order, use="body")["properties"]["currency"]
    assert (schema["pattern"], schema["example"]) == ("^[A-Za-z]{3}$", "EUR")
    assert not accepts(schema, "EURO")


def test_a_moment_is_a_date_or_a_date_and_time() -> None:
    schema = schema_of(Order, use="body")["properties"]["dueAt"]
    assert [option["format"] for option in schema["anyOf"]] == ["date", "date-time"]
    assert "without a zone it is UTC" in schema["description"]
    assert accepts(schema, None)
    assert not accepts(schema, 20261231)


def test_only_forms_take_numbers_and_booleans_as_text() -> None:
    written = {"parts": [{"name": "a", "count": "500"}], "isGift": "true"}
    assert accepts(schema_of(Order, use="form"), written)
    assert not accepts(schema_of(Order, use="body"), written)
    assert accepts(schema_of(Order, use="form"), {"parts": [{"name": "a", "count": 500}], "isGift": True})


@pytest.mark.parametrize("text", ["", "a", "1.5", "05", "+5", "-5", "5000", " 5"])
def test_text_that_is_not_the_number_is_no_number_for_a_form(text: str) -> None:
    assert not accepts(schema_of(Part, use="form"), {"name": "a", "count": text})
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "a", "count": text}, Part, strict=False)


@pytest.mark.parametrize("text", ["0", "-1", "-12"])
def test_a_form_takes_a_negative_number_where_one_is_allowed(text: str) -> None:
    assert accepts(schema_of(int, use="form"), text)


def test_a_form_keeps_the_default_of_a_number() -> None:
    schema = schema_of(Part, use="form")["properties"]["count"]
    assert schema["default"] == 1
    assert all("default" not in option for option in schema["anyOf"])


def test_a_query_has_no_null() -> None:
    assert "nullable" not in words_in(schema_of(Order, use="query"))


def test_an_answer_always_holds_what_it_does_not_leave_out() -> None:
    schema = schema_of(Done, use="answer")
    assert schema["required"] == ["success"]
    assert "default" not in words_in(schema)


def test_what_a_shape_leaves_out_is_absent_and_never_null() -> None:
    schema = schema_of(FormField, use="answer")
    assert schema["required"] == ["key", "label", "type"]
    assert not accepts(schema, {"key": "a", "label": "A", "type": "text", "value": None})
    assert accepts(schema, {"key": "a", "label": "A", "type": "text"})


def test_a_row_has_an_id_and_plain_values() -> None:
    schema = schema_of(Table, use="answer")["properties"]["rows"]["items"]
    assert accepts(schema, {"id": "1", "amount": None, "count": 3})
    assert not accepts(schema, {"amount": "1.00 EUR"})
    assert not accepts(schema, {"id": "1", "amount": {"label": "a badge"}})


FULL_FIELD = FormField(
    key="a", label="A", type="select", value="x", required=True, options=[Option(label="X", value="x")]
)
ANSWERS: Sequence[msgspec.Struct] = (
    Done(),
    Detail(fields=[Field(key="a", label="A", value=None), Field(key="b", label="B", value=True, type="boolean")]),
    Form(fields=[FULL_FIELD, FormField(key="b", label="B", type="text")]),
    Table(columns=[], rows=[{"id": "1", "a": None}], total=1),
    Table(columns=[], rows=[], total=10_000, total_is_more=True, next_cursor="abc"),
    Problem(type="urn:x", title="T", status=404, detail="d", error="d"),
    Problem(
        type="urn:x",
        title="T",
        status=400,
        detail="d",
        error="d",
        errors=[FieldError("a", "is required")],
        required="r",
    ),
)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_an_encoded_answer_fits_its_schema(answer: msgspec.Struct) -> None:
    schema = schema_of(type(answer), use="answer")
    OAS30Validator(schema).validate(msgspec.json.decode(msgspec.json.encode(answer)))


def test_a_plain_time_of_an_answer_is_text() -> None:
    assert schema_of(datetime, use="answer") == {"type": "string"}
