"""Schemas of the OpenAPI document: msgspec's JSON Schema (2020-12) rewritten as OpenAPI 3.0.3 has it, all inline."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import inspect as types

from ledger.web.bodies import Currency, Instant, LastInstant
from ledger.web.shapes import Table

# A schema's values depend on its keywords, which no type can follow; msgspec hands schemas out like this too.
Schema = dict[str, Any]

Use = Literal["body", "form", "query", "answer"]
"""What a schema describes: a JSON body, a body that may hold numbers as text, query parameters, or an answer."""

_CUSTOM_SCHEMAS: dict[type, Schema] = {
    Currency: {
        "type": "string",
        "pattern": "^[A-Za-z]{3}$",
        "description": "An ISO 4217 code; lower case is understood.",
        "example": "EUR",
    },
    Instant: {
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
        "description": "An ISO 8601 date (its midnight in UTC) or date and time; without a zone it is UTC.",
        "example": "2026-12-31T18:00:00Z",
    },
    LastInstant: {
        "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
        "description": "An ISO 8601 date (the whole day in UTC) or date and time; without a zone it is UTC.",
        "example": "2026-12-31",
    },
    object: {"description": "Any JSON value."},
}

_KEPT = frozenset(
    {"title", "description", "type", "format", "enum", "default", "example", "nullable", "deprecated", "readOnly"}
    | {"writeOnly", "minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems"}
    | {"uniqueItems", "minProperties", "maxProperties"}
)
_ABOUT = frozenset({"title", "description", "default", "example", "nullable"})
# A discriminator needs references, which this document has none of.
_DROPPED = frozenset({"discriminator", "$comment"})
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema_of(kind: object, *, use: Use) -> Schema:
    """The OpenAPI 3.0.3 schema of a type, without references.

    Raises TypeError for types nobody has described, ValueError for what 3.0.3 cannot say in place.
    """
    structs = list(_structs_in(types.type_info(kind), {}))
    schemas, components = msgspec.json.schema_components(
        [kind, *structs], schema_hook=_custom_schema, ref_template="{name}"
    )
    if use == "answer":
        for named, struct in zip(schemas[1:], structs, strict=True):
            components[named["$ref"]] = _as_answered(components[named["$ref"]], struct)
    return convert_schema(schemas[0], components=components, use=use)


def _custom_schema(kind: type) -> Schema:
    if kind not in _CUSTOM_SCHEMAS:
        raise NotImplementedError
    return dict(_CUSTOM_SCHEMAS[kind])


def _structs_in(part: object, found: dict[type[msgspec.Struct], None]) -> dict[type[msgspec.Struct], None]:
    """Every struct within a type, in the order they are met. msgspec's descriptions of types are structs themselves."""
    if isinstance(part, types.StructType):
        if part.cls in found:
            return found
        found[part.cls] = None
    if isinstance(part, types.Type | types.Field):
        for name in part.__struct_fields__:
            _structs_in(getattr(part, name), found)
    elif isinstance(part, tuple):
        for each in part:
            _structs_in(each, found)
    return found


def _as_answered(component: Schema, kind: type[msgspec.Struct]) -> Schema:
    """An answer holds every field, except that a shape leaves out those that have their default."""
    if kind.__struct_config__.array_like:
        return component
    leaves_out = kind.__struct_config__.omit_defaults
    properties: Schema = {}
    required: list[str] = [name for name in component["required"] if name == kind.__struct_config__.tag_field]
    for name, schema in component["properties"].items():
        properties[name] = {keyword: value for keyword, value in schema.items() if keyword != "default"}
    for field in msgspec.structs.fields(kind):
        schema = properties[field.encode_name]
        if field.required or not leaves_out:
            required.append(field.encode_name)
        elif field.default is None and "anyOf" in schema:
            schema["anyOf"] = [option for option in schema["anyOf"] if option != {"type": "null"}]
    if kind is Table:
        # Every row has an id, which is what its link is made of, whether or not a column shows it.
        row = {**properties["rows"]["items"], "properties": {"id": {"type": "string"}}, "required": ["id"]}
        properties["rows"] = {**properties["rows"], "items": row}
    return {**component, "properties": properties, "required": required}


def convert_schema(schema: Schema, *, components: Schema, use: Use, within: tuple[str, ...] = ()) -> Schema:
    """Says in OpenAPI 3.0.3 what a JSON Schema 2020-12 of msgspec says, with its references replaced.

    Raises ValueError for a schema that contains itself, and for keywords that have no counterpart.
    """
    given = dict(schema)
    reference = given.pop("$ref", None)
    if reference in within:
        raise ValueError(f"{reference} contains itself, so it cannot be written out where it is used")
    if reference is not None:
        given, within = {**components[reference], **given}, (*within, reference)

    def inner(part: Schema) -> Schema:
        return convert_schema(part, components=components, use=use, within=within)

    options = given.pop("anyOf", [])
    converted: Schema = {}
    for keyword, value in given.items():
        converted |= _keyword(keyword, value, given=given, inner=inner)
    real = [inner(option) for option in options if option != {"type": "null"}]
    if len(real) == 1:
        converted = {**real[0], **converted}
    elif real:
        converted["anyOf"] = real
    if isinstance(converted.get("enum"), list):
        converted = _typed_enum(converted)
    if converted.get("type") == "integer":
        converted.setdefault("format", "int64")
    if converted.get("type") == "array":
        converted.setdefault("items", {})
    if use == "form":
        converted = _or_as_text(converted)
    if converted.pop("nullable", False) or len(real) < len(options):
        converted = _nullable(converted) if use != "query" else converted
    return {word: value for word, value in converted.items() if word != "default" or value is not None}


def _typed_enum(schema: Schema) -> Schema:
    values = [each for each in schema["enum"] if each is not None]
    kinds = {type(each) for each in values}
    kind = {"type": _JSON_TYPES[kinds.pop()]} if len(kinds) == 1 else {}
    return {**kind, **schema, "enum": values, **({"nullable": True} if None in schema["enum"] else {})}


def _or_as_text(schema: Schema) -> Schema:
    """What forms send: a number or a boolean, or the same written as text."""
    if schema.get("type") == "boolean":
        text: Schema = {"type": "string", "enum": ["true", "false"]}
    elif schema.get("type") == "integer":
        digits = f"{{0,{max(len(str(schema['maximum'])) - 1, 0)}}}" if "maximum" in schema else "*"
        sign = "" if schema.get("minimum", -1) >= 0 else "-?"
        text = {"type": "string", "pattern": f"^(0|{sign}[1-9][0-9]{digits})$"}
    else:
        return schema
    about = {word: value for word, value in schema.items() if word in _ABOUT}
    return {**about, "anyOf": [{word: value for word, value in schema.items() if word not in about}, text]}


def _nullable(schema: Schema) -> Schema:
    """`nullable` only counts beside a `type`, and an `enum` has to name null too."""
    if "anyOf" in schema:
        schema = {**schema, "anyOf": [_nullable(option) for option in schema["anyOf"]]}
    if "enum" in schema:
        schema = {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "nullable": True} if "type" in schema else schema


def _keyword(keyword: str, value: Any, *, given: Schema, inner: Callable[[Schema], Schema]) -> Schema:
    """One keyword of 2020-12 as the keywords of 3.0.3 that say the same."""
    match keyword:
        case "const":
            return {"enum": [value]}
        case "examples":
            return {"example": value[0]} if value else {}
        case "contentEncoding":
            return {"format": "byte"}
        case "exclusiveMinimum" | "exclusiveMaximum":
            return {keyword.replace("exclusiveM", "m"): value, keyword: True}
        case "type" if isinstance(value, list):
            single = [each for each in value if each != "null"]
            if len(single) != 1:
                raise ValueError(f"OpenAPI 3.0.3 has no list of types: {value}")
            return {"type": single[0], "nullable": "null" in value}
        case "required":
            # An empty list is not allowed.
            return {"required": list(value)} if value else {}
        case "properties":
            return {"properties": {name: inner(part) for name, part in value.items()}}
        case "items" | "additionalProperties":
            if isinstance(value, dict):
                return {keyword: inner(value)}
            return {keyword: value} if keyword == "additionalProperties" else {}
        case "prefixItems":
            places = [inner(part) for part in value]
            different = [part for index, part in enumerate(places) if part not in places[:index]]
            return {"items": different[0] if len(different) == 1 else {"anyOf": different}}
        case "description" | "propertyNames":
            # 3.0.3 has no word for what keys may look like, so the description says it.
            longest = given.get("propertyNames", {}).get("maxLength")
            limit = f"Keys have at most {longest} characters." if longest else None
            sentences = [each for each in (given.get("description"), limit) if each]
            return {"description": " ".join(sentences)} if sentences else {}
        case _ if keyword in _DROPPED:
            return {}
        case _ if keyword in _KEPT or keyword.startswith("x-"):
            return {keyword: value}
    raise ValueError(f"There is no way yet to say {keyword!r} in OpenAPI 3.0.3")
