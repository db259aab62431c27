"""Writes the OpenAPI document from the declared operations.

The document is OpenAPI 3.0.3 (https://spec.openapis.org/oas/v3.0.3), and every schema stands where it is used: Lanyard
merges only the `paths` of its services, so a `$ref` into the components would point nowhere.
"""

import inspect
import re
from collections.abc import Iterable, Iterator

import msgspec

from ledger.web.bodies import NoBody
from ledger.web.call import NoQuery
from ledger.web.idempotency import KEY_MAX
from ledger.web.openapi_schemas import Schema, schema_of
from ledger.web.operation import PUBLIC, SERVICE, STAFF, USER, Callers, Operation
from ledger.web.problems import PROBLEM_JSON, Problem

_METHODS = ("GET", "POST", "PUT", "DELETE")
_ID_SCHEMA: Schema = {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]{1,64}$"}


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
    "post_api_invoices_id_mark_paid": {
        "method": "bank_transfer",
        "reference": "STMT-2026-11/4",
        "paidAt": "2026-11-20",
    },
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
        "description": "Names the request in the log if it is 1 to 64 of `A-Z a-z 0-9 . _ -`; else a new id is taken.",
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
    described = {status: _success_of(operation) for status in (operation.status, *operation.other_statuses)}
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
    whole = schema_of(Problem, use="answer")
    # Each error stands there many times over, so it is kept short: only the fields that its status comes with.
    foreign = {"errors": 400, "required": 403}
    fields = {name: field for name, field in whole["properties"].items() if foreign.get(name, status) == status}
    schema = {"type": "object", "properties": fields, "required": whole["required"]}
    fields["status"] = {"type": "integer", "enum": [status]}
    headers = {"X-Request-Id": _header("The request's id, as the log has it.", {"type": "string"})}
    if status in _SAYS_WHEN_TO_COME_BACK:
        headers["Retry-After"] = _header("Seconds to wait before trying again.", {"type": "integer", "minimum": 1})
    if status == 401:
        headers["WWW-Authenticate"] = _header("The credentials that are understood.", {"type": "string"})
    return {"description": _PROBLEMS[status], "headers": headers, "content": {PROBLEM_JSON: {"schema": schema}}}


def _header(description: str, schema: Schema) -> Schema:
    return {"description": description, "schema": schema}
