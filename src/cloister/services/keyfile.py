"""A file with one symmetric key: 64 hex characters, mode 0600, shared by the replicas of a service."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError
from cloister.files import create_durably

KEY_BYTES: Final = 32


def load_key_file(path: Path, what: str) -> bytes:
    """Read the 32 bytes of a key; ``what`` names it in errors, which never quote it.

    Raises:
        ConfigurationError: the file is missing, a link, open to others, or holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"the {what} file {path} cannot be read: {os.strerror(error.errno or 0).lower()}",
            hint="create it with mode 0600 and 64 hex characters from a random source",
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigurationError(f"the {what} file {path} has mode {mode:04o}", hint="chmod 600 it")
        text = file.read(256).strip()
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        # Without "from": the cause would quote the key.
        raise ConfigurationError(f"the {what} file {path} does not hold hex characters") from None
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the {what} must have {KEY_BYTES} bytes, the file {path} holds {len(key)}")
    return key


def create_key_file(path: Path, what: str) -> bytes:
    """Make a random key, or read the one that is there. Durable before it returns: nothing may ever be stored under a
    key that a power cut can lose.

    Raises:
        ConfigurationError: as :func:`load_key_file`, or the file cannot be written.
    """
    if not path.exists():
        try:
            create_durably(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        except OSError as error:
            raise ConfigurationError(
                f"the {what} file {path} cannot be written: {os.strerror(error.errno or 0).lower()}"
            ) from error
    return load_key_file(path, what)
