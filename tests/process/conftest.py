"""Folders for these tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of one's own directly under the system's, in place of pytest's.

    Every pytest session closes the folder above all of its own to other accounts, which takes the data from under a
    PostgreSQL that runs as one (as it does when the tests run as root).
    """
    with tempfile.TemporaryDirectory(prefix="ledger-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
