"""The whole suite of contracts on a real chain, and actors who use it.

Use it from a ``conftest.py``::

    from tests.support.deployed import deployed  # noqa: F401
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.anvil import CHAIN_ID, Anvil, running_anvil

from cloister.chain.calls import Call, Receipt
from cloister.chain.contracts import DataProtectorContract, Hub, Registry, Rlc
from cloister.chain.journal import Journal
from cloister.chain.sender import TransactionSender
from cloister.network.deployment import deploy
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, keccak256
from cloister.protocol.eip712 import Domain, hub_domain
from cloister.protocol.orders import (
    AppOrder,
    DatasetOrder,
    Operation,
    Order,
    RequestOrder,
    WorkerpoolOrder,
    sign_order,
)
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX


class DeployedChain:
    """Contracts on an anvil that mines every transaction at once. One per session: use names of your own for actors."""

    def __init__(self, node: Anvil, folder: Path) -> None:
        self.node = node
        self.rpc = node.rpc
        self._folder = folder
        self._senders: dict[Address, TransactionSender] = {}
        self._numbers = itertools.count(1)
        self.deployer = node.account("deployer")
        self.deployment = deploy(self.rpc, self.sender(self.deployer))
        self.hub = Hub(self.rpc, self.deployment.hub)
        self.apps = Registry(self.rpc, self.deployment.app_registry)
        self.datasets = Registry(self.rpc, self.deployment.dataset_registry)
        self.workerpools = Registry(self.rpc, self.deployment.workerpool_registry)
        self.rlc = Rlc(self.rpc, self.deployment.rlc)
        self.dataprotector = DataProtectorContract(self.rpc, self.deployment.dataprotector)
        self.domain: Domain = hub_domain(CHAIN_ID, self.deployment.hub)

    def account(self, name: str) -> PrivateKey:
        """A funded account, the same for a name each time."""
        return self.node.account(name)

    def sender(self, key: PrivateKey) -> TransactionSender:
        """The sender of an account; one each, with a journal on disk."""
        found = self._senders.get(key.address)
        if found is None:
            journal = Journal(self._folder / f"{key.address}.sqlite")
            found = self._senders[key.address] = TransactionSender(self.rpc, key, journal)
        return found

    def send(self, call: Call, key: PrivateKey) -> Receipt:
        """Send a call and wait until it is mined."""
        return self.sender(key).send(call, intent=f"test:{next(self._numbers)}")

    def stake(self, key: PrivateKey, amount: int) -> None:
        """Give an account free stake, in nRLC."""
        self.send(self.rlc.transfer(key.address, amount), self.deployer)
        self.send(self.rlc.approve_and_call(self.deployment.hub, amount), key)

    def make_app(self, owner: PrivateKey, *, checksum: Bytes32 | None = None) -> Address:
        """Register an app."""
        name, checksum = f"app {next(self._numbers)}", checksum or Bytes32.from_raw(keccak256(b"bundle"))
        call = self.apps.create_app(owner.address, name, "DOCKER", b"https://example.org/app", checksum)
        return self.apps.created_entry(self.send(call, owner))

    def make_dataset(self, owner: PrivateKey, schema: str = '{"email":"string"}', name: str = "contact") -> Address:
        """Make protected data."""
        multiaddr = bytes.fromhex("a503221220") + keccak256(str(next(self._numbers)).encode())
        checksum = Bytes32.from_raw(keccak256(multiaddr))
        call = self.dataprotector.create_dataset_with_schema(owner.address, name, schema, multiaddr, checksum)
        return self.dataprotector.created_dataset(self.send(call, owner))

    def make_workerpool(self, owner: PrivateKey) -> Address:
        """Register a workerpool."""
        call = self.workerpools.create_workerpool(owner.address, f"pool {next(self._numbers)}")
        return self.workerpools.created_entry(self.send(call, owner))

    def salt(self) -> Bytes32:
        """A salt that no other order has."""
        return Bytes32.from_raw(keccak256(f"salt {next(self._numbers)}".encode()))

    def app_order(self, owner: PrivateKey, app: Address, **values: Any) -> AppOrder:
        """A signed app order."""
        return sign_order(AppOrder(**{"app": app, "tag": TEE_TDX, "salt": self.salt(), **values}), owner, self.domain)

    def dataset_order(self, owner: PrivateKey, dataset: Address, **values: Any) -> DatasetOrder:
        """A signed dataset order."""
        order = DatasetOrder(**{"dataset": dataset, "tag": TEE_TDX, "salt": self.salt(), **values})
        return sign_order(order, owner, self.domain)

    def workerpool_order(self, owner: PrivateKey, pool: Address, **values: Any) -> WorkerpoolOrder:
        """A signed workerpool order."""
        order = WorkerpoolOrder(**{"workerpool": pool, "tag": TEE_TDX, "salt": self.salt(), **values})
        return sign_order(order, owner, self.domain)

    def request_order(self, requester: PrivateKey, app: Address, **values: Any) -> RequestOrder:
        """A signed request order."""
        base: dict[str, Any] = {
            "app": app,
            "requester": requester.address,
            "beneficiary": requester.address,
            "tag": TEE_TDX,
            "params": "{}",
            "salt": self.salt(),
        }
        return sign_order(RequestOrder(**{**base, **values}), requester, self.domain)

    def close(self, order: Order, key: PrivateKey) -> Receipt:
        """Revoke an order."""
        return self.send(self.hub.manage_order(order, Operation.CLOSE), key)


class Bazaar:
    """One of everything that a deal needs, owned by actors of this test's own."""

    def __init__(self, chain: DeployedChain, label: str) -> None:
        self.chain = chain
        self.app_owner, self.data_owner = chain.account(f"{label} app"), chain.account(f"{label} data")
        self.pool_owner, self.requester = chain.account(f"{label} pool"), chain.account(f"{label} requester")
        self.worker = chain.account(f"{label} worker")
        self.app = chain.make_app(self.app_owner)
        self.dataset = chain.make_dataset(self.data_owner)
        self.pool = chain.make_workerpool(self.pool_owner)

    def orders(
        self, *, volume: int = 1, dataset: bool = True, **request: Any
    ) -> tuple[AppOrder, DatasetOrder | None, WorkerpoolOrder, RequestOrder]:
        """Four orders that match."""
        chain = self.chain
        data = chain.dataset_order(self.data_owner, self.dataset, volume=volume) if dataset else None
        return (
            chain.app_order(self.app_owner, self.app, volume=volume),
            data,
            chain.workerpool_order(self.pool_owner, self.pool, volume=volume),
            chain.request_order(
                self.requester,
                self.app,
                dataset=self.dataset if dataset else ZERO_ADDRESS,
                workerpool=self.pool,
                volume=volume,
                **request,
            ),
        )

    def match(
        self, orders: tuple[AppOrder, DatasetOrder | None, WorkerpoolOrder, RequestOrder]
    ) -> tuple[Bytes32, Receipt]:
        """Match four orders; returns the deal's id and the transaction's receipt."""
        receipt = self.chain.send(self.chain.hub.match_orders(*orders), self.requester)
        return self.chain.hub.matched_deal(receipt), receipt


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedChain]:
    """A chain with all contracts, shared by the whole session."""
    with running_anvil() as node:
        yield DeployedChain(node, tmp_path_factory.mktemp("chain"))
