"""Secrets at rest: AES-256-GCM under a data key per record, the data key wrapped by the key-encryption key.

The additional data binds kind, owner, name and version, so that a record moved to another row in the database, or
an older version put back in its place, does not open.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.errors import LocalError
from cloister.protocol.codec import Address, canonical_json
from cloister.services.sms.kek import KeyEncryptionKey

_NONCE_BYTES = 12


class SecretKind(StrEnum):
    """Whose secret it is and who may get it."""

    DATASET = "web3"
    """Key of a dataset; released to an enclave that a granted deal brought up."""
    WEB2 = "web2"
    """Value of an account (result encryption keys, storage tokens)."""
    APP = "app"
    """Secret of an app's developer, released to enclaves that run exactly that app."""
    REQUESTER = "requester"
    """Secret of a requester, released to enclaves of that requester's own deals."""


@dataclass(frozen=True, slots=True)
class SecretName:
    """Where a secret lives. ``owner`` is the dataset or app for those kinds, the account for the others."""

    kind: SecretKind
    owner: Address
    name: str = ""

    def context(self, version: int) -> bytes:
        """Bytes that the encryption binds."""
        return canonical_json(
            {
                "domain": "cloister/sms/record/v1",
                "kind": self.kind.value,
                "owner": str(self.owner),
                "name": self.name,
                "version": version,
            }
        )


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as the database holds it."""

    version: int
    key_id: str
    wrapped_key: bytes
    nonce: bytes
    ciphertext: bytes


class Vault:
    """Seals and opens single secrets."""

    __slots__ = ("_kek",)

    def __init__(self, kek: KeyEncryptionKey) -> None:
        self._kek = kek

    def seal(self, name: SecretName, value: bytes, *, version: int) -> SealedSecret:
        """Encrypt ``value`` under a fresh data key."""
        context = name.context(version)
        key, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE_BYTES)
        return SealedSecret(
            version=version,
            key_id=self._kek.key_id,
            wrapped_key=self._kek.wrap(key, context),
            nonce=nonce,
            ciphertext=AESGCM(key).encrypt(nonce, value, context),
        )

    def open(self, name: SecretName, sealed: SealedSecret) -> bytes:
        """Decrypt a secret.

        Raises: LocalError when the record was changed, moved, or written under another key.
        """
        context = name.context(sealed.version)
        key = self._kek.unwrap(sealed.wrapped_key, context)
        try:
            return AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, context)
        except InvalidTag:
            raise LocalError(f"the stored {name.kind.value} secret of {name.owner} does not open") from None
