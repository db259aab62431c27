"""What a subscriber is sent: the body of an event, the same for everybody, and the headers, signed for one.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com) beside the published ones.
"""

from datetime import datetime

import msgspec

from ledger.crypto import Vault
from ledger.deliveries.store import StoredEvent
from ledger.web.shapes import iso
from ledger.webhooks.sealing import OpenedSecrets, open_secrets
from ledger.webhooks.signing import signature_header, timestamp_header
from ledger.webhooks.store import Subscriber

# The published header that carries a secret as it is.
SECRET_HEADER = "X-Webhook-Secret"  # noqa: S105 - the name of a header


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it travels. Its id stays the same however often it is sent."""

    event_id: str
    event_type: str
    body: bytes


def make_message(event: StoredEvent) -> Message | None:
    """The message of an event; None once retention has purged what it says."""
    if event.data is None:
        return None
    body = {
        "id": event.id,
        "event": event.type,
        "data": {**event.data, "userId": event.user_id},
        "timestamp": iso(event.created_at),
    }
    return Message(event_id=event.id, event_type=event.type, body=msgspec.json.encode(body))


def headers_for(message: Message, *, secrets: OpenedSecrets, now: datetime) -> dict[str, str]:
    """The headers of an attempt that is made at `now`."""
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Event": message.event_type,
        "webhook-id": message.event_id,
        "webhook-timestamp": timestamp_header(now),
        "webhook-signature": signature_header(
            secrets=secrets.signing, message_id=message.event_id, timestamp=now, body=message.body
        ),
    }
    if secrets.header is not None:
        headers[SECRET_HEADER] = secrets.header
    return headers


class SecretsCache:
    """One subscriber's opened secrets, kept until they change or one of them runs out."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._version: tuple[object, ...] | None = None
        self._opened: OpenedSecrets | None = None

    def of(self, subscriber: Subscriber, *, now: datetime) -> OpenedSecrets:
        """The secrets that are valid now. Raises `SecretsUnreadable`."""
        until = subscriber.previous_signing_until
        version = (
            subscriber.header_secret_sealed,
            subscriber.sends_header_secret,
            subscriber.signing_secret_sealed,
            subscriber.previous_signing_secret_sealed,
            until is not None and now < until,
        )
        if self._opened is None or version != self._version:
            self._opened = open_secrets(self._vault, subscriber, now=now)
            self._version = version
        return self._opened
