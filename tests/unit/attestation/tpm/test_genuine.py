"""Genuine quotes of Azure's confidential VMs. They were made for the nonce ``challenge``, not for report data of ours."""

from __future__ import annotations

import calendar
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.genuine import genuine

from cloister.attestation.anchors import AMD_ARK_GENOA, AMD_ARK_MILAN, AMD_ARK_MILAN_SHA256
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import AnyOf
from cloister.attestation.snp_payload import parse_certificates
from cloister.attestation.tpm.azure import (
    VtpmQuote,
    build_snp_vtpm_payload,
    import_az_snp_vtpm,
    import_vtpm_quote,
    parse_snp_vtpm_payload,
    parse_vtpm_quote,
)
from cloister.attestation.tpm.structures import parse_quote
from cloister.attestation.verify import appraise, read_claims
from cloister.errors import DecodeError, VerificationError
from cloister.sdk.evidence import load_exhibit

NOW = calendar.timegm((2025, 6, 1, 0, 0, 0))
MILAN = Collateral(((EvidenceKind.SNP_VTPM, AMD_ARK_MILAN),))


def chain() -> tuple[bytes, ...]:
    """VCEK, ASK, ARK."""
    return parse_certificates(genuine("vtpm/vcek.pem"))


def loose() -> Evidence:
    return import_vtpm_quote(genuine("vtpm/hcl-report.bin"), parse_vtpm_quote(genuine("vtpm/quote.bin")), chain())


def document(version: int) -> Evidence:
    return import_az_snp_vtpm(genuine(f"vtpm/evidence-v{version}.json"), chain=chain()[1:])


EVIDENCE = {"loose": loose, "v0": lambda: document(0), "v1": lambda: document(1)}
MEASUREMENTS = {"loose": "9ac48fcac8a2d88aeeff", "v0": "6a063be9dd79f6371c84", "v1": "6a063be9dd79f6371c84"}


@pytest.mark.parametrize("name", EVIDENCE)
def test_genuine_evidence_holds(name):
    claims = read_claims(EVIDENCE[name](), MILAN, NOW)
    assert claims.report_data == b"challenge"
    assert claims.root == AMD_ARK_MILAN_SHA256
    assert claims.measurement.hex().startswith(MEASUREMENTS[name])
    assert (claims.debug, claims.attributes["vmpl"], claims.attributes["secure_boot"]) == (False, 0, True)
    assert len([register for register in claims.registers if register.startswith("pcr")]) == 24


def test_two_documents_are_of_one_machine_and_the_loose_parts_of_another():
    first, second, other = (read_claims(EVIDENCE[name](), MILAN, NOW) for name in ("v0", "v1", "loose"))
    assert first.platform == second.platform != other.platform
    assert first.attributes["vm_id"] == second.attributes["vm_id"] == "26F8BC30-774E-4290-8E7A-535F3B672AEE"
    assert other.attributes["vm_id"] == "911B0EF8-9DBA-48B0-B275-4E4DF2D39252"


def test_each_of_the_two_documents_quotes_under_the_others_report():
    """One VM, one key: the paravisor keeps its key over reports."""
    first, second = (parse_snp_vtpm_payload(document(version).payload) for version in (0, 1))
    assert first.attest != second.attest
    mixed = build_snp_vtpm_payload(
        hcl_report=first.hcl_report,
        certificates=first.certificates,
        attest=second.attest,
        signature=second.signature,
        pcrs=second.pcrs,
    )
    assert read_claims(Evidence(EvidenceKind.SNP_VTPM, mixed), MILAN, NOW).report_data == b"challenge"


@pytest.mark.parametrize("name", EVIDENCE)
def test_the_lone_quote_is_signed_by_none_of_these_machines(name):
    """tpm-quote.msg is a quote of PCR 0 to 7 and 14, but its key lies in none of the reports here: it must not pass."""
    message, signature = genuine("vtpm/tpm-quote.msg"), genuine("vtpm/tpm-quote.sig")
    quote = parse_quote(message)
    assert (quote.extra_data, quote.pcrs) == (b"challenge", (*range(8), 14))
    parts = parse_snp_vtpm_payload(EVIDENCE[name]().payload)
    values = tuple(parts.pcrs[index] for index in range(24))
    evidence = import_vtpm_quote(parts.hcl_report, VtpmQuote(message, signature, values), parts.certificates)
    with pytest.raises(VerificationError) as refusal:
        read_claims(evidence, MILAN, NOW)
    assert refusal.value.code == "quote-signature"


def test_the_quote_of_one_machine_is_refused_under_the_report_of_another():
    parts = parse_snp_vtpm_payload(document(1).payload)
    quote = parse_vtpm_quote(genuine("vtpm/quote.bin"))
    evidence = import_vtpm_quote(parts.hcl_report, quote, parts.certificates)
    with pytest.raises(VerificationError) as refusal:
        read_claims(evidence, MILAN, NOW)
    assert refusal.value.code == "quote-signature"


def test_genuine_evidence_that_was_not_made_for_us_is_no_appraisal():
    policy = AnyOf()
    with pytest.raises(VerificationError) as refusal:
        appraise(loose(), policy=policy, expected_report_data=b"challenge".ljust(64, b"\0"), now=NOW, collateral=MILAN)
    assert refusal.value.code == "report-data-mismatch"
    parts = parse_snp_vtpm_payload(loose().payload)
    quote = VtpmQuote(parts.attest, parts.signature[6:], tuple(parts.pcrs[index] for index in range(24)))
    claimed = import_vtpm_quote(parts.hcl_report, quote, parts.certificates, report_data=bytes(64))
    with pytest.raises(VerificationError) as refusal:
        read_claims(claimed, MILAN, NOW)
    assert refusal.value.code == "quote-binding"


def test_the_issuer_may_come_from_the_collateral():
    evidence = import_az_snp_vtpm(genuine("vtpm/evidence-v1.json"))
    with pytest.raises(VerificationError):
        read_claims(evidence, MILAN, NOW)
    issuer = Document(EvidenceKind.SNP_VTPM, "certificate", chain()[1])
    assert read_claims(evidence, MILAN.with_documents([issuer]), NOW).attributes["product"] == "Milan"


@pytest.mark.parametrize(
    ("collateral", "now", "code"),
    [
        (Collateral(((EvidenceKind.SNP_VTPM, AMD_ARK_GENOA),)), NOW, "untrusted-root"),
        (Collateral(((EvidenceKind.SNP, AMD_ARK_MILAN),)), NOW, "no-trusted-root"),
        (MILAN, calendar.timegm((2031, 1, 1, 0, 0, 0)), "certificate-expired"),
        (MILAN, calendar.timegm((2023, 1, 1, 0, 0, 0)), "certificate-not-yet-valid"),
    ],
    ids=["another product's root", "a root for another kind", "2031", "2023"],
)
def test_genuine_evidence_under_another_root_or_clock(collateral, now, code):
    with pytest.raises(VerificationError) as refusal:
        read_claims(loose(), collateral, now)
    assert refusal.value.code == code


@pytest.mark.parametrize("offset", [32 + 0x30, 32 + 0x50, 32 + 0x90, 1236 + 60, 2599])
def test_genuine_reports_do_not_bear_a_change(offset):
    report = bytearray(genuine("vtpm/hcl-report.bin"))
    report[offset] ^= 1
    evidence = import_vtpm_quote(bytes(report), parse_vtpm_quote(genuine("vtpm/quote.bin")), chain())
    with pytest.raises((DecodeError, VerificationError)):
        read_claims(evidence, MILAN, NOW)


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("certificates", ["vtpm/vcek.pem", "snp/ask_ark_milan.pem"])
def test_a_person_reads_the_documents_as_files(version, certificates, tmp_path):
    """The first bundle also holds the chip key of another machine: beside the evidence it does no harm."""
    for name in (f"vtpm/evidence-v{version}.json", certificates):
        (tmp_path / Path(name).name).write_bytes(genuine(name))
    exhibit = load_exhibit(
        tmp_path / f"evidence-v{version}.json",
        "snp-vtpm",
        certificates=[tmp_path / Path(certificates).name],
        at="2025-06-01",
    )
    assert exhibit.claims().report_data == b"challenge"


BAD_DOCUMENTS = {
    "no json": b"{",
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "version 2": b'{"version":2,"tpm_quote":{},"hcl_report":"","vcek":""}',
    "version true": b'{"version":"1","tpm_quote":{},"hcl_report":"","vcek":""}',
    "no quote": b'{"version":1,"hcl_report":"","vcek":""}',
    "numbers over a byte": b'{"quote":{"message":[256],"signature":[],"pcrs":[]},"report":[],"vcek":""}',
    "registers that are a number": b'{"quote":{"message":[],"signature":[],"pcrs":5},"report":[],"vcek":""}',
    "base64 that is none": b'{"version":1,"tpm_quote":{},"hcl_report":"****","vcek":""}',
    "hex that is none": b'{"version":1,"tpm_quote":{"message":"0g","signature":"","pcrs":[]},"hcl_report":"","vcek":""}',
    "a number for hex": b'{"version":1,"tpm_quote":{"message":5,"signature":"","pcrs":[]},"hcl_report":"","vcek":""}',
    "a certificate that is no text": b'{"quote":{"message":[],"signature":[],"pcrs":[]},"report":[],"vcek":"\\ud800"}',
    "a certificate that is none": b'{"version":1,"tpm_quote":{"message":"","signature":"","pcrs":[]},"hcl_report":"","vcek":""}',
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_documents_in_another_form_are_refused(name):
    with pytest.raises(DecodeError):
        import_az_snp_vtpm(BAD_DOCUMENTS[name])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.text(max_size=8)
    | st.sampled_from(["", "00", "AA==", "ff" * 40]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
QUOTES = st.fixed_dictionaries({}, optional={"message": JSON, "signature": JSON, "pcrs": JSON})


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": JSON,
            "quote": QUOTES,
            "tpm_quote": QUOTES,
            "report": JSON,
            "hcl_report": JSON,
            "vcek": JSON,
        },
    )
    | st.fixed_dictionaries({"version": st.just(1), "tpm_quote": QUOTES, "hcl_report": JSON, "vcek": JSON})
    | st.fixed_dictionaries({"quote": QUOTES, "report": JSON, "vcek": st.text()})
)
def test_any_document_is_refused(value):
    with pytest.raises(DecodeError):
        import_az_snp_vtpm(json.dumps(value).encode())


@pytest.mark.parametrize(
    "encoded", [b"", b"\xff" * 8, bytes(7), bytes(24) + b"x", bytes(16) + b"\x19" + bytes(7)], ids=range(5)
)
def test_quotes_in_another_form_are_refused(encoded):
    with pytest.raises(DecodeError) as refusal:
        parse_vtpm_quote(encoded)
    assert refusal.value.code == "import-malformed"
