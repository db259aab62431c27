"""Products at Stripe, from the form to the fake Stripe: made once, renamed, repriced, taken off sale."""

from collections.abc import AsyncIterator

import pytest

from ledger.providers.stripe import StripeType
from tests.api.shelf import Shop, open_shop
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET, FakeStripe
from tests.installation import Installation

# The Stripe library (16.1) hands its bodies to httpx in the old way, which httpx (0.28) warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SETTINGS = {"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET}
MEMBERSHIP = {"name": "Membership", "price": "1200", "type": "recurring", "interval": "year"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    async with FakeStripe() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def shop(ledger: Installation, fake: FakeStripe) -> AsyncIterator[Shop]:
    shop = open_shop(ledger, StripeType(fake.url))
    await shop.activate("stripe", "Our account", SETTINGS)
    await shop.work()
    yield shop
    await shop.connections.close()


async def add(shop: Shop, **more: object) -> str:
    answer = await shop.ledger.staff.post("/api/products", MEMBERSHIP | more)
    assert answer.status == 201, answer.content
    await shop.work()
    path: str = f"/api/products/{answer.body['id']}"
    return path


async def told(shop: Shop, path: str) -> object:
    return (await shop.ledger.staff.get(path)).fields()["sync"]


async def test_a_product_lives_the_same_life_at_stripe(shop: Shop, fake: FakeStripe) -> None:
    path = await add(shop, description="All year")
    for change in ({"name": "Club"}, {"price": "1500"}, {"price": "1600", "interval": "month"}, {"description": "-"}):
        assert (await shop.ledger.staff.put(path, change)).status == 200
        await shop.work()
    await shop.ledger.staff.post(f"{path}/toggle")
    await shop.work()

    (product,) = fake.of("product")
    prices = fake.of("price")
    assert (product["name"], product["description"], product["active"]) == ("Club", None, False)
    assert [(each["unit_amount"], each["recurring"]["interval"], each["active"]) for each in prices] == [
        (1200, "year", False),
        (1500, "year", False),
        (1600, "month", True),
    ]
    assert product["default_price"] == prices[-1]["id"]
    assert await told(shop, path) == "Our account: the provider has this version"
    # Each old price was archived once, not with every change that followed.
    assert len([each for each in fake.requests_to("/prices/", "POST") if each.params == {"active": "false"}]) == 2


async def test_a_price_that_stripe_cannot_charge_is_shown_as_refused(shop: Shop, fake: FakeStripe) -> None:
    path = await add(shop, price="1234", currency="KWD")

    assert str(await told(shop, path)).startswith("Our account: the provider refused this version")
    assert fake.of("product") == []

    await shop.ledger.staff.put(path, {"price": "1230"})
    await shop.work()
    assert await told(shop, path) == "Our account: the provider has this version"


async def test_a_key_of_another_account_makes_everything_anew_there(shop: Shop, fake: FakeStripe) -> None:
    path = await add(shop)
    other_key = "sk_test_51LedgerAnotherAccountsKey"
    fake.objects.clear()
    fake.forget_keys()
    fake.keys = {other_key}
    (connection_id,) = [row["id"] for row in await shop.ledger.sql("select id::text from provider_connection")]

    assert (await shop.ledger.staff.put(f"/api/providers/{connection_id}", {"secretKey": other_key})).status == 200
    await shop.work()

    (price,) = fake.of("price")
    assert await shop.ledger.value("select remote_id from provider_mapping where kind = 'price'") == price["id"]
    assert await told(shop, path) == "Our account: the provider has this version"


async def test_a_wrong_key_is_said_on_the_product(shop: Shop, fake: FakeStripe) -> None:
    fake.keys.clear()

    path = await add(shop)

    sentence = str(await told(shop, path))
    assert "\nLast try: Stripe does not accept this secret key" in sentence
    assert SECRET_KEY not in sentence
