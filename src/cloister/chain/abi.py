"""Calls and events as bytes (contract ABI), from signatures that a person can read.

Signatures stand in the code rather than in compiled artifacts: what we say to a contract is part of the protocol, and a
user of the SDK needs no compiler. A test compares them with the artifacts. ``eth_abi`` comes late: it takes 0.2 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cloister.errors import DecodeError, InputError, LocalError, quoted
from cloister.protocol.codec import Bytes32, keccak256, to_hex

REASON_CAP: Final = 1024


def _split_types(text: str) -> tuple[str, ...]:
    """Split ``a,(b,c)[],d`` at the commas of the outer level."""
    parts: list[str] = []
    depth, start = 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    if depth:
        raise LocalError(f"unbalanced abi types {quoted(text)}")
    return (*parts, text[start:]) if text else ()


def _matching_parenthesis(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    raise LocalError(f"unbalanced abi signature {quoted(text)}")


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a contract: canonical input and output types."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def signature(self) -> str:
        """``name(types)``."""
        return f"{self.name}({','.join(self.inputs)})"

    @property
    def selector(self) -> bytes:
        """The first 4 bytes of the signature's hash."""
        return _selector(self.signature)

    def encode(self, *values: object) -> bytes:
        """Return the call data.

        Raises:
            InputError: values that the types cannot hold.
        """
        return self.selector + encode_values(self.inputs, values)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Read what the function returned.

        Raises:
            DecodeError: bytes that are not of these types (for instance nothing, where no contract stands).
        """
        return decode_values(self.outputs, data)

    def decode_one(self, data: bytes) -> Any:
        """Read the single value that the function returned."""
        (value,) = self.decode(data)
        return value


@lru_cache(maxsize=512)
def _selector(signature: str) -> bytes:
    return keccak256(signature.encode("ascii"))[:4]


def function(text: str) -> Function:
    """Read ``name(inputs)`` or ``name(inputs)(outputs)``, types in canonical form without names or spaces."""
    opening = text.index("(")
    closing = _matching_parenthesis(text, opening)
    rest = text[closing + 1 :]
    outputs = _split_types(rest[1:-1]) if rest else ()
    return Function(text[:opening], _split_types(text[opening + 1 : closing]), outputs)


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a contract. ``indexed`` types come as topics, ``plain`` types as data."""

    name: str
    types: tuple[str, ...]
    is_indexed: tuple[bool, ...]

    @property
    def topic(self) -> Bytes32:
        """The hash of the signature: topic 0."""
        return _topic(f"{self.name}({','.join(self.types)})")

    def decode(self, topics: Sequence[bytes], data: bytes) -> tuple[Any, ...]:
        """Read the event's values in the order of its signature. ``topics`` are without topic 0.

        Raises:
            DecodeError: another count of topics, or data of other types.
        """
        indexed = [kind for kind, flag in zip(self.types, self.is_indexed, strict=True) if flag]
        plain = [kind for kind, flag in zip(self.types, self.is_indexed, strict=True) if not flag]
        if len(topics) != len(indexed):
            raise DecodeError(f"event {self.name} has {len(topics)} topics, expected {len(indexed)}")
        from_topics = iter([decode_values((kind,), topic)[0] for kind, topic in zip(indexed, topics, strict=True)])
        from_data = iter(decode_values(plain, data))
        return tuple(next(from_topics) if flag else next(from_data) for flag in self.is_indexed)


@lru_cache(maxsize=256)
def _topic(signature: str) -> Bytes32:
    return Bytes32.from_raw(keccak256(signature.encode("ascii")))


def event(text: str) -> Event:
    """Read ``Name(type indexed,type,...)``, types in canonical form."""
    opening = text.index("(")
    members = [member.strip().split(" ") for member in _split_types(text[opening + 1 : -1])]
    return Event(text[:opening], tuple(member[0] for member in members), tuple(len(member) > 1 for member in members))


def encode_values(types: Sequence[str], values: Sequence[object]) -> bytes:
    """Write values of these types.

    Raises:
        InputError: values that the types cannot hold.
    """
    if not types and not values:
        return b""
    from eth_abi.abi import encode
    from eth_abi.exceptions import EncodingError

    try:
        return encode(types, values)
    except (EncodingError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"not encodable as ({','.join(types)}): {quoted(str(error))}") from error


def decode_values(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Read values of these types.

    Raises:
        DecodeError: bytes that are not of these types.
    """
    if not types:
        return ()
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    try:
        return decode(types, data)
    except (DecodingError, ValueError, OverflowError, TypeError) as error:
        raise DecodeError(f"{len(data)} bytes from the chain are not ({','.join(types)})") from error


ERRORS: Final = tuple(
    function(text)
    for text in (
        "IncompatibleDatasetOrder(string)",
        "UnsupportedOperation(bytes4)",
        "CallerIsNotTheRequester()",
        "OperationFailed()",
    )
)
"""The custom errors of the hub."""
_ERRORS_BY_SELECTOR: Final = {error.selector: error for error in ERRORS}
_ERROR_STRING: Final = function("Error(string)")
_PANIC: Final = function("Panic(uint256)")
_PANICS: Final = {
    0x01: "assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "value out of an enum's range",
    0x31: "pop of an empty array",
    0x32: "array index out of bounds",
    0x41: "out of memory",
    0x51: "call of an empty function",
}


def decode_revert(data: bytes) -> str:
    """Return the reason in the bytes of a revert, empty when it gave none. Never raises: a contract wrote the bytes."""
    selector, body = data[:4], data[4:]
    try:
        if selector == _ERROR_STRING.selector:
            return str(decode_values(("string",), body)[0])[:REASON_CAP]
        if selector == _PANIC.selector:
            number = int(decode_values(("uint256",), body)[0])
            return f"panic 0x{number:02x}: {_PANICS.get(number, 'unknown')}"
        if (known := _ERRORS_BY_SELECTOR.get(selector)) is not None:
            values = decode_values(known.inputs, body)
            shown = ", ".join(to_hex(value) if isinstance(value, bytes) else str(value) for value in values)
            return f"{known.name}({shown})"[:REASON_CAP]
    except DecodeError:
        pass
    return f"unknown error {to_hex(data[:36])}" if data else ""
