"""Content identifiers: which bytes, in which codec (multiformats/cid), limited to what Cloister stores.

Version 0 is a bare SHA-256 multihash of a dag-pb block, written in base58btc (``Qm…``). Version 1 names its codec,
dag-pb or raw, and is written in lower-case base32 (``bafy…``, ``bafk…``); base58 and base16 are read too. Other
codecs and hashes are refused by name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum

from cloister.errors import DecodeError, VerificationError, quoted
from cloister.storage.multibase import build_base32, build_base58, parse_base58, parse_multibase
from cloister.storage.varint import build_varint, parse_varint

Block = bytes | bytearray | memoryview
"""The bytes of one block, in any form that can be hashed without a copy."""

MULTIHASH_PREFIX = b"\x12\x20"
"""sha2-256, 32 bytes."""

DIGEST_LENGTH = 32


class Codec(IntEnum):
    """How the bytes under a CID are laid out; the numbers are multicodec's."""

    RAW = 0x55
    DAG_PB = 0x70


@dataclass(frozen=True, slots=True)
class Cid:
    """A content identifier. ``digest`` is the 32-byte SHA-256 of one block."""

    version: int
    codec: Codec
    digest: bytes

    def __post_init__(self) -> None:
        if self.version not in (0, 1):
            raise DecodeError(f"cid version {self.version} is not supported")
        if self.version == 0 and self.codec is not Codec.DAG_PB:
            raise DecodeError("a version 0 cid is always dag-pb")
        if len(self.digest) != DIGEST_LENGTH:
            raise DecodeError(f"a cid's digest has {DIGEST_LENGTH} bytes, not {len(self.digest)}")

    @property
    def multihash(self) -> bytes:
        """The 34-byte SHA-256 multihash."""
        return MULTIHASH_PREFIX + self.digest

    @property
    def raw(self) -> bytes:
        """The binary form: 34 bytes for version 0, 36 for version 1."""
        return self.multihash if self.version == 0 else build_varint(1) + build_varint(self.codec) + self.multihash

    def __str__(self) -> str:
        return build_base58(self.multihash) if self.version == 0 else "b" + build_base32(self.raw)

    def verify_block(self, block: Block) -> None:
        """Prove that ``block`` is the one this CID names.

        Raises:
            VerificationError: it is not.
        """
        if hashlib.sha256(block).digest() != self.digest:
            raise VerificationError(f"the bytes are not those of {self}", hint="storage gave other or damaged bytes")

    @classmethod
    def of_block(cls, block: Block, *, version: int = 1, codec: Codec = Codec.RAW) -> Cid:
        """Name one block."""
        return cls(version, codec, hashlib.sha256(block).digest())

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read the text form, of either version.

        Raises:
            DecodeError: no CID, or of a codec or hash that is not supported.
        """
        if len(text) == 46 and text.startswith("Qm"):
            raw = parse_base58(text)
            if len(raw) != 34 or not raw.startswith(MULTIHASH_PREFIX):
                raise DecodeError(f"not a cid: {quoted(text)}")
            return cls(0, Codec.DAG_PB, raw[2:])
        try:
            return cls._from_raw_v1(parse_multibase(text))  # a version 0 cid has no multibase prefix
        except DecodeError as error:
            raise DecodeError(
                f"not a cid: {quoted(text)}: {error.message}", hint="a cid starts with Qm, bafy or bafk"
            ) from error

    @classmethod
    def from_raw(cls, raw: bytes) -> Cid:
        """Read the binary form, of either version.

        Raises:
            DecodeError: no CID, of a codec or hash that is not supported, or followed by other bytes.
        """
        if len(raw) == 34 and raw.startswith(MULTIHASH_PREFIX):
            return cls(0, Codec.DAG_PB, raw[2:])
        return cls._from_raw_v1(raw)

    @classmethod
    def _from_raw_v1(cls, raw: bytes) -> Cid:
        version, position = parse_varint(raw)
        if version != 1:
            raise DecodeError(f"cid version {version} is not supported")
        number, position = parse_varint(raw, position)
        try:
            codec = Codec(number)
        except ValueError:
            raise DecodeError(f"cid codec {number:#x} is not supported", hint="dag-pb and raw are understood") from None
        if raw[position : position + 2] != MULTIHASH_PREFIX:
            raise DecodeError("cid hash is not supported", hint="only sha2-256 is understood")
        return cls(1, codec, raw[position + 2 :])
