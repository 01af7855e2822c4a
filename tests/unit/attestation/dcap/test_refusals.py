"""What TDX and SGX have in common: each way to break a quote, its chain or its collateral has its own name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import pytest
from tests.support.dcap_authority import Knobs, serial_of, spec
from tests.unit.attestation.dcap.cases import (
    AUTHORITY,
    BODY,
    DAY,
    IMPOSTOR,
    MACHINE,
    NOW,
    QUOTES,
    SGX,
    TDX,
    Case,
    cut,
    documents,
    flip,
    knobs,
    made,
    members,
    put,
    quote,
    refusal,
)

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.dcap_collateral import MAX_DOCUMENT
from cloister.attestation.verifiers.dcap_quote import MAX_QUOTE

OTHER = {TDX: SGX, SGX: TDX}
U32 = b"\xff" * 4


def length_at(kind: EvidenceKind) -> int:
    """Where the signature data's length stands."""
    return 48 + BODY[kind]


def qe_at(kind: EvidenceKind) -> int:
    """Where the QE's report stands."""
    return length_at(kind) + 4 + 128 + (6 if kind is TDX else 0)


def authentication_at(kind: EvidenceKind) -> int:
    return qe_at(kind) + 384 + 64


def signed_by_pck(value: dict[str, str], kind: EvidenceKind) -> None:
    """TCB info that a platform's own key signed: it leads to the same root."""
    forged = AUTHORITY.members(kind, Knobs(tcb_signer=f"pck/{MACHINE.name}"))
    value["tcb_info_signature"] = forged["tcb_info_signature"]
    value["tcb_info_issuer_chain"] = AUTHORITY.pck_chain(MACHINE).decode().rstrip("\0")


Build = Callable[[EvidenceKind], Case]

LAYOUT: dict[str, tuple[Build, str]] = {
    "nothing": (lambda kind: Case(payload=b""), "quote-truncated"),
    "half a header": (lambda kind: cut(kind, lambda q: q[:24]), "quote-truncated"),
    "cut inside the body": (lambda kind: cut(kind, lambda q: q[:300]), "quote-truncated"),
    "cut before the signature data's length": (
        lambda kind: cut(kind, lambda q: q[: length_at(kind)]),
        "quote-truncated",
    ),
    "last byte missing": (lambda kind: cut(kind, lambda q: q[:-1]), "quote-truncated"),
    "a byte behind": (lambda kind: cut(kind, lambda q: q + b"\x01"), "quote-trailing-bytes"),
    "a byte behind the padding": (lambda kind: cut(kind, lambda q: q + bytes(64) + b"\x01"), "quote-trailing-bytes"),
    "another quote behind": (lambda kind: cut(kind, lambda q: q + q), "quote-trailing-bytes"),
    "over the cap": (lambda kind: cut(kind, lambda q: q + bytes(MAX_QUOTE)), "quote-too-large"),
    "a hundred megabytes": (lambda kind: Case(payload=bytes(100_000_000)), "quote-too-large"),
    "version 2": (lambda kind: cut(kind, put(0, b"\x02\x00")), "quote-version"),
    "version 6": (lambda kind: cut(kind, put(0, b"\x06\x00")), "quote-version"),
    "key type P-384": (lambda kind: cut(kind, put(2, b"\x03\x00")), "quote-key-type"),
    "key type EPID": (lambda kind: cut(kind, put(2, b"\x00\x00")), "quote-key-type"),
    "the other TEE's quote": (lambda kind: Case(payload=QUOTES[OTHER[kind]]), "quote-tee-type"),
    "a TEE that nobody knows": (lambda kind: cut(kind, put(4, b"\x82\x00\x00\x00")), "quote-tee-type"),
    "signature data of 2^32-1 bytes": (lambda kind: cut(kind, put(length_at(kind), U32)), "quote-truncated"),
    "signature data of no bytes": (lambda kind: cut(kind, put(length_at(kind), bytes(4))), "quote-trailing-bytes"),
    "signature data a byte short": (
        lambda kind: cut(kind, lambda q: put(length_at(kind), struct.pack("<I", len(q) - length_at(kind) - 5))(q)),
        "quote-trailing-bytes",
    ),
    "signature data that ends in the key": (
        lambda kind: cut(kind, lambda q: put(length_at(kind), struct.pack("<I", 100))(q)[: length_at(kind) + 104]),
        "quote-length",
    ),
    "authentication data of 33 bytes": (
        lambda kind: cut(kind, put(authentication_at(kind), b"\x21\x00")),
        "quote-length",
    ),
    "authentication data of 65535 bytes": (
        lambda kind: cut(kind, put(authentication_at(kind), b"\xff\xff")),
        "quote-length",
    ),
    "certification data of 2^32-1 bytes": (
        lambda kind: cut(kind, put(authentication_at(kind) + 2 + 32 + 2, U32)),
        "quote-length",
    ),
    "certification data of a type unknown": (lambda kind: made(kind, certification_type=9), "quote-certification-type"),
    "a QE report inside the QE report": (lambda kind: made(kind, certification_type=6), "quote-certification-type"),
    "the platform's id in the chain's place": (lambda kind: made(kind, certification_type=3), "collateral-missing"),
}

CHAIN: dict[str, tuple[Build, str]] = {
    "no root is trusted": (
        lambda kind: Case(collateral=Collateral((), AUTHORITY.collateral(kind).documents)),
        "no-trusted-root",
    ),
    "a root for the other kind only": (
        lambda kind: Case(
            collateral=Collateral(((OTHER[kind], AUTHORITY.root),), AUTHORITY.collateral(kind).documents)
        ),
        "no-trusted-root",
    ),
    "a trusted root that is no certificate": (
        lambda kind: Case(collateral=Collateral(((kind, b"root"),), AUTHORITY.collateral(kind).documents)),
        "certificate-malformed",
    ),
    "another root of the same name": (
        lambda kind: Case(collateral=Collateral(IMPOSTOR.roots(), AUTHORITY.collateral(kind).documents)),
        "untrusted-root",
    ),
    "an impostor's quote and collateral": (
        lambda kind: Case(
            payload=quote(kind, IMPOSTOR),
            collateral=Collateral(AUTHORITY.roots(), IMPOSTOR.collateral(kind).documents),
        ),
        "untrusted-root",
    ),
    "an impostor's collateral": (
        lambda kind: Case(collateral=Collateral(AUTHORITY.roots(), IMPOSTOR.collateral(kind).documents)),
        "untrusted-root",
    ),
    "PCK chain without its CA": (
        lambda kind: made(
            kind, chain=AUTHORITY.pck_chain(MACHINE).split(b"-----END")[0] + b"-----END CERTIFICATE-----\n"
        ),
        "untrusted-root",
    ),
    "PCK chain of nothing": (lambda kind: made(kind, chain=b""), "certificate-malformed"),
    "PCK chain of noise": (
        lambda kind: made(kind, chain=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "certificate-malformed",
    ),
    "PCK chain of forty certificates": (
        lambda kind: made(kind, chain=AUTHORITY.pck_chain(MACHINE)[:-1] * 13),
        "certificate-malformed",
    ),
    "CA certificate as the PCK": (
        lambda kind: made(kind, chain=AUTHORITY.pck_chain(MACHINE).split(b"-----END CERTIFICATE-----\n", 1)[1]),
        "certificate-chain",
    ),
    "PCK of another platform": (
        lambda kind: made(kind, chain=AUTHORITY.pck_chain(AUTHORITY.machine("two"))),
        "qe-report-signature",
    ),
    "PCK expired": (
        lambda kind: made(kind, machine=AUTHORITY.machine("old", not_after=NOW - 1)),
        "certificate-expired",
    ),
    "signer expired": (lambda kind: knobs(kind, signing_not_after=NOW - 1), "certificate-expired"),
    "before any certificate was valid": (lambda kind: Case(now=NOW - 500 * DAY), "collateral-not-yet-valid"),
    "a signer that is not valid yet": (
        lambda kind: knobs(kind, signing_not_before=NOW + 1),
        "certificate-not-yet-valid",
    ),
    "a trusted root whose name was written anew": (
        lambda kind: Case(
            collateral=Collateral(
                ((kind, AUTHORITY.root.replace(b"\x0c\x11Intel", b"\x13\x11Intel")),),
                AUTHORITY.collateral(kind).documents,
            )
        ),
        "certificate-malformed",
    ),
    "PCK revoked": (lambda kind: knobs(kind, revoked=[5, MACHINE.serial]), "pck-revoked"),
    "PCK's CA revoked": (lambda kind: knobs(kind, root_revoked=[serial_of("platform")]), "certificate-revoked"),
    "TCB signer revoked": (lambda kind: knobs(kind, root_revoked=[serial_of("signing")]), "certificate-revoked"),
    "QE's report signed by another key": (lambda kind: made(kind, qe_signer="other"), "qe-report-signature"),
    "attestation key that the QE did not report": (
        lambda kind: made(kind, qe_hashed_key="other"),
        "attestation-key-mismatch",
    ),
    "quote signed by another key": (lambda kind: made(kind, signed_by="other"), "quote-signature"),
    "QE of another vendor": (lambda kind: made(kind, vendor=bytes(16)), "qe-vendor-unknown"),
    "QE of another signer": (lambda kind: made(kind, qe_mrsigner=b"\x09" * 32), "qe-identity-mismatch"),
    "another enclave of the QE's signer": (lambda kind: made(kind, qe_product=99), "qe-identity-mismatch"),
    "QE in debug mode": (lambda kind: made(kind, qe_flags=0x17), "qe-identity-mismatch"),
    "QE without its provisioning attribute": (lambda kind: made(kind, qe_flags=0x05), "qe-identity-mismatch"),
    "QE below every level": (lambda kind: made(kind, qe_svn=3), "qe-unknown-level"),
    "platform below every level": (
        lambda kind: made(kind, machine=AUTHORITY.machine(pce_svn=4)),
        "tcb-unknown-level",
    ),
    "platform whose components are below every level": (
        lambda kind: made(kind, machine=AUTHORITY.machine(cpu_svn=bytes(16))),
        "tcb-unknown-level",
    ),
    "platform at a revoked level": (lambda kind: made(kind, machine=AUTHORITY.machine(pce_svn=5)), "tcb-revoked"),
    "debug": (lambda kind: made(kind, debug=True), "debug-enabled"),
    "flipped bit in the report data": (lambda kind: cut(kind, flip(length_at(kind) - 1)), "quote-signature"),
    "flipped bit in the header's user data": (lambda kind: cut(kind, flip(40)), "quote-signature"),
    "flipped bit in the quote's signature": (lambda kind: cut(kind, flip(length_at(kind) + 4)), "quote-signature"),
    "flipped bit in the attestation key": (
        lambda kind: cut(kind, flip(length_at(kind) + 4 + 64)),
        "attestation-key-mismatch",
    ),
    "flipped bit in the QE's report": (lambda kind: cut(kind, flip(qe_at(kind))), "qe-report-signature"),
    "flipped bit in the QE's signature": (lambda kind: cut(kind, flip(qe_at(kind) + 384)), "qe-report-signature"),
    "flipped bit in the authentication data": (
        lambda kind: cut(kind, flip(authentication_at(kind) + 2)),
        "attestation-key-mismatch",
    ),
}

COLLATERAL: dict[str, tuple[Build, str]] = {
    "none": (documents, "collateral-missing"),
    "none of this name": (
        lambda kind: Case(
            collateral=Collateral(AUTHORITY.roots(), (Document(kind, "crl", AUTHORITY.document(kind).content),))
        ),
        "collateral-missing",
    ),
    "another platform's": (lambda kind: knobs(kind, fmspc=bytes(6)), "collateral-missing"),
    "another CA's": (lambda kind: knobs(kind, ca="processor"), "collateral-missing"),
    "the other TEE's": (
        lambda kind: documents(kind, AUTHORITY.document(OTHER[kind]).content),
        "collateral-missing",
    ),
    "TCB info expired": (lambda kind: knobs(kind, tcb_next_update=NOW - 1), "collateral-expired"),
    "QE identity expired": (lambda kind: knobs(kind, qe_next_update=NOW - 1), "collateral-expired"),
    "PCK CRL expired": (lambda kind: knobs(kind, crl_next_update=NOW - 1), "collateral-expired"),
    "root CRL expired": (lambda kind: knobs(kind, root_crl_next_update=NOW - 1), "collateral-expired"),
    "TCB info of tomorrow": (lambda kind: knobs(kind, tcb_issued=NOW + 1), "collateral-not-yet-valid"),
    "QE identity of tomorrow": (lambda kind: knobs(kind, qe_issued=NOW + 1), "collateral-not-yet-valid"),
    "PCK CRL of tomorrow": (lambda kind: knobs(kind, crl_issued=NOW + 1), "collateral-not-yet-valid"),
    "root CRL of tomorrow": (lambda kind: knobs(kind, root_crl_issued=NOW + 1), "collateral-not-yet-valid"),
    "clock set back 60 days": (lambda kind: Case(now=NOW - 60 * DAY), "collateral-not-yet-valid"),
    "clock set ahead 60 days": (lambda kind: Case(now=NOW + 60 * DAY), "collateral-expired"),
    "PCK CRL of another signer": (lambda kind: knobs(kind, crl_signer="other"), "crl-signature"),
    "root CRL in the PCK CRL's place": (
        lambda kind: members(kind, lambda m: m.update(pck_crl=m["root_ca_crl"])),
        "crl-signature",
    ),
    "PCK CRL in the root CRL's place": (
        lambda kind: members(kind, lambda m: m.update(root_ca_crl=m["pck_crl"])),
        "crl-signature",
    ),
    "QE identity of another signer": (lambda kind: knobs(kind, qe_identity_signer="forger"), "qe-identity-signature"),
    "TCB info of another signer": (lambda kind: knobs(kind, tcb_signer="forger"), "collateral-signature"),
    "TCB info signed by a platform": (
        lambda kind: members(kind, lambda m: signed_by_pck(m, kind)),
        "collateral-signature",
    ),
    "TCB info with another word": (
        lambda kind: members(kind, lambda m: m.update(tcb_info=m["tcb_info"].replace("OutOfDate", "UpToDate"))),
        "collateral-signature",
    ),
    "QE identity with another word": (
        lambda kind: members(kind, lambda m: m.update(qe_identity=m["qe_identity"].replace("OutOfDate", "UpToDate"))),
        "qe-identity-signature",
    ),
    "QE identity of the other TEE": (
        lambda kind: members(
            kind,
            lambda m: m.update(
                {k: v for k, v in AUTHORITY.members(OTHER[kind]).items() if k.startswith("qe_identity")}
            ),
        ),
        "qe-identity-mismatch",
    ),
    "signature of 63 bytes": (
        lambda kind: members(kind, lambda m: m.update(tcb_info_signature=m["tcb_info_signature"][2:])),
        "collateral-signature",
    ),
    "signature of zeros": (
        lambda kind: members(kind, lambda m: m.update(qe_identity_signature="00" * 64)),
        "qe-identity-signature",
    ),
    "status that is not Intel's": (
        lambda kind: knobs(kind, levels=[spec("2026-06-10", "Splendid", pce_svn=13)]),
        "collateral-malformed",
    ),
    "a level whose day is none": (
        lambda kind: knobs(kind, levels=[spec("2026-06-31", "UpToDate", pce_svn=13)]),
        "collateral-malformed",
    ),
    "no levels": (lambda kind: knobs(kind, levels=[]), "tcb-unknown-level"),
    "not JSON": (lambda kind: documents(kind, b"{"), "collateral-malformed"),
    "not text": (lambda kind: documents(kind, b"\xff\xfe\xfd"), "collateral-malformed"),
    "a JSON list": (lambda kind: documents(kind, b"[]"), "collateral-malformed"),
    "a hundred thousand brackets": (lambda kind: documents(kind, b"[" * 100_000), "json-too-deep"),
    "brackets hidden by texts": (lambda kind: documents(kind, b'["]",' * 40_000), "json-too-deep"),
    "a text that never ends": (lambda kind: documents(kind, b'"' + b'\\"' * 120_000), "collateral-malformed"),
    "over the cap": (lambda kind: documents(kind, bytes(MAX_DOCUMENT + 1)), "collateral-too-large"),
    "a member missing": (lambda kind: members(kind, lambda m: m.pop("pck_crl")), "collateral-malformed"),
    "a member with half a character": (
        lambda kind: members(kind, lambda m: m.update(pck_crl_issuer_chain="\ud800")),
        "collateral-malformed",
    ),
    "a member that is a number": (lambda kind: members(kind, lambda m: m.update(tcb_info=7)), "collateral-malformed"),
    "a CRL that is not hex": (lambda kind: members(kind, lambda m: m.update(pck_crl="xyz")), "collateral-malformed"),
    "a CRL that is none": (lambda kind: members(kind, lambda m: m.update(pck_crl="3000")), "collateral-malformed"),
    "a chain that is none": (
        lambda kind: members(kind, lambda m: m.update(tcb_info_issuer_chain="none")),
        "certificate-malformed",
    ),
    "TCB info that is a list": (lambda kind: members(kind, lambda m: m.update(tcb_info="[]")), "collateral-malformed"),
    "a date without a zone": (
        lambda kind: members(
            kind, lambda m: m.update(tcb_info=changed(m["tcb_info"], nextUpdate="2030-01-01T00:00:00"))
        ),
        "collateral-malformed",
    ),
    "a date that is none": (
        lambda kind: members(kind, lambda m: m.update(tcb_info=changed(m["tcb_info"], issueDate="yesterday"))),
        "collateral-malformed",
    ),
    "an evaluation number below nothing": (
        lambda kind: members(
            kind, lambda m: m.update(qe_identity=changed(m["qe_identity"], tcbEvaluationDataNumber=-1))
        ),
        "collateral-malformed",
    ),
}


def changed(text: str, **other: object) -> str:
    return json.dumps({**json.loads(text), **other})


def both(table: dict[str, tuple[Build, str]]) -> list[object]:
    return [
        pytest.param(kind, build, code, id=f"{kind} {name}")
        for kind in (TDX, SGX)
        for name, (build, code) in table.items()
    ]


@pytest.mark.parametrize(("kind", "build", "code"), [*both(LAYOUT), *both(CHAIN), *both(COLLATERAL)])
def test_every_way_to_break_it_has_a_name(kind: EvidenceKind, build: Build, code: str) -> None:
    assert refusal(lambda: build(kind).ask(kind)) == code


def attributes(bits: int) -> Case:
    return made(TDX, attributes=bits.to_bytes(8, "little"))


SEPT = 1 << 28

TDX_ONLY: dict[str, tuple[Callable[[], Case], str]] = {
    "version 3": (lambda: cut(TDX, put(0, b"\x03\x00")), "quote-version"),
    "body type of SGX": (lambda: Case(payload=put(48, b"\x01\x00")(quote(TDX, version=5))), "quote-body"),
    "body type unknown": (lambda: Case(payload=put(48, b"\x09\x00")(quote(TDX, version=5))), "quote-body"),
    "body of 2^32-1 bytes": (lambda: Case(payload=put(50, U32)(quote(TDX, version=5))), "quote-body"),
    "body of TD 1.5 with the size of 1.0": (
        lambda: Case(payload=put(50, struct.pack("<I", 584))(quote(TDX, version=5, body=15))),
        "quote-body",
    ),
    "version 5 cut before its body": (lambda: Case(payload=quote(TDX, version=5)[:50]), "quote-truncated"),
    "body type changed behind the signature's back": (
        lambda: Case(payload=put(0, b"\x05\x00")(QUOTES[TDX])),
        "quote-body",
    ),
    "outer certification data of 2^32-1 bytes": (lambda: cut(TDX, put(48 + 584 + 4 + 128 + 2, U32)), "quote-length"),
    "outer certification data of type 5": (
        lambda: cut(TDX, put(48 + 584 + 4 + 128, b"\x05\x00")),
        "quote-certification-type",
    ),
    "sept_ve_disable off": (lambda: attributes(0), "td-sept-ve"),
    "migratable": (lambda: attributes(SEPT | 1 << 29), "td-migratable"),
    "profiled": (lambda: attributes(SEPT | 1 << 4), "td-profiling"),
    "reserved bit of the debug byte": (lambda: attributes(SEPT | 1 << 1), "td-attributes"),
    "bound to a service TD": (lambda: made(TDX, version=5, body=15, mr_service_td=b"\x01" * 48), "td-service-td"),
    "debug in TD 1.5": (lambda: made(TDX, version=5, body=15, debug=True), "debug-enabled"),
    "TDX module of another signer": (lambda: made(TDX, mr_signer_seam=b"\x01" * 48), "tdx-module-mismatch"),
    "TDX module that is not listed": (
        lambda: made(TDX, tee_tcb_svn=bytes([5, 3]) + bytes(14)),
        "tdx-module-unknown-level",
    ),
    "TDX module below every level": (
        lambda: made(TDX, tee_tcb_svn=bytes([1, 1]) + bytes(14)),
        "tdx-module-unknown-level",
    ),
    "TDX components below every level": (
        lambda: Case(
            payload=quote(TDX, tee_tcb_svn=bytes(16)),
        ),
        "tcb-unknown-level",
    ),
    "SGX TCB info in a TDX document": (lambda: knobs(TDX, tcb_id="SGX"), "collateral-missing"),
}

SGX_ONLY: dict[str, tuple[Callable[[], Case], str]] = {
    "version 4": (lambda: made(SGX, version=4), "quote-version"),
    "version 5": (lambda: made(SGX, version=5), "quote-version"),
    "body type of TDX": (lambda: Case(payload=put(48, b"\x02\x00")(quote(SGX, version=5))), "quote-body"),
    "TDX TCB info in an SGX document": (lambda: knobs(SGX, tcb_id="TDX"), "collateral-missing"),
}


@pytest.mark.parametrize(("build", "code"), TDX_ONLY.values(), ids=TDX_ONLY)
def test_every_way_to_break_a_td_has_a_name(build: Callable[[], Case], code: str) -> None:
    assert refusal(lambda: build().ask(TDX)) == code


@pytest.mark.parametrize(("build", "code"), SGX_ONLY.values(), ids=SGX_ONLY)
def test_every_way_to_break_an_enclave_has_a_name(build: Callable[[], Case], code: str) -> None:
    assert refusal(lambda: build().ask(SGX)) == code
