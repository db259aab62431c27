"""Fixtures: a fake Stripe whose every request has to fit the library's parameter types, and a club that uses it."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import StartLedger
from tests.fakes.stripe import FakeStripe
from tests.subscriptions.club import Club, open_club


@pytest.fixture
async def stripe() -> AsyncIterator[FakeStripe]:
    """A Stripe of our own."""
    async with FakeStripe() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def club(start_ledger: StartLedger, stripe: FakeStripe) -> Club:
    """A Ledger with an active Stripe account."""
    return await open_club(start_ledger, stripe)
