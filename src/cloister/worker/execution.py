"""One task on one worker, from lease to report. Every step is in the journal before the next begins.

``LEASED`` run the enclave; ``SEALED`` upload; ``UPLOADED`` contribute; ``CONTRIBUTED`` reveal (trust over 1);
``REPORTING`` tell the scheduler. A worker that was killed takes up each task at its step: what was computed is never
computed again, what was contributed is never contributed again.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from cloister.chain.contracts import Call, Hub
from cloister.chain.rpc import TransactionReverted
from cloister.chain.sender import TransactionSender
from cloister.clients.scheduler import (
    STAGES_CAP,
    Lease,
    Outcome,
    ReplicateStatus,
    Stage,
    WorkerCalls,
)
from cloister.clients.sms import SmsClient
from cloister.errors import CloisterError, Conflict, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.params import parse_params
from cloister.protocol.results import build_results_location, result_hash
from cloister.protocol.tasks import Contribution, ContributionStatus, Task, TaskStatus
from cloister.storage.content import ContentStore
from cloister.worker.addresses import Addresses
from cloister.worker.clock import ChainClock
from cloister.worker.connecting import Connector
from cloister.worker.contribution import build_contribution
from cloister.worker.enclaves import Enclaves
from cloister.worker.failures import TRANSIENT, TaskFailed, cause_of, failure_status
from cloister.worker.fetching import ContentFetcher
from cloister.worker.heartbeat import Heartbeat, Sign
from cloister.worker.hosting import RESULT_FILE, HostServices, make_folder
from cloister.worker.journal import Entry, Journal, SealedResult, Step, advance
from cloister.worker.patience import CalledOff, Patience
from cloister.worker.relay import EnclaveFailed, RelayOutcome, RelayTask, run_relay
from cloister.worker.reporting import ReportLine, parse_outcome
from cloister.worker.settings import WorkerSettings

log = logging.getLogger("cloister.worker")

LOGS_SECONDS = 2.0
PIECE = 1 << 20
CHAIN_POLL_CAP = 2.0


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


class Execution:
    """Carries one journal entry to its end, in one thread; ``stop`` and ``halt`` come from another."""

    def __init__(self, platform: Platform, entry: Entry, clock: ChainClock) -> None:
        self._platform = platform
        self._entry = entry
        self._clock = clock
        self._off = threading.Event()  # nobody wants a result that is not made yet
        self._halt = threading.Event()  # stop at once
        self._aborted = False
        self._stages: list[Stage] = []
        self._status = ReplicateStatus.STARTED
        self._folder = platform.settings.state_folder / "tasks" / entry.lease.lease_id
        self._line = ReportLine(platform.scheduler, entry.lease, self._folder)

    @property
    def lease(self) -> Lease:
        """The lease."""
        return self._entry.lease

    @property
    def _status(self) -> ReplicateStatus:
        """How far the task is, in the protocol's words; every new one is remembered with its time."""
        return self._stages[-1].status

    @_status.setter
    def _status(self, status: ReplicateStatus) -> None:
        if not self._stages or (self._stages[-1].status is not status and len(self._stages) < STAGES_CAP):
            self._stages.append(Stage(status, time.time()))

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is left to do but to wait for others. Such a task must not keep the worker from working:
        workers that wait for each other with all their slots taken would wait until the deadlines.
        """
        return self._entry.step in (Step.CONTRIBUTED, Step.REVEALED, Step.REPORTING)

    def stop(self) -> None:
        """End the enclave and give the task back, but let a result that is made reach the chain."""
        self._off.set()

    def halt(self) -> None:
        """Come to an end wherever it stands; the journal has the rest."""
        self._off.set()
        self._halt.set()

    def run(self) -> None:
        """Go on from where the journal stands. Returns when the task is done, given back, or called off."""
        with Heartbeat(self._platform.scheduler, self.lease, self._clock, sign=self._sign, abort=self._abort):
            try:
                self._persist()
            except CalledOff:
                log.info("task %s: stopped at step %s", self.lease.task_id, self._entry.step)

    def _persist(self) -> None:
        """Carry on through errors that may pass; what is made is given up only when its time is over."""
        turn = 0
        while True:
            try:
                self._carry()
            except CalledOff:
                self._called_off()
                return
            except TaskFailed as failure:
                log.warning("task %s: %s: %s", self.lease.task_id, failure.cause, failure.message)
                self._end(
                    Outcome(failure.status, cause=failure.cause, message=failure.message[:500], refusal=failure.refusal)
                )
                return
            except CloisterError as error:
                log.warning("task %s: try %s waits after: %s", self.lease.task_id, turn + 1, error.message)
                if self._gives_up(error, turn):
                    return
            except Exception as error:
                log.exception("task %s: try %s waits after an error of our own", self.lease.task_id, turn + 1)
                if self._gives_up(error, turn):
                    return
            else:
                return
            settings = self._platform.settings
            if self._call_off().wait(min(settings.retry_cap, settings.retry_seconds * 2 ** min(turn, 20))):
                self._called_off()
                return
            turn += 1

    def _gives_up(self, error: Exception, turn: int) -> bool:
        """Give the task back when an error did not pass. True when that was done."""
        if turn < self._platform.settings.platform_retries or not self._is_hopeless(error):
            return False
        message = error.message if isinstance(error, CloisterError) else "the worker could not go on"
        self._end(Outcome(ReplicateStatus.FAILED, cause="WORKER_FAILED", message=message[:500]))
        return True

    def _is_hopeless(self, error: Exception) -> bool:
        """Whether to give up. A full disk or a chain that is away costs a made result nothing but time."""
        made = self._entry.step is not Step.LEASED
        return not (made and isinstance(error, UnavailableError)) or self._seconds_left(final=True) <= 0

    def _called_off(self) -> None:
        log.info("task %s: called off at step %s", self.lease.task_id, self._entry.step)
        if self._entry.step is not Step.LEASED or self._halt.is_set():
            return
        if self._aborted:
            self._end(Outcome(ReplicateStatus.ABORTED, cause="ABORTED_BY_SCHEDULER", message="the task was called off"))
        else:
            self._give_back()

    def _carry(self) -> None:
        while True:
            match self._entry.step:
                case Step.LEASED:
                    self._compute()
                case Step.SEALED:
                    self._upload()
                case Step.UPLOADED:
                    self._contribute()
                case Step.CONTRIBUTED:
                    self._reveal()
                case Step.REVEALED | Step.REPORTING:
                    self._report()
                    return

    # --- the steps ---

    def _compute(self) -> None:
        """Run the enclave until a sealed result is on disk."""
        make_folder(self._folder)
        turn = 0
        while True:
            try:
                outcome = self._run_enclave()
                break
            except EnclaveFailed as failure:
                if self._off.is_set():
                    raise CalledOff("the task was called off") from failure
                if failure.cause not in TRANSIENT or turn >= self._platform.settings.platform_retries:
                    status = failure_status(failure.cause)
                    raise TaskFailed(status, failure.cause, failure.message, refusal=failure.refusal) from failure
                log.warning("task %s: the enclave failed (%s); trying again", self.lease.task_id, failure.message)
            except CalledOff:
                raise
            except UnavailableError as error:
                if turn >= self._platform.settings.platform_retries:
                    raise TaskFailed(ReplicateStatus.START_FAILED, cause_of(error), error.message) from error
            except CloisterError as error:
                raise TaskFailed(ReplicateStatus.COMPUTE_FAILED, cause_of(error), error.message) from error
            self._patience().pause(turn)
            turn += 1
        self._status = ReplicateStatus.COMPUTED
        if outcome.logs is not None:
            self._line.keep_logs(outcome.logs)
        callback = not self.lease.callback.is_zero
        sealed = SealedResult(
            file=None if callback else RESULT_FILE,
            size=outcome.result_size,
            result_digest=outcome.result_digest,
            enclave_challenge=outcome.enclave_challenge,
            enclave_signature=outcome.enclave_signature,
            authorization=outcome.authorization,
            results_callback=outcome.results_callback,
            cause=outcome.cause,
        )
        self._put(advance(self._entry, Step.SEALED, sealed=sealed))

    def _run_enclave(self) -> RelayOutcome:
        platform, lease = self._platform, self.lease
        params = parse_params(lease.params, allow_unknown=True)
        services = HostServices(
            lease=lease,
            folder=self._folder,
            scheduler=platform.scheduler,
            sms=platform.sms,
            hub=platform.hub,
            fetcher=platform.fetcher,
            connector=Connector(Addresses(platform.settings.networks), platform.settings.connect_to),
            patience=self._patience,
            heard=self._heard,
        )
        task = RelayTask(
            task_id=lease.task_id,
            worker=platform.worker,
            chain_id=lease.chain_id,
            hub=lease.hub,
            sms=self._patience().retry(platform.sms.identity),
            app_location=lease.app.multiaddr,
            app_checksum=lease.app.checksum,
            deadline=lease.contribution_deadline,
            dataset_location=None if lease.dataset is None else lease.dataset.multiaddr,
            input_files=params.iexec_input_files,
            max_result_bytes=platform.settings.max_result,
            bulk=params.bulk_cid is not None,
            network=platform.settings.app_network,
        )
        process = platform.enclaves.take()
        with closing(services):
            return run_relay(process, task, services, aborted=self._off.is_set, clock=self._clock.now)

    def _upload(self) -> None:
        """Store the sealed result where the requester will fetch it, before the chain says that it is there."""
        sealed = self._sealed()
        self._status = ReplicateStatus.RESULT_UPLOADING
        # Whoever sees the result may ask for the logs; but a scheduler that hangs must not hold the result up.
        logs = threading.Thread(target=self._line.tell_logs, name=f"logs-{self.lease.lease_id[:8]}", daemon=True)
        logs.start()
        logs.join(timeout=LOGS_SECONDS)
        if sealed.file is None:
            results = build_results_location("ethereum", str(self.lease.callback))
        else:
            path = self._folder / sealed.file
            if not path.is_file():
                raise TaskFailed(ReplicateStatus.RESULT_UPLOAD_FAILED, "RESULT_LOST", "the sealed result is gone")
            try:
                stored = self._patience().retry(lambda: self._platform.store.put(_pieces(path)))
            except (CalledOff, UnavailableError):
                raise
            except CloisterError as error:
                raise TaskFailed(ReplicateStatus.RESULT_UPLOAD_FAILED, cause_of(error), error.message) from error
            results = build_results_location("ipfs", f"/ipfs/{stored.cid}")
        self._status = ReplicateStatus.RESULT_UPLOADED
        self._put(advance(self._entry, Step.UPLOADED, results=results.decode()))

    def _contribute(self) -> None:
        """Send the contribution; it is mined when this returns, or was by somebody's earlier try of ours."""
        alone = self.lease.trust <= 1
        self._status = ReplicateStatus.CONTRIBUTE_AND_FINALIZE_ONGOING if alone else ReplicateStatus.CONTRIBUTING
        call = build_contribution(
            self._platform.hub, self.lease, self._platform.worker, self._sealed(), self._entry.results, alone=alone
        )
        transaction: Bytes32 | None = None
        poor = 0
        while True:
            intent = f"contribute:{self.lease.task_id}:{self._sealed().result_digest}:{self._entry.attempt}"
            try:
                transaction = self._send(call, intent)
                break
            except CalledOff:
                raise
            except (TransactionReverted, Conflict) as error:
                if self._stands_already():
                    break
                if error.code == "insufficient-funds" and self._patience().pause(poor):
                    log.warning("worker %s cannot pay for gas: fund it", self._platform.worker)
                    poor += 1
                    continue
                self._after_refusal(error, alone=alone)
        step = Step.REPORTING if alone else Step.CONTRIBUTED
        status = ReplicateStatus.CONTRIBUTE_AND_FINALIZE_DONE if alone else ReplicateStatus.CONTRIBUTED
        self._status = status
        outcome = self._success(status, transaction) if alone else None
        self._put(advance(self._entry, step, transaction=transaction, outcome=outcome))

    def _send(self, call: Call, intent: str, *, final: bool = False) -> Bytes32:
        """Send a transaction and wait until it is mined."""
        patience = self._patience(final=final)
        return patience.retry(lambda: self._platform.sender.send(call, intent=intent, timeout=30.0)).transaction

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
        contribution = self._patience().retry(self._own_contribution)
        return contribution.status in (ContributionStatus.CONTRIBUTED, ContributionStatus.PROVED)

    def _own_contribution(self) -> Contribution:
        return self._platform.hub.contribution(self.lease.task_id, self._platform.worker, block="latest")

    def _reveal(self) -> None:
        """Wait for the consensus; reveal when it is ours. Another's may still be reopened, so that ours wins later."""
        pause, refusals = self._platform.settings.chain_poll, 0
        while True:
            task, own = self._patience(final=True).retry(self._look)
            if own.status is ContributionStatus.PROVED:
                outcome = self._success(ReplicateStatus.REVEALED, self._entry.transaction)
                self._put(advance(self._entry, Step.REVEALED, outcome=outcome))
                return
            if own.status is ContributionStatus.UNSET and (task is None or task.status is TaskStatus.ACTIVE):
                # The chain went back. The intent is the same, so the sender brings the same transaction again.
                log.info("task %s: the chain lost the contribution", self.lease.task_id)
                self._put(replace(self._entry, step=Step.UPLOADED))
                return
            self._check_hope(task, own)
            if task is not None and self._may_reveal(task):
                try:
                    self._status = ReplicateStatus.REVEALING
                    call = self._platform.hub.reveal(self.lease.task_id, self._sealed().result_digest)
                    intent = f"reveal:{self.lease.task_id}:{self._entry.attempt}:{refusals}"
                    self._send(call, intent, final=True)
                    continue
                except CalledOff:
                    raise
                except (TransactionReverted, Conflict) as error:
                    refusals += error.code != "insufficient-funds"
                    if refusals > self._platform.settings.contribution_retries:
                        raise TaskFailed(ReplicateStatus.REVEAL_FAILED, "REVEAL_REFUSED", error.message) from error
            if self._call_off().wait(pause):
                raise CalledOff("the worker stops")
            pause = min(CHAIN_POLL_CAP, pause * 1.2)

    def _look(self) -> tuple[Task | None, Contribution]:
        return self._platform.hub.task(self.lease.task_id, block="latest"), self._own_contribution()

    def _may_reveal(self, task: Task) -> bool:
        mine = result_hash(self.lease.task_id, self._sealed().result_digest)
        in_time = self._clock.now() < task.reveal_deadline
        return task.status is TaskStatus.REVEALING and task.consensus_value == mine and in_time

    def _check_hope(self, task: Task | None, own: Contribution) -> None:
        """Raise TaskFailed when the contribution can no longer count."""
        if own.status is ContributionStatus.REJECTED:
            raise TaskFailed(ReplicateStatus.REVEAL_FAILED, "CONTRIBUTION_REJECTED", "the task went on without ours")
        if task is not None and task.status is TaskStatus.COMPLETED:
            raise TaskFailed(ReplicateStatus.ABORTED, "ANOTHER_RESULT_WON", "the task completed without our reveal")
        if task is not None and task.status is TaskStatus.FAILED:
            raise TaskFailed(ReplicateStatus.ABORTED, "TASK_ENDED", "the task was claimed")
        if self._seconds_left(final=True) <= 0:
            raise TaskFailed(ReplicateStatus.ABORTED, "FINAL_DEADLINE_REACHED", "no consensus came in time")

    def _report(self) -> None:
        outcome = parse_outcome(self._entry.outcome or {})
        self._tell(outcome)

    def _end(self, outcome: Outcome) -> None:
        """Give the lease back."""
        self._put(replace(self._entry, step=Step.REPORTING, outcome=outcome.to_json()))
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        """The last that is done for a lease."""
        self._line.tell(replace(outcome, stages=tuple(self._stages)), self._patience(final=True))
        self._line.tell_logs()
        self._forget()

    def _give_back(self) -> None:
        """Free the task for other workers at a stop; when nobody hears it, the journal keeps it for our next start."""
        if self._line.give_back():
            self._forget()

    # --- life signs, time, journal ---

    def _sign(self) -> Sign | None:
        if self._entry.step is Step.REPORTING:
            return None
        sealed = self._entry.sealed
        callback = b"" if sealed is None else sealed.results_callback
        return Sign(self._status, self._entry.results or None, callback)

    def _abort(self) -> None:
        """What is not computed yet is not wanted; what is made goes on, because the chain decides what counts."""
        if self._entry.step is Step.LEASED and not self._off.is_set():
            self._aborted = True
            self._off.set()

    def _heard(self, status: str) -> None:
        if status in ReplicateStatus.__members__:
            self._status = ReplicateStatus[status]

    def _seconds_left(self, *, final: bool = False) -> float:
        """Seconds until the contribution (or final) deadline, by the chain's clock."""
        limit = self.lease.final_deadline if final else self.lease.contribution_deadline
        return max(0.0, limit - self._clock.now())

    def _patience(self, *, final: bool = False) -> Patience:
        """How long to try one thing. Before there is a result an outage must not hold the lease: others may do better."""
        settings = self._platform.settings
        seconds = self._seconds_left(final=final)
        if self._entry.step is Step.LEASED:
            seconds = min(seconds, settings.outage_seconds)
        return Patience(settings.retry_seconds, settings.retry_cap, time.monotonic() + seconds, self._call_off())

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
            cause=sealed.cause,
            transaction=transaction or self._entry.transaction,
            result_digest=sealed.result_digest,
            results=self._entry.results,
            results_callback=sealed.results_callback,
        ).to_json()

    def _put(self, entry: Entry) -> None:
        """Write the journal. A full disk is waited for: the result that was just made is worth it."""
        try:
            self._platform.journal.put(entry)
        except UnavailableError:
            settings = self._platform.settings
            until = time.monotonic() + self._seconds_left(final=True)
            patience = Patience(settings.retry_seconds, settings.retry_cap, until, self._halt)
            patience.retry(lambda: self._platform.journal.put(entry))
        self._entry = entry

    def _forget(self) -> None:
        self._platform.journal.drop(self.lease.lease_id)
        shutil.rmtree(self._folder, ignore_errors=True)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
