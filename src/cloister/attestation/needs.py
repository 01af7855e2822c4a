"""Needs: which collateral a piece of evidence is judged with. Nothing is proven here: a lie finds other collateral, with which
the evidence then does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from cloister.attestation.cbor import parse_cbor
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.pieces import Need
from cloister.errors import DecodeError, InputError

_REPORT_SIZE: Final = 1184
_HCL_HEADER: Final = 32
_AMD_PRODUCT: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.2")
_SGX: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_FMSPC: Final = bytes.fromhex("060a2a864886f84d010d0104" + "0406")
"""OBJECT IDENTIFIER 1.2.840.113741.1.13.1.4, then the head of an OCTET STRING of 6 bytes (Intel, PCK profile 1.3.5)."""
_FAILURES: Final = (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion)
_VLEK: Final = 1
_TURIN_CHIP: Final = 8


def parse_need(evidence: Evidence) -> Need | None:
    """Read what the collateral is looked up by; None for a kind that needs none.

    Raises:
        DecodeError: the evidence does not say it (``evidence-malformed``), or a quote is not laid out soundly.
        VerificationError: a quote of another version or TEE.
    """
    try:
        match evidence.kind:
            case EvidenceKind.SIMULATED:
                return None
            case EvidenceKind.TDX | EvidenceKind.SGX:
                return _dcap_need(evidence)
            case EvidenceKind.SNP:
                match parse_cbor(evidence.payload):
                    case [int(), bytes(report), list(certificates)]:
                        return _snp_need(evidence.kind, report, certificates)
                    case _:
                        raise DecodeError("the SNP evidence has another form", code="evidence-malformed")
            case EvidenceKind.SNP_VTPM:
                match parse_cbor(evidence.payload):
                    case {2: bytes(hcl), 3: list(certificates)}:
                        return _snp_need(evidence.kind, hcl[_HCL_HEADER : _HCL_HEADER + _REPORT_SIZE], certificates)
                    case _:
                        raise DecodeError("the SNP evidence has another form", code="evidence-malformed")
            case EvidenceKind.TPM:
                return Need(evidence.kind)
    except InputError as error:
        raise DecodeError(
            f"the evidence does not say its platform: {error.message}", code="evidence-malformed"
        ) from error


def _dcap_need(evidence: Evidence) -> Need:
    """From the PCK certificate in the quote. The library that verifies is not asked: these bytes are anybody's, and there are
    inputs at which it ends the process.
    """
    from cloister.attestation.verifiers.dcap_quote import TEE_SGX, TEE_TDX, parse_quote

    quote = parse_quote(evidence.payload, TEE_TDX if evidence.kind is EvidenceKind.TDX else TEE_SGX)
    if not quote.chain:
        raise DecodeError("the quote does not carry its PCK certificate", code="evidence-malformed")
    try:
        pck = x509.load_pem_x509_certificates(quote.chain.rstrip(b"\0"))[0]
        extension = pck.extensions.get_extension_for_oid(_SGX).value
        issuer = pck.issuer.rfc4514_string()
    except (*_FAILURES, IndexError) as error:
        raise DecodeError("the PCK certificate in the quote does not parse", code="evidence-malformed") from error
    raw = extension.value if isinstance(extension, x509.UnrecognizedExtension) else b""
    place = raw.find(_FMSPC)
    fmspc = raw[place + len(_FMSPC) : place + len(_FMSPC) + 6] if place >= 0 else b""
    return Need(evidence.kind, fmspc=fmspc.hex(), ca="processor" if "Processor CA" in issuer else "platform")


def _snp_need(kind: EvidenceKind, report: bytes, certificates: Sequence[object]) -> Need:
    if len(report) != _REPORT_SIZE:
        raise DecodeError(f"an SNP report of {len(report)} bytes", code="evidence-malformed")
    vlek = int.from_bytes(report[0x48:0x4C], "little") >> 2 & 7 == _VLEK
    given = [each for each in certificates[:4] if isinstance(each, bytes)]
    product = next((name for name in map(_product_of, given) if name), "") or _product_of_report(report)
    if any(_is_chip_key(each) for each in given) or vlek:
        return Need(kind, product=product, vlek=vlek)
    chip = report[0x1A0:0x1E0]
    if product == "Turin":
        chip = chip[:_TURIN_CHIP]
    return Need(kind, product=product, chip=chip.hex(), tcb=report[0x180:0x188].hex())


def _product_of_report(report: bytes) -> str:
    """Reports from version 3 on name the processor's family and model (AMD 56860, ATTESTATION_REPORT 0x188)."""
    if int.from_bytes(report[:4], "little") < 3:
        raise DecodeError(
            "the SNP evidence brings no certificate, and its report does not name the processor",
            code="evidence-malformed",
            hint="put the chip's certificate beside the report",
        )
    family, model = report[0x188], report[0x189]
    if family == 0x19:
        return "Milan" if model < 0x10 else "Genoa"
    return "Turin" if family == 0x1A else ""


def _load(der: bytes) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(der)
    except _FAILURES:
        return None


def _product_of(der: bytes) -> str:
    """``Milan`` of ``Milan-B0`` in a chip's certificate; nothing for any other certificate."""
    certificate = _load(der)
    if certificate is None:
        return ""
    try:
        value = certificate.extensions.get_extension_for_oid(_AMD_PRODUCT).value
    except _FAILURES:
        return ""
    if not isinstance(value, x509.UnrecognizedExtension):
        return ""
    return value.value[2:].decode("ascii", "replace").partition("-")[0]  # an IA5String has two bytes of head


def _is_chip_key(der: bytes) -> bool:
    return bool(_product_of(der))
