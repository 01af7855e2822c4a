"""Turns events into entities: protected data and its owners, registry entries, deals and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from cloister.chain.events import Batch, Cursor, parse_cursor
from cloister.chain.hub_reads import HubReads
from cloister.chain.logs import (
    TOPICS,
    CategoryCreated,
    ChainEvent,
    DatasetSchema,
    EntryTransfer,
    Log,
    OrdersMatched,
)
from cloister.chain.rpc import JsonRpc
from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, canonical_json, parse_json
from cloister.services.database import Database
from cloister.services.indexer.deals import PocoHandler
from cloister.services.indexer.facts import TASK_EVENTS, TaskEvent, load_facts
from cloister.services.indexer.protected_data import At, DataHandler
from cloister.services.indexer.tables import CURSORS, roll_back
from cloister.services.reading import readable_events

WATCHED = tuple(
    TOPICS[name]
    for name in (
        "DatasetSchema",
        "Transfer",
        "CreateCategory",
        "OrdersMatched",
        "TaskInitialize",
        "TaskContribute",
        "TaskConsensus",
        "TaskReveal",
        "TaskReopen",
        "TaskFinalize",
        "TaskClaimed",
    )
)
"""Topics that the indexer reads; ``Transfer`` matters on registries only."""

_CURSOR = "indexer"
_HubEvent = CategoryCreated | OrdersMatched | TaskEvent


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
    """Takes in batches of blocks for the indexer: the sink of a ``Follower``. ``on_bulk`` hears of new bulk deals."""

    def __init__(self, database: Database, rpc: JsonRpc, contracts: Contracts, *, on_bulk: Callable[[], None]) -> None:
        self._database = database
        self._rpc = rpc
        self._contracts = contracts
        self._on_bulk = on_bulk
        self._hub = HubReads(contracts.hub)
        self._stored: str | None = None

    def load_cursor(self) -> Cursor | None:
        """Where reading stopped."""
        with self._database.read_scope() as session:
            self._stored = session.execute(select(CURSORS.c.cursor).where(CURSORS.c.name == _CURSOR)).scalar()
        return None if self._stored is None else parse_cursor(parse_json(self._stored))

    def take(self, batch: Batch) -> None:
        """Write what a batch says.

        Raises: UnavailableError when the chain's answers do not fit together, or another replica was faster.
        """
        said = [(log, event) for log, event in readable_events(batch.logs) if self._believed(log, event)]
        facts = load_facts(self._rpc, self._hub, self._contracts.registries(), said, block=batch.through)
        times = batch.timestamps()
        bulk = False
        with self._database.session_scope() as session:
            cursor = self._move_cursor(session, batch)
            if batch.rolled_back_to is not None:
                roll_back(session, batch.rolled_back_to)
            data, poco = DataHandler(session, facts), PocoHandler(session, facts)
            registries = self._contracts.registries()
            for log, event in said:
                at = At(log.block_number, times[log.block_number], log.transaction_hash)
                match event:
                    case DatasetSchema():
                        data.protect(event, at)
                    case EntryTransfer():
                        poco.own(registries[log.address], event, at)
                        if log.address == self._contracts.dataset_registry:
                            data.transfer(event, at)
                    case CategoryCreated():
                        poco.create_category(event, at)
                    case OrdersMatched():
                        bulk = poco.match(event, at) or bulk
                    case _ if isinstance(event, TASK_EVENTS):
                        poco.change_task(event, at)
        self._stored = cursor
        if bulk:
            self._on_bulk()

    def _believed(self, log: Log, event: ChainEvent) -> bool:
        """Any contract can emit any event: each kind counts from its own contract only."""
        contracts = self._contracts
        match event:
            case DatasetSchema():
                return log.address == contracts.dataprotector
            case EntryTransfer():
                return log.address in contracts.registries()
            case _:
                return isinstance(event, _HubEvent) and log.address == contracts.hub

    def _move_cursor(self, session: Session, batch: Batch) -> str:
        """Store how far was read, if nobody else did: of several replicas each block is taken in by one."""
        text = canonical_json(batch.cursor.to_json()).decode("utf-8")
        last = batch.cursor.recent[-1:]
        values = {
            "cursor": text,
            "block": batch.through,
            "block_hash": next((str(name) for number, name in last if number == batch.through), None),
            "block_time": batch.timestamps().get(batch.through),
        }
        mine = CURSORS.c.name == _CURSOR
        stored = session.execute(select(CURSORS.c.cursor).where(mine).with_for_update()).scalar()
        if stored != self._stored:
            raise UnavailableError("another replica has read these blocks", code="overtaken")
        if stored is None:
            session.execute(insert(CURSORS).values(name=_CURSOR, **values))
        else:
            session.execute(update(CURSORS).where(mine).values(**values))
        return text
