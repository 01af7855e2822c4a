"""The three multibase encodings that CIDs are written in: base58btc, base32 and base16 (multiformats/multibase)."""

from __future__ import annotations

import base64
import binascii

from cloister.errors import DecodeError, quoted

TEXT_CAP = 256
"""Longest text that is decoded; base58 takes quadratic time."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}


def build_base58(data: bytes) -> str:
    """Encode with the Bitcoin alphabet; leading zero bytes become leading ``1``."""
    number = int.from_bytes(data, "big")
    out: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        out.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(out))


def parse_base58(text: str) -> bytes:
    """Decode the Bitcoin alphabet.

    Raises:
        DecodeError: a foreign character, or more than ``TEXT_CAP`` of them.
    """
    if len(text) > TEXT_CAP:
        raise DecodeError(f"base58 text is longer than {TEXT_CAP} characters")
    number = 0
    for character in text:
        digit = _DIGITS.get(character)
        if digit is None:
            raise DecodeError(f"not base58: {quoted(text)}")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def build_base32(data: bytes) -> str:
    """Encode as RFC 4648 base32, lower case, no padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def parse_multibase(text: str) -> bytes:
    """Decode a text whose first character names its base: ``b``/``B`` base32, ``f``/``F`` base16, ``z`` base58btc.

    Raises:
        DecodeError: another base, foreign characters, mixed case, or a form that is not the only one for its bytes.
    """
    if not text or len(text) > TEXT_CAP:
        raise DecodeError(f"multibase text has 1 to {TEXT_CAP} characters, not {len(text)}")
    prefix, body = text[0], text[1:]
    try:
        if prefix == "z":
            return parse_base58(body)
        if prefix in "bB":
            data = base64.b32decode(body.upper() + "=" * (-len(body) % 8))
            canonical = build_base32(data)
        elif prefix in "fF":
            data = bytes.fromhex(body)
            canonical = data.hex()
        else:
            raise DecodeError(f"unknown multibase prefix in {quoted(text)}", hint="b, f and z are understood")
    except (binascii.Error, ValueError):
        raise DecodeError(f"not multibase: {quoted(text)}") from None
    if body != (canonical.upper() if prefix.isupper() else canonical):
        raise DecodeError(f"not canonical multibase: {quoted(text)}")
    return data
