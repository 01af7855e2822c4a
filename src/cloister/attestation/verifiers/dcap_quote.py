"""The bytes of a DCAP quote: where each field stands, and that nothing stands anywhere else.

Layouts, all integers little-endian (Intel, *SGX ECDSA Quote Library API*, A.4, and *TDX DCAP Quoting Library API*, A.3):

* header, 48 bytes: version (3, 4 or 5), attestation key type (2: ECDSA P-256), TEE type (0: SGX, 0x81: TDX), QE SVN, PCE
  SVN, QE vendor (16), user data (20);
* version 5 only: body type (1: SGX, 2: TD 1.0, 3: TD 1.5, 4: TD 1.5 extended) and body size;
* body: 384 bytes for SGX, 584 for TD 1.0, 648 for TD 1.5, 885 for its extended form;
* length of the signature data, then the signature data: signature (64), attestation key (64), and either (version 3) the
  QE's report (384), its signature (64), authentication data and certification data; or (versions 4 and 5) certification
  data of type 6 that holds those four. Authentication data is a 16-bit length and bytes, certification data a type, a
  32-bit length and bytes.

Every length must fit exactly, and nothing stands behind the quote. One exception is Intel's own: its quoting service makes
room for a version 5 quote of a TD 1.5 whatever it makes, and fills up with zeros. Exactly that much is let through.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cloister.errors import DecodeError, TooLarge, VerificationError

MAX_QUOTE = 64 * 1024
"""Longest quote, in bytes, padding included. A genuine one with its certificates takes about 5 KiB."""

TEE_SGX = 0x00
TEE_TDX = 0x81
CERTIFICATE_CHAIN = 5
"""Certification data that is the PCK certificate's chain in PEM. Types 1 to 3 name the platform only, type 4
is its certificate without the chain."""

_HEADER = 48
_ECDSA_P256 = 2
_QE_REPORT_DATA = 6
_SIGNATURE_AND_KEY = 128
_REPORT = 384
_BODY_SIZES = {1: 384, 2: 584, 3: 648, 4: 885}
_ROOM = _HEADER + 6 + _BODY_SIZES[3] + 4
"""A version 5 quote of a TD 1.5 without its signature data."""
_WITHOUT_CHAIN = frozenset({1, 2, 3, 4})


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote that is laid out soundly. No signature in it was checked yet.

    ``raw`` is the quote without padding. ``body`` is the SGX report or TD report. ``attestation_key``: x and y of a P-256
    point. Signatures are r and s. ``chain`` is the PCK certificate chain
    (PEM) when the quote carries it (``certification_type`` 5), else empty.
    """

    raw: bytes
    version: int
    tee_type: int
    body: bytes
    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    authentication: bytes
    certification_type: int
    chain: bytes

    @property
    def signed(self) -> bytes:
        """Header and body: what the attestation key signs."""
        return self.raw[: (_HEADER + 6 if self.version == 5 else _HEADER) + len(self.body)]

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the enclave chose: last in an SGX report and in the first form of a TD report."""
        size = _BODY_SIZES[1 if self.tee_type == TEE_SGX else 2]
        return self.body[size - 64 : size]


def parse_quote(payload: bytes, tee_type: int) -> Quote:
    """Take a quote of ``tee_type`` apart.

    Raises:
        TooLarge: over 64 KiB.
        DecodeError: ``quote-truncated``, ``quote-trailing-bytes``, ``quote-body`` (body type or size), ``quote-length`` (a
            length inside the signature data does not fit).
        VerificationError: ``quote-version``, ``quote-key-type``, ``quote-tee-type`` (another TEE's quote),
            ``quote-certification-type``.
    """
    if len(payload) > MAX_QUOTE:
        raise TooLarge(f"a quote of {len(payload)} bytes is over the cap of {MAX_QUOTE}", code="quote-too-large")
    if len(payload) < _HEADER:
        raise DecodeError(f"a quote of {len(payload)} bytes has no whole header", code="quote-truncated")
    version, key_type, found_tee = struct.unpack_from("<HHI", payload)
    if version not in (3, 4, 5):
        raise VerificationError(f"quote version {version} is not known here", code="quote-version")
    if found_tee != tee_type:
        raise VerificationError(
            f"the quote is of TEE type {found_tee:#x} instead of {tee_type:#x}", code="quote-tee-type"
        )
    if key_type != _ECDSA_P256:
        raise VerificationError(f"attestation key type {key_type} is not ECDSA P-256", code="quote-key-type")
    start, size = _find_body(payload, version, tee_type)
    body_end = start + size
    if len(payload) < body_end + 4:
        raise DecodeError("the quote ends before its signature data", code="quote-truncated")
    (length,) = struct.unpack_from("<I", payload, body_end)
    end = body_end + 4 + length
    if end > len(payload):
        raise DecodeError(f"signature data of {length} bytes reaches behind the quote's end", code="quote-truncated")
    padded = tee_type == TEE_TDX and len(payload) == _ROOM + length and not any(payload[end:])
    if len(payload) != end and not padded:
        raise DecodeError(f"{len(payload) - end} bytes stand behind the quote", code="quote-trailing-bytes")
    data = payload[body_end + 4 : end]
    qe_report, qe_signature, authentication, kind, certification = _parse_signature_data(data, version)
    return Quote(
        raw=payload[:end],
        version=version,
        tee_type=tee_type,
        body=payload[start:body_end],
        signature=data[:64],
        attestation_key=data[64:_SIGNATURE_AND_KEY],
        qe_report=qe_report,
        qe_signature=qe_signature,
        authentication=authentication,
        certification_type=kind,
        chain=certification if kind == CERTIFICATE_CHAIN else b"",
    )


def _find_body(payload: bytes, version: int, tee_type: int) -> tuple[int, int]:
    """Offset and size of the body."""
    if version == 3 and tee_type != TEE_SGX:
        raise VerificationError("a quote of version 3 is always of an SGX enclave", code="quote-version")
    if version != 5:
        return _HEADER, _BODY_SIZES[1 if tee_type == TEE_SGX else 2]
    if len(payload) < _HEADER + 6:
        raise DecodeError("the quote ends before its body", code="quote-truncated")
    body_type, size = struct.unpack_from("<HI", payload, _HEADER)
    if body_type not in _BODY_SIZES or (body_type == 1) != (tee_type == TEE_SGX):
        raise DecodeError(f"body type {body_type} does not belong to TEE type {tee_type:#x}", code="quote-body")
    if size != _BODY_SIZES[body_type]:
        raise DecodeError(f"a body of type {body_type} has {size} bytes", code="quote-body")
    return _HEADER + 6, size


def _parse_signature_data(data: bytes, version: int) -> tuple[bytes, bytes, bytes, int, bytes]:
    """The QE's report, its signature and authentication data, and type and bytes of the certification data proper."""
    rest = data[_SIGNATURE_AND_KEY:]
    if version != 3:
        kind, rest = _parse_certification(rest)
        if kind != _QE_REPORT_DATA:
            raise VerificationError(
                f"certification data of type {kind} where the QE's report is due", code="quote-certification-type"
            )
    fixed = _REPORT + 64
    if len(rest) < fixed + 2:
        raise DecodeError("the signature data ends inside the QE's report", code="quote-length")
    (length,) = struct.unpack_from("<H", rest, fixed)
    # 32 bytes is the one length that Intel's QE writes and the verifier hashes.
    if length != 32:
        raise DecodeError(f"the QE's authentication data has {length} bytes instead of 32", code="quote-length")
    kind, certification = _parse_certification(rest[fixed + 2 + length :])
    if kind != CERTIFICATE_CHAIN and kind not in _WITHOUT_CHAIN:
        raise VerificationError(f"certification data of type {kind} is not known here", code="quote-certification-type")
    return rest[:_REPORT], rest[_REPORT:fixed], rest[fixed + 2 : fixed + 2 + length], kind, certification


def _parse_certification(data: bytes) -> tuple[int, bytes]:
    if len(data) < 6:
        raise DecodeError("the signature data ends before its certification data", code="quote-length")
    kind, length = struct.unpack_from("<HI", data)
    if length != len(data) - 6:
        raise DecodeError(f"certification data of {length} bytes stands where {len(data) - 6} are", code="quote-length")
    return kind, data[6:]
