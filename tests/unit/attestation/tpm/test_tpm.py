"""TPM evidence that holds, and what its claims say."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.tpm_authority import APP_DIGEST, DAY, NOW, Boot, TpmAuthority, elliptic_key, encode, startup_record

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.tpm.certificates import key_fingerprint
from cloister.attestation.tpm.payload import BOOT_PCRS, build_boot_measurement
from cloister.attestation.verify import appraise, read_claims
from cloister.errors import LocalError, PolicyRejected, VerificationError

REPORT_DATA = hashlib.sha512(b"report").digest()
TPM = TpmAuthority.create()


def claims_of(authority: TpmAuthority = TPM, **options):
    return read_claims(authority.evidence(REPORT_DATA, **options), authority.collateral(), NOW)


def test_claims_say_what_was_quoted():
    boot = Boot(secure_boot=True)
    claims = claims_of(boot=boot, resets=9, restarts=2, safe=0)
    assert claims.kind is EvidenceKind.TPM
    assert claims.measurement == TPM.measurement(boot)
    assert (claims.report_data, claims.app_digest, claims.debug) == (REPORT_DATA, APP_DIGEST, False)
    assert claims.root == hashlib.sha256(TPM.root).digest()
    assert claims.platform == key_fingerprint(TPM.ek.public_key())
    assert claims.issued_at is None
    assert sorted(claims.registers) == ["pcr0", "pcr15", "pcr2", "pcr4", "pcr7", "pcr9"]
    assert dict(claims.attributes) == {
        "crl_checked": False,
        "reset_count": 9,
        "restart_count": 2,
        "clock_safe": False,
        "firmware_version": "2024012500120000",
        "secure_boot": True,
        "kernel_authenticode": hashlib.sha256(b"kernel").hexdigest(),
        "initrd_sha256": hashlib.sha256(b"initramfs").hexdigest(),
        "command_line_sha256": hashlib.sha256((boot.command_line + "\0").encode("utf-16-le")).hexdigest(),
    }


@pytest.mark.parametrize(
    "other",
    [
        Boot(firmware=b"other"),
        Boot(kernel=b"other"),
        Boot(initrd=b"other"),
        Boot(command_line="init=/bin/sh"),
        Boot(secure_boot=True),
        Boot(locality=3),
    ],
    ids=["firmware", "kernel", "initrd", "command line", "secure boot", "locality"],
)
def test_another_boot_has_another_measurement(other):
    assert claims_of(boot=other).measurement == TPM.measurement(other) != TPM.measurement()


def test_the_app_is_not_in_the_boot_measurement():
    other = hashlib.sha256(b"other app").digest()
    claims = claims_of(app_digest=other)
    assert (claims.measurement, claims.app_digest) == (TPM.measurement(), other)


def test_machines_of_one_root_have_names_of_their_own():
    other = TpmAuthority.create(machine="other")
    assert other.root == TPM.root
    assert claims_of(other).platform != claims_of().platform


@pytest.mark.parametrize("pss", [False, True])
def test_an_rsa_key_may_attest(pss):
    authority = TpmAuthority.create(ak=rsa.generate_private_key(65537, 2048))
    assert claims_of(authority, pss=pss).measurement == TPM.measurement()


@pytest.mark.parametrize("kind", ["p384", "rsa"])
def test_a_root_of_another_type(kind):
    key = elliptic_key("p384", ec.SECP384R1()) if kind == "p384" else rsa.generate_private_key(65537, 2048)
    authority = TpmAuthority.create(root_key=key)
    assert claims_of(authority).root == hashlib.sha256(authority.root).digest()


def test_the_right_one_of_several_roots_is_found():
    collateral = TPM.collateral()
    others = tuple((EvidenceKind.TPM, TpmAuthority.create(seed).root) for seed in ("a", "b"))
    claims = read_claims(TPM.evidence(REPORT_DATA), replace(collateral, roots=(*others, *collateral.roots)), NOW)
    assert claims.root == hashlib.sha256(TPM.root).digest()


def test_of_two_certificates_of_one_root_the_one_in_force_counts():
    old, new = TPM.issue_root(end=NOW - 1), TPM.root
    for roots in ((old, new), (new, old)):
        collateral = replace(TPM.collateral(), roots=tuple((EvidenceKind.TPM, root) for root in roots))
        claims = read_claims(TPM.evidence(REPORT_DATA), collateral, NOW)
        assert claims.root == hashlib.sha256(new).digest()


def test_a_list_in_force_is_told():
    evidence = TPM.evidence(REPORT_DATA)
    # A list that ran out does no harm beside one in force, nor does one that another root signed.
    lists = (TPM.revoke(), TPM.revoke(end=NOW - 1), TpmAuthority.create("other").revoke("ak"))
    assert read_claims(evidence, TPM.collateral(*lists), NOW).attributes["crl_checked"] is True
    assert read_claims(evidence, TPM.collateral(*lists[2:]), NOW).attributes["crl_checked"] is False


@pytest.mark.parametrize("now", [NOW - DAY, NOW + DAY])
def test_certificates_hold_on_their_first_and_last_second(now):
    assert read_claims(TPM.evidence(REPORT_DATA), TPM.collateral(), now).measurement


def test_relabelled_events_move_no_register():
    """Types and data are not bound by the quote: whatever the host writes there, what counts stays."""
    parts = TPM.parts(REPORT_DATA)
    log = parts.event_log.replace(b"\xec\x22\x3b\x8f", b"\xed\x22\x3b\x8f")
    claims = read_claims(encode(replace(parts, event_log=log)), TPM.collateral(), NOW)
    assert claims.measurement == TPM.measurement()
    assert "initrd_sha256" not in claims.attributes


def test_an_informative_event_moves_no_register():
    parts = TPM.parts(REPORT_DATA, boot=Boot(locality=0))
    assert startup_record(0) in parts.event_log
    assert read_claims(encode(parts), TPM.collateral(), NOW).measurement == TPM.measurement()


def test_appraisal_wants_boot_report_data_and_app():
    policy = EnclavePolicy(
        EvidenceKind.TPM, frozenset({hashlib.sha256(TPM.root).digest()}), frozenset({TPM.measurement()})
    )
    given = {"policy": policy, "now": NOW, "collateral": TPM.collateral()}
    evidence = TPM.evidence(REPORT_DATA)
    appraisal = appraise(evidence, expected_report_data=REPORT_DATA, expected_app_digest=APP_DIGEST, **given)
    assert appraisal.claims.measurement == TPM.measurement()
    with pytest.raises(VerificationError) as refusal:
        appraise(evidence, expected_report_data=bytes(64), expected_app_digest=APP_DIGEST, **given)
    assert refusal.value.code == "report-data-mismatch"
    with pytest.raises(VerificationError) as refusal:
        appraise(evidence, expected_report_data=REPORT_DATA, expected_app_digest=bytes(32), **given)
    assert refusal.value.code == "app-digest-mismatch"
    other = TPM.evidence(REPORT_DATA, boot=Boot(kernel=b"other"))
    with pytest.raises(PolicyRejected) as refusal:
        appraise(other, expected_report_data=REPORT_DATA, expected_app_digest=APP_DIGEST, **given)
    assert refusal.value.code == "measurement-unknown"


def test_a_measurement_names_every_boot_register():
    values = {index: bytes([index]) * 32 for index in BOOT_PCRS}
    known = build_boot_measurement(values)
    assert known == build_boot_measurement(values | {8: bytes(32)})
    for index in BOOT_PCRS:
        assert build_boot_measurement(values | {index: bytes(32) if index else b"\x01" * 32}) != known
    with pytest.raises(LocalError, match="pcr 9"):
        build_boot_measurement({index: values[index] for index in BOOT_PCRS if index != 9})
