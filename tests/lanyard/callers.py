"""Who calls in the cache's tests, and how the tests ask."""

import asyncio

from ledger.errors import Unauthorized
from ledger.identity import Caller, Person, Service
from ledger.lanyard_identity import CachedIdentity
from tests.fakes.lanyard import Mode

ADA = Person("adaUserId000000000001", frozenset({"ledger:manage"}))
SHOP = Service("shopServiceId00000001")
TOKEN = "Bearer token-a"
KEY = "ServiceKey sk_svc_shop"
FAILURES: list[Mode] = ["500", "429", "reset", "garbage", "hang"]


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
