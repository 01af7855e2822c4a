"""Typed structured data hashing (EIP-712): what wallets sign."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import Address, Bytes32, check_uint, keccak256

Types = Mapping[str, Sequence[tuple[str, str]]]
"""Struct name to its members as (name, type), in order."""

_ARRAY: Final = re.compile(r"(.+)\[([0-9]*)\]")
_MAX_DEPTH: Final = 16


def _base_type(type_name: str) -> str:
    """Strip array suffixes: ``Person[][2]`` is ``Person``."""
    return type_name.split("[", 1)[0]


def encode_type(types: Types, primary_type: str) -> str:
    """Return ``encodeType``: the struct, then the structs it uses sorted by name.

    Raises:
        DecodeError: the struct is not among ``types``.
    """
    if primary_type not in types:
        raise DecodeError(f"typed data names no struct {quoted(primary_type)}")
    found: set[str] = set()
    pending = [primary_type]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        pending.extend(base for _, member in types[name] if (base := _base_type(member)) in types)
    ordered = [primary_type, *sorted(found - {primary_type})]
    return "".join(f"{name}({','.join(f'{kind} {member}' for member, kind in types[name])})" for name in ordered)


@lru_cache(maxsize=256)
def _hash_of_type(encoded: str) -> bytes:
    return keccak256(encoded.encode("utf-8"))


def type_hash(types: Types, primary_type: str) -> bytes:
    """Return ``keccak256(encodeType)``."""
    return _hash_of_type(encode_type(types, primary_type))


def _encode_integer(type_name: str, value: object) -> bytes:
    signed = type_name.startswith("int")
    digits = type_name[3 if signed else 4 :]
    bits = int(digits) if digits.isdigit() else 256 if not digits else 0
    if not 8 <= bits <= 256 or bits % 8:
        raise DecodeError(f"typed data has the unknown type {quoted(type_name)}")
    if not signed:
        return check_uint(type_name, value, maximum=2**bits - 1).to_bytes(32, "big")
    if isinstance(value, bool) or not isinstance(value, int) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise InputError(f"{type_name}: {quoted(value)} is out of range")
    return value.to_bytes(32, "big", signed=True)


def _encode_bytes(type_name: str, value: object) -> bytes:
    raw = value.raw if isinstance(value, Bytes32) else value
    if not isinstance(raw, bytes):
        raise InputError(f"{type_name}: expected bytes, got {quoted(value)}")
    if type_name == "bytes":
        return keccak256(raw)
    if not type_name[5:].isdigit() or not 1 <= int(type_name[5:]) <= 32:
        raise DecodeError(f"typed data has the unknown type {quoted(type_name)}")
    if len(raw) != int(type_name[5:]):
        raise InputError(f"{type_name}: got {len(raw)} bytes")
    return raw.ljust(32, b"\x00")


def _encode_atom(type_name: str, value: object) -> bytes:
    """Return the 32 bytes that stand for a value without parts."""
    if type_name == "string":
        if not isinstance(value, str):
            raise InputError(f"string: got {quoted(value)}")
        return keccak256(value.encode("utf-8"))
    if type_name == "address":
        if not isinstance(value, str):
            raise InputError(f"address: got {quoted(value)}")
        return Address(value).raw.rjust(32, b"\x00")
    if type_name == "bool":
        if not isinstance(value, bool):
            raise InputError(f"bool: got {quoted(value)}")
        return int(value).to_bytes(32, "big")
    if type_name.startswith("bytes"):
        return _encode_bytes(type_name, value)
    if type_name.startswith(("uint", "int")):
        return _encode_integer(type_name, value)
    raise DecodeError(f"typed data has the unknown type {quoted(type_name)}")


def _encode_value(types: Types, type_name: str, value: object, depth: int) -> bytes:
    """Return the 32 bytes that stand for one member (``encodeData``)."""
    if depth > _MAX_DEPTH:
        raise DecodeError(f"typed data is nested deeper than {_MAX_DEPTH}")
    if array := _ARRAY.fullmatch(type_name):
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise InputError(f"{type_name}: expected a list, got {quoted(value)}")
        if array[2] and len(value) != int(array[2]):
            raise InputError(f"{type_name}: got {len(value)} elements")
        return keccak256(b"".join(_encode_value(types, array[1], item, depth + 1) for item in value))
    if type_name in types:
        if not isinstance(value, Mapping):
            raise InputError(f"{type_name}: expected an object, got {quoted(value)}")
        return _struct_hash(types, type_name, value, depth + 1)
    return _encode_atom(type_name, value)


def _struct_hash(types: Types, primary_type: str, message: Mapping[str, object], depth: int) -> bytes:
    parts = [type_hash(types, primary_type)]
    for name, kind in types[primary_type]:
        if name not in message:
            raise DecodeError(f"{primary_type}: missing member {quoted(name)}")
        parts.append(_encode_value(types, kind, message[name], depth))
    return keccak256(b"".join(parts))


def struct_hash(types: Types, primary_type: str, message: Mapping[str, object]) -> bytes:
    """Return ``hashStruct``. Members: str, int, bool, bytes, ``Address``, ``Bytes32``, lists and mappings of them.

    Raises:
        DecodeError: an unknown struct or type, a missing member, nesting over 16.
        InputError: a value that its type cannot hold.
    """
    return _struct_hash(types, primary_type, message, 0)


@dataclass(frozen=True, slots=True)
class Domain:
    """What a signature is good for. ``verifying_contract`` is left out of the hash when it is None."""

    name: str
    version: str
    chain_id: int
    verifying_contract: Address | None = None

    def __post_init__(self) -> None:
        check_uint("chain id", self.chain_id)

    def members(self) -> tuple[tuple[str, str], ...]:
        """The members of ``EIP712Domain`` as (name, type)."""
        members = (("name", "string"), ("version", "string"), ("chainId", "uint256"))
        return members if self.verifying_contract is None else (*members, ("verifyingContract", "address"))

    def separator(self) -> bytes:
        """Return the 32-byte domain separator."""
        return _separator(self)


@lru_cache(maxsize=64)
def _separator(domain: Domain) -> bytes:
    message: dict[str, object] = {"name": domain.name, "version": domain.version, "chainId": domain.chain_id}
    if domain.verifying_contract is not None:
        message["verifyingContract"] = domain.verifying_contract
    return struct_hash({"EIP712Domain": domain.members()}, "EIP712Domain", message)


def envelope_digest(domain: Domain, struct: bytes) -> bytes:
    """Return ``keccak256(0x1901 || separator || struct hash)``."""
    return keccak256(b"\x19\x01" + domain.separator() + struct)


def typed_data_digest(types: Types, primary_type: str, domain: Domain, message: Mapping[str, object]) -> bytes:
    """Return the 32 bytes that ``eth_signTypedData_v4`` signs.

    Raises:
        DecodeError, InputError: as ``struct_hash``.
    """
    return envelope_digest(domain, struct_hash(types, primary_type, message))


def hub_domain(chain_id: int, hub: Address) -> Domain:
    """Return the domain of orders (reference 1.5)."""
    return Domain("iExecODB", "5.0.0", chain_id, Address(hub))
