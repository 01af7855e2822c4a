"""iExec's way to an enclave, as far as it leads here (reference 3.2): a challenge per task, and where its session is.

A scheduler of iExec's stack asks for a key pair per task and gives its worker a signature over the address; the worker
shows that signature and is told where to fetch its secrets. Both calls are answered with every check of the reference,
and with nothing that is secret: the challenge's key stays sealed, and the session's address is that of the attested
session (``/enclave/v1``), where keys are given against evidence alone. A session id opens nothing.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import CloisterError, DecodeError, Unauthenticated, VerificationError
from cloister.protocol.authorization import (
    scheduler_authorization,
    tee_challenge_authorization,
    verify_personal_signature,
)
from cloister.protocol.codec import Address, Bytes32, parse_hex, parse_json
from cloister.protocol.deals import Deal
from cloister.protocol.signatures import SIGNATURE_LENGTH
from cloister.protocol.tasks import Task
from cloister.services.sms.challenges import ChallengeStore
from cloister.services.sms.heads import RecentHeads
from cloister.services.sms.ledger import Head, Ledger
from cloister.services.sms.releases import read_params
from cloister.services.sms.service import RSA_RESULT_KEY_NAME
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.store import SecretStore
from cloister.services.sms.vault import SecretKind, SecretName

AUTHORIZATION_CAP = 16 * 1024
"""Largest body of ``POST /tee/sessions`` in bytes."""
SESSION_PATH = "/enclave/v1/sessions"
_LETTERS = string.ascii_letters + string.digits


class TeeError(StrEnum):
    """The values of iExec's ``TeeSessionGenerationError`` that this service answers with."""

    INVALID_AUTHORIZATION = "INVALID_AUTHORIZATION"
    EMPTY_PARAMS = "EXECUTION_NOT_AUTHORIZED_EMPTY_PARAMS_UNAUTHORIZED"
    NO_MATCH_ONCHAIN_TYPE = "EXECUTION_NOT_AUTHORIZED_NO_MATCH_ONCHAIN_TYPE"
    GET_CHAIN_TASK_FAILED = "EXECUTION_NOT_AUTHORIZED_GET_CHAIN_TASK_FAILED"
    TASK_NOT_ACTIVE = "EXECUTION_NOT_AUTHORIZED_TASK_NOT_ACTIVE"
    GET_CHAIN_DEAL_FAILED = "EXECUTION_NOT_AUTHORIZED_GET_CHAIN_DEAL_FAILED"
    INVALID_SIGNATURE = "EXECUTION_NOT_AUTHORIZED_INVALID_SIGNATURE"
    EMPTY_WORKER_ADDRESS = "GET_SIGNATURE_TOKENS_FAILED_EMPTY_WORKER_ADDRESS"
    EMPTY_PUBLIC_ENCLAVE_CHALLENGE = "GET_SIGNATURE_TOKENS_FAILED_EMPTY_PUBLIC_ENCLAVE_CHALLENGE"
    EMPTY_TEE_CHALLENGE = "GET_SIGNATURE_TOKENS_FAILED_EMPTY_TEE_CHALLENGE"
    NO_DATASET_KEY = "PRE_COMPUTE_GET_DATASET_SECRET_FAILED"
    NO_BENEFICIARY_KEY = "POST_COMPUTE_GET_ENCRYPTION_TOKENS_FAILED_EMPTY_BENEFICIARY_KEY"
    GET_TASK_DESCRIPTION_FAILED = "GET_TASK_DESCRIPTION_FAILED"

    @property
    def http_status(self) -> int:
        """401 for a caller who may not have a session, 500 for a session that cannot be made."""
        unauthorized = self is TeeError.INVALID_AUTHORIZATION or self.value.startswith("EXECUTION_NOT_AUTHORIZED")
        return 401 if unauthorized else 500


class TeeRefused(Exception):
    """A session was refused; ``error`` is iExec's word for the reason."""

    def __init__(self, error: TeeError) -> None:
        super().__init__(error.value)
        self.error = error


@dataclass(frozen=True, slots=True)
class WorkerpoolAuthorization:
    """What a scheduler gave a worker: the right to run one task with one enclave. Proves nothing by itself."""

    task_id: Bytes32
    worker: Address
    challenge: Address
    signature: bytes

    def message(self) -> bytes:
        """The 32 bytes that scheduler and worker both sign."""
        return scheduler_authorization(self.worker, self.task_id, self.challenge)


@dataclass(frozen=True, slots=True)
class TeeSession:
    """A session's name and where the enclave goes to be attested."""

    session_id: str
    provisioning_url: str

    def to_json(self) -> dict[str, str]:
        """Return the members that iExec's workers read."""
        return {"sessionId": self.session_id, "secretProvisioningUrl": self.provisioning_url}


def parse_workerpool_authorization(document: bytes) -> WorkerpoolAuthorization:
    """Read the body of ``POST /tee/sessions``; members that are not needed are skipped, as iExec's own do.

    Raises: DecodeError, TooLarge.
    """
    given = parse_json(document, cap=AUTHORIZATION_CAP)
    if not isinstance(given, dict):
        raise DecodeError("a workerpool authorization is an object")
    signature = given.get("signature")
    value = signature.get("value") if isinstance(signature, dict) else None
    return WorkerpoolAuthorization(
        task_id=Bytes32(_text(given, "chainTaskId")),
        worker=Address(_text(given, "workerWallet")),
        challenge=Address(_text(given, "enclaveChallenge")),
        signature=parse_hex(value, length=SIGNATURE_LENGTH),
    )


def _text(given: dict[str, object], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str):
        raise DecodeError(f"{name}: expected a string")
    return value


class TeeService:
    """Answers iExec's schedulers and workers. Safe to call from several threads."""

    def __init__(
        self,
        *,
        settings: SmsSettings,
        challenges: ChallengeStore,
        secrets_: SecretStore,
        ledger: Ledger,
        heads: RecentHeads,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._challenges = challenges
        self._secrets = secrets_
        self._ledger = ledger
        self._heads = heads
        self._clock = clock

    def challenge(self, task_id: str, header: str | None) -> Address:
        """Return the address of the task's challenge to the owner of the task's workerpool; the same at each call.

        Raises: Unauthenticated for anybody else, an unknown or a malformed task alike; UnavailableError.
        """
        refusal = Unauthenticated("only the owner of the task's workerpool may ask for its challenge")
        try:
            task, signature = Bytes32(task_id), parse_hex(header or "", length=SIGNATURE_LENGTH)
        except DecodeError as error:
            raise refusal from error
        found = self._ledger.task(task, block=self._heads.read().number)
        if found is None:
            raise refusal
        try:
            verify_personal_signature(tee_challenge_authorization(task), signature, found[1].workerpool.owner)
        except VerificationError as error:
            raise refusal from error
        return self._challenges.obtain(task, now=int(self._clock()))

    def open_session(self, document: bytes, header: str | None, *, origin: str) -> TeeSession:
        """Check a worker's right to run a task, and tell it where its enclave is attested. Gives nothing secret.

        ``origin`` is the address that the caller used, for a service that was not told its own.
        Raises: TeeRefused with iExec's value for the first check that failed; UnavailableError.
        """
        if not document.strip():
            raise TeeRefused(TeeError.EMPTY_PARAMS)
        try:
            given = parse_workerpool_authorization(document)
        except DecodeError as error:
            raise TeeRefused(TeeError.EMPTY_PARAMS) from error
        try:
            signature = parse_hex(header or "", length=SIGNATURE_LENGTH)
            verify_personal_signature(given.message(), signature, given.worker)
        except (DecodeError, VerificationError) as error:
            raise TeeRefused(TeeError.INVALID_AUTHORIZATION) from error
        head = self._heads.read()
        task, deal = self._task(given, head)
        self._check_authorization(given, task, deal, head)
        self._check_session(given, deal)
        name = "".join(secrets.choice(_LETTERS) for _ in range(10))
        base = (self._settings.public_url or origin).rstrip("/")
        return TeeSession(f"{name}0000{given.task_id}", base + SESSION_PATH)

    def _task(self, given: WorkerpoolAuthorization, head: Head) -> tuple[Task, Deal]:
        try:
            found = self._ledger.task(given.task_id, block=head.number)
        except DecodeError as error:
            # The hub tells the task and not its deal.
            raise TeeRefused(TeeError.GET_CHAIN_DEAL_FAILED) from error
        if found is None:
            raise TeeRefused(TeeError.GET_CHAIN_TASK_FAILED)
        return found

    def _check_authorization(self, given: WorkerpoolAuthorization, task: Task, deal: Deal, head: Head) -> None:
        if not deal.is_tee:
            raise TeeRefused(TeeError.NO_MATCH_ONCHAIN_TYPE)
        if not task.accepts_contributions(max(head.timestamp, int(self._clock()))):
            raise TeeRefused(TeeError.TASK_NOT_ACTIVE)
        for signer in (deal.workerpool.owner, self._settings.identity):
            try:
                verify_personal_signature(given.message(), given.signature, signer)
            except VerificationError:
                continue
            return
        raise TeeRefused(TeeError.INVALID_SIGNATURE)

    def _check_session(self, given: WorkerpoolAuthorization, deal: Deal) -> None:
        """What would make the session useless; each is asked of what anybody may know."""
        if given.worker.is_zero:
            raise TeeRefused(TeeError.EMPTY_WORKER_ADDRESS)
        if given.challenge.is_zero:
            raise TeeRefused(TeeError.EMPTY_PUBLIC_ENCLAVE_CHALLENGE)
        if self._challenges.find(given.task_id) != given.challenge:
            raise TeeRefused(TeeError.EMPTY_TEE_CHALLENGE)
        try:
            params = read_params(deal)
        except CloisterError as error:
            raise TeeRefused(TeeError.GET_TASK_DESCRIPTION_FAILED) from error
        if deal.has_dataset and not self._secrets.exists(SecretName(SecretKind.DATASET, deal.dataset.pointer)):
            raise TeeRefused(TeeError.NO_DATASET_KEY)
        beneficiary_key = SecretName(SecretKind.WEB2, deal.beneficiary, RSA_RESULT_KEY_NAME)
        if params.iexec_result_encryption and not self._secrets.exists(beneficiary_key):
            raise TeeRefused(TeeError.NO_BENEFICIARY_KEY)
