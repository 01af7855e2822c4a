"""The key under which tokens and challenges are made: a file of mode 0600 that replicas share."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError

KEY_BYTES: Final = 32


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
    """Read the key from ``path``: 64 hex characters, readable by its owner only.

    Raises:
        ConfigurationError: the file is missing, open to others, or malformed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"the token key file {path.name} cannot be read: {os.strerror(error.errno or 0).lower()}",
            hint="create it with mode 0600 and 64 hex characters from a random source",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigurationError(f"the token key file {path.name} has mode {mode:04o}", hint="chmod 600 it")
        text = file.read(256).strip()
    try:
        raw = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        # Without "from": the cause would quote the key.
        raise ConfigurationError(f"the token key file {path.name} does not hold hex characters") from None
    return SigningKey(raw)


def create_signing_key(path: Path) -> SigningKey:
    """Make a new random key at ``path`` with mode 0600, or load the one that is there; durable when this returns.

    Raises:
        ConfigurationError: as :func:`load_signing_key`, or the file cannot be written.
    """
    if path.exists():
        return load_signing_key(path)
    try:
        _create(path)
    except OSError as error:
        raise ConfigurationError(
            f"the token key file {path.name} cannot be written: {os.strerror(error.errno or 0).lower()}"
        ) from error
    return load_signing_key(path)


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A hard link fails when a racing process was first, where a rename would replace its key.
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
