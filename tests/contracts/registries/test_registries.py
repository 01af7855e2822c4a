"""Creation, prediction, ownership, the older registry and metadata, on all three registries."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts.conftest import REGISTRIES, Suite

ZERO = "0x" + "00" * 20
CHECKSUM = bytes(range(32))
KINDS = ("App", "Dataset", "Workerpool")
NAMES = {
    "App": ("iExec Application Registry (V5)", "iExecAppsV5"),
    "Dataset": ("iExec Dataset Registry (V5)", "iExecDatasetsV5"),
    "Workerpool": ("iExec Workerpool Registry (V5)", "iExecWorkerpoolV5"),
}
FIELDS: dict[str, tuple[Any, ...]] = {
    "App": ("hello", "DOCKER", b"images.example/hello:1", CHECKSUM, b""),
    "Dataset": ("contact", b"/ipfs/Qm", CHECKSUM),
    "Workerpool": ("a pool",),
}


def registry(suite: Suite, kind: str) -> Any:
    return {"App": suite.apps, "Dataset": suite.datasets, "Workerpool": suite.workerpools}[kind]


def create(target: Any, kind: str, owner: str, *fields: Any) -> str:
    return str(getattr(target, f"create{kind}")(owner, *(fields or FIELDS[kind])))


def predict(target: Any, kind: str, owner: str, *fields: Any) -> str:
    return str(getattr(target, f"predict{kind}")(owner, *(fields or FIELDS[kind])))


def deploy_another(kind: str) -> Any:
    blueprint = boa.load_partial(str(REGISTRIES / f"{kind}.vy")).deploy_as_blueprint()
    return boa.load(str(REGISTRIES / f"{kind}Registry.vy"), blueprint)


@pytest.mark.parametrize("kind", KINDS)
def test_names(suite: Suite, kind: str) -> None:
    target = registry(suite, kind)
    assert (target.name(), target.symbol()) == NAMES[kind]
    assert target.owner() == suite.deployer
    assert boa.env.get_code(target.master())


@pytest.mark.parametrize("kind", KINDS)
def test_created_where_predicted(suite: Suite, kind: str, data_owner: str, attacker: str) -> None:
    target = registry(suite, kind)
    address = predict(target, kind, data_owner)
    assert not target.isRegistered(address)
    assert target.resolve(address) == (ZERO, 0)
    with boa.env.prank(attacker):
        assert create(target, kind, data_owner) == address
    assert target.isRegistered(address)
    assert target.ownerOf(int(address, 16)) == data_owner
    assert target.resolve(address) == (data_owner, (30 << 128) | 1 if kind == "Workerpool" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_second_creation_is_refused_without_burning_the_gas(suite: Suite, kind: str, data_owner: str) -> None:
    target = registry(suite, kind)
    create(target, kind, data_owner)
    with boa.reverts("Create2: Failed on deploy"):
        create(target, kind, data_owner)
    assert target._computation.get_gas_used() < 50_000
    assert target.totalSupply() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_another_owner_has_another_address(suite: Suite, kind: str, data_owner: str, attacker: str) -> None:
    target = registry(suite, kind)
    assert create(target, kind, attacker) != create(target, kind, data_owner)


def test_fields_do_not_run_into_each_other(suite: Suite, data_owner: str) -> None:
    one = predict(suite.datasets, "Dataset", data_owner, "ab", b"c", CHECKSUM)
    other = predict(suite.datasets, "Dataset", data_owner, "a", b"bc", CHECKSUM)
    assert one != other
    apps = {
        predict(suite.apps, "App", data_owner, *fields, CHECKSUM, mrenclave)
        for *fields, mrenclave in (
            ("ab", "c", b"d", b""),
            ("a", "bc", b"d", b""),
            ("a", "b", b"cd", b""),
            ("a", "b", b"c", b"d"),
            ("abc", "d", b"", b""),
        )
    }
    assert len(apps) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_initialize_once_by_the_owner(suite: Suite, kind: str, attacker: str) -> None:
    target = registry(suite, kind)
    older = deploy_another(kind)
    with boa.env.prank(attacker), boa.reverts("Ownable: caller is not the owner"):
        target.initialize(older.address)
    with boa.reverts("previous registry is this one"):
        target.initialize(target.address)
    assert not target.initialized()
    target.initialize(older.address)
    assert target.initialized()
    assert target.previous() == older.address
    with boa.reverts("already initialized"):
        target.initialize(ZERO)


@pytest.mark.parametrize("kind", KINDS)
def test_entries_of_older_registries_count(suite: Suite, kind: str, data_owner: str, buyer: str) -> None:
    oldest, older, target = deploy_another(kind), deploy_another(kind), registry(suite, kind)
    older.initialize(oldest.address)
    target.initialize(older.address)
    first, second = create(oldest, kind, data_owner), create(older, kind, buyer)
    policy = (30 << 128) | 1 if kind == "Workerpool" else 0
    if kind == "Workerpool":
        with boa.env.prank(data_owner):
            suite.workerpool(first).changePolicy(55, 7)
    assert target.isRegistered(first)
    assert target.isRegistered(second)
    assert target.resolve(first) == (data_owner, (55 << 128) | 7 if kind == "Workerpool" else 0)
    assert target.resolve(second) == (buyer, policy)
    assert not target.isRegistered(older.address)
    assert target.resolve(older.address) == (ZERO, 0)
    with boa.env.prank(buyer):
        older.transferFrom(buyer, data_owner, int(second, 16))
    assert target.resolve(second) == (data_owner, policy)
    # The token stays where it was made.
    with boa.reverts("ERC721: invalid token ID"):
        target.ownerOf(int(first, 16))


@pytest.mark.parametrize("kind", KINDS)
def test_metadata(suite: Suite, kind: str, data_owner: str, attacker: str) -> None:
    target = registry(suite, kind)
    token = int(create(target, kind, data_owner), 16)
    assert target.tokenURI(token) == ""
    with boa.env.prank(attacker), boa.reverts("Ownable: caller is not the owner"):
        target.setBaseURI("https://evil.example/")
    for base in ("https://entries.example/", "x" * 512):
        target.setBaseURI(base)
        assert target.baseURI() == base
        assert target.tokenURI(token) == f"{base}{token}"
    with boa.reverts():
        target.setBaseURI("x" * 513)


@pytest.mark.parametrize("kind", KINDS)
def test_set_name_is_not_supported(suite: Suite, kind: str, data_owner: str, attacker: str) -> None:
    target = registry(suite, kind)
    with boa.reverts("Operation not supported on this chain"):
        target.setName(ZERO, "name")
    with boa.env.prank(attacker), boa.reverts("Ownable: caller is not the owner"):
        target.setName(ZERO, "name")


@pytest.mark.parametrize("kind", KINDS)
def test_ownership(suite: Suite, kind: str, buyer: str, attacker: str) -> None:
    target = registry(suite, kind)
    with boa.env.prank(attacker):
        for attempt in (lambda: target.transferOwnership(attacker), target.renounceOwnership):
            with boa.reverts("Ownable: caller is not the owner"):
                attempt()
    with boa.reverts("Ownable: new owner is the zero address"):
        target.transferOwnership(ZERO)
    target.transferOwnership(buyer)
    (log,) = target.get_logs()
    assert (log.previousOwner, log.newOwner) == (suite.deployer, buyer)
    with boa.env.prank(buyer):
        target.renounceOwnership()
    assert target.owner() == ZERO


@pytest.mark.parametrize("kind", KINDS)
def test_plain_ether_and_unknown_calls_are_refused(suite: Suite, kind: str, data_owner: str) -> None:
    target = registry(suite, kind)
    entry = create(target, kind, data_owner)
    for address in (target.address, entry, target.master()):
        for payload, value in ((b"", 0), (b"", 1), (b"\xde\xad\xbe\xef", 0)):
            boa.env.set_balance(boa.env.eoa, 10)
            computation = boa.env.execute_code(to_address=address, data=payload, value=value)
            assert computation.is_error


class TestEntries:
    def test_app(self, suite: Suite, data_owner: str) -> None:
        app = suite.app(create(suite.apps, "App", data_owner, "hello", "DOCKER", b"image", CHECKSUM, b"{}"))
        assert (app.m_appName(), app.m_appType(), app.m_appMultiaddr()) == ("hello", "DOCKER", b"image")
        assert (app.m_appChecksum(), app.m_appMREnclave()) == (CHECKSUM, b"{}")
        assert (app.owner(), app.registry()) == (data_owner, suite.apps.address)

    def test_owner_follows_the_token(self, suite: Suite, data_owner: str, buyer: str) -> None:
        dataset = suite.dataset(create(suite.datasets, "Dataset", data_owner))
        with boa.env.prank(data_owner):
            suite.datasets.transferFrom(data_owner, buyer, int(dataset.address, 16))
        assert dataset.owner() == buyer
        assert suite.datasets.resolve(dataset.address) == (buyer, 0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_set_name_is_not_supported(self, suite: Suite, kind: str, data_owner: str, attacker: str) -> None:
        entry = getattr(suite, kind.lower())(create(registry(suite, kind), kind, data_owner))
        with boa.env.prank(data_owner), boa.reverts("Operation not supported on this chain"):
            entry.setName(ZERO, "name")
        with boa.env.prank(attacker), boa.reverts("caller is not the owner"):
            entry.setName(ZERO, "name")

    def test_the_implementation_itself_belongs_to_nobody(self, suite: Suite) -> None:
        with boa.reverts("ERC721: invalid token ID"):
            suite.workerpool(suite.workerpools.master()).owner()
        with boa.reverts("ERC721: invalid token ID"):
            suite.workerpool(suite.workerpools.master()).changePolicy(1, 1)

    def test_policy(self, suite: Suite, data_owner: str, buyer: str, attacker: str) -> None:
        address = create(suite.workerpools, "Workerpool", data_owner)
        pool = suite.workerpool(address)
        assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == (30, 1)
        with boa.env.prank(attacker), boa.reverts("caller is not the owner"):
            pool.changePolicy(0, 100)
        with boa.env.prank(data_owner):
            for old, new in (((30, 1), (0, 0)), ((0, 0), (2**56 - 1, 100)), ((2**56 - 1, 100), (42, 7))):
                pool.changePolicy(*new)
                (log,) = (log for log in pool.get_logs() if type(log).__name__ == "PolicyUpdate")
                assert (log.oldWorkerStakeRatioPolicy, log.oldSchedulerRewardRatioPolicy) == old
                assert (log.newWorkerStakeRatioPolicy, log.newSchedulerRewardRatioPolicy) == new
                assert (pool.m_workerStakeRatioPolicy(), pool.m_schedulerRewardRatioPolicy()) == new
                assert suite.workerpools.resolve(address) == (data_owner, (new[0] << 128) | new[1])
            for bad in ((1, 101), (2**56, 1), (2**256 - 1, 1), (1, 2**256 - 1)):
                with boa.reverts():
                    pool.changePolicy(*bad)
            # The policy stays when the workerpool is sold.
            suite.workerpools.transferFrom(data_owner, buyer, int(address, 16))
        assert suite.workerpools.resolve(address) == (buyer, (42 << 128) | 7)
        with boa.env.prank(data_owner), boa.reverts("caller is not the owner"):
            pool.changePolicy(1, 1)

    def test_policy_is_set_by_workerpools_only(self, suite: Suite, data_owner: str, attacker: str) -> None:
        dataset = create(suite.datasets, "Dataset", data_owner)
        for caller in (attacker, data_owner, suite.deployer, dataset, suite.workerpools.master()):
            with boa.env.prank(caller), boa.reverts("caller is not a workerpool"):
                suite.workerpools.setPolicy(0, 100)

    def test_widest_fields(self, suite: Suite, data_owner: str) -> None:
        fields = ("n" * 256, "t" * 64, b"m" * 1024, b"\xff" * 32, b"e" * 2048)
        app = suite.app(create(suite.apps, "App", data_owner, *fields))
        assert (app.m_appName(), app.m_appType(), app.m_appMultiaddr(), app.m_appChecksum(), app.m_appMREnclave()) == (
            fields
        )
        dataset = suite.dataset(create(suite.datasets, "Dataset", data_owner, "n" * 256, b"m" * 1024, CHECKSUM))
        assert (dataset.m_datasetName(), dataset.m_datasetMultiaddr()) == ("n" * 256, b"m" * 1024)
        pool = suite.workerpool(create(suite.workerpools, "Workerpool", data_owner, "d" * 1024))
        assert pool.m_workerpoolDescription() == "d" * 1024

    @pytest.mark.parametrize("wide", range(4))
    def test_one_byte_too_many_is_refused(self, suite: Suite, data_owner: str, wide: int) -> None:
        caps = (256, 64, 1024, 2048)
        name, kind, multiaddr, mrenclave = (b"x" * (cap + (wide == place)) for place, cap in enumerate(caps))
        with boa.reverts():
            create(suite.apps, "App", data_owner, name.decode(), kind.decode(), multiaddr, CHECKSUM, mrenclave)

    @given(name=st.text(max_size=40), multiaddr=st.binary(max_size=70), checksum=st.binary(min_size=32, max_size=32))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_dataset_reads_back(self, suite: Suite, name: str, multiaddr: bytes, checksum: bytes) -> None:
        with boa.env.anchor():
            address = create(suite.datasets, "Dataset", suite.deployer, name, multiaddr, checksum)
            dataset = suite.dataset(address)
            assert dataset.m_datasetName() == name
            assert dataset.m_datasetMultiaddr() == multiaddr
            assert dataset.m_datasetChecksum() == checksum

    @given(
        name=st.text(max_size=20),
        kind=st.text(max_size=8),
        multiaddr=st.binary(max_size=40),
        mrenclave=st.binary(max_size=40),
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_app_reads_back(self, suite: Suite, name: str, kind: str, multiaddr: bytes, mrenclave: bytes) -> None:
        with boa.env.anchor():
            address = create(suite.apps, "App", suite.deployer, name, kind, multiaddr, CHECKSUM, mrenclave)
            app = suite.app(address)
            assert (app.m_appName(), app.m_appType()) == (name, kind)
            assert (app.m_appMultiaddr(), app.m_appMREnclave()) == (multiaddr, mrenclave)

    @given(description=st.text(max_size=100))
    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_workerpool_reads_back(self, suite: Suite, description: str) -> None:
        with boa.env.anchor():
            pool = suite.workerpool(create(suite.workerpools, "Workerpool", suite.deployer, description))
            assert pool.m_workerpoolDescription() == description
