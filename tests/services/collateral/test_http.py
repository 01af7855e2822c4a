"""The service over HTTP, and an SMS that judges hardware evidence with what it gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3
from tests.services.collateral.conftest import AMD, INTEL, NOW, SNP, TDX, World, results
from tests.services.collateral.vendors import Intel
from tests.support import sms_world
from tests.support.dcap_authority import DAY, Knobs
from tests.support.http import Reply, start_peer

from cloister.attestation.bundle import parse_bundle
from cloister.attestation.collateral import Collateral, Document, parse_documents
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.pieces import Need
from cloister.attestation.policy import ANY, EnclavePolicy
from cloister.attestation.provenance import root_fingerprint
from cloister.clients.collateral import CollateralClient, SourcedCollateral
from cloister.errors import DecodeError, TooLarge, UnavailableError, VerificationError
from cloister.services.collateral.feeds import IntelFeed

NEED = Need(TDX, fmspc="b0c06f000000", ca="platform")


@pytest.fixture
def stocked(lone_world: World) -> World:
    """A service that keeps a TDX platform's collateral, AMD's intermediate and its CRL."""
    documents = [INTEL.document(TDX), Document(SNP, "certificate", AMD.ask), Document(SNP, "crl", AMD.crl())]
    assert results(lone_world.again().take(documents, source="test")) == {("stored", None)}
    return lone_world


def test_status_shows_what_is_kept_and_until_when(stocked: World) -> None:
    stocked.clock.now = NOW + 28 * DAY
    with stocked.serving() as url:
        found = CollateralClient(url).status()
        lines = {f"{each['kind']} {each['key']}": each for each in found["documents"]}
        assert set(lines) == {
            *("crl Milan", "certificate Milan/ask", "root-crl root", "pck-crl platform"),
            *("tcb-info tdx/b0c06f000000", "qe-identity tdx"),
        }
        tcb_info = lines["tcb-info tdx/b0c06f000000"]
        assert tcb_info["evaluation_number"] == 17
        assert (tcb_info["issued"], tcb_info["days_left"], tcb_info["expired"]) == (NOW - DAY, 1.0, False)
        assert lines["crl Milan"]["crl_number"] == 7
        assert found["expired"] == 0
        metrics = urllib3.request("GET", f"{url}/-/metrics").data.decode()
        assert f'cloister_collateral_seconds_left{{family="intel",kind="tcb-info"}} {DAY}' in metrics.replace(".0", "")
        stocked.clock.now = NOW + 30 * DAY
        assert CollateralClient(url).status()["expired"] == 4
        metrics = urllib3.request("GET", f"{url}/-/metrics").data.decode()
        assert 'cloister_collateral_pieces{family="intel",kind="tcb-info",state="expired"} 1.0' in metrics
        assert urllib3.request("GET", f"{url}/-/ready").status == 200  # told, and no reason to stop serving others


def test_documents_by_what_evidence_says(stocked: World) -> None:
    with stocked.serving() as url:
        client = CollateralClient(url)
        assert client.documents_for(NEED) == (INTEL.document(TDX),) or json.loads(
            client.documents_for(NEED)[0].content
        ) == INTEL.members(TDX)
        assert {each.name for each in client.documents_for(Need(SNP, product="Milan"))} == {"certificate", "crl"}
        both = client.documents_for(Need(EvidenceKind.SNP_VTPM, product="Milan"))
        assert {each.kind for each in both} == {SNP, EvidenceKind.SNP_VTPM}
        assert client.documents_for(Need(EvidenceKind.TPM)) == ()
        with pytest.raises(VerificationError) as refused:
            client.documents_for(Need(SNP, product="Genoa"))
        assert refused.value.code == "collateral-missing"
        for query in (
            "",
            "?kind=tdx",
            "?kind=simulated",
            "?kind=x",
            "?kind=snp&product=../x",
            "?kind=tdx&fmspc=zz&ca=root",
        ):
            answer = urllib3.request("GET", f"{url}/collateral/v1/documents{query}")
            assert answer.status == 400, query
        answer = urllib3.request("GET", f"{url}/collateral/v1/documents?kind=tpm")
        assert parse_documents(answer.data) == ()


def test_a_bundle_carries_everything_to_a_machine_without_a_network(stocked: World, tmp_path: Path) -> None:
    with stocked.serving() as url:
        encoded = CollateralClient(url).bundle()
    bundle = parse_bundle(encoded)
    assert bundle.made_at == NOW
    assert {floor.evaluation for floor in bundle.floors.values()} == {17, None}
    elsewhere = World(tmp_path / "elsewhere.db")
    assert results(elsewhere.again().take_bundle(bundle, source="file")) == {("stored", None)}
    kept = elsewhere.again()
    assert [each.piece for each in kept.pieces()] == [each.piece for each in stocked.again().pieces()]
    assert kept.bundle() == encoded
    strangers = World(tmp_path / "strangers.db", settings={"trust": Collateral()})
    assert results(strangers.again().take_bundle(bundle, source="file")) == {("refused", "untrusted-root")}


def test_a_damaged_bundle_is_refused_or_changes_nothing(stocked: World) -> None:
    service = stocked.again()
    encoded, before = service.bundle(), [each.piece for each in service.pieces()]
    for place in range(0, len(encoded), len(encoded) // 45):
        damaged = bytearray(encoded)
        damaged[place] ^= 0x10
        with suppress(DecodeError):
            service.take_bundle(parse_bundle(bytes(damaged)), source="damaged")
        assert [each.piece for each in service.pieces()] == before, place


def test_a_bundle_over_the_cap_is_refused() -> None:
    with pytest.raises(TooLarge):
        parse_bundle(bytes(16 * 1024 * 1024 + 1))


def believing(source: SourcedCollateral) -> dict[str, object]:
    """The settings of an SMS that believes our Intel and one program."""
    policy = EnclavePolicy(
        TDX,
        frozenset({root_fingerprint(INTEL.root)}),
        frozenset({b"\x11" * 48}),
        registers={"rtmr1": frozenset({b"\x21" * 48}), "rtmr2": ANY},
    )
    return {"policy": policy, "collateral": source}


def quote(data: bytes) -> Evidence:
    """What an honest TD shows."""
    return Evidence(TDX, INTEL.tdx_quote(data))


@pytest.fixture
def intel() -> Iterator[tuple[Intel, str]]:
    """Intel's service on a real socket."""
    vendor = Intel(INTEL)
    served = start_peer(vendor)
    yield vendor, served.url
    served.server.shutdown()
    served.server.server_close()


def test_an_sms_judges_with_what_the_service_gives(lone_world: World, tmp_path: Path, intel: tuple[Intel, str]) -> None:
    vendor, vendor_url = intel
    lone_world.feeds = [IntelFeed(vendor_url)]
    lone_world.settings |= {"backoff_seconds": 0.001, "max_backoff_seconds": 0.001}
    assert NOW == sms_world.START
    folder = tmp_path / "sms"
    folder.mkdir()
    with lone_world.serving() as url:
        source = SourcedCollateral(Collateral(INTEL.roots()), CollateralClient(url), keep_seconds=0)
        with sms_world.World(folder, settings=believing(source)).serving() as world:
            world.attest = quote
            # The data's key is not there: a refusal of the last step says that the evidence passed.
            assert world.refusal() == "dataset-key-missing"
            assert len(vendor.asked) == 4
            # An older list by any way is not taken, so a platform given up since stays so.
            older = lone_world.again().take([INTEL.document(TDX, Knobs(evaluation=16))], source="attacker")
            assert ("refused", "collateral-rollback") in results(older)
            assert world.refusal() == "dataset-key-missing"
            # Cut off from the vendor: served while it holds, denied after.
            vendor.broken = Reply(503)
            assert world.refusal() == "dataset-key-missing"
            lone_world.clock.now = NOW + 30 * DAY
            assert world.refusal() == "collateral-expired"
            # An unknown platform, with the vendor away and with it there.
            machine = INTEL.machine("other", fmspc=bytes(6))
            world.attest = lambda data: Evidence(TDX, INTEL.tdx_quote(data, machine=machine))
            lone_world.clock.now = NOW
            status, body, _, _ = world.run()
            assert (status, body["code"]) == (503, "unavailable")
            vendor.broken = None
            assert world.refusal() == "collateral-missing"
    # The service itself away is no refusal either.
    with pytest.raises(UnavailableError):
        source.collateral_for(quote(bytes(64)), NOW)


def test_roots_come_from_the_sms_alone(stocked: World) -> None:
    with stocked.serving() as url:
        nobody = SourcedCollateral(Collateral(), CollateralClient(url))
        assert nobody.collateral_for(quote(bytes(64)), NOW) == Collateral()
        client = CollateralClient(url)
        source = SourcedCollateral(Collateral(INTEL.roots()), client)
        found = source.collateral_for(quote(bytes(64)), NOW)
        assert found.roots == INTEL.roots()
        assert source.collateral_for(quote(bytes(64)), NOW) == found
        with pytest.raises(DecodeError):
            source.collateral_for(Evidence(TDX, b"\x04\x00"), NOW)
