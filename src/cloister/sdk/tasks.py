"""Tasks as the requester sees them: on chain, at the scheduler, and their results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloister.errors import CloisterError, Conflict, NotFound, RemoteError, UnavailableError, VerificationError
from cloister.protocol.codec import Bytes32
from cloister.protocol.deals import Deal, deadlines
from cloister.protocol.params import RequestParams
from cloister.protocol.results import downloadable_location, parse_results_location
from cloister.protocol.tasks import Task, TaskStatus
from cloister.protocol.tasks import task_id as derive_task_id
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress
from cloister.sdk.results import RECEIPT_NAME, Result, open_rsa
from cloister.sdk.updates import AppProgress, AppUpdates
from cloister.sealing.results import open_result

if TYPE_CHECKING:
    from cloister.chain.rpc import Head
    from cloister.sdk.debugging import TaskRecord
    from cloister.sdk.receipts import ResultReceipt

POLL_SECONDS = 0.05
POLL_MOST = 1.0
GIVEN_UP_STAGES = frozenset({"RUNNING_FAILED", "CONTRIBUTION_TIMEOUT"})
"""The scheduler's words for a task that it leases to nobody any more."""
GIVEN_UP_SECONDS = 2.0
"""How long the scheduler must say so: a contribution may have been mined that it has not seen."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """One task. ``status`` is iExec's name (``ACTIVE``, ``COMPLETED``, …, ``TIMEOUT``); ``stage`` the scheduler's word,
    ``work`` how far its last worker said to be (``COMPUTING``, …); ``progress`` the running app's own, where it was watched.
    """

    task_id: Bytes32
    deal_id: Bytes32
    index: int
    status: str
    stage: str | None
    final_deadline: int
    location: str | None
    detail: str | None = None
    work: str | None = None
    progress: AppProgress | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.status in ("COMPLETED", "FAILED", "TIMEOUT")

    @property
    def given_up(self) -> bool:
        """Whether its workerpool tries no more: all that is left is the refund after the final deadline."""
        return self.status in ("UNSET", "ACTIVE") and self.stage in GIVEN_UP_STAGES

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        members = {name: getattr(self, name) for name in self.__slots__}
        return members | {"progress": None if self.progress is None else self.progress.to_json()}


@dataclass(frozen=True, slots=True)
class Logs:
    """What the app printed on one worker; the last 100,000 characters of each stream."""

    worker: str
    stdout: str
    stderr: str


class Tasks:
    """Status, waiting, logs, results and claims."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def status(self, task_id: str, *, deal_id: str | None = None) -> TaskView:
        """Where a task stands. A task that is not initialized yet is known only with its ``deal_id``.

        Raises:
            NotFound: no such task.
        """
        connection = self._connection
        identity = Bytes32(task_id)
        head = connection.rpc.head()
        task = connection.hub.task(identity, block=head.number)
        if task is None:
            return self._uninitialized(identity, deal_id, head)
        stage, detail, work = self._stage(identity)
        location = parse_results_location(task.results) if task.status is TaskStatus.COMPLETED else None
        return TaskView(
            task_id=identity,
            deal_id=task.deal_id,
            index=task.index,
            status=task.status_name(head.timestamp),
            stage=stage,
            final_deadline=task.final_deadline,
            location=None if location is None else location.location,
            detail=detail,
            work=work,
        )

    def _uninitialized(self, identity: Bytes32, deal_id: str | None, head: Head) -> TaskView:
        """A task that the chain knows only through its deal."""
        hub = self._connection.hub
        deal = None if deal_id is None else hub.deal(Bytes32(deal_id), block=head.number)
        if deal is None or deal_id is None:
            raise NotFound(
                f"no task found for id {identity} on chain {self._connection.network.chain_id}", hint="check the id"
            )
        parent = Bytes32(deal_id)
        index = next((index for index in deal.indexes() if derive_task_id(parent, index) == identity), None)
        if index is None:
            raise NotFound(f"deal {parent} has no task {identity}", hint="check the ids")
        limit = deadlines(deal.start_time, hub.category(deal.category, block=head.number).clock).final
        status = "TIMEOUT" if head.timestamp >= limit else "UNSET"
        stage, detail, work = self._stage(identity)
        return TaskView(identity, parent, index, status, stage, limit, None, detail, work)

    def watch(self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None) -> Iterator[TaskView]:
        """Yield the task's view at once and whenever it changes, until it ended or its workerpool gave it up.

        What the app says of its progress is part of it, where its result is not sealed to another wallet.

        Raises:
            UnavailableError: ``timeout`` seconds went by first.
        """
        started = time.monotonic()
        pause = POLL_SECONDS
        last: TaskView | None = None
        given_up_at: float | None = None
        updates = AppUpdates(self._connection, Bytes32(task_id))
        while True:
            view = self.status(task_id, deal_id=deal_id)
            moved = last is None or view != replace(last, progress=None)
            view = replace(view, progress=updates.newest())
            if view != last:
                yield view
                last = view
            if moved:
                pause = POLL_SECONDS
            if view.ended:
                return
            if not view.given_up:
                given_up_at = None
            elif given_up_at is None:
                given_up_at = time.monotonic()
            elif time.monotonic() - given_up_at >= GIVEN_UP_SECONDS:
                return
            if timeout is not None and time.monotonic() - started > timeout:
                raise UnavailableError(
                    f"task {task_id} is still {view.status} after {timeout:g} s", hint=f"cloister task watch {task_id}"
                )
            time.sleep(pause)
            pause = min(POLL_MOST, pause * 1.2)

    def wait(self, task_id: str, *, deal_id: str | None = None, timeout: float | None = None) -> TaskView:
        """Wait until the task ended and return its last view.

        Raises:
            RemoteError: it failed, timed out or was given up; the hint says how and when the money comes back.
        """
        view: TaskView | None = None
        told: AppProgress | None = None
        for view in self.watch(task_id, deal_id=deal_id, timeout=timeout):
            said, told = (view.progress if view.progress != told else None), view.progress
            running = view.work if view.stage == "RUNNING" else None
            detail = (said.message if said is not None else "") or running or view.stage or view.status
            fraction = None if told is None else told.fraction
            self._tell(Progress("TASK_EXECUTION", detail=detail, fraction=fraction))
        assert view is not None  # noqa: S101  (watch yields at least once)
        if view.given_up:
            moment = datetime.fromtimestamp(view.final_deadline, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise RemoteError(
                f"task {task_id} was given up by its workerpool: {view.detail or view.stage}",
                hint=f"the price is refunded after the final deadline, {moment}",
                code="task-given-up",
            )
        if view.status != "COMPLETED":
            raise RemoteError(
                f"task {task_id} ended as {view.status}" + (f": {view.detail}" if view.detail else ""),
                hint="the price is refunded" if view.status == "FAILED" else f"cloister task claim {task_id}",
                code="task-" + view.status.lower(),
            )
        self._tell(Progress("TASK_EXECUTION", finished=True, detail=view.status))
        return view

    def logs(self, task_id: str) -> list[Logs]:
        """What the app printed; only the task's requester gets it.

        Raises:
            Denied: the wallet is not the requester.
        """
        entries = self._connection.scheduler.logs(Bytes32(task_id), self._connection.signer)
        return [Logs(entry.worker, entry.stdout, entry.stderr) for entry in entries]

    def debug(self, task_id: str, *, deal_id: str | None = None) -> TaskRecord:
        """All that can be known of a task: the chain's word, the scheduler's and each worker's, with times and causes.

        Raises:
            NotFound: no such task.
        """
        from cloister.sdk.debugging import load_record

        return load_record(self._connection, self.status(task_id, deal_id=deal_id))

    def claim(self, task_id: str, *, deal_id: str | None = None) -> str:
        """Take the money of a late task back. Returns the transaction's hash.

        Raises:
            Conflict: the task is not late.
        """
        connection = self._connection
        view = self.status(task_id, deal_id=deal_id)
        if view.status != "TIMEOUT":
            raise Conflict(
                f"task {task_id} is {view.status}, only a late task can be claimed",
                hint=f"late at {view.final_deadline}",
            )
        known = connection.hub.task(view.task_id, block="latest") is not None
        call = (
            connection.hub.claim(view.task_id)
            if known
            else connection.hub.initialize_and_claim_array([view.deal_id], [view.index])
        )
        return connection.sender.send(call, intent=f"claim:{view.task_id}").transaction

    def result(self, task_id: str, *, pem_private_key: str | None = None) -> Result:
        """Download and open a completed task's result. ``pem_private_key`` opens one that is sealed to an RSA key, as iExec's
        clients ask for.

        Raises:
            Conflict: the task is not completed, or its result is not downloadable.
            VerificationError: the result is not what the enclave sealed for this wallet.
        """
        connection = self._connection
        identity = Bytes32(task_id)
        task = connection.hub.task(identity, block="latest")
        if task is None:
            raise NotFound(
                f"no task found for id {identity} on chain {connection.network.chain_id}", hint="check the id"
            )
        if task.status is not TaskStatus.COMPLETED:
            raise Conflict(
                f"task {identity} is not completed: {task.status.name}", hint=f"cloister task watch {identity}"
            )
        deal = connection.hub.deal(task.deal_id, block="latest")
        if deal is None:
            raise NotFound(f"no deal found for id {task.deal_id} on chain {connection.network.chain_id}")
        self._tell(Progress("TASK_RESULT_DOWNLOAD"))
        chunks = self._download(task)
        result = self._open(chunks, deal, identity, pem_private_key)
        self._tell(Progress("TASK_RESULT_DOWNLOAD", finished=True))
        return result

    def receipt(self, task_id: str, result: Result) -> ResultReceipt:
        """The receipt inside a task's opened result, beside the digest that the chain has.

        Raises:
            NotFound: no such task, or the result holds no receipt.
        """
        from cloister.sdk.receipts import ResultReceipt

        task = self._connection.hub.task(Bytes32(task_id), block="latest")
        if task is None:
            raise NotFound(
                f"no task found for id {task_id} on chain {self._connection.network.chain_id}", hint="check the id"
            )
        return ResultReceipt(result.read(RECEIPT_NAME), self._connection.source, task.result_digest.raw)

    def _download(self, task: Task) -> Iterable[bytes]:
        location = downloadable_location(parse_results_location(task.results))
        return self._connection.store.open(location)

    def _open(self, chunks: Iterable[bytes], deal: Deal, task_id: Bytes32, pem_private_key: str | None) -> Result:
        params = RequestParams.parse(deal.params, allow_unknown=True)
        if not params.iexec_result_encryption:
            return Result(chunks, encrypted=False)
        if params.cloister_result_key is None:
            if pem_private_key is None:
                raise Conflict(
                    f"the result of {task_id} is sealed to an RSA key",
                    hint="give that private key: pem_private_key=, or cloister result open --pem FILE",
                )
            return Result(open_rsa(chunks, pem_private_key), encrypted=True)
        wallet = self._connection.wallet
        if wallet is None or wallet.address != deal.beneficiary:
            raise VerificationError(
                f"only {deal.beneficiary} can open this result", hint="use the beneficiary's wallet"
            )
        key = wallet.result_key()
        if key.public.key_id != params.cloister_result_key:
            raise VerificationError(
                f"the result is sealed to key {params.cloister_result_key[:16]}…, this wallet has {key.public.key_id[:16]}…",
                hint="use the machine, or the wallet folder, that made the request",
            )
        return Result(open_result(key, chunks, context=task_id.raw), encrypted=True)

    def _stage(self, task_id: Bytes32) -> tuple[str | None, str | None, str | None]:
        """The scheduler's word on the task, the last cause of failure, the last worker's word. Only decoration: the chain is
        what counts.
        """
        try:
            state = self._connection.scheduler.task(task_id)
        except CloisterError:
            return None, None, None
        return state.status, state.cause, state.replicates[-1].status if state.replicates else None
