"""One task on one worker, from lease to report. Every step is in the journal before the next begins.

``LEASED`` run the enclave; ``SEALED`` upload; ``UPLOADED`` contribute; ``CONTRIBUTED`` reveal (trust over 1);
``REPORTING`` tell the scheduler. A worker that was killed takes up each task at its step: what was computed is never
computed again, what was contributed is never contributed again.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cloister.chain.contracts import Call, ContributionAndResult, Hub
from cloister.chain.rpc import TransactionReverted
from cloister.chain.sender import TransactionSender
from cloister.clients.scheduler import Lease, Outcome, ReplicateStatus, WorkerCalls
from cloister.clients.sms import SmsClient
from cloister.errors import CloisterError, Conflict, NotFound, RemoteError, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.orders import DatasetOrder, OrderKind, parse_order
from cloister.protocol.params import parse_params
from cloister.protocol.results import build_results_location, result_hash, result_seal
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionCall, SessionRequest
from cloister.protocol.tasks import ContributionStatus, Task, TaskStatus
from cloister.storage.content import ContentStore
from cloister.worker.enclaves import Enclaves
from cloister.worker.fetching import ContentFetcher
from cloister.worker.journal import Entry, Journal, SealedResult, Step, advance
from cloister.worker.patience import CalledOff, Patience
from cloister.worker.relay import EnclaveFailed, RelayOutcome, RelayTask, run_relay
from cloister.worker.settings import WorkerSettings

log = logging.getLogger("cloister.worker")

RESULT_FILE = "result.sealed"
PIECE = 1 << 20
ACTIVE_POLL = 0.03
MAX_BEAT = 8.0
TRANSIENT = frozenset({"ENCLAVE_DIED", "ENCLAVE_CHANNEL_BROKEN", "SANDBOX_FAILED", "unavailable"})
"""Causes of a failed enclave that may not be there a second time."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What a worker stands on; shared by all its tasks."""

    settings: WorkerSettings
    journal: Journal
    scheduler: WorkerCalls
    sms: SmsClient
    store: ContentStore
    fetcher: ContentFetcher
    hub: Hub
    sender: TransactionSender
    enclaves: Enclaves

    @property
    def worker(self) -> Address:
        """The worker's address."""
        return self.sender.address


class TaskFailed(RemoteError):  # a name of the protocol: the task failed here
    """The task cannot be done here. ``cause`` names why; ``status`` is the replicate's last."""

    code = "task-failed"

    def __init__(self, status: ReplicateStatus, cause: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause


class Execution:
    """Carries one journal entry to its end.

    ``off`` set: end the enclave, but let a result that is made reach the chain. ``halt`` set: stop at once; the journal
    has the rest.
    """

    def __init__(self, platform: Platform, entry: Entry, *, off: threading.Event, halt: threading.Event) -> None:
        self._platform = platform
        self._entry = entry
        self._off = off
        self._halt = halt
        self._aborted = threading.Event()
        self._status = ReplicateStatus.STARTED
        self._folder = platform.settings.state_folder / "tasks" / entry.lease.lease_id

    @property
    def lease(self) -> Lease:
        """The lease."""
        return self._entry.lease

    def run(self) -> None:
        """Go on from where the journal stands. Returns when the task is done, given back, or called off."""
        beats_end = threading.Event()
        beats = threading.Thread(
            target=self._beat, args=(beats_end,), name=f"beat-{self.lease.lease_id[:8]}", daemon=True
        )
        beats.start()
        try:
            self._carry()
        except CalledOff:
            log.info("task %s: stopped at step %s", self.lease.task_id, self._entry.step)
            if self._entry.step is Step.LEASED:
                self._give_back()
        except TaskFailed as failure:
            log.warning("task %s: %s: %s", self.lease.task_id, failure.cause, failure.message)
            self._end(Outcome(failure.status, cause=failure.cause, message=failure.message[:500]))
        finally:
            beats_end.set()
            beats.join(timeout=5)

    def _carry(self) -> None:
        if self._entry.step is Step.LEASED:
            self._compute()
        if self._entry.step is Step.SEALED:
            self._upload()
        if self._entry.step is Step.UPLOADED:
            self._contribute()
        if self._entry.step is Step.CONTRIBUTED:
            self._reveal()
        if self._entry.step in (Step.REVEALED, Step.REPORTING):
            self._report()

    # --- the steps ---

    def _compute(self) -> None:
        """Run the enclave until a sealed result is on disk."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        turn = 0
        while True:
            try:
                outcome = self._run_enclave()
                break
            except EnclaveFailed as failure:
                self._check_off()
                if failure.cause not in TRANSIENT or turn >= self._platform.settings.platform_retries:
                    raise TaskFailed(_failure_status(failure.cause), failure.cause, failure.message) from failure
                log.warning("task %s: the enclave failed (%s); trying again", self.lease.task_id, failure.message)
            except UnavailableError as error:
                if turn >= self._platform.settings.platform_retries:
                    raise TaskFailed(ReplicateStatus.START_FAILED, error.code, error.message) from error
            self._patience().pause(turn)
            turn += 1
        self._status = ReplicateStatus.COMPUTED
        if outcome.logs is not None:
            self._tell_logs(outcome.logs.get("stdout", ""), outcome.logs.get("stderr", ""))
        callback = not self.lease.callback.is_zero
        sealed = SealedResult(
            file=None if callback else RESULT_FILE,
            size=outcome.result_size,
            result_digest=outcome.result_digest,
            enclave_challenge=outcome.enclave_challenge,
            enclave_signature=outcome.enclave_signature,
            authorization=outcome.authorization,
            results_callback=outcome.results_callback,
        )
        self._put(advance(self._entry, Step.SEALED, sealed=sealed))

    def _run_enclave(self) -> RelayOutcome:
        services = _Services(self._platform, self.lease, self._folder, self._patience, self._heard)
        task = RelayTask(
            task_id=self.lease.task_id,
            worker=self._platform.worker,
            chain_id=self.lease.chain_id,
            hub=self.lease.hub,
            sms=self._patience().retry(self._platform.sms.identity),
            app_location=self.lease.app.multiaddr,
            app_checksum=self.lease.app.checksum,
            deadline=int(time.time() + self._seconds_left()),
            dataset_location=None if self.lease.dataset is None else self.lease.dataset.multiaddr,
            input_files=parse_params(self.lease.params, allow_unknown=True).iexec_input_files,
            max_result_bytes=self._platform.settings.max_result,
        )
        process = self._platform.enclaves.take()
        return run_relay(process, task, services, aborted=self._is_unwanted)

    def _upload(self) -> None:
        """Store the sealed result where the requester will fetch it, before the chain says that it is there."""
        sealed = self._sealed()
        self._status = ReplicateStatus.RESULT_UPLOADING
        if sealed.file is None:
            results = build_results_location("ethereum", str(self.lease.callback))
        else:
            path = self._folder / sealed.file
            stored = self._patience().retry(lambda: self._platform.store.put(_pieces(path)))
            results = build_results_location("ipfs", f"/ipfs/{stored.cid}")
        self._status = ReplicateStatus.RESULT_UPLOADED
        self._put(advance(self._entry, Step.UPLOADED, results=results.decode()))

    def _contribute(self) -> None:
        """Send the contribution; it is mined when this returns, or was by somebody's earlier try of ours."""
        alone = self.lease.trust <= 1
        self._status = ReplicateStatus.CONTRIBUTE_AND_FINALIZE_ONGOING if alone else ReplicateStatus.CONTRIBUTING
        transaction: Bytes32 | None = None
        while True:
            intent = f"contribute:{self.lease.task_id}:{self._sealed().result_digest}:{self._entry.attempt}"
            send = partial(self._platform.sender.send, self._contribution(alone=alone), intent=intent)
            try:
                transaction = self._patience().retry(send).transaction
                break
            except CalledOff:
                raise
            except (TransactionReverted, Conflict) as error:
                if self._stands_already():
                    break
                self._after_refusal(error, alone=alone)
        step = Step.REPORTING if alone else Step.CONTRIBUTED
        status = ReplicateStatus.CONTRIBUTE_AND_FINALIZE_DONE if alone else ReplicateStatus.CONTRIBUTED
        self._status = status
        outcome = self._success(status, transaction) if alone else None
        self._put(advance(self._entry, step, transaction=transaction, outcome=outcome))

    def _contribution(self, *, alone: bool) -> Call:
        hub, lease, sealed = self._platform.hub, self.lease, self._sealed()
        if alone:
            return hub.contribute_and_finalize(
                ContributionAndResult(
                    lease.task_id,
                    sealed.result_digest,
                    self._entry.results.encode(),
                    sealed.results_callback,
                    sealed.enclave_challenge,
                    sealed.enclave_signature,
                    sealed.authorization,
                )
            )
        return hub.contribute(
            lease.task_id,
            result_hash(lease.task_id, sealed.result_digest),
            result_seal(self._platform.worker, lease.task_id, sealed.result_digest),
            sealed.enclave_challenge,
            sealed.enclave_signature,
            sealed.authorization,
        )

    def _after_refusal(self, error: CloisterError, *, alone: bool) -> None:
        """Try again while the task is open and the tries last; else give the task back."""
        task = self._patience().retry(lambda: self._platform.hub.task(self.lease.task_id, block="latest"))
        failed = ReplicateStatus.CONTRIBUTE_AND_FINALIZE_FAILED if alone else ReplicateStatus.CONTRIBUTE_FAILED
        if task is not None and task.status is not TaskStatus.ACTIVE:
            raise TaskFailed(ReplicateStatus.ABORTED, "TASK_ENDED", f"the task is {task.status.name}") from error
        if self._entry.attempt >= self._platform.settings.contribution_retries:
            raise TaskFailed(failed, "CONTRIBUTION_REFUSED", error.message) from error
        self._put(replace(self._entry, attempt=self._entry.attempt + 1))
        if not self._patience().pause(self._entry.attempt):
            raise TaskFailed(failed, "CONTRIBUTION_TIMEOUT", error.message) from error

    def _stands_already(self) -> bool:
        """Whether the chain has our contribution: a try whose answer was lost."""
        contribution = self._patience().retry(
            lambda: self._platform.hub.contribution(self.lease.task_id, self._platform.worker, block="latest")
        )
        return contribution.status in (ContributionStatus.CONTRIBUTED, ContributionStatus.PROVED)

    def _reveal(self) -> None:
        """Wait for the consensus; reveal when it is ours."""
        mine = result_hash(self.lease.task_id, self._sealed().result_digest)
        while True:
            task = self._patience(final=True).retry(lambda: self._platform.hub.task(self.lease.task_id, block="latest"))
            if task is not None and self._is_over(task, mine):
                self._put(advance(self._entry, Step.REPORTING, outcome=self._success(ReplicateStatus.COMPLETED, None)))
                return
            if task is not None and task.status is TaskStatus.REVEALING:
                break
            if self._call_off().wait(self._platform.settings.chain_poll):
                raise CalledOff("the worker stops")
        self._status = ReplicateStatus.REVEALING
        call = self._platform.hub.reveal(self.lease.task_id, self._sealed().result_digest)
        try:
            receipt = self._patience(final=True).retry(
                lambda: self._platform.sender.send(call, intent=f"reveal:{self.lease.task_id}:{self._entry.attempt}")
            )
        except TransactionReverted as error:
            contribution = self._platform.hub.contribution(self.lease.task_id, self._platform.worker, block="latest")
            if contribution.status is not ContributionStatus.PROVED:
                raise TaskFailed(ReplicateStatus.REVEAL_FAILED, "REVEAL_REFUSED", error.message) from error
            transaction = self._entry.transaction
        else:
            transaction = receipt.transaction
        self._status = ReplicateStatus.REVEALED
        self._put(advance(self._entry, Step.REVEALED, outcome=self._success(ReplicateStatus.REVEALED, transaction)))

    def _is_over(self, task: Task, mine: Bytes32) -> bool:
        """Whether nothing is left to reveal: the task ended, or another result won."""
        if task.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
            return True
        return task.status is TaskStatus.REVEALING and task.consensus_value != mine

    def _report(self) -> None:
        document = self._entry.outcome or {}
        outcome = Outcome(
            status=ReplicateStatus(document["status"]),
            cause=document.get("cause"),
            message=document.get("message"),
            transaction=Bytes32(document["transaction"]) if document.get("transaction") else None,
            result_digest=Bytes32(document["result_digest"]) if document.get("result_digest") else None,
            results=document.get("results"),
            results_callback=bytes.fromhex(document.get("results_callback", "0x")[2:]),
        )
        self._tell_outcome(outcome)
        self._forget()

    def _end(self, outcome: Outcome) -> None:
        """Give the lease back."""
        try:
            self._put(replace(self._entry, step=Step.REPORTING, outcome=outcome.to_json()))
            self._tell_outcome(outcome)
        except CalledOff:
            return
        self._forget()

    def _tell_outcome(self, outcome: Outcome) -> None:
        try:
            self._patience(final=True).retry(lambda: self._platform.scheduler.report(self.lease.lease_id, outcome))
        except (NotFound, Conflict) as error:
            if isinstance(error, CalledOff):
                raise
            log.info("task %s: the scheduler no longer knows the lease: %s", self.lease.task_id, error.message)
        except UnavailableError as error:
            log.warning("task %s: the scheduler was not told: %s", self.lease.task_id, error.message)

    def _tell_logs(self, stdout: str, stderr: str) -> None:
        try:
            self._patience().retry(
                lambda: self._platform.scheduler.give_logs(self.lease.lease_id, stdout=stdout, stderr=stderr)
            )
        except CalledOff:
            raise
        except CloisterError as error:  # logs are a courtesy: the result must not wait for them
            log.warning("task %s: logs were not kept: %s", self.lease.task_id, error.message)

    def _give_back(self) -> None:
        """Free the task for other workers at a stop; when nobody hears it, the journal keeps it for our next start."""
        outcome = Outcome(ReplicateStatus.ABORTED, cause="WORKER_STOPPED", message="the worker was told to stop")
        try:
            self._platform.scheduler.report(self.lease.lease_id, outcome)
        except CloisterError as error:
            log.info("task %s: not given back: %s", self.lease.task_id, error.message)
            return
        self._forget()

    def abandon(self) -> None:
        """Give the lease back after errors that did not pass."""
        self._end(Outcome(ReplicateStatus.FAILED, cause="WORKER_FAILED", message="the worker could not go on"))

    # --- life signs, time, journal ---

    def _beat(self, end: threading.Event) -> None:
        expires_at = float(self.lease.expires_at)
        while not end.wait(min(MAX_BEAT, max(0.5, (expires_at - time.time()) / 3))):
            if self._entry.step is Step.REPORTING:
                continue
            sealed = self._entry.sealed
            try:
                beat = self._platform.scheduler.beat(
                    self.lease.lease_id,
                    self._status,
                    results=self._entry.results or None,
                    results_callback=b"" if sealed is None else sealed.results_callback,
                )
            except (NotFound, Conflict):
                self._aborted.set()  # another worker has it
            except CloisterError as error:
                log.info("task %s: no heartbeat: %s", self.lease.task_id, error.message)
            else:
                expires_at = float(beat.expires_at)
                if beat.abort:
                    self._aborted.set()

    def _is_unwanted(self) -> bool:
        return self._off.is_set() or self._aborted.is_set()

    def _check_off(self) -> None:
        if self._off.is_set():
            raise CalledOff("the worker stops")
        if self._aborted.is_set():
            raise TaskFailed(ReplicateStatus.ABORTED, "ABORTED_BY_SCHEDULER", "the scheduler called the task off")

    def _heard(self, status: str) -> None:
        if status in ReplicateStatus.__members__:
            self._status = ReplicateStatus[status]

    def _seconds_left(self, *, final: bool = False) -> float:
        """Wall seconds until the contribution (or final) deadline; the chain's clock and ours differ by little."""
        limit = self.lease.final_deadline if final else self.lease.contribution_deadline
        return max(0.0, limit - time.time())

    def _patience(self, *, final: bool = False) -> Patience:
        settings = self._platform.settings
        until = time.monotonic() + self._seconds_left(final=final)
        return Patience(settings.retry_seconds, settings.retry_cap, until, self._call_off())

    def _call_off(self) -> threading.Event:
        """What ends waiting: before there is a result the wish to stop, after that only the end of the grace."""
        return self._off if self._entry.step is Step.LEASED else self._halt

    def _sealed(self) -> SealedResult:
        if self._entry.sealed is None:
            raise TaskFailed(ReplicateStatus.FAILED, "JOURNAL_DAMAGED", "the journal lost the sealed result")
        return self._entry.sealed

    def _success(self, status: ReplicateStatus, transaction: Bytes32 | None) -> dict[str, object]:
        sealed = self._sealed()
        return Outcome(
            status=status,
            transaction=transaction or self._entry.transaction,
            result_digest=sealed.result_digest,
            results=self._entry.results,
            results_callback=sealed.results_callback,
        ).to_json()

    def _put(self, entry: Entry) -> None:
        self._platform.journal.put(entry)
        self._entry = entry

    def _forget(self) -> None:
        self._platform.journal.drop(self.lease.lease_id)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Services:
    """Answers an agent's questions (``relay.RelayServices``). What is unavailable is asked again while there is time."""

    def __init__(
        self,
        platform: Platform,
        lease: Lease,
        folder: Path,
        patience: Callable[[], Patience],
        heard: Callable[[str], None],
    ) -> None:
        self._platform = platform
        self._lease = lease
        self._folder = folder
        self._patience = patience
        self._heard = heard

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        """Get a nonce from the SMS."""
        return self._patience().retry(lambda: self._platform.sms.nonce(task_id))

    def session(self, request: SessionRequest) -> SessionAnswer:
        """Wait for the task to be active (its first transaction runs beside us), then open the session."""
        authorization = self._patience().retry(
            lambda: self._platform.scheduler.authorize(self._lease.lease_id, request.enclave_challenge)
        )
        self._patience().retry(self._check_active)
        call = SessionCall(
            request=request,
            scheduler_authorization=authorization,
            match_transaction=self._lease.match_transaction,
            dataset_order=self._dataset_order(),
        )
        return self._patience().retry(lambda: self._platform.sms.open_session(call))

    def _check_active(self) -> None:
        deadline = time.monotonic() + 5.0
        while True:
            task = self._platform.hub.task(self._lease.task_id, block="latest")
            if task is not None:
                return
            if time.monotonic() > deadline:
                raise UnavailableError("the task is not initialized yet")
            time.sleep(ACTIVE_POLL)

    def _dataset_order(self) -> DatasetOrder | None:
        if self._lease.dataset_order is None:
            return None
        order = parse_order(OrderKind.DATASET, self._lease.dataset_order)
        return order if isinstance(order, DatasetOrder) else None

    def fetch(self, location: str, purpose: str, max_bytes: int) -> Iterator[bytes]:
        """Fetch; after an interruption go on behind the bytes that were handed over. The agent proves the whole."""
        passed, turn = 0, 0
        while True:
            try:
                for chunk in _behind(self._platform.fetcher.fetch(location, purpose, max_bytes), passed):
                    passed += len(chunk)
                    yield chunk
            except UnavailableError:
                if not self._patience().pause(turn):
                    raise
                turn += 1
            else:
                return

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        """Write the sealed result to disk, durably."""
        path = self._folder / RESULT_FILE
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def report(self, status: str) -> None:
        """Hear how far the agent is."""
        self._heard(status)


def _behind(chunks: Iterator[bytes], passed: int) -> Iterator[bytes]:
    for chunk in chunks:
        if passed >= len(chunk):
            passed -= len(chunk)
            continue
        yield chunk[passed:] if passed else chunk
        passed = 0


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _failure_status(cause: str) -> ReplicateStatus:
    """The replicate status that goes with a cause."""
    if cause.startswith("APP_IMAGE"):
        return ReplicateStatus.APP_DOWNLOAD_FAILED
    if cause.startswith("PRE_COMPUTE"):
        return ReplicateStatus.DATA_DOWNLOAD_FAILED
    if cause == "ENCLAVE_ABORTED":
        return ReplicateStatus.ABORTED
    return ReplicateStatus.COMPUTE_FAILED
