"""Products are brought to the provider that keeps products of its own: by jobs, one at a time, until it has them."""

import asyncio
from datetime import datetime, timedelta

import pytest

from ledger.products.jobs import queue_due_syncs, sync_product
from ledger.providers.contract import OutcomeUnknown, ProviderRefused, ProviderUnreachable, WantedProduct
from tests.api.shelf import Shop, open_shop
from tests.api.shown import columns
from tests.installation import START, Installation

MEMBERSHIP = {"name": "Membership", "price": 1200, "type": "recurring", "interval": "year"}


@pytest.fixture
def shop(ledger: Installation) -> Shop:
    return open_shop(ledger)


async def add(shop: Shop, **more: object) -> str:
    answer = await shop.ledger.staff.post("/api/products", MEMBERSHIP | more)
    assert answer.status == 201, answer.content
    product_id: str = answer.body["id"]
    return product_id


async def change(shop: Shop, product_id: str, **changes: object) -> None:
    assert (await shop.ledger.staff.put(f"/api/products/{product_id}", changes)).status == 200


async def told(shop: Shop, product_id: str) -> object:
    """What the product's page says about the provider."""
    return (await shop.ledger.staff.get(f"/api/products/{product_id}")).fields().get("sync")


async def state(shop: Shop, product_id: str) -> tuple[str, int | None, str | None]:
    rows = await shop.ledger.sql(
        "select state, synced_version, error from product_sync where product_id = $1", product_id
    )
    assert len(rows) == 1
    return tuple(rows[0].values())


async def next_try_at(shop: Shop, product_id: str) -> datetime:
    moment: datetime = await shop.ledger.value("select next_try_at from product_sync where product_id = $1", product_id)
    return moment


async def sweep(shop: Shop) -> int:
    """The job of every minute."""
    return await queue_due_syncs(shop.ledger.services.database, shop.connections.registry)


async def test_a_new_product_is_brought_to_the_active_provider(shop: Shop) -> None:
    connection_id = await shop.activate()
    product_id = await add(shop, description="All year")
    assert ("products.sync", f"{product_id}|{connection_id}") in await shop.jobs()
    assert await state(shop, product_id) == ("pending", None, None)
    assert await told(shop, product_id) == (
        "Back room: the provider does not have this version yet; Ledger keeps trying"
    )

    await shop.work()

    price_id = str(await shop.ledger.value("select id from product_price"))
    assert shop.shelf.asked == [
        WantedProduct(
            intent_id=f"{product_id}:1",
            product_id=product_id,
            price_id=price_id,
            name="Membership",
            description="All year",
            amount_minor=1200,
            currency="EUR",
            interval="year",
            is_active=True,
            product_remote_id=None,
            price_remote_id=None,
            old_price_remote_ids=(),
        )
    ]
    assert await state(shop, product_id) == ("synced", 1, None)
    assert await told(shop, product_id) == "Back room: the provider has this version"
    names = await shop.ledger.sql("select kind, local_id, remote_id from provider_mapping order by kind")
    assert [tuple(row.values()) for row in names] == [
        ("price", price_id, "shelf-1/1"),
        ("product", product_id, "shelf-1"),
    ]
    # The published columns, as long as there is nothing else to say.
    assert [key for key, _ in columns(await shop.ledger.staff.get("/api/products"))] == [
        "name",
        "amount",
        "type",
        "status",
    ]


async def test_a_new_name_keeps_the_price_and_a_new_price_archives_the_old_one_once(shop: Shop) -> None:
    await shop.activate()
    product_id = await add(shop)
    await shop.work()
    for changes in ({"name": "Club"}, {"price": 1500}, {"price": 1600}, {"description": "All"}):
        await change(shop, product_id, **changes)
        await shop.work()

    assert [
        (asked.intent_id.partition(":")[2], asked.name, asked.price_remote_id, asked.old_price_remote_ids)
        for asked in shop.shelf.asked
    ] == [
        ("1", "Membership", None, ()),
        ("2", "Club", "shelf-1/1", ()),
        ("3", "Club", None, ("shelf-1/1",)),
        ("4", "Club", None, ("shelf-1/3",)),
        ("5", "Club", "shelf-1/4", ()),
    ]
    assert [asked.product_remote_id for asked in shop.shelf.asked] == [None, *["shelf-1"] * 4]
    assert shop.shelf.offered == {"shelf-1": {"shelf-1/4"}}
    # The old prices keep their names, since subscriptions still have them.
    assert await shop.ledger.value("select count(*) from provider_mapping where kind = 'price'") == 3


async def test_a_product_off_sale_is_so_at_the_provider_too(shop: Shop) -> None:
    await shop.activate()
    product_id = await add(shop)
    await shop.ledger.staff.post(f"/api/products/{product_id}/toggle")

    await shop.work()

    assert shop.shelf.asked[-1].is_active is False
    assert await state(shop, product_id) == ("synced", 2, None)


async def test_two_changes_before_the_job_are_one_question(shop: Shop) -> None:
    await shop.activate()
    await shop.work()
    product_id = await add(shop)
    await change(shop, product_id, price=1)
    await change(shop, product_id, price=2)

    await shop.work()

    assert [(asked.amount_minor, asked.intent_id) for asked in shop.shelf.asked] == [(2, f"{product_id}:3")]


async def test_nothing_is_held_in_the_database_while_the_provider_is_asked(shop: Shop) -> None:
    held: list[int] = []

    async def look(_: WantedProduct) -> None:
        held.append(
            await shop.ledger.value(
                "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in t%'"
            )
        )

    await shop.activate()
    await add(shop)
    shop.shelf.on_ask = look
    await shop.work()

    assert held == [0]


async def test_a_refusal_is_shown_on_the_product_and_in_the_list_and_asked_again_later(shop: Shop) -> None:
    async def refuse(_: WantedProduct) -> None:
        raise ProviderRefused("The key was revoked; enter a new one")

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = refuse
    await shop.work()

    assert await state(shop, product_id) == ("failed", None, "The key was revoked; enter a new one")
    assert await told(shop, product_id) == (
        "Back room: the provider refused this version; Ledger asks again from time to time\n"
        "Last try: The key was revoked; enter a new one\n"
        "Tried once; next try at 2026-03-15T09:30:30.000Z"
    )
    listed = await shop.ledger.staff.get("/api/products")
    assert columns(listed)[-1] == ("sync", "Provider")
    assert listed.body["rows"][0]["sync"] == "failed"
    assert await sweep(shop) == 0

    shop.shelf.on_ask = None
    shop.ledger.clock.move(timedelta(seconds=30))
    assert await sweep(shop) == 1
    await shop.work()
    assert await state(shop, product_id) == ("synced", 1, None)


@pytest.mark.parametrize("kind", [ProviderUnreachable, OutcomeUnknown])
async def test_a_provider_that_does_not_answer_is_asked_again_with_growing_distance(
    shop: Shop, kind: type[ProviderUnreachable | OutcomeUnknown]
) -> None:
    async def be_away(_: WantedProduct) -> None:
        raise kind("The shelf cannot be reached", retry_after_s=5)

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = be_away
    await shop.work()
    waits: list[float] = []
    for _ in range(4):
        due_at = await next_try_at(shop, product_id)
        waits.append((due_at - shop.ledger.clock.now()).total_seconds())
        assert await state(shop, product_id) == ("pending", None, "The shelf cannot be reached")
        shop.ledger.clock.move(due_at - shop.ledger.clock.now() - timedelta(seconds=1))
        assert await sweep(shop) == 0
        shop.ledger.clock.move(timedelta(seconds=1))
        assert await sweep(shop) == 1
        await shop.work()

    assert waits == [30, 30, 60, 60]
    # Every try is the same wish, so a provider that knows its answer gives it again.
    assert {asked.intent_id for asked in shop.shelf.asked} == {f"{product_id}:1"}


async def test_a_provider_that_says_when_to_come_back_is_left_alone_until_then(shop: Shop) -> None:
    async def be_busy(_: WantedProduct) -> None:
        raise ProviderUnreachable("Too many requests", retry_after_s=900)

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = be_busy
    await shop.work()

    assert await next_try_at(shop, product_id) == START + timedelta(minutes=15)


async def test_a_change_while_the_provider_is_asked_goes_round_again(shop: Shop) -> None:
    async def change_meanwhile(wanted: WantedProduct) -> None:
        shop.shelf.on_ask = None
        await change(shop, wanted.product_id, price=1500)
        # The change's own job finds that somebody is asking, and leaves it to them.
        ((name, payload),) = await shop.jobs()
        await shop.ledger.sql("delete from pgqueuer")
        await shop.run(name, payload)
        assert len(shop.shelf.asked) == 1

    await shop.activate()
    await shop.work()
    product_id = await add(shop)
    shop.shelf.on_ask = change_meanwhile
    await shop.work()

    assert [(asked.amount_minor, asked.old_price_remote_ids) for asked in shop.shelf.asked] == [
        (1200, ()),
        (1500, ("shelf-1/1",)),
    ]
    assert await state(shop, product_id) == ("synced", 2, None)
    assert shop.shelf.offered == {"shelf-1": {"shelf-1/2"}}


async def test_a_failure_of_an_old_version_does_not_count_for_the_new_one(shop: Shop) -> None:
    async def change_and_refuse(wanted: WantedProduct) -> None:
        shop.shelf.on_ask = None
        await change(shop, wanted.product_id, price=1500)
        raise ProviderRefused("1200 is no price")

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = change_and_refuse
    await shop.work()

    assert await state(shop, product_id) == ("synced", 2, None)


async def test_workers_that_come_together_ask_once(shop: Shop) -> None:
    connection_id = await shop.activate()
    product_id = await add(shop)

    async def take_a_while(_: WantedProduct) -> None:
        await asyncio.sleep(0.3)

    shop.shelf.on_ask = take_a_while
    database = shop.ledger.services.database
    outcomes = await asyncio.gather(
        *(
            sync_product(database, shop.connections, product_id=product_id, connection_id=connection_id)
            for _ in range(8)
        )
    )

    assert len(shop.shelf.asked) == 1
    assert sorted(map(str, outcomes)) == ["None"] * 7 + ["synced"]


async def test_changes_and_jobs_in_any_order_end_with_the_last_version_at_the_provider(shop: Shop) -> None:
    connection_id = await shop.activate()
    product_ids = [await add(shop, name=f"Product {n}") for n in range(3)]

    async def answer_after_a_while(_: WantedProduct) -> None:
        await asyncio.sleep(0.01)

    async def keep_working() -> None:
        for _ in range(10):
            for name, payload in await shop.jobs():
                await shop.run(name, payload)
            await shop.run("products.sync_all", connection_id)

    shop.shelf.on_ask = answer_after_a_while
    await asyncio.gather(
        *(change(shop, product_id, price=n) for n in range(2, 12) for product_id in product_ids),
        *(keep_working() for _ in range(3)),
    )
    shop.shelf.on_ask = None
    await shop.work()

    for product_id in product_ids:
        last = [asked for asked in shop.shelf.asked if asked.product_id == product_id][-1]
        assert f"{product_id}:{(await state(shop, product_id))[1]}" == last.intent_id == f"{product_id}:11"
        assert (await state(shop, product_id))[0] == "synced"
    assert len(shop.shelf.offered) == 3
    assert {len(prices) for prices in shop.shelf.offered.values()} == {1}


async def test_what_a_killed_worker_began_is_taken_over(shop: Shop) -> None:
    class Killed(BaseException):
        pass

    async def die(_: WantedProduct) -> None:
        raise Killed

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = die
    with pytest.raises(Killed):
        await shop.work()
    shop.shelf.on_ask = None
    await shop.ledger.sql("delete from pgqueuer")

    assert await sweep(shop) == 0
    shop.ledger.clock.move(timedelta(seconds=30))
    assert await sweep(shop) == 1
    await shop.work()

    assert await state(shop, product_id) == ("synced", 1, None)


async def test_who_was_taken_over_stores_nothing(shop: Shop) -> None:
    async def freeze(wanted: WantedProduct) -> None:
        shop.shelf.on_ask = None
        shop.ledger.clock.move(timedelta(minutes=1))
        assert await sweep(shop) == 1
        await shop.work()
        raise ProviderRefused("Said to nobody")

    await shop.activate()
    product_id = await add(shop)
    shop.shelf.on_ask = freeze
    await shop.work()

    assert len(shop.shelf.asked) == 2
    assert await state(shop, product_id) == ("synced", 1, None)


async def test_activating_a_provider_brings_everything_that_is_on_sale(shop: Shop) -> None:
    on_sale = [await add(shop, name=f"Product {n}") for n in range(3)]
    gone = await add(shop)
    await shop.ledger.staff.post(f"/api/products/{gone}/toggle")

    await shop.activate()
    await shop.work()

    assert sorted(asked.product_id for asked in shop.shelf.asked) == sorted(on_sale)
    assert await told(shop, gone) == "Back room: does not have this product"


async def test_what_changed_while_another_provider_was_active_is_made_up_for(shop: Shop) -> None:
    first = await shop.activate(name="First")
    product_id = await add(shop)
    await shop.work()
    await shop.activate("manual", "Cash desk", {"paymentMethod": "cash"})
    await shop.ledger.staff.post(f"/api/products/{product_id}/toggle")
    await shop.work()
    assert len(shop.shelf.asked) == 1
    assert await told(shop, product_id) is None

    await shop.activate_again(first)
    await shop.work()

    assert [(asked.is_active, asked.product_remote_id) for asked in shop.shelf.asked] == [
        (True, None),
        (False, "shelf-1"),
    ]


async def test_a_connection_that_stepped_back_is_not_asked(shop: Shop) -> None:
    connection_id = await shop.activate()
    await add(shop)
    await shop.ledger.staff.post(f"/api/providers/{connection_id}/deactivate")

    await shop.work()
    shop.ledger.clock.move(timedelta(days=1))

    assert await sweep(shop) == 0
    assert shop.shelf.asked == []


async def test_two_connections_of_one_type_have_names_of_their_own(shop: Shop) -> None:
    for name in ("Test account", "Live account"):
        await shop.activate(name=name)
        if name == "Test account":
            product_id = await add(shop)
        await shop.work()

    assert [asked.product_remote_id for asked in shop.shelf.asked] == [None, None]
    assert await told(shop, product_id) == "Live account: the provider has this version"


async def test_a_product_that_nobody_marked_is_found_by_the_sweep_and_queued_once(shop: Shop) -> None:
    connection_id = await shop.activate()
    product_id = await add(shop)
    await shop.work()
    await shop.ledger.sql("update product set version = 7")
    other = await add(shop)
    await shop.ledger.sql("delete from product_sync where product_id = $1", other)
    await shop.ledger.sql("delete from pgqueuer")

    assert await sweep(shop) == 2
    await sweep(shop)

    expected = [("products.sync", f"{each}|{connection_id}") for each in (product_id, other)]
    assert sorted(await shop.jobs()) == sorted(expected)
    await shop.work()
    assert (await state(shop, product_id))[:2] == ("synced", 7)
    assert (await state(shop, other))[:2] == ("synced", 1)


async def test_new_settings_of_the_active_provider_bring_everything_again(shop: Shop) -> None:
    connection_id = await shop.activate()
    product_id = await add(shop)
    await shop.work()

    await shop.ledger.staff.put(f"/api/providers/{connection_id}", {"place": "right"})
    shop.shelf.offered.clear()
    await shop.work()

    assert [asked.intent_id for asked in shop.shelf.asked] == [f"{product_id}:1"] * 2
    assert await state(shop, product_id) == ("synced", 1, None)
