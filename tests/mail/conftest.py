"""Fixtures: a mail server, and a Ledger that sends through it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.certificates import Certificates, make_certificates
from tests.fakes.smtp import FakeMailServer
from tests.installation import Installation
from tests.mail.mailing import Mailing


@pytest.fixture
async def post() -> AsyncIterator[FakeMailServer]:
    """A mail server without encryption and login."""
    async with FakeMailServer() as server:
        yield server


@pytest.fixture
async def mailing(ledger: Installation, post: FakeMailServer) -> Mailing:
    """A Ledger that sends through it."""
    mailing = Mailing(ledger, post)
    await mailing.configure()
    return mailing


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Certificates that this process trusts, as an administrator makes it trust an authority of their own."""
    path: Path = certificates.authority
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return certificates
