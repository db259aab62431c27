"""The published operations exist under their paths, methods and ids, and the served document describes them."""

import json

import msgspec
import pytest
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import OpenAPIV30SpecValidator

from ledger.app import all_operations
from ledger.web.bodies import decode_body
from ledger.web.openapi import BODY_EXAMPLES, openapi_document, operation_id_of
from ledger.web.openapi_schemas import Schema
from ledger.web.operation import Operation

# Other services, the Dashboard and administrators rely on these. What else was published is added as it is built.
PUBLISHED = (
    ("GET", "/api/audit"),
    ("GET", "/api/health"),
    ("GET", "/api/invoices"),
    ("POST", "/api/invoices"),
    ("GET", "/api/invoices/{id}"),
    ("GET", "/api/invoices/{id}/actions"),
    ("POST", "/api/invoices/{id}/cancel"),
    ("GET", "/api/invoices/{id}/items"),
    ("POST", "/api/invoices/{id}/mark-paid"),
    ("POST", "/api/invoices/{id}/refund"),
    ("GET", "/api/invoices/{id}/status"),
    ("GET", "/api/my/invoices"),
    ("GET", "/api/my/invoices/{id}"),
    ("GET", "/api/my/invoices/{id}/actions"),
    ("GET", "/api/my/invoices/{id}/items"),
    ("POST", "/api/my/invoices/{id}/pay"),
    ("POST", "/api/my/subscribe"),
    ("GET", "/api/my/subscriptions"),
    ("GET", "/api/my/subscriptions/{id}"),
    ("GET", "/api/my/subscriptions/{id}/actions"),
    ("POST", "/api/my/subscriptions/{id}/cancel"),
    ("GET", "/api/openapi"),
    ("GET", "/api/payments"),
    ("GET", "/api/products"),
    ("POST", "/api/products"),
    ("GET", "/api/products/{id}"),
    ("PUT", "/api/products/{id}"),
    ("GET", "/api/products/{id}/actions"),
    ("POST", "/api/products/{id}/toggle"),
    ("GET", "/api/providers"),
    ("POST", "/api/providers"),
    ("GET", "/api/providers/{id}"),
    ("PUT", "/api/providers/{id}"),
    ("GET", "/api/providers/{id}/actions"),
    ("POST", "/api/providers/{id}/activate"),
    ("POST", "/api/providers/{id}/deactivate"),
    ("GET", "/api/providers/{id}/settings"),
    ("GET", "/api/subscriptions"),
    ("GET", "/api/subscriptions/{id}"),
    ("GET", "/api/subscriptions/{id}/actions"),
    ("POST", "/api/subscriptions/{id}/cancel"),
    ("POST", "/api/subscriptions/{id}/reactivate"),
    ("POST", "/api/webhooks/stripe"),
    ("GET", "/api/webhooks/subscribers"),
    ("POST", "/api/webhooks/subscribers"),
    ("GET", "/api/webhooks/subscribers/{id}"),
    ("PUT", "/api/webhooks/subscribers/{id}"),
    ("DELETE", "/api/webhooks/subscribers/{id}"),
    ("GET", "/api/webhooks/subscribers/{id}/actions"),
    ("POST", "/api/webhooks/subscribers/{id}/toggle"),
    ("GET", "/api/settings"),
    ("PUT", "/api/settings"),
)


@pytest.fixture(scope="module")
def operations() -> dict[str, Operation]:
    return {operation_id_of(each): each for each in all_operations()}


@pytest.fixture(scope="module")
def document() -> Schema:
    return openapi_document(all_operations(), version="1.2.3")


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
def test_a_published_operation_exists(document: Schema, method: str, path: str) -> None:
    assert method.lower() in document["paths"].get(path, {})


def test_the_served_document_is_valid_openapi_3_0_3(document: Schema) -> None:
    assert document["openapi"] == "3.0.3"
    OpenAPIV30SpecValidator(document).validate()


def test_the_served_document_has_every_schema_where_it_is_used(document: Schema) -> None:
    assert "$ref" not in json.dumps(document)
    assert "schemas" not in document["components"]


def test_every_operation_says_what_it_does_and_who_may_call_it(document: Schema) -> None:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            assert described["summary"], (method, path)
            assert described["description"].startswith("May be called by"), (method, path)
            assert described["x-callers"], (method, path)


def test_subscribing_is_described_with_both_of_its_answers(document: Schema) -> None:
    answers = document["paths"]["/api/my/subscribe"]["post"]["responses"]
    shapes = [answers[status]["content"]["application/json"]["schema"] for status in ("200", "201")]
    assert shapes[0] == shapes[1]
    assert set(shapes[0]["properties"]) == {"success", "id", "url", "redirect"}
    assert shapes[0]["required"] == ["success", "id"]


@pytest.mark.parametrize("operation_id", BODY_EXAMPLES)
def test_an_example_is_a_body_the_operation_reads(
    operations: dict[str, Operation], document: Schema, operation_id: str
) -> None:
    operation = operations[operation_id]
    example = BODY_EXAMPLES[operation_id]
    decode_body(msgspec.json.encode(example), operation.body, is_form=operation.is_form)
    described = document["paths"][operation.path][operation.method.lower()]["requestBody"]["content"]
    assert described["application/json"]["example"] == example
    OAS30Validator(described["application/json"]["schema"]).validate(example)
