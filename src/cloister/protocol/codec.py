"""Bytes, hex, addresses and JSON: the smallest values on the wire and how they are read from strangers.

Keccak-256 is the original Keccak (Ethereum's), not SHA3-256. Addresses print as EIP-55, words as lower-case hex.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NoReturn, Self

from Crypto.Hash import keccak

from cloister.errors import DecodeError, InputError, TooLarge, quoted

DEFAULT_HEX_CAP: Final = 1 << 20
"""Longest byte string that ``parse_hex`` accepts unless told otherwise."""
DEFAULT_JSON_CAP: Final = 1 << 20
"""Longest JSON document in bytes that ``parse_json`` accepts unless told otherwise."""
UINT256_MAX: Final = 2**256 - 1
SAFE_INTEGER_MAX: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8259 section 6)."""

JSON_DEPTH_CAP: Final = 100
"""Deepest nesting of JSON from outside."""

_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(r"[\[\]{}]")
_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")


def keccak256(data: bytes) -> bytes:
    """Hash with Keccak-256, as Ethereum does. Returns 32 bytes."""
    return keccak.new(digest_bits=256, data=data).digest()


def to_hex(data: bytes) -> str:
    """Write bytes as lower-case ``0x`` hex."""
    return "0x" + data.hex()


def parse_hex(text: object, *, length: int | None = None, cap: int = DEFAULT_HEX_CAP) -> bytes:
    """Read ``0x`` hex of either case into bytes.

    ``length`` demands that many bytes; ``cap`` is the most that is read.

    Raises:
        DecodeError: not a string, no ``0x``, an odd count of digits, another character, or another length.
        TooLarge: more than ``cap`` bytes.
    """
    if not isinstance(text, str) or not text.startswith(("0x", "0X")):
        raise DecodeError(f"expected 0x-prefixed hex, got {quoted(text)}")
    if len(text) > 2 + 2 * cap:
        raise TooLarge(f"hex of {len(text) - 2} digits is longer than the cap of {cap} bytes")
    digits = text[2:]
    # bytes.fromhex skips white space, which would give one value several spellings.
    if len(digits) % 2 or not _HEX_DIGITS.issuperset(digits):
        raise DecodeError(f"expected an even count of hex digits, got {quoted(text)}")
    if length is not None and len(digits) != 2 * length:
        raise DecodeError(f"expected {length} bytes of hex, got {len(digits) // 2}: {quoted(text)}")
    return bytes.fromhex(digits)


@lru_cache(maxsize=4096)
def _checksummed(digits: str) -> str:
    """Spell 40 lower-case hex digits with EIP-55's capitals."""
    digest = keccak256(digits.encode("ascii")).hex()
    return "0x" + "".join(c.upper() if nibble >= "8" else c for c, nibble in zip(digits, digest, strict=False))


class Address(str):
    """A 20-byte account or contract address. Any case in, EIP-55 out, so equal addresses are equal strings.

    The case of the input is not checked as a checksum: iExec's clients send lower case, upper case and EIP-55 alike.

    Raises:
        DecodeError: not ``0x`` and 40 hex digits.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        try:
            raw = parse_hex(value, length=20)
        except DecodeError as error:
            error.hint = "an address is 0x and 40 hex digits"
            raise
        return super().__new__(cls, _checksummed(raw.hex()))

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """Wrap 20 bytes."""
        if len(raw) != 20:
            raise DecodeError(f"an address has 20 bytes, got {len(raw)}")
        return super().__new__(cls, _checksummed(bytes(raw).hex()))

    @property
    def raw(self) -> bytes:
        """The 20 bytes."""
        return bytes.fromhex(self[2:])

    @property
    def is_zero(self) -> bool:
        """Whether this is the zero address, the wire's word for none."""
        return self == ZERO_ADDRESS


class Bytes32(str):
    """A 32-byte word: a hash, an id, a salt. Any case in, lower-case ``0x`` hex out.

    Raises:
        DecodeError: not ``0x`` and 64 hex digits.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        if type(value) is cls:
            return value
        try:
            raw = parse_hex(value, length=32)
        except DecodeError as error:
            error.hint = "a hash or an id is 0x and 64 hex digits"
            raise
        return super().__new__(cls, to_hex(raw))

    @classmethod
    def from_raw(cls, raw: bytes) -> Self:
        """Wrap 32 bytes."""
        if len(raw) != 32:
            raise DecodeError(f"a word has 32 bytes, got {len(raw)}")
        return super().__new__(cls, to_hex(bytes(raw)))

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return bytes.fromhex(self[2:])

    @property
    def is_zero(self) -> bool:
        """Whether all 32 bytes are zero."""
        return self == ZERO_BYTES32


ZERO_ADDRESS: Final = Address("0x" + "00" * 20)
ZERO_BYTES32: Final = Bytes32("0x" + "00" * 32)


def check_uint(name: str, value: object, *, maximum: int = UINT256_MAX) -> int:
    """Return ``value`` when it is an integer of 0..``maximum``; ``name`` is for the message.

    Raises:
        InputError: a bool, another type, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name}: expected an integer, got {quoted(value)}")
    if not 0 <= value <= maximum:
        raise InputError(f"{name}: {quoted(str(value))} is out of range 0..{quoted(str(maximum))}")
    return value


def parse_uint(name: str, value: object, *, maximum: int = UINT256_MAX) -> int:
    """Read a JSON number or a decimal string, as iExec's clients send either.

    Raises:
        DecodeError: anything else, a leading zero or sign, or out of range.
    """
    if isinstance(value, str):
        # 78 digits hold 2^256 - 1; the cap also bounds the cost of int().
        if len(value) > 78 or not value.isascii() or not value.isdigit() or (len(value) > 1 and value[0] == "0"):
            raise DecodeError(f"{name}: expected a decimal integer, got {quoted(value)}")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DecodeError(f"{name}: expected an integer or a decimal string, got {quoted(value)}")
    if not 0 <= value <= maximum:
        raise DecodeError(f"{name}: {quoted(str(value)[:130])} is out of range 0..{quoted(str(maximum))}")
    return value


def parse_text(name: str, value: object, *, cap: int) -> str:
    """Return ``value`` when it is text of at most ``cap`` characters. The value is never repeated in an error.

    Raises:
        DecodeError: not a string.
        TooLarge: longer.
    """
    if not isinstance(value, str):
        raise DecodeError(f"{name}: expected a string")
    if len(value) > cap:
        raise TooLarge(f"{name}: {len(value)} characters are more than the cap of {cap}")
    return value


def parse_address(name: str, value: object) -> Address:
    """Read an address, naming the member it stands in.

    Raises:
        DecodeError: not ``0x`` and 40 hex digits.
    """
    try:
        return Address(value) if isinstance(value, str) else Address(repr(value))
    except DecodeError as error:
        raise DecodeError(f"{name}: {error.message}") from error


def parse_word(name: str, value: object) -> Bytes32:
    """Read a 32-byte word, naming the member it stands in.

    Raises:
        DecodeError: not ``0x`` and 64 hex digits.
    """
    try:
        return Bytes32(value) if isinstance(value, str) else Bytes32(repr(value))
    except DecodeError as error:
        raise DecodeError(f"{name}: {error.message}") from error


def parse_base64(name: str, value: object, *, cap: int) -> bytes:
    """Read standard base64 of at most ``cap`` bytes. The value is never repeated in an error: it may be a secret.

    Raises:
        DecodeError: not base64.
        TooLarge: longer.
    """
    text = parse_text(name, value, cap=4 * (cap // 3 + 1))
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError(f"{name}: not base64") from None
    if build_base64(raw) != text:
        # Stray bits behind the last byte: a second spelling of the same bytes.
        raise DecodeError(f"{name}: not base64")
    if len(raw) > cap:
        raise TooLarge(f"{name}: {len(raw)} bytes are more than the cap of {cap}")
    return raw


def build_base64(raw: bytes) -> str:
    """Write standard base64 with padding."""
    return base64.b64encode(raw).decode("ascii")


def check_keys(
    what: str, mapping: object, *, required: Iterable[str], optional: Iterable[str] = ()
) -> Mapping[str, object]:
    """Return ``mapping`` when it is an object with all ``required`` keys and no others than ``optional``.

    Raises:
        DecodeError: not an object, a missing or an unknown key (named).
    """
    if not isinstance(mapping, Mapping):
        raise DecodeError(f"{what}: expected an object, got {quoted(mapping)}")
    required = tuple(required)
    missing = [key for key in required if key not in mapping]
    if missing:
        raise DecodeError(f"{what}: missing key {quoted(missing[0])}")
    known = {*required, *optional}
    for key in mapping:
        if key not in known:
            raise DecodeError(f"{what}: unknown key {quoted(key)}")
    return mapping


def canonical_json(value: object) -> bytes:
    """Write JSON in the one spelling that is hashed and signed: sorted keys, no spaces, UTF-8, finite numbers.

    Raises:
        InputError: a value that JSON cannot hold.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"not representable as json: {quoted(str(error))}") from error


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object, refusing a key given twice: readers disagree on which one counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DecodeError(f"json object has the key {quoted(key)} twice")
            seen.add(key)
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise DecodeError(f"json holds {text}, which is no number")


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the reader meets it: it recurses on the C stack, as far as the interpreter was told."""
    if text.count("[") + text.count("{") <= JSON_DEPTH_CAP:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > JSON_DEPTH_CAP:
            raise DecodeError(f"json is nested deeper than {JSON_DEPTH_CAP}")


def parse_json(document: bytes | str, *, cap: int = DEFAULT_JSON_CAP) -> object:
    """Read strict JSON from a stranger: UTF-8, no duplicate keys, no NaN, bounded size and depth.

    Raises:
        DecodeError: the document does not parse.
        TooLarge: more than ``cap`` bytes.
    """
    try:
        raw = document.encode("utf-8") if isinstance(document, str) else bytes(document)
        if len(raw) > cap:
            raise TooLarge(f"json of {len(raw)} bytes is longer than the cap of {cap}")
        text = raw.decode("utf-8")
        _check_depth(text)
        return json.loads(text, object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not valid json: {quoted(str(error))}") from error
