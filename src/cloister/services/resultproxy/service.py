"""The rules of the result proxy: who gets a token, and which result is taken.

1. the task is on chain and open: ACTIVE before its deadline, or REVEALING
2. the workerpool's owner or the hub's teebroker signed worker, task and enclave key; the worker signed the same
3. an enclave deal names an enclave key, any other names none
4. the result names the token's task, and its enclave key signed its digest for this worker and task
5. where workers agreed on a digest already, it is this one
6. one authorization brings one result: the same bytes again are the same answer, others a conflict
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from cloister.errors import Conflict, DecodeError, InputError, Unauthenticated, VerificationError, quoted
from cloister.protocol.authorization import verify_personal_signature
from cloister.protocol.codec import Address, Bytes32, parse_hex, parse_uint, parse_word
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import message_digest, recover_address
from cloister.protocol.tasks import TaskStatus
from cloister.protocol.tasks import task_id as task_id_of
from cloister.services.resultproxy.archives import ResultArchive
from cloister.services.resultproxy.authorizations import SIGNATURE_BYTES, WorkerpoolAuthorization, parse_authorization
from cloister.services.resultproxy.challenges import Challenges
from cloister.services.resultproxy.ledger import ResultLedger, TaskSight
from cloister.services.resultproxy.settings import ResultProxySettings
from cloister.services.resultproxy.store import ResultStore
from cloister.services.resultproxy.tokens import Tokens, UploadGrant
from cloister.storage.content import ContentStore
from cloister.storage.unixfs import FileBuilder, Layout

log = logging.getLogger("cloister.resultproxy")


class ResultService:
    """Safe to use from several threads, and from several replicas on one database."""

    def __init__(
        self,
        settings: ResultProxySettings,
        *,
        store: ResultStore,
        ledger: ResultLedger,
        content: ContentStore,
        tokens: Tokens,
        challenges: Challenges,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._content = content
        self._tokens = tokens
        self._challenges = challenges
        self._clock = clock

    def issue_token(self, header: str | None, body: bytes) -> str:
        """Exchange a workerpool's authorization, countersigned by the worker, for an upload token (rules 1 to 3).

        Raises:
            DecodeError: the body does not parse.
            Unauthenticated: a rule says no; what rule is not said.
        """
        authorization = parse_authorization(body)
        refusal = Unauthenticated("the authorization is not valid for this task")
        try:
            signature = parse_hex(header or "", length=SIGNATURE_BYTES)
            verify_personal_signature(authorization.message(), signature, authorization.worker)
        except (DecodeError, VerificationError) as error:
            raise refusal from error
        sight = self._ledger.task(authorization.task_id)
        if sight is None or not _is_open(sight) or not self._is_authorized(sight, authorization):
            raise refusal
        if sight.deal.is_tee == authorization.enclave_challenge.is_zero:
            raise refusal
        log.info("upload token issued task=%s worker=%s", authorization.task_id, authorization.worker)
        return self._tokens.issue_upload(
            task_id=authorization.task_id,
            worker=authorization.worker,
            enclave_challenge=authorization.enclave_challenge,
        )

    def admit(self, header: str | None) -> UploadGrant:
        """Judge an upload by its token, before a byte of it is read.

        Raises:
            Unauthenticated: the token is not valid, or its task takes no result any more.
        """
        grant = self._tokens.verify_upload(header)
        self._open_task(grant)
        return grant

    def take(self, grant: UploadGrant, body: Iterable[bytes]) -> str:
        """Store the result that ``body`` holds and return its location; both are durable when this returns.

        Raises:
            DecodeError, TooLarge: the body is no result.
            InputError: another task's.
            VerificationError: its digest is not signed by the enclave, or not the one that workers agreed on.
            Unauthenticated: the task was closed meanwhile.
            Conflict: this authorization brought another result before.
        """
        archive = ResultArchive(body, self._settings.max_result)
        known = self._store.result_of(grant)
        if known is None:
            stored = self._content.put(self._checked(grant, archive))
            cid, size = str(stored.cid), stored.size
        else:
            cid, size = _name(self._checked(grant, archive))
        digest = _digest(archive)
        standing = known or self._store.record(grant, cid, size, digest=digest, now=self._clock())
        if standing != cid:
            raise Conflict("another result was uploaded under this authorization", code="result-exists")
        log.info("result taken task=%s worker=%s size=%d", grant.task_id, grant.worker, size)
        return f"/ipfs/{standing}"

    def find(self, task_id: Bytes32) -> str | None:
        """The CID of the result that was uploaded last for a task."""
        return self._store.newest(task_id)

    def check_reader(self, header: str | None) -> None:
        """Return when the header carries a token of ours. Raises: Unauthenticated."""
        self._tokens.verify_any(header)

    def build_challenge(self, chain_id: str | None, address: str | None) -> dict[str, object]:
        """The typed data to sign for a login.

        Raises:
            InputError: another chain, or no address. DecodeError: not an address.
        """
        self._check_chain(chain_id)
        if address is None:
            raise InputError("address is missing")
        return self._challenges.issue(Address(address))

    def log_in(self, chain_id: str | None, answer: bytes) -> str:
        """Exchange an answered challenge for a login token.

        Raises:
            InputError: another chain. Unauthenticated: the answer proves nothing.
        """
        self._check_chain(chain_id)
        # iExec's client sends bare text; one that sends JSON puts it in quotes.
        text = answer.decode("latin-1").strip().strip('"')
        return self._tokens.issue_login(self._challenges.take(text))

    def _check_chain(self, chain_id: str | None) -> None:
        if chain_id is not None and chain_id != str(self._settings.chain_id):
            raise InputError(f"chainId {quoted(chain_id)} is not supported")

    def _is_authorized(self, sight: TaskSight, authorization: WorkerpoolAuthorization) -> bool:
        digest = message_digest(authorization.message())
        signers = (sight.deal.workerpool.owner, sight.teebroker)
        try:
            if recover_address(digest, authorization.signature) in [each for each in signers if not each.is_zero]:
                return True
        except VerificationError:
            log.debug("an authorization is not an account's signature")
        return any(
            self._ledger.is_signed(signer, digest, authorization.signature, block=sight.block) for signer in signers
        )

    def _open_task(self, grant: UploadGrant) -> TaskSight:
        sight = self._ledger.task(grant.task_id)
        if sight is None or not _is_open(sight):
            raise Unauthenticated("the task takes no result any more", code="task-not-active")
        return sight

    def _checked(self, grant: UploadGrant, archive: ResultArchive) -> Iterator[bytes]:
        """The archive's bytes; raises behind the last one, so that nothing is stored, when a rule says no."""
        yield from archive.chunks()
        _check_names(grant, archive)
        self._check_signature(grant, archive)
        sight = self._open_task(grant)
        digest = _digest(archive)
        if sight.task.status is TaskStatus.REVEALING and (
            digest is None or result_hash(grant.task_id, digest) != sight.task.consensus_value
        ):
            raise VerificationError("the result is not the one that workers agreed on", code="wrong-digest")

    def _check_signature(self, grant: UploadGrant, archive: ResultArchive) -> None:
        digest, signature = _digest(archive), _blob(archive, "enclaveSignature")
        if grant.enclave_challenge.is_zero:
            if signature is not None:
                raise VerificationError("a deal without enclave has no enclave signature", code="wrong-signer")
            return
        if digest is None or signature is None:
            if digest is None and signature is None and self._settings.allow_unsigned_results:
                return
            raise VerificationError(
                "the result is not signed by its enclave",
                hint="send deterministHash and enclaveSignature",
                code="enclave-signature-missing",
            )
        seal = result_seal(grant.worker, grant.task_id, digest)
        message = enclave_message(result_hash(grant.task_id, digest), seal)
        verify_personal_signature(message, signature, grant.enclave_challenge)


def _is_open(sight: TaskSight) -> bool:
    task = sight.task
    if task.status is TaskStatus.REVEALING:
        return sight.time < task.final_deadline
    return task.accepts_contributions(sight.time)


def _check_names(grant: UploadGrant, archive: ResultArchive) -> None:
    """The members that name the task must name the token's; the deal and index may be left out or zero."""
    members = archive.members
    if "chainTaskId" not in members:
        raise DecodeError("result: missing key chainTaskId")
    if parse_word("chainTaskId", members["chainTaskId"]) != grant.task_id:
        raise InputError("the result is another task's than the token's")
    if members.get("dealId"):
        deal = parse_word("dealId", members["dealId"])
        if not deal.is_zero and task_id_of(deal, parse_uint("taskIndex", members.get("taskIndex", 0))) != grant.task_id:
            raise InputError("the result's deal and index do not make its task")


def _digest(archive: ResultArchive) -> Bytes32 | None:
    raw = _blob(archive, "deterministHash")
    return None if raw is None else Bytes32.from_raw(raw)


_SIZES = {"deterministHash": 32, "enclaveSignature": SIGNATURE_BYTES}


def _blob(archive: ResultArchive, name: str) -> bytes | None:
    """A hex member; None when it is left out, empty or all zeros, as iExec's post-compute sends what it has not."""
    value = archive.members.get(name)
    if value is None or value == "":
        return None
    try:
        raw = parse_hex(value)
        if not any(raw):
            return None
        return parse_hex(value, length=_SIZES[name])
    except DecodeError as error:
        raise DecodeError(f"{name}: {error.message}") from error


def _name(chunks: Iterable[bytes]) -> tuple[str, int]:
    """The CID that content would have, without storing it again."""
    builder = FileBuilder(Layout())
    for chunk in chunks:
        builder.write(chunk)
    built = builder.finish()
    return str(built.cid), built.size
