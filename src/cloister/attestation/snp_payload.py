"""SEV-SNP evidence as it travels, and the other shapes in which its parts come.

Payload, deterministic CBOR: ``[1, report, [certificate, ...]]``. ``report`` is the 1,184 bytes that the firmware signed,
certificates are DER: the VCEK or VLEK first, then its issuer, then, optionally, AMD's root, which is never trusted from
here. An empty list says that the relying party has the certificates itself.

Built inside the guest, so this module imports no certificate library (start-up time).

Sources: AMD 56860 (SEV-SNP firmware ABI, ATTESTATION_REPORT); AMD 56421 (GHCB, ``cert_table`` of the extended guest
request); Linux ``Documentation/ABI/testing/configfs-tsm`` (``auxblob``).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from uuid import UUID

from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.errors import DecodeError, TooLarge

VERSION = 1
REPORT_SIZE = 1184
MAX_CERTIFICATES = 4
MAX_CERTIFICATE = 4096
MAX_SNP_PAYLOAD = 24 * 1024
"""Longest payload, in bytes: a report and four certificates of the largest size fit."""

MAX_TABLE = 64 * 1024
"""Longest certificate table or PEM bundle, in bytes. Linux gives at most 16 KiB."""

SIGNED_BY_VCEK = 0
SIGNED_BY_VLEK = 1

_ENTRY = 24
_MAX_ENTRIES = 64
_KEY_INFO = 0x48
_TABLE_NAMES = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes: "vcek",
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes: "vlek",
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes: "ask",
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes: "ark",
    UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes: "crl",
}
"""GUIDs stand in the table with their digits in the order in which they are written."""

_PEM_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PEM_END = b"-----END CERTIFICATE-----"


def build_snp_evidence(report: bytes, certificates: Sequence[bytes] = ()) -> bytes:
    """The payload of SEV-SNP evidence: the report as the firmware gave it and certificates (DER), the signer's first.

    Raises:
        DecodeError: a report of another length, too many certificates, or one that is too long.
    """
    payload = build_cbor([VERSION, report, list(certificates)])
    parse_snp_evidence(payload)
    return payload


def parse_snp_evidence(payload: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """Take a payload apart: the report (1,184 bytes, not judged yet) and the certificates (DER, not parsed yet).

    Raises:
        TooLarge: over the cap. DecodeError: not exactly the form above.
    """
    if len(payload) > MAX_SNP_PAYLOAD:
        raise TooLarge(
            f"SEV-SNP evidence has {len(payload)} bytes; the cap is {MAX_SNP_PAYLOAD}", code="evidence-too-large"
        )
    match parse_cbor(payload):
        case [int(version), bytes(report), list(items)]:
            pass
        case _:
            raise DecodeError(
                "SEV-SNP evidence is not [version, report, [certificate, ...]]", code="evidence-malformed"
            )
    if version != VERSION or isinstance(version, bool):
        raise DecodeError(f"SEV-SNP evidence has version {version} instead of {VERSION}", code="evidence-version")
    if len(report) != REPORT_SIZE:
        raise DecodeError(f"the SEV-SNP report has {len(report)} bytes instead of {REPORT_SIZE}", code="snp-length")
    if len(items) > MAX_CERTIFICATES:
        raise DecodeError(
            f"SEV-SNP evidence has {len(items)} certificates; the cap is {MAX_CERTIFICATES}", code="evidence-malformed"
        )
    certificates = []
    for item in items:
        if not isinstance(item, bytes) or not 0 < len(item) <= MAX_CERTIFICATE:
            raise DecodeError(
                f"a certificate of the SEV-SNP evidence is not 1 to {MAX_CERTIFICATE} bytes", code="evidence-malformed"
            )
        certificates.append(item)
    return report, tuple(certificates)


def parse_certificate_table(blob: bytes) -> dict[str, bytes]:
    """Read the host's certificate table: ``auxblob`` of configfs-tsm, or the pages of an extended guest request.

    Answers with the DER of ``vcek``, ``vlek``, ``ask`` (for a VLEK its own issuer), ``ark`` and ``crl``, whichever are
    there; entries of other GUIDs are left out. A table that is empty or all zero gives none. The host wrote it, so
    nothing in it is trusted.

    Raises:
        TooLarge: over the cap. DecodeError: an entry that points outside, one that stands twice, or no end.
    """
    if len(blob) > MAX_TABLE:
        raise TooLarge(f"a certificate table of {len(blob)} bytes is over the cap of {MAX_TABLE}")
    found: dict[str, bytes] = {}
    if not blob:
        return found
    for index in range(_MAX_ENTRIES):
        entry = blob[index * _ENTRY : (index + 1) * _ENTRY]
        if len(entry) < _ENTRY:
            raise DecodeError("a certificate table has no end mark", code="certificate-table")
        if not any(entry):
            return found
        offset, length = int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")
        if offset + length > len(blob):
            raise DecodeError(f"entry {index} of a certificate table points outside of it", code="certificate-table")
        name = _TABLE_NAMES.get(entry[:16])
        if name is None or not length:
            continue
        if name in found:
            raise DecodeError(f"a certificate table has two entries for {name}", code="certificate-table")
        content = blob[offset : offset + length]
        found[name] = content if name == "crl" else _only(content, name)
    raise DecodeError(f"a certificate table has more than {_MAX_ENTRIES} entries", code="certificate-table")


def choose_certificates(report: bytes, table: Mapping[str, bytes]) -> tuple[bytes, ...]:
    """Of a host's table, the certificates that belong to this report: those of the key that it says signed it.

    Empty when the table does not hold that key's certificate: the relying party then needs its own.

    Raises:
        DecodeError: a report of another length.
    """
    if len(report) != REPORT_SIZE:
        raise DecodeError(f"the SEV-SNP report has {len(report)} bytes instead of {REPORT_SIZE}", code="snp-length")
    signer = "vlek" if report[_KEY_INFO] >> 2 & 7 == SIGNED_BY_VLEK else "vcek"
    if signer not in table:
        return ()
    return tuple(table[name] for name in (signer, "ask", "ark") if name in table)


def parse_certificates(data: bytes) -> tuple[bytes, ...]:
    """Certificates (DER) out of a file: a PEM bundle in its order, or one certificate in DER. They are not parsed yet.

    Raises:
        TooLarge: over the cap. DecodeError: neither, or PEM that is damaged.
    """
    if len(data) > MAX_TABLE:
        raise TooLarge(f"a certificate file of {len(data)} bytes is over the cap of {MAX_TABLE}")
    if _PEM_BEGIN not in data:
        if data[:1] != b"\x30":
            raise DecodeError("this is neither a PEM bundle nor a certificate in DER", code="certificate-malformed")
        return (data,)
    certificates = []
    for block in data.split(_PEM_BEGIN)[1:]:
        body, end, _ = block.partition(_PEM_END)
        if not end:
            raise DecodeError("a PEM certificate has no end", code="certificate-malformed")
        try:
            certificates.append(b64decode(b"".join(body.split()), validate=True))
        except binascii.Error as error:
            raise DecodeError("a PEM certificate is not base64", code="certificate-malformed") from error
    return tuple(certificates)


def _only(content: bytes, name: str) -> bytes:
    """The one certificate of a table's entry: hosts put DER there, and some PEM."""
    certificates = parse_certificates(content)
    if len(certificates) != 1:
        raise DecodeError(f"the entry {name} of a certificate table is not one certificate", code="certificate-table")
    return certificates[0]
