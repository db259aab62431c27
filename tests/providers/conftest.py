"""Fixtures of the providers' tests: a fake Stripe, and a connection to it."""

from collections.abc import AsyncIterator

import pytest

from ledger.providers import stripe_calls
from ledger.providers.stripe import StripeProvider, StripeType
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET, FakeStripe


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    """A Stripe whose requests all have to fit the library's parameter types."""
    async with FakeStripe() as fake:
        yield fake
        assert fake.violations == []


@pytest.fixture
async def provider(fake: FakeStripe) -> AsyncIterator[StripeProvider]:
    provider = StripeType(fake.url).connect({"secretKey": SECRET_KEY, "webhookSecret": WEBHOOK_SECRET})
    yield provider
    await provider.close()


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the waits to a tenth, for tests about what happens at their end."""
    monkeypatch.setattr(stripe_calls, "BUDGET_S", 0.75)
    monkeypatch.setattr(stripe_calls, "CONNECT_S", 0.2)
    monkeypatch.setattr(stripe_calls, "ATTEMPT_S", 0.4)
    monkeypatch.setattr(stripe_calls, "_FIRST_PAUSE_S", 0.02)
