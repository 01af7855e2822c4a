"""Envelopes for keys and small secrets: HPKE base mode, MLKEM768-X25519 / HKDF-SHA256 / AES-256-GCM.

    sealed = encapsulated key (1120 bytes) || AES-256-GCM ciphertext and tag

The KEM is X-Wing, a hybrid of ML-KEM-768 and X25519: recorded ciphertext stays closed unless both are broken.
``info`` binds an envelope to its use and is never empty; there is no associated data. Encapsulation draws its
randomness inside the library. Source: RFC 9180; draft-ietf-hpke-pq; draft-connolly-cfrg-xwing-kem (key encodings).
"""

from __future__ import annotations

import hashlib
import hmac
import sys
from collections.abc import Callable
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError

SEED_SIZE = 32
MLKEM_PUBLIC_SIZE = 1184
PUBLIC_SIZE = MLKEM_PUBLIC_SIZE + 32
ENCAPSULATED_SIZE = 1088 + 32
OVERHEAD = ENCAPSULATED_SIZE + 16
"""Bytes that an envelope adds to its content."""
MAX_PLAINTEXT = 4 << 20

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_REFUSED = "the envelope does not open: it was sealed for another key or another use, or its bytes were changed or cut"


class HpkePublicKey:
    """The public half: ``raw`` is ML-KEM-768's encapsulation key (1184 bytes) || X25519's (32 bytes)."""

    __slots__ = ("_key", "raw")

    def __init__(self, raw: bytes) -> None:
        """Raises DecodeError when ``raw`` is not a public key."""
        if len(raw) != PUBLIC_SIZE:
            raise DecodeError(f"an HPKE public key is {PUBLIC_SIZE} bytes, not {len(raw)}")
        try:
            self._key = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:MLKEM_PUBLIC_SIZE]),
                X25519PublicKey.from_public_bytes(raw[MLKEM_PUBLIC_SIZE:]),
            )
        except ValueError as error:
            raise DecodeError("these bytes are not an HPKE public key of MLKEM768-X25519") from error
        self.raw = bytes(raw)

    @property
    def key_id(self) -> str:
        """SHA-256 of ``raw`` in hex, 64 digits."""
        return hashlib.sha256(self.raw).hexdigest()

    def __repr__(self) -> str:
        return f"HpkePublicKey({self.key_id[:16]}…)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HpkePublicKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)


class HpkePrivateKey:
    """The private half: ``raw`` is X-Wing's 32-byte seed. Never shown by repr, not picklable."""

    __slots__ = ("_key", "_seed", "public")

    def __init__(self, raw: bytes) -> None:
        """Raises InputError when ``raw`` is not 32 bytes."""
        if len(raw) != SEED_SIZE:
            raise InputError(f"an HPKE private key is {SEED_SIZE} bytes, not {len(raw)}")
        self._take(bytearray(raw))

    @classmethod
    def at(cls, memory: memoryview) -> HpkePrivateKey:
        """The key whose seed lies in ``memory`` (32 writable bytes), which stays its only place until ``wipe``.

        Raises:
            InputError: not 32 bytes.
        """
        if len(memory) != SEED_SIZE:
            raise InputError(f"an HPKE private key is {SEED_SIZE} bytes, not {len(memory)}")
        key = cls.__new__(cls)
        key._take(memory)
        return key

    def _take(self, seed: bytearray | memoryview) -> None:
        self._seed: bytearray | memoryview | None = seed
        expanded = hashlib.shake_256(seed).digest(96)
        try:
            halves = memoryview(expanded)
            post_quantum = MLKEM768PrivateKey.from_seed_bytes(halves[:64])
            classical = X25519PrivateKey.from_private_bytes(halves[64:])
        finally:
            _overwrite(expanded)
        self._key: MLKEM768X25519PrivateKey | None = MLKEM768X25519PrivateKey(post_quantum, classical)
        self.public = HpkePublicKey(
            post_quantum.public_key().public_bytes_raw() + classical.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> HpkePrivateKey:
        """Make a fresh key. ``entropy(n)`` gives n random bytes (``os.urandom``)."""
        return cls(entropy(SEED_SIZE))

    @property
    def raw(self) -> bytes:
        """The 32-byte seed. Raises InputError after ``wipe``."""
        if self._seed is None:
            raise InputError("this HPKE private key was wiped")
        return bytes(self._seed)

    def wipe(self) -> None:
        """Overwrite the seed and drop the key, which OpenSSL clears. Best effort: Python may have made other copies."""
        if self._seed is not None:
            self._seed[:] = bytes(SEED_SIZE)
            self._seed = None
        self._key = None

    def decrypt(self, sealed: bytes, info: bytes) -> bytes:
        """HPKE's single-shot open. Raises InputError after ``wipe``; library errors pass to ``open``."""
        if self._key is None:
            raise InputError("this HPKE private key was wiped")
        return _SUITE.decrypt(sealed, self._key, info)

    def __repr__(self) -> str:
        return f"HpkePrivateKey({self.public.key_id[:16]}…, hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HpkePrivateKey) and hmac.compare_digest(self._seed or b"", other._seed or b"")

    __hash__ = None  # type: ignore[assignment]  # a key is never a dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError("an HPKE private key is not pickled")


def seal(public: HpkePublicKey, plaintext: bytes, info: bytes) -> bytes:
    """Seal ``plaintext`` (at most 4 MiB) to ``public`` for the use named by ``info``. Raises InputError."""
    _require_info(info)
    if len(plaintext) > MAX_PLAINTEXT:
        raise InputError(f"an envelope holds at most {MAX_PLAINTEXT} bytes, not {len(plaintext)}")
    return _SUITE.encrypt(plaintext, public._key, info)


def open(private: HpkePrivateKey, sealed: bytes, info: bytes) -> bytes:  # noqa: A001  # the seam's name
    """Open an envelope that was sealed to ``private`` for the use named by ``info``.

    Raises VerificationError (one text whatever failed), TooLarge, InputError for an empty ``info`` or a wiped key.
    """
    _require_info(info)
    if len(sealed) > MAX_PLAINTEXT + OVERHEAD:
        raise TooLarge(f"an envelope is at most {MAX_PLAINTEXT + OVERHEAD} bytes, not {len(sealed)}")
    try:
        return private.decrypt(sealed, info)
    except (InvalidTag, ValueError):
        raise VerificationError(_REFUSED, code="envelope-refused") from None


def _overwrite(secret: bytes) -> None:
    """Zero an immutable object that nobody else holds: the hash gives its answer in no other form.

    In CPython the content follows the object's head, of which ``__basicsize__`` counts the final zero byte too; another
    interpreter keeps its copy.
    """
    if sys.implementation.name == "cpython":
        import ctypes  # takes longer to load than it is used for; most who import this room make no key

        ctypes.memset(id(secret) + bytes.__basicsize__ - 1, 0, len(secret))


def _require_info(info: bytes) -> None:
    if not info:
        raise InputError("an envelope names its use: info must not be empty")
