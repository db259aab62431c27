"""The fake Stripe is worth something only if it notices what the real one would refuse."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import stripe
from stripe.checkout import Session

from tests.fakes.stripe import API_VERSION, SECRET_KEY, FakeStripe
from tests.fakes.stripe_shapes import blank, decode_form

HEADERS = {"Authorization": f"Bearer {SECRET_KEY}", "Stripe-Version": API_VERSION}
LINE = {
    "line_items[0][quantity]": "1",
    "line_items[0][price_data][currency]": "eur",
    "line_items[0][price_data][unit_amount]": "5950",
    "line_items[0][price_data][product_data][name]": "Membership",
}
SESSION = {"mode": "payment", "success_url": "https://example.org", "cancel_url": "https://example.org", **LINE}


@pytest.fixture
async def own_fake() -> AsyncIterator[FakeStripe]:
    async with FakeStripe() as fake:
        yield fake


async def post(fake: FakeStripe, path: str, form: dict[str, str], key: str | None = None) -> tuple[int, dict[str, Any]]:
    headers = {**HEADERS, "Idempotency-Key": key} if key else HEADERS
    async with aiohttp.ClientSession() as session, session.post(fake.url + path, data=form, headers=headers) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"custommer": "cus_1"}, "custommer is not a parameter of SessionCreateParams"),
        ({"ui_mode": "hosted"}, "ui_mode must be one of"),
        ({"line_items[0][quantity]": "one"}, "line_items[0].quantity must be <class 'int'>"),
        ({"line_items[0][price_data][amount]": "1"}, "line_items[0].price_data.amount is not a parameter"),
        ({"adaptive_pricing[enabled]": "no"}, "adaptive_pricing.enabled must be <class 'bool'>"),
        ({"metadata": "invoice"}, "metadata must be a mapping"),
        ({"line_items": "none"}, "line_items must be a list"),
    ],
)
async def test_what_the_library_does_not_know_is_a_violation(
    own_fake: FakeStripe, changes: dict[str, str], words: str
) -> None:
    form = {**SESSION, **changes} if "line_items" not in changes else {**changes, "mode": "payment"}
    status, _ = await post(own_fake, "/v1/checkout/sessions", form)
    assert status == 400
    assert len(own_fake.violations) == 1
    assert words in own_fake.violations[0]


async def test_a_missing_parameter_and_an_unknown_path_are_violations(own_fake: FakeStripe) -> None:
    await post(own_fake, "/v1/products", {"description": "No name"})
    await post(own_fake, "/v1/product", {"name": "Membership"})
    assert [("name is missing" in one, "not known" in one) for one in own_fake.violations] == [
        (True, False),
        (False, True),
    ]


async def test_a_key_gives_the_same_answer_and_refuses_another_request(own_fake: FakeStripe) -> None:
    first = await post(own_fake, "/v1/checkout/sessions", SESSION, "key-1")
    assert await post(own_fake, "/v1/checkout/sessions", SESSION, "key-1") == first
    status, body = await post(own_fake, "/v1/checkout/sessions", {**SESSION, "locale": "de"}, "key-1")
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert len(own_fake.of("checkout.session")) == 1


async def test_a_refusal_is_kept_under_its_key_too(own_fake: FakeStripe) -> None:
    form = {**SESSION, "customer": "cus_later"}
    first = await post(own_fake, "/v1/checkout/sessions", form, "key-1")
    own_fake.new(stripe.Customer, "cus", id="cus_later")
    assert first[0] == 400
    assert await post(own_fake, "/v1/checkout/sessions", form, "key-1") == first
    assert (await post(own_fake, "/v1/checkout/sessions", form, "key-2"))[0] == 200


async def test_two_at_once_with_one_key_conflict(own_fake: FakeStripe) -> None:
    own_fake.delay_s = 0.1
    answers = await asyncio.gather(*(post(own_fake, "/v1/checkout/sessions", SESSION, "key-1") for _ in range(3)))
    assert sorted(status for status, _ in answers) == [200, 409, 409]


def test_answers_have_every_field_the_library_declares() -> None:
    declared = set(Session.__annotations__) - {"OBJECT_NAME"}
    assert {name for name in declared if not name.startswith("_")} == set(blank(Session))


def test_stripes_encoding_is_read() -> None:
    read = decode_form("a[0][b]=1&a[0][c][x]=2&a[1][b]=3&d=&e[0]=f&e[1]=g&h[2]=i")
    assert read == {"a": [{"b": "1", "c": {"x": "2"}}, {"b": "3"}], "d": "", "e": ["f", "g"], "h": {"2": "i"}}


async def test_it_runs_as_a_process_with_a_payment_page() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fakes.stripe", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            async with session.post(f"{url}/v1/checkout/sessions", data=SESSION) as answer:
                opened = await answer.json()
            async with session.get(opened["url"], allow_redirects=False) as page:
                assert (page.status, page.headers["Location"]) == (303, "https://example.org")
            async with session.get(opened["url"]) as page:
                assert page.status == 410
    finally:
        process.terminate()
        await process.wait()
