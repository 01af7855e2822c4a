"""Turns events into entities: protected data and its owners, registry entries, deals and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from cloister.chain.events import Batch, Cursor, parse_cursor
from cloister.chain.hub_reads import HubReads
from cloister.chain.logs import (
    TOPICS,
    ChainEvent,
    DatasetSchema,
    EntryTransfer,
    Log,
    OrdersMatched,
    TaskClaimed,
    TaskConsensus,
    TaskFinalize,
    TaskInitialize,
    TaskReopen,
)
from cloister.chain.registries import ENTRY_FUNCTIONS
from cloister.chain.rpc import JsonRpc, Read
from cloister.datasets.schema import parse_schema, schema_entries
from cloister.errors import CloisterError, UnavailableError
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_json, to_hex
from cloister.protocol.deals import Deal
from cloister.protocol.tasks import Task, TaskStatus
from cloister.services.database import Database
from cloister.services.indexer.entities import DATAPROTECTOR, POCO
from cloister.services.indexer.tables import CURSORS, EntityWriter, roll_back
from cloister.services.reading import Unreadable, read_each, readable_events

WATCHED = tuple(
    TOPICS[name]
    for name in (
        "DatasetSchema",
        "Transfer",
        "OrdersMatched",
        "TaskInitialize",
        "TaskConsensus",
        "TaskReopen",
        "TaskFinalize",
        "TaskClaimed",
    )
)
"""Topics that the indexer reads; ``Transfer`` matters on registries only."""

MAX_ENTRIES = 1000
"""Most entries of one schema that can be searched; the schema itself is kept whole."""
_CURSOR = "indexer"
_NRLC = 10**9
_STATUS_NAMES = {
    TaskStatus.UNSET: "UNSET",
    TaskStatus.ACTIVE: "ACTIVE",
    TaskStatus.REVEALING: "REVEALING",
    TaskStatus.COMPLETED: "COMPLETED",
    # The public subgraph spells it so, and clients filter by it (reference 4.4).
    TaskStatus.FAILED: "FAILLED",
}
_TASK_EVENTS = (TaskInitialize, TaskConsensus, TaskReopen, TaskFinalize, TaskClaimed)


@dataclass(frozen=True, slots=True)
class Contracts:
    """Whose events are believed."""

    hub: Address
    dataprotector: Address
    app_registry: Address
    dataset_registry: Address
    workerpool_registry: Address

    def addresses(self) -> tuple[Address, ...]:
        """All of them."""
        return (self.hub, self.dataprotector, self.app_registry, self.dataset_registry, self.workerpool_registry)

    def registries(self) -> Mapping[Address, str]:
        """Registry to the name of its entity."""
        return {self.app_registry: "App", self.dataset_registry: "Dataset", self.workerpool_registry: "Workerpool"}


class IndexWatcher:
    """Takes in batches of blocks for the indexer: the sink of a ``Follower``."""

    def __init__(self, database: Database, rpc: JsonRpc, contracts: Contracts) -> None:
        self._database = database
        self._rpc = rpc
        self._contracts = contracts
        self._hub = HubReads(contracts.hub)

    def load_cursor(self) -> Cursor | None:
        """Where reading stopped."""
        with self._database.read_scope() as session:
            found = session.execute(select(CURSORS.c.cursor).where(CURSORS.c.name == _CURSOR)).scalar()
        return None if found is None else parse_cursor(parse_json(found))

    def take(self, batch: Batch) -> None:
        """Write what a batch says."""
        said = [(log, event) for log, event in readable_events(batch.logs) if self._believed(log, event)]
        known = _Known.load(self._rpc, self._hub, said, block=batch.through)
        times = batch.timestamps()
        with self._database.session_scope() as session:
            if batch.rolled_back_to is not None:
                roll_back(session, batch.rolled_back_to)
            data, poco = _DataHandler(session, known), _PocoHandler(session, known)
            registries = self._contracts.registries()
            for log, event in said:
                at = _At(log.block_number, times[log.block_number], log.transaction_hash)
                match event:
                    case DatasetSchema():
                        data.protect(event, at)
                    case EntryTransfer():
                        poco.own(registries[log.address], event, at)
                        if log.address == self._contracts.dataset_registry:
                            data.transfer(event, at)
                    case OrdersMatched():
                        poco.match(event, at)
                    case _:
                        poco.change_task(_task_of(event), at)
            _save_cursor(session, batch)

    def _believed(self, log: Log, event: ChainEvent) -> bool:
        """Any contract can emit any event: each kind counts from its own contract only."""
        contracts = self._contracts
        match event:
            case DatasetSchema():
                return log.address == contracts.dataprotector
            case EntryTransfer():
                return log.address in contracts.registries()
            case OrdersMatched() | TaskInitialize() | TaskConsensus() | TaskReopen() | TaskFinalize() | TaskClaimed():
                return log.address == contracts.hub
            case _:
                return False


@dataclass(frozen=True, slots=True)
class _At:
    """Where in the chain something happened."""

    block: int
    time: int
    transaction: Bytes32

    def mined(self) -> dict[str, Any]:
        return {"blockNumber": self.block, "transactionHash": str(self.transaction)}


@dataclass(frozen=True, slots=True)
class _Dataset:
    name: str
    multiaddr: bytes
    checksum: bytes
    owner: Address


def _task_of(event: ChainEvent) -> Bytes32:
    assert isinstance(event, _TASK_EVENTS)  # noqa: S101 - nothing else is believed
    return event.task_id


@dataclass(frozen=True, slots=True)
class _Known:
    """What the chain tells beyond the events, read once per batch at its last block."""

    datasets: Mapping[Address, _Dataset]
    deals: Mapping[Bytes32, Deal]
    tasks: Mapping[Bytes32, Task]

    @classmethod
    def load(cls, rpc: JsonRpc, hub: HubReads, said: list[tuple[Log, ChainEvent]], *, block: int) -> _Known:
        """Read everything in a few round trips. Raises: UnavailableError when the node's answers do not fit
        together.
        """
        datasets = sorted({event.dataset for _, event in said if isinstance(event, DatasetSchema)})
        deals = sorted({event.deal_id for _, event in said if isinstance(event, OrdersMatched)})
        tasks = sorted({_task_of(event) for _, event in said if isinstance(event, _TASK_EVENTS)})
        names = ("m_datasetName", "m_datasetMultiaddr", "m_datasetChecksum", "owner")
        fields = read_each(
            rpc,
            [
                Read(dataset, ENTRY_FUNCTIONS[name].encode(), ENTRY_FUNCTIONS[name].decode_one)
                for dataset in datasets
                for name in names
            ],
            block=block,
        )
        found_deals = read_each(rpc, [hub.deal(deal) for deal in deals], block=block)
        found_tasks = read_each(rpc, [hub.task(task) for task in tasks], block=block)
        if None in found_deals or None in found_tasks:
            raise UnavailableError("the node does not know a deal or task that it told of", code="chain-changed")
        return cls(
            datasets={
                dataset: entry
                for n, dataset in enumerate(datasets)
                if (entry := _dataset(fields[4 * n : 4 * n + 4])) is not None
            },
            deals={each: deal for each, deal in zip(deals, found_deals, strict=True) if isinstance(deal, Deal)},
            tasks={each: task for each, task in zip(tasks, found_tasks, strict=True) if isinstance(task, Task)},
        )


def _dataset(values: list[Any]) -> _Dataset | None:
    """Build a dataset's facts from its four fields; None when one of them is not readable."""
    if any(isinstance(value, Unreadable) for value in values):
        return None
    name, multiaddr, checksum, owner = values
    return _Dataset(_text(name), multiaddr, checksum, Address(owner))


class _DataHandler:
    """Events of the DataProtector subgraph."""

    def __init__(self, session: Session, known: _Known) -> None:
        self._write = EntityWriter(session, DATAPROTECTOR)
        self._known = known

    def protect(self, event: DatasetSchema, at: _At) -> None:
        """A dataset was made with a schema."""
        dataset = self._known.datasets.get(event.dataset)
        if dataset is None:
            return
        entries = _entries_of(event.schema)
        for entry in entries[:MAX_ENTRIES]:
            path, _, kind = entry.rpartition(":")
            self._write.put("SchemaEntry", entry, at.block, path=path, type=kind)
        self._write.put(
            "ProtectedData",
            event.dataset.lower(),
            at.block,
            owner=self._account(dataset.owner, at),
            name=dataset.name,
            jsonSchema=_text(event.schema),
            schema=entries[:MAX_ENTRIES],
            isIncludedInSubscription=False,
            isRentable=False,
            isForSale=False,
            multiaddr=to_hex(dataset.multiaddr),
            checksum=to_hex(dataset.checksum),
            creationTimestamp=at.time,
            **at.mined(),
        )

    def transfer(self, event: EntryTransfer, at: _At) -> None:
        """A dataset changed hands; only protected data that is known already is concerned."""
        identity = event.entry.lower()
        if self._write.get("ProtectedData", identity) is not None:
            self._write.put(
                "ProtectedData",
                identity,
                at.block,
                owner=self._account(event.receiver, at),
                isIncludedInSubscription=False,
                isRentable=False,
                isForSale=False,
            )

    def _account(self, address: Address, at: _At) -> str:
        identity = address.lower()
        self._write.put("Account", identity, at.block)
        return identity


class _PocoHandler:
    """Events of the PoCo subgraph."""

    def __init__(self, session: Session, known: _Known) -> None:
        self._write = EntityWriter(session, POCO)
        self._known = known

    def own(self, entity: str, event: EntryTransfer, at: _At) -> None:
        """A registry's entry was made or changed hands."""
        identity = event.entry.lower()
        values: dict[str, Any] = {"owner": self._account(event.receiver, at)}
        if self._write.get(entity, identity) is None:
            values |= {"timestamp": at.time, **at.mined()}
        self._write.put(entity, identity, at.block, **values)

    def match(self, event: OrdersMatched, at: _At) -> None:
        """Four orders made a deal."""
        deal = self._known.deals.get(event.deal_id)
        if deal is None:
            return
        self._write.put(
            "Deal",
            str(event.deal_id),
            at.block,
            requester=self._account(deal.requester, at),
            beneficiary=self._account(deal.beneficiary, at),
            callback=deal.callback.lower(),
            app=deal.app.pointer.lower(),
            appOwner=self._account(deal.app.owner, at),
            appPrice=_rlc(deal.app.price),
            dataset=deal.dataset.pointer.lower() if deal.has_dataset else None,
            datasetOwner=self._account(deal.dataset.owner, at) if deal.has_dataset else None,
            datasetPrice=_rlc(deal.dataset.price),
            workerpool=deal.workerpool.pointer.lower(),
            workerpoolOwner=self._account(deal.workerpool.owner, at),
            workerpoolPrice=_rlc(deal.workerpool.price),
            trust=deal.trust,
            category=deal.category,
            tag=str(deal.tag),
            params=_text(deal.params),
            startTime=deal.start_time,
            botFirst=deal.bot_first,
            botSize=deal.bot_size,
            workerStake=_rlc(deal.worker_stake),
            schedulerRewardRatio=deal.scheduler_reward_ratio,
            sponsor=self._account(deal.sponsor, at),
            apporder=str(event.app_hash),
            datasetorder=str(event.dataset_hash),
            workerpoolorder=str(event.workerpool_hash),
            requestorder=str(event.request_hash),
            timestamp=at.time,
            **at.mined(),
        )

    def change_task(self, task_id: Bytes32, at: _At) -> None:
        """A task went on: its state is the chain's at the end of the batch."""
        task = self._known.tasks.get(task_id)
        deal = None if task is None else self._write.get("Deal", str(task.deal_id))
        if task is None or deal is None:
            return
        self._write.put(
            "Task",
            str(task_id),
            at.block,
            status=_STATUS_NAMES[task.status],
            deal=str(task.deal_id),
            requester=deal["requester"],
            index=task.index,
            contributionDeadline=task.contribution_deadline,
            finalDeadline=task.final_deadline,
            consensus=None if task.consensus_value.is_zero else str(task.consensus_value),
            resultDigest=None if task.result_digest.is_zero else str(task.result_digest),
            results=to_hex(task.results) if task.status is TaskStatus.COMPLETED else None,
            resultsCallback=to_hex(task.results_callback) if task.status is TaskStatus.COMPLETED else None,
            timestamp=at.time,
            **at.mined(),
        )

    def _account(self, address: Address, at: _At) -> str:
        identity = address.lower()
        self._write.put("Account", identity, at.block)
        return identity


def _entries_of(schema: str) -> list[str]:
    """The schema's entries; a text that is no schema has none, as the chain takes any text."""
    try:
        return list(dict.fromkeys(schema_entries(parse_schema(schema))))
    except CloisterError:
        return []


def _rlc(nrlc: int) -> str:
    """Write an amount as RLC without trailing zeros: 1500000000 is ``1.5``."""
    whole, rest = divmod(nrlc, _NRLC)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    """PostgreSQL stores no NUL in text."""
    return text.replace("\x00", "\ufffd")


def _save_cursor(session: Session, batch: Batch) -> None:
    values = {"cursor": canonical_json(batch.cursor.to_json()).decode("utf-8"), "block": batch.through}
    if session.execute(select(CURSORS.c.name).where(CURSORS.c.name == _CURSOR)).first() is None:
        session.execute(insert(CURSORS).values(name=_CURSOR, **values))
    else:
        session.execute(update(CURSORS).where(CURSORS.c.name == _CURSOR).values(**values))
