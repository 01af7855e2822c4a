"""The key under which tokens and challenges are made: a file of mode 0600 that replicas share."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError
from cloister.services.keyfile import KEY_BYTES, create_key_file, load_key_file

WHAT: Final = "token key"


class SigningKey:
    """32 random bytes, from which each use derives a key of its own."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ConfigurationError(f"the token key must have {KEY_BYTES} bytes, this one has {len(raw)}")
        self._raw = raw

    def __repr__(self) -> str:
        return "SigningKey(…)"

    def derive(self, purpose: str) -> bytes:
        """The 32-byte key for one purpose (HMAC-SHA-256 of its name)."""
        return hmac.digest(self._raw, b"cloister/result-proxy/v1/" + purpose.encode(), "sha256")


def load_signing_key(path: Path) -> SigningKey:
    """Read the key from its file. Raises: ConfigurationError, see ``services.keyfile``."""
    return SigningKey(load_key_file(path, WHAT))


def create_signing_key(path: Path) -> SigningKey:
    """Make a new random key at ``path``, or load the one that is there. Raises: ConfigurationError."""
    return SigningKey(create_key_file(path, WHAT))
