"""Every event of the contracts as a frozen dataclass (reference 1.2, Appendix A, Appendix H)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloister.chain.abi import Event, event
from cloister.chain.rpc import parse_quantity
from cloister.errors import DecodeError, quoted
from cloister.protocol.codec import Address, Bytes32, parse_hex
from cloister.protocol.orders import OrderKind

LOG_DATA_CAP: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Log:
    """A log as the chain keeps it. ``topics`` holds topic 0 first."""

    address: Address
    topics: tuple[Bytes32, ...]
    data: bytes
    block_number: int
    block_hash: Bytes32
    transaction_hash: Bytes32
    transaction_index: int
    log_index: int


def parse_log(value: object) -> Log:
    """Read a log as ``eth_getLogs`` and receipts give it.

    Raises:
        DecodeError: a missing or malformed member, or a log of a block that is not on the chain (yet, or any more).
    """
    if not isinstance(value, Mapping):
        raise DecodeError(f"the node sent {quoted(value)} where a log belongs")
    if value.get("removed") is True or value.get("blockHash") is None:
        raise DecodeError("the node sent a log of no block")
    try:
        return Log(
            address=Address(value["address"]),
            topics=tuple(Bytes32(topic) for topic in value["topics"]),
            data=parse_hex(value["data"], cap=LOG_DATA_CAP),
            block_number=parse_quantity(value["blockNumber"]),
            block_hash=Bytes32(value["blockHash"]),
            transaction_hash=Bytes32(value["transactionHash"]),
            transaction_index=parse_quantity(value["transactionIndex"]),
            log_index=parse_quantity(value["logIndex"]),
        )
    except (KeyError, TypeError) as error:
        raise DecodeError(f"the node sent a log without {error}") from error


@dataclass(frozen=True, slots=True)
class OrdersMatched:
    """Four orders made a deal of ``volume`` tasks."""

    deal_id: Bytes32
    app_hash: Bytes32
    dataset_hash: Bytes32
    workerpool_hash: Bytes32
    request_hash: Bytes32
    volume: int


@dataclass(frozen=True, slots=True)
class SchedulerNotice:
    """A workerpool has a new deal."""

    workerpool: Address
    deal_id: Bytes32


@dataclass(frozen=True, slots=True)
class DealSponsored:
    """Somebody else than the requester pays."""

    deal_id: Bytes32
    sponsor: Address


@dataclass(frozen=True, slots=True)
class OrderClosed:
    """An order was revoked."""

    kind: OrderKind
    order_hash: Bytes32


@dataclass(frozen=True, slots=True)
class OrderSigned:
    """An order was presigned."""

    kind: OrderKind
    order_hash: Bytes32


@dataclass(frozen=True, slots=True)
class TaskInitialize:
    """A task began."""

    task_id: Bytes32
    workerpool: Address


@dataclass(frozen=True, slots=True)
class TaskContribute:
    """A worker contributed."""

    task_id: Bytes32
    worker: Address
    result_hash: Bytes32


@dataclass(frozen=True, slots=True)
class TaskConsensus:
    """The workers agree."""

    task_id: Bytes32
    consensus: Bytes32


@dataclass(frozen=True, slots=True)
class TaskReveal:
    """A worker proved that it knew the digest."""

    task_id: Bytes32
    worker: Address
    digest: Bytes32


@dataclass(frozen=True, slots=True)
class TaskReopen:
    """Nobody revealed in time; contributions are open again."""

    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class TaskFinalize:
    """A task is done."""

    task_id: Bytes32
    results: bytes


@dataclass(frozen=True, slots=True)
class TaskClaimed:
    """A task failed and was refunded."""

    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class AccurateContribution:
    """A worker agreed with the consensus."""

    worker: Address
    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class FaultyContribution:
    """A worker did not agree with the consensus."""

    worker: Address
    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class CategoryCreated:
    """A new category."""

    category: int
    name: str
    description: str
    clock: int


@dataclass(frozen=True, slots=True)
class Locked:
    """Stake was locked."""

    account: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Unlocked:
    """Stake was unlocked."""

    account: Address
    amount: int


@dataclass(frozen=True, slots=True)
class Rewarded:
    """An account was paid for a task."""

    account: Address
    amount: int
    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class Seized:
    """Locked stake was taken for a task."""

    account: Address
    amount: int
    task_id: Bytes32


@dataclass(frozen=True, slots=True)
class TokenTransfer:
    """Fungible tokens moved (RLC, or stake on the hub)."""

    sender: Address
    receiver: Address
    amount: int


@dataclass(frozen=True, slots=True)
class TokenApproval:
    """An allowance was set."""

    owner: Address
    spender: Address
    amount: int


@dataclass(frozen=True, slots=True)
class EntryTransfer:
    """A registry's entry changed hands; from the zero address when it was made."""

    sender: Address
    receiver: Address
    entry: Address


@dataclass(frozen=True, slots=True)
class EntryApproval:
    """Somebody may move a registry's entry."""

    owner: Address
    approved: Address
    entry: Address


@dataclass(frozen=True, slots=True)
class DatasetSchema:
    """The DataProtector contract made a dataset with this schema."""

    dataset: Address
    schema: str


@dataclass(frozen=True, slots=True)
class PolicyUpdate:
    """A workerpool changed its stake ratio and its scheduler's share."""

    old_stake_ratio: int
    stake_ratio: int
    old_scheduler_ratio: int
    scheduler_ratio: int


ChainEvent = (
    OrdersMatched
    | SchedulerNotice
    | DealSponsored
    | OrderClosed
    | OrderSigned
    | TaskInitialize
    | TaskContribute
    | TaskConsensus
    | TaskReveal
    | TaskReopen
    | TaskFinalize
    | TaskClaimed
    | AccurateContribution
    | FaultyContribution
    | CategoryCreated
    | Locked
    | Unlocked
    | Rewarded
    | Seized
    | TokenTransfer
    | TokenApproval
    | EntryTransfer
    | EntryApproval
    | DatasetSchema
    | PolicyUpdate
)

EVENTS: Final[Mapping[str, Event]] = {
    definition.name: definition
    for definition in (
        event("OrdersMatched(bytes32,bytes32,bytes32,bytes32,bytes32,uint256)"),
        event("SchedulerNotice(address indexed,bytes32)"),
        event("DealSponsored(bytes32,address)"),
        *(event(f"Closed{kind}(bytes32)") for kind in ("AppOrder", "DatasetOrder", "WorkerpoolOrder", "RequestOrder")),
        *(event(f"Signed{kind}(bytes32)") for kind in ("AppOrder", "DatasetOrder", "WorkerpoolOrder", "RequestOrder")),
        event("TaskInitialize(bytes32 indexed,address indexed)"),
        event("TaskContribute(bytes32 indexed,address indexed,bytes32)"),
        event("TaskConsensus(bytes32 indexed,bytes32)"),
        event("TaskReveal(bytes32 indexed,address indexed,bytes32)"),
        event("TaskReopen(bytes32 indexed)"),
        event("TaskFinalize(bytes32 indexed,bytes)"),
        event("TaskClaimed(bytes32 indexed)"),
        event("AccurateContribution(address indexed,bytes32 indexed)"),
        event("FaultyContribution(address indexed,bytes32 indexed)"),
        event("CreateCategory(uint256,string,string,uint256)"),
        event("Lock(address,uint256)"),
        event("Unlock(address,uint256)"),
        event("Reward(address,uint256,bytes32)"),
        event("Seize(address,uint256,bytes32)"),
        event("DatasetSchema(address indexed,string)"),
        event("PolicyUpdate(uint256,uint256,uint256,uint256)"),
        event("Transfer(address indexed,address indexed,uint256)"),
        event("Approval(address indexed,address indexed,uint256)"),
    )
}
"""The events by name. ``Transfer`` and ``Approval`` stand here as fungible tokens emit them."""

TOPICS: Final[Mapping[str, Bytes32]] = {name: definition.topic for name, definition in EVENTS.items()}
"""Topic 0 of each event by name, for filters."""

_ENTRY_TRANSFER: Final = event("Transfer(address indexed,address indexed,uint256 indexed)")
_ENTRY_APPROVAL: Final = event("Approval(address indexed,address indexed,uint256 indexed)")


def _entry(token_id: int) -> Address:
    """A registry's token id is the entry's address as a number."""
    try:
        return Address.from_raw(token_id.to_bytes(20, "big"))
    except OverflowError as error:
        raise DecodeError(f"token id {token_id} is no address") from error


_A: Final = Address
_W: Final = Bytes32.from_raw
_BUILDERS: Final[Mapping[str, Callable[..., ChainEvent]]] = {
    "OrdersMatched": lambda d, a, s, w, r, v: OrdersMatched(_W(d), _W(a), _W(s), _W(w), _W(r), v),
    "SchedulerNotice": lambda pool, deal: SchedulerNotice(_A(pool), _W(deal)),
    "DealSponsored": lambda deal, sponsor: DealSponsored(_W(deal), _A(sponsor)),
    "TaskInitialize": lambda task, pool: TaskInitialize(_W(task), _A(pool)),
    "TaskContribute": lambda task, worker, hashed: TaskContribute(_W(task), _A(worker), _W(hashed)),
    "TaskConsensus": lambda task, value: TaskConsensus(_W(task), _W(value)),
    "TaskReveal": lambda task, worker, digest: TaskReveal(_W(task), _A(worker), _W(digest)),
    "TaskReopen": lambda task: TaskReopen(_W(task)),
    "TaskFinalize": lambda task, results: TaskFinalize(_W(task), results),
    "TaskClaimed": lambda task: TaskClaimed(_W(task)),
    "AccurateContribution": lambda worker, task: AccurateContribution(_A(worker), _W(task)),
    "FaultyContribution": lambda worker, task: FaultyContribution(_A(worker), _W(task)),
    "CreateCategory": CategoryCreated,
    "Lock": lambda account, amount: Locked(_A(account), amount),
    "Unlock": lambda account, amount: Unlocked(_A(account), amount),
    "Reward": lambda account, amount, task: Rewarded(_A(account), amount, _W(task)),
    "Seize": lambda account, amount, task: Seized(_A(account), amount, _W(task)),
    "DatasetSchema": lambda dataset, schema: DatasetSchema(_A(dataset), schema),
    "PolicyUpdate": PolicyUpdate,
    "Transfer": lambda sender, receiver, amount: TokenTransfer(_A(sender), _A(receiver), amount),
    "Approval": lambda owner, spender, amount: TokenApproval(_A(owner), _A(spender), amount),
}
_ORDER_KINDS: Final = {
    "AppOrder": OrderKind.APP,
    "DatasetOrder": OrderKind.DATASET,
    "WorkerpoolOrder": OrderKind.WORKERPOOL,
    "RequestOrder": OrderKind.REQUEST,
}
_BY_TOPIC: Final = {definition.topic: definition for definition in EVENTS.values()}


def decode_log(log: Log) -> ChainEvent | None:
    """Read a log's event; None for events that are not ours.

    Whoever reads must know by ``log.address`` which contract spoke: any contract can emit any event.

    Raises:
        DecodeError: an event of ours with other bytes than its signature says.
    """
    definition = _BY_TOPIC.get(log.topics[0]) if log.topics else None
    if definition is None:
        return None
    topics = [topic.raw for topic in log.topics[1:]]
    name = definition.name
    if len(topics) == 3 and name in ("Transfer", "Approval"):
        # ERC-721 indexes the token id; the signature, and so topic 0, is that of ERC-20.
        values = (_ENTRY_TRANSFER if name == "Transfer" else _ENTRY_APPROVAL).decode(topics, log.data)
        kind = EntryTransfer if name == "Transfer" else EntryApproval
        return kind(_A(values[0]), _A(values[1]), _entry(values[2]))
    values = definition.decode(topics, log.data)
    for prefix, of_order in (("Closed", OrderClosed), ("Signed", OrderSigned)):
        if name.startswith(prefix) and (order_kind := _ORDER_KINDS.get(name[6:])) is not None:
            return of_order(order_kind, _W(values[0]))
    return _build(name, values)


def _build(name: str, values: tuple[Any, ...]) -> ChainEvent:
    return _BUILDERS[name](*values)
