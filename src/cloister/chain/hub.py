"""The PoCo hub as typed calls (reference 1.2, Appendix A, Appendix H).

``HubReads`` builds reads that can be batched; ``Hub`` makes them. Methods that change the chain return a ``Call`` for a
``TransactionSender``; building one asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloister.chain.calls import Call, Receipt
from cloister.chain.hub_reads import FUNCTIONS, ORDER_TYPES, Account, HubReads
from cloister.chain.logs import TOPICS, CategoryCreated, OrdersMatched, decode_log
from cloister.chain.rpc import Block, JsonRpc, TransactionReverted
from cloister.errors import DecodeError, NotFound
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Category, Deal
from cloister.protocol.eip712 import Domain, hub_domain
from cloister.protocol.orders import (
    NO_DATASET_ORDER,
    AppOrder,
    DatasetOrder,
    Operation,
    Order,
    RequestOrder,
    WorkerpoolOrder,
)
from cloister.protocol.tasks import Contribution, Task

if TYPE_CHECKING:
    from cloister.protocol.matching import MatchingFacts


@dataclass(frozen=True, slots=True)
class ContributionAndResult:
    """The arguments of ``contributeAndFinalize`` for one task."""

    task_id: Bytes32
    digest: Bytes32
    results: bytes
    results_callback: bytes
    enclave_challenge: Address
    enclave_sign: bytes
    authorization_sign: bytes


class Hub:
    """The hub of one chain. Reads name a block; writes return a ``Call``. Safe to use from several threads.

    Reads raise what ``JsonRpc`` raises.
    """

    def __init__(self, rpc: JsonRpc, address: Address) -> None:
        self.rpc = rpc
        self.address = Address(address)
        self.reads = HubReads(self.address)
        self._registries: tuple[Address, Address, Address] | None = None

    @property
    def domain(self) -> Domain:
        """The EIP-712 domain of orders on this hub."""
        return hub_domain(self.rpc.chain_id, self.address)

    def registries(self, *, block: Block) -> tuple[Address, Address, Address]:
        """The registries of apps, datasets and workerpools. The hub is configured once, so they are asked once."""
        if self._registries is None:
            names = ("appregistry", "datasetregistry", "workerpoolregistry")
            apps, datasets, workerpools = self.rpc.read_all([self.reads.contract(name) for name in names], block=block)
            self._registries = (apps, datasets, workerpools)
        return self._registries

    # Reads

    def account(self, owner: Address, *, block: Block) -> Account:
        """Stake of an account."""
        return self.rpc.read(self.reads.account(owner), block=block)

    def deal(self, deal_id: Bytes32, *, block: Block) -> Deal | None:
        """A deal; None when there is none."""
        return self.rpc.read(self.reads.deal(deal_id), block=block)

    def deals(self, deal_ids: Iterable[Bytes32], *, block: Block) -> list[Deal | None]:
        """Many deals in one round trip."""
        return self.rpc.read_all([self.reads.deal(item) for item in deal_ids], block=block)

    def task(self, task_id: Bytes32, *, block: Block) -> Task | None:
        """A task; None when it was never initialised."""
        return self.rpc.read(self.reads.task(task_id), block=block)

    def tasks(self, task_ids: Iterable[Bytes32], *, block: Block) -> list[Task | None]:
        """Many tasks in one round trip."""
        return self.rpc.read_all([self.reads.task(item) for item in task_ids], block=block)

    def contribution(self, task_id: Bytes32, worker: Address, *, block: Block) -> Contribution:
        """What a worker said of a task."""
        return self.rpc.read(self.reads.contribution(task_id, worker), block=block)

    def consumed(self, order_hash: Bytes32, *, block: Block) -> int:
        """How much of an order's volume is used (all of it once closed)."""
        return self.rpc.read(self.reads.consumed(order_hash), block=block)

    def consumed_volumes(self, order_hashes: Iterable[Bytes32], *, block: Block) -> list[int]:
        """The same for many orders in one round trip."""
        return self.rpc.read_all([self.reads.consumed(item) for item in order_hashes], block=block)

    def is_closed(self, order_hash: Bytes32, *, block: Block) -> bool:
        """Whether an order was revoked, as opposed to used up."""
        return self.rpc.read(self.reads.is_closed(order_hash), block=block)

    def presigned(self, order_hash: Bytes32, *, block: Block) -> Address:
        """Who presigned an order; zero when nobody."""
        return self.rpc.read(self.reads.presigned(order_hash), block=block)

    def is_signed(self, signer: Address, digest: Bytes32, sign: bytes, *, block: Block) -> bool:
        """Whether ``signer`` signed the hash, contracts (ERC-1271) included."""
        return self.rpc.read(self.reads.is_signed(signer, digest, sign), block=block)

    def is_presigned_or_signed(self, signer: Address, digest: Bytes32, sign: bytes, *, block: Block) -> bool:
        """Whether ``signer`` presigned or signed the hash."""
        return self.rpc.read(self.reads.is_presigned_or_signed(signer, digest, sign), block=block)

    def category(self, category: int, *, block: Block) -> Category:
        """A category.

        Raises:
            NotFound: no such category.
        """
        if category >= self.category_count(block=block):
            raise NotFound(f"there is no category {category}")
        return self.rpc.read(self.reads.category(category), block=block)

    def category_count(self, *, block: Block) -> int:
        """How many categories there are."""
        return self.rpc.read(self.reads.category_count(), block=block)

    def score(self, worker: Address, *, block: Block) -> int:
        """A worker's score."""
        return self.rpc.read(self.reads.score(worker), block=block)

    def allowance(self, owner: Address, spender: Address, *, block: Block) -> int:
        """How much stake ``spender`` may move for ``owner``."""
        return self.rpc.read(self.reads.allowance(owner, spender), block=block)

    def contract(self, name: str, *, block: Block) -> Address:
        """An address that the hub knows; see ``HubReads.contract``."""
        return self.rpc.read(self.reads.contract(name), block=block)

    def owner_of(self, entry: Address, *, block: Block) -> Address | None:
        """The current owner of an app, dataset or workerpool, by its own ``owner()``; None where none stands."""
        try:
            return self.rpc.read(self.reads.owner_of(entry), block=block)
        except (DecodeError, TransactionReverted):
            return None

    def group_has(self, group: Address, member: Address, *, block: Block) -> bool:
        """Whether an ERC-734 group has a member. As on the hub, a contract that fails to answer says no."""
        try:
            return self.rpc.read(self.reads.group_has(group, member), block=block)
        except (DecodeError, TransactionReverted):
            return False

    def check_dataset_compatibility(self, order: DatasetOrder, deal_id: Bytes32, *, block: Block) -> None:
        """Prove that a dataset order may be used in a deal without dataset (bulk).

        Raises:
            TransactionReverted: with the hub's reason (``IncompatibleDatasetOrder(…)``).
        """
        self.rpc.read(self.reads.dataset_compatibility(order, deal_id), block=block)

    def matching_facts(
        self,
        app: AppOrder,
        dataset: DatasetOrder | None,
        workerpool: WorkerpoolOrder,
        request: RequestOrder,
        *,
        block: Block,
    ) -> MatchingFacts:
        """Collect what ``protocol.matching.match_orders`` must know of the chain, all at one block."""
        from cloister.chain.matching import load_matching_facts

        return load_matching_facts(self, app, dataset, workerpool, request, block=block)

    # Orders

    def match_orders(
        self, app: AppOrder, dataset: DatasetOrder | None, workerpool: WorkerpoolOrder, request: RequestOrder
    ) -> Call:
        """Make a deal; the requester pays."""
        return self._four("matchOrders", app, dataset, workerpool, request)

    def sponsor_match_orders(
        self, app: AppOrder, dataset: DatasetOrder | None, workerpool: WorkerpoolOrder, request: RequestOrder
    ) -> Call:
        """Make a deal; the sender pays."""
        return self._four("sponsorMatchOrders", app, dataset, workerpool, request)

    def _four(
        self,
        name: str,
        app: AppOrder,
        dataset: DatasetOrder | None,
        workerpool: WorkerpoolOrder,
        request: RequestOrder,
    ) -> Call:
        data = NO_DATASET_ORDER if dataset is None else dataset
        return self._call(name, app.as_tuple(), data.as_tuple(), workerpool.as_tuple(), request.as_tuple())

    def manage_order(self, order: Order, operation: Operation, sign: bytes = b"") -> Call:
        """Presign or close an order; ``sign`` is the owner's signature of the operation when somebody else sends."""
        name = f"manage{ORDER_TYPES[order.kind][0]}Order"
        return self._call(name, (order.as_tuple(), int(operation), sign))

    def broadcast_order(self, order: Order) -> Call:
        """Say an order aloud on chain."""
        return self._call(f"broadcast{ORDER_TYPES[order.kind][0]}Order", order.as_tuple())

    # Tasks

    def initialize(self, deal_id: Bytes32, index: int) -> Call:
        """Begin a task."""
        return self._call("initialize", deal_id.raw, index)

    def initialize_array(self, deal_ids: Sequence[Bytes32], indexes: Sequence[int]) -> Call:
        """Begin many tasks."""
        return self._call("initializeArray", [item.raw for item in deal_ids], list(indexes))

    def contribute(
        self,
        task_id: Bytes32,
        result_hash: Bytes32,
        result_seal: Bytes32,
        enclave_challenge: Address,
        enclave_sign: bytes,
        authorization_sign: bytes,
    ) -> Call:
        """Commit to a result."""
        return self._call(
            "contribute",
            task_id.raw,
            result_hash.raw,
            result_seal.raw,
            enclave_challenge,
            enclave_sign,
            authorization_sign,
        )

    def reveal(self, task_id: Bytes32, digest: Bytes32) -> Call:
        """Show the digest that was committed to."""
        return self._call("reveal", task_id.raw, digest.raw)

    def reopen(self, task_id: Bytes32) -> Call:
        """Open contributions again when nobody revealed."""
        return self._call("reopen", task_id.raw)

    def finalize(self, task_id: Bytes32, results: bytes, results_callback: bytes = b"") -> Call:
        """Finish a task that was revealed."""
        return self._call("finalize", task_id.raw, results, results_callback)

    def contribute_and_finalize(self, item: ContributionAndResult) -> Call:
        """Contribute and finish a task at once (trust 1)."""
        return self._call("contributeAndFinalize", *_arguments(item))

    def contribute_and_finalize_array(self, items: Sequence[ContributionAndResult]) -> Call:
        """The same for many tasks."""
        columns = [list(column) for column in zip(*(_arguments(item) for item in items), strict=True)]
        return self._call("contributeAndFinalizeArray", *columns)

    def claim(self, task_id: Bytes32) -> Call:
        """Refund a task that is past its final deadline."""
        return self._call("claim", task_id.raw)

    def claim_array(self, task_ids: Sequence[Bytes32]) -> Call:
        """Refund many such tasks."""
        return self._call("claimArray", [item.raw for item in task_ids])

    def initialize_and_claim_array(self, deal_ids: Sequence[Bytes32], indexes: Sequence[int]) -> Call:
        """Refund many such tasks that were never begun."""
        return self._call("initializeAndClaimArray", [item.raw for item in deal_ids], list(indexes))

    # Money and governance

    def approve(self, spender: Address, amount: int) -> Call:
        """Let ``spender`` move stake."""
        return self._call("approve", spender, amount)

    def deposit(self, amount: int) -> Call:
        """Stake RLC that the hub was allowed to take."""
        return self._call("deposit", amount)

    def deposit_for(self, amount: int, owner: Address) -> Call:
        """The same into somebody else's account."""
        return self._call("depositFor", amount, owner)

    def withdraw(self, amount: int) -> Call:
        """Take free stake back as RLC."""
        return self._call("withdraw", amount)

    def withdraw_to(self, amount: int, receiver: Address) -> Call:
        """The same to somebody else."""
        return self._call("withdrawTo", amount, receiver)

    def create_category(self, name: str, description: str, clock: int) -> Call:
        """Add a category (the hub's owner)."""
        return self._call("createCategory", name, description, clock)

    def set_teebroker(self, broker: Address) -> Call:
        """Name the attestation key that contributions with an enclave need (the hub's owner)."""
        return self._call("setTeeBroker", broker)

    def _call(self, name: str, *values: Any) -> Call:
        return Call(self.address, FUNCTIONS[name].encode(*values))

    # What happened

    def matched_deals(self, receipt: Receipt) -> list[OrdersMatched]:
        """The deals that a transaction made on this hub."""
        return [
            event
            for log in receipt.logs
            if log.address == self.address and log.topics[:1] == (TOPICS["OrdersMatched"],)
            if isinstance(event := decode_log(log), OrdersMatched)
        ]

    def matched_deal(self, receipt: Receipt) -> Bytes32:
        """The id of the one deal that a transaction made.

        Raises:
            DecodeError: it made none, or several.
        """
        deals = self.matched_deals(receipt)
        if len(deals) != 1:
            raise DecodeError(f"transaction {receipt.transaction} made {len(deals)} deals, expected one")
        return deals[0].deal_id

    def created_category(self, receipt: Receipt) -> int:
        """The number of the category that a transaction made.

        Raises:
            DecodeError: it made none.
        """
        for log in receipt.logs:
            if log.address == self.address and isinstance(event := decode_log(log), CategoryCreated):
                return event.category
        raise DecodeError(f"transaction {receipt.transaction} made no category")


def _arguments(item: ContributionAndResult) -> tuple[Any, ...]:
    return (
        item.task_id.raw,
        item.digest.raw,
        item.results,
        item.results_callback,
        item.enclave_challenge,
        item.enclave_sign,
        item.authorization_sign,
    )
