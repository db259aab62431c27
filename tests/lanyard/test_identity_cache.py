"""Guarantees A3 to A5 at the cache in front of Lanyard: a real server, a monotonic time moved by hand."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from ledger.errors import Unauthorized, Unavailable
from ledger.identity import Caller, Person, Service
from ledger.lanyard import LanyardClient, LanyardLimits
from ledger.lanyard_identity import CachedIdentity, IdentityLimits
from tests.fakes.lanyard import OWN_KEY, FakeLanyard, HandMovedTime, Mode

ADA = Person("adaUserId000000000001", frozenset({"ledger:manage"}))
SHOP = Service("shopServiceId00000001")
TOKEN = "Bearer token-a"
KEY = "ServiceKey sk_svc_shop"
FAILURES: list[Mode] = ["500", "429", "reset", "garbage", "hang"]
LANYARDS_OWN_CACHE_S = 15


@pytest.fixture
def moved() -> HandMovedTime:
    return HandMovedTime()


@pytest.fixture
async def lanyard(moved: HandMovedTime) -> AsyncIterator[FakeLanyard]:
    async with FakeLanyard(monotonic_s=moved) as server:
        server.add_person(ADA.user_id, "token-a", ["ledger:manage"])
        server.add_service(SHOP.service_id, "sk_svc_shop")
        yield server


@pytest.fixture
async def client(lanyard: FakeLanyard) -> AsyncIterator[LanyardClient]:
    limits = LanyardLimits(verify_timeout_s=0.8)
    client = LanyardClient(base_url=lanyard.url, slug="ledger", service_key=OWN_KEY, limits=limits)
    yield client
    await client.close()


@pytest.fixture
async def identity(client: LanyardClient, moved: HandMovedTime) -> AsyncIterator[CachedIdentity]:
    identity = CachedIdentity(client, monotonic_s=moved)
    yield identity
    await identity.close()


async def settle(identity: CachedIdentity) -> None:
    """Waits until no call is under way."""
    async with asyncio.timeout(10):
        while identity.calls_under_way:
            await asyncio.sleep(0.001)


async def asked(identity: CachedIdentity, authorization: str) -> Caller | None:
    """The caller, or None for a 401. A 503 is an error of the test."""
    try:
        return await identity.verify(authorization)
    except Unauthorized:
        return None


@pytest.mark.parametrize("authorization", [TOKEN, KEY])
@pytest.mark.parametrize("every_s", [1, 4, 7, 11, 14, 16, 29])
async def test_a_revoked_credential_is_last_accepted_within_30_s(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime, authorization: str, every_s: int
) -> None:
    """A3, at the worst moment: right after Lanyard put a good answer into its own cache of 15 s."""
    lanyard.own_cache_s = LANYARDS_OWN_CACHE_S
    for _ in range(3):
        lanyard._cache.clear()
        assert await asked(identity, authorization) is not None
        await settle(identity)
        moved.move(every_s)
    lanyard._cache.clear()
    assert await asked(identity, authorization) is not None
    await settle(identity)
    lanyard.revoke(authorization.split(" ")[1])
    revoked_at_s = last_accepted_s = moved.now_s
    while moved.now_s < revoked_at_s + 90:
        moved.move(every_s)
        if await asked(identity, authorization) is not None:
            last_accepted_s = moved.now_s
        await settle(identity)
    assert last_accepted_s - revoked_at_s <= 30


@pytest.mark.parametrize("every_s", [1, 13, 29])
async def test_a_withdrawn_permission_is_last_used_within_30_s(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime, every_s: int
) -> None:
    """A3 for permissions."""
    lanyard.own_cache_s = LANYARDS_OWN_CACHE_S
    assert await identity.verify(TOKEN) == ADA
    lanyard.set_permissions(ADA.user_id, [])
    withdrawn_at_s = last_used_s = moved.now_s
    while moved.now_s < withdrawn_at_s + 60:
        moved.move(every_s)
        caller = await identity.verify(TOKEN)
        assert isinstance(caller, Person)
        if caller.is_staff:
            last_used_s = moved.now_s
        await settle(identity)
    assert last_used_s - withdrawn_at_s <= 30


async def test_a_slow_refusal_is_waited_for_when_lanyard_was_as_slow_before(
    lanyard: FakeLanyard, client: LanyardClient, moved: HandMovedTime
) -> None:
    """A3: comparing a service's key may take Lanyard longer than a known caller usually waits."""
    identity = CachedIdentity(client, monotonic_s=moved, limits=IdentityLimits(patience_factor=2.0))
    lanyard.delay_s = 0.45
    await identity.verify(KEY)
    lanyard.revoke("sk_svc_shop")
    moved.move(40)
    with pytest.raises(Unauthorized):
        await identity.verify(KEY)
    await identity.close()


async def test_a_refusal_that_comes_late_ends_the_last_good_answer(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.revoke("token-a")
    lanyard.delay_s = 0.5
    moved.move(20)
    assert await identity.verify(TOKEN) == ADA
    await settle(identity)
    with pytest.raises(Unauthorized):
        await identity.verify(TOKEN)


async def test_a_refused_caller_is_unknown_at_once_and_stays_so_in_an_outage(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.revoke("token-a")
    moved.move(11)
    assert identity.known(TOKEN) == ADA, "this one starts the renewal"
    await settle(identity)
    assert identity.known(TOKEN) is None
    lanyard.mode = "500"
    moved.move(6)
    with pytest.raises(Unavailable):
        await identity.verify(TOKEN)


@pytest.mark.parametrize("mode", FAILURES)
async def test_an_unknown_caller_gets_503_while_lanyard_fails(
    lanyard: FakeLanyard, identity: CachedIdentity, mode: Mode
) -> None:
    """A4."""
    lanyard.mode = mode
    for authorization in (TOKEN, KEY, "Bearer made-up"):
        with pytest.raises(Unavailable) as caught:
            await identity.verify(authorization)
        assert caught.value.retry_after_s
    lanyard.mode = "ok"
    assert await identity.verify(TOKEN) == ADA
    with pytest.raises(Unauthorized):
        await identity.verify("Bearer made-up")


@pytest.mark.parametrize("mode", FAILURES)
async def test_a_known_caller_is_served_for_5_minutes_while_lanyard_fails(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime, mode: Mode
) -> None:
    """A4: never 401, and 503 only after the 5 minutes."""
    assert await identity.verify(TOKEN) == ADA
    assert await identity.verify(KEY) == SHOP
    lanyard.mode = mode
    for _ in range(30):
        moved.move(10)
        assert await identity.verify(TOKEN) == ADA
        assert await identity.verify(KEY) == SHOP
        if mode != "hang":
            await settle(identity)
    moved.move(1)
    for authorization in (TOKEN, KEY):
        with pytest.raises(Unavailable):
            await identity.verify(authorization)


async def test_a_known_caller_is_recognised_at_once_when_lanyard_returns(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.mode = "500"
    moved.move(20)
    await identity.verify(TOKEN)
    lanyard.mode = "ok"
    lanyard.set_permissions(ADA.user_id, [])
    moved.move(1.1)
    await identity.verify(TOKEN)
    await settle(identity)
    assert await identity.verify(TOKEN) == Person(ADA.user_id)


async def test_a_hanging_lanyard_costs_known_callers_less_than_half_a_second(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.mode = "hang"
    moved.move(20)
    took_s = []
    for _ in range(40):
        began_s = time.perf_counter()
        assert await identity.verify(TOKEN) == ADA
        took_s.append(time.perf_counter() - began_s)
        await asyncio.sleep(0.02)
        moved.move(0.02)
    assert max(took_s) < 0.5
    assert sorted(took_s)[-2] < 0.2, "only the first one waits"


async def test_after_one_vain_wait_a_known_caller_does_not_wait_again(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.mode = "hang"
    moved.move(20)
    await identity.verify(TOKEN)
    await settle(identity)
    moved.move(1.1)
    began_s = time.perf_counter()
    assert await identity.verify(TOKEN) == ADA
    assert time.perf_counter() - began_s < 0.2
    assert identity.calls_under_way == 1


async def test_an_outage_costs_one_call_a_second_for_each_known_credential(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.mode = "500"
    lanyard.calls.clear()
    moved.move(20)
    for _ in range(100):
        assert await identity.verify(TOKEN) == ADA
        await settle(identity)
        moved.move(0.1)
    assert 9 <= len(lanyard.calls) <= 11


@pytest.mark.parametrize("authorization", [TOKEN, KEY])
async def test_200_simultaneous_cold_requests_make_one_call(
    lanyard: FakeLanyard, identity: CachedIdentity, authorization: str
) -> None:
    """A5."""
    lanyard.delay_s = 0.05
    callers = await asyncio.gather(*(identity.verify(authorization) for _ in range(200)))
    assert len(set(callers)) == 1
    assert len(lanyard.calls) == 1


async def test_200_simultaneous_requests_share_a_refusal_and_a_failure(
    lanyard: FakeLanyard, identity: CachedIdentity
) -> None:
    refused = await asyncio.gather(*(identity.verify("Bearer x") for _ in range(200)), return_exceptions=True)
    lanyard.mode = "500"
    failed = await asyncio.gather(*(identity.verify("Bearer y") for _ in range(200)), return_exceptions=True)
    assert {type(outcome) for outcome in refused} == {Unauthorized}
    assert all(isinstance(outcome, Unavailable) for outcome in failed)
    assert len(lanyard.calls) == 2
    assert len({id(outcome) for outcome in refused + failed}) == 400, "an exception is nobody else's"


async def test_a_request_that_goes_away_does_not_take_the_call_along(
    lanyard: FakeLanyard, identity: CachedIdentity
) -> None:
    lanyard.delay_s = 0.1
    first = asyncio.create_task(identity.verify(TOKEN))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(identity.verify(TOKEN))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == ADA
    assert first.cancelled()
    assert len(lanyard.calls) == 1


async def test_different_spellings_of_one_credential_are_one(lanyard: FakeLanyard, identity: CachedIdentity) -> None:
    for authorization in (TOKEN, "bearer token-a", "BEARER  token-a"):
        assert await identity.verify(authorization) == ADA
    assert len(lanyard.calls) == 1


async def test_at_most_32_calls_run_at_once_and_made_up_credentials_leave_room(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    for n in range(100):
        lanyard.add_person(f"user-{n}", f"good-{n}")
    lanyard.delay_s = 0.02
    await asyncio.gather(*(identity.verify(f"Bearer good-{n}") for n in range(100)))
    assert lanyard.most_calls_at_once == 24
    moved.move(20)
    made_up = [asyncio.create_task(asked(identity, f"Bearer made-up-{n}")) for n in range(300)]
    await asyncio.sleep(0)
    good = await asyncio.gather(*(identity.verify(f"Bearer good-{n}") for n in range(100)))
    assert good == [Person(f"user-{n}") for n in range(100)]
    assert identity.counts.last_good_served == 0
    assert not all(task.done() for task in made_up)
    assert set(await asyncio.gather(*made_up)) == {None}
    assert 24 < lanyard.most_calls_at_once <= 32


async def test_too_many_made_up_credentials_at_once_get_503_without_waiting(
    lanyard: FakeLanyard, client: LanyardClient, moved: HandMovedTime
) -> None:
    identity = CachedIdentity(client, monotonic_s=moved, limits=IdentityLimits(unknown_calls_waiting=5))
    lanyard.delay_s = 0.1
    outcomes = await asyncio.gather(*(identity.verify(f"Bearer x-{n}") for n in range(9)), return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["Unauthorized"] * 5 + ["LanyardSilent"] * 4
    await identity.close()


async def test_what_is_kept_has_a_bound_and_refusals_never_displace_good_answers(
    lanyard: FakeLanyard, client: LanyardClient, moved: HandMovedTime
) -> None:
    limits = IdentityLimits(known_credentials=10, refused_credentials=10)
    identity = CachedIdentity(client, monotonic_s=moved, limits=limits)
    await identity.verify(TOKEN)
    for n in range(30):
        assert await asked(identity, f"Bearer made-up-{n}") is None
    assert identity.known(TOKEN) == ADA
    for n in range(30):
        lanyard.add_person(f"user-{n}", f"good-{n}")
        await identity.verify(f"Bearer good-{n}")
    assert identity.credentials_kept == 20
    assert identity.known(TOKEN) is None
    await identity.close()


async def test_no_credential_is_kept_in_clear(lanyard: FakeLanyard, identity: CachedIdentity) -> None:
    await identity.verify(TOKEN)
    await asked(identity, "Bearer made-up")
    kept = repr([identity._known, identity._refused_until_s, identity._calls])
    assert "token-a" not in kept
    assert "made-up" not in kept
    assert all(isinstance(key, bytes) and len(key) == 16 for key in identity._known)


async def test_the_hash_is_keyed_for_each_process(client: LanyardClient) -> None:
    one, other = CachedIdentity(client), CachedIdentity(client)
    assert one._digest(TOKEN) != other._digest(TOKEN)


async def test_what_nobody_can_use_any_more_is_forgotten(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    for n in range(5):
        lanyard.add_person(f"user-{n}", f"good-{n}")
        await identity.verify(f"Bearer good-{n}")
    moved.move(301)
    for _ in range(3):
        await identity.verify(TOKEN)
        moved.move(16)
    assert identity.credentials_kept == 1


async def test_an_answer_that_took_longer_than_anything_is_kept_for_nobody(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    lanyard.delay_s = 0.05
    verifying = asyncio.create_task(identity.verify(TOKEN))
    await asyncio.sleep(0.02)
    moved.move(400)
    assert await verifying == ADA
    assert identity.credentials_kept == 0


async def test_a_refusal_is_remembered_for_5_s(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    for _ in range(10):
        assert await asked(identity, "Bearer new") is None
    assert len(lanyard.calls) == 1
    lanyard.add_person("new-user", "new")
    moved.move(5)
    assert await identity.verify("Bearer new") == Person("new-user")


async def test_a_steady_caller_never_waits(
    lanyard: FakeLanyard, identity: CachedIdentity, moved: HandMovedTime
) -> None:
    await identity.verify(TOKEN)
    lanyard.calls.clear()
    for _ in range(60):
        moved.move(1)
        assert identity.known(TOKEN) == ADA
        await settle(identity)
    assert 5 <= len(lanyard.calls) <= 6


async def test_known_answers_only_for_fresh_answers_in_the_canonical_spelling(
    identity: CachedIdentity, moved: HandMovedTime
) -> None:
    assert identity.known(TOKEN) is None
    await identity.verify(TOKEN)
    assert identity.known(TOKEN) == ADA
    for odd in ("", "bearer token-a", TOKEN + " ", "Bearer \ud800", "Bearer " + "a" * 9000, "Bearer token-A"):
        assert identity.known(odd) is None
    moved.move(15)
    assert identity.known(TOKEN) is None


async def test_a_hit_costs_microseconds(identity: CachedIdentity) -> None:
    await identity.verify(TOKEN)
    rounds = []
    for _ in range(5):
        began_s = time.perf_counter()
        for _ in range(2000):
            identity.known(TOKEN)
        rounds.append((time.perf_counter() - began_s) / 2000)
    # About 1.5 µs on an idle machine; the bound only has to notice a task or a call in between.
    assert min(rounds) < 20e-6


async def test_an_unknown_caller_waits_at_most_5_s(lanyard: FakeLanyard) -> None:
    """A4 with the figures of production."""
    client = LanyardClient(base_url=lanyard.url, slug="ledger", service_key=OWN_KEY)
    identity = CachedIdentity(client)
    lanyard.mode = "hang"
    began_s = time.perf_counter()
    with pytest.raises(Unavailable):
        await identity.verify(TOKEN)
    assert 4 < time.perf_counter() - began_s < 5.3
    await identity.close()
    await client.close()


async def test_closing_ends_the_calls_under_way(lanyard: FakeLanyard, identity: CachedIdentity) -> None:
    lanyard.mode = "hang"
    waiting = asyncio.create_task(identity.verify(TOKEN))
    await asyncio.sleep(0.05)
    await identity.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await identity.verify(TOKEN)
    assert identity.calls_under_way == 0
