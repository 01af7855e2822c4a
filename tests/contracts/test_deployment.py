"""Deploying the whole suite on a real chain: deterministic, resumed after a kill anywhere, and proven by its code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import rlp
from hypothesis import given
from hypothesis import strategies as st
from tests.support.anvil import ROOT, Anvil, running_anvil

from cloister.chain.artifacts import load_artifact
from cloister.chain.calls import Call
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.errors import Conflict, RemoteError, VerificationError
from cloister.network.deployment import (
    CATEGORIES,
    HUB_PARTS,
    Deployment,
    Settings,
    build_blueprint,
    build_plan,
    created_address,
    deploy,
    verify_deployment,
)
from cloister.protocol.codec import Address, keccak256, to_hex
from cloister.protocol.signatures import PrivateKey

SMS = Address("0x" + "5e" * 20)
CODE_LIMIT = 24_576


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with running_anvil() as node:
        yield node


@pytest.fixture
def snapshot(node: Anvil) -> Iterator[Anvil]:
    before = node.rpc.call("evm_snapshot")
    yield node
    node.rpc.call("evm_revert", before)


def sender_of(node: Anvil, key: PrivateKey, journal: Path) -> TransactionSender:
    return TransactionSender(node.rpc, key, Journal(journal))


@pytest.fixture(scope="module")
def deployed(node: Anvil, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    sender = sender_of(node, node.account("first deployer"), tmp_path_factory.mktemp("journal") / "journal.sqlite")
    return deploy(node.rpc, sender, Settings(teebroker=SMS))


class TestPlan:
    def test_addresses_known_elsewhere(self) -> None:
        """Vectors that Ethereum's documentation repeats."""
        creator = Address("0x6ac7ea33f8831ea9dcc53393aaa88b25a785dbf0")
        assert [created_address(creator, nonce).lower() for nonce in range(3)] == [
            "0xcd234a471b72ba2f1ccf0a70fcaba648a5eecd8d",
            "0x343c43a37d37dff08ae8c4a11544c718abb4fcf8",
            "0xf778b86fa74e846c4f0a1fbd1335fe81c00a0c91",
        ]

    @given(creator=st.binary(min_size=20, max_size=20), nonce=st.one_of(st.integers(0, 300), st.integers(0, 2**64)))
    def test_addresses_agree_with_rlp(self, creator: bytes, nonce: int) -> None:
        assert created_address(Address.from_raw(creator), nonce).raw == keccak256(rlp.encode([creator, nonce]))[12:]

    def test_steps_are_the_same_each_time(self) -> None:
        deployer = Address("0x" + "11" * 20)
        plan = build_plan(deployer, Settings(teebroker=SMS))
        assert plan == build_plan(deployer, Settings(teebroker=SMS))
        assert [step.nonce for step in plan.steps] == list(range(len(plan.steps)))
        later = build_plan(deployer, Settings(teebroker=SMS), first_nonce=200)
        assert [step.nonce for step in later.steps] == list(range(200, 200 + len(plan.steps)))
        assert not set(plan.addresses.values()) & set(later.addresses.values())

    def test_a_network_with_a_token_gets_no_other(self) -> None:
        token = Address("0x" + "22" * 20)
        plan = build_plan(Address("0x" + "11" * 20), Settings(token=token))
        assert plan.addresses["Rlc"] == token
        assert "Rlc" not in [step.name for step in plan.steps]

    def test_blueprint_is_erc5202(self) -> None:
        assert build_blueprint(b"\xaa\xbb") == bytes.fromhex("6100053d81600a3d39f3") + b"\xfe\x71\x00\xaa\xbb"


@pytest.mark.parametrize("name", [*HUB_PARTS, "AppRegistry", "DatasetRegistry", "WorkerpoolRegistry", "DataProtector"])
def test_code_fits_any_network(name: str) -> None:
    assert load_artifact(name).deployed_size <= CODE_LIMIT


def test_deployed_where_planned(node: Anvil, deployed: Deployment) -> None:
    key = node.account("first deployer")
    plan = build_plan(key.address, Settings(teebroker=SMS))
    assert deployed.hub == plan.addresses["Hub"]
    assert deployed.dataprotector == plan.addresses["DataProtector"]
    assert deployed.chain_id == node.rpc.chain_id
    assert node.rpc.transaction_count(key.address, block=deployed.block) > 0
    assert node.rpc.transaction_count(key.address, block=deployed.block - 1) == 0
    assert node.rpc.transaction_count(key.address, block="latest") == len(plan.steps)


def test_again_sends_nothing(node: Anvil, deployed: Deployment, tmp_path: Path) -> None:
    """With the journal of the first run lost, too."""
    key = node.account("first deployer")
    before = node.rpc.transaction_count(key.address, block="latest")
    assert deploy(node.rpc, sender_of(node, key, tmp_path / "new.sqlite"), Settings(teebroker=SMS)) == deployed
    assert node.rpc.transaction_count(key.address, block="latest") == before


def test_again_after_the_owner_added_a_category(node: Anvil, deployed: Deployment, tmp_path: Path) -> None:
    key = node.account("first deployer")
    sender = sender_of(node, key, tmp_path / "new.sqlite")
    addition = build_plan(key.address, Settings(categories=[*CATEGORIES, replace(CATEGORIES[0], clock=0)]))
    (call,) = [step.call for step in addition.steps if step.name == "Hub.createCategory"][len(CATEGORIES) :]
    sender.send(Call(deployed.hub, call.data), intent="one more category")
    assert deploy(node.rpc, sender, Settings(teebroker=SMS)) == deployed


def test_after_the_chain_went_back(node: Anvil, tmp_path: Path) -> None:
    """A local chain that is restored from an old checkpoint has lost the deployment, or half of it."""
    key = node.account("second deployer")
    sender = sender_of(node, key, tmp_path / "journal.sqlite")
    before = node.rpc.call("evm_snapshot")
    first = deploy(node.rpc, sender, Settings(teebroker=SMS))
    assert node.rpc.call("evm_revert", before) is True
    assert node.rpc.code(first.hub, block="latest") == b""
    assert replace(deploy(node.rpc, sender, Settings(teebroker=SMS)), block=0) == replace(first, block=0)


def test_a_key_with_a_past_is_refused(node: Anvil, tmp_path: Path) -> None:
    key = node.account("busy deployer")
    sender = sender_of(node, key, tmp_path / "journal.sqlite")
    sender.send(Call(key.address, b"", gas=21_000), intent="something else")
    with pytest.raises(Conflict, match="did not create Rlc"):
        deploy(node.rpc, sender)
    with pytest.raises(Conflict, match="begins after 9"):
        deploy(node.rpc, sender, first_nonce=9)
    deployment = deploy(node.rpc, sender, first_nonce=1)
    assert deployment.rlc == created_address(key.address, 1)


CHILD = """
import os, signal, sys
from pathlib import Path
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.network.deployment import Settings, deploy
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey

url, key, journal, place, after = sys.argv[1:]

class Dying(TransactionSender):
    left = int(place)
    def submit(self, call, *, intent):
        self.left -= 1
        if self.left < 0 and after == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        submission = super().submit(call, intent=intent)
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return submission

rpc = JsonRpc(url)
sender = Dying(rpc, PrivateKey.parse(key), Journal(Path(journal)))
deploy(rpc, sender, Settings(teebroker=Address("0x" + "5e" * 20)))
"""


@pytest.mark.parametrize(("place", "after"), [(0, "before"), (0, "after"), (9, "before"), (17, "after")])
def test_resumed_after_a_kill(node: Anvil, tmp_path: Path, place: int, after: str) -> None:
    key = node.account(f"deployer killed at {place} {after}")
    journal = tmp_path / "journal.sqlite"
    command = [sys.executable, "-c", CHILD, node.url, to_hex(key.unprotected_raw()), str(journal), str(place), after]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, check=False, env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    deployment = deploy(node.rpc, sender_of(node, key, journal), Settings(teebroker=SMS))
    plan = build_plan(key.address, Settings(teebroker=SMS))
    assert deployment.hub == plan.addresses["Hub"]
    assert node.rpc.transaction_count(key.address, block="latest") == len(plan.steps)


class TestVerification:
    def test_ours(self, node: Anvil, deployed: Deployment) -> None:
        verified = verify_deployment(node.rpc, deployed)
        assert verified.deployment == deployed

    @pytest.mark.parametrize(
        "member", ["hub", "rlc", "app_registry", "dataset_registry", "workerpool_registry", "dataprotector"]
    )
    def test_nothing_there(self, node: Anvil, deployed: Deployment, member: str) -> None:
        with pytest.raises(VerificationError):
            verify_deployment(node.rpc, replace(deployed, **{member: Address("0x" + "77" * 20)}))

    @pytest.mark.parametrize(
        "member", ["hub", "rlc", "app_registry", "dataset_registry", "workerpool_registry", "dataprotector"]
    )
    def test_one_foreign_byte(self, snapshot: Anvil, deployed: Deployment, member: str) -> None:
        address = getattr(deployed, member)
        code = bytearray(snapshot.rpc.code(address, block="latest"))
        code[100] ^= 1
        snapshot.rpc.call("anvil_setCode", address, to_hex(bytes(code)))
        with pytest.raises(VerificationError, match="is not ours"):
            verify_deployment(snapshot.rpc, deployed)

    @pytest.mark.parametrize("extra", [b"\x00", b"\x00" * 32])
    def test_code_behind_ours(self, snapshot: Anvil, deployed: Deployment, extra: bytes) -> None:
        code = snapshot.rpc.code(deployed.hub, block="latest")
        snapshot.rpc.call("anvil_setCode", deployed.hub, to_hex(code + extra))
        with pytest.raises(VerificationError, match="is not ours"):
            verify_deployment(snapshot.rpc, deployed)

    @pytest.mark.parametrize("name", ["Hub", "DataProtector", "AppRegistry", "DatasetRegistry", "WorkerpoolRegistry"])
    def test_every_immutable_counts(self, snapshot: Anvil, deployed: Deployment, name: str) -> None:
        member = {"Hub": "hub", "DataProtector": "dataprotector"}.get(name) or name.replace(
            "Registry", "_registry"
        ).lower()
        address = getattr(deployed, member)
        artifact = load_artifact(name)
        code = snapshot.rpc.code(address, block="latest")
        for at, size in artifact.immutables.values():
            changed = bytearray(code)
            # The last byte of a string's words may be padding, the last of its length never is.
            changed[len(artifact.runtime) + at + (31 if size > 32 else size - 1)] ^= 1
            snapshot.rpc.call("anvil_setCode", address, to_hex(bytes(changed)))
            with pytest.raises(VerificationError):
                verify_deployment(snapshot.rpc, deployed)

    @pytest.mark.parametrize("part", range(len(HUB_PARTS)))
    def test_every_part_of_the_hub_counts(self, snapshot: Anvil, deployed: Deployment, part: int) -> None:
        plan = build_plan(snapshot.account("first deployer").address, Settings(teebroker=SMS))
        snapshot.rpc.call("anvil_setCode", plan.addresses[HUB_PARTS[part]], "0x00")
        with pytest.raises(VerificationError, match=HUB_PARTS[part]):
            verify_deployment(snapshot.rpc, deployed)

    def test_entries_count(self, snapshot: Anvil, deployed: Deployment) -> None:
        """Whoever can change what all apps run on owns them."""
        artifact = load_artifact("AppRegistry")
        at, _ = artifact.immutables["registry.master"]
        code = snapshot.rpc.code(deployed.app_registry, block="latest")
        master = code[len(artifact.runtime) + at :][12:32]
        snapshot.rpc.call("anvil_setCode", to_hex(master), "0x00")
        with pytest.raises(VerificationError, match="App: the code"):
            verify_deployment(snapshot.rpc, deployed)

    def test_swapped_registries(self, node: Anvil, deployed: Deployment) -> None:
        swapped = replace(deployed, app_registry=deployed.dataset_registry, dataset_registry=deployed.app_registry)
        with pytest.raises(VerificationError):
            verify_deployment(node.rpc, swapped)

    def test_an_older_registry_must_be_named(self, node: Anvil, deployed: Deployment, tmp_path: Path) -> None:
        key = node.account("third deployer")
        sender = sender_of(node, key, tmp_path / "journal.sqlite")
        previous = {"DatasetRegistry": deployed.dataset_registry}
        deployment = deploy(node.rpc, sender, Settings(previous=previous))
        verify_deployment(node.rpc, deployment, previous=previous)
        with pytest.raises(VerificationError, match="trusts another older registry"):
            verify_deployment(node.rpc, deployment)
        with pytest.raises(VerificationError, match="trusts another older registry"):
            verify_deployment(node.rpc, deployed, previous=previous)

    def test_another_chain(self, deployed: Deployment) -> None:
        with running_anvil() as other, pytest.raises(RemoteError):
            verify_deployment(JsonRpc(other.url), replace(deployed, chain_id=1))
