"""Collateral never goes back (abuse case 16): not by a newer file, not after a restart, not by two at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.services.collateral.conftest import AMD, INTEL, NOW, SNP, TDX, World, results
from tests.support.dcap_authority import DAY, Knobs

from cloister.attestation.bundle import build_bundle, parse_bundle
from cloister.attestation.collateral import Document
from cloister.attestation.pieces import Family, PieceId, PieceName
from cloister.attestation.provenance import Floor, root_fingerprint

OLDER = {
    "evaluation number": Knobs(evaluation=16),
    "TCB info's day": Knobs(tcb_issued=NOW - 2 * DAY),
    "QE identity's day": Knobs(qe_issued=NOW - 2 * DAY),
    "PCK CRL's day": Knobs(crl_issued=NOW - 2 * DAY),
    "root CRL's day": Knobs(root_crl_issued=NOW - 2 * DAY),
    "evaluation number, though of today": Knobs(evaluation=16, tcb_issued=NOW, qe_issued=NOW),
}


@pytest.mark.parametrize("name", OLDER)
def test_older_than_seen_is_refused(name: str, lone_world: World) -> None:
    service = lone_world.again()
    service.take([INTEL.document(TDX)], source="vendor")
    before = service.pieces()
    for reopened in (service, lone_world.again()):
        outcomes = reopened.take([INTEL.document(TDX, OLDER[name])], source="attacker")
        assert ("refused", "collateral-rollback") in results(outcomes)
        assert results(outcomes) <= {("refused", "collateral-rollback"), ("unchanged", None)}
        assert [each.piece for each in reopened.pieces()] == [each.piece for each in before]


def test_floors_stand_after_a_restart_and_rise(world: World) -> None:
    service = world.again()
    assert results(service.take([INTEL.document(TDX)], source="vendor")) == {("stored", None)}
    newer = Knobs(evaluation=18, tcb_issued=NOW, qe_issued=NOW, crl_issued=NOW, root_crl_issued=NOW)
    assert results(world.again().take([INTEL.document(TDX, newer)], source="vendor")) == {("stored", None)}
    third = world.again()
    assert results(third.take([INTEL.document(TDX)], source="attacker")) == {("refused", "collateral-rollback")}
    assert {each.floor.evaluation for each in third.pieces()} == {18, None}


def test_the_floor_of_one_platform_is_not_anothers(world: World) -> None:
    service = world.again()
    service.take([INTEL.document(TDX, Knobs(evaluation=18))], source="vendor")
    other = Knobs(evaluation=17, fmspc=bytes(6))
    outcomes = service.take([INTEL.document(TDX, other)], source="vendor")
    # Its own TCB info is the first of its platform; the QE identity is the whole vendor's.
    assert {(each.id, each.result) for each in outcomes if each.result != "unchanged"} == {
        ("intel tcb-info tdx/000000000000", "stored"),
        ("intel qe-identity", "refused"),
    }


def test_an_older_bundle_is_refused(lone_world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    old = World(tmp_path_factory.mktemp("old") / "c.db").again()
    old.take([INTEL.document(TDX)], source="vendor")
    yesterday = parse_bundle(old.bundle())
    service = lone_world.again()
    newer = Knobs(evaluation=18, tcb_issued=NOW, qe_issued=NOW, crl_issued=NOW, root_crl_issued=NOW)
    service.take([INTEL.document(TDX, newer)], source="vendor")
    outcomes = service.take_bundle(yesterday, source="attacker")
    assert results(outcomes) == {("refused", "collateral-rollback")}


def test_a_bundle_with_a_document_put_back_is_named(lone_world: World) -> None:
    floors = {
        (root_fingerprint(INTEL.root), PieceId(Family.INTEL, PieceName.TCB_INFO, "tdx/b0c06f000000")): Floor(NOW, 18)
    }
    forged = parse_bundle(build_bundle([INTEL.document(TDX)], floors, made_at=NOW))
    outcomes = lone_world.again().take_bundle(forged, source="file")
    assert [each.id for each in outcomes if each.code == "collateral-rollback"] == ["intel tcb-info tdx/b0c06f000000"]


def test_of_many_at_once_the_newest_stays(world: World) -> None:
    services = [world.again() for _ in range(4)]
    documents = [
        INTEL.document(TDX, Knobs(evaluation=10 + n, tcb_issued=NOW - DAY + n, qe_issued=NOW - DAY + n))
        for n in range(12)
    ]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda n: services[n % 4].take([documents[-1 - n]], source=str(n)), range(12)))
    assert {code for outcomes in taken for _, code in results(outcomes)} <= {None, "collateral-rollback"}
    kept = {each.id.name: each.floor.evaluation for each in services[0].pieces()}
    assert kept[PieceName.TCB_INFO] == kept[PieceName.QE_IDENTITY] == 21


def test_crls_of_amd_go_forward_and_certificates_last_longest(lone_world: World) -> None:
    service = lone_world.again()

    def take(*documents: tuple[str, bytes]) -> set[tuple[str, str | None]]:
        return results(service.take([Document(SNP, name, content) for name, content in documents], source="x"))

    assert take(("crl", AMD.crl(this_update=NOW - DAY))) == {("stored", None)}
    assert take(("crl", AMD.crl(this_update=NOW))) == {("stored", None)}
    assert take(("crl", AMD.crl(this_update=NOW - DAY))) == {("refused", "collateral-rollback")}
    long, short = AMD.leaf(), AMD.leaf(not_after=NOW + DAY)
    assert take(("certificate", AMD.ask), ("certificate", long)) == {("stored", None)}
    assert take(("certificate", short)) == {("unchanged", None)}
    (chip,) = (each for each in service.pieces() if each.id.key.count("/") == 2)
    assert chip.piece.body == long


def test_no_more_is_kept_than_the_cap(lone_world: World) -> None:
    from cloister.errors import UnavailableError

    lone_world.settings["max_pieces"] = 4
    service = lone_world.again()
    service.take([INTEL.document(TDX)], source="vendor")
    with pytest.raises(UnavailableError, match="which is the cap"):
        service.take([INTEL.document(TDX, Knobs(fmspc=bytes(6)))], source="vendor")
