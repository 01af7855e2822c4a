"""The scheduler's HTTP API: what a worker signs and sends, and what a requester reads.

Every call of a worker is signed (:mod:`cloister.protocol.authentication`, audience ``scheduler:<chain id>:<hub>``).
Logs are for
the task's requester, who logs in by signing a typed challenge (reference 3.6).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from cloister.errors import DecodeError, UnavailableError, quoted
from cloister.protocol.authentication import NONCE_LENGTH, audience, sign_request
from cloister.protocol.authorization import SCHEDULER_CHALLENGE, build_challenge_header, challenge_digest
from cloister.protocol.codec import Address, Bytes32, build_base64, canonical_json, parse_base64, parse_hex, to_hex
from cloister.protocol.progress import UPDATE_CAP
from cloister.protocol.sessions import FINAL_REFUSALS
from cloister.transport import Http

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cloister.protocol.signatures import PrivateKey

LOG_CHARACTERS = 100_000
"""How much of each stream a scheduler keeps: the last so many characters (reference 3.6)."""

WAIT_CAP = 20
"""Longest wait of one long poll, in seconds."""

_TIMEOUT = 15.0
_PROGRESS_TIMEOUT = 5.0
_RESPONSE_CAP = 16 * 1024 * 1024


class ReplicateStatus(StrEnum):
    """How far one worker is with one task (reference 3.6)."""

    CREATED = "CREATED"
    STARTING = "STARTING"
    START_FAILED = "START_FAILED"
    STARTED = "STARTED"
    APP_DOWNLOADING = "APP_DOWNLOADING"
    APP_DOWNLOAD_FAILED = "APP_DOWNLOAD_FAILED"
    APP_DOWNLOADED = "APP_DOWNLOADED"
    DATA_DOWNLOADING = "DATA_DOWNLOADING"
    DATA_DOWNLOAD_FAILED = "DATA_DOWNLOAD_FAILED"
    DATA_DOWNLOADED = "DATA_DOWNLOADED"
    COMPUTING = "COMPUTING"
    COMPUTE_FAILED = "COMPUTE_FAILED"
    COMPUTED = "COMPUTED"
    CONTRIBUTING = "CONTRIBUTING"
    CONTRIBUTE_FAILED = "CONTRIBUTE_FAILED"
    CONTRIBUTED = "CONTRIBUTED"
    REVEALING = "REVEALING"
    REVEAL_FAILED = "REVEAL_FAILED"
    REVEALED = "REVEALED"
    RESULT_UPLOAD_REQUESTED = "RESULT_UPLOAD_REQUESTED"
    RESULT_UPLOADING = "RESULT_UPLOADING"
    RESULT_UPLOAD_FAILED = "RESULT_UPLOAD_FAILED"
    RESULT_UPLOADED = "RESULT_UPLOADED"
    CONTRIBUTE_AND_FINALIZE_ONGOING = "CONTRIBUTE_AND_FINALIZE_ONGOING"
    CONTRIBUTE_AND_FINALIZE_FAILED = "CONTRIBUTE_AND_FINALIZE_FAILED"
    CONTRIBUTE_AND_FINALIZE_DONE = "CONTRIBUTE_AND_FINALIZE_DONE"
    COMPLETING = "COMPLETING"
    COMPLETE_FAILED = "COMPLETE_FAILED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    RECOVERING = "RECOVERING"
    WORKER_LOST = "WORKER_LOST"


FAILURES = frozenset(status for status in ReplicateStatus if status.endswith("_FAILED")) | {
    ReplicateStatus.FAILED,
    ReplicateStatus.ABORTED,
}
"""Outcomes that give a lease back."""

SUCCESSES = frozenset(
    {
        ReplicateStatus.CONTRIBUTE_AND_FINALIZE_DONE,
        ReplicateStatus.REVEALED,
        ReplicateStatus.COMPLETED,
        ReplicateStatus.CONTRIBUTED,
    }
)
"""Outcomes that say the chain has what the worker owed."""


WORKER_STOPPED = "WORKER_STOPPED"
"""Cause of an outcome that gives a lease back because its worker was told to stop."""
APP_UNREACHABLE = "app-unreachable"
"""Refusal of a worker: the app's location is no content id and no public web address."""
APP_REFUSED = "app-refused"
"""Refusal of a worker: the app's content is not a bundle, or not the one of its checksum."""
DATA_UNREADABLE = "data-unreadable"
"""Refusal of a worker: the published ciphertext does not open with the key that the SMS has."""
REFUSAL_CAP = 64
"""Longest code of a refusal, in characters."""
FINAL_CODES = FINAL_REFUSALS | {APP_UNREACHABLE, APP_REFUSED, DATA_UNREADABLE}
"""Codes of refusals that every other try of a task would meet too."""


@dataclass(frozen=True, slots=True)
class ContentReference:
    """An app or a dataset: its entry, where its content is, and the checksum the chain holds."""

    address: Address
    multiaddr: str
    checksum: Bytes32


@dataclass(frozen=True, slots=True)
class Lease:
    """One task, given to one worker until ``expires_at``. Times are unix seconds; deadlines are those of the chain."""

    lease_id: str
    task_id: Bytes32
    deal_id: Bytes32
    index: int
    chain_id: int
    hub: Address
    workerpool: Address
    trust: int
    start_time: int
    contribution_deadline: int
    final_deadline: int
    category_seconds: int
    app: ContentReference
    dataset: ContentReference | None
    params: str
    callback: Address
    match_transaction: Bytes32
    dataset_order: Mapping[str, Any] | None
    expires_at: int

    def to_json(self) -> dict[str, Any]:
        """The wire form; ``parse_lease`` reads it back."""
        plain: dict[str, Any] = asdict(self)
        return plain


@dataclass(frozen=True, slots=True)
class Beat:
    """A scheduler's answer to a heartbeat: how long the lease lasts, and whether to stop."""

    expires_at: int
    abort: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """A status that a worker passed through, and when: unix seconds of its clock."""

    status: ReplicateStatus
    at: float


STAGES_CAP = 64
"""Most stages of one outcome."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a lease ended, in the worker's words. ``results`` is what ``finalize`` will carry; ``results_callback``
    likewise. ``exit_code`` is the app's, where the enclave lets it be known. ``refusal`` is the code with which the SMS or
    the worker's own rules refused the task; one of ``FINAL_CODES`` says that no other try would fare better. ``stages`` are
    what the worker passed through since it took the lease, for a task may be done before a heartbeat tells of it.
    """

    status: ReplicateStatus
    cause: str | None = None
    message: str | None = None
    transaction: Bytes32 | None = None
    result_digest: Bytes32 | None = None
    results: str | None = None
    results_callback: bytes = b""
    exit_code: int | None = None
    refusal: str | None = None
    stages: tuple[Stage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The wire form: absent values are left out."""
        body: dict[str, Any] = {"status": str(self.status)}
        if self.exit_code is not None:
            body["exit_code"] = self.exit_code
        if self.stages:
            body["stages"] = [{"status": str(stage.status), "at": stage.at} for stage in self.stages[-STAGES_CAP:]]
        for name in ("cause", "message", "transaction", "result_digest", "results", "refusal"):
            value = getattr(self, name)
            if value is not None:
                body[name] = str(value)
        if self.results_callback:
            body["results_callback"] = to_hex(self.results_callback)
        return body


@dataclass(frozen=True, slots=True)
class StatusChange:
    """One line of a history."""

    status: str
    date: str
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Replicate:
    """One worker's tries at a task."""

    worker: Address
    status: str
    exit_code: int | None
    history: tuple[StatusChange, ...]


@dataclass(frozen=True, slots=True)
class TaskView:
    """What the public may know of a task."""

    task_id: Bytes32
    status: str
    history: tuple[StatusChange, ...]
    replicates: tuple[Replicate, ...] = ()

    @property
    def cause(self) -> str | None:
        """The last cause anybody gave for a failure."""
        lines = [line for replicate in self.replicates for line in replicate.history] + list(self.history)
        return next((line.cause for line in reversed(lines) if line.cause), None)


@dataclass(frozen=True, slots=True)
class ProgressEntry:
    """One update of an app's progress as the scheduler keeps it; ``protocol.progress`` opens and proves ``update``.

    ``entry`` grows with each; ``at`` is unix seconds of the scheduler's clock.
    """

    entry: int
    number: int
    at: float
    update: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TaskLogs:
    """The last characters of an app's streams on one worker."""

    worker: Address
    stdout: str
    stderr: str


def _member(document: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    value = document.get(name)
    wanted = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
        raise DecodeError(f"scheduler answered {name} = {quoted(value)}", hint="is this a scheduler of this network?")
    return value


def _parse_reference(document: Mapping[str, Any]) -> ContentReference:
    return ContentReference(
        address=Address(_member(document, "address", str)),
        multiaddr=_member(document, "multiaddr", str),
        checksum=Bytes32(_member(document, "checksum", str)),
    )


def parse_lease(document: object) -> Lease:
    """Read a lease. Raises DecodeError naming the member that does not fit."""
    if not isinstance(document, dict):
        raise DecodeError(f"a lease must be an object, not {quoted(document)}")
    dataset = _member(document, "dataset", (dict, type(None)))
    return Lease(
        lease_id=_member(document, "lease_id", str),
        task_id=Bytes32(_member(document, "task_id", str)),
        deal_id=Bytes32(_member(document, "deal_id", str)),
        index=_member(document, "index", int),
        chain_id=_member(document, "chain_id", int),
        hub=Address(_member(document, "hub", str)),
        workerpool=Address(_member(document, "workerpool", str)),
        trust=_member(document, "trust", int),
        start_time=_member(document, "start_time", int),
        contribution_deadline=_member(document, "contribution_deadline", int),
        final_deadline=_member(document, "final_deadline", int),
        category_seconds=_member(document, "category_seconds", int),
        app=_parse_reference(_member(document, "app", dict)),
        dataset=None if dataset is None else _parse_reference(dataset),
        params=_member(document, "params", str),
        callback=Address(_member(document, "callback", str)),
        match_transaction=Bytes32(_member(document, "match_transaction", str)),
        dataset_order=_member(document, "dataset_order", (dict, type(None))),
        expires_at=_member(document, "expires_at", int),
    )


class WorkerCalls:
    """The calls of one worker, each signed with its key. Thread-safe as far as ``http`` is."""

    def __init__(
        self, http: Http, key: PrivateKey, *, chain_id: int, hub: Address, clock: Callable[[], float] = time.time
    ) -> None:
        self._http = http
        self._key = key
        self._audience = audience("scheduler", chain_id, hub)
        self._clock = clock

    def take_leases(
        self, workerpool: Address, *, capacity: int, wait_seconds: int, holding: Iterable[str] = ()
    ) -> tuple[Lease, ...]:
        """Ask for at most ``capacity`` tasks, waiting up to ``wait_seconds`` for one.

        ``holding`` names the leases the worker knows of; others that the scheduler believes it has are given to it
        again, so
        that an answer lost on the way costs nothing.
        """
        body = {
            "workerpool": str(workerpool),
            "capacity": capacity,
            "wait_seconds": min(wait_seconds, WAIT_CAP),
            "holding": list(holding),
        }
        answer = self._post("/scheduler/v1/leases", body, timeout=_TIMEOUT + wait_seconds, attempts=1)
        return tuple(parse_lease(item) for item in _member(answer, "leases", list))

    def beat(
        self,
        lease_id: str,
        status: ReplicateStatus,
        *,
        detail: str | None = None,
        results: str | None = None,
        results_callback: bytes = b"",
    ) -> Beat:
        """Say that the lease is alive and how far it is."""
        body: dict[str, Any] = {"status": str(status)}
        if detail is not None:
            body["detail"] = detail
        if results is not None:
            body["results"] = results
        if results_callback:
            body["results_callback"] = to_hex(results_callback)
        answer = self._post(f"/scheduler/v1/leases/{lease_id}/heartbeat", body)
        return Beat(expires_at=_member(answer, "expires_at", int), abort=_member(answer, "abort", bool))

    def authorize(self, lease_id: str, enclave_challenge: Address) -> bytes:
        """The pool owner's signature over worker, task and enclave challenge (65 bytes)."""
        answer = self._post(
            f"/scheduler/v1/leases/{lease_id}/authorization", {"enclave_challenge": str(enclave_challenge)}
        )
        return parse_hex(_member(answer, "signature", str), length=65)

    def give_logs(self, lease_id: str, *, stdout: str, stderr: str, exit_code: int | None = None) -> None:
        """Hand in the app's streams for the requester; only the last characters are kept. The app's exit code is for
        everybody to see.
        """
        body: dict[str, Any] = {"stdout": stdout[-LOG_CHARACTERS:], "stderr": stderr[-LOG_CHARACTERS:]}
        if exit_code is not None:
            body["exit_code"] = exit_code
        self._post(f"/scheduler/v1/leases/{lease_id}/logs", body)

    def give_progress(self, lease_id: str, number: int, update: bytes) -> None:
        """Hand in one update of the app's progress (``protocol.progress``), once: a newer one says more."""
        body = {"number": number, "update": build_base64(update)}
        path = f"/scheduler/v1/leases/{lease_id}/progress"
        self._post(path, body, timeout=_PROGRESS_TIMEOUT, attempts=1)

    def report(self, lease_id: str, outcome: Outcome) -> None:
        """Say how the lease ended. Saying it twice changes nothing."""
        self._post(f"/scheduler/v1/leases/{lease_id}/outcome", outcome.to_json())

    def _post(
        self, path: str, body: Mapping[str, Any], *, timeout: float | None = None, attempts: int = 3
    ) -> Mapping[str, Any]:
        """Sign and send. Every call may be repeated without harm, each under a new signature."""
        while True:
            attempts -= 1
            try:
                answer = self._http.json("POST", path, body=body, headers=self._headers(path, body), timeout=timeout)
            except UnavailableError:
                # Most often a connection that the server closed while it was idle.
                if not attempts:
                    raise
            else:
                return _document(answer)

    def _headers(self, path: str, body: Mapping[str, Any]) -> dict[str, str]:
        header = sign_request(
            self._key,
            audience=self._audience,
            method="POST",
            target=path,
            body=canonical_json(body),
            issued_at=int(self._clock()),
            nonce=secrets.token_bytes(NONCE_LENGTH),
        )
        return {"authorization": header}


class Signer(Protocol):
    """Whoever signs a login: a private key, or a wallet that holds one."""

    @property
    def address(self) -> Address:
        """The address that the signature recovers to."""
        ...

    def sign_digest(self, digest: bytes, /) -> bytes:
        """Sign 32 bytes as they are; returns 65 bytes."""
        ...


class SchedulerClient:
    """The scheduler's public side: a task's state for everybody, its logs for its requester. Thread-safe."""

    def __init__(self, url: str, *, chain_id: int, hub: Address) -> None:
        self._http = Http(url, timeout=_TIMEOUT, max_response=_RESPONSE_CAP)
        self._chain_id = chain_id
        self._hub = hub

    def worker(self, key: PrivateKey) -> WorkerCalls:
        """The same scheduler's calls for a worker, signed with its key."""
        return WorkerCalls(self._http, key, chain_id=self._chain_id, hub=self._hub)

    def task(self, task_id: Bytes32) -> TaskView:
        """What the scheduler says of a task.

        Raises:
            NotFound: not a task of this scheduler.
            UnavailableError: it does not answer.
        """
        answer = _document(self._http.json("GET", f"/tasks/{task_id}"))
        return TaskView(
            task_id=task_id,
            status=_member(answer, "currentStatus", str),
            history=_parse_history(_member(answer, "dateStatusList", list)),
            replicates=tuple(_parse_replicate(item) for item in _member(answer, "replicates", list)),
        )

    def progress(self, task_id: Bytes32, *, after: int = 0) -> tuple[ProgressEntry, ...]:
        """The newest updates of the app's progress behind entry ``after``, oldest first. Nothing in them is proven.

        Raises:
            NotFound: not a task of this scheduler.
        """
        path = f"/scheduler/v1/tasks/{task_id}/progress"
        answer = _document(self._http.json("GET", path, query={"after": str(after)}))
        entries = (_document(entry) for entry in _member(answer, "progress", list))
        return tuple(
            ProgressEntry(
                entry=_member(entry, "entry", int),
                number=_member(entry, "number", int),
                at=_member(entry, "at", (int, float)),
                update=parse_base64("update", entry.get("update"), cap=UPDATE_CAP),
            )
            for entry in entries
        )

    def logs(self, task_id: Bytes32, signer: Signer) -> tuple[TaskLogs, ...]:
        """The app's streams on each worker; ``signer`` must be the task's requester.

        Raises:
            NotFound: no such task, or no logs yet.
            Denied: the signer is not the requester.
        """
        query = {"chainId": str(self._chain_id), "address": str(signer.address)}
        challenge = _document(self._http.json("GET", "/tasks/logs/challenge", query=query))
        text = _member(_member(challenge, "message", dict), "challenge", str)
        # Only the text is taken from the answer: a scheduler that sent other typed data gets no signature over it.
        digest = challenge_digest(SCHEDULER_CHALLENGE, self._chain_id, text)
        header = build_challenge_header(digest, signer.sign_digest(digest), signer.address)
        answer = _document(self._http.json("GET", f"/tasks/{task_id}/logs", headers={"Authorization": header}))
        entries = (_document(entry) for entry in _member(answer, "computeLogsList", list))
        return tuple(
            TaskLogs(
                worker=Address(_member(entry, "walletAddress", str)),
                stdout=_member(entry, "stdout", str),
                stderr=_member(entry, "stderr", str),
            )
            for entry in entries
        )


def _document(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DecodeError(f"scheduler answered {quoted(value)}, expected an object")
    return value


def _parse_history(lines: list[object]) -> tuple[StatusChange, ...]:
    return tuple(
        StatusChange(
            status=_member(line, "status", str),
            date=_member(line, "date", str),
            cause=_member(line, "cause", (str, type(None))),
        )
        for line in map(_document, lines)
    )


def _parse_replicate(value: object) -> Replicate:
    replicate = _document(value)
    return Replicate(
        worker=Address(_member(replicate, "walletAddress", str)),
        status=_member(replicate, "currentStatus", str),
        exit_code=_member(replicate, "appExitCode", (int, type(None))),
        history=_parse_history(_member(replicate, "statusUpdateList", list)),
    )
