"""Events of the PoCo subgraph become entities."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from cloister.chain.logs import (
    CategoryCreated,
    EntryTransfer,
    OrdersMatched,
    TaskClaimed,
    TaskConsensus,
    TaskContribute,
    TaskFinalize,
    TaskInitialize,
    TaskReopen,
    TaskReveal,
)
from cloister.protocol.codec import Address, Bytes32, to_hex
from cloister.protocol.deals import Deal
from cloister.protocol.tasks import Task
from cloister.services.indexer.bulks import bulk_root
from cloister.services.indexer.entities import WORDS, Kind
from cloister.services.indexer.facts import Facts, TaskEvent
from cloister.services.indexer.pending import expect
from cloister.services.indexer.protected_data import At
from cloister.services.indexer.subgraphs import POCO
from cloister.services.indexer.tables import EntityWriter, clean_text


class PocoHandler:
    """Writes registry entries, deals and tasks."""

    def __init__(self, session: Session, facts: Facts) -> None:
        self._session = session
        self._write = EntityWriter(session, POCO)
        self._facts = facts

    def own(self, entity: str, event: EntryTransfer, at: At) -> None:
        """A registry's entry was made or changed hands."""
        identity = event.entry.lower()
        values: dict[str, Any] = {"owner": self._account(event.receiver, at)}
        if self._write.get(entity, identity) is None:
            values |= {**self._facts.entries.get(event.entry, {}), "timestamp": at.time, **at.mined()}
        self._write.put(entity, identity, at.block, **values)

    def create_category(self, event: CategoryCreated, at: At) -> None:
        """A category was made."""
        self._category(event.category, event.name, event.description, event.clock, at)

    def _category(self, number: int, name: str, description: str, clock: int, at: At) -> None:
        self._write.put(
            "Category",
            str(number),
            at.block,
            name=clean_text(name),
            description=clean_text(description),
            workClockTimeRef=clock,
            timestamp=at.time,
            **at.mined(),
        )

    def match(self, event: OrdersMatched, at: At) -> bool:
        """Four orders made a deal; returns whether it has bulk slices to be read."""
        deal = self._facts.deals.get(event.deal_id)
        if deal is None:
            return False
        identity = str(event.deal_id)
        known = self._facts.categories.get(deal.category)
        if known is not None and self._write.get("Category", str(deal.category)) is None:
            self._category(deal.category, known.name, known.description, known.clock, at)
        root = bulk_root(deal)
        self._write.put(
            "Deal",
            identity,
            at.block,
            **self._parties(deal, at),
            callback=deal.callback.lower(),
            trust=deal.trust,
            category=str(deal.category),
            tag=str(deal.tag),
            params=clean_text(deal.params),
            startTime=deal.start_time,
            botFirst=deal.bot_first,
            botSize=deal.bot_size,
            workerStake=deal.worker_stake,
            schedulerRewardRatio=deal.scheduler_reward_ratio,
            apporder=str(event.app_hash),
            datasetorder=str(event.dataset_hash),
            workerpoolorder=str(event.workerpool_hash),
            requestorder=str(event.request_hash),
            bulk=None if root is None else identity,
            timestamp=at.time,
            **at.mined(),
        )
        if root is None:
            return False
        self._write.put("Bulk", identity, at.block, hash=root, deal=identity)
        expect(self._session, identity, at.block, root)
        return True

    def _parties(self, deal: Deal, at: At) -> dict[str, Any]:
        return {
            "requester": self._account(deal.requester, at),
            "beneficiary": self._account(deal.beneficiary, at),
            "sponsor": self._account(deal.sponsor, at),
            "app": deal.app.pointer.lower(),
            "appOwner": self._account(deal.app.owner, at),
            "appPrice": deal.app.price,
            "dataset": deal.dataset.pointer.lower() if deal.has_dataset else None,
            "datasetOwner": self._account(deal.dataset.owner, at) if deal.has_dataset else None,
            "datasetPrice": deal.dataset.price,
            "workerpool": deal.workerpool.pointer.lower(),
            "workerpoolOwner": self._account(deal.workerpool.owner, at),
            "workerpoolPrice": deal.workerpool.price,
        }

    def change_task(self, event: TaskEvent, at: At) -> None:
        """A task went on."""
        task = self._facts.tasks.get(event.task_id)
        if task is None:
            return
        deal = self._write.get("Deal", str(task.deal_id))
        if deal is None:
            return
        identity = str(event.task_id)
        values = {"timestamp": at.time, **at.mined()}
        if self._write.get("Task", identity) is None:
            values |= {
                "status": "UNSET",
                "deal": str(task.deal_id),
                "requester": deal["requester"],
                "index": task.index,
                "contributionDeadline": task.contribution_deadline,
                "finalDeadline": task.final_deadline,
            }
        self._write.put("Task", identity, at.block, **{**values, **_progress(event, task)})
        if isinstance(event, TaskContribute):
            self._contribute(event.task_id, event.worker, at)
        elif not isinstance(event, TaskInitialize):
            for worker in task.contributors:
                self._judge(event.task_id, worker, at)

    def _contribute(self, task: Bytes32, worker: Address, at: At) -> None:
        said = self._facts.contributions.get((task, worker))
        if said is None:
            return
        self._write.put(
            "Contribution",
            contribution_id(task, worker),
            at.block,
            task=str(task),
            worker=self._account(worker, at),
            status=WORDS[Kind.CONTRIBUTION][said.status],
            hash=str(said.result_hash),
            seal=str(said.result_seal),
            challenge=said.enclave_challenge.lower(),
            weight=said.weight,
            timestamp=at.time,
            **at.mined(),
        )

    def _judge(self, task: Bytes32, worker: Address, at: At) -> None:
        said, identity = self._facts.contributions.get((task, worker)), contribution_id(task, worker)
        if said is not None and self._write.get("Contribution", identity) is not None:
            self._write.put("Contribution", identity, at.block, status=WORDS[Kind.CONTRIBUTION][said.status])

    def _account(self, address: Address, at: At) -> str:
        identity = address.lower()
        self._write.put("Account", identity, at.block)
        return identity


def contribution_id(task: Bytes32, worker: Address) -> str:
    """The id of what a worker said of a task."""
    return f"{task}-{worker.lower()}"


def _progress(event: TaskEvent, task: Task) -> dict[str, Any]:
    """The fields that an event changes. The task's state is that of the batch's end, so the event itself says which."""
    match event:
        case TaskInitialize() | TaskReopen():
            return {"status": "ACTIVE", "consensus": None}
        case TaskConsensus():
            return {"status": "REVEALING", "consensus": str(event.consensus)}
        case TaskFinalize():
            return {
                "status": "COMPLETED",
                "consensus": str(task.consensus_value),
                "resultDigest": str(task.result_digest),
                "results": to_hex(event.results),
                "resultsCallback": to_hex(task.results_callback),
            }
        case TaskClaimed():
            return {"status": "FAILLED"}
        case TaskContribute() | TaskReveal():
            return {}
