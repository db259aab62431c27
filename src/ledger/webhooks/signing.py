"""Signs deliveries as Standard Webhooks says (https://www.standardwebhooks.com, symmetric signatures `v1`).

What is signed is `<webhook-id>.<webhook-timestamp>.<body>`, with HMAC-SHA256 and the bytes that the secret's base64
stands for. A receiver takes the delivery when one of the signatures in the header fits, so two secrets can be valid
at once.
"""

import base64
import binascii
import hashlib
import hmac
import secrets as randomness
from collections.abc import Sequence
from datetime import datetime, timedelta

SIGNING_PREFIX = "whsec_"
# Random bytes of a secret; the specification has 24 to 64.
SIGNING_BYTES = 32
# How long the secret before a rotation signs as well.
PREVIOUS_SECRET_KEPT = timedelta(hours=24)


def new_signing_secret() -> str:
    """A secret that signs: `whsec_` and the base64 of random bytes."""
    return SIGNING_PREFIX + base64.b64encode(randomness.token_bytes(SIGNING_BYTES)).decode()


def new_header_secret() -> str:
    """A secret for the published header: 43 characters that need no quoting anywhere."""
    return randomness.token_urlsafe(32)


def signature_header(*, secrets: Sequence[str], message_id: str, timestamp: datetime, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each secret, separated by blanks.

    `timestamp` is what `webhook-timestamp` says in whole seconds (see `timestamp_header`). Raises ValueError for what
    is not a signing secret.
    """
    signed = b".".join((message_id.encode(), timestamp_header(timestamp).encode(), body))
    return " ".join(f"v1,{_signature(_key_of(secret), signed)}" for secret in secrets)


def timestamp_header(timestamp: datetime) -> str:
    """The value of `webhook-timestamp`: whole seconds since 1970."""
    return str(int(timestamp.timestamp()))


def _signature(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _key_of(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SIGNING_PREFIX), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key or not secret.startswith(SIGNING_PREFIX):
        raise ValueError("a signing secret must be whsec_ and base64")
    return key
