"""Claims and a policy that fit each other, for tests that change one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloister.attestation.claims import Claims, Tcb, TcbStatus
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy

NOW = 1_800_000_000
DAY = 86_400
ROOT, PLATFORM = b"\x01" * 32, b"\x02" * 32
MRTD, RTMR1, RTMR2 = b"\x10" * 48, b"\x11" * 48, b"\x12" * 48
TCB = Tcb(TcbStatus.UP_TO_DATE, versions={"tdx_module": 5, "tcb_evaluation_data_number": 17})

TDX = Claims(
    EvidenceKind.TDX,
    MRTD,
    bytes(64),
    debug=False,
    root=ROOT,
    platform=PLATFORM,
    registers={"rtmr1": RTMR1, "rtmr2": RTMR2},
    tcb=TCB,
    attributes={"smt": True, "quote_version": 4, "fmspc": "b0c06f000000"},
)
TDX_POLICY = EnclavePolicy(
    EvidenceKind.TDX,
    frozenset({ROOT}),
    frozenset({MRTD}),
    registers={"rtmr1": frozenset({RTMR1}), "rtmr2": frozenset({RTMR2})},
)
SNP = Claims(
    EvidenceKind.SNP,
    MRTD,
    bytes(64),
    debug=False,
    root=ROOT,
    platform=PLATFORM,
    tcb=Tcb(TcbStatus.UP_TO_DATE),
    attributes={"vmpl": 0, "migration_agent": False, "reported_below_committed": False},
)
SNP_POLICY = EnclavePolicy(EvidenceKind.SNP, frozenset({ROOT}), frozenset({MRTD}))
TPM = Claims(EvidenceKind.TPM, b"\x20" * 32, bytes(64), debug=False, root=ROOT, platform=PLATFORM)
TPM_POLICY = EnclavePolicy(EvidenceKind.TPM, frozenset({ROOT}), frozenset({b"\x20" * 32}))


def tcb(status: TcbStatus = TcbStatus.UP_TO_DATE, **values: Any) -> Claims:
    """TDX claims on a platform of this level."""
    return replace(TDX, tcb=replace(TCB, status=status, **values))


def late(days: int, status: TcbStatus = TcbStatus.OUT_OF_DATE) -> Claims:
    """TDX claims on a platform that fell out of date so many days before ``NOW``."""
    return tcb(status, out_of_date_since=NOW - days * DAY)


def snp(**attributes: bool | int | str) -> Claims:
    """SNP claims with other attributes."""
    return replace(SNP, attributes={**SNP.attributes, **attributes})
