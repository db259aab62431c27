"""Keeps the proofs' output readable: thousands of requests are made, and a failure shows all that was logged."""

import logging
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(scope="package", autouse=True)
def only_errors_are_logged() -> Iterator[None]:
    """What the application in this process logs while these tests run; processes of their own log to files."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()
