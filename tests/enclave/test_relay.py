"""The host's side against an agent that breaks the rules: a socket whose other end the test holds."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from cloister.clients.scheduler import APP_REFUSED, APP_UNREACHABLE, DATA_UNREADABLE
from cloister.errors import CloisterError, Denied, InputError, NotFound, PolicyRejected, UnavailableError
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.channel import Frame, FrameParser, build_frame
from cloister.protocol.codec import Address, Bytes32, canonical_json, to_hex
from cloister.protocol.countersigning import COUNTERSIGNATURE_CAP, CountersignRequest
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionEvidence, SessionRequest, release_digest
from cloister.protocol.signatures import PrivateKey
from cloister.worker.relay import EnclaveFailed, RelayOutcome, RelayTask, run_relay
from cloister.worker.runtimes.runtime import EnclaveSpec, Platform

TASK_ID = Bytes32("0x" + "a1" * 32)
WORKER = Address("0x" + "a2" * 20)
SMS = PrivateKey(b"\x05" * 32)
ENCLAVE = PrivateKey(b"\x06" * 32)
DIGEST = Bytes32("0x" + "a3" * 32)


class Process:
    """An enclave process that is only a socket."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.spec = EnclaveSpec(Platform("simulated", b"material"))
        self.killed = False

    def wait(self, timeout: float | None = None) -> int | None:
        return 1

    def start_problem(self) -> str:
        return "no room"

    def kill(self) -> None:
        self.killed = True
        self.channel.close()


@dataclass
class Services:
    """Answers that are right, unless told otherwise."""

    stored: bytes = b""
    reports: list[str] = field(default_factory=list)
    updates: list[tuple[int, bytes]] = field(default_factory=list)
    asked_digests: list[str] = field(default_factory=list)
    countersignature: bytes = b"signed by the sms"
    refuse: CloisterError | None = None
    chunk: bytes = b"content"
    refused_session: CloisterError | None = None
    refused_fetch: CloisterError | None = None

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        if self.refuse is not None:
            raise self.refuse
        return NonceGrant(Bytes32("0x" + "01" * 32), 2**40)

    def session(self, request: SessionRequest) -> SessionAnswer:
        if self.refused_session is not None:
            raise self.refused_session
        message = scheduler_authorization(WORKER, TASK_ID, request.enclave_challenge)
        proof = SMS.sign_message(release_digest(request.context(), b"sealed"))
        return SessionAnswer(b"sealed", SMS.sign_message(message), SMS.address, proof)

    def countersign(self, request: CountersignRequest) -> bytes:
        self.asked_digests.append(request.receipt_digest)
        return self.countersignature

    def fetch(
        self, location: str, purpose: str, max_bytes: int, *, seconds: float, ahead: tuple[str, ...]
    ) -> Iterator[bytes]:
        if self.refused_fetch is not None:
            raise self.refused_fetch
        return iter([self.chunk] * 3)

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        self.stored = b"".join(chunks)

    def progress(self, number: int, update: bytes) -> None:
        self.updates.append((number, update))

    def connect(self, host: str, port: int) -> socket.socket:
        raise NotFound(f"no {host}")

    def report(self, status: str) -> None:
        self.reports.append(status)


class Agent:
    """The agent's end of the channel."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._parser = FrameParser()
        self._frames: list[Frame] = []

    def send(self, kind: str, header: dict[str, object] | None = None, body: bytes = b"") -> None:
        self.connection.sendall(build_frame(Frame(kind, header or {}, body)))

    def take(self) -> Frame:
        while not self._frames:
            data = self.connection.recv(1 << 16)
            if not data:
                raise ConnectionError("the relay hung up")
            self._frames += self._parser.feed(data)
        return self._frames.pop(0)

    def begin(self) -> None:
        self.send("ready", {"version": 1, "measurement": "0x"})
        assert self.take().body == b"material"
        assert self.take().kind == "task"

    def open_session(self) -> Frame:
        request = SessionRequest(
            TASK_ID,
            WORKER,
            Bytes32("0x" + "01" * 32),
            ENCLAVE.address,
            b"key",
            Bytes32("0x" + "a4" * 32),
            SessionEvidence("simulated", b"x"),
        ).signed_by(ENCLAVE)
        self.send("session", body=canonical_json(request.to_json()))
        return self.take()

    def give_result(self, content: bytes = b"sealed result", *, size: int | None = None, sha256: bytes = b"") -> None:
        digest = sha256 or hashlib.sha256(content).digest()
        self.send("result", {"size": len(content) if size is None else size, "sha256": to_hex(digest)})
        self.send("chunk", body=content)
        self.send("end")

    def done(self, key: PrivateKey = ENCLAVE, digest: Bytes32 = DIGEST, **other: object) -> None:
        message = enclave_message(result_hash(TASK_ID, digest), result_seal(WORKER, TASK_ID, digest))
        header: dict[str, object] = {
            "result_digest": digest,
            "enclave_challenge": key.address,
            "enclave_signature": to_hex(key.sign_message(message)),
            "results_callback": "0x",
            "cause": None,
        }
        self.send("done", header | other)


def task(**other: object) -> RelayTask:
    values: dict[str, object] = {
        "task_id": TASK_ID,
        "worker": WORKER,
        "chain_id": 1,
        "hub": WORKER,
        "sms": SMS.address,
        "app_location": "/ipfs/app",
        "app_checksum": DIGEST,
        "deadline": int(time.time()) + 20,
        "dataset_location": "/ipfs/data",
        "input_files": ("https://example.org/a",),
    }
    return RelayTask(**(values | other))  # type: ignore[arg-type]


def relay(
    script: Callable[[Agent], None],
    services: Services | None = None,
    *,
    given: RelayTask | None = None,
    aborted: Callable[[], bool] = lambda: False,
) -> RelayOutcome:
    """Run the relay against ``script``."""
    ours, theirs = socket.socketpair()
    process = Process(ours)

    def play() -> None:
        try:
            script(Agent(theirs))
        except OSError:
            pass
        finally:
            theirs.close()

    thread = threading.Thread(target=play)
    thread.start()
    try:
        return run_relay(process, given or task(), services or Services(), aborted=aborted)
    finally:
        thread.join(10)
        assert process.killed
        assert not thread.is_alive()


def complete(agent: Agent) -> None:
    agent.begin()
    agent.send("nonce", {"task_id": TASK_ID})
    assert agent.take().kind == "nonce"
    assert agent.open_session().kind == "session"
    agent.send("report", {"status": "COMPUTED"})
    agent.give_result()
    agent.done()


def test_complete() -> None:
    services = Services()
    outcome = relay(complete, services)
    assert services.stored == b"sealed result"
    assert services.reports == ["COMPUTED"]
    assert outcome.result_digest == DIGEST
    assert outcome.enclave_challenge == ENCLAVE.address
    assert len(outcome.authorization) == 65


def test_updates_are_handed_on_in_their_order() -> None:
    services = Services()

    def script(agent: Agent) -> None:
        agent.begin()
        agent.open_session()
        send_progress(agent, 100)
        agent.give_result()
        agent.done()

    relay(script, services)
    assert services.updates == [(number, b"update") for number in range(1, 101)]


def ask(
    kind: str, header: dict[str, object] | None = None, body: bytes = b"", times: int = 1
) -> Callable[[Agent], None]:
    def script(agent: Agent) -> None:
        agent.begin()
        for _ in range(times):
            agent.send(kind, header, body)
        while True:
            agent.take()

    return script


def send_progress(agent: Agent, count: int) -> None:
    for number in range(1, count + 1):
        agent.send("progress", {"number": number}, b"update")


def with_session(*steps: Callable[[Agent], None]) -> Callable[[Agent], None]:
    def script(agent: Agent) -> None:
        agent.begin()
        agent.open_session()
        for step in steps:
            step(agent)

    return script


BROKEN: dict[str, Callable[[Agent], None]] = {
    "unknown frame": ask("exec", {"command": "sh"}),
    "two nonces": ask("nonce", times=2),
    "two logs": ask("logs", body=b'{"stdout":"","stderr":""}', times=2),
    "many reports": ask("report", {"status": "x"}, times=40),
    "logs that are no text": ask("logs", body=b'{"stdout":1,"stderr":""}'),
    "logs of another form": ask("logs", body=b"[]"),
    "progress without a session": ask("progress", {"number": 1}, b"update"),
    "progress out of turn": with_session(lambda agent: agent.send("progress", {"number": 2}, b"update")),
    "progress twice": with_session(*2 * [lambda agent: agent.send("progress", {"number": 1}, b"update")]),
    "progress without a number": with_session(lambda agent: agent.send("progress", {"number": True}, b"update")),
    "progress too long": with_session(lambda agent: agent.send("progress", {"number": 1}, bytes(4097))),
    "progress without end": with_session(lambda agent: send_progress(agent, 101)),
    "data of no tunnel": ask("tunnel", {"op": "data", "id": 1}, b"x"),
    "a tunnel to an address": ask("tunnel", {"op": "open", "id": 1, "host": "10.0.0.1", "port": 80}),
    "a tunnel of no operation": ask("tunnel", {"op": "listen", "id": 1}),
    "rubbish": lambda agent: agent.connection.sendall(os.urandom(64)),
    "header of 4 GiB": lambda agent: agent.connection.sendall(b"\xff" * 8),
    "another version": lambda agent: agent.send("ready", {"version": 9}),
    "no ready": lambda agent: agent.send("nonce"),
    "result without a session": lambda agent: (agent.begin(), agent.give_result()),  # type: ignore[dict-item,func-returns-value]
    "done without a result": with_session(lambda agent: agent.done()),
    "result shorter than it said": with_session(lambda agent: agent.give_result(size=99)),
    "result longer than it said": with_session(lambda agent: agent.give_result(size=3)),
    "result with another hash": with_session(lambda agent: agent.give_result(sha256=bytes(32))),
    "negative size": with_session(lambda agent: agent.give_result(size=-1)),
    "result over the cap": with_session(lambda agent: agent.give_result(size=1 << 40)),
    "two results": with_session(lambda agent: agent.give_result(), lambda agent: agent.give_result()),
    "done by another key": with_session(
        lambda agent: agent.give_result(), lambda agent: agent.done(PrivateKey(b"\x07" * 32))
    ),
    "signature over another digest": with_session(
        lambda agent: agent.give_result(), lambda agent: agent.done(result_digest=Bytes32("0x" + "ff" * 32))
    ),
    "signature cut": with_session(
        lambda agent: agent.give_result(), lambda agent: agent.done(enclave_signature="0x00")
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_rules_end_the_enclave(name: str) -> None:
    with pytest.raises(EnclaveFailed) as failure:
        relay(BROKEN[name])
    assert failure.value.cause == "ENCLAVE_CHANNEL_BROKEN"


def test_connections_are_carried_while_the_agent_goes_on() -> None:
    answers: list[Frame] = []

    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("tunnel", {"op": "open", "id": 1, "host": "a.example", "port": 443})
        answers.append(agent.take())
        # What comes too late is passed over.
        agent.send("tunnel", {"op": "data", "id": 1}, b"x")
        agent.send("nonce", {"task_id": TASK_ID})
        answers.append(agent.take())
        agent.open_session()
        agent.give_result()
        agent.done()

    assert relay(script).result_digest == DIGEST
    assert [answer.kind for answer in answers] == ["tunnel", "nonce"]
    assert answers[0].header == {"op": "close", "id": 1, "cause": "unknown-host"}


def test_an_operator_without_apps_network_carries_nothing() -> None:
    with pytest.raises(EnclaveFailed, match="tunnel, which is no question"):
        relay(ask("tunnel", {"op": "open", "id": 1, "host": "a.example", "port": 443}), given=task(network=False))


@pytest.mark.parametrize(
    ("location", "purpose"),
    [
        ("/ipfs/other", "app"),
        ("/ipfs/data", "app"),
        ("http://169.254.169.254/latest", "input"),
        ("file:///etc/passwd", "input"),
        ("/ipfs/app", "secret"),
        (7, "app"),
    ],
)
def test_what_the_task_does_not_name_is_not_fetched(location: object, purpose: str) -> None:
    answers: list[Frame] = []

    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("fetch", {"location": location, "purpose": purpose, "seconds": 60, "max_bytes": 100})
        answers.append(agent.take())

    with pytest.raises(EnclaveFailed):
        relay(script)
    assert [answer.kind for answer in answers] == ["error"]


@pytest.mark.parametrize(
    ("location", "ahead", "bulk", "answered"),
    [
        ("/ipfs/QmItem", b"", True, "chunk"),
        ("/ipfs/QmItem", b'["/ipfs/QmNext","https://example.org/x"]', True, "chunk"),
        ("/ipfs/QmItem", b"", False, "error"),
        ("/ipfs/data", b'["/ipfs/QmNext"]', False, "error"),
        ("/ipfs/" + "Q" * 5000, b"", True, "error"),
        ("/ipfs/QmItem", b'["' + b"Q" * 5000 + b'"]', True, "error"),
        ("/ipfs/QmItem", b"[" + b'"/ipfs/Qm",' * 16 + b'"/ipfs/Qm"]', True, "error"),
        ("/ipfs/QmItem", b'{"a": 1}', True, "error"),
        ("/ipfs/QmItem", b"[7]", True, "error"),
    ],
)
def test_locations_of_a_slice_are_the_enclaves_to_name(location: str, ahead: bytes, bulk: bool, answered: str) -> None:
    answers: list[str] = []

    def script(agent: Agent) -> None:
        agent.begin()
        header = {"location": location, "purpose": "dataset", "seconds": 60, "max_bytes": 100}
        agent.send("fetch", header, ahead)
        answers.append(agent.take().kind)

    with pytest.raises(EnclaveFailed):
        relay(script, given=task(bulk=bulk))
    assert answers == [answered]


def test_a_slice_is_fetched_a_hundred_times_at_most() -> None:
    answers: list[str] = []

    def script(agent: Agent) -> None:
        agent.begin()
        for number in range(101):
            header = {"location": f"/ipfs/{number}", "purpose": "dataset", "seconds": 60, "max_bytes": 100}
            agent.send("fetch", header)
            while (kind := agent.take().kind) == "chunk":
                pass
            answers.append(kind)

    with pytest.raises(EnclaveFailed):
        relay(script, given=task(bulk=True))
    assert answers == ["end"] * 100 + ["error"]


@pytest.mark.parametrize("seconds", [None, 0, -1, "60", True, 1.5])
def test_a_fetch_says_how_long_it_may_take(seconds: object) -> None:
    answers: list[str] = []

    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("fetch", {"location": "/ipfs/app", "purpose": "app", "seconds": seconds, "max_bytes": 100})
        answers.append(agent.take().kind)

    with pytest.raises(EnclaveFailed):
        relay(script)
    assert answers == ["error"]


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (PolicyRejected("the grant was revoked", code="order-closed"), "order-closed"),
        (PolicyRejected("not yet", code="not-yet-valid"), "not-yet-valid"),
        (UnavailableError("the chain is behind", code="chain-behind"), None),
        (PolicyRejected("long", code="x" * 500), "x" * 64),
    ],
)
def test_the_code_of_a_refused_session_is_kept(error: CloisterError, refusal: str | None) -> None:
    def script(agent: Agent) -> None:
        agent.begin()
        assert agent.open_session().kind == "error"
        agent.send("report", {"cause": "TEE_SESSION_REFUSED", "message": error.message})
        agent.take()

    with pytest.raises(EnclaveFailed, match=error.message) as failure:
        relay(script, Services(refused_session=error))
    assert (failure.value.cause, failure.value.refusal) == ("TEE_SESSION_REFUSED", refusal)


@pytest.mark.parametrize(
    ("error", "cause", "refusal"),
    [
        (InputError("docker.io/x is no location"), "APP_IMAGE_DOWNLOAD_FAILED", APP_UNREACHABLE),
        (Denied("inside", code="private-address"), "APP_IMAGE_DOWNLOAD_FAILED", APP_UNREACHABLE),
        (UnavailableError("away"), "APP_IMAGE_DOWNLOAD_FAILED", None),
        (NotFound("not there yet"), "APP_IMAGE_DOWNLOAD_FAILED", None),
        (None, "APP_IMAGE_REFUSED", APP_REFUSED),
        (None, "PRE_COMPUTE_DATASET_DECRYPTION_FAILED", DATA_UNREADABLE),
        (None, "PRE_COMPUTE_INVALID_DATASET_CHECKSUM", None),
    ],
)
def test_what_nobody_can_run_is_a_final_refusal(error: CloisterError | None, cause: str, refusal: str | None) -> None:
    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("fetch", {"location": "/ipfs/app", "purpose": "app", "seconds": 60, "max_bytes": 100})
        while agent.take().kind == "chunk":
            pass
        agent.send("report", {"cause": cause, "message": "why"})
        agent.take()

    with pytest.raises(EnclaveFailed) as failure:
        relay(script, Services(refused_fetch=error))
    assert failure.value.refusal == refusal


@pytest.mark.parametrize(
    ("body", "logs"),
    [
        (b'{"stdout":"a","stderr":"b","exit_code":3}', {"stdout": "a", "stderr": "b", "exit_code": 3}),
        (b'{"stdout":"a","stderr":"b"}', {"stdout": "a", "stderr": "b"}),
        (b'{"stdout":"a","stderr":"b","exit_code":"3"}', None),
        (b'{"stdout":"a","stderr":"b","exit_code":99999999999}', None),
        (b'{"stdout":"a","stderr":"b","more":1}', None),
        (b'{"stdout":"a"}', None),
    ],
)
def test_logs_are_streams_and_an_exit_code(body: bytes, logs: dict[str, object] | None) -> None:
    def script(agent: Agent) -> None:
        agent.begin()
        agent.open_session()
        agent.send("logs", body=body)
        agent.give_result()
        agent.done()

    if logs is None:
        with pytest.raises(EnclaveFailed):
            relay(script)
    else:
        assert relay(script).logs == logs


def test_fetched_content_is_capped() -> None:
    answers: list[Frame] = []

    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("fetch", {"location": "/ipfs/app", "purpose": "app", "seconds": 60, "max_bytes": 10})
        while not answers or answers[-1].kind == "chunk":
            answers.append(agent.take())

    with pytest.raises(EnclaveFailed):
        relay(script)
    assert answers[-1].kind == "error"
    assert sum(len(answer.body) for answer in answers) <= 10


def test_named_cause_of_the_agent() -> None:
    with pytest.raises(EnclaveFailed, match="no room") as failure:
        relay(ask("report", {"cause": "SANDBOX_FAILED", "message": "no room"}))
    assert failure.value.cause == "SANDBOX_FAILED"


def test_agent_that_dies_names_the_machines_words() -> None:
    with pytest.raises(EnclaveFailed, match="exit code 1") as failure:
        relay(lambda agent: agent.begin())
    assert failure.value.cause == "ENCLAVE_DIED"
    assert "no room" in failure.value.message


def test_silent_agent_is_ended_at_the_deadline() -> None:
    with pytest.raises(EnclaveFailed) as failure:
        relay(lambda agent: (agent.begin(), agent.take()), given=task(deadline=int(time.time()) + 2))  # type: ignore[arg-type,func-returns-value,return-value]
    assert failure.value.cause == "ENCLAVE_TIMEOUT"


def test_abort_is_heard_while_the_agent_is_silent() -> None:
    started = time.monotonic()
    with pytest.raises(EnclaveFailed) as failure:
        relay(
            lambda agent: (agent.begin(), agent.take()),  # type: ignore[arg-type,func-returns-value,return-value]
            aborted=lambda: time.monotonic() - started > 0.7,
        )
    assert failure.value.cause == "ENCLAVE_ABORTED"
    assert time.monotonic() - started < 10


def test_service_failure_is_told_to_the_agent() -> None:
    answers: list[Frame] = []

    def script(agent: Agent) -> None:
        agent.begin()
        agent.send("nonce")
        answers.append(agent.take())
        agent.send("report", {"cause": "TEE_SESSION_REFUSED", "message": "later"})

    with pytest.raises(EnclaveFailed) as failure:
        relay(script, Services(refuse=UnavailableError("the sms is down")))
    assert failure.value.cause == "TEE_SESSION_REFUSED"
    assert answers[0].kind == "error"
    assert answers[0].header["message"] == "the sms is down"


def test_session_that_names_another_task() -> None:
    answers: list[Frame] = []

    def script(agent: Agent) -> None:
        agent.begin()
        request = SessionRequest(
            DIGEST, WORKER, DIGEST, ENCLAVE.address, b"key", DIGEST, SessionEvidence("simulated", b"x")
        ).signed_by(ENCLAVE)
        agent.send("session", body=canonical_json(request.to_json()))
        answers.append(agent.take())

    with pytest.raises(EnclaveFailed):
        relay(script)
    assert answers[0].kind == "error"


RECEIPT_DIGEST = Bytes32("0x" + "5e" * 32)


@pytest.mark.parametrize(
    ("task_id", "challenge", "countersignature", "answered"),
    [
        (TASK_ID, ENCLAVE, b"signed by the sms", "countersign"),
        (DIGEST, ENCLAVE, b"", "error"),
        (TASK_ID, SMS, b"", "error"),
        (TASK_ID, ENCLAVE, bytes(COUNTERSIGNATURE_CAP + 1), "error"),
    ],
    ids=["its own receipt", "another task", "another enclave", "an answer over the cap"],
)
def test_a_receipt_is_sent_for_the_session_that_was_opened(
    task_id: Bytes32, challenge: PrivateKey, countersignature: bytes, answered: str
) -> None:
    services, heard = Services(countersignature=countersignature), []

    def script(agent: Agent) -> None:
        request = CountersignRequest(task_id, challenge.address, RECEIPT_DIGEST).signed_by(challenge)
        agent.send("countersign", request.to_json())
        heard.append(agent.take())
        agent.give_result()
        agent.done()

    relay(with_session(script), services)
    assert heard[0].kind == answered
    if answered == "countersign":
        assert heard[0].body == countersignature
        assert services.asked_digests == [RECEIPT_DIGEST]


def test_one_receipt_a_session() -> None:
    request = CountersignRequest(TASK_ID, ENCLAVE.address, RECEIPT_DIGEST).signed_by(ENCLAVE)

    def script(agent: Agent) -> None:
        for _ in range(2):
            agent.send("countersign", request.to_json())
            agent.take()

    with pytest.raises(EnclaveFailed, match="countersign more than 1 times"):
        relay(with_session(script))
