"""Evidence of Azure's confidential VMs on SEV-SNP: how it travels here, and the shapes in which their tools write it.

Payload, deterministic CBOR, exactly these keys: ``{1: version, 2: HCL report, 3: [certificate (DER), ...], 4: TPMS_ATTEST, 5:
TPMT_SIGNATURE, 6: {PCR index: 32 bytes}, 7: event log or empty, 8: report data (64 bytes) or empty}``. Certificates are the
chip's (VCEK) first, its issuer (ASK), optionally AMD's root, which is never trusted from here. Empty report data says that the
quote was not made for us: its extraData is then whatever its asker chose.

Nothing is trusted or proven by importing; ``verifiers.snp_vtpm`` does that.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloister.attestation.cbor import Value, build_cbor
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.report import REPORT_DATA_SIZE
from cloister.attestation.snp_payload import MAX_CERTIFICATE, MAX_CERTIFICATES, parse_certificates
from cloister.attestation.tpm.hcl import MAX_HCL_REPORT, parse_flat_json
from cloister.attestation.tpm.payload import (
    MAX_ATTEST,
    MAX_EVENT_LOG,
    MAX_SIGNATURE,
    PCR_COUNT,
    PCR_SIZE,
    VERSION,
    check_size,
    parse_members,
    parse_pcrs,
)
from cloister.attestation.tpm.structures import Reader, build_rsa_signature, parse_quote
from cloister.errors import DecodeError, TooLarge

MAX_DOCUMENT = 256 * 1024
"""Longest JSON that is imported, in bytes. The one with lists of numbers takes 36 KiB."""

_WHAT = "snp-vtpm evidence"
_IMPORT = "import-malformed"


@dataclass(frozen=True, slots=True)
class SnpVtpmPayload:
    """The members of the payload; sizes are checked, nothing else is. ``report_data`` has 64 bytes or none."""

    hcl_report: bytes
    certificates: tuple[bytes, ...]
    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    event_log: bytes
    report_data: bytes


@dataclass(frozen=True, slots=True)
class VtpmQuote:
    """A quote as Azure's tools hand it over: TPMS_ATTEST, the bare RSASSA signature, values of PCR 0, 1, 2, ..."""

    message: bytes
    signature: bytes
    pcrs: tuple[bytes, ...]


def build_snp_vtpm_payload(
    *,
    hcl_report: bytes,
    certificates: Sequence[bytes],
    attest: bytes,
    signature: bytes,
    pcrs: Mapping[int, bytes],
    event_log: bytes = b"",
    report_data: bytes = b"",
) -> bytes:
    """Encode; see the module for each member."""
    values: dict[Value, Value] = dict(list(pcrs.items()))
    return build_cbor(
        {
            1: VERSION,
            2: hcl_report,
            3: list(certificates),
            4: attest,
            5: signature,
            6: values,
            7: event_log,
            8: report_data,
        }
    )


def parse_snp_vtpm_payload(payload: bytes) -> SnpVtpmPayload:
    """Read what ``build_snp_vtpm_payload`` writes.

    Raises:
        DecodeError: another form, version or size (``evidence-malformed``, ``evidence-version``).
    """
    members = parse_members(payload, 8, _WHAT)
    match [members[index] for index in range(2, 9)]:
        case [
            bytes(hcl),
            list(certificates),
            bytes(attest),
            bytes(signature),
            dict(pcrs),
            bytes(log),
            bytes(report_data),
        ]:
            pass
        case _:
            raise DecodeError("a member of the snp-vtpm evidence has the wrong type", code="evidence-malformed")
    check_size("the hcl report", hcl, 1, MAX_HCL_REPORT)
    check_size("the quote", attest, 1, MAX_ATTEST)
    check_size("the signature", signature, 1, MAX_SIGNATURE)
    check_size("the event log", log, 0, MAX_EVENT_LOG)
    if report_data:
        check_size("report data", report_data, REPORT_DATA_SIZE, REPORT_DATA_SIZE)
    if len(certificates) > MAX_CERTIFICATES:
        raise DecodeError(f"the evidence has {len(certificates)} certificates", code="evidence-malformed")
    chain = []
    for certificate in certificates:
        if not isinstance(certificate, bytes):
            raise DecodeError("a certificate of the evidence is not bytes", code="evidence-malformed")
        check_size("a certificate", certificate, 1, MAX_CERTIFICATE)
        chain.append(certificate)
    return SnpVtpmPayload(hcl, tuple(chain), attest, signature, parse_pcrs(pcrs), log, report_data)


def import_az_snp_vtpm(
    document: bytes, *, chain: Iterable[bytes] = (), event_log: bytes = b"", report_data: bytes = b""
) -> Evidence:
    """Take over the JSON that the confidential-containers attestation agent writes, in both of its versions.

    * version 0, without a member ``version``: ``{"quote": {"message", "signature", "pcrs"}, "report", "vcek"}``; bytes are
      lists of numbers, the VCEK is PEM;
    * version 1: ``{"version": 1, "tpm_quote": {"message", "signature", "pcrs"}, "hcl_report", "vcek"}``; the quote is hex,
      the others base64 with either alphabet, with or without padding, the VCEK is DER.

    Each holds 24 registers of the SHA-256 bank and no issuer of the VCEK: give it as ``chain`` (DER), or leave it to the
    collateral. ``event_log`` and ``report_data`` are not in the document either.

    Raises:
        TooLarge: over 256 KiB. DecodeError: ``import-malformed``, ``certificate-malformed``, or as the quote's parser.
    """
    if len(document) > MAX_DOCUMENT:
        raise TooLarge(f"the document has {len(document)} bytes; the cap is {MAX_DOCUMENT}", code=_IMPORT)
    try:
        value = parse_flat_json(document)
    except ValueError as error:
        raise DecodeError("the document is not JSON", code=_IMPORT) from error
    match value:
        case {"version": 1, "tpm_quote": dict(quote), "hcl_report": report, "vcek": vcek}:
            hcl, leaf, numbers = _parse_base64(report), _parse_base64(vcek), _parse_hex
        case {"quote": dict(quote), "report": report, "vcek": str(pem)} if "version" not in value:
            hcl, leaf, numbers = _parse_numbers(report), pem.encode("utf-8", "replace"), _parse_numbers
        case _:
            raise DecodeError("the document has neither of the two known forms", code=_IMPORT)
    pcrs = quote.get("pcrs")
    if not isinstance(pcrs, list) or len(pcrs) > PCR_COUNT:
        raise DecodeError("the document's registers are no list", code=_IMPORT)
    taken = VtpmQuote(numbers(quote.get("message")), numbers(quote.get("signature")), tuple(numbers(v) for v in pcrs))
    certificates = (*parse_certificates(leaf), *chain)
    return import_vtpm_quote(hcl, taken, certificates, event_log=event_log, report_data=report_data)


def import_vtpm_quote(
    hcl_report: bytes,
    quote: VtpmQuote,
    certificates: Sequence[bytes],
    *,
    event_log: bytes = b"",
    report_data: bytes = b"",
) -> Evidence:
    """Take over loose parts: the HCL report, a quote and certificates (DER, the chip's first).

    Of the registers those are kept that the quote selects.

    Raises:
        DecodeError: the quote does not parse, or there is no value for a register that it selects.
    """
    selected = parse_quote(quote.message).pcrs
    if selected[-1] >= len(quote.pcrs):
        raise DecodeError(f"there is no value for pcr {selected[-1]}, which was quoted", code=_IMPORT)
    payload = build_snp_vtpm_payload(
        hcl_report=hcl_report,
        certificates=certificates,
        attest=quote.message,
        signature=build_rsa_signature(quote.signature),
        pcrs={index: quote.pcrs[index] for index in selected},
        event_log=event_log,
        report_data=report_data,
    )
    parse_snp_vtpm_payload(payload)
    return Evidence(EvidenceKind.SNP_VTPM, payload)


def parse_vtpm_quote(encoded: bytes) -> VtpmQuote:
    """Read a quote as the ``az-snp-vtpm`` crate serializes it (``quote.bin``): signature, message, number of registers and
    their values; lengths and the number are 8 bytes, little-endian.

    Raises:
        DecodeError: ``import-malformed``.
    """
    reader = Reader(encoded, _IMPORT, "the quote", "little")
    signature = reader.take(_length(reader, MAX_SIGNATURE))
    message = reader.take(_length(reader, MAX_ATTEST))
    pcrs = tuple(reader.take(PCR_SIZE) for _ in range(_length(reader, PCR_COUNT)))
    reader.end()
    return VtpmQuote(message, signature, pcrs)


def _length(reader: Reader, most: int) -> int:
    if (length := reader.number(8)) > most:
        raise DecodeError(f"the quote claims {length} where at most {most} can be", code=_IMPORT)
    return length


def _parse_numbers(value: object) -> bytes:
    if not isinstance(value, list) or any(type(item) is not int or not 0 <= item <= 255 for item in value):
        raise DecodeError("a member of the document is no list of bytes", code=_IMPORT)
    return bytes(value)


def _parse_hex(value: object) -> bytes:
    try:
        return binascii.unhexlify(value if isinstance(value, str) else "?")
    except (binascii.Error, ValueError) as error:
        raise DecodeError("a member of the document is not hex", code=_IMPORT) from error


def _parse_base64(value: object) -> bytes:
    if not isinstance(value, str) or not value.isascii():
        raise DecodeError("a member of the document is not base64", code=_IMPORT)
    text = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("a member of the document is not base64", code=_IMPORT) from error
