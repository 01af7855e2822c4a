"""Reads of the PoCo hub, built but not made, and the signatures of all its functions (reference 1.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.chain.abi import Function, function
from cloister.chain.rpc import Read
from cloister.errors import DecodeError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Category, Deal
from cloister.protocol.orders import DatasetOrder, OrderKind
from cloister.protocol.tasks import Contribution, Task

APP_ORDER: Final = "(address,uint256,uint256,bytes32,address,address,address,bytes32,bytes)"
DATASET_ORDER: Final = APP_ORDER
WORKERPOOL_ORDER: Final = "(address,uint256,uint256,bytes32,uint256,uint256,address,address,address,bytes32,bytes)"
REQUEST_ORDER: Final = (
    "(address,uint256,address,uint256,address,uint256,address,uint256,bytes32,uint256,uint256,address,address,string,"
    "bytes32,bytes)"
)
_FOUR_ORDERS: Final = f"{APP_ORDER},{DATASET_ORDER},{WORKERPOOL_ORDER},{REQUEST_ORDER}"
_RESOURCE: Final = "(address,address,uint256)"
DEAL: Final = (
    f"({_RESOURCE},{_RESOURCE},{_RESOURCE},uint256,uint256,bytes32,address,address,address,string,uint256,uint256,"
    "uint256,uint256,uint256,address)"
)
TASK: Final = (
    "(uint8,bytes32,uint256,uint256,uint256,uint256,uint256,bytes32,uint256,uint256,address[],bytes32,bytes,uint256,"
    "bytes)"
)
ORDER_TYPES: Final = {
    OrderKind.APP: ("App", APP_ORDER),
    OrderKind.DATASET: ("Dataset", DATASET_ORDER),
    OrderKind.WORKERPOOL: ("Workerpool", WORKERPOOL_ORDER),
    OrderKind.REQUEST: ("Request", REQUEST_ORDER),
}

FUNCTIONS: Final = {
    item.name: item
    for item in (
        # who and where
        function("token()(address)"),
        function("appregistry()(address)"),
        function("datasetregistry()(address)"),
        function("workerpoolregistry()(address)"),
        function("teebroker()(address)"),
        function("owner()(address)"),
        function("domain()((string,string,uint256,address))"),
        function("eip712domain_separator()(bytes32)"),
        # accounts
        function("viewAccount(address)((uint256,uint256))"),
        function("balanceOf(address)(uint256)"),
        function("frozenOf(address)(uint256)"),
        function("allowance(address,address)(uint256)"),
        function("viewScore(address)(uint256)"),
        function("approve(address,uint256)(bool)"),
        function("transfer(address,uint256)(bool)"),
        function("deposit(uint256)(bool)"),
        function("depositFor(uint256,address)(bool)"),
        function("depositForArray(uint256[],address[])(bool)"),
        function("withdraw(uint256)(bool)"),
        function("withdrawTo(uint256,address)(bool)"),
        # orders
        function("viewConsumed(bytes32)(uint256)"),
        function("viewPresigned(bytes32)(address)"),
        function("isClosed(bytes32)(bool)"),
        function("verifySignature(address,bytes32,bytes)(bool)"),
        function("verifyPresignature(address,bytes32)(bool)"),
        function("verifyPresignatureOrSignature(address,bytes32,bytes)(bool)"),
        function(f"matchOrders({_FOUR_ORDERS})(bytes32)"),
        function(f"sponsorMatchOrders({_FOUR_ORDERS})(bytes32)"),
        function(f"computeDealVolume({_FOUR_ORDERS})(uint256)"),
        function(f"assertDatasetDealCompatibility({DATASET_ORDER},bytes32)"),
        *(function(f"manage{name}Order(({kind},uint8,bytes))") for name, kind in ORDER_TYPES.values()),
        *(function(f"broadcast{name}Order({kind})") for name, kind in ORDER_TYPES.values()),
        # deals and tasks
        function(f"viewDeal(bytes32)({DEAL})"),
        function(f"viewTask(bytes32)({TASK})"),
        function("viewContribution(bytes32,address)((uint8,bytes32,bytes32,address,uint256))"),
        function("viewCategory(uint256)((string,string,uint256))"),
        function("countCategory()(uint256)"),
        function("final_deadline_ratio()(uint256)"),
        function("resultFor(bytes32)(bytes)"),
        function("initialize(bytes32,uint256)(bytes32)"),
        function("initializeArray(bytes32[],uint256[])(bool)"),
        function("contribute(bytes32,bytes32,bytes32,address,bytes,bytes)"),
        function("reveal(bytes32,bytes32)"),
        function("reopen(bytes32)"),
        function("finalize(bytes32,bytes,bytes)"),
        function("contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)"),
        function("contributeAndFinalizeArray(bytes32[],bytes32[],bytes[],bytes[],address[],bytes[],bytes[])(bool)"),
        function("claim(bytes32)"),
        function("claimArray(bytes32[])(bool)"),
        function("initializeAndClaimArray(bytes32[],uint256[])(bool)"),
        # governance
        function("createCategory(string,string,uint256)(uint256)"),
        function("setTeeBroker(address)"),
        function("setCallbackGas(uint256)"),
    )
}
"""Every function of the hub that Cloister calls, by name."""
_HAS_PURPOSE: Final = function("keyHasPurpose(bytes32,uint256)(bool)")
_OWNER: Final = function("owner()(address)")
GROUP_MEMBER_PURPOSE: Final = 4


@dataclass(frozen=True, slots=True)
class Account:
    """An account's stake on the hub in nRLC: free, and locked in deals."""

    stake: int
    locked: int


def _address(item: Function, to: Address, *values: object) -> Read[Address]:
    return Read(to, item.encode(*values), lambda data: Address(item.decode_one(data)))


def _integer(item: Function, to: Address, *values: object) -> Read[int]:
    return Read(to, item.encode(*values), lambda data: int(item.decode_one(data)))


def _flag(item: Function, to: Address, *values: object) -> Read[bool]:
    return Read(to, item.encode(*values), lambda data: bool(item.decode_one(data)))


class HubReads:
    """Reads of the hub, not made yet: hand them to ``JsonRpc.read`` or, many at once, to ``JsonRpc.read_all``."""

    def __init__(self, hub: Address) -> None:
        self._hub = hub

    def account(self, owner: Address) -> Read[Account]:
        """Stake of an account."""
        item = FUNCTIONS["viewAccount"]
        return Read(self._hub, item.encode(owner), lambda data: Account(*item.decode_one(data)))

    def consumed(self, order_hash: Bytes32) -> Read[int]:
        """How much of an order's volume is used (all of it once closed)."""
        return _integer(FUNCTIONS["viewConsumed"], self._hub, order_hash.raw)

    def is_closed(self, order_hash: Bytes32) -> Read[bool]:
        """Whether an order was revoked, as opposed to used up."""
        return _flag(FUNCTIONS["isClosed"], self._hub, order_hash.raw)

    def presigned(self, order_hash: Bytes32) -> Read[Address]:
        """Who presigned an order; zero when nobody."""
        return _address(FUNCTIONS["viewPresigned"], self._hub, order_hash.raw)

    def is_signed(self, signer: Address, digest: Bytes32, sign: bytes) -> Read[bool]:
        """Whether ``signer`` (an account, or a contract by ERC-1271) signed the hash. A bad length reverts."""
        return _flag(FUNCTIONS["verifySignature"], self._hub, signer, digest.raw, sign)

    def is_presigned_or_signed(self, signer: Address, digest: Bytes32, sign: bytes) -> Read[bool]:
        """Whether ``signer`` presigned or signed the hash. A bad length reverts."""
        return _flag(FUNCTIONS["verifyPresignatureOrSignature"], self._hub, signer, digest.raw, sign)

    def deal(self, deal_id: Bytes32) -> Read[Deal | None]:
        """A deal; None when there is none."""
        item = FUNCTIONS["viewDeal"]

        def decode(data: bytes) -> Deal | None:
            deal = Deal.from_tuple(item.decode_one(data))
            return deal if deal.exists else None

        return Read(self._hub, item.encode(deal_id.raw), decode)

    def task(self, task_id: Bytes32) -> Read[Task | None]:
        """A task; None when it was never initialised."""
        item = FUNCTIONS["viewTask"]

        def decode(data: bytes) -> Task | None:
            try:
                task = Task.from_tuple(item.decode_one(data))
            except ValueError as error:
                raise DecodeError("the hub told a task in a status that does not exist") from error
            return task if task.exists else None

        return Read(self._hub, item.encode(task_id.raw), decode)

    def contribution(self, task_id: Bytes32, worker: Address) -> Read[Contribution]:
        """What a worker said of a task; its status is UNSET when it said nothing."""
        item = FUNCTIONS["viewContribution"]
        return Read(
            self._hub,
            item.encode(task_id.raw, worker),
            lambda data: Contribution.from_tuple(item.decode_one(data)),
        )

    def category(self, category: int) -> Read[Category]:
        """A category. One that does not exist reverts."""
        item = FUNCTIONS["viewCategory"]
        return Read(self._hub, item.encode(category), lambda data: Category(*item.decode_one(data)))

    def category_count(self) -> Read[int]:
        """How many categories there are."""
        return _integer(FUNCTIONS["countCategory"], self._hub)

    def score(self, worker: Address) -> Read[int]:
        """A worker's score."""
        return _integer(FUNCTIONS["viewScore"], self._hub, worker)

    def allowance(self, owner: Address, spender: Address) -> Read[int]:
        """How much stake ``spender`` may move for ``owner``."""
        return _integer(FUNCTIONS["allowance"], self._hub, owner, spender)

    def contract(self, name: str) -> Read[Address]:
        """An address that the hub knows: ``token``, ``appregistry``, ``datasetregistry``, ``teebroker``, ``owner`` …"""
        return _address(FUNCTIONS[name], self._hub)

    def owner_of(self, entry: Address) -> Read[Address]:
        """The owner of an app, dataset or workerpool, by its own ``owner()``; fails where no contract stands."""
        return _address(_OWNER, entry)

    def group_has(self, group: Address, member: Address) -> Read[bool]:
        """Whether an ERC-734 group has a member; fails where no such contract stands."""
        key = member.raw.rjust(32, b"\x00")
        return _flag(_HAS_PURPOSE, group, key, GROUP_MEMBER_PURPOSE)

    def dataset_compatibility(self, order: DatasetOrder, deal_id: Bytes32) -> Read[None]:
        """Whether a dataset order may be used in a deal without dataset (bulk); reverts with the reason if not."""
        item = FUNCTIONS["assertDatasetDealCompatibility"]
        return Read(self._hub, item.encode(order.as_tuple(), deal_id.raw), lambda _: None)
