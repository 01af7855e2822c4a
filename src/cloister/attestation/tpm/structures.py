"""Quotes and signatures as a TPM marshals them (TPM 2.0 Library, Part 2: Structures). Big-endian, exact, nothing behind."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import DecodeError

TPM_GENERATED = 0xFF544347
"""TPM_GENERATED_VALUE: a restricted key signs nothing from outside that begins so."""
ST_ATTEST_QUOTE = 0x8018
ALG_SHA256 = 0x000B
ALG_RSASSA = 0x0014
ALG_RSAPSS = 0x0016
ALG_ECDSA = 0x0018

SELECT_SIZE = 3
"""Bytes of a PCR selection: 24 registers (PC Client Platform TPM Profile)."""
MAX_EXTRA_DATA = 66
"""TPM2B_DATA holds at most a TPMT_HA: two bytes and the longest digest."""
_DIGEST_SIZES = {0x0004: 20, ALG_SHA256: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32, 0x0027: 32, 0x0028: 48, 0x0029: 64}
"""TPM_ALG_ID of hashes: SHA-1, SHA-256, SHA-384, SHA-512, SM3-256, SHA3-256, SHA3-384, SHA3-512."""


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST of type quote.

    ``extra_data``: what the asker wanted bound. ``clock``: milliseconds that the TPM was powered. ``clock_safe``: no smaller
    value of the clock may have been told before. ``pcrs``: indices of the SHA-256 bank, ascending. ``pcr_digest``: SHA-256
    over their values in that order.
    """

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware_version: int
    pcrs: tuple[int, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class RsaSignature:
    """RSASSA-PKCS1-v1_5, or RSASSA-PSS when ``pss``, over SHA-256."""

    value: bytes
    pss: bool


@dataclass(frozen=True, slots=True)
class EcdsaSignature:
    """ECDSA over SHA-256."""

    r: int
    s: int


Signature = RsaSignature | EcdsaSignature


def parse_quote(attest: bytes) -> Quote:
    """Read TPMS_ATTEST (Part 2, 10.12.12) and TPMS_QUOTE_INFO (10.12.4).

    Raises:
        DecodeError: ``quote-magic``, ``quote-type``, ``quote-selection`` (not one selection of the SHA-256 bank in its
            canonical form), ``quote-malformed``.
    """
    reader = Reader(attest, "quote-malformed", "the quote")
    if (magic := reader.number(4)) != TPM_GENERATED:
        raise DecodeError(f"the quote begins with {magic:08x}: no TPM made it", code="quote-magic")
    if (kind := reader.number(2)) != ST_ATTEST_QUOTE:
        raise DecodeError(f"the attestation has type {kind:04x}: it is no quote", code="quote-type")
    signer = _parse_name(reader)
    extra_data = reader.sized(MAX_EXTRA_DATA)
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    if safe > 1:
        raise DecodeError(f"the quote's clock is neither safe nor unsafe but {safe}", code="quote-malformed")
    firmware = reader.number(8)
    pcrs = _parse_selection(reader)
    digest = reader.sized(64)
    if len(digest) != 32:
        raise DecodeError(f"the digest of registers has {len(digest)} bytes instead of 32", code="quote-malformed")
    reader.end()
    return Quote(signer, extra_data, clock, resets, restarts, bool(safe), firmware, pcrs, digest)


def parse_signature(encoded: bytes) -> Signature:
    """Read TPMT_SIGNATURE (Part 2, 11.3.4) of the schemes that are accepted, all over SHA-256.

    Raises:
        DecodeError: ``signature-scheme`` for another scheme or hash, ``signature-malformed``.
    """
    reader = Reader(encoded, "signature-malformed", "the signature")
    scheme, digest = reader.number(2), reader.number(2)
    if scheme not in (ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA) or digest != ALG_SHA256:
        raise DecodeError(
            f"signature scheme {scheme:04x} with hash {digest:04x} is not accepted", code="signature-scheme"
        )
    if scheme == ALG_ECDSA:
        r, s = _parse_scalar(reader), _parse_scalar(reader)
        reader.end()
        return EcdsaSignature(r, s)
    value = reader.sized(512)
    reader.end()
    return RsaSignature(value, pss=scheme == ALG_RSAPSS)


def build_rsa_signature(value: bytes) -> bytes:
    """TPMT_SIGNATURE around a bare RSASSA-PKCS1-v1_5 signature over SHA-256."""
    return ALG_RSASSA.to_bytes(2, "big") + ALG_SHA256.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def hash_size(algorithm: int) -> int | None:
    """Bytes of a digest by TPM_ALG_ID; None for one that is not known here."""
    return _DIGEST_SIZES.get(algorithm)


def _parse_name(reader: Reader) -> bytes:
    """TPM2B_NAME of a key: algorithm and a digest of its size."""
    name = reader.sized(66)
    if len(name) < 2 or hash_size(int.from_bytes(name[:2], "big")) != len(name) - 2:
        raise DecodeError("the quote's signer has no name of a key", code="quote-malformed")
    return name


def _parse_selection(reader: Reader) -> tuple[int, ...]:
    """TPML_PCR_SELECTION with one bank. A second bank, or the same one twice, could hide what was hashed."""
    if (count := reader.number(4)) != 1:
        raise DecodeError(f"the quote selects from {count} banks instead of one", code="quote-selection")
    if (bank := reader.number(2)) != ALG_SHA256:
        raise DecodeError(f"the quote selects from bank {bank:04x} instead of SHA-256", code="quote-selection")
    if (size := reader.number(1)) != SELECT_SIZE:
        raise DecodeError(f"the quote's selection has {size} bytes instead of {SELECT_SIZE}", code="quote-selection")
    bits = int.from_bytes(reader.take(SELECT_SIZE), "little")
    pcrs = tuple(index for index in range(8 * SELECT_SIZE) if bits >> index & 1)
    if not pcrs:
        raise DecodeError("the quote selects no register", code="quote-selection")
    return pcrs


def _parse_scalar(reader: Reader) -> int:
    """TPM2B_ECC_PARAMETER. Some TPMs leave leading zero bytes away, none puts more than 32 bytes."""
    raw = reader.sized(32)
    if not raw or (len(raw) < 32 and raw[0] == 0):
        raise DecodeError("a number of the ECDSA signature is not in its form", code="signature-malformed")
    return int.from_bytes(raw, "big")


class Reader:
    """A cursor over untrusted bytes; ``order`` is that of numbers. Every refusal has the code that it was made with."""

    def __init__(self, data: bytes, code: str, what: str, order: str = "big") -> None:
        self._data = data
        self._code = code
        self._what = what
        self._little = order == "little"
        self.position = 0

    @property
    def rest(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self.position

    def take(self, length: int) -> bytes:
        """The next bytes, exactly so many."""
        if length > self.rest:
            raise DecodeError(f"{self._what} is cut short at byte {self.position}", code=self._code)
        piece = self._data[self.position : self.position + length]
        self.position += length
        return piece

    def number(self, width: int) -> int:
        """The next unsigned number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little" if self._little else "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: two bytes of length, then at most ``most`` bytes."""
        if (length := self.number(2)) > most:
            raise DecodeError(f"a field of {self._what} claims {length} bytes; at most {most}", code=self._code)
        return self.take(length)

    def end(self) -> None:
        """Refuse what is left over."""
        if self.rest:
            raise DecodeError(f"{self.rest} bytes follow {self._what}", code=self._code)
