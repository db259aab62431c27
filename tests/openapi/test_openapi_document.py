"""The OpenAPI document over a few declared operations of every kind."""

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta
from openapi_spec_validator import OpenAPIV30SpecValidator

from ledger import errors
from ledger.web.bodies import Body, Currency, Instant, NoBody
from ledger.web.call import NoQuery
from ledger.web.openapi import openapi_document, operation_id_of
from ledger.web.openapi_schemas import Schema
from ledger.web.operation import PUBLIC, SERVICE, STAFF, USER, Callers, Operation
from ledger.web.paging import PageQuery
from ledger.web.shapes import Detail, Done, Table


class NewParcel(Body, frozen=True, kw_only=True):
    """The parcel to send."""

    weight: Annotated[int, Meta(ge=1, le=30_000)]
    currency: Currency | None = None


class ParcelChange(Body, frozen=True, kw_only=True):
    """What can be changed."""

    weight: Annotated[int, Meta(ge=1, le=30_000)] | None = None


class ParcelQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the parcel list."""

    sent_by: Annotated[str, Meta(max_length=64)]
    state: Literal["sent", "lost"] | None = None
    from_: Instant | None = msgspec.field(default=None, name="from")


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it works."""

    ok: bool


class Drawn(Operation, frozen=True, kw_only=True):
    media_type: str


def declare(method: Literal["GET", "POST", "PUT", "DELETE"], path: str, callers: Callers, **more: Any) -> Operation:
    return Operation(**{**DECLARED, "method": method, "path": path, "callers": callers, **more})


DECLARED: dict[str, Any] = {
    "summary": "Do something",
    "body": NoBody,
    "query": NoQuery,
    "answer": Done,
    "status": 200,
    "is_form": False,
    "errors": (),
    "description": "",
}
LIST = declare("GET", "/api/parcels", STAFF, answer=Table, query=ParcelQuery, description="Newest parcels.")
CREATE = declare("POST", "/api/parcels", STAFF | SERVICE, body=NewParcel, status=201)
SHOW = declare("GET", "/api/my/parcels/{id}", USER, answer=Detail)
CHANGE = declare("PUT", "/api/parcels/{id}", STAFF, body=ParcelChange, is_form=True)
DELETE = declare("DELETE", "/api/parcels/{id}", STAFF)
MARK = declare("POST", "/api/parcels/{id}/mark-sent", STAFF, errors=(501,))
HEALTH = declare("GET", "/api/health", PUBLIC, answer=Probe, errors=(503,))
DOCUMENT = declare("GET", "/api/openapi", PUBLIC, answer=dict)
RECEIVE = declare("POST", "/api/hooks/{id}", PUBLIC, body=NewParcel)
METRICS = Drawn(**{**DECLARED, "method": "GET", "path": "/metrics", "callers": PUBLIC}, media_type="text/plain")
PICTURE = Drawn(
    **{**DECLARED, "method": "GET", "path": "/api/parcels/{id}/label.png", "callers": STAFF}, media_type="image/png"
)
ALL = [LIST, CREATE, SHOW, CHANGE, DELETE, MARK, HEALTH, DOCUMENT, RECEIVE, METRICS, PICTURE]


def described(operation: Operation) -> Schema:
    paths = openapi_document([operation], version="1.2.3")["paths"]
    written: Schema = paths[operation.path][operation.method.lower()]
    return written


def parameters(operation: Operation) -> dict[str, Schema]:
    return {each["name"]: each for each in described(operation)["parameters"]}


def statuses(operation: Operation) -> list[int]:
    return [int(status) for status in described(operation)["responses"]]


def test_the_document_is_valid_openapi_3_0_3() -> None:
    document = openapi_document(ALL, version="1.2.3")
    assert document["openapi"] == "3.0.3"
    assert document["info"]["version"] == "1.2.3"
    OpenAPIV30SpecValidator(document).validate()


def test_every_schema_stands_where_it_is_used() -> None:
    document = openapi_document(ALL, version="1.2.3")
    assert "$ref" not in json.dumps(document)
    assert list(document["components"]) == ["securitySchemes"]


def test_the_document_does_not_depend_on_the_order_of_the_operations() -> None:
    assert json.dumps(openapi_document(ALL, version="1")) == json.dumps(openapi_document(ALL[::-1], version="1"))


def test_two_operations_of_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match="post_api_parcels_id_mark_sent"):
        openapi_document([MARK, declare("POST", "/api/parcels/{id}/mark_sent", STAFF)], version="1")


def test_ids_and_tags_are_those_of_the_published_api() -> None:
    assert operation_id_of(MARK) == "post_api_parcels_id_mark_sent"
    assert described(MARK)["tags"] == ["parcels"]
    assert described(SHOW)["tags"] == ["my/parcels"]
    assert described(METRICS)["tags"] == ["metrics"]


def test_who_may_call_is_said_three_ways() -> None:
    written = described(CREATE)
    assert written["x-callers"] == ["staff", "service"]
    assert written["security"] == [{"bearer": []}, {"serviceKey": []}]
    assert "`ledger:manage`" in written["description"]
    assert "ServiceKey" in written["description"]


def test_public_operations_need_no_credentials() -> None:
    written = described(HEALTH)
    assert (written["security"], written["x-callers"]) == ([], ["public"])
    assert "anybody" in written["description"]


def test_the_description_holds_what_was_declared_and_what_the_filters_mean() -> None:
    description = described(LIST)["description"]
    assert "Newest parcels." in description
    assert "Filters of the parcel list." in description


def test_query_parameters_have_their_encoded_names_limits_and_defaults() -> None:
    given = {name: each for name, each in parameters(LIST).items() if each["in"] == "query"}
    assert list(given) == ["limit", "cursor", "sentBy", "state", "from"]
    assert given["limit"]["schema"] == {
        "type": "integer",
        "format": "int64",
        "minimum": 1,
        "maximum": 200,
        "default": 200,
    }
    assert given["state"]["schema"] == {"type": "string", "enum": ["lost", "sent"]}
    assert [name for name, each in given.items() if each["required"]] == ["sentBy"]


def test_an_id_in_the_path_is_limited_and_can_be_unknown() -> None:
    parameter = parameters(SHOW)["id"]
    assert parameter["required"]
    assert parameter["schema"]["maxLength"] == 64
    assert parameter["schema"]["pattern"] == "^[A-Za-z0-9_-]{1,64}$"
    assert 404 in statuses(SHOW)


def test_every_proven_post_takes_an_idempotency_key() -> None:
    with_key = [each for each in ALL if "Idempotency-Key" in parameters(each)]
    assert with_key == [CREATE, MARK]
    assert not parameters(CREATE)["Idempotency-Key"]["required"]
    assert {409, 422} <= set(statuses(MARK))
    replayed = [each for each in ALL if "Idempotent-Replayed" in _success(each)["headers"]]
    assert replayed == with_key


def test_every_operation_takes_and_gives_a_request_id() -> None:
    for operation in ALL:
        assert not parameters(operation)["X-Request-Id"]["required"]
        assert all("X-Request-Id" in each["headers"] for each in described(operation)["responses"].values())


def test_a_body_is_required_when_one_of_its_fields_is() -> None:
    assert described(CREATE)["requestBody"]["required"] is True
    assert described(CHANGE)["requestBody"]["required"] is False
    assert "requestBody" not in described(MARK)


def test_only_forms_take_numbers_as_text() -> None:
    def weight(operation: Operation) -> Schema:
        schema: Schema = described(operation)["requestBody"]["content"]["application/json"]["schema"]
        return dict(schema["properties"]["weight"])

    assert [option["type"] for option in weight(CHANGE)["anyOf"]] == ["integer", "string"]
    assert weight(CREATE)["type"] == "integer"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (LIST, [200, 400, 401, 403, 429, 500, 503, 504]),
        (SHOW, [200, 401, 403, 404, 429, 500, 503, 504]),
        (CREATE, [201, 400, 401, 403, 409, 413, 422, 429, 500, 503, 504]),
        (CHANGE, [200, 400, 401, 403, 404, 413, 429, 500, 503, 504]),
        (DELETE, [200, 401, 403, 404, 413, 429, 500, 503, 504]),
        (MARK, [200, 400, 401, 403, 404, 409, 413, 422, 429, 500, 501, 503, 504]),
        (HEALTH, [200, 500, 503, 504]),
        (DOCUMENT, [200, 500]),
        (RECEIVE, [200, 400, 404, 413, 500, 503, 504]),
    ],
    ids=lambda value: operation_id_of(value) if isinstance(value, Operation) else "",
)
def test_all_answers_of_an_operations_kind_are_described(operation: Operation, expected: list[int]) -> None:
    assert statuses(operation) == expected


def test_errors_are_problems_of_their_status() -> None:
    answers = described(CREATE)["responses"]
    for status, answer in answers.items():
        if status == "201":
            continue
        schema = answer["content"]["application/problem+json"]["schema"]
        assert schema["properties"]["status"]["enum"] == [int(status)]
        assert schema["required"] == ["type", "title", "status", "detail", "error"]
        assert ("errors" in schema["properties"]) is (status == "400")
        assert ("required" in schema["properties"]) is (status == "403")


def test_what_can_be_tried_again_says_when() -> None:
    answers = described(MARK)["responses"]
    assert [status for status, answer in answers.items() if "Retry-After" in answer["headers"]] == [
        "409",
        "429",
        "503",
        "504",
    ]


def test_a_failing_probe_answers_in_its_own_shape() -> None:
    content = described(HEALTH)["responses"]["503"]["content"]
    assert content["application/json"]["schema"]["properties"] == {"ok": {"type": "boolean"}}
    assert "application/problem+json" in content


def test_answers_can_be_of_another_medium() -> None:
    assert _success(METRICS)["content"] == {"text/plain": {"schema": {"type": "string"}}}
    assert _success(PICTURE)["content"] == {"image/png": {"schema": {"type": "string", "format": "binary"}}}


def test_every_status_ledger_can_refuse_with_can_be_described() -> None:
    known = {each.status for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "status")}
    assert known
    operation = declare("GET", "/api/parcels", STAFF, errors=tuple(sorted(known)))
    assert known <= set(statuses(operation))


def _success(operation: Operation) -> Schema:
    answer: Schema = described(operation)["responses"][str(operation.status)]
    return answer
