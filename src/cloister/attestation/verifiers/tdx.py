"""Intel TDX: a quote over a TD report (Intel, *TDX Module ABI*, TDREPORT; *TDX DCAP Quoting Library API*, A.3.2).

``measurement`` is MRTD, the TD's contents before it ran; RTMR0 to RTMR3 hold what was measured into it while it booted.
"""

from __future__ import annotations

from types import MappingProxyType

from cloister.attestation.claims import Attribute, Claims
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.dcap import verify_quote

_DEBUG = 1 << 0
_MIGRATABLE = 1 << 29
_FLAGS = {"sept_ve_disable": 1 << 28, "pks": 1 << 30, "kl": 1 << 31, "perfmon": 1 << 63}

_REGISTERS = {
    "mrseam": 16,
    "mrsignerseam": 64,
    "mrtd": 136,
    "mrconfigid": 184,
    "mrowner": 232,
    "mrownerconfig": 280,
    "rtmr0": 328,
    "rtmr1": 376,
    "rtmr2": 424,
    "rtmr3": 472,
}
"""Offsets in the TD report; each has 48 bytes. SEAM attributes, TD attributes and XFAM stand at 112, 120 and 128."""

_LATER_REGISTERS = {"mrservicetd": 600, "devinfo": 681, "initservicetdhash": 729, "curservicetdhash": 829}
"""Offsets of what TD 1.5 and its extended form add, 48 bytes each. The latter's TD id, 32 bytes, stands at 649."""


def verify_tdx(payload: bytes, collateral: Collateral, now: int) -> Claims:
    """Prove a TDX quote (versions 4 and 5; TD 1.0 and 1.5) and answer with what it says.

    ``now``: unix seconds. ``issued_at`` is None: a quote has no clock.

    Raises:
        DecodeError, VerificationError: as ``verify_quote``; ``debug-enabled``, ``td-migratable``, ``td-sept-ve`` and their
            like come from the TD's attributes, after its signatures were proven.
    """
    verified = verify_quote(payload, collateral, now, EvidenceKind.TDX)
    body = verified.quote.body
    bits = int.from_bytes(body[120:128], "little")
    registers = {name: body[offset : offset + 48] for name, offset in _REGISTERS.items()}
    measurement = registers.pop("mrtd")
    registers |= {name: body[at : at + 48] for name, at in _LATER_REGISTERS.items() if len(body) >= at + 48}
    attributes: dict[str, Attribute] = {
        **verified.attributes,
        "tdattributes": body[120:128].hex(),
        "xfam": body[128:136].hex(),
        "seamattributes": body[112:120].hex(),
        "migratable": bool(bits & _MIGRATABLE),
        **{name: bool(bits & flag) for name, flag in _FLAGS.items()},
    }
    if len(body) > 681:
        attributes["tdid"] = body[649:681].hex()
    return Claims(
        kind=EvidenceKind.TDX,
        measurement=measurement,
        report_data=verified.quote.report_data,
        debug=bool(bits & _DEBUG),
        root=verified.root,
        platform=verified.platform,
        registers=MappingProxyType(registers),
        tcb=verified.tcb,
        attributes=MappingProxyType(attributes),
    )
