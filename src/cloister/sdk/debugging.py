"""All that can be known of a task, for whoever asks why: the chain's word, the scheduler's, each worker's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cloister.clients.scheduler import Replicate
from cloister.errors import CloisterError, NotFound
from cloister.protocol.codec import Address, Bytes32
from cloister.sdk.connection import Connection

if TYPE_CHECKING:
    from cloister.protocol.deals import Deal
    from cloister.sdk.tasks import TaskView


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a task's timeline. ``date`` is ISO 8601 in UTC; ``worker`` is None where the scheduler itself speaks."""

    date: str
    status: str
    worker: Address | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task on chain and off it. Prices are nRLC. ``problem`` says why its scheduler could not be asked.

    ``exit_code`` is the app's on the last worker, where its enclave lets that be known.
    """

    view: TaskView
    app: Address
    protected_data: Address | None
    workerpool: Address
    requester: Address
    beneficiary: Address
    app_price: int
    data_price: int
    workerpool_price: int
    category: int
    trust: int
    bulk: bool
    scheduler_status: str | None
    events: tuple[Event, ...]
    replicates: tuple[Replicate, ...]
    cause: str | None
    exit_code: int | None
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return asdict(self)


def load_record(connection: Connection, view: TaskView) -> TaskRecord:
    """Gather a task's record.

    Raises:
        NotFound: the chain has no such deal. UnavailableError: the chain does not answer; a scheduler that does not is told
        in ``problem``.
    """
    deal = connection.hub.deal(view.deal_id, block="latest")
    if deal is None:
        raise NotFound(f"no deal found for id {view.deal_id} on chain {connection.network.chain_id}")
    try:
        told = connection.scheduler.task(Bytes32(view.task_id))
    except CloisterError as error:
        return _record(view, deal, None, (), (), None, error.message)
    own = [Event(line.date, line.status, None, line.cause) for line in told.history]
    theirs = [
        Event(line.date, line.status, replicate.worker, line.cause)
        for replicate in told.replicates
        for line in replicate.history
    ]
    events = tuple(sorted([*own, *theirs], key=lambda event: event.date))
    return _record(view, deal, told.status, events, told.replicates, told.cause, None)


def _record(
    view: TaskView,
    deal: Deal,
    status: str | None,
    events: tuple[Event, ...],
    replicates: tuple[Replicate, ...],
    cause: str | None,
    problem: str | None,
) -> TaskRecord:
    from cloister.protocol.params import parse_params

    return TaskRecord(
        view=view,
        app=deal.app.pointer,
        protected_data=deal.dataset.pointer if deal.has_dataset else None,
        workerpool=deal.workerpool.pointer,
        requester=deal.requester,
        beneficiary=deal.beneficiary,
        app_price=deal.app.price,
        data_price=deal.dataset.price,
        workerpool_price=deal.workerpool.price,
        category=deal.category,
        trust=deal.trust,
        bulk=parse_params(deal.params, allow_unknown=True).bulk_cid is not None,
        scheduler_status=status,
        events=events,
        replicates=replicates,
        cause=cause,
        exit_code=replicates[-1].exit_code if replicates else None,
        problem=problem,
    )
