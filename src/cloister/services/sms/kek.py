"""The key-encryption key: wraps the data keys of single records.

The interface is what a hardware module or a cloud key service offers (wrap and unwrap with an encryption context),
so that one can take the local key's place without a change elsewhere.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import ConfigurationError, LocalError
from cloister.services.keyfile import KEY_BYTES, create_key_file, load_key_file

WHAT = "key-encryption key"
_NONCE_BYTES = 12
_VERSION = b"\x01"


class KeyEncryptionKey(Protocol):
    """Wraps short keys under a key that never leaves its holder.

    Both methods may be called from several threads at once. ``unwrap`` with another context, or of bytes that this
    key did not wrap, raises ``LocalError``; a holder that cannot be reached raises ``UnavailableError``.
    """

    @property
    def key_id(self) -> str:
        """Name of the key, kept beside what it wrapped; not secret."""
        ...

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt ``key`` so that only the same ``context`` opens it."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the key that ``wrap`` was given."""
        ...


class LocalKek:
    """A key-encryption key in a file of mode 0600: version (1) || nonce (12) || AES-256-GCM ciphertext and tag."""

    __slots__ = ("_aead", "_key_id")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ConfigurationError(f"the key-encryption key must have {KEY_BYTES} bytes, this one has {len(key)}")
        self._aead = AESGCM(key)
        # A name derived through the cipher itself, so that the name tells nothing about the key.
        self._key_id = "local:" + self._aead.encrypt(bytes(_NONCE_BYTES), b"", b"cloister/kek/name").hex()[:16]

    def __repr__(self) -> str:
        return f"LocalKek({self._key_id})"

    @property
    def key_id(self) -> str:
        return self._key_id

    def wrap(self, key: bytes, context: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._aead.encrypt(nonce, key, _VERSION + context)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        if wrapped[:1] != _VERSION or len(wrapped) < 1 + _NONCE_BYTES + 16:
            raise LocalError("a wrapped key has an unknown form", hint="was the database written by a later version?")
        nonce, ciphertext = wrapped[1 : 1 + _NONCE_BYTES], wrapped[1 + _NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, ciphertext, _VERSION + context)
        except InvalidTag:
            raise LocalError(
                "a wrapped key does not open under the configured key-encryption key",
                hint="check that the key file belongs to this database",
            ) from None


def load_local_kek(path: Path) -> LocalKek:
    """Read the key-encryption key from its file. Raises: ConfigurationError, see ``services.keyfile``."""
    return LocalKek(load_key_file(path, WHAT))


def create_local_kek(path: Path) -> LocalKek:
    """Make a new random key-encryption key at ``path``, or load the one that is there. Raises: ConfigurationError."""
    return LocalKek(create_key_file(path, WHAT))
