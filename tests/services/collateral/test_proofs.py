"""Nothing is kept that is not its vendor's own, in date, and under a root that the operator named."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.services.collateral.conftest import AMD, INTEL, NOW, SNP, TDX, World, results
from tests.support.dcap_authority import DAY, DcapAuthority, Knobs, serial_of
from tests.support.genuine import genuine
from tests.support.snp_authority import SnpAuthority

from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.needs import parse_need
from cloister.attestation.pieces import Family, Piece, PieceName, split_document
from cloister.attestation.provenance import prove_piece
from cloister.attestation.snp_payload import build_snp_evidence
from cloister.attestation.verify import read_claims
from cloister.clients.collateral import SourcedCollateral
from cloister.errors import DecodeError, VerificationError

IMPOSTOR = DcapAuthority.create(now=NOW, seed="impostor")

BROKEN = {
    "another root of the same name": (IMPOSTOR.document(TDX), {"untrusted-root"}),
    "TCB info by another key": (INTEL.document(TDX, Knobs(tcb_signer="forger")), {None, "collateral-signature"}),
    "QE identity by another key": (
        INTEL.document(TDX, Knobs(qe_identity_signer="forger")),
        {None, "collateral-signature"},
    ),
    "PCK CRL by another key": (INTEL.document(TDX, Knobs(crl_signer="processor")), {None, "collateral-signature"}),
    "TCB info over": (INTEL.document(TDX, Knobs(tcb_next_update=NOW)), {None, "collateral-expired"}),
    "QE identity over": (INTEL.document(TDX, Knobs(qe_next_update=NOW - 1)), {None, "collateral-expired"}),
    "PCK CRL over": (INTEL.document(TDX, Knobs(crl_next_update=NOW - 1)), {None, "collateral-expired"}),
    "root CRL over": (INTEL.document(TDX, Knobs(root_crl_next_update=NOW - 1)), {None, "collateral-expired"}),
    "TCB info of tomorrow": (INTEL.document(TDX, Knobs(tcb_issued=NOW + DAY)), {None, "collateral-not-yet-valid"}),
    "CRL of tomorrow": (
        INTEL.document(TDX, Knobs(crl_issued=NOW + DAY, crl_next_update=NOW + 9 * DAY)),
        {None, "collateral-not-yet-valid"},
    ),
    "signer revoked": (INTEL.document(TDX, Knobs(root_revoked=[serial_of("signing")])), {None, "collateral-revoked"}),
    "PCK CA revoked": (INTEL.document(TDX, Knobs(root_revoked=[serial_of("platform")])), {None, "collateral-revoked"}),
    "signer's certificate over": (INTEL.document(TDX, Knobs(signing_not_after=NOW - 1)), {None, "collateral-expired"}),
    "not a collateral": (Document(TDX, "dcap", b"{}"), {"collateral-malformed"}),
    "nested without end": (Document(TDX, "dcap", b'{"tcb_info":' + b"[" * 100_000), {"json-too-deep"}),
    "unknown name": (Document(TDX, "certificate", b"\x30"), {"collateral-malformed"}),
    "AMD root of the same name": (
        Document(SNP, "certificate", SnpAuthority.create("Milan", stranger=True).ask),
        {"untrusted-root"},
    ),
    "AMD root itself": (Document(SNP, "certificate", AMD.ark), {"collateral-malformed"}),
    "AMD CRL by another key": (Document(SNP, "crl", AMD.crl(signer="stranger")), {"untrusted-root"}),
    "AMD CRL over": (Document(SNP, "crl", AMD.crl(next_update=NOW)), {"collateral-expired"}),
    "chip without its intermediate": (Document(SNP, "certificate", AMD.leaf()), {"untrusted-root"}),
    "no certificate": (Document(SNP, "certificate", b"\x30\x82\xff\xff"), {"collateral-malformed"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_proven_is_refused_and_named(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    document, codes = BROKEN[name]
    service = World(tmp_path_factory.mktemp("proofs") / "c.db").again()
    outcomes = service.take([document], source="test")
    assert {each.code for each in outcomes} == codes
    refused = [each for each in outcomes if each.result == "refused"]
    assert refused
    assert all(each.message for each in refused)
    kept = {str(each.id) for each in service.pieces()}
    assert kept == {each.id for each in outcomes if each.result == "stored"}


def test_every_changed_byte_of_a_signed_statement_is_refused() -> None:
    roots = [INTEL.root]
    for piece in split_document(INTEL.document(TDX)):
        assert prove_piece(piece, roots=roots, now=NOW).floor.issued == NOW - DAY
        for place in range(0, len(piece.body), 1 + len(piece.body) // 150):
            body = bytearray(piece.body)
            body[place] ^= 1
            with pytest.raises((VerificationError, DecodeError)) as refused:
                prove_piece(dataclasses.replace(piece, body=bytes(body)), roots=roots, now=NOW)
            assert refused.value.code in {
                *("collateral-signature", "collateral-malformed", "untrusted-root", "collateral-expired"),
                "collateral-not-yet-valid",
            }


def test_the_root_that_comes_with_a_document_is_not_asked() -> None:
    (statement,) = (p for p in split_document(IMPOSTOR.document(TDX)) if p.name is PieceName.TCB_INFO)
    with pytest.raises(VerificationError, match="does not lead to a trusted root"):
        prove_piece(statement, roots=[INTEL.root], now=NOW)
    with pytest.raises(VerificationError, match="does not lead to a trusted root"):
        prove_piece(statement, roots=[], now=NOW)


@pytest.mark.parametrize(
    ("name", "kind", "when"),
    [
        ("sgx_quote", "sgx", 1_750_377_600),
        ("tdx_quote", "tdx", 1_750_377_600),
        ("tdx_quote_outdated", "tdx", 1_771_459_200),
    ],
)
def test_genuine_collateral_of_intel(name: str, kind: str, when: int, lone_world: World) -> None:
    lone_world.clock.now = when
    service = lone_world.again()
    given = Document(EvidenceKind(kind), "dcap", genuine(f"dcap/{name}_collateral.json"))
    assert results(service.take([given], source="file")) == {("stored", None)}
    assert results(service.take([given], source="file")) == {("unchanged", None)}
    evidence = Evidence(EvidenceKind(kind), genuine(f"dcap/{name}"))
    need = parse_need(evidence)
    assert need is not None
    (document,) = service.documents_for(need)
    members, original = json.loads(document.content), json.loads(given.content)
    assert members == {member: original[member] for member in members}


def test_genuine_quote_is_appraised_with_collateral_from_the_service(lone_world: World) -> None:
    from cloister.attestation.anchors import INTEL_SGX_ROOT

    lone_world.clock.now = when = 1_750_377_600
    service = lone_world.again()
    service.take([Document(TDX, "dcap", genuine("dcap/tdx_quote_collateral.json"))], source="file")
    evidence = Evidence(TDX, genuine("dcap/tdx_quote"))
    source = SourcedCollateral(Collateral(((TDX, INTEL_SGX_ROOT),)), service)
    claims = read_claims(evidence, source.collateral_for(evidence, when), when)
    assert claims.tcb is not None
    assert claims.tcb.status == "UpToDate"
    lone_world.clock.now = 1_752_920_600  # after the first piece is over
    with pytest.raises(VerificationError) as refused:
        SourcedCollateral(Collateral(((TDX, INTEL_SGX_ROOT),)), service).collateral_for(evidence, 1_752_920_600)
    assert refused.value.code == "collateral-expired"


def test_genuine_certificates_of_amd(lone_world: World) -> None:
    lone_world.clock.now = 1_750_377_600
    service = lone_world.again()
    pem = genuine("snp/ask_ark_milan.pem")
    ask = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
    chip = Document(SNP, "certificate", genuine("snp/vcek-milan.der"))
    # The chip's first: an intermediate that comes later still proves it.
    outcomes = service.take([chip, Document(SNP, "certificate", ask)], source="file")
    assert results(outcomes) == {("stored", None)}
    report = genuine("snp/report-milan.bin")
    keys = {each.id.key for each in service.pieces()}
    assert keys == {"Milan/ask", f"Milan/{report[0x1A0:0x1E0].hex()}/{report[0x180:0x188].hex()}"}


NEEDS = {
    "tdx": (Evidence(TDX, INTEL.tdx_quote(bytes(64))), "b0c06f000000", "platform"),
    "sgx": (
        Evidence(
            EvidenceKind.SGX, INTEL.sgx_quote(bytes(64), machine=INTEL.machine("p", fmspc=b"\x00" * 6, ca="processor"))
        ),
        "0" * 12,
        "processor",
    ),
}


@pytest.mark.parametrize("kind", NEEDS)
def test_what_a_quote_needs(kind: str) -> None:
    evidence, fmspc, ca = NEEDS[kind]
    need = parse_need(evidence)
    assert need is not None
    assert (need.kind, need.fmspc, need.ca) == (evidence.kind, fmspc, ca)


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
def test_what_a_report_needs(product: str) -> None:
    amd = SnpAuthority.create(product)
    whole = parse_need(amd.evidence(bytes(64)))
    assert whole is not None
    assert (whole.product, whole.chip, whole.vlek) == (product, "", False)
    provider = parse_need(amd.evidence(bytes(64), signing_key="vlek"))
    assert provider is not None
    assert (provider.product, provider.vlek) == (product, True)
    bare = parse_need(Evidence(SNP, build_snp_evidence(amd.raw_report(bytes(64)), [])))
    assert bare is not None
    (_, _, chip) = bare.pieces()
    proven = prove_piece(
        Piece(Family.AMD, PieceName.CERTIFICATE, amd.leaf()),
        roots=[amd.ark],
        now=NOW,
        known=[prove_piece(Piece(Family.AMD, PieceName.CERTIFICATE, amd.ask), roots=[amd.ark], now=NOW)],
    )
    assert proven.id == chip


@pytest.mark.parametrize("kind", [TDX, EvidenceKind.SGX, SNP, EvidenceKind.SNP_VTPM])
@pytest.mark.parametrize("payload", [b"\x00", b"\xff" * 5000, b"\x83\x01\x40\x80", INTEL.tdx_quote(bytes(64))[:900]])
def test_evidence_that_says_nothing(kind: EvidenceKind, payload: bytes) -> None:
    with pytest.raises((DecodeError, VerificationError)):
        parse_need(Evidence(kind, payload))


def test_simulated_evidence_needs_nothing() -> None:
    assert parse_need(Evidence(EvidenceKind.SIMULATED, b"x")) is None


def _mutate(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(changed))
        match random.randrange(4):
            case 0:
                changed[place] ^= 1 << random.randrange(8)
            case 1:
                changed[place] = random.choice([0, 0x30, 0x80, 0xFF])
            case 2:
                del changed[place : place + random.randrange(1, 20)]
            case _:
                changed[place:place] = changed[max(0, place - 30) : place]
    return bytes(changed) or b"x"


def test_whatever_the_bytes_only_named_errors() -> None:
    random = Random(5)
    evidence = [Evidence(TDX, INTEL.tdx_quote(bytes(64))), AMD.evidence(bytes(64))]
    ask = Piece(Family.AMD, PieceName.CERTIFICATE, AMD.ask)
    known = [prove_piece(ask, roots=[AMD.ark], now=NOW)]
    crl = Piece(Family.AMD, PieceName.CRL, AMD.crl())
    pieces = [*split_document(INTEL.document(TDX)), ask, crl, Piece(Family.AMD, PieceName.CERTIFICATE, AMD.leaf())]
    for _ in range(400):
        given = random.choice(evidence)
        with suppress(DecodeError, VerificationError):
            parse_need(Evidence(given.kind, _mutate(random, given.payload)))
        piece = random.choice(pieces)
        chain = _mutate(random, piece.chain) if piece.chain and random.random() < 0.5 else piece.chain
        changed = dataclasses.replace(piece, body=_mutate(random, piece.body), chain=chain)
        with suppress(DecodeError, VerificationError):
            assert prove_piece(changed, roots=[INTEL.root, AMD.ark], now=NOW, known=known).piece.body == piece.body
