"""What the chain tells beyond its events, read in a few round trips per batch at the batch's last block."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.chain.hub_reads import HubReads
from cloister.chain.logs import (
    ChainEvent,
    DatasetSchema,
    EntryTransfer,
    Log,
    OrdersMatched,
    TaskClaimed,
    TaskConsensus,
    TaskContribute,
    TaskFinalize,
    TaskInitialize,
    TaskReopen,
    TaskReveal,
)
from cloister.chain.registries import ENTRY_FUNCTIONS
from cloister.chain.rpc import JsonRpc, Read
from cloister.errors import UnavailableError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, to_hex
from cloister.protocol.deals import Category, Deal
from cloister.protocol.tasks import Contribution, Task
from cloister.services.indexer.tables import clean_text
from cloister.services.reading import Unreadable, read_each

TASK_EVENTS = (TaskInitialize, TaskContribute, TaskConsensus, TaskReveal, TaskReopen, TaskFinalize, TaskClaimed)
TaskEvent = TaskInitialize | TaskContribute | TaskConsensus | TaskReveal | TaskReopen | TaskFinalize | TaskClaimed

_GETTERS: Mapping[str, Mapping[str, str]] = {
    "App": {
        "name": "m_appName",
        "type": "m_appType",
        "multiaddr": "m_appMultiaddr",
        "checksum": "m_appChecksum",
        "mrenclave": "m_appMREnclave",
    },
    "Dataset": {"name": "m_datasetName", "multiaddr": "m_datasetMultiaddr", "checksum": "m_datasetChecksum"},
    "Workerpool": {"description": "m_workerpoolDescription"},
}
"""Per kind of registry entry: the fields that we keep and who tells them. None of them ever changes."""

Entry = Mapping[str, str | None]
"""An entry's fields: text, and bytes as hex; None for what cannot be read."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain said at a batch's last block."""

    entries: Mapping[Address, Entry]
    owners: Mapping[Address, Address]
    deals: Mapping[Bytes32, Deal]
    tasks: Mapping[Bytes32, Task]
    contributions: Mapping[tuple[Bytes32, Address], Contribution]
    categories: Mapping[int, Category]


def load_facts(
    rpc: JsonRpc,
    hub: HubReads,
    registries: Mapping[Address, str],
    said: Sequence[tuple[Log, ChainEvent]],
    *,
    block: int,
) -> Facts:
    """Read what a batch of events needs.

    Raises: UnavailableError when the node's answers do not fit together, and what ``JsonRpc`` raises.
    """
    events = [event for _, event in said]
    made = {
        event.entry: registries[log.address]
        for log, event in said
        if isinstance(event, EntryTransfer) and event.sender == ZERO_ADDRESS
    }
    protected = [event.dataset for event in events if isinstance(event, DatasetSchema)]
    made |= dict.fromkeys(protected, "Dataset")
    deals = _existing(rpc, hub.deal, (event.deal_id for event in events if isinstance(event, OrdersMatched)), block)
    tasks = _existing(rpc, hub.task, (event.task_id for event in events if isinstance(event, TASK_EVENTS)), block)
    pairs = [(task_id, worker) for task_id, task in tasks.items() for worker in task.contributors]
    contributions = read_each(rpc, [hub.contribution(*pair) for pair in pairs], block=block)
    numbers = sorted({deal.category for deal in deals.values()})
    categories = read_each(rpc, [hub.category(number) for number in numbers], block=block)
    owners = read_each(rpc, [hub.owner_of(dataset) for dataset in protected], block=block)
    return Facts(
        entries=_load_entries(rpc, made, block),
        owners=_readable(protected, owners),
        deals=deals,
        tasks=tasks,
        contributions=_readable(pairs, contributions),
        categories=_readable(numbers, categories),
    )


def _existing(rpc: JsonRpc, read: Any, names: Iterable[Bytes32], block: int) -> dict[Bytes32, Any]:
    wanted = sorted(set(names))
    found = read_each(rpc, [read(name) for name in wanted], block=block)
    if None in found:
        raise UnavailableError("the node does not know a deal or task that it told of", code="chain-changed")
    return _readable(wanted, found)


def _readable(names: Sequence[Any], values: Sequence[Any]) -> dict[Any, Any]:
    return {name: value for name, value in zip(names, values, strict=True) if not isinstance(value, Unreadable)}


def _load_entries(rpc: JsonRpc, made: Mapping[Address, str], block: int) -> dict[Address, Entry]:
    wanted = [(entry, name, getter) for entry, kind in made.items() for name, getter in _GETTERS[kind].items()]
    reads = [
        Read(entry, ENTRY_FUNCTIONS[getter].encode(), ENTRY_FUNCTIONS[getter].decode_one) for entry, _, getter in wanted
    ]
    entries: dict[Address, dict[str, str | None]] = {entry: {} for entry in made}
    for (entry, name, _), value in zip(wanted, read_each(rpc, reads, block=block), strict=True):
        entries[entry][name] = _written(value)
    return dict(entries)


def _written(value: object) -> str | None:
    match value:
        case str():
            return clean_text(value)
        case bytes():
            return to_hex(value)
        case _:
            return None
