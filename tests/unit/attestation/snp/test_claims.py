"""What the verifier reads out of reports, under a root of our own: every version, product and signing key."""

from __future__ import annotations

import pytest
from tests.support.snp_authority import DEBUG, MEASUREMENT, MIGRATION, POLICY, SnpAuthority

from cloister.attestation.claims import Claims, TcbStatus
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.snp_payload import build_snp_evidence
from cloister.attestation.verifiers.snp import verify_snp
from cloister.attestation.verify import appraise

NOW = 1_800_000_000
DATA = bytes(range(64))
MILAN = SnpAuthority.create("Milan")


def read(authority: SnpAuthority = MILAN, **options: object) -> Claims:
    return verify_snp(authority.report(DATA, **options), authority.collateral(), NOW)


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("signing_key", ["vcek", "vlek"])
@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_every_product_version_and_key(product: str, signing_key: str, version: int) -> None:
    authority = SnpAuthority.create(product)
    claims = read(authority, version=version, signing_key=signing_key)
    assert claims.measurement == MEASUREMENT
    assert claims.report_data == DATA
    assert claims.root == authority.fingerprint
    assert claims.svn == 1
    assert claims.attributes["product"] == product
    assert claims.attributes["report_version"] == version
    assert claims.attributes["signing_key"] == signing_key
    assert claims.attributes.get("provider") == ("provider" if signing_key == "vlek" else None)
    assert claims.attributes.get("launch_mitigations") == (3 if version == 5 else None)
    assert claims.tcb is not None
    assert ("fmc" in claims.tcb.versions) == (product == "Turin")


def test_it_appraises() -> None:
    policy = EnclavePolicy(EvidenceKind.SNP, frozenset({MILAN.fingerprint}), frozenset({MEASUREMENT}))
    appraisal = appraise(
        MILAN.evidence(DATA), policy=policy, expected_report_data=DATA, now=NOW, collateral=MILAN.collateral()
    )
    assert appraisal.kind is EvidenceKind.SNP
    assert appraisal.simulated is False


def test_a_version_over_127_is_one_byte_of_two_in_the_certificate() -> None:
    claims = read(reported_tcb={"microcode": 255, "snp": 128})
    assert claims.tcb is not None
    assert claims.tcb.versions["microcode"] == 255
    assert claims.tcb.versions["snp"] == 128


@pytest.mark.parametrize(
    ("bit", "attribute"),
    [
        (16, "smt"),
        (18, "migration_agent"),
        (20, "single_socket"),
        (21, "cxl_allowed"),
        (22, "aes256_xts"),
        (23, "rapl_disable_required"),
        (24, "ciphertext_hiding"),
        (25, "page_swap_disabled"),
    ],
)
def test_each_bit_of_the_guests_policy_is_its_own_attribute(bit: int, attribute: str) -> None:
    on = read(policy=1 << 17 | 1 << bit).attributes
    off = read(policy=1 << 17).attributes
    assert {name for name in on if on[name] != off[name]} == {attribute}
    assert (off[attribute], on[attribute]) == (False, True)


def test_debug_and_the_abi_floor() -> None:
    assert read(policy=POLICY).debug is False
    claims = read(policy=POLICY | DEBUG | 0x0137)
    assert claims.debug is True
    assert claims.attributes["abi"] == "1.55"


def test_a_migration_agent_shows_by_permission_and_by_presence() -> None:
    assert read().attributes["migration_agent"] is False
    assert read(policy=POLICY | MIGRATION).attributes["migration_agent"] is True
    assert read(migration_agent=b"\x07" * 32).attributes["migration_agent"] is True


@pytest.mark.parametrize(
    ("bit", "attribute"),
    [
        (0, "smt_enabled"),
        (1, "tsme"),
        (2, "ecc"),
        (3, "rapl_disabled"),
        (4, "ciphertext_hiding_enabled"),
        (5, "alias_check_complete"),
        (7, "tio_enabled"),
        (6, "platform_info_unknown"),
        (40, "platform_info_unknown"),
    ],
)
def test_each_bit_of_the_platform_is_its_own_attribute(bit: int, attribute: str) -> None:
    on = read(platform_info=1 << bit).attributes
    off = read(platform_info=0).attributes
    assert {name for name in on if on[name] != off[name]} == {attribute, "platform_info"}
    assert on["platform_info"] == 1 << bit


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_privilege_level_is_said(level: int) -> None:
    assert read(vmpl=level).attributes["vmpl"] == level


def test_a_level_below_the_committed_one_is_out_of_date() -> None:
    claims = read(reported_tcb={"snp": 20}, committed_tcb={"snp": 24})
    assert claims.tcb is not None
    assert claims.tcb.status is TcbStatus.OUT_OF_DATE
    assert claims.tcb.out_of_date_since is None
    assert claims.tcb.versions["snp"] == 20
    assert claims.attributes["reported_below_committed"] is True
    assert claims.attributes["provisional_firmware"] is False
    provisional = read(reported_tcb={"snp": 20}, committed_tcb={"snp": 20}, current_tcb={"snp": 24})
    assert provisional.tcb is not None
    assert provisional.tcb.status is TcbStatus.UP_TO_DATE
    assert provisional.attributes["provisional_firmware"] is True


def test_one_chip_is_one_platform_at_every_level_and_when_it_is_masked() -> None:
    first = read(chip="a")
    assert read(chip="a", reported_tcb={"snp": 20}, committed_tcb={"snp": 24}).platform == first.platform
    masked = read(chip="a", mask_chip=True)
    assert masked.platform == first.platform
    assert masked.attributes["chip_masked"] is True
    assert read(chip="b").platform != first.platform


def test_masked_machines_of_one_provider_are_one_platform() -> None:
    masked = [read(chip=chip, signing_key="vlek", mask_chip=True).platform for chip in "ab"]
    assert masked[0] == masked[1]
    shown = [read(chip=chip, signing_key="vlek").platform for chip in "ab"]
    assert len({*masked, *shown}) == 3


def test_what_the_owner_put_in_is_said_twice_over() -> None:
    claims = read(host_data=b"\x01" * 32, id_key_digest=b"\x02" * 48, author_key_digest=b"\x03" * 48)
    assert claims.registers["host_data"] == b"\x01" * 32
    assert claims.attributes["host_data"] == "01" * 32
    assert claims.registers["id_key_digest"] == b"\x02" * 48
    assert claims.attributes["id_key_digest"] == "02" * 48
    assert claims.registers["author_key_digest"] == b"\x03" * 48
    assert claims.attributes["author_key"] is True


def test_whether_revocation_was_looked_up_is_said() -> None:
    payload = MILAN.report(DATA)
    genoa = SnpAuthority.create("Genoa")
    assert verify_snp(payload, MILAN.collateral(), NOW).attributes["crl_checked"] is True
    assert verify_snp(payload, MILAN.collateral(crls=[]), NOW).attributes["crl_checked"] is False
    # Another product's list says nothing here, valid or not.
    assert verify_snp(payload, MILAN.collateral(crls=[genoa.crl(next_update=NOW - 1)]), NOW)
    stale_and_new = MILAN.collateral(crls=[MILAN.crl(next_update=NOW - 1), MILAN.crl()])
    assert verify_snp(payload, stale_and_new, NOW).attributes["crl_checked"] is True


def test_a_chip_number_as_an_octet_string_is_the_same_number() -> None:
    wrapped = MILAN.leaf(replace={"4": b"\x04\x40" + MILAN.chip_id()})
    payload = build_snp_evidence(MILAN.raw_report(DATA), [wrapped, MILAN.ask])
    assert verify_snp(payload, MILAN.collateral(), NOW) == read()


@pytest.mark.parametrize("name", ["Genoa-B1", "Genoa", "Bergamo-A1", "Siena-A0"])
def test_products_under_genoas_root(name: str) -> None:
    genoa = SnpAuthority.create("Genoa")
    payload = build_snp_evidence(genoa.raw_report(DATA), [genoa.leaf(product_name=name), genoa.ask])
    assert verify_snp(payload, genoa.collateral(), NOW).attributes["product"] == "Genoa"


def test_a_leased_key_is_found_among_collateral() -> None:
    collateral = MILAN.collateral(certificates=[MILAN.leaf(), MILAN.asvk, MILAN.leaf(signing_key="vlek"), MILAN.ask])
    for signing_key in ("vcek", "vlek"):
        payload = build_snp_evidence(MILAN.raw_report(DATA, signing_key=signing_key))
        assert verify_snp(payload, collateral, NOW).attributes["signing_key"] == signing_key
