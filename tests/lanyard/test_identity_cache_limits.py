"""Guarantee A5: how few calls the cache makes, how little it keeps, and how little a hit costs."""

import asyncio
import time

import pytest

from ledger.errors import Unauthorized, Unavailable
from ledger.identity import Person
from ledger.lanyard import LanyardClient
from ledger.lanyard_identity import CachedIdentity, IdentityLimits
from tests.fakes.lanyard import FakeLanyard, HandMovedTime
from tests.lanyard.callers import ADA, KEY, TOKEN, asked, settle


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
