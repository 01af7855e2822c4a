"""Evidence of Azure's confidential VMs that holds, and what its claims say."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from tests.support.snp_authority import MEASUREMENT
from tests.support.tpm_authority import Boot, boot_pcrs
from tests.support.vtpm_authority import NOW, VtpmAuthority, encode_vtpm

from cloister.attestation.collateral import Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verify import read_claims

REPORT_DATA = hashlib.sha512(b"report").digest()
VM = VtpmAuthority()


def claims_of(parts, collateral=None):
    return read_claims(encode_vtpm(parts), collateral or VM.collateral(), NOW)


def test_claims_say_both_halves():
    boot = Boot(secure_boot=True)
    claims = claims_of(VM.parts(REPORT_DATA, boot=boot, report={"guest_svn": 4}))
    assert (claims.kind, claims.report_data) == (EvidenceKind.SNP_VTPM, REPORT_DATA)
    assert (claims.measurement, claims.svn, claims.debug) == (MEASUREMENT, 4, False)
    assert claims.root == hashlib.sha256(VM.snp.ark).digest()
    assert (claims.app_digest, claims.issued_at) == (None, None)
    assert {f"pcr{index}": value for index, value in boot_pcrs(boot.log()).items()}.items() <= claims.registers.items()
    assert "host_data" in claims.registers
    told = {
        "vmpl": 0,
        "crl_checked": True,
        "secure_boot": True,
        "vtpm": True,
        "console": True,
        "vm_id": "911B0EF8-9DBA-48B0-B275-4E4DF2D39252",
        "user_data": "00" * 64,
        "reset_count": 7,
        "kernel_authenticode": hashlib.sha256(b"kernel").hexdigest(),
    }
    assert told.items() <= claims.attributes.items()
    # The initramfs is in a register that the running system goes on extending: its log is not held against the quote.
    assert "initrd_sha256" not in claims.attributes


def test_without_report_data_the_claims_tell_the_nonce_as_it_is():
    parts = replace(VM.parts(REPORT_DATA, extra_data=b"challenge"), report_data=b"")
    assert claims_of(parts).report_data == b"challenge"


def test_an_event_log_is_not_needed():
    claims = claims_of(replace(VM.parts(REPORT_DATA), event_log=b""))
    assert claims.registers["pcr4"] == boot_pcrs(Boot().log())[4]
    assert "kernel_authenticode" not in claims.attributes


def test_fewer_registers_are_the_policys_matter():
    pcrs = {4: boot_pcrs(Boot().log())[4]}
    claims = claims_of(VM.parts(REPORT_DATA, pcrs=pcrs))
    assert [name for name in claims.registers if name.startswith("pcr")] == ["pcr4"]


def test_what_the_system_extends_later_is_not_in_the_firmwares_log():
    later = boot_pcrs(Boot().log()) | {10: b"\x0a" * 32, 12: b"\x0c" * 32}
    assert claims_of(VM.parts(REPORT_DATA, pcrs=later)).registers["pcr10"] == b"\x0a" * 32


@pytest.mark.parametrize("kind", [EvidenceKind.SNP, EvidenceKind.SNP_VTPM])
def test_the_vendors_pieces_count_under_either_kind(kind):
    parts = VM.parts(REPORT_DATA)
    chip, issuer = parts.certificates
    documents = (Document(kind, "certificate", issuer), Document(kind, "crl", VM.snp.crl()))
    claims = claims_of(replace(parts, certificates=(chip,)), replace(VM.collateral(), documents=documents))
    assert claims.attributes["crl_checked"] is True


def test_claims_of_the_vm_in_another_form_are_left_out():
    setup = {"secure-boot": "yes", "tpm-enabled": 1, "vmUniqueId": 5}
    hcl = VM.hcl(VM.claims(**{"vm-configuration": setup, "user-data": "zz"}))
    attributes = claims_of(replace(VM.parts(REPORT_DATA), hcl_report=hcl, event_log=b"")).attributes
    assert not {"secure_boot", "vtpm", "console", "vm_id", "user_data"} & set(attributes)
