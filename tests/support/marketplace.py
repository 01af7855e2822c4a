"""A deployed suite of contracts with the actors of one marketplace, on a real chain."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.anvil import Anvil

from cloister.chain.calls import Call, Receipt
from cloister.chain.contracts import ContributionAndResult, DataProtectorContract, Hub, Registry, Rlc
from cloister.chain.journal import Journal
from cloister.chain.sender import SenderOptions, TransactionSender
from cloister.errors import ConfigurationError
from cloister.network.deployment import Deployment, deploy
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32, keccak256
from cloister.protocol.orders import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder, sign_order
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX

OPTIONS = SenderOptions(poll=0.01, patience=30)
CHECKSUM = Bytes32("0x" + "c5" * 32)


@dataclass
class Marketplace:
    """The contracts, and one key for each role. Orders are signed and fit together; change them with ``replace``."""

    node: Anvil
    folder: Path
    deployment: Deployment
    hub: Hub
    rlc: Rlc
    apps: Registry
    datasets: Registry
    workerpools: Registry
    dataprotector: DataProtectorContract
    deployer: PrivateKey
    app_owner: PrivateKey
    data_owner: PrivateKey
    pool_owner: PrivateKey
    worker: PrivateKey
    requester: PrivateKey
    app: Address
    dataset: Address
    workerpool: Address
    _senders: dict[Address, TransactionSender] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def sender(self, key: PrivateKey) -> TransactionSender:
        """The one sender of a key."""
        if key.address not in self._senders:
            journal = Journal(self.folder / f"{key.address}.sqlite")
            self._senders[key.address] = TransactionSender(self.hub.rpc, key, journal, options=OPTIONS)
        return self._senders[key.address]

    def send(self, key: PrivateKey, call: Call) -> Receipt:
        """Send a call and wait for it."""
        return self.sender(key).send(call, intent=f"test:{next(self._numbers)}")

    def salt(self) -> Bytes32:
        """A salt that was not used before."""
        return Bytes32.from_raw(keccak256(f"salt {next(self._numbers)}".encode()))

    def stake(self, key: PrivateKey, amount: int) -> None:
        """Give an account stake on the hub."""
        self.send(self.deployer, self.rlc.transfer(key.address, amount))
        self.send(key, self.rlc.approve_and_call(self.hub.address, amount))

    def orders(
        self, *, prices: tuple[int, int, int] = (0, 0, 0), volume: int = 1, params: str = "{}", trust: int = 0
    ) -> tuple[AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder]:
        """Four signed orders that match. Prices are those of app, dataset and workerpool."""
        domain = self.hub.domain
        app_price, dataset_price, pool_price = prices
        app = AppOrder(app=self.app, appprice=app_price, volume=volume, tag=TEE_TDX, salt=self.salt())
        dataset = DatasetOrder(
            dataset=self.dataset, datasetprice=dataset_price, volume=volume, tag=TEE_TDX, salt=self.salt()
        )
        workerpool = WorkerpoolOrder(
            workerpool=self.workerpool,
            workerpoolprice=pool_price,
            volume=volume,
            tag=TEE_TDX,
            trust=trust,
            salt=self.salt(),
        )
        request = RequestOrder(
            app=self.app,
            appmaxprice=app_price,
            dataset=self.dataset,
            datasetmaxprice=dataset_price,
            workerpool=self.workerpool,
            workerpoolmaxprice=pool_price,
            requester=self.requester.address,
            volume=volume,
            tag=TEE_TDX,
            trust=trust,
            beneficiary=self.requester.address,
            params=params,
            salt=self.salt(),
        )
        return (
            sign_order(app, self.app_owner, domain),
            sign_order(dataset, self.data_owner, domain),
            sign_order(workerpool, self.pool_owner, domain),
            sign_order(request, self.requester, domain),
        )

    def contribution(
        self, task_id: Bytes32, *, results: bytes = b"", digest: Bytes32 = CHECKSUM
    ) -> ContributionAndResult:
        """A contribution with everything signed as it must be."""
        enclave = PrivateKey(keccak256(b"enclave" + task_id.raw))
        hashed = result_hash(task_id, digest)
        seal = result_seal(self.worker.address, task_id, digest)
        return ContributionAndResult(
            task_id=task_id,
            digest=digest,
            results=results,
            results_callback=b"",
            enclave_challenge=enclave.address,
            enclave_sign=enclave.sign_message(enclave_message(hashed, seal)),
            authorization_sign=self.pool_owner.sign_message(
                scheduler_authorization(self.worker.address, task_id, enclave.address)
            ),
        )


def build_marketplace(node: Anvil, folder: Path) -> Marketplace:
    """Deploy the contracts and register one app, one dataset and one workerpool."""
    rpc = node.rpc
    deployer = node.account("deployer")
    roles = {name: node.account(name) for name in ("app owner", "data owner", "pool owner", "worker", "requester")}
    journal = Journal(folder / f"{deployer.address}.sqlite")
    sender = TransactionSender(rpc, deployer, journal, options=OPTIONS)
    try:
        deployment = deploy(rpc, sender)
    except ConfigurationError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    apps, datasets, workerpools = (
        Registry(rpc, address)
        for address in (deployment.app_registry, deployment.dataset_registry, deployment.workerpool_registry)
    )
    dataprotector = DataProtectorContract(rpc, deployment.dataprotector)
    app = apps.created_entry(
        sender.send(
            apps.create_app(roles["app owner"].address, "sum", "DOCKER", b"/ipfs/QmApp", CHECKSUM, b""), intent="app"
        )
    )
    dataset = dataprotector.created_dataset(
        sender.send(
            dataprotector.create_dataset_with_schema(
                roles["data owner"].address, "numbers", '{"a":"f64"}', b"\xa5\x03multiaddr", CHECKSUM
            ),
            intent="dataset",
        )
    )
    workerpool = workerpools.created_entry(
        sender.send(workerpools.create_workerpool(roles["pool owner"].address, "two machines"), intent="workerpool")
    )
    market = Marketplace(
        node=node,
        folder=folder,
        deployment=deployment,
        hub=Hub(rpc, deployment.hub),
        rlc=Rlc(rpc, deployment.rlc),
        apps=apps,
        datasets=datasets,
        workerpools=workerpools,
        dataprotector=dataprotector,
        deployer=deployer,
        app_owner=roles["app owner"],
        data_owner=roles["data owner"],
        pool_owner=roles["pool owner"],
        worker=roles["worker"],
        requester=roles["requester"],
        app=app,
        dataset=dataset,
        workerpool=workerpool,
    )
    market._senders[deployer.address] = sender
    return market
