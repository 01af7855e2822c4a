"""Case 16: collateral older than seen before, through a collateral service and the SMS that asks it, both over HTTP."""

from __future__ import annotations

from pathlib import Path

from tests.abuse.conftest import push_key
from tests.services.collateral.conftest import INTEL, NOW, TDX
from tests.services.collateral.conftest import World as CollateralWorld
from tests.services.collateral.test_http import believing, quote
from tests.support.dcap_authority import DAY, Knobs, spec
from tests.support.sms_world import World

from cloister.attestation.collateral import Collateral
from cloister.clients.collateral import CollateralClient, SourcedCollateral

GIVEN_UP = (spec("2026-09-20", "UpToDate", pce_svn=14), spec("2026-06-10", "OutOfDate", pce_svn=13))
"""The vendor's list once it has given up the level at which the machine stands."""


def test_case_16_collateral_older_than_seen_before(tmp_path: Path) -> None:
    collateral = CollateralWorld(tmp_path / "collateral.db")
    collateral.again().take([INTEL.document(TDX)], source="vendor")
    old_bundle = collateral.again().bundle()
    with collateral.serving() as url:
        source = SourcedCollateral(Collateral(INTEL.roots()), CollateralClient(url), keep_seconds=0)
        with World(tmp_path, settings=believing(source)).serving() as world:
            push_key(world)
            world.attest = quote
            assert world.run()[0] == 200
            newer = Knobs(evaluation=18, levels=GIVEN_UP, tcb_issued=NOW, qe_issued=NOW, crl_issued=NOW)
            collateral.again().take([INTEL.document(TDX, newer)], source="vendor")
            assert world.refusal() == "tcb-out-of-date"
            # Whoever holds the machine back at its level would like the old list back: as a document, or as a bundle.
            for attempt in (INTEL.document(TDX), INTEL.document(TDX, Knobs(tcb_issued=NOW - DAY + 60))):
                outcomes = collateral.again().take([attempt], source="attacker")
                assert "collateral-rollback" in {each.code for each in outcomes}
                assert world.refusal() == "tcb-out-of-date"
            from cloister.attestation.bundle import parse_bundle

            outcomes = collateral.again().take_bundle(parse_bundle(old_bundle), source="attacker")
            assert "collateral-rollback" in {each.code for each in outcomes}
            assert world.refusal() == "tcb-out-of-date"
