"""Display names: a courtesy that never delays a list by more than a second, nor burdens Lanyard."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from ledger.lanyard import LanyardClient, LanyardLimits
from ledger.lanyard_identity import CachedIdentity
from ledger.names import LanyardNames, NamesLimits, StandaloneNames, short_id
from tests.fakes.lanyard import OWN_KEY, FakeLanyard, HandMovedTime, Mode

FAILURES: list[Mode] = ["500", "429", "reset", "garbage", "hang"]
CROWD = {f"user-{n:04}-of-the-crowd": f"Person {n}" for n in range(200)}


@pytest.fixture
def moved() -> HandMovedTime:
    return HandMovedTime()


@pytest.fixture
async def lanyard() -> AsyncIterator[FakeLanyard]:
    async with FakeLanyard() as server:
        for user_id, name in CROWD.items():
            server.add_person(user_id, f"token-{user_id}", name=name)
        yield server


@pytest.fixture
async def client(lanyard: FakeLanyard) -> AsyncIterator[LanyardClient]:
    limits = LanyardLimits(user_timeout_s=0.6)
    client = LanyardClient(base_url=lanyard.url, slug="ledger", service_key=OWN_KEY, limits=limits)
    yield client
    await client.close()


@pytest.fixture
async def names(client: LanyardClient, moved: HandMovedTime) -> AsyncIterator[LanyardNames]:
    names = LanyardNames(client, monotonic_s=moved, limits=NamesLimits(back_off_s=0.1))
    yield names
    await names.close()


async def settle(names: LanyardNames) -> None:
    """Waits until nothing is left to look up."""
    async with asyncio.timeout(20):
        while names.calls_under_way or names.ids_waiting:
            await asyncio.sleep(0.005)


async def timed(names: LanyardNames, user_ids: set[str]) -> tuple[dict[str, str], float]:
    began_s = time.perf_counter()
    return await names.display_names(user_ids), time.perf_counter() - began_s


async def test_names_are_asked_once_and_kept_for_10_minutes(
    lanyard: FakeLanyard, names: LanyardNames, moved: HandMovedTime
) -> None:
    for _ in range(3):
        assert await names.display_names(set(CROWD)) == CROWD
        moved.move(150)
    assert len(lanyard.calls) == 200
    assert lanyard.most_calls_at_once <= 8


async def test_200_unknown_people_answer_after_a_second_with_8_calls_at_a_time(
    lanyard: FakeLanyard, names: LanyardNames
) -> None:
    """The look-ups go on in the background, and the next list has all names."""
    lanyard.delay_s = 0.15
    shown, took_s = await timed(names, set(CROWD))
    assert took_s < 1.2
    assert shown.keys() == CROWD.keys()
    known = {user_id for user_id, name in shown.items() if name == CROWD[user_id]}
    assert 8 <= len(known) < 200
    assert all(shown[user_id] == short_id(user_id) for user_id in CROWD.keys() - known)
    await settle(names)
    assert await names.display_names(set(CROWD)) == CROWD
    assert lanyard.most_user_calls_at_once == 8
    assert len(lanyard.calls) == 200


async def test_many_lists_at_once_share_their_look_ups(lanyard: FakeLanyard, names: LanyardNames) -> None:
    lanyard.delay_s = 0.02
    lists = await asyncio.gather(*(names.display_names(set(CROWD)) for _ in range(20)))
    assert all(shown == CROWD for shown in lists)
    assert len(lanyard.calls) == 200
    assert lanyard.most_user_calls_at_once == 8


async def test_whoever_looks_now_goes_before_those_who_looked_earlier(
    lanyard: FakeLanyard, names: LanyardNames
) -> None:
    lanyard.delay_s = 0.3
    await names.display_names(set(CROWD))
    lanyard.add_person("late-comer-0001", "token-late", name="Late Comer")
    assert names.ids_waiting > 20
    shown, took_s = await timed(names, {"late-comer-0001"})
    assert shown == {"late-comer-0001": "Late Comer"}
    assert took_s < 1.2


@pytest.mark.parametrize("mode", FAILURES)
async def test_lists_answer_at_once_while_lanyard_fails(lanyard: FakeLanyard, names: LanyardNames, mode: Mode) -> None:
    lanyard.mode = mode
    shown, took_s = await timed(names, set(CROWD))
    assert shown == {user_id: short_id(user_id) for user_id in CROWD}
    assert took_s < 0.6
    for _ in range(10):
        _, took_s = await timed(names, set(CROWD))
        assert took_s < 0.1
    # Eight, a probe or two, and the HTTP client repeats a GET once whose connection was reset.
    assert len(lanyard.calls) <= 20


async def test_nobody_listening_costs_no_time(moved: HandMovedTime) -> None:
    client = LanyardClient(base_url="http://127.0.0.1:1", slug="ledger", service_key=OWN_KEY)
    names = LanyardNames(client, monotonic_s=moved)
    for _ in range(5):
        shown, took_s = await timed(names, set(CROWD))
        assert shown["user-0001-of-the-crowd"] == "user-000…"
        assert took_s < 0.3
    assert names.counts.calls <= 8
    await names.close()
    await client.close()


async def test_a_request_that_waited_for_its_caller_in_vain_does_not_wait_for_names_too(
    lanyard: FakeLanyard, client: LanyardClient, names: LanyardNames, moved: HandMovedTime
) -> None:
    identity = CachedIdentity(client, monotonic_s=moved)
    authorization = "Bearer token-user-0001-of-the-crowd"
    await identity.verify(authorization)
    lanyard.mode = "hang"
    moved.move(20)
    await identity.verify(authorization)
    await asyncio.sleep(0.06)
    _, took_s = await timed(names, {"user-0002-of-the-crowd"})
    assert took_s < 0.1
    await identity.close()


@pytest.mark.parametrize("mode", FAILURES)
async def test_names_return_by_themselves_when_lanyard_returns(
    lanyard: FakeLanyard, names: LanyardNames, mode: Mode
) -> None:
    lanyard.mode = mode
    await names.display_names(set(CROWD))
    lanyard.mode = "ok"
    async with asyncio.timeout(10):
        while await names.display_names(set(CROWD)) != CROWD:
            await asyncio.sleep(0.05)
    assert lanyard.most_user_calls_at_once <= 8


async def test_an_outage_is_probed_by_one_call_after_each_pause(lanyard: FakeLanyard, names: LanyardNames) -> None:
    lanyard.mode = "500"
    await names.display_names(set(CROWD))
    await asyncio.sleep(0.05)
    lanyard.calls.clear()
    for _ in range(50):
        await names.display_names(set(CROWD))
        await asyncio.sleep(0.01)
    assert 1 <= len(lanyard.calls) <= 7


async def test_a_known_name_outlives_an_outage_for_half_an_hour(
    lanyard: FakeLanyard, names: LanyardNames, moved: HandMovedTime
) -> None:
    ada = "user-0001-of-the-crowd"
    await names.display_names({ada})
    lanyard.mode = "500"
    moved.move(1799)
    assert await names.display_names({ada}) == {ada: "Person 1"}
    moved.move(1)
    assert await names.display_names({ada}) == {ada: "user-000…"}
    assert names.find_user_ids("Person") == set()
    assert not names._names


async def test_a_changed_name_is_seen_after_10_minutes(
    lanyard: FakeLanyard, names: LanyardNames, moved: HandMovedTime
) -> None:
    ada = "user-0001-of-the-crowd"
    await names.display_names({ada})
    lanyard.add_person(ada, "token", name="Married Name")
    moved.move(599)
    assert await names.display_names({ada}) == {ada: "Person 1"}
    await settle(names)
    assert await names.display_names({ada}) == {ada: "Married Name"}
    lanyard.add_person(ada, "token", name="Third Name")
    moved.move(600)
    assert await names.display_names({ada}) == {ada: "Third Name"}


async def test_a_deleted_person_is_shown_as_a_short_id_and_not_asked_again(
    lanyard: FakeLanyard, names: LanyardNames
) -> None:
    for _ in range(5):
        assert await names.display_names({"deletedPerson00000001"}) == {"deletedPerson00000001": "deletedP…"}
    assert len(lanyard.calls) == 1


async def test_odd_names_are_shown_on_one_line(lanyard: FakeLanyard, names: LanyardNames) -> None:
    odd = {"line-feeds": " A\nB\x00\tC ", "nothing-left": "\x00 \n", "without-name": None, "very-long-name": "x" * 5000}
    for user_id, name in odd.items():
        lanyard.add_person(user_id, f"token-{user_id}", name=name)
    assert await names.display_names(set(odd)) == {
        "line-feeds": "A B C",
        "nothing-left": "nothing-…",
        "without-name": "without-…",
        "very-long-name": "x" * 200,
    }


async def test_an_id_that_could_change_the_url_is_never_looked_up(lanyard: FakeLanyard, names: LanyardNames) -> None:
    """A6."""
    hostile = {"../../admin", "a?b", "%2e%2e%2f", "a'b", "", "a" * 65}
    shown, took_s = await timed(names, hostile)
    assert shown["../../admin"] == "../../ad…"
    assert took_s < 0.1
    assert not lanyard.calls


async def test_the_queue_has_a_bound_and_the_newest_wishes_win(lanyard: FakeLanyard, client: LanyardClient) -> None:
    names = LanyardNames(client, limits=NamesLimits(waiting=20, calls_at_once=1, wait_s=0.2))
    lanyard.delay_s = 0.1
    earlier = [f"user-{n:04}-of-the-crowd" for n in range(100)]
    await asyncio.gather(*(names.display_names({user_id}) for user_id in earlier))
    assert names.ids_waiting <= 20
    assert names.counts.dropped >= 75
    assert earlier[50] not in names._waiting
    await names.close()


async def test_the_names_kept_have_a_bound(lanyard: FakeLanyard, client: LanyardClient) -> None:
    names = LanyardNames(client, limits=NamesLimits(names=50))
    await names.display_names(set(CROWD))
    await settle(names)
    assert len(names._names) == 50
    await names.close()


async def test_people_are_found_by_a_part_of_their_name_whatever_its_case(
    lanyard: FakeLanyard, names: LanyardNames
) -> None:
    lanyard.add_person("mueller", "token-m", name="Jörg Müßig")
    await names.display_names({*CROWD, "mueller"})
    assert names.find_user_ids("PERSON 19") == {f"user-{n:04}-of-the-crowd" for n in [19, *range(190, 200)]}
    assert names.find_user_ids("jo\u0308rg MÜSSIG") == {"mueller"}
    assert names.find_user_ids("nobody") == names.find_user_ids("") == names.find_user_ids("  ") == set()


async def test_a_search_over_50_000_names_is_quick_and_bounded(client: LanyardClient) -> None:
    names = LanyardNames(client)
    for n in range(50_000):
        names._keep(f"user-{n}", f"Person {n}", time.monotonic())
    began_s = time.perf_counter()
    assert len(names.find_user_ids("person")) == 1000
    assert len(names.find_user_ids("person 49999")) == 1
    assert time.perf_counter() - began_s < 0.2
    await names.close()


async def test_a_list_that_goes_away_does_not_take_the_look_ups_along(
    lanyard: FakeLanyard, names: LanyardNames
) -> None:
    lanyard.delay_s = 0.1
    ada = {"user-0001-of-the-crowd"}
    first = asyncio.create_task(names.display_names(ada))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(names.display_names(ada))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == {"user-0001-of-the-crowd": "Person 1"}
    assert len(lanyard.calls) == 1


async def test_nothing_personal_is_logged(lanyard: FakeLanyard, names: LanyardNames) -> None:
    with capture_logs() as logged:
        await names.display_names({"user-0001-of-the-crowd"})
        lanyard.mode = "reset"
        await names.display_names({"user-0002-of-the-crowd"})
    assert logged
    assert "of-the-crowd" not in str(logged)
    assert "Person" not in str(logged)


async def test_closing_lets_waiting_lists_go(lanyard: FakeLanyard, names: LanyardNames) -> None:
    lanyard.mode = "hang"
    waiting = asyncio.create_task(names.display_names(set(CROWD)))
    await asyncio.sleep(0.05)
    await names.close()
    shown = await waiting
    assert shown.keys() == CROWD.keys()
    assert names.calls_under_way == names.ids_waiting == 0


async def test_standalone_names_know_their_own_people() -> None:
    names = StandaloneNames({"standalone-admin": "Standalone Admin"})
    assert await names.display_names({"standalone-admin", "somebody-else"}) == {
        "standalone-admin": "Standalone Admin",
        "somebody-else": "somebody…",
    }
    assert names.find_user_ids("ADMIN") == {"standalone-admin"}
    assert names.find_user_ids(" ") == set()
    await names.close()
