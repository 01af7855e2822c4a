"""Sources over HTTP: asked for what evidence needs, believed in nothing, and not missed while what is kept still holds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.services.collateral.conftest import AMD, INTEL, NOW, SNP, TDX, World, results
from tests.services.collateral.vendors import Amd, Intel
from tests.support.dcap_authority import DAY, DcapAuthority, Knobs
from tests.support.http import Answer, Peer, Reply
from tests.support.snp_authority import SnpAuthority

from cloister.attestation.bundle import build_bundle
from cloister.attestation.collateral import Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.needs import parse_need
from cloister.attestation.pieces import Family, Need, PieceId, PieceName
from cloister.attestation.snp_payload import build_snp_evidence
from cloister.errors import ConfigurationError, NotFound, UnavailableError, VerificationError
from cloister.services.collateral.feeds import AmdFeed, IntelFeed, TpmCrlFeed
from cloister.services.collateral.sources import load_feeds

Start = Callable[[Answer], Peer]
FMSPC = "b0c06f000000"
NEED = Need(TDX, fmspc=FMSPC, ca="platform")


@pytest.mark.parametrize("as_pccs", [True, False])
@pytest.mark.parametrize("kind", [TDX, EvidenceKind.SGX])
def test_a_quote_makes_the_service_ask_once(kind: EvidenceKind, as_pccs: bool, lone_world: World, peer: Start) -> None:
    intel = Intel(INTEL, as_pccs=as_pccs)
    served = peer(intel)
    lone_world.feeds = [IntelFeed(served.url, root_crl_url=None if as_pccs else f"{served.url}/root.der")]
    service = lone_world.again()
    need = Need(kind, fmspc=FMSPC, ca="platform")
    (document,) = service.documents_for(need)
    assert json.loads(document.content) == INTEL.members(kind)
    assert len(intel.asked) == 4
    assert service.documents_for(need) == (document,)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(service.documents_for, [need] * 8)) == {(document,)}
    assert len(intel.asked) == 4


@pytest.mark.parametrize("product", ["Milan", "Turin"])
def test_a_report_without_certificates(product: str, lone_world: World, peer: Start) -> None:
    from cloister.attestation.collateral import Collateral
    from cloister.attestation.verify import read_claims

    vendor = SnpAuthority.create(product)
    lone_world.settings["trust"] = Collateral(((SNP, vendor.ark),))
    lone_world.feeds = [AmdFeed(peer(Amd(vendor)).url)]
    evidence = Evidence(SNP, build_snp_evidence(vendor.raw_report(bytes(64)), []))
    need = parse_need(evidence)
    assert need is not None
    documents = lone_world.again().documents_for(need)
    assert [each.name for each in documents] == ["certificate", "crl", "certificate"]
    claims = read_claims(evidence, Collateral(((SNP, vendor.ark),), documents), NOW)
    assert claims.attributes["crl_checked"] is True


def test_stale_is_served_until_it_is_over_and_then_denied(lone_world: World, peer: Start) -> None:
    intel = Intel(INTEL)
    lone_world.feeds = [IntelFeed(peer(intel).url)]
    lone_world.settings |= {"backoff_seconds": 0.01, "max_backoff_seconds": 0.01}
    service = lone_world.again()
    (before,) = service.documents_for(NEED)
    intel.broken = Reply(503)
    lone_world.clock.now = NOW + 28 * DAY
    assert results(service.refresh()) == {("refused", "unavailable")}
    assert service.documents_for(NEED) == (before,)
    lone_world.clock.now = NOW + 30 * DAY
    time.sleep(0.02)
    with pytest.raises(VerificationError) as refused:
        service.documents_for(NEED)
    assert refused.value.code == "collateral-expired"
    # The vendor is back, and time has passed for it too.
    intel.broken, intel.authority = None, DcapAuthority(INTEL.seed, int(lone_world.clock.now), INTEL.root)
    time.sleep(0.02)
    (after,) = service.documents_for(NEED)
    assert after != before


def test_a_source_that_is_away_is_another_thing_than_one_without_it(lone_world: World, peer: Start) -> None:
    intel = Intel(INTEL, broken=Reply(503))
    lone_world.feeds = [IntelFeed(peer(intel).url)]
    with pytest.raises(UnavailableError):
        lone_world.again().documents_for(NEED)
    intel.broken = None
    with pytest.raises(VerificationError) as refused:
        lone_world.again().documents_for(Need(TDX, fmspc="0" * 12, ca="platform"))
    assert refused.value.code == "collateral-missing"
    lone_world.feeds = []
    with pytest.raises(VerificationError) as refused:
        World(lone_world.url).again().documents_for(Need(SNP, product="Genoa"))
    assert refused.value.code == "collateral-missing"


def test_strangers_cannot_make_us_hammer_a_vendor(lone_world: World, peer: Start) -> None:
    intel = Intel(INTEL)
    lone_world.feeds = [IntelFeed(peer(intel).url)]
    lone_world.settings["unknown_per_minute"] = 8
    service = lone_world.again()
    service.documents_for(NEED)
    asked = len(intel.asked)
    codes = []
    for number in range(12):
        with pytest.raises((VerificationError, UnavailableError)) as refused:
            service.documents_for(Need(TDX, fmspc=f"{number:012x}", ca="platform"))
        codes.append(refused.value.code)
    assert codes == ["collateral-missing"] * 4 + ["unavailable"] * 8
    assert len(intel.asked) == asked + 4
    assert service.documents_for(NEED)


HOSTILE = {
    "redirect": Reply(302, headers={"location": "http://127.0.0.1:1/"}),
    "endless": Reply(body=b"x" * 300_000),
    "announces 2^40 bytes": Reply(body=b"x", announce=1 << 40),
    "compressed": Reply(headers={"content-encoding": "gzip"}, body=b"x"),
    "not json": Reply(headers={"TCB-Info-Issuer-Chain": "x"}, body=b"<html>"),
    "no chain": Reply(body=b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'"}'),
    "no signature": Reply(headers={"TCB-Info-Issuer-Chain": "x"}, body=b'{"tcbInfo":{}}'),
    "nested": Reply(headers={"TCB-Info-Issuer-Chain": "x"}, body=b'{"tcbInfo":' + b"[" * 100_000),
    "chain is none": Reply(
        headers={"TCB-Info-Issuer-Chain": "x"}, body=b'{"tcbInfo":{},"signature":"' + b"00" * 64 + b'"}'
    ),
    "server fault": Reply(500),
    "asks for a password": Reply(401),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_a_named_failure(name: str, lone_world: World, peer: Start) -> None:
    lone_world.feeds = [IntelFeed(peer(lambda _: HOSTILE[name]).url, timeout=2)]
    service = lone_world.again()
    outcome = service.fetch(PieceId(Family.INTEL, PieceName.TCB_INFO, f"tdx/{FMSPC}"))
    assert outcome.result == "refused"
    assert outcome.code
    assert outcome.code != "internal"
    (state,) = service.feed_states.values()
    assert state.failure
    assert service.pieces() == []
    with pytest.raises(UnavailableError):
        service.documents_for(NEED)


def test_a_slow_source_is_given_up(lone_world: World, peer: Start) -> None:
    lone_world.feeds = [IntelFeed(peer(lambda _: Reply(body=b"x" * 100, drip=0.2)).url, timeout=0.5)]
    began = time.monotonic()
    outcome = lone_world.again().fetch(PieceId(Family.INTEL, PieceName.ROOT_CRL, "root"))
    assert outcome.code == "unavailable"
    assert time.monotonic() - began < 5


def test_an_answer_for_another_platform_is_refused(lone_world: World, peer: Start) -> None:
    other = json.loads(INTEL.document(TDX, Knobs(fmspc=bytes(6))).content)
    reply = Intel._signed(other, "tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain")
    lone_world.feeds = [IntelFeed(peer(lambda _: reply).url)]
    service = lone_world.again()
    wanted = PieceId(Family.INTEL, PieceName.TCB_INFO, f"tdx/{FMSPC}")
    assert service.fetch(wanted).code == "collateral-mismatch"
    assert service.pieces() == []


def test_a_vendor_that_goes_back_is_not_followed(lone_world: World, peer: Start) -> None:
    intel = Intel(INTEL, Knobs(evaluation=18))
    lone_world.feeds = [IntelFeed(peer(intel).url)]
    service = lone_world.again()
    (before,) = service.documents_for(NEED)
    intel.knobs = Knobs(evaluation=17)
    outcomes = service.refresh(everything=True)
    assert results(outcomes) == {("refused", "collateral-rollback"), ("unchanged", None)}
    assert service.documents_for(NEED) == (before,)


def test_the_second_source_is_asked_when_the_first_is_away(lone_world: World, peer: Start) -> None:
    mirror = Intel(INTEL)
    lone_world.feeds = [IntelFeed(peer(lambda _: Reply(503)).url), IntelFeed(peer(mirror).url)]
    assert lone_world.again().documents_for(NEED)
    assert len(mirror.asked) == 4


def test_what_is_due_is_renewed_and_nothing_else(lone_world: World, peer: Start) -> None:
    intel, amd = Intel(INTEL), Amd(AMD)
    lone_world.feeds = [
        IntelFeed(peer(intel).url, platforms=[f"tdx/{FMSPC}"]),
        AmdFeed(peer(amd).url, products=["Milan"]),
    ]
    lone_world.settings |= {"refresh_seconds": 3600, "backoff_seconds": 0.001, "max_backoff_seconds": 0.001}
    service = lone_world.again()
    first = service.refresh()
    # The CA that this Intel does not have is the one thing that no source has.
    assert {each.id for each in first if each.result == "refused"} == {"intel pck-crl processor"}
    assert {str(each.id) for each in service.pieces()} == {each.id for each in first if each.result == "stored"}
    intel.asked.clear()
    amd.asked.clear()
    assert {each.id for each in service.refresh()} <= {"intel pck-crl processor"}
    lone_world.clock.now = NOW + 3601
    renewed = {each.id for each in service.refresh() if each.result != "refused"}
    assert renewed == {
        *("intel root-crl root", "intel pck-crl platform", f"intel tcb-info tdx/{FMSPC}", "intel qe-identity tdx"),
        "amd crl Milan",
    }
    assert not [target for target in amd.asked if "cert_chain" in target]


def test_the_thread_renews_and_takes_the_bundle_in(lone_world: World, peer: Start, tmp_path: Path) -> None:
    import urllib3
    from tests.support.network import wait_for

    path = tmp_path / "bundle.cbor"
    intel = Intel(INTEL)
    lone_world.feeds = [IntelFeed(peer(intel).url, platforms=[f"tdx/{FMSPC}"])]
    lone_world.settings["bundle"] = path
    with lone_world.serving() as url:

        def kept() -> set[str]:
            found = urllib3.request("GET", f"{url}/collateral/v1/status").json()
            return {f"{each['kind']} {each['key']}" for each in found["documents"]}

        wait_for("standing pieces", lambda: f"tcb-info tdx/{FMSPC}" in kept())
        path.write_bytes(b"\xa0 no bundle")
        path.write_bytes(build_bundle([Document(SNP, "certificate", AMD.ask)], {}, made_at=NOW))
        wait_for("the bundle", lambda: "certificate Milan/ask" in kept())


def test_tpm_revocation_lists(lone_world: World, peer: Start) -> None:
    from tests.support.tpm_authority import NOW as TPM_NOW
    from tests.support.tpm_authority import TpmAuthority

    authority = TpmAuthority.create()
    day = timedelta(days=1)
    now = datetime.fromtimestamp(TPM_NOW, UTC)
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.load_der_x509_certificate(authority.root).subject)
        .last_update(now - day)
        .next_update(now + day)
        .sign(authority.root_key, SHA256())
        .public_bytes(Encoding.DER)
    )
    lone_world.settings["trust"] = authority.collateral()
    lone_world.clock.now = TPM_NOW
    lone_world.feeds = [TpmCrlFeed(peer(lambda _: Reply(body=crl)).url + "/tpm.crl")]
    service = lone_world.again()
    assert results(service.refresh()) == {("stored", None)}
    assert service.documents_for(Need(EvidenceKind.TPM)) == (Document(EvidenceKind.TPM, "crl", crl),)


def test_each_source_knows_its_own_family() -> None:
    strange = PieceId(Family.TPM, PieceName.CRL, "root")
    for feed in (IntelFeed("http://127.0.0.1:1"), AmdFeed("http://127.0.0.1:1")):
        with pytest.raises(NotFound):
            feed.fetch(strange)


def test_sources_by_file(tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    assert load_feeds(path) == ([], None)
    path.write_text(
        json.dumps(
            {
                "intel": {"url": "https://pccs.example/base", "platforms": [f"tdx/{FMSPC}"]},
                "amd": {"url": "https://kds.example", "products": ["Genoa"]},
                "tpm": {"url": "https://ca.example/tpm.crl"},
                "bundle": "/srv/bundle.cbor",
            }
        )
    )
    feeds, bundle = load_feeds(path)
    assert [feed.name for feed in feeds] == [
        "intel https://pccs.example/base",
        "amd https://kds.example",
        "tpm https://ca.example",
    ]
    assert [len(feed.standing) for feed in feeds] == [5, 2, 1]
    assert bundle == Path("/srv/bundle.cbor")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "not readable json"),
        ("[]", "the file is not an object"),
        ('{"intl": {}}', "'intl' is unknown|intl is unknown"),
        ('{"intel": {"uri": "x"}}', "intel.uri is unknown"),
        ('{"intel": {}}', "intel.url is not a text"),
        ('{"amd": {"url": "https://x", "products": "Milan"}}', "amd.products is not a list"),
        ('{"amd": {"url": "ftp://x"}}', "not an http"),
        ('{"bundle": 7}', "bundle is not a text"),
    ],
)
def test_a_bad_file_is_named(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_feeds(path)
