"""The report that the paravisor of an Azure confidential VM keeps in its virtual TPM (NV index 0x01400001).

Numbers are little-endian::

    0     "HCLA", version, size of all parts, kind of request, status, three reserved words     32 bytes
    32    SEV-SNP attestation report                                                          1,184
    1216  size of this head and the claims, version, kind of report, kind of hash, size of the claims    20
    1236  claims: JSON, of which the SHA-256 is the first half of the SNP report's report data
    ...   zeros, up to the size of the NV index

The claims hold the virtual TPM's attestation key (a JWK named ``HCLAkPub``), so the report binds that key to the hardware.
Sources: Microsoft, "Guest attestation for confidential VMs" and "Virtual TPMs in Azure confidential VMs"; genuine reports.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass

from cloister.attestation.claims import Attribute
from cloister.attestation.snp_payload import REPORT_SIZE
from cloister.attestation.tpm.structures import Reader
from cloister.errors import DecodeError

MAX_HCL_REPORT = 8 * 1024
"""Longest report, in bytes. Those of today have 2,600."""
HEADER_SIZE = 32

_SIGNATURE = b"HCLA"
_VERSIONS = (1, 2)
_REQUEST_AK = 2
"""The request in which the paravisor has its attestation key certified; the kept report is the one made for it."""
_RUNTIME_HEADER = 20
_RUNTIME_VERSION = 1
_TYPE_SNP = 2
_HASH_SHA256 = 1
_AK_NAME = "HCLAkPub"
_RSA_BYTES = 256
_USER_DATA = 64
_MAX_BRACKETS = 256
_CODE = "hcl-malformed"


@dataclass(frozen=True, slots=True)
class HclReport:
    """``snp_report``: 1,184 bytes, not judged. ``claims``: the JSON as it was hashed."""

    snp_report: bytes
    claims: bytes


@dataclass(frozen=True, slots=True)
class RuntimeClaims:
    """``modulus`` of the attestation key, RSA of 2,048 bits with exponent 65,537; ``attributes``: how the VM is set up."""

    modulus: int
    attributes: dict[str, Attribute]


def parse_hcl_report(report: bytes) -> HclReport:
    """Take a report apart; the claims are not read before they are proven.

    Raises:
        DecodeError: ``hcl-malformed``; ``hcl-report-type`` for another hardware's, ``hcl-hash-type`` for another hash.
    """
    if len(report) > MAX_HCL_REPORT:
        raise DecodeError(f"the hcl report has {len(report)} bytes; the cap is {MAX_HCL_REPORT}", code=_CODE)
    reader = Reader(report, _CODE, "the hcl report", "little")
    if reader.take(4) != _SIGNATURE:
        raise DecodeError("the hcl report does not begin with HCLA", code=_CODE)
    version, total, request, status = (reader.number(4) for _ in range(4))
    if version not in _VERSIONS or request != _REQUEST_AK or status or any(reader.take(12)):
        raise DecodeError("the hcl report's head has values that are unknown here", code=_CODE)
    snp_report = reader.take(REPORT_SIZE)
    size, version, kind, digest, length = (reader.number(4) for _ in range(5))
    if kind != _TYPE_SNP:
        raise DecodeError(f"the hcl report is of type {kind}: not SEV-SNP's", code="hcl-report-type")
    if digest != _HASH_SHA256:
        raise DecodeError(f"the hcl report's claims are hashed by {digest}: not SHA-256", code="hcl-hash-type")
    if version != _RUNTIME_VERSION or size != length + _RUNTIME_HEADER or total != HEADER_SIZE + REPORT_SIZE + size:
        raise DecodeError("the sizes in the hcl report do not agree", code=_CODE)
    claims = reader.take(length)
    if any(reader.take(reader.rest)):
        raise DecodeError("more than zeros follows the hcl report's claims", code=_CODE)
    return HclReport(snp_report, claims)


def parse_runtime_claims(claims: bytes) -> RuntimeClaims:
    """Read the claims: the attestation key, and of the VM ``secure_boot``, ``vtpm``, ``console``, ``vm_id``, ``user_data``
    (hex) where they stand there in their form.

    Raises:
        DecodeError: ``hcl-claims``: no JSON object with exactly one signing key of that name.
    """
    try:
        value = parse_flat_json(claims)
    except ValueError as error:
        raise DecodeError("the hcl report's claims are not a JSON object of its form", code="hcl-claims") from error
    keys = value.get("keys")
    named = [k for k in keys if isinstance(k, dict) and k.get("kid") == _AK_NAME] if isinstance(keys, list) else []
    if len(named) != 1:
        raise DecodeError(f"the hcl report's claims have {len(named)} keys named {_AK_NAME}", code="hcl-claims")
    return RuntimeClaims(_parse_modulus(named[0]), _parse_setup(value))


def parse_flat_json(text: bytes) -> dict[str, object]:
    """A JSON object of few members, no name twice in any object.

    The brackets are counted first: the standard parser goes down one frame of C for each, and where a program raised the
    interpreter's limit, deep nesting ends the process instead of raising.

    Raises:
        ValueError: no JSON object, a name twice, or more than 256 opening brackets.
    """
    if text.count(b"[") + text.count(b"{") > _MAX_BRACKETS:
        raise ValueError("too many brackets")
    value: object = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise ValueError("no object")  # noqa: TRY004 - one error for every form that is not the wanted one
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name stands twice")
    return value


def _parse_modulus(jwk: dict[str, object]) -> int:
    """RFC 7518, 6.3.1: base64url without padding."""
    operations, text = jwk.get("key_ops"), jwk.get("n")
    if (
        jwk.get("kty") != "RSA"
        or jwk.get("e") != "AQAB"
        or not isinstance(operations, list)
        or "sign" not in operations
    ):
        raise DecodeError("the virtual tpm's attestation key is no RSA key for signing", code="hcl-claims")
    try:
        raw = urlsafe_b64decode(text + "==") if isinstance(text, str) and len(text) < 2 * _RSA_BYTES else b""
    except (binascii.Error, ValueError) as error:
        raise DecodeError("the virtual tpm's attestation key is not base64url", code="hcl-claims") from error
    if len(raw) != _RSA_BYTES or raw[0] < 0x80 or not raw[-1] & 1:
        raise DecodeError(f"the virtual tpm's attestation key has not {8 * _RSA_BYTES} bits", code="hcl-claims")
    return int.from_bytes(raw, "big")


def _parse_setup(value: dict[str, object]) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    setup = value.get("vm-configuration")
    if isinstance(setup, dict):
        for name, key in (("secure_boot", "secure-boot"), ("vtpm", "tpm-enabled"), ("console", "console-enabled")):
            flag = setup.get(key)
            if isinstance(flag, bool):
                found[name] = flag
        vm_id = setup.get("vmUniqueId")
        if isinstance(vm_id, str) and len(vm_id) == 36 and vm_id.isascii() and vm_id.isprintable():
            found["vm_id"] = vm_id
    data = value.get("user-data")
    if isinstance(data, str) and len(data) == 2 * _USER_DATA and set(data) <= set("0123456789abcdefABCDEF"):
        found["user_data"] = data.lower()
    return found
