"""Carrying an agent's frames: the host's side of the channel (``enclave.host`` is the other).

The relay knows what one task may ask for and in which order, caps what goes either way, and gives up at the task's
deadline. It sees ciphertext, sizes and times; what it carries is proved by those who read it.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloister.clients.scheduler import APP_REFUSED, APP_UNREACHABLE, DATA_UNREADABLE, REFUSAL_CAP
from cloister.errors import (
    CloisterError,
    DecodeError,
    Denied,
    InputError,
    TooLarge,
    UnavailableError,
    VerificationError,
    quoted,
)
from cloister.protocol.authorization import scheduler_authorization, verify_personal_signature
from cloister.protocol.channel import Frame
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_address, parse_hex, parse_json, parse_word
from cloister.protocol.countersigning import COUNTERSIGNATURE_CAP, CountersignRequest, parse_countersign_request
from cloister.protocol.progress import UPDATE_CAP, UPDATES_CAP
from cloister.protocol.releases import BULK_CAP, MULTIADDR_CAP
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionRequest, parse_session_request
from cloister.worker.relay_channel import EnclaveFailed, Interrupted, RelayChannel
from cloister.worker.relay_frames import FetchQuestion, parse_fetch, parse_logs, parse_result
from cloister.worker.runtimes.runtime import EnclaveProcess
from cloister.worker.tunnels import HostTunnels

__all__ = ["EnclaveFailed", "RelayOutcome", "RelayServices", "RelayTask", "run_relay"]

CHANNEL_VERSION = 1
CHUNK = 1 << 20
MAX_RESULT = 256 << 20
MAX_INPUT_FILES = 100
_FINAL = {"APP_IMAGE_REFUSED": APP_REFUSED, "PRE_COMPUTE_DATASET_DECRYPTION_FAILED": DATA_UNREADABLE}
"""What an agent finds that no other agent would find otherwise."""
_READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class RelayTask:
    """What the host tells the agent, and what it lets the agent ask for. ``deadline`` is unix seconds."""

    task_id: Bytes32
    worker: Address
    chain_id: int
    hub: Address
    sms: Address
    app_location: str
    app_checksum: Bytes32
    deadline: int
    dataset_location: str | None = None
    input_files: tuple[str, ...] = ()
    max_result_bytes: int = MAX_RESULT
    bulk: bool = False
    """Whether it is of a bulk request: then only the enclave learns which datasets it is for."""
    network: bool = True
    """Whether connections of its app are carried."""

    def to_json(self) -> dict[str, object]:
        """The header of the ``task`` frame."""
        return {
            "task_id": self.task_id,
            "worker": self.worker,
            "chain_id": self.chain_id,
            "hub": self.hub,
            "sms": self.sms,
            "app": {"multiaddr": self.app_location, "checksum": self.app_checksum},
            "network": self.network,
        }


class RelayServices(Protocol):
    """What the relay hands on to. Every method may raise any error of our tree; its message goes to the agent."""

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        """Get a nonce from the SMS."""
        ...

    def session(self, request: SessionRequest) -> SessionAnswer:
        """Add the scheduler's authorization and what else the SMS wants beside the request, and open the session."""
        ...

    def countersign(self, request: CountersignRequest) -> bytes:
        """Have the SMS countersign the receipt with this digest."""
        ...

    def fetch(
        self, location: str, purpose: str, max_bytes: int, *, seconds: float, ahead: tuple[str, ...]
    ) -> Iterator[bytes]:
        """Fetch an app, a dataset or an input file (``purpose``) within ``max_bytes`` and ``seconds``. Locations in
        ``ahead`` will be asked for next.
        """
        ...

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        """Take the sealed result. Reading ``chunks`` raises when the agent breaks off; then nothing may be kept."""
        ...

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a host that the app names. Called from other threads; the caller closes what it is given."""
        ...

    def report(self, status: str) -> None:
        """Hear how far the agent is (``APP_DOWNLOADED``, ``DATA_DOWNLOADED``, ``COMPUTED``)."""
        ...

    def progress(self, number: int, update: bytes) -> None:
        """Take an update of the app's progress (``protocol.progress``) for the requester. Must neither wait nor raise."""
        ...


@dataclass(frozen=True, slots=True)
class RelayOutcome:
    """A task that was computed; its result was given to ``store_result``. Signatures in it are proved.

    ``authorization`` is the SMS's: the right to contribute with ``enclave_challenge``. ``cause`` names why the iApp
    failed (its ``error.txt`` is the result), None when it did not. ``logs``: stdout, stderr and exit_code where the host
    may read them.
    """

    result_digest: Bytes32
    enclave_challenge: Address
    enclave_signature: bytes
    results_callback: bytes
    authorization: bytes
    result_size: int
    result_sha256: bytes
    cause: str | None = None
    logs: Mapping[str, object] | None = field(default=None, repr=False)


def run_relay(
    process: EnclaveProcess,
    task: RelayTask,
    services: RelayServices,
    *,
    aborted: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> RelayOutcome:
    """Give ``task`` to a started agent and serve it to its end. The process is ended in any case.

    ``aborted`` is asked at least every half second while the agent is silent.

    Raises:
        EnclaveFailed: the agent said so, broke the channel's rules, was aborted or ran past the deadline.
        CloisterError: what ``store_result`` raised.
    """
    channel = RelayChannel(process, deadline=task.deadline, aborted=aborted, clock=clock)
    relay = _Relay(process, channel, task, services)
    try:
        return relay.run()
    except (DecodeError, VerificationError) as error:
        raise EnclaveFailed("ENCLAVE_CHANNEL_BROKEN", error.message) from error
    except OSError as error:
        raise EnclaveFailed("ENCLAVE_CHANNEL_BROKEN", f"the channel failed: {error.strerror}") from error
    finally:
        process.kill()
        relay.close()
        channel.close()


class _Relay:
    """The state of one conversation."""

    def __init__(
        self, process: EnclaveProcess, channel: RelayChannel, task: RelayTask, services: RelayServices
    ) -> None:
        self._process = process
        self._channel = channel
        self._task = task
        self._services = services
        self._tunnels = HostTunnels(services.connect, channel.pass_on)
        self._asked: dict[str, int] = {}
        self._challenge: Address | None = None
        self._authorization = b""
        self._refusal: str | None = None
        self._logs: Mapping[str, object] | None = None
        self._result: tuple[int, bytes] | None = None

    def run(self) -> RelayOutcome:
        ready = self._channel.receive(until=min(self._channel.now() + _READY_SECONDS, self._task.deadline))
        if ready.kind != "ready" or ready.header.get("version") != CHANNEL_VERSION:
            raise DecodeError(f"the agent began with {quoted(ready.kind)} of another version")
        platform = self._process.spec.platform
        self._channel.send("platform", {"platform": platform.kind}, platform.material)
        self._channel.send("task", self._task.to_json())
        while True:
            frame = self._channel.receive()
            if frame.kind == "done":
                return self._finish(frame)
            self._answer(frame)

    def close(self) -> None:
        """End the app's connections."""
        self._tunnels.close()

    def _answer(self, frame: Frame) -> None:
        match frame.kind:
            case "nonce":
                self._once("nonce")
                self._try(self._answer_nonce)
            case "session":
                self._once("session")
                self._try(lambda: self._answer_session(frame))
            case "countersign":
                self._once("countersign")
                self._try(lambda: self._answer_countersign(frame))
            case "fetch":
                self._try(lambda: self._answer_fetch(frame))
            case "tunnel" if self._task.network:
                self._tunnels.take(frame)
            case "report":
                self._hear_report(frame)
            case "progress":
                self._once("progress", UPDATES_CAP)
                self._hear_progress(frame)
            case "logs":
                self._once("logs")
                self._logs = parse_logs(frame.body)
            case "result":
                self._once("result")
                self._take_result(frame)
            case _:
                raise DecodeError(f"the agent sent {quoted(frame.kind)}, which is no question")

    def _once(self, kind: str, most: int = 1) -> None:
        self._asked[kind] = self._asked.get(kind, 0) + 1
        if self._asked[kind] > most:
            raise DecodeError(f"the agent asked for {kind} more than {most} times")

    def _try(self, answer: Callable[[], None]) -> None:
        """Answer, or say why not. The agent decides what that means and reports the cause."""
        try:
            answer()
        except (OSError, Interrupted):
            raise
        except CloisterError as error:
            self._channel.send("error", {"cause": error.code, "message": quoted(error.message)})

    def _answer_nonce(self) -> None:
        self._channel.send("nonce", self._services.nonce(self._task.task_id).to_json())

    def _answer_session(self, frame: Frame) -> None:
        request = parse_session_request(parse_json(frame.body))
        if request.task_id != self._task.task_id or request.worker != self._task.worker:
            raise DecodeError("the agent asks for a session of another task or worker")
        try:
            answer = self._services.session(request)
        except UnavailableError:
            raise
        except CloisterError as error:
            self._refusal = quoted(error.code)[:REFUSAL_CAP]
            raise
        message = scheduler_authorization(request.worker, request.task_id, request.enclave_challenge)
        verify_personal_signature(message, answer.authorization, answer.sms)
        self._challenge, self._authorization = request.enclave_challenge, answer.authorization
        self._channel.send("session", {}, canonical_json(answer.to_json()))

    def _answer_countersign(self, frame: Frame) -> None:
        request = parse_countersign_request(dict(frame.header))
        if request.task_id != self._task.task_id or request.enclave_challenge != self._challenge:
            raise DecodeError("the agent has a receipt of another session")
        countersignature = self._services.countersign(request)
        if len(countersignature) > COUNTERSIGNATURE_CAP:
            raise TooLarge(f"the countersignature is larger than {COUNTERSIGNATURE_CAP} bytes")
        self._channel.send("countersign", {}, countersignature)

    def _answer_fetch(self, frame: Frame) -> None:
        question = parse_fetch(frame)
        for named in (question.location, *question.ahead):
            self._check_location(named, question.purpose)
        self._once(f"fetch {question.purpose}", self._most_fetches(question.purpose))
        try:
            self._send_content(question)
        except (InputError, Denied):
            if question.purpose == "app":
                self._refusal = APP_UNREACHABLE
            raise

    def _send_content(self, question: FetchQuestion) -> None:
        size, most = 0, question.max_bytes
        content = self._services.fetch(
            question.location, question.purpose, most, seconds=float(question.seconds), ahead=question.ahead
        )
        for chunk in content:
            size += len(chunk)
            if size > most:
                raise TooLarge(f"{quoted(question.location)} is larger than {most} bytes")
            self._channel.check_time()
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK):
                self._channel.send("chunk", {}, bytes(view[start : start + CHUNK]))
        self._channel.send("end")

    def _check_location(self, location: str, purpose: str) -> None:
        task = self._task
        if purpose == "dataset" and task.bulk and len(location) <= MULTIADDR_CAP:
            return
        allowed = {"app": (task.app_location,), "dataset": (task.dataset_location,), "input": task.input_files}
        if location not in allowed.get(purpose, ()):
            raise DecodeError(f"the task does not name {quoted(location)} as {quoted(purpose)}")

    def _most_fetches(self, purpose: str) -> int:
        if purpose == "input":
            return MAX_INPUT_FILES
        return BULK_CAP if purpose == "dataset" and self._task.bulk else 1

    def _hear_report(self, frame: Frame) -> None:
        self._once("report", 16)
        cause = frame.header.get("cause")
        if cause is not None:
            message = quoted(frame.header.get("message", ""))
            raise EnclaveFailed(quoted(cause), message, refusal=_FINAL.get(str(cause), self._refusal))
        self._services.report(quoted(frame.header.get("status", "")))

    def _hear_progress(self, frame: Frame) -> None:
        number = frame.header.get("number")
        if self._challenge is None:
            raise DecodeError("the agent tells of progress without a session")
        if number != self._asked["progress"] or isinstance(number, bool) or len(frame.body) > UPDATE_CAP:
            raise DecodeError(f"the agent's progress {quoted(number)} is out of turn or too long")
        self._services.progress(self._asked["progress"], frame.body)

    def _take_result(self, frame: Frame) -> None:
        size, sha256 = parse_result(frame.header)
        if size > self._task.max_result_bytes:
            raise TooLarge(f"the result has {size} bytes; at most {self._task.max_result_bytes}")
        if self._challenge is None:
            raise DecodeError("the agent gives a result without a session")
        taken = self._pieces(size, sha256)
        self._services.store_result(taken, size)
        # A sink that did not want all of it leaves the rest in the channel.
        for _ in taken:
            pass
        self._result = (size, sha256)

    def _pieces(self, size: int, sha256: bytes) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), size
        while True:
            frame = self._channel.receive()
            if frame.kind == "end":
                break
            left -= len(frame.body)
            if frame.kind != "chunk" or left < 0:
                raise DecodeError("the agent's result is not the size that it said")
            digest.update(frame.body)
            yield frame.body
        if left or not hmac.compare_digest(digest.digest(), sha256):
            raise DecodeError("the agent's result is not what it said")

    def _finish(self, frame: Frame) -> RelayOutcome:
        if self._result is None or self._challenge is None:
            raise DecodeError("the agent is done without having given a result")
        header: Mapping[str, Any] = frame.header
        digest = parse_word("result_digest", header.get("result_digest"))
        challenge = parse_address("enclave_challenge", header.get("enclave_challenge"))
        if challenge != self._challenge:
            raise DecodeError("the agent signs with another key than it attested")
        signature = parse_hex(header.get("enclave_signature"), length=65)
        task = self._task
        message = enclave_message(result_hash(task.task_id, digest), result_seal(task.worker, task.task_id, digest))
        verify_personal_signature(message, signature, challenge)
        cause = header.get("cause")
        return RelayOutcome(
            result_digest=digest,
            enclave_challenge=challenge,
            enclave_signature=signature,
            results_callback=parse_hex(header.get("results_callback"), cap=32 << 10),
            authorization=self._authorization,
            result_size=self._result[0],
            result_sha256=self._result[1],
            cause=None if cause is None else quoted(cause),
            logs=self._logs,
        )
