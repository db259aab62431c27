"""Fixtures: receivers on loopback, and a Ledger that tells them what happens."""

from collections.abc import AsyncIterator

import pytest

from ledger import fanout
from tests.conftest import StartLedger
from tests.deliveries.telling import LOOPBACK, Telling, telling
from tests.fakes.receiver import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that takes everything until a test changes its mode."""
    async with Receiver() as fake:
        yield fake


@pytest.fixture
async def shop(start_ledger: StartLedger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Telling]:
    """A Ledger that may send to this machine, with its worker's part running beside it."""
    monkeypatch.setattr(fanout, "POLL_S", 0.01)
    async with telling(await start_ledger(WEBHOOK_ALLOWED_NETWORKS=LOOPBACK)) as running:
        yield running
