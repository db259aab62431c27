"""Fixtures of the cache's tests: a real server, one client, and a monotonic time moved by hand."""

from collections.abc import AsyncIterator

import pytest

from ledger.lanyard import LanyardClient, LanyardLimits
from ledger.lanyard_identity import CachedIdentity
from tests.fakes.lanyard import OWN_KEY, FakeLanyard, HandMovedTime
from tests.lanyard.callers import ADA, SHOP


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
