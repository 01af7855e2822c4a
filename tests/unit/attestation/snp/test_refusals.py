"""What is refused, each with the name of its reason. The signatures are right wherever the case is not about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.x509 import (
    IssuingDistributionPoint,
    SubjectKeyIdentifier,
    UniformResourceIdentifier,
    load_der_x509_certificate,
)
from tests.support.rsa_keys import rsa_key
from tests.support.snp_authority import NOT_AFTER, NOT_BEFORE, SnpAuthority

from cloister.attestation.cbor import Value, build_cbor
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.snp_payload import build_snp_evidence
from cloister.attestation.verifiers.amd_certificates import parse_certificate
from cloister.attestation.verifiers.snp import verify_snp
from cloister.attestation.verifiers.snp_report import SIGNED_SIZE
from cloister.errors import DecodeError, VerificationError

NOW = 1_800_000_000
DATA = bytes(range(64))
MILAN = SnpAuthority.create("Milan")
GENOA = SnpAuthority.create("Genoa")
TURIN = SnpAuthority.create("Turin")
IMPOSTOR = SnpAuthority.create("Milan", stranger=True)
P384_ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)


@dataclass(frozen=True, slots=True)
class Case:
    payload: bytes
    collateral: Collateral = MILAN.collateral()  # noqa: RUF009  # one value for all, as it is frozen
    now: int = NOW


def signed(patch: Mapping[int, bytes] | None = None, authority: SnpAuthority = MILAN, **options: object) -> Case:
    """The firmware itself signed something wrong."""
    return Case(authority.report(DATA, patch=patch, **options), authority.collateral())


def after(offset: int, value: bytes) -> Case:
    """Somebody changed a signed report."""
    raw = MILAN.raw_report(DATA)
    return Case(build_snp_evidence(raw[:offset] + value + raw[offset + len(value) :], MILAN.chain()))


def with_leaf(leaf: bytes, **options: object) -> Case:
    return Case(build_snp_evidence(MILAN.raw_report(DATA, **options), [leaf, MILAN.ask]))


def with_chain(*chain: bytes, authority: SnpAuthority = MILAN) -> Case:
    return Case(build_snp_evidence(authority.raw_report(DATA), chain), authority.collateral())


def with_lists(*crls: bytes) -> Case:
    return Case(MILAN.report(DATA), MILAN.collateral(crls=crls))


def payload(value: Value) -> Case:
    return Case(build_cbor(value))


def revoked(*serials: int, **options: int) -> Case:
    authority = SnpAuthority.create("Milan")
    authority.revoke(*serials)
    return Case(MILAN.report(DATA), MILAN.collateral(crls=[authority.crl(**options)]))


def other_key(signing_key: str) -> Case:
    """A report that says one kind of key signed it, with the chain of the other."""
    raw = MILAN.raw_report(DATA, signing_key=signing_key)
    return Case(build_snp_evidence(raw, MILAN.chain(signing_key="vlek" if signing_key == "vcek" else "vcek")))


def published(*, only_contains_user_certs: bool = False) -> IssuingDistributionPoint:
    return IssuingDistributionPoint(
        full_name=[UniformResourceIdentifier("https://vendor.example/crl")],
        relative_name=None,
        only_contains_user_certs=only_contains_user_certs,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )


def root_without_authority() -> Case:
    root = MILAN.certificate("ARK-Milan", "ARK-Milan", authority=False, extensions=[SubjectKeyIdentifier(b"root")])
    return Case(MILAN.report(DATA), Collateral(((EvidenceKind.SNP, root),)))


def outer_algorithm() -> Case:
    """The unsigned copy of the algorithm, in the other way to write it."""
    leaf = MILAN.leaf()
    written = bytes.fromhex("a203020130")
    at = leaf.rindex(written)
    return with_leaf(leaf[:at] + bytes.fromhex("a203020131") + leaf[at + 5 :])


def behind_the_certificate() -> Case:
    return with_leaf(MILAN.leaf() + b"\x00")


RAW = MILAN.raw_report(DATA)
CASES: dict[str, tuple[Callable[[], Case], str]] = {
    # the payload
    "empty": (lambda: Case(b""), "malformed"),
    "text": (lambda: payload("snp"), "evidence-malformed"),
    "two members": (lambda: payload([1, RAW]), "evidence-malformed"),
    "four members": (lambda: payload([1, RAW, [], b""]), "evidence-malformed"),
    "payload version 2": (lambda: payload([2, RAW, []]), "evidence-version"),
    "payload version true": (lambda: payload([True, RAW, []]), "evidence-version"),
    "report as text": (lambda: payload([1, "r" * 1184, []]), "evidence-malformed"),
    "report one byte short": (lambda: payload([1, RAW[:-1], []]), "snp-length"),
    "report one byte long": (lambda: payload([1, RAW + b"\x00", []]), "snp-length"),
    "report in its guest message": (lambda: payload([1, bytes(32) + RAW, []]), "snp-length"),
    "five certificates": (
        lambda: payload([1, RAW, [*MILAN.chain(), MILAN.ark, MILAN.asvk, b"0"]]),
        "evidence-malformed",
    ),
    "an empty certificate": (lambda: payload([1, RAW, [b""]]), "evidence-malformed"),
    "a certificate of 4,097 bytes": (lambda: payload([1, RAW, [b"0" * 4097]]), "evidence-malformed"),
    "bytes behind the payload": (lambda: Case(MILAN.report(DATA) + b"\x00"), "trailing-bytes"),
    # the report's form
    "report version 0": (lambda: signed({0x00: b"\x00"}), "snp-version"),
    "report version 1": (lambda: signed({0x00: b"\x01"}), "snp-version"),
    "report version 6": (lambda: signed({0x00: b"\x06"}), "snp-version"),
    "report version 2 in the wrong order": (lambda: signed({0x00: b"\x00\x00\x00\x02"}), "snp-version"),
    "signature algorithm 0": (lambda: signed({0x34: b"\x00"}), "snp-signature-algorithm"),
    "signature algorithm 2": (lambda: signed({0x34: b"\x02"}), "snp-signature-algorithm"),
    "policy without its fixed bit": (lambda: signed(policy=1 << 16), "snp-policy"),
    "policy with an unknown bit": (lambda: signed(policy=1 << 17 | 1 << 26), "snp-policy"),
    "policy with the highest bit": (lambda: signed(policy=1 << 17 | 1 << 63), "snp-policy"),
    "privilege level 4": (lambda: signed(vmpl=4), "snp-vmpl"),
    "asked for by the host": (lambda: signed(vmpl=2**32 - 1), "snp-vmpl"),
    "reserved bit beside the key flags": (lambda: signed({0x48: b"\x20"}), "snp-reserved"),
    "reserved bytes at 0x4c": (lambda: signed({0x4C: b"\x01"}), "snp-reserved"),
    "version 2 with a processor": (lambda: signed({0x188: b"\x19"}, version=2), "snp-reserved"),
    "reserved bytes behind the processor": (lambda: signed({0x18B: b"\x01"}), "snp-reserved"),
    "reserved byte in the firmware version": (lambda: signed({0x1EB: b"\x01"}), "snp-reserved"),
    "version 3 with mitigations": (lambda: signed({0x1F8: b"\x01"}), "snp-reserved"),
    "version 4 with mitigations": (lambda: signed({0x200: b"\x01"}, version=4), "snp-reserved"),
    "reserved bytes at the end": (lambda: signed({0x29F: b"\x01"}, version=5), "snp-reserved"),
    "reserved byte of a Milan TCB": (lambda: signed({0x182: b"\x01"}), "snp-reserved"),
    "reserved byte of a Turin TCB": (lambda: signed({0x1E5: b"\x01"}, TURIN), "snp-reserved"),
    "reserved byte of the launch TCB": (lambda: signed({0x1F3: b"\x01"}), "snp-reserved"),
    "bytes behind the signature": (lambda: after(0x330, b"\x01"), "snp-reserved"),
    "the last byte": (lambda: after(1183, b"\x01"), "snp-reserved"),
    # the report's signature
    "r longer than its curve": (lambda: after(SIGNED_SIZE + 48, b"\x01"), "snp-signature-format"),
    "s longer than its curve": (lambda: after(SIGNED_SIZE + 72 + 71, b"\x01"), "snp-signature-format"),
    "r zero": (lambda: after(SIGNED_SIZE, bytes(48)), "snp-signature-format"),
    "s zero": (lambda: after(SIGNED_SIZE + 72, bytes(48)), "snp-signature-format"),
    "r the order": (lambda: after(SIGNED_SIZE, P384_ORDER.to_bytes(48, "little")), "snp-signature-format"),
    "no signature at all": (lambda: after(SIGNED_SIZE, bytes(144)), "snp-signature-format"),
    "r and s exchanged": (
        lambda: after(SIGNED_SIZE, RAW[SIGNED_SIZE + 72 : SIGNED_SIZE + 144] + RAW[SIGNED_SIZE : SIGNED_SIZE + 72]),
        "evidence-signature",
    ),
    "big-endian numbers": (lambda: after(SIGNED_SIZE, RAW[SIGNED_SIZE : SIGNED_SIZE + 48][::-1]), "evidence-signature"),
    "another measurement": (lambda: after(0x90, bytes(48)), "evidence-signature"),
    "other report data": (lambda: after(0x50, bytes(64)), "evidence-signature"),
    "debug bit cleared": (
        lambda: Case(
            build_snp_evidence(
                MILAN.raw_report(DATA, policy=0xB0000)[:8]
                + (0x30000).to_bytes(8, "little")
                + MILAN.raw_report(DATA, policy=0xB0000)[16:],
                MILAN.chain(),
            )
        ),
        "evidence-signature",
    ),
    "signed by another key": (
        lambda: Case(
            build_snp_evidence(MILAN.sign(RAW[:SIGNED_SIZE], ec.derive_private_key(7, ec.SECP384R1())), MILAN.chain())
        ),
        "evidence-signature",
    ),
    "signed at another level": (
        lambda: Case(
            build_snp_evidence(MILAN.sign(RAW[:SIGNED_SIZE], MILAN.signing_key(tcb={"snp": 9})), MILAN.chain())
        ),
        "evidence-signature",
    ),
    # which key signed
    "signing key none": (lambda: signed({0x48: bytes([7 << 2])}), "snp-signing-key"),
    "signing key reserved": (lambda: signed({0x48: bytes([2 << 2])}), "snp-signing-key"),
    "chip key masked": (lambda: signed({0x48: b"\x02"}), "snp-signing-key"),
    "says VCEK, is VLEK": (lambda: other_key("vcek"), "snp-signing-key"),
    "says VLEK, is VCEK": (lambda: other_key("vlek"), "snp-signing-key"),
    "author key digest without an author key": (lambda: signed({0x110: b"\x01"}), "snp-author-key"),
    # chip, product, firmware level
    "another chip's certificate": (
        lambda: with_leaf(MILAN.leaf(chip="other", public=MILAN.signing_key().public_key())),
        "snp-chip-mismatch",
    ),
    "one byte of the chip's number": (
        lambda: with_leaf(MILAN.leaf(replace={"4": MILAN.chip_id()[:-1] + b"\x00"})),
        "snp-chip-mismatch",
    ),
    "a Turin chip number of eight bytes and more": (
        lambda: signed({0x1A0: TURIN.chip_id()[:8] + b"\x01"}, TURIN),
        "snp-chip-mismatch",
    ),
    "a chip number of eight bytes for Milan": (
        lambda: with_leaf(MILAN.leaf(replace={"4": MILAN.chip_id()[:8]})),
        "certificate-role",
    ),
    "no chip number": (lambda: with_leaf(MILAN.leaf(without=["4"])), "certificate-role"),
    "a leased key with a chip": (
        lambda: Case(
            build_snp_evidence(
                MILAN.raw_report(DATA, signing_key="vlek"),
                [MILAN.leaf(signing_key="vlek", replace={"4": MILAN.chip_id()}), MILAN.asvk],
            )
        ),
        "certificate-role",
    ),
    "a leased key without a provider": (
        lambda: Case(
            build_snp_evidence(
                MILAN.raw_report(DATA, signing_key="vlek"),
                [MILAN.leaf(signing_key="vlek", without=["5"]), MILAN.asvk],
            )
        ),
        "certificate-role",
    ),
    "certificate of a newer level": (
        lambda: with_leaf(MILAN.leaf(tcb={"snp": 25}, public=MILAN.signing_key().public_key())),
        "snp-tcb-mismatch",
    ),
    "certificate of an older microcode": (
        lambda: with_leaf(MILAN.leaf(replace={"3.8": b"\x02\x01\x01"})),
        "snp-tcb-mismatch",
    ),
    "certificate with a negative version": (
        lambda: with_leaf(MILAN.leaf(replace={"3.8": b"\x02\x01\xdb"})),
        "snp-tcb-mismatch",
    ),
    "certificate without a microcode version": (lambda: with_leaf(MILAN.leaf(without=["3.8"])), "certificate-role"),
    "version as text": (lambda: with_leaf(MILAN.leaf(replace={"3.3": b"\x16\x0224"})), "certificate-malformed"),
    "version with a leading zero": (
        lambda: with_leaf(MILAN.leaf(replace={"3.3": b"\x02\x02\x00\x18"})),
        "certificate-malformed",
    ),
    "a Turin certificate without its controller's version": (
        lambda: with_chain(TURIN.leaf(without=["3.9"]), TURIN.ask, authority=TURIN),
        "certificate-role",
    ),
    "reported above committed": (
        lambda: signed(reported_tcb={"snp": 24}, committed_tcb={"snp": 23}, current_tcb={"snp": 24}),
        "snp-tcb-order",
    ),
    "committed above current": (
        lambda: signed(reported_tcb={"snp": 20}, committed_tcb={"snp": 24}, current_tcb={"snp": 23}),
        "snp-tcb-order",
    ),
    "lower in one part only": (
        lambda: signed(
            reported_tcb={"snp": 20, "microcode": 200}, committed_tcb={"snp": 24, "microcode": 199}, current_tcb={}
        ),
        "snp-tcb-order",
    ),
    "a Genoa processor under Milan's root": (lambda: signed({0x188: b"\x19\x11"}), "snp-product"),
    "a processor that is not known": (lambda: signed({0x188: b"\x1b\x01"}), "snp-product"),
    "no processor in version 3": (lambda: signed({0x188: b"\x00\x00"}), "snp-product"),
    "a product that is not known": (lambda: with_leaf(MILAN.leaf(product_name="Rome-B0")), "snp-product"),
    "another product's name": (lambda: with_leaf(MILAN.leaf(product_name="Genoa-B0")), "certificate-role"),
    "no product": (lambda: with_leaf(MILAN.leaf(without=["2"])), "certificate-role"),
    # the chain
    "issuer without extensions": (
        lambda: with_chain(MILAN.leaf(), MILAN.certificate("SEV-Milan", "ARK-Milan", authority=False)),
        "certificate-malformed",
    ),
    "no root named": (lambda: Case(MILAN.report(DATA), Collateral()), "no-trusted-root"),
    "a root of the same name": (lambda: Case(IMPOSTOR.report(DATA), MILAN.collateral()), "untrusted-root"),
    "brings its own root": (
        lambda: with_chain(IMPOSTOR.leaf(), IMPOSTOR.ask, IMPOSTOR.ark),
        "untrusted-root",
    ),
    "an untrusted root beside a good chain": (lambda: with_chain(*MILAN.chain(), IMPOSTOR.ark), "untrusted-root"),
    "another product's root": (lambda: Case(GENOA.report(DATA), MILAN.collateral()), "untrusted-root"),
    "no issuer": (lambda: with_chain(MILAN.leaf()), "certificate-missing"),
    "the other issuer": (lambda: with_chain(MILAN.leaf(), MILAN.asvk), "certificate-missing"),
    "no certificate at all": (with_chain, "certificate-missing"),
    "the wrong order": (lambda: with_chain(MILAN.ask, MILAN.leaf()), "certificate-missing"),
    "a certificate twice": (lambda: with_chain(*MILAN.chain(), MILAN.ask), "certificate-unexpected"),
    "a certificate too many": (lambda: with_chain(*MILAN.chain(), MILAN.asvk), "certificate-unexpected"),
    "leaf not signed by its issuer": (
        lambda: with_leaf(MILAN.leaf(signer="stranger")),
        "certificate-signature",
    ),
    "leaf signed by the root": (
        lambda: with_chain(MILAN.leaf(issuer="ARK-Milan", signer="root"), MILAN.ark),
        "certificate-role",
    ),
    "leaf that may sign certificates": (lambda: with_leaf(MILAN.leaf(authority=True)), "certificate-role"),
    "issuer that is no authority": (
        lambda: with_chain(
            MILAN.leaf(),
            MILAN.certificate(
                "SEV-Milan",
                "ARK-Milan",
                public=rsa_key("issuer").public_key(),
                authority=False,
                extensions=[SubjectKeyIdentifier(b"issuer")],
            ),
        ),
        "certificate-role",
    ),
    "root that is no authority": (root_without_authority, "certificate-role"),
    "leaf of another name": (lambda: with_leaf(MILAN.leaf(subject="SEV-PEK")), "certificate-role"),
    "a chip's key from the leased keys' issuer": (
        lambda: with_chain(MILAN.leaf(issuer="SEV-VLEK-Milan"), MILAN.asvk),
        "certificate-role",
    ),
    "leaf on P-256": (
        lambda: with_leaf(MILAN.leaf(public=ec.derive_private_key(7, ec.SECP256R1()).public_key())),
        "certificate-key",
    ),
    "leaf with an RSA key": (lambda: with_leaf(MILAN.leaf(public=rsa_key("issuer").public_key())), "certificate-key"),
    "issuer of 2,048 bits": (
        lambda: with_chain(
            MILAN.leaf(),
            MILAN.certificate("SEV-Milan", "ARK-Milan", public=rsa.generate_private_key(65537, 2048).public_key()),
        ),
        "certificate-key",
    ),
    "leaf not valid yet": (lambda: with_leaf(MILAN.leaf(not_before=NOW + 1)), "certificate-not-yet-valid"),
    "leaf expired": (lambda: with_leaf(MILAN.leaf(not_after=NOW - 1)), "certificate-expired"),
    "issuer expired": (
        lambda: with_chain(
            MILAN.leaf(),
            MILAN.certificate(
                "SEV-Milan", "ARK-Milan", public=rsa_key("issuer").public_key(), not_after=NOW - 1, serial=9
            ),
        ),
        "certificate-expired",
    ),
    "before the root": (lambda: Case(MILAN.report(DATA), now=NOT_BEFORE - 1), "certificate-not-yet-valid"),
    "after the root": (lambda: Case(MILAN.report(DATA), now=NOT_AFTER + 1), "certificate-expired"),
    "PKCS #1 v1.5": (lambda: with_leaf(MILAN.leaf(pss=padding.PKCS1v15())), "certificate-malformed"),
    "a salt of 32 bytes": (
        lambda: with_leaf(MILAN.leaf(pss=padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=32))),
        "certificate-malformed",
    ),
    "outer algorithm that differs": (outer_algorithm, "certificate-malformed"),
    "bytes behind a certificate": (behind_the_certificate, "certificate-malformed"),
    "critical extension that is not known": (lambda: with_leaf(MILAN.leaf(critical=True)), "certificate-malformed"),
    "a certificate that is none": (lambda: with_leaf(b"\x30\x03\x02\x01\x00"), "certificate-malformed"),
    "a certificate cut short": (lambda: with_leaf(MILAN.leaf()[:-1]), "certificate-malformed"),
    # revocation
    "issuer revoked": (revoked, "certificate-revoked"),
    "root revoked by itself": (lambda: revoked(0x1_0000), "certificate-revoked"),
    "revoked by a list that has expired": (lambda: revoked(next_update=NOW - 1), "certificate-revoked"),
    "list expired": (lambda: with_lists(MILAN.crl(next_update=NOW - 1)), "collateral-expired"),
    "list dated ahead": (lambda: with_lists(MILAN.crl(this_update=NOW + 1)), "collateral-not-yet-valid"),
    "list not signed by the root": (lambda: with_lists(MILAN.crl(signer="issuer")), "collateral-signature"),
    "list of the intermediate, which may not sign lists": (
        lambda: with_lists(MILAN.crl(issuer="SEV-Milan", signer="issuer")),
        "collateral-signature",
    ),
    "list with a critical extension": (lambda: with_lists(MILAN.crl(critical=True)), "collateral-malformed"),
    "list for part of the certificates": (
        lambda: with_lists(MILAN.crl(distribution=published(only_contains_user_certs=True))),
        "collateral-malformed",
    ),
    "list that is none": (lambda: with_lists(b"\x30\x00"), "collateral-malformed"),
    "list cut short": (lambda: with_lists(MILAN.crl()[:-1]), "collateral-malformed"),
    "bytes behind a list": (lambda: with_lists(MILAN.crl() + b"\x00"), "collateral-malformed"),
    "collateral certificate that is none": (
        lambda: Case(MILAN.report(DATA), MILAN.collateral(certificates=[b"0"])),
        "collateral-malformed",
    ),
    "65 collateral certificates": (
        lambda: Case(MILAN.report(DATA), MILAN.collateral(certificates=[MILAN.ask] * 65)),
        "collateral-malformed",
    ),
    "65 lists": (lambda: with_lists(*[MILAN.crl()] * 65), "collateral-malformed"),
    "a leaf of another chip in collateral": (
        lambda: Case(
            build_snp_evidence(MILAN.raw_report(DATA)), MILAN.collateral(certificates=[MILAN.leaf(chip="b"), MILAN.ask])
        ),
        "certificate-missing",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(name: str) -> None:
    make, code = CASES[name]
    case = make()
    with pytest.raises((DecodeError, VerificationError)) as caught:
        verify_snp(case.payload, case.collateral, case.now)
    assert caught.value.code == code
    assert len(caught.value.message) < 200


def test_the_case_that_all_others_change_is_accepted() -> None:
    assert verify_snp(MILAN.report(DATA), MILAN.collateral(), NOW).report_data == DATA


def test_every_byte_that_the_firmware_signed_counts() -> None:
    chain, collateral = MILAN.chain(), MILAN.collateral()
    for position in range(SIGNED_SIZE):
        changed = bytearray(RAW)
        changed[position] ^= 1 << position % 8
        with pytest.raises((DecodeError, VerificationError)):
            verify_snp(build_snp_evidence(bytes(changed), chain), collateral, NOW)


def test_no_byte_of_the_payload_is_free() -> None:
    """What the host could change unseen would give one piece of evidence many faces."""
    whole, collateral = MILAN.report(DATA), MILAN.collateral()
    for position in (*range(0, len(whole), 4), len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        with pytest.raises((DecodeError, VerificationError)):
            verify_snp(bytes(changed), collateral, NOW)


def resigned(leaf: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A leaf whose signed part is changed, at its length, and signed again by its issuer."""
    old = load_der_x509_certificate(leaf).tbs_certificate_bytes
    new = change(old)
    signature = rsa_key("issuer").sign(new, padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48), SHA384())
    return leaf.replace(old, new)[: -len(signature)] + signature


def test_a_key_that_is_no_point_is_refused_by_name() -> None:
    x = MILAN.signing_key().public_key().public_numbers().x.to_bytes(48, "big")
    leaf = resigned(MILAN.leaf(), lambda signed: signed.replace(x, bytes(47) + b"\x05"))
    with pytest.raises(VerificationError) as caught:
        verify_snp(build_snp_evidence(RAW, [leaf, MILAN.ask]), MILAN.collateral(), NOW)
    assert caught.value.code == "certificate-key"


def test_the_serial_number_zero_is_accepted_as_amd_gives_it() -> None:
    leaf = resigned(MILAN.leaf(serial=1), lambda signed: signed.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1))
    assert parse_certificate(leaf).serial == b"\x00"
    assert verify_snp(build_snp_evidence(RAW, [leaf, MILAN.ask]), MILAN.collateral(), NOW)


def test_a_default_that_is_written_out_is_no_der() -> None:
    """``critical: false`` in place of nothing would be a second encoding of one certificate."""
    leaf = resigned(MILAN.leaf(critical=True), lambda signed: signed.replace(b"\x01\x01\xff", b"\x01\x01\x00"))
    with pytest.raises(DecodeError) as caught:
        verify_snp(build_snp_evidence(RAW, [leaf, MILAN.ask]), MILAN.collateral(), NOW)
    assert caught.value.code == "certificate-malformed"


def test_a_list_that_says_where_it_is_published() -> None:
    collateral = MILAN.collateral(crls=[MILAN.crl(distribution=published())])
    assert verify_snp(MILAN.report(DATA), collateral, NOW).attributes["crl_checked"] is True


def test_documents_of_another_kind_are_not_looked_at() -> None:
    authority = SnpAuthority.create("Milan")
    authority.revoke()
    collateral = MILAN.collateral().with_documents([Document(EvidenceKind.TDX, "crl", authority.crl())])
    assert verify_snp(MILAN.report(DATA), collateral, NOW)
