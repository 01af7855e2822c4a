"""What processors of AMD signed, under AMD's own roots."""

from __future__ import annotations

import hashlib

import pytest
from tests.support.genuine import genuine

from cloister.attestation import anchors
from cloister.attestation.claims import Claims, TcbStatus
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.snp_payload import SIGNED_BY_VCEK, build_snp_evidence, parse_certificates
from cloister.attestation.verifiers.amd_certificates import parse_certificate, signed_by
from cloister.attestation.verifiers.snp import verify_snp
from cloister.attestation.verifiers.snp_report import parse_report
from cloister.attestation.verify import appraise
from cloister.errors import CloisterError, PolicyRejected

INSIDE = 1_700_000_000  # 2023-11-14
ROOTS = Collateral(
    tuple((EvidenceKind.SNP, root) for root in (anchors.AMD_ARK_MILAN, anchors.AMD_ARK_GENOA, anchors.AMD_ARK_TURIN))
)


def milan() -> tuple[bytes, bytes, bytes]:
    """Report, VCEK, ASK."""
    return (
        genuine("snp/report-milan.bin"),
        genuine("snp/vcek-milan.der"),
        parse_certificates(genuine("snp/ask_ark_milan.pem"))[0],
    )


def azure() -> bytes:
    return build_snp_evidence(
        genuine("vtpm/hcl-report.bin")[32 : 32 + 1184], parse_certificates(genuine("vtpm/vcek.pem"))
    )


def claims_of_milan() -> Claims:
    report, vcek, ask = milan()
    return verify_snp(build_snp_evidence(report, [vcek, ask]), ROOTS, INSIDE)


def refusal(payload: bytes, collateral: Collateral, now: int) -> str:
    with pytest.raises(CloisterError) as caught:
        verify_snp(payload, collateral, now)
    return caught.value.code


def test_a_report_of_a_milan_machine_says_what_its_bytes_say() -> None:
    claims = claims_of_milan()
    assert claims.measurement.hex().startswith("b07af9620f3b839b")
    assert claims.report_data == b"\x01\x02\x03\x04\x05" + bytes(59)
    assert claims.root == anchors.AMD_ARK_MILAN_SHA256
    assert claims.vendor == "amd"
    assert claims.debug is True  # policy 0xb0000
    assert claims.issued_at is None
    assert claims.tcb is not None
    assert claims.tcb.status is TcbStatus.UP_TO_DATE
    assert dict(claims.tcb.versions) == {"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}
    expected = {
        "report_version": 2,
        "product": "Milan",
        "signing_key": "vcek",
        "vmpl": 0,
        "smt": True,
        "migration_agent": False,
        "single_socket": False,
        "crl_checked": False,
        "reported_below_committed": False,
        "provisional_firmware": False,
        "current_firmware": "1.49.3",
        "chip_masked": False,
    }
    assert {name: claims.attributes[name] for name in expected} == expected


def test_a_debug_guest_is_refused_whatever_else_holds() -> None:
    report, vcek, ask = milan()
    evidence = Evidence(EvidenceKind.SNP, build_snp_evidence(report, [vcek, ask]))
    claims = claims_of_milan()
    policy = EnclavePolicy(EvidenceKind.SNP, frozenset({anchors.AMD_ARK_MILAN_SHA256}), frozenset({claims.measurement}))
    with pytest.raises(PolicyRejected) as caught:
        appraise(evidence, policy=policy, expected_report_data=claims.report_data, now=INSIDE, collateral=ROOTS)
    assert caught.value.code == "debug-enabled"


def test_a_report_of_an_azure_machine_with_its_whole_chain() -> None:
    claims = verify_snp(azure(), ROOTS, INSIDE)
    assert claims.svn == 5
    assert claims.debug is False
    assert claims.tcb is not None
    assert dict(claims.tcb.versions) == {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}
    assert claims.attributes["provisional_firmware"] is True  # current microcode 0xd2, committed 0x73
    assert claims.attributes["abi"] == "0.31"
    assert claims.registers["family_id"] == b"\x01" + bytes(15)
    assert claims.platform != claims_of_milan().platform


def test_certificates_may_come_as_collateral() -> None:
    report, vcek, ask = milan()
    other = parse_certificates(genuine("vtpm/vcek.pem"))[0]
    documents = [Document(EvidenceKind.SNP, "certificate", der) for der in (other, ask, vcek)]
    assert verify_snp(build_snp_evidence(report), ROOTS.with_documents(documents), INSIDE) == claims_of_milan()
    assert refusal(build_snp_evidence(report), ROOTS.with_documents(documents[:2]), INSIDE) == "certificate-missing"


def test_each_link_is_needed() -> None:
    report, vcek, ask = milan()
    other = parse_certificates(genuine("vtpm/vcek.pem"))[0]
    genoa = parse_certificates(genuine("snp/ask_ark_genoa.pem"))[0]
    whole = build_snp_evidence(report, [vcek, ask])
    assert refusal(whole, Collateral(), INSIDE) == "no-trusted-root"
    assert refusal(whole, Collateral(((EvidenceKind.SNP, anchors.AMD_ARK_GENOA),)), INSIDE) == "untrusted-root"
    assert refusal(whole, Collateral(((EvidenceKind.TDX, anchors.AMD_ARK_MILAN),)), INSIDE) == "no-trusted-root"
    assert refusal(build_snp_evidence(report, [vcek]), ROOTS, INSIDE) == "certificate-missing"
    assert refusal(build_snp_evidence(report, [vcek, genoa]), ROOTS, INSIDE) == "certificate-missing"
    assert refusal(build_snp_evidence(report, [other, ask]), ROOTS, INSIDE) == "evidence-signature"
    assert refusal(build_snp_evidence(report, [vcek, ask, genoa]), ROOTS, INSIDE) == "certificate-unexpected"


def test_the_dates_of_the_chip_key_count() -> None:
    report, vcek, ask = milan()
    payload = build_snp_evidence(report, [vcek, ask])
    first, last = 1_663_980_928, 1_884_905_728  # 2022-09-24 and 2029-09-24, 00:55:28
    assert verify_snp(payload, ROOTS, first)
    assert verify_snp(payload, ROOTS, last)
    assert refusal(payload, ROOTS, first - 1) == "certificate-not-yet-valid"
    assert refusal(payload, ROOTS, last + 1) == "certificate-expired"


@pytest.mark.parametrize("product", ["milan", "genoa", "turin"])
def test_the_vendors_own_chains_hold(product: str) -> None:
    name = "snp/ask_ark_turin_vcek.pem" if product == "turin" else f"snp/ask_ark_{product}.pem"
    ask, ark = (parse_certificate(der) for der in parse_certificates(genuine(name)))
    pinned = {
        "milan": anchors.AMD_ARK_MILAN_SHA256,
        "genoa": anchors.AMD_ARK_GENOA_SHA256,
        "turin": anchors.AMD_ARK_TURIN_SHA256,
    }
    assert hashlib.sha256(ark.raw).digest() == pinned[product]
    assert ark.common_name == f"ARK-{product.title()}"
    assert ask.common_name == f"SEV-{product.title()}"
    assert signed_by(ark.signed, ark.signature, ark)
    assert signed_by(ask.signed, ask.signature, ark)
    assert not signed_by(ask.signed, ask.signature, ask)
    assert (ark.authority, ark.signs_certificates, ark.signs_lists) == (True, True, True)
    assert (ask.authority, ask.signs_certificates, ask.signs_lists) == (True, True, False)


def test_a_chip_key_has_the_serial_number_zero() -> None:
    _, vcek, _ = milan()
    certificate = parse_certificate(vcek)
    assert certificate.serial == b"\x00"
    assert certificate.authority is False


def test_every_byte_of_a_genuine_report_counts() -> None:
    report, vcek, ask = milan()
    for position in range(0, len(report), 3):
        changed = bytearray(report)
        changed[position] ^= 0x10
        assert refusal(build_snp_evidence(bytes(changed), [vcek, ask]), ROOTS, INSIDE) != "malformed"


def test_the_report_reads_without_being_trusted() -> None:
    report = parse_report(milan()[0])
    assert report.signing_key == SIGNED_BY_VCEK
    assert report.cpu is None
    assert report.launch_mitigations is None
