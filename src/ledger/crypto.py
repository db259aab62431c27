"""Seals stored secrets with AES-256-GCM (NIST SP 800-38D).

A sealed value is `version (1) | key id (4) | nonce (12) | ciphertext and tag`. The table, row and column it belongs to
are associated data: a flipped bit, or a value moved to another row, is detected when it is opened.
"""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_KEY_ID_LENGTH = 4
_NONCE_LENGTH = 12
_HEADER_LENGTH = 1 + _KEY_ID_LENGTH + _NONCE_LENGTH


class SealBroken(Exception):
    """A stored secret cannot be opened: it was changed, moved, or sealed with a key that is not configured."""


def key_id(key: bytes) -> bytes:
    """A name for a key that tells nothing about it."""
    return hashlib.sha256(b"ledger key id" + key).digest()[:_KEY_ID_LENGTH]


class Vault:
    """Seals with the present key, opens with the present or the previous one."""

    def __init__(self, key: bytes, previous: bytes | None = None) -> None:
        self._present = key_id(key)
        self._keys = {key_id(each): AESGCM(each) for each in (key, previous) if each is not None}

    def seal(self, secret: str, *, table: str, row: str, column: str) -> bytes:
        """Returns the sealed form of `secret` for exactly this place."""
        nonce = os.urandom(_NONCE_LENGTH)
        sealed = self._keys[self._present].encrypt(nonce, secret.encode(), _place(table, row, column))
        return _VERSION + self._present + nonce + sealed

    def open(self, sealed: bytes, *, table: str, row: str, column: str) -> str:
        """Returns the secret. Raises `SealBroken` when it was changed, moved, or its key is not configured."""
        if len(sealed) < _HEADER_LENGTH or sealed[:1] != _VERSION:
            raise SealBroken(f"the secret in {table}.{column} has an unknown form")
        key = self._keys.get(sealed[1 : 1 + _KEY_ID_LENGTH])
        if key is None:
            raise SealBroken(f"the secret in {table}.{column} was sealed with a key that is not configured")
        nonce = sealed[1 + _KEY_ID_LENGTH : _HEADER_LENGTH]
        try:
            return key.decrypt(nonce, sealed[_HEADER_LENGTH:], _place(table, row, column)).decode()
        except InvalidTag:
            raise SealBroken(f"the secret in {table}.{column} was changed or moved") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether it was sealed with the present key, or is to be sealed anew."""
        return sealed[1 : 1 + _KEY_ID_LENGTH] == self._present


def _place(table: str, row: str, column: str) -> bytes:
    return "\x00".join((table, row, column)).encode()
