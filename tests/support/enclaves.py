"""An enclave of paper: obeys the runtime's interface and the channel's rules, runs no app and proves nothing."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloister.protocol.channel import Frame, FrameParser, build_frame
from cloister.protocol.codec import Address, Bytes32, canonical_json, keccak256, parse_word, to_hex
from cloister.protocol.countersigning import CountersignRequest
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionCall, SessionEvidence, SessionRequest
from cloister.protocol.signatures import PrivateKey
from cloister.worker.runtimes.runtime import EnclaveSpec

RESULT = b"sealed result"


class PaperProcess:
    """An agent in a thread. The result's digest depends on the task and ``word`` alone, so that replicas agree."""

    def __init__(self, spec: EnclaveSpec, moment: Callable[[str], None], word: bytes = b"") -> None:
        self._word = word
        self.channel, self._own = socket.socketpair()
        self._spec = spec
        self._moment = moment
        self._parser = FrameParser()
        self._waiting: list[Frame] = []
        self._thread = threading.Thread(target=self._run, name="paper-enclave", daemon=True)
        self._thread.start()

    @property
    def spec(self) -> EnclaveSpec:
        return self._spec

    def wait(self, timeout: float | None = None) -> int | None:
        self._thread.join(timeout)
        return None if self._thread.is_alive() else 0

    def start_problem(self) -> str:
        return ""

    def kill(self) -> None:
        for end in (self.channel, self._own):
            end.close()

    def _run(self) -> None:
        try:
            self._work()
        except OSError:
            pass  # killed
        finally:
            self._own.close()

    def _work(self) -> None:
        self._send("ready", {"version": 1})
        self._receive("platform")
        task = self._receive("task").header
        task_id, worker = parse_word("task_id", task["task_id"]), Address(task["worker"])
        self._moment("started")
        self._send("nonce")
        nonce = parse_word("nonce", self._receive("nonce").header["nonce"])
        key = PrivateKey(secrets.token_bytes(32))
        request = SessionRequest(
            task_id=task_id,
            worker=worker,
            nonce=nonce,
            enclave_challenge=key.address,
            hpke_public_key=b"paper",
            app_digest=parse_word("checksum", task["app"]["checksum"]),
            evidence=SessionEvidence("paper", b"none"),
        ).signed_by(key)
        self._send("session", body=canonical_json(request.to_json()))
        answer = self._receive("session", "error")
        if answer.kind == "error":
            self._send("report", {"cause": "TEE_SESSION_REFUSED", "message": str(answer.header["message"])})
            return
        self._moment("session")
        self._send("logs", body=canonical_json({"stdout": "hello", "stderr": ""}))
        self._send("result", {"size": len(RESULT), "sha256": to_hex(hashlib.sha256(RESULT).digest())})
        self._send("chunk", body=RESULT)
        self._send("end")
        digest = Bytes32.from_raw(keccak256(b"result of " + task_id.raw + self._word))
        message = enclave_message(result_hash(task_id, digest), result_seal(worker, task_id, digest))
        done = {
            "result_digest": digest,
            "enclave_challenge": key.address,
            "enclave_signature": to_hex(key.sign_message(message)),
            "results_callback": "0x",
        }
        self._send("done", done)

    def _send(self, kind: str, header: dict[str, Any] | None = None, body: bytes = b"") -> None:
        self._own.sendall(build_frame(Frame(kind, header or {}, body)))

    def _receive(self, *kinds: str) -> Frame:
        while not self._waiting:
            data = self._own.recv(1 << 16)
            if not data:
                raise OSError("the host is gone")
            self._waiting += self._parser.feed(data)
        frame = self._waiting.pop(0)
        if frame.kind not in kinds:
            raise OSError(f"expected {' or '.join(kinds)}, heard {frame.kind} {frame.header}")
        return frame


@dataclass
class PaperRuntime:
    """Starts paper enclaves. ``moment`` is called at ``started`` and ``session``."""

    moment: Callable[[str], None] = field(default=lambda _: None)
    word: bytes = b""

    def launch(self, spec: EnclaveSpec) -> PaperProcess:
        return PaperProcess(spec, self.moment, self.word)


@dataclass(frozen=True)
class PaperSms:
    """Believes anything; its word is the scheduler's own authorization, as on a hub without a teebroker."""

    pool_owner: Address

    def identity(self) -> Address:
        return self.pool_owner

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        return NonceGrant(Bytes32.from_raw(secrets.token_bytes(32)), 2**33)

    def open_session(self, call: SessionCall) -> SessionAnswer:
        return SessionAnswer(b"paper", call.scheduler_authorization, self.pool_owner, bytes(65))

    def countersign(self, request: CountersignRequest) -> bytes:
        return b"paper"
