"""Guarantees A3 and A4: who is accepted, how long after Lanyard last said so."""

import asyncio
import time

import pytest

from ledger.errors import Unauthorized, Unavailable
from ledger.identity import Person
from ledger.lanyard import LanyardClient
from ledger.lanyard_identity import CachedIdentity, IdentityLimits
from tests.fakes.lanyard import OWN_KEY, FakeLanyard, HandMovedTime, Mode
from tests.lanyard.callers import ADA, FAILURES, KEY, SHOP, TOKEN, asked, settle

LANYARDS_OWN_CACHE_S = 15


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
