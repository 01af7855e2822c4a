"""Tags: 256 bits that say what an order needs or offers (reference 1.7)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import Bytes32

_NAMES: Final = {0: "tee", 1: "scone", 2: "gramine", 3: "tdx", 8: "gpu"}
_BITS: Final = {name: bit for bit, name in _NAMES.items()}


class Tag(Bytes32):
    """A 32-byte tag. Bits that have no name are kept: the contract compares all 256."""

    __slots__ = ()

    @classmethod
    def from_bits(cls, bits: int) -> Self:
        """Wrap the tag as an integer."""
        if not 0 <= bits < 2**256:
            raise InputError("a tag has 256 bits")
        return cls.from_raw(bits.to_bytes(32, "big"))

    @property
    def bits(self) -> int:
        """The tag as an integer, bit 0 least."""
        return int(self[2:], 16)

    def __or__(self, other: Tag) -> Tag:
        return Tag.from_bits(self.bits | other.bits)

    def __and__(self, other: Tag) -> Tag:
        return Tag.from_bits(self.bits & other.bits)

    def without(self, other: Tag) -> Tag:
        """This tag with the bits of ``other`` cleared."""
        return Tag.from_bits(self.bits & ~other.bits)

    def has(self, other: Tag) -> bool:
        """Whether every bit of ``other`` is set."""
        return self.bits & other.bits == other.bits


NO_TAG: Final = Tag.from_bits(0)
TEE: Final = Tag.from_bits(1 << 0)
SCONE: Final = Tag.from_bits(1 << 1)
GRAMINE: Final = Tag.from_bits(1 << 2)
TDX: Final = Tag.from_bits(1 << 3)
GPU: Final = Tag.from_bits(1 << 8)
TEE_TDX: Final = TEE | TDX
"""The tag that every order of iExec's clients carries today."""
FRAMEWORKS: Final = SCONE | GRAMINE | TDX
"""The bits of a dataset's tag that matching ignores since PoCo 6.2 (0x0E)."""


def parse_tag(value: str | Iterable[str]) -> Tag:
    """Read a tag from 0x hex or from names such as ``["tee", "tdx"]``.

    Raises:
        DecodeError: bad hex or an unknown name.
    """
    if isinstance(value, str):
        return Tag(value)
    bits = 0
    for name in value:
        if name not in _BITS:
            raise DecodeError(f"unknown tag {quoted(name)}", hint=f"known tags: {', '.join(_BITS)}")
        bits |= 1 << _BITS[name]
    return Tag.from_bits(bits)


def tag_names(tag: Tag) -> tuple[str, ...]:
    """Name the bits that are set, lowest first.

    Raises:
        DecodeError: a bit has no name (``Unknown bit N in tag``, as iExec's clients say).
    """
    names = []
    for bit in range(256):
        if tag.bits >> bit & 1:
            if bit not in _NAMES:
                raise DecodeError(f"Unknown bit {bit} in tag")
            names.append(_NAMES[bit])
    return tuple(names)
