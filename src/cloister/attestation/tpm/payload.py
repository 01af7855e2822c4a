"""TPM evidence as it travels, and the few hashes that the guest and its verifier must form alike.

The agent imports this module inside the enclave, so it loads no certificate library.

Payload, deterministic CBOR, exactly these keys: ``{1: version, 2: attestation key's certificate (DER), 3: endorsement key's
certificate (DER), 4: TPMS_ATTEST, 5: TPMT_SIGNATURE, 6: {PCR index: 32 bytes}, 7: event log, 8: report data (64 bytes),
9: app digest (32 bytes)}``. TPMS_ATTEST stands without the two size bytes that TPM2_Quote puts before it; the event log is
the kernel's ``binary_bios_measurements`` as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from cloister.attestation.cbor import Value, build_cbor, parse_cbor
from cloister.attestation.report import REPORT_DATA_SIZE
from cloister.errors import DecodeError, LocalError

VERSION = 1

BOOT_PCRS = (0, 2, 4, 7, 9)
"""What is quoted of the boot: firmware, its drivers, the kernel, secure boot's state, initramfs and command line.

PCR 1, 3, 5 and 6 are left out: they hold tables and variables that differ between machines and boots of one image.
"""
APP_PCR = 15
QUOTED_PCRS = (*BOOT_PCRS, APP_PCR)
PCR_SIZE = 32
"""Only the SHA-256 bank counts."""
PCR_COUNT = 24

MAX_CERTIFICATE = 4096
MAX_ATTEST = 512
MAX_SIGNATURE = 1024
MAX_EVENT_LOG = 96 * 1024

_REPORT_DOMAIN = b"cloister/tpm-report/v1"
_MEASUREMENT_DOMAIN = b"cloister/boot-measurement/v1"
_WHAT = "tpm evidence"


@dataclass(frozen=True, slots=True)
class TpmPayload:
    """The members of the payload; sizes are checked, nothing else is."""

    ak_certificate: bytes
    ek_certificate: bytes
    attest: bytes
    signature: bytes
    pcrs: Mapping[int, bytes]
    event_log: bytes
    report_data: bytes
    app_digest: bytes


def build_qualifying_data(report_data: bytes) -> bytes:
    """The 32 bytes that the quote carries as extraData: a TPM takes fewer bytes than report data has."""
    return hashlib.sha256(_REPORT_DOMAIN + report_data).digest()


def build_app_pcr(app_digest: bytes) -> bytes:
    """The value of ``APP_PCR`` after the app digest (32 bytes) was extended once into the register of zeros."""
    return hashlib.sha256(bytes(PCR_SIZE) + app_digest).digest()


def build_boot_measurement(pcrs: Mapping[int, bytes]) -> bytes:
    """One name for a whole boot: SHA-256 over each of ``BOOT_PCRS``, index and value. Other registers are not in it."""
    for index in BOOT_PCRS:
        if len(pcrs.get(index, b"")) != PCR_SIZE:
            raise LocalError(f"pcr {index} has no value of {PCR_SIZE} bytes")
    return hashlib.sha256(_MEASUREMENT_DOMAIN + b"".join(bytes([i]) + pcrs[i] for i in BOOT_PCRS)).digest()


def build_tpm_payload(
    *,
    ak_certificate: bytes,
    ek_certificate: bytes,
    attest: bytes,
    signature: bytes,
    pcrs: Mapping[int, bytes],
    event_log: bytes,
    report_data: bytes,
    app_digest: bytes,
) -> bytes:
    """Encode what the guest read from its TPM and kernel; see the module for each member."""
    values: dict[Value, Value] = dict(list(pcrs.items()))
    return build_cbor(
        {
            1: VERSION,
            2: ak_certificate,
            3: ek_certificate,
            4: attest,
            5: signature,
            6: values,
            7: event_log,
            8: report_data,
            9: app_digest,
        }
    )


def parse_tpm_payload(payload: bytes) -> TpmPayload:
    """Read what ``build_tpm_payload`` writes.

    Raises:
        DecodeError: another form, version or size (``evidence-malformed``, ``evidence-version``).
    """
    members = parse_members(payload, 9, _WHAT)
    match [members[index] for index in range(2, 10)]:
        case [
            bytes(ak),
            bytes(ek),
            bytes(attest),
            bytes(signature),
            dict(pcrs),
            bytes(log),
            bytes(report_data),
            bytes(app_digest),
        ]:
            pass
        case _:
            raise DecodeError("a member of the tpm evidence has the wrong type", code="evidence-malformed")
    check_size("the attestation key's certificate", ak, 1, MAX_CERTIFICATE)
    check_size("the endorsement key's certificate", ek, 1, MAX_CERTIFICATE)
    check_size("the quote", attest, 1, MAX_ATTEST)
    check_size("the signature", signature, 1, MAX_SIGNATURE)
    check_size("the event log", log, 1, MAX_EVENT_LOG)
    check_size("report data", report_data, REPORT_DATA_SIZE, REPORT_DATA_SIZE)
    check_size("the app digest", app_digest, 32, 32)
    return TpmPayload(ak, ek, attest, signature, parse_pcrs(pcrs), log, report_data, app_digest)


def parse_members(payload: bytes, count: int, what: str) -> dict[Value, Value]:
    """The map with keys 1 to ``count`` of which the first is the version. ``what`` names the evidence in errors.

    Raises:
        DecodeError: no deterministic CBOR, other keys, another version.
    """
    try:
        value = parse_cbor(payload)
    except DecodeError as error:
        raise DecodeError(f"{what} is no deterministic CBOR: {error.message}", code="evidence-malformed") from error
    if (
        not isinstance(value, dict)
        or [type(key) for key in value] != [int] * count
        or set(value) != {*range(1, count + 1)}
    ):
        raise DecodeError(f"{what} does not have exactly the members 1 to {count}", code="evidence-malformed")
    version = value[1]
    if type(version) is not int:
        raise DecodeError(f"the version of {what} is not a number", code="evidence-malformed")
    if version != VERSION:
        raise DecodeError(f"{what} has version {version} instead of {VERSION}", code="evidence-version")
    return value


def parse_pcrs(values: Mapping[Value, Value]) -> dict[int, bytes]:
    """Register values by index.

    Raises:
        DecodeError: an index that is none of 0 to 23, a value without 32 bytes, none at all.
    """
    pcrs = {}
    for index, value in values.items():
        if type(index) is not int or not 0 <= index < PCR_COUNT:
            raise DecodeError("a register's index is not one of 0 to 23", code="evidence-malformed")
        if not isinstance(value, bytes) or len(value) != PCR_SIZE:
            raise DecodeError(f"the value of pcr {index} has not {PCR_SIZE} bytes", code="evidence-malformed")
        pcrs[index] = value
    if not pcrs:
        raise DecodeError("the evidence has no register values", code="evidence-malformed")
    return pcrs


def check_size(what: str, value: bytes, least: int, most: int) -> None:
    """Raise ``DecodeError`` when ``value`` is shorter or longer than that many bytes."""
    if not least <= len(value) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise DecodeError(f"{what} has {len(value)} bytes instead of {wanted}", code="evidence-malformed")
