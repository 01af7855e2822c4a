"""Roots, platforms and evidence for the attestation tests. Keys come from fixed seeds, so a failure repeats."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attestation.collateral import simulated_collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.report import ReportBinding
from cloister.attestation.statement import SIMULATED_DOMAIN, build_payload, build_statement
from cloister.attestation.verifiers.simulated import build_platform_certificate, build_root, build_root_fingerprint

NOW = 1_800_000_000
DAY = 86_400
MEASUREMENT = hashlib.sha256(b"agent").digest()


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def root(
    name: str = "root", *, not_before: int = NOW - DAY, not_after: int = NOW + DAY, common_name: str = "root"
) -> bytes:
    return build_root(key(name), name=common_name, serial=1, not_before=not_before, not_after=not_after)


def certificate(
    name: str = "root", *, machine: str = "machine", not_before: int = NOW - DAY, not_after: int = NOW + DAY
) -> bytes:
    return build_platform_certificate(
        key(name),
        root(name),
        key(machine).public_key(),
        name=machine,
        serial=2,
        not_before=not_before,
        not_after=not_after,
    )


ROOT = root()
CERTIFICATE = certificate()
COLLATERAL = simulated_collateral([ROOT])
POLICY = EnclavePolicy(EvidenceKind.SIMULATED, frozenset({build_root_fingerprint(ROOT)}), frozenset({MEASUREMENT}))

BINDING = ReportBinding(
    chain_id=421614,
    hub=b"\x01" * 20,
    sms=b"\x02" * 20,
    task_id=b"\x03" * 32,
    nonce=b"\x04" * 32,
    app_digest=b"\x05" * 32,
    challenge=b"\x06" * 20,
    hpke_key_hash=b"\x07" * 32,
)


def evidence(
    report_data: bytes,
    *,
    measurement: bytes = MEASUREMENT,
    issued_at: int = NOW,
    debug: bool = False,
    svn: int = 1,
    machine: str = "machine",
    der: bytes = CERTIFICATE,
) -> Evidence:
    statement = build_statement(
        measurement=measurement, report_data=report_data, issued_at=issued_at, debug=debug, svn=svn
    )
    signature = key(machine).sign(SIMULATED_DOMAIN + statement)
    return Evidence(EvidenceKind.SIMULATED, build_payload(der, statement, signature))
