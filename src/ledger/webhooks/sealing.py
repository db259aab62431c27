"""A subscriber's secrets: sealed for exactly its row and column, and opened when a delivery is signed."""

from datetime import datetime

import msgspec
import structlog

from ledger.crypto import SealBroken, Vault
from ledger.errors import Unavailable
from ledger.webhooks.store import HEADER_SECRET, PREVIOUS_SIGNING_SECRET, SIGNING_SECRET, TABLE, Subscriber

log = structlog.get_logger("ledger.webhooks")


class OpenedSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery is sent with. `header` is None where the published header is switched off.

    `signing` holds the present secret, and the one before it while that is valid.
    """

    header: str | None
    signing: tuple[str, ...]

    def __repr__(self) -> str:
        return "OpenedSecrets(********)"


class SecretsUnreadable(Unavailable):
    """A subscriber's sealed secrets cannot be opened (503)."""


def seal(vault: Vault, secret: str, *, subscriber_id: str, column: str) -> bytes:
    """Seals a secret for this column of this subscriber."""
    return vault.seal(secret, table=TABLE, row=subscriber_id, column=column)


def open_secrets(vault: Vault, subscriber: Subscriber, *, now: datetime) -> OpenedSecrets:
    """Opens what a delivery needs. Raises `SecretsUnreadable` when a secret was changed, moved, or its key is gone."""
    try:
        signing = [_open(vault, subscriber.signing_secret_sealed, subscriber, SIGNING_SECRET)]
        previous, until = subscriber.previous_signing_secret_sealed, subscriber.previous_signing_until
        if previous is not None and until is not None and now < until:
            signing.append(_open(vault, previous, subscriber, PREVIOUS_SIGNING_SECRET))
        header = (
            _open(vault, subscriber.header_secret_sealed, subscriber, HEADER_SECRET)
            if subscriber.sends_header_secret
            else None
        )
    except SealBroken as broken:
        log.error("secrets cannot be opened", subscriber=subscriber.id, reason=str(broken))
        raise SecretsUnreadable(
            f"The secrets of the subscriber {subscriber.name} cannot be opened: check ENCRYPTION_KEY and "
            "ENCRYPTION_KEY_PREVIOUS, or rotate its secrets",
            retry_after_s=60,
        ) from broken
    return OpenedSecrets(header=header, signing=tuple(signing))


def _open(vault: Vault, sealed: bytes, subscriber: Subscriber, column: str) -> str:
    return vault.open(sealed, table=TABLE, row=subscriber.id, column=column)
