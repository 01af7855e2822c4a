"""Cases 16, 26 and 49: lists that go back, one machine that counts twice, and rules of somebody else's data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.abuse.conftest import push_key
from tests.support.dcap_authority import DcapAuthority, Knobs
from tests.support.sms_world import DATASET, MEASUREMENT, START, World

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import ANY, EnclavePolicy
from cloister.attestation.rules import parse_rules
from cloister.clients.collateral import CollateralClient, SourcedCollateral
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.data_policies import DataPolicy, sign_data_policy
from cloister.protocol.signatures import PrivateKey
from cloister.services.application import BackgroundServer, build_application
from cloister.services.collateral.part import build_collateral_part
from cloister.services.collateral.settings import CollateralSettings
from cloister.services.database import open_database

TDX = EvidenceKind.TDX
INTEL = DcapAuthority.create(now=START)
OWN: dict[str, Any] = {"kind": "simulated", "measurements": [MEASUREMENT.hex()]}
STRICT: dict[str, Any] = {"kind": "simulated", "measurements": ["ab" * 32]}


def stand(
    world: World, rules: dict[str, Any], key: PrivateKey, *, version: int = 1, dataset: Address = DATASET
) -> tuple[int, dict[str, Any]]:
    """Ask the SMS to keep rules for data, signed by ``key``."""
    statement = DataPolicy(dataset, Bytes32.from_raw(parse_rules(rules).digest), version, START)
    signed = sign_data_policy(statement, rules, key, world.domain)
    status, body = world.ask("PUT", f"/policies/data/{dataset}", body=signed.to_json())
    return status, json.loads(body) if body else {}


def test_case_16_collateral_older_than_seen_before(tmp_path: Path) -> None:
    """A platform that Intel's newer list gave up stays given up, whoever brings the older list, also after a restart."""
    given_up = INTEL.machine("given up", pce_svn=11)
    kinder = (dict(Knobs().levels[2], tcbStatus="UpToDate", advisoryIDs=[]),)
    policy = EnclavePolicy(
        TDX,
        frozenset({hashlib.sha256(INTEL.root).digest()}),
        frozenset({b"\x11" * 48}),
        registers={"rtmr1": ANY, "rtmr2": ANY},
    )
    database = tmp_path / "collateral.db"

    def run(document: Knobs) -> tuple[list[str | None], str | None]:
        part = build_collateral_part(
            CollateralSettings(trust=Collateral(INTEL.roots())), database=open_database(database), clock=lambda: START
        )
        with BackgroundServer(build_application([part])) as server:
            outcomes = part.service.take([INTEL.document(TDX, document)], source="whoever")
            source = SourcedCollateral(Collateral(INTEL.roots()), CollateralClient(server.url), keep_seconds=0)
            folder = tmp_path / f"sms-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            with World(folder, settings={"policy": policy, "collateral": source}).serving() as world:
                push_key(world)
                world.attest = lambda data: Evidence(TDX, INTEL.tdx_quote(data, machine=given_up))
                _, body, _, _ = world.run()
                return [outcome.code for outcome in outcomes], body.get("code")

    assert run(Knobs(evaluation=16, levels=kinder))[1] is None
    assert run(Knobs(evaluation=17))[1] == "tcb-out-of-date"
    codes, code = run(Knobs(evaluation=16, levels=kinder))
    assert "collateral-rollback" in codes
    assert code == "tcb-out-of-date"


def test_case_26_two_quotes_of_one_platform(world: World) -> None:
    world.make_deal(trust=2)
    assert stand(world, {**OWN, "distinct": "platform"}, world.owner)[0] == 204
    assert world.run(worker=world.worker.address)[0] == 200
    status, body, _, _ = world.run(worker=world.stranger.address)
    assert (status, body["code"]) == (403, "platform-repeated")


def test_case_49_one_owners_policy_never_replaces_anothers(world: World) -> None:
    other = Address("0x" + "d2" * 20)
    world.ledger.datasets[other] = dataclasses.replace(world.ledger.datasets[DATASET], owner=world.stranger.address)
    world.ledger.owners[other] = world.stranger.address
    assert stand(world, STRICT, world.owner)[0] == 204
    assert world.refusal() == "measurement-unknown"
    # The stranger, who is an owner too, may set rules for data of their own and for no other.
    assert stand(world, OWN, world.stranger, dataset=other)[0] == 204
    for version in (1, 2, 99):
        status, _ = stand(world, OWN, world.stranger, version=version)
        assert status in (401, 403), version
    # Nor does a signature for one's own data serve for another's.
    statement = DataPolicy(other, Bytes32.from_raw(parse_rules(OWN).digest), 7, START)
    signed = sign_data_policy(statement, OWN, world.stranger, world.domain).to_json()
    assert world.ask("PUT", f"/policies/data/{DATASET}", body=signed)[0] in (400, 401, 403)
    assert world.refusal() == "measurement-unknown"
    # The owner's own older statement does not come back either.
    assert stand(world, OWN, world.owner, version=2)[0] == 204
    assert world.run()[0] == 200
    assert stand(world, STRICT, world.owner, version=1)[0] in (403, 409)
    assert world.run()[0] == 200


@pytest.mark.parametrize("rules", [{}, {"kind": "simulated"}], ids=["nothing", "no reference values"])
def test_case_20_owners_rules_without_reference_values(world: World, rules: dict[str, Any]) -> None:
    if not rules:
        with pytest.raises(Exception, match="kind"):
            parse_rules(rules)
        return
    assert stand(world, rules, world.owner)[0] == 204
    assert world.refusal() == "no-reference-values"
