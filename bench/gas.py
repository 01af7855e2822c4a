"""Gas of every call that changes the chain, as mined: whole transactions on a real node, state cold, nothing shared.

Conditions of the rows with a budget, those under which the reference contracts were measured: a dataset, the TEE tag, four
signatures of ordinary accounts, parameters of 58 bytes, results of 90 bytes. "Priced" is the dearer way and the one
that the budgets are held against: all three providers ask a price and nobody who is paid had a balance before. The
teebroker is set, as on a network of ours. Each scenario starts from the same snapshot.

Left out: ``configure`` and ``importScore``, which refuse on a hub that was not migrated, and the registries'
``initialize``, which is part of the deployment.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.chain import CHAIN_ID, account, deploy_contracts, running_chain
from bench.rows import Row
from cloister.chain.abi import function
from cloister.chain.calls import Call, Receipt, parse_receipt
from cloister.chain.contracts import ContributionAndResult, DataProtectorContract, Hub, Registry, Rlc
from cloister.chain.rpc import JsonRpc
from cloister.network.deployment import CATEGORIES, Settings
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Bytes32, keccak256
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.orders import (
    AppOrder,
    DatasetOrder,
    Operation,
    Order,
    RequestOrder,
    WorkerpoolOrder,
    sign_order,
)
from cloister.protocol.results import build_results_location, enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX
from cloister.protocol.tasks import task_id
from cloister.protocol.units import Nrlc

RLC = 10**9
PRICES = (1 * RLC, 2 * RLC, 3 * RLC)
"""Of app, dataset and workerpool, in nRLC."""
FREE = (0, 0, 0)
BATCH = 20
GAS_LIMIT = 30_000_000
MINED_SECONDS = 10.0
PARAMS = '{"iexec_args":"hi","iexec_result_storage_provider":"ipfs"}'
RESULTS = build_results_location("ipfs", "/ipfs/Qm" + "r" * 45)
SCHEMA = '{"email":"string","profile":{"age":"f64","photo":"image/png"}}'
DIGEST = Bytes32("0x" + "c5" * 32)

BUDGETS = {
    "matchOrders": 330_000.0,
    "initialize": 75_000.0,
    "contributeAndFinalize": 240_000.0,
    "the three together": 600_000.0,
    "per task, one deal of 20, batch calls": 280_000.0,
    "createDatasetWithSchema": 250_000.0,
    "createApp": 250_000.0,
    "manageDatasetOrder CLOSE": 60_000.0,
}
Fees = dict[str, int]
Orders = tuple[AppOrder, DatasetOrder, WorkerpoolOrder, RequestOrder]


class Market:
    """Contracts, one account for each role, one entry of each kind."""

    def __init__(self, rpc: JsonRpc, folder: Path) -> None:
        self.rpc = rpc
        rpc.call("anvil_autoImpersonateAccount", True)
        self.deployer, self.broker = account(rpc, "deployer"), account(rpc, "broker")
        self.app_owner, self.data_owner = account(rpc, "app owner"), account(rpc, "data owner")
        self.pool_owner, self.worker = account(rpc, "pool owner"), account(rpc, "worker")
        self.requester, self.anyone = account(rpc, "requester"), account(rpc, "anyone")
        deployment = deploy_contracts(rpc, folder, Settings(teebroker=self.broker.address))
        self.hub, self.rlc = Hub(rpc, deployment.hub), Rlc(rpc, deployment.rlc)
        self.apps, self.datasets = Registry(rpc, deployment.app_registry), Registry(rpc, deployment.dataset_registry)
        self.pools = Registry(rpc, deployment.workerpool_registry)
        self.dataprotector = DataProtectorContract(rpc, deployment.dataprotector)
        self.domain = hub_domain(CHAIN_ID, deployment.hub)
        self.app = self.apps.created_entry(self.send(self.app_owner, self.new_app(self.app_owner)))
        self.dataset = self.dataprotector.created_dataset(self.send(self.data_owner, self.new_data(self.data_owner)))
        self.pool = self.pools.created_entry(self.send(self.pool_owner, self.new_pool(self.pool_owner)))
        self.staked(self.requester, 10_000 * RLC)
        self.staked(self.pool_owner, 10_000 * RLC)
        self._salts = 0

    def send(self, sender: PrivateKey, call: Call) -> Receipt:
        """Have a call mined.

        Raises:
            RuntimeError: it reverted, or was not mined.
        """
        transaction = {"from": sender.address, "to": call.to, "data": "0x" + call.data.hex(), "gas": hex(GAS_LIMIT)}
        name = self.rpc.call("eth_sendTransaction", transaction)
        deadline = time.monotonic() + MINED_SECONDS
        while (answer := self.rpc.call("eth_getTransactionReceipt", name)) is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"transaction {name} was not mined")
            time.sleep(0.002)
        receipt = parse_receipt(answer)
        if not receipt.succeeded:
            self.rpc.call("eth_call", transaction, "latest")  # raises with the contract's reason
            raise RuntimeError(f"transaction {name} reverted")
        return receipt

    def gas(self, sender: PrivateKey, call: Call) -> int:
        """Gas of a call that is mined."""
        return self.send(sender, call).gas_used

    def isolated(self, scenario: Callable[[Market], Fees]) -> Fees:
        """Run a scenario and take everything back that it did."""
        snapshot = self.rpc.call("evm_snapshot")
        try:
            return scenario(self)
        finally:
            self.rpc.call("evm_revert", snapshot)

    def pass_time(self, seconds: int) -> None:
        """Move the chain's clock."""
        self.rpc.call("evm_increaseTime", seconds)
        self.rpc.call("evm_mine")

    # Entries: a name of 12 bytes, a multiaddr of 37 (an app's image 50), a schema of 62.

    def new_app(self, owner: PrivateKey, number: int = 1) -> Call:
        """Register an app."""
        image = f"registry.example.org/apps/classifier:{number:013}".encode()
        return self.apps.create_app(owner.address, f"app {number:08}", "DOCKER", image, DIGEST)

    def new_data(self, owner: PrivateKey, number: int = 1) -> Call:
        """Make protected data with its schema."""
        multiaddr = bytes.fromhex("a503221220") + keccak256(str(number).encode())
        return self.dataprotector.create_dataset_with_schema(
            owner.address, f"data{number:08}", SCHEMA, multiaddr, DIGEST
        )

    def new_pool(self, owner: PrivateKey, number: int = 1) -> Call:
        """Register a workerpool."""
        return self.pools.create_workerpool(owner.address, f"pool {number:08}")

    # Orders and contributions

    def salt(self) -> Bytes32:
        """A salt that no other order has."""
        self._salts += 1
        return Bytes32.from_raw(keccak256(f"salt {self._salts}".encode()))

    def orders(self, prices: Sequence[int] = PRICES, *, volume: int = 1) -> Orders:
        """Four signed orders that match."""
        app, data, pool = (Nrlc(price) for price in prices)
        salt, domain, tag = self.salt(), self.domain, TEE_TDX
        request = RequestOrder(
            app=self.app,
            appmaxprice=app,
            dataset=self.dataset,
            datasetmaxprice=data,
            workerpool=self.pool,
            workerpoolmaxprice=pool,
            requester=self.requester.address,
            beneficiary=self.requester.address,
            volume=volume,
            tag=tag,
            params=PARAMS,
            salt=salt,
        )
        return (
            sign_order(AppOrder(app=self.app, appprice=app, volume=volume, tag=tag, salt=salt), self.app_owner, domain),
            sign_order(
                DatasetOrder(dataset=self.dataset, datasetprice=data, volume=volume, tag=tag, salt=salt),
                self.data_owner,
                domain,
            ),
            sign_order(
                WorkerpoolOrder(workerpool=self.pool, workerpoolprice=pool, volume=volume, tag=tag, salt=salt),
                self.pool_owner,
                domain,
            ),
            sign_order(request, self.requester, domain),
        )

    def offers(self) -> list[tuple[Order, PrivateKey]]:
        """Four such orders, each with its owner."""
        app, dataset, pool, request = self.orders()
        return [
            (app, self.app_owner),
            (dataset, self.data_owner),
            (pool, self.pool_owner),
            (request, self.requester),
        ]

    def staked(self, owner: PrivateKey, amount: int = 100 * RLC) -> None:
        """Give an account stake."""
        self.send(self.deployer, self.rlc.transfer(owner.address, amount))
        self.send(owner, self.rlc.approve_and_call(self.hub.address, amount))

    def matched(self, prices: Sequence[int] = PRICES, *, volume: int = 1) -> tuple[Bytes32, int]:
        """Make a deal; gives its id and what that cost."""
        receipt = self.send(self.anyone, self.hub.match_orders(*self.orders(prices, volume=volume)))
        return self.hub.matched_deal(receipt), receipt.gas_used

    def begun(self, prices: Sequence[int] = PRICES) -> Bytes32:
        """Make a deal and begin its task; gives the task's id."""
        deal, _ = self.matched(prices)
        self.send(self.anyone, self.hub.initialize(deal, 0))
        return task_id(deal, 0)

    def contribution(self, task: Bytes32) -> ContributionAndResult:
        """What a worker sends, signed by enclave and broker."""
        enclave = PrivateKey(keccak256(b"enclave" + task.raw))
        message = enclave_message(result_hash(task, DIGEST), result_seal(self.worker.address, task, DIGEST))
        allowed = scheduler_authorization(self.worker.address, task, enclave.address)
        return ContributionAndResult(
            task_id=task,
            digest=DIGEST,
            results=RESULTS,
            results_callback=b"",
            enclave_challenge=enclave.address,
            enclave_sign=enclave.sign_message(message),
            authorization_sign=self.broker.sign_message(allowed),
        )


def one_task(market: Market, prices: Sequence[int]) -> Fees:
    """The three calls of one task."""
    deal, matching = market.matched(prices)
    beginning = market.gas(market.anyone, market.hub.initialize(deal, 0))
    ending = market.gas(market.worker, market.hub.contribute_and_finalize(market.contribution(task_id(deal, 0))))
    return {
        "matchOrders": matching,
        "initialize": beginning,
        "contributeAndFinalize": ending,
        "the three together": matching + beginning + ending,
    }


def batch(market: Market, prices: Sequence[int]) -> Fees:
    """Twenty tasks of one deal."""
    deal, matching = market.matched(prices, volume=BATCH)
    tasks = [task_id(deal, index) for index in range(BATCH)]
    beginning = market.gas(market.anyone, market.hub.initialize_array([deal] * BATCH, list(range(BATCH))))
    ending = market.gas(
        market.worker, market.hub.contribute_and_finalize_array([market.contribution(task) for task in tasks])
    )
    return {
        "per task, one deal of 20, batch calls": (matching + beginning + ending) // BATCH,
        "initializeArray, 20": beginning,
        "contributeAndFinalizeArray, 20": ending,
    }


def replicated(market: Market) -> Fees:
    """The long way: commit, reveal, finalize."""
    market.staked(market.worker)
    task = market.begun()
    item = market.contribution(task)
    hashed, seal = result_hash(task, DIGEST), result_seal(market.worker.address, task, DIGEST)
    signs = (item.enclave_challenge, item.enclave_sign, item.authorization_sign)
    return {
        "contribute": market.gas(market.worker, market.hub.contribute(task, hashed, seal, *signs)),
        "reveal": market.gas(market.worker, market.hub.reveal(task, DIGEST)),
        "finalize": market.gas(market.pool_owner, market.hub.finalize(task, RESULTS)),
    }


def reopened(market: Market) -> Fees:
    """Nobody revealed in time."""
    market.staked(market.worker)
    task = market.begun()
    item = market.contribution(task)
    hashed, seal = result_hash(task, DIGEST), result_seal(market.worker.address, task, DIGEST)
    signs = (item.enclave_challenge, item.enclave_sign, item.authorization_sign)
    market.send(market.worker, market.hub.contribute(task, hashed, seal, *signs))
    market.pass_time(3 * CATEGORIES[0].clock)
    return {"reopen": market.gas(market.pool_owner, market.hub.reopen(task))}


def late(market: Market) -> Fees:
    """Refunds of late tasks."""
    begun = [market.begun() for _ in range(2)]
    unborn, _ = market.matched()
    market.pass_time(11 * CATEGORIES[0].clock)
    return {
        "claim": market.gas(market.anyone, market.hub.claim(begun[0])),
        "claimArray, 1": market.gas(market.anyone, market.hub.claim_array([begun[1]])),
        "initializeAndClaimArray, 1": market.gas(market.anyone, market.hub.initialize_and_claim_array([unborn], [0])),
    }


def other_matches(market: Market) -> Fees:
    """Deals that somebody else pays, and deals made while staking."""
    market.send(market.deployer, market.rlc.approve_and_call(market.hub.address, 100 * RLC))
    sponsored = market.gas(market.deployer, market.hub.sponsor_match_orders(*market.orders()))
    market.send(market.deployer, market.rlc.transfer(market.requester.address, 100 * RLC))
    data = market.hub.match_orders(*market.orders()).data
    staking = market.rlc.approve_and_call(market.hub.address, 6 * RLC, data)
    return {"sponsorMatchOrders": sponsored, "Rlc.approveAndCall with a match": market.gas(market.requester, staking)}


def orders(market: Market) -> Fees:
    """Presign, close and say aloud, each kind of order."""
    fees: Fees = {}
    for order, owner in market.offers():
        kind = type(order).__name__
        fees[f"broadcast{kind}"] = market.gas(owner, market.hub.broadcast_order(order))
        fees[f"manage{kind} SIGN"] = market.gas(owner, market.hub.manage_order(order, Operation.SIGN))
    for order, owner in market.offers():
        close = market.hub.manage_order(order, Operation.CLOSE)
        fees[f"manage{type(order).__name__} CLOSE"] = market.gas(owner, close)
    return fees


def money(market: Market) -> Fees:
    """Staking, moving stake, taking it back."""
    hub, rlc, payer, other = market.hub, market.rlc, market.deployer, market.anyone

    def call(text: str, *values: Any, sender: PrivateKey = payer) -> int:
        return market.gas(sender, Call(hub.address, function(text).encode(*values)))

    fees = {
        "Rlc.transfer": market.gas(payer, rlc.transfer(other.address, 5 * RLC)),
        "Rlc.approveAndCall: stake": market.gas(other, rlc.approve_and_call(hub.address, 5 * RLC)),
        "Rlc.approve": market.gas(payer, rlc.approve(hub.address, 100 * RLC)),
        "deposit": call("deposit(uint256)(bool)", 10 * RLC),
        "depositFor": call("depositFor(uint256,address)(bool)", RLC, market.worker.address),
        "depositForArray, 1": call("depositForArray(uint256[],address[])(bool)", [RLC], [market.app_owner.address]),
        "transfer": call("transfer(address,uint256)(bool)", market.data_owner.address, RLC),
        "approve": call("approve(address,uint256)(bool)", other.address, RLC),
        "increaseAllowance": call("increaseAllowance(address,uint256)(bool)", other.address, RLC),
        "decreaseAllowance": call("decreaseAllowance(address,uint256)(bool)", other.address, RLC // 2),
        "transferFrom": call(
            "transferFrom(address,address,uint256)(bool)", payer.address, other.address, RLC, sender=other
        ),
        "withdraw": call("withdraw(uint256)(bool)", RLC),
        "withdrawTo": call("withdrawTo(uint256,address)(bool)", RLC, market.broker.address),
    }
    market.send(payer, rlc.approve(other.address, RLC))
    moved = function("transferFrom(address,address,uint256)(bool)").encode(payer.address, other.address, RLC)
    fees["Rlc.transferFrom"] = market.gas(other, Call(rlc.address, moved))
    market.send(payer, rlc.transfer(hub.address, RLC))
    return fees | {"recover": call("recover()(uint256)")}


def governance(market: Market) -> Fees:
    """What the hub's owner may do."""
    fees = {}
    for text, values in (
        ("createCategory(string,string,uint256)(uint256)", ("XXL", "2 days of work", 172_800)),
        ("setTeeBroker(address)", (market.anyone.address,)),
        ("setCallbackGas(uint256)", (100_000,)),
        ("updateDomainSeparator()", ()),
        ("transferOwnership(address)", (market.anyone.address,)),
    ):
        call = Call(market.hub.address, function(text).encode(*values))
        fees[text.partition("(")[0]] = market.gas(market.deployer, call)
    renounced = Call(market.hub.address, function("renounceOwnership()").encode())
    return fees | {"renounceOwnership": market.gas(market.anyone, renounced)}


def entries(market: Market) -> Fees:
    """Making entries and passing them on. The owners have one already; see ``first_entries``."""
    owner, other, registry = market.data_owner.address, market.anyone, market.datasets
    number = int(market.dataset, 16)
    bare = registry.create_dataset(owner, "data00000003", bytes.fromhex("a503221220") + bytes(32), DIGEST)
    fees = {
        "createDatasetWithSchema, owner's next": market.gas(market.data_owner, market.new_data(market.data_owner, 2)),
        "createDataset": market.gas(market.data_owner, bare),
        "createApp, owner's next": market.gas(market.app_owner, market.new_app(market.app_owner, 2)),
        "createWorkerpool": market.gas(market.pool_owner, market.new_pool(market.pool_owner, 2)),
        "workerpool changePolicy": market.gas(market.pool_owner, market.pools.change_policy(market.pool, 35, 5)),
    }
    for text, values in (
        ("approve(address,uint256)", (other.address, number)),
        ("setApprovalForAll(address,bool)", (other.address, True)),
        ("transferFrom(address,address,uint256)", (owner, other.address, number)),
    ):
        call = Call(registry.address, function(text).encode(*values))
        fees[f"registry {text.partition('(')[0]}"] = market.gas(market.data_owner, call)
    safe = registry.transfer(other.address, owner, market.dataset)
    return fees | {"registry safeTransferFrom": market.gas(other, safe)}


def first_entries(market: Market) -> Fees:
    """The first entry of an owner, which is the dearer one."""
    newcomer = account(market.rpc, "newcomer")
    return {
        "createDatasetWithSchema": market.gas(newcomer, market.new_data(newcomer, 3)),
        "createApp": market.gas(newcomer, market.new_app(newcomer, 3)),
    }


def _rows(fees: Fees, note: str = "") -> list[Row]:
    return [
        Row(f"gas: {name}{note}", float(gas), "gas", None if "free" in note else BUDGETS.get(name))
        for name, gas in fees.items()
    ]


def measure() -> list[Row]:
    """Rows for all calls, those with a budget first."""
    if len(PARAMS) != 58 or len(RESULTS) != 90:
        raise RuntimeError(f"parameters have {len(PARAMS)} bytes, results {len(RESULTS)}: not the conditions agreed on")
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder, running_chain() as url:
        market = Market(JsonRpc(url), Path(folder))
        rows: list[Row] = []
        for prices, note in ((PRICES, ""), (FREE, ", all free")):
            for work in (one_task, batch):
                rows += _rows(market.isolated(partial(work, prices=prices)), note)
        for scenario in (entries, orders, replicated, reopened, late, other_matches, money, governance, first_entries):
            rows += _rows(market.isolated(scenario))
    return sorted(rows, key=lambda row: row.budget is None)
