"""Cases 20, 26 and 49, where owners have a say: one machine that counts twice, and rules of somebody else's data."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tests.support.sms_world import DATASET, MEASUREMENT, START, World

from cloister.attestation.rules import parse_rules
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.data_policies import DataPolicy, sign_data_policy
from cloister.protocol.signatures import PrivateKey

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
