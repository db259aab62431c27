"""Fixtures of the proofs."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from tests.guarantees.own_postgres import OwnPostgres, own_postgres


@pytest.fixture(scope="package", autouse=True)
def only_errors_are_logged() -> Iterator[None]:
    """Thousands of requests are made, and a failure shows all that was logged. (Real processes log to files.)"""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        # The default draws every variable of every frame, which takes seconds and would be measured, too.
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
    )
    yield
    structlog.reset_defaults()


@pytest.fixture
async def postgres() -> AsyncIterator[OwnPostgres]:
    """A migrated database on a server of the test's own."""
    async with own_postgres() as server:
        yield server
