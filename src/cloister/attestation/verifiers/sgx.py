"""Intel SGX: a quote over an enclave's report (Intel, *SDM* volume 3D, REPORT; *SGX ECDSA Quote Library API*, A.4)."""

from __future__ import annotations

import struct
from types import MappingProxyType

from cloister.attestation.claims import Attribute, Claims
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.dcap import verify_quote

_DEBUG = 1 << 1
_FLAGS = {"mode64bit": 1 << 2, "provision_key": 1 << 4, "einittoken_key": 1 << 5, "kss": 1 << 7}


def verify_sgx(payload: bytes, collateral: Collateral, now: int) -> Claims:
    """Prove an SGX quote (version 3) and answer with what it says: ``measurement`` is MRENCLAVE, ``svn`` ISVSVN.

    ``now``: unix seconds. ``issued_at`` is None: a quote has no clock.

    Raises:
        DecodeError, VerificationError: as ``verify_quote``.
    """
    verified = verify_quote(payload, collateral, now, EvidenceKind.SGX)
    body = verified.quote.body
    (bits,) = struct.unpack_from("<Q", body, 48)
    product, svn, config_svn = struct.unpack_from("<HHH", body, 256)
    attributes: dict[str, Attribute] = {
        **verified.attributes,
        "attributes": body[48:64].hex(),
        "miscselect": body[16:20].hex(),
        "isvprodid": product,
        "configsvn": config_svn,
        **{name: bool(bits & flag) for name, flag in _FLAGS.items()},
    }
    registers = {
        "mrsigner": body[128:160],
        "configid": body[192:256],
        "isvextprodid": body[32:48],
        "isvfamilyid": body[304:320],
        "cpusvn": body[:16],
    }
    return Claims(
        kind=EvidenceKind.SGX,
        measurement=body[64:96],
        report_data=verified.quote.report_data,
        debug=bool(bits & _DEBUG),
        root=verified.root,
        platform=verified.platform,
        svn=svn,
        registers=MappingProxyType(registers),
        tcb=verified.tcb,
        attributes=MappingProxyType(attributes),
    )
