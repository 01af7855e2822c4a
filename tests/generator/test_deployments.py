"""The record of what was deployed where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.errors import DecodeError
from cloister.generator.deployments import Deployment, Terms, load_deployments
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.units import INFINITE_VOLUME
from cloister.sdk.apps import Offer

RECORD = Deployment(
    network="local",
    chain_id=421614,
    hub=Address("0x" + "11" * 20),
    address=Address("0x" + "22" * 20),
    name="tiny",
    version="1.0.0",
    owner=Address("0x" + "33" * 20),
    multiaddr="/ipfs/Qm",
    checksum=Bytes32("0x" + "44" * 32),
    deployed_at="2026-01-01T00:00:00+00:00",
)


def write(folder: Path, document: object) -> Path:
    path = folder / ".cloister" / "deployments.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_a_record_reads_as_it_was_written(tmp_path: Path) -> None:
    assert load_deployments(tmp_path) == ()
    write(tmp_path, {"version": 1, "deployments": [RECORD.to_json()]})
    assert load_deployments(tmp_path) == (RECORD,)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        {"version": 2, "deployments": []},
        {"version": 1, "deployments": {}},
        {"version": 1, "deployments": [{}]},
        {"version": 1, "deployments": [RECORD.to_json() | {"address": "0x12"}]},
        {"version": 1, "deployments": [RECORD.to_json() | {"secret": "the secret"}]},
        {"version": 1, "deployments": [RECORD.to_json() | {"more": 1}]},
    ],
)
def test_a_damaged_record_is_told_and_left_as_it_is(tmp_path: Path, document: object) -> None:
    path = write(tmp_path, document)
    before = path.read_bytes()
    with pytest.raises(DecodeError, match=r"deployments\.json is damaged") as damaged:
        load_deployments(tmp_path)
    assert damaged.value.hint
    assert path.read_bytes() == before


def test_an_offer_is_on_the_terms_when_all_of_it_is() -> None:
    user = Address("0x" + "55" * 20)
    offer = Offer(Bytes32("0x" + "66" * 32), 10_000_000, 7, INFINITE_VOLUME, None, None)
    assert Terms("0.01 RLC").is_offer(offer)
    assert not Terms("0.02 RLC").is_offer(offer)
    assert not Terms("0.01 RLC", uses=7).is_offer(offer)
    assert not Terms("0.01 RLC", user=user).is_offer(offer)
    assert not Terms("0.01 RLC").is_offer(Offer(offer.order_hash, offer.price, 7, INFINITE_VOLUME, None, user))
