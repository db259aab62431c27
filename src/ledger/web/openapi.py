"""Writes the OpenAPI document from the declared operations.

The document is OpenAPI 3.0.3 (https://spec.openapis.org/oas/v3.0.3), and every schema stands where it is used: who merges
documents takes only the `paths`, so a `$ref` into the components would point nowhere.
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import inspect as types

from ledger.web.bodies import Currency, Instant, NoBody
from ledger.web.call import NoQuery
from ledger.web.idempotency import KEY_MAX
from ledger.web.operation import PUBLIC, SERVICE, STAFF, USER, Callers, Operation
from ledger.web.problems import PROBLEM_JSON, Problem
from ledger.web.shapes import Table

# A schema's values depend on its keywords, which no type can follow; msgspec hands schemas out like this too.
Schema = dict[str, Any]

Use = Literal["body", "form", "query", "answer"]
"""What a schema describes: a JSON body, a body that may hold numbers as text, query parameters, or an answer."""

_METHODS = ("GET", "POST", "PUT", "DELETE")
_ID_SCHEMA: Schema = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]{1,64}$"}

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
    object: {"description": "Any JSON value."},
}

_KEPT = frozenset(
    {"title", "description", "type", "format", "enum", "default", "example", "nullable", "deprecated", "readOnly"}
    | {"writeOnly", "minimum", "maximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems"}
    | {"uniqueItems", "minProperties", "maxProperties"}
)
# A discriminator needs references, which this document has none of.
_DROPPED = frozenset({"discriminator", "$comment"})
_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}

_CALLERS_IN_WORDS = {
    PUBLIC: "anybody, without credentials",
    USER: "any person who is signed in, on what is theirs",
    STAFF: "people who hold the permission `ledger:manage`",
    SERVICE: "registered services with their ServiceKey, on what they created or were granted",
}

_PROBLEMS = {
    400: "The request or its body is malformed, or a rule refuses it. `errors` names each refused field.",
    401: "Nobody is proven by the `Authorization` header.",
    403: "The caller is proven and may not do this. `required` says what would be needed.",
    404: "There is no such thing, or the caller may not know of it.",
    409: "Somebody else was faster, or an equal request with the same `Idempotency-Key` is still running.",
    410: "It existed, and its content was purged.",
    413: "The body is larger than 1 MiB.",
    422: "The `Idempotency-Key` was used before with another body.",
    429: "The caller's rate limit is used up.",
    500: "A fault inside Ledger; its log names it by the request's id.",
    501: "No active provider can do this.",
    502: "A provider answered with a fault of its own.",
    503: "Something Ledger depends on cannot be asked right now.",
    504: "This took too long and was given up.",
}
_SAYS_WHEN_TO_COME_BACK = frozenset({409, 429, 503, 504})

_QUERY_IN_WORDS = {
    "limit": "How many rows at most.",
    "cursor": "Where to go on: the `nextCursor` of the answer before. Opaque.",
}

_ITEMS = [
    {"description": "Conference ticket", "unitPrice": 5000, "quantity": 2},
    {"description": "Printed programme", "unitPrice": 700, "taxRate": 700},
]
# By operation, since features are above this module. A test reads each of them as the body it stands for.
BODY_EXAMPLES: dict[str, Schema] = {
    "post_api_invoices": {
        "userId": "V1StGXR8_Z5jdHi6B-myT",
        "items": _ITEMS,
        "currency": "EUR",
        "dueDate": "2026-12-31",
        "notes": "Ordered by phone",
        "metadata": {"order": "2026-118"},
    },
    "post_api_invoices_batch": {
        "invoices": [
            {"userId": "V1StGXR8_Z5jdHi6B-myT", "items": _ITEMS},
            {"userId": "a9Kd03nfPq-71mXc_s2LzW", "items": _ITEMS[:1], "currency": "EUR", "skipTax": True},
        ]
    },
    "post_api_invoices_id_mark_paid": {"method": "bank_transfer", "reference": "STMT-2026-11/4", "paidAt": "2026-11-20"},
    "post_api_invoices_id_refund": {"amount": 5000, "reason": "One ticket returned"},
    "put_api_settings": {"defaultCurrency": "EUR", "taxRate": 1900, "taxLabel": "VAT"},
    "post_api_service_access": {"serviceId": "Qm3vT8yLw0sXe5RbN-kJd", "access": "read"},
}


def openapi_document(operations: Iterable[Operation], *, version: str) -> Schema:
    """The document as OpenAPI 3.0.3, the same for the same operations in any order.

    Raises ValueError for two operations of one id, and for types that OpenAPI 3.0.3 cannot describe in place.
    """
    ordered = sorted(operations, key=lambda each: (each.path, _METHODS.index(each.method)))
    ids = [operation_id_of(each) for each in ordered]
    if len(set(ids)) != len(ids):
        raise ValueError(f"Operations share an id: {sorted({each for each in ids if ids.count(each) > 1})}")
    paths: Schema = {}
    for operation in ordered:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation_object(operation)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Ledger",
            "version": version,
            "description": "Billing and payments of ConvStack. Amounts are integers in the currency's minor unit.",
            "license": {"name": "MIT"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A person's access token."},
                "serviceKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "A service's key, written as `ServiceKey sk_svc_…`.",
                },
            }
        },
    }


def operation_id_of(operation: Operation) -> str:
    """The published form: `get_api_invoices_id` for `GET /api/invoices/{id}`."""
    return f"{operation.method.lower()}_{re.sub(r'[^A-Za-z0-9]+', '_', operation.path).strip('_')}"


def _operation_object(operation: Operation) -> Schema:
    callers = [each for each in Callers if each & operation.callers]
    described: Schema = {
        "operationId": operation_id_of(operation),
        "tags": [_tag_of(operation.path)],
        "summary": operation.summary,
        "description": _description_of(operation, callers),
        "security": _security_of(operation.callers),
        "x-callers": [str(each.name).lower() for each in callers],
        "parameters": list(_parameters_of(operation)),
    }
    if operation.body is not NoBody:
        described["requestBody"] = _request_body_of(operation)
    described["responses"] = _responses_of(operation)
    return described


def _tag_of(path: str) -> str:
    # As published: a person's own invoices are `my/invoices`, apart from everybody's.
    segments = path.strip("/").split("/")
    return "/".join(segments[1:3]) if segments[1:2] == ["my"] else segments[min(1, len(segments) - 1)]


def _description_of(operation: Operation, callers: list[Callers]) -> str:
    sentences = [f"May be called by {'; and by '.join(_CALLERS_IN_WORDS[each] for each in callers)}."]
    if operation.description:
        sentences.append(operation.description)
    if operation.query is not NoQuery:
        sentences.append(_docstring_of(operation.query))
    if operation.is_form:
        sentences.append("Numbers and booleans may be written as text.")
    return "\n\n".join(filter(None, sentences))


def _docstring_of(kind: object) -> str:
    is_ours = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return " ".join((inspect.getdoc(kind) or "").split()) if is_ours else ""


def _security_of(callers: Callers) -> list[Schema]:
    if callers & PUBLIC:
        return []
    people: list[Schema] = [{"bearer": []}] if callers & (USER | STAFF) else []
    return people + ([{"serviceKey": []}] if callers & SERVICE else [])


def _is_idempotent_post(operation: Operation) -> bool:
    return operation.method == "POST" and not operation.callers & PUBLIC


def _parameters_of(operation: Operation) -> Iterator[Schema]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": dict(_ID_SCHEMA)}
    if operation.query is not NoQuery:
        yield from _query_parameters_of(operation.query)
    if _is_idempotent_post(operation):
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Makes the request safe to send again: an equal one within 30 days gets the first's answer.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": KEY_MAX,
                "pattern": f"^[!-~]([ -~]{{0,{KEY_MAX - 2}}}[!-~])?$",
            },
        }
    yield {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Names the request in the log, when it is 1 to 64 of `A-Z a-z 0-9 . _ -`; else a new id is taken.",
        "schema": {"type": "string"},
    }


def _query_parameters_of(kind: type) -> Iterator[Schema]:
    schema = schema_of(kind, use="query")
    for name, value in schema["properties"].items():
        described = {"name": name, "in": "query", "required": name in schema.get("required", [])}
        words = value.pop("description", _QUERY_IN_WORDS.get(name))
        yield {**described, **({"description": words} if words else {}), "schema": value}


def _request_body_of(operation: Operation) -> Schema:
    schema = schema_of(operation.body, use="form" if operation.is_form else "body")
    content: Schema = {"schema": schema}
    example = BODY_EXAMPLES.get(operation_id_of(operation))
    if example is not None:
        content["example"] = example
    return {"required": bool(schema.get("required")), "content": {"application/json": content}}


def _responses_of(operation: Operation) -> Schema:
    described = {operation.status: _success_of(operation)}
    for status in _problem_statuses_of(operation):
        described[status] = _problem_answer(status)
    if operation.callers & PUBLIC and operation.method == "GET" and 503 in operation.errors:
        # A probe that fails says so in the answer's own shape.
        described[503]["content"] |= _content_of(operation)
    return {str(status): described[status] for status in sorted(described)}


def _problem_statuses_of(operation: Operation) -> set[int]:
    """What the operation declares, and what every operation of its kind can answer."""
    statuses = {500, *operation.errors}
    if operation.query is not NoQuery or operation.body is not NoBody:
        statuses.add(400)
    if "{" in operation.path:
        statuses.add(404)
    if operation.method != "GET":
        statuses |= {413, 503, 504}
    if not operation.callers & PUBLIC:
        statuses |= {401, 403, 429, 503, 504}
    if _is_idempotent_post(operation):
        statuses |= {400, 409, 422}
    # What depends on the database can also find it slow.
    return statuses | ({504} if 503 in statuses else set())


def _success_of(operation: Operation) -> Schema:
    described: Schema = {
        "description": _docstring_of(operation.answer) or "Success.",
        "headers": {"X-Request-Id": _header("The request's id, as the log has it.", {"type": "string"})},
    }
    if _is_idempotent_post(operation):
        described["headers"]["Idempotent-Replayed"] = _header(
            "Present when this is the answer to an earlier equal request.", {"type": "string", "enum": ["true"]}
        )
    return described if operation.status == 204 else {**described, "content": _content_of(operation)}


def _content_of(operation: Operation) -> Schema:
    media_type: str = getattr(operation, "media_type", "application/json")
    if "json" in media_type:
        return {media_type: {"schema": schema_of(operation.answer, use="answer")}}
    text: Schema = {"type": "string"}
    return {media_type: {"schema": text if media_type.startswith("text/") else {**text, "format": "binary"}}}


def _problem_answer(status: int) -> Schema:
    schema = schema_of(Problem, use="answer")
    schema["properties"]["status"]["enum"] = [status]
    headers = {"X-Request-Id": _header("The request's id, as the log has it.", {"type": "string"})}
    if status in _SAYS_WHEN_TO_COME_BACK:
        headers["Retry-After"] = _header("Seconds to wait before trying again.", {"type": "integer", "minimum": 1})
    if status == 401:
        headers["WWW-Authenticate"] = _header("The credentials that are understood.", {"type": "string"})
    return {"description": _PROBLEMS[status], "headers": headers, "content": {PROBLEM_JSON: {"schema": schema}}}


def _header(description: str, schema: Schema) -> Schema:
    return {"description": description, "schema": schema}


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
        if keyword not in _DROPPED:
            converted |= _keyword(keyword, value, given, inner)
    is_nullable = {"type": "null"} in options or converted.pop("nullable", False)
    real = [inner(option) for option in options if option != {"type": "null"}]
    if len(real) == 1:
        converted = {**real[0], **converted}
    elif real:
        converted["anyOf"] = real
    return _finished(converted, is_nullable=is_nullable and use != "query", is_form=use == "form")


def _keyword(keyword: str, value: Any, given: Schema, inner: Callable[[Schema], Schema]) -> Schema:
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
        case "propertyNames":
            limit = f"Keys have at most {value['maxLength']} characters." if "maxLength" in value else ""
            return {"description": " ".join(filter(None, (given.get("description"), limit)))} if limit else {}
        case _ if keyword in _KEPT or keyword.startswith("x-"):
            return {keyword: value}
    raise ValueError(f"OpenAPI 3.0.3 has no counterpart of {keyword!r}")
