"""The session with the SMS, from the enclave's side: keys, evidence, request, release."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from cloister.attestation.evidence import Evidence
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.enclave.attesters.attester import Attester
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.host import HostChannel, HostRefused
from cloister.enclave.memory import LockedBuffer
from cloister.errors import CloisterError, DecodeError, UnavailableError, VerificationError
from cloister.protocol.codec import Address, Bytes32, canonical_json, check_keys, parse_json, parse_uint
from cloister.protocol.releases import Release, parse_release
from cloister.protocol.sessions import (
    CALL_CAP,
    SessionAnswer,
    SessionEvidence,
    SessionRequest,
    parse_nonce_grant,
    parse_session_answer,
    verify_session_answer,
)
from cloister.protocol.signatures import PrivateKey
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey


@dataclass(frozen=True, slots=True)
class TaskHint:
    """What the host says the task is. The enclave attests to it; the SMS and the release say whether it is so."""

    task_id: Bytes32
    worker: Address
    chain_id: int
    hub: Address
    sms: Address
    app_location: str
    app_digest: Bytes32
    network: bool = False
    """Whether the host carries an iApp's connections."""


def parse_task_hint(header: object) -> TaskHint:
    """Read the host's ``task`` frame.

    Raises:
        DecodeError: a missing, unknown or malformed member.
    """
    keys = ("task_id", "worker", "chain_id", "hub", "sms", "app")
    given = check_keys("task", header, required=keys, optional=("network",))
    app = check_keys("app", given["app"], required=("multiaddr", "checksum"))
    location = app["multiaddr"]
    if not isinstance(location, str) or not 0 < len(location) <= 4096:
        raise DecodeError("the app's multiaddr is not a text of at most 4096 characters")
    return TaskHint(
        task_id=Bytes32(str(given["task_id"])),
        worker=Address(str(given["worker"])),
        chain_id=parse_uint("chain_id", given["chain_id"]),
        hub=Address(str(given["hub"])),
        sms=Address(str(given["sms"])),
        app_location=location,
        app_digest=Bytes32(str(app["checksum"])),
        network=given.get("network") is True,
    )


class EnclaveKeys:
    """The two keys that are born here and die here: one signs for the chain, one opens the release.

    Their 32 bytes each lie in locked memory from birth to ``wipe`` (``enclave.memory`` says what that covers).
    """

    __slots__ = ("_memory", "challenge", "hpke")

    def __init__(self) -> None:
        """Raises ConfigurationError when the kernel gives no memory for keys."""
        self._memory = LockedBuffer(64)
        self._memory.fill_random()
        self.challenge = PrivateKey.at(self._memory.view[:32])
        self.hpke = HpkePrivateKey.at(self._memory.view[32:])

    def wipe(self) -> None:
        """Overwrite both; neither works afterwards. May be called again."""
        self.challenge.wipe()
        self.hpke.wipe()
        self._memory.clear()

    def __repr__(self) -> str:
        return f"EnclaveKeys({self.challenge.address})"


@dataclass(frozen=True, slots=True)
class Session:
    """A release that the attested SMS made for this enclave, and the evidence it was made for. ``authorization`` is the SMS's
    word for worker, task and challenge key.
    """

    release: Release
    binding: ReportBinding
    evidence: Evidence
    opened_at: int
    authorization: bytes


def open_session(
    host: HostChannel, hint: TaskHint, keys: EnclaveKeys, attester: Attester, purposes: tuple[str, ...]
) -> Session:
    """Attest and be given the release.

    Raises:
        TaskError: the SMS refuses or cannot be reached, or the answer is not its own.
    """
    try:
        answer = host.ask("nonce", {"task_id": hint.task_id})
        nonce = parse_nonce_grant(dict(answer.header)).nonce
        now = int(time.time())
        binding = ReportBinding(
            chain_id=hint.chain_id,
            hub=hint.hub.raw,
            sms=hint.sms.raw,
            task_id=hint.task_id.raw,
            nonce=nonce.raw,
            app_digest=hint.app_digest.raw,
            challenge=keys.challenge.address.raw,
            hpke_key_hash=hashlib.sha256(keys.hpke.public.raw).digest(),
        )
        evidence = attester.attest(build_report_data(binding), now=now)
        request = SessionRequest(
            task_id=hint.task_id,
            worker=hint.worker,
            nonce=nonce,
            enclave_challenge=keys.challenge.address,
            hpke_public_key=keys.hpke.public.raw,
            app_digest=hint.app_digest,
            evidence=SessionEvidence(evidence.kind.value, evidence.payload),
            purposes=purposes,
        ).signed_by(keys.challenge)
        given = host.ask("session", body=canonical_json(request.to_json()))
        session = parse_session_answer(parse_json(given.body, cap=CALL_CAP))
        release = _open_release(session, request, hint, keys)
    except HostRefused as error:
        # A service that is down may answer the next enclave; one that refused will not.
        down = error.code == UnavailableError.code
        cause = Cause.TEE_SESSION_GENERATION_FAILED if down else Cause.TEE_SESSION_REFUSED
        raise TaskError(cause, error.message) from error
    except CloisterError as error:
        raise TaskError(Cause.TEE_SESSION_GENERATION_FAILED, error.message) from error
    return Session(release, binding, evidence, now, session.authorization)


def _open_release(answer: SessionAnswer, request: SessionRequest, hint: TaskHint, keys: EnclaveKeys) -> Release:
    """Prove that the attested SMS answered this very request, open it, and hold it against what was attested."""
    verify_session_answer(answer, request, hint.sms)
    release = parse_release(envelope.open(keys.hpke, answer.sealed, request.context()))
    attested = (
        ("task", release.task_id, hint.task_id),
        ("chain", release.chain_id, hint.chain_id),
        ("hub", release.hub, hint.hub),
        ("worker", release.worker, hint.worker),
        ("app", release.app.checksum, hint.app_digest),
    )
    for name, released, expected in attested:
        if released != expected:
            raise VerificationError(f"the release is for another {name} than was attested", code="release-mismatch")
    return release
