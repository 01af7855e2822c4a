"""The client that sdk and worker use, against the real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.sms_world import APP, CHAIN_ID, DATASET, DATASET_KEY, HUB, START, Enclave, World

from cloister.clients.sms import SmsClient
from cloister.errors import Conflict, Denied, NotFound, Unauthenticated
from cloister.protocol.codec import Bytes32
from cloister.protocol.policies import AccessPolicy


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path).serving() as running:
        yield running


@pytest.fixture
def client(world: World) -> SmsClient:
    return SmsClient(world.url, chain_id=CHAIN_ID, hub=HUB, clock=world.clock)


def test_dataset_secret(world: World, client: SmsClient) -> None:
    assert client.has_dataset_secret(DATASET) is False
    with pytest.raises(Unauthenticated):
        client.push_dataset_secret(DATASET, DATASET_KEY, world.stranger)
    client.push_dataset_secret(DATASET, DATASET_KEY, world.owner)
    client.push_dataset_secret(DATASET, DATASET_KEY, world.owner)
    assert client.has_dataset_secret(DATASET) is True
    with pytest.raises(Conflict):
        client.push_dataset_secret(DATASET, "another", world.owner)
    with pytest.raises(Denied):
        client.erase_dataset_secret(DATASET, world.stranger)
    client.erase_dataset_secret(DATASET, world.owner)
    with pytest.raises(NotFound):
        client.erase_dataset_secret(DATASET, world.owner)
    assert client.has_dataset_secret(DATASET) is False


def test_web2_secret(world: World, client: SmsClient) -> None:
    who, key = world.requester.address, world.requester
    with pytest.raises(NotFound):
        client.update_web2_secret(who, "token", "one", key)
    for value in ("one", "one", "two", "two"):
        client.set_web2_secret(who, "token", value, key)
    assert client.has_web2_secret(who, "token") is True
    with pytest.raises(Conflict):
        client.push_web2_secret(who, "token", "three", key)
    client.erase_web2_secret(who, "token", key)
    assert client.has_web2_secret(who, "token") is False


def test_app_and_requester_secrets(world: World, client: SmsClient) -> None:
    client.push_app_secret(APP, "value", world.app_owner)
    client.push_app_secret(APP, "value", world.app_owner)
    assert client.has_app_secret(APP) is True
    with pytest.raises(Conflict):
        client.push_app_secret(APP, "other", world.app_owner)
    client.erase_app_secret(APP, world.app_owner)
    who = world.requester.address
    client.push_requester_secret(who, "name", "value", world.requester)
    assert client.has_requester_secret(who, "name") is True
    client.erase_requester_secret(who, "name", world.requester)
    assert client.has_requester_secret(who, "name") is False


def test_policy(world: World, client: SmsClient) -> None:
    policy = AccessPolicy(bytes(16), valid_until=START + 5, purposes=("research",))
    digest = client.put_policy(policy, world.owner)
    assert client.put_policy(policy, world.owner) == digest
    assert client.policy(digest) == policy
    with pytest.raises(NotFound):
        client.policy(Bytes32("0x" + "00" * 32))


def test_session_and_record(world: World, client: SmsClient) -> None:
    client.push_dataset_secret(DATASET, DATASET_KEY, world.owner)
    assert client.identity() == world.teebroker.address
    enclave, grant = Enclave(), client.nonce(world.task_id)
    assert grant.expires_at == START + 300
    call = world.call(world.request(enclave, grant.nonce))
    release = world.unseal(client.open_session(call), enclave, call.request)
    assert release.dataset is not None
    assert release.dataset.key == DATASET_KEY
    with pytest.raises(Denied) as refusal:
        client.open_session(call)
    assert refusal.value.code == "nonce-refused"
    world.ledger.closed.add(world.order.hash(world.domain))
    with pytest.raises(Denied) as refusal:
        client.open_session(world.call(world.request(enclave, client.nonce(world.task_id).nonce)))
    assert refusal.value.code == "order-closed"
    assert [line["reason"] for line in client.releases(DATASET, world.owner)] == [None, "order-closed"]
    with pytest.raises(Denied):
        list(client.releases(DATASET, world.stranger))
