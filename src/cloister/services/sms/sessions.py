"""The enclave session: the numbered checks between a nonce and a sealed release (docs/architecture.md).

 1. the nonce is ours, unexpired, for this task, and unused; from here on it is spent, whatever follows
 2. the request is signed by the enclave's own key
 3. the chain is recent and did not go back; every read below names this one block
 4. the task exists and the owner of its workerpool authorized this worker with this enclave
 5. the task is ACTIVE and before its contribution deadline
 6. the app digest is the checksum on chain
 7. the evidence passes the policy and binds exactly this request
 8. the OrdersMatched event of the deal stands in the transaction that the host names
 9. the dataset order is the one matched, signed by the dataset's current owner, not closed, its restrictions still hold
10. the standing policy of the data's owner and the access policy that the order's salt names allow this run, each with
    its own rules for the evidence
11. every key and secret that the deal asks for is there

A bulk request has no dataset in its deal and a slice of dataset orders per task. Steps 9 to 11 are then taken for each
order of the slice, all at the same block; an order that fails is a refused item of the release and stops no other. What
is refused for good, and what may be tried again, is told by ``protocol.sessions.FINAL_REFUSALS``.

Every outcome after step 1 is appended to the record and to its transparency log before it is answered; of a bulk session
also every item's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from cloister.attestation.assurance import warning_for
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind, parse_evidence
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.verify import Appraisal, appraise
from cloister.errors import (
    CloisterError,
    Conflict,
    DecodeError,
    LocalError,
    PolicyRejected,
    VerificationError,
)
from cloister.protocol.authorization import scheduler_authorization, verify_personal_signature
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_json
from cloister.protocol.deals import Deal
from cloister.protocol.params import RequestParams
from cloister.protocol.policies import POLICY_CAP, PolicyFacts, parse_policy
from cloister.protocol.releases import build_release
from cloister.protocol.sessions import (
    SEALED_CAP,
    NonceGrant,
    SessionAnswer,
    SessionCall,
    SessionRequest,
    release_digest,
    verify_session_signature,
)
from cloister.protocol.tasks import Task
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePublicKey
from cloister.services.sms.bulk import BulkSource, load_slice
from cloister.services.sms.grants import GrantFacts, StandingGrant, load_policy, verify_grant
from cloister.services.sms.heads import RecentHeads
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Ledger, Matched, check_recent
from cloister.services.sms.policies import SessionHardware, load_rules
from cloister.services.sms.releases import Assembly, ReleaseAssembler, read_params
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.slices import JudgedItem, SliceJudge
from cloister.services.sms.standing import StandingStore
from cloister.services.sms.statements import OpenedSession, describe_session
from cloister.services.sms.store import ReleaseRecord, SessionStore

log = logging.getLogger("cloister.sms")

_RELEASE_CAP: Final = SEALED_CAP - 4096
"""What an envelope adds (some 1,200 bytes) fits between."""


class SessionService:
    """Issues nonces and opens sessions. Safe to call from several threads and from several replicas on one database."""

    def __init__(
        self,
        *,
        settings: SmsSettings,
        store: SessionStore,
        ledger: Ledger,
        heads: RecentHeads,
        assembler: ReleaseAssembler,
        judge: SliceJudge,
        standing: StandingStore,
        bulk: BulkSource | None,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._ledger = ledger
        self._heads = heads
        self._assembler = assembler
        self._judge = judge
        self._standing = standing
        self._bulk = bulk
        self._clock = clock

    def check_ready(self) -> None:
        """Raise UnavailableError unless a recent block can be read."""
        check_recent(self._ledger.head(), now=int(self._clock()), max_age=self._settings.max_head_age)

    def identity(self) -> dict[str, object]:
        """Say who this SMS is: its address, its chain and hub."""
        settings = self._settings
        return {"sms": str(settings.identity), "chain_id": settings.chain_id, "hub": str(settings.hub), "version": 1}

    def issue_nonce(self, task_id: Bytes32) -> NonceGrant:
        """Make a nonce for one session of one task; it is on disk before this returns.

        Raises: UnavailableError when too many are open.
        """
        now = int(self._clock())
        nonce, expires_at = Bytes32.from_raw(secrets.token_bytes(32)), now + self._settings.nonce_lifetime
        self._store.add_nonce(nonce, task_id, expires_at=expires_at, now=now)
        return NonceGrant(nonce, expires_at)

    def open_session(self, call: SessionCall) -> SessionAnswer:
        """Run the numbered checks and answer with a release sealed to the enclave.

        Raises: VerificationError, PolicyRejected, Denied or NotFound, whose ``code`` names the first check that failed;
        UnavailableError when chain or database do not answer (ask for a new nonce and try again).
        """
        request = call.request
        if not self._store.use_nonce(request.nonce, request.task_id, now=int(self._clock())):
            log.info("session refused: nonce-refused task=%s", request.task_id)
            raise VerificationError("the nonce is unknown, used or expired", code="nonce-refused")
        trail = _Trail(self._store, request, int(self._clock()))
        try:
            return self._open(call, trail)
        except CloisterError as error:
            trail.refuse(error)
            raise
        except Exception as error:
            trail.refuse(LocalError("internal error"))
            raise LocalError("the session failed inside the service") from error

    def _open(self, call: SessionCall, trail: _Trail) -> SessionAnswer:
        request = call.request
        try:
            verify_session_signature(request)
        except (VerificationError, DecodeError) as error:
            raise VerificationError(
                "the request is not signed by its enclave challenge", code="signature-refused"
            ) from error
        head = self._heads.read()
        trail.note(block=head.number)
        task, deal = self._verify_task(call, head, trail)
        # Only now: a stranger must not make the SMS remember blocks of an idle local chain, which a crash takes back.
        self._remember(head)
        app, dataset, matched = self._ledger.grounds(task.deal_id, deal, call.match_transaction, block=head.number)
        self._verify_app(app, request)
        appraisal, collateral = self._appraise(request)
        trail.note(simulated=appraisal.simulated)
        if matched is None or matched.deal_id != task.deal_id or matched.block > head.number:
            raise VerificationError("the transaction did not make this deal", code="match-refused")
        params = read_params(deal)
        facts = PolicyFacts(
            now=max(head.timestamp, int(self._clock())),
            enclave=appraisal.kind,
            purpose=params.cloister_purpose,
            app_purposes=request.purposes,
        )
        hardware = SessionHardware(
            self._standing, appraisal, request.task_id, request.worker, replicated=deal.trust > 1
        )
        grant = (
            self._verify_grant(call, deal, dataset, matched, facts, hardware, head, trail) if deal.has_dataset else None
        )
        bulk = self._judge_slice(params, task, deal, facts, hardware, head)
        release = self._assembler.assemble(
            Assembly(request.task_id, request.worker, task, deal, app, dataset, grant, params, bulk)
        )
        answer = self._seal(request, build_release(release))
        hardware.claim(now=int(self._clock()))
        trail.release(bulk or (), describe_session(request, release, appraisal, self._settings.policy, collateral))
        return answer

    def _verify_grant(
        self,
        call: SessionCall,
        deal: Deal,
        dataset: DatasetEntry | None,
        matched: Matched,
        facts: PolicyFacts,
        hardware: SessionHardware,
        head: Head,
        trail: _Trail,
    ) -> StandingGrant:
        """Steps 9 and 10 for the deal's own dataset."""
        if dataset is None:
            raise VerificationError("the deal's dataset is not registered", code="dataset-unknown")
        trail.note(order_hash=matched.dataset_hash)
        settings = self._settings
        order = verify_grant(
            call.dataset_order,
            GrantFacts(deal, dataset, matched.dataset_hash, settings.chain_id, settings.hub, head.number),
            self._ledger,
        )
        grant = load_policy(order, matched.dataset_hash, facts, self._store, owner=dataset.owner, hardware=hardware)
        trail.note(policy_hash=grant.policy_hash)
        return grant

    def _judge_slice(
        self,
        params: RequestParams,
        task: Task,
        deal: Deal,
        facts: PolicyFacts,
        hardware: SessionHardware,
        head: Head,
    ) -> tuple[JudgedItem, ...] | None:
        """Steps 9 to 11 for a bulk request; None for any other."""
        if params.bulk_cid is None:
            return None
        if deal.has_dataset:
            # Bulk is free of charge for data and a dataset in the deal is not: a request for both is meant by nobody.
            raise PolicyRejected("a bulk request has no dataset of its own", code="bulk-with-dataset")
        if self._bulk is None:
            raise PolicyRejected("this SMS reads no storage, so it serves no bulk request", code="bulk-not-served")
        elements = load_slice(self._bulk, params.bulk_cid, task.index)
        return self._judge.judge(elements, task.deal_id, deal, facts, hardware=hardware, block=head.number)

    def _seal(self, request: SessionRequest, release: bytes) -> SessionAnswer:
        """Close a release to the enclave and prove that it is ours."""
        if len(release) > _RELEASE_CAP:
            text = f"the secrets of this task take {len(release)} bytes, the cap is {_RELEASE_CAP}"
            raise PolicyRejected(text, code="release-too-large")
        settings, context = self._settings, request.context()
        sealed = envelope.seal(HpkePublicKey(request.hpke_public_key), release, context)
        message = scheduler_authorization(request.worker, request.task_id, request.enclave_challenge)
        return SessionAnswer(
            sealed=sealed,
            authorization=settings.teebroker.sign_message(message),
            sms=settings.identity,
            signature=settings.teebroker.sign_message(release_digest(context, sealed)),
        )

    def _remember(self, head: Head) -> None:
        try:
            self._store.advance_head(self._settings.chain_id, head.number)
        except Conflict:
            # Two first sessions at once: the other one wrote the row, and the next session raises it.
            log.debug("the first head was written twice")

    def _verify_task(self, call: SessionCall, head: Head, trail: _Trail) -> tuple[Task, Deal]:
        """Steps 4 and 5. An unknown task and a wrong authorization read the same from outside."""
        request = call.request
        found = self._ledger.task(request.task_id, block=head.number)
        message = scheduler_authorization(request.worker, request.task_id, request.enclave_challenge)
        text = "the owner of the task's workerpool did not authorize this worker with this enclave"
        if found is None:
            raise VerificationError(text, code="authorization-refused")
        try:
            verify_personal_signature(message, call.scheduler_authorization, found[1].workerpool.owner)
        except VerificationError as error:
            raise VerificationError(text, code="authorization-refused") from error
        task, deal = found
        trail.note(
            deal_id=task.deal_id,
            requester=deal.requester,
            app=deal.app.pointer,
            dataset=deal.dataset.pointer if deal.has_dataset else None,
        )
        # The later of the two clocks: neither a slow block nor a slow host may stretch a deadline.
        if not task.accepts_contributions(max(head.timestamp, int(self._clock()))):
            raise PolicyRejected("the task is not active, or its deadline is over", code="task-not-active")
        if not deal.is_tee:
            raise PolicyRejected("the deal does not ask for an enclave", code="deal-not-tee")
        return task, deal

    @staticmethod
    def _verify_app(app: AppEntry, request: SessionRequest) -> None:
        if app.checksum != request.app_digest:
            raise VerificationError("the enclave runs another app than the deal names", code="app-digest-refused")

    def _appraise(self, request: SessionRequest) -> tuple[Appraisal, Collateral]:
        """Step 7. Returns with the appraisal what it was made with: the receipt will carry it."""
        settings = self._settings
        evidence, now = parse_evidence(request.evidence.kind, request.evidence.payload), int(self._clock())
        collateral = settings.collateral.collateral_for(evidence, now)
        binding = ReportBinding(
            chain_id=settings.chain_id,
            hub=settings.hub.raw,
            sms=settings.identity.raw,
            task_id=request.task_id.raw,
            nonce=request.nonce.raw,
            app_digest=request.app_digest.raw,
            challenge=request.enclave_challenge.raw,
            hpke_key_hash=hashlib.sha256(request.hpke_public_key).digest(),
        )
        appraisal = appraise(
            evidence,
            policy=settings.policy,
            expected_report_data=build_report_data(binding),
            now=now,
            collateral=collateral,
            expected_app_digest=request.app_digest.raw,
        )
        return appraisal, collateral

    def put_policy(self, digest: Bytes32, body: bytes) -> None:
        """Store an access policy under its hash. Anybody may: the hash in the owner's signed order is what gives it
        force.

        Raises: DecodeError or InputError for a malformed policy, VerificationError when it hashes to something else.
        """
        policy = parse_policy(parse_json(body, cap=POLICY_CAP))
        if policy.hash() != digest:
            raise VerificationError(f"the policy hashes to {policy.hash()}", code="wrong-policy")
        if policy.hardware is not None:
            load_rules(policy.hardware)
        text = canonical_json(policy.to_json()).decode("utf-8")
        self._store.put_policy(digest, text, now=int(self._clock()))

    def policy(self, digest: Bytes32) -> str | None:
        """Return the JSON of a policy by its whole hash."""
        return self._store.policy(digest)

    def releases(self, dataset: Address, *, after: int, limit: int) -> list[dict[str, object]]:
        """List the record's lines for a dataset."""
        return self._store.releases(dataset, after=after, limit=limit)

    def properties(self) -> dict[str, object]:
        """Say what this SMS really does about enclaves: iExec's pre- and post-compute images do not exist here."""
        kinds = sorted({kind.value for kind, _ in self._settings.collateral.roots})
        return {
            "teeFramework": "TDX",
            "teeFrameworkVersion": "v1",
            "preComputeProperties": None,
            "postComputeProperties": None,
            "evidenceKinds": kinds,
            "warning": next((text for kind in kinds if (text := warning_for(EvidenceKind(kind)))), None),
        }


class _Trail:
    """Collects what is known of one session and appends it to the record once."""

    def __init__(self, store: SessionStore, request: SessionRequest, now: int) -> None:
        self._store = store
        self._record = ReleaseRecord(
            at=now,
            outcome="refused",
            reason=None,
            task_id=request.task_id,
            worker=request.worker,
            enclave_challenge=request.enclave_challenge,
            hpke_key_id=hashlib.sha256(request.hpke_public_key).hexdigest(),
            evidence_kind=request.evidence.kind[:32],
            evidence_digest=hashlib.sha256(request.evidence.payload).hexdigest(),
        )

    def note(self, **facts: object) -> None:
        """Add what a check has just established."""
        self._record = dataclasses.replace(self._record, **facts)  # type: ignore[arg-type]

    def refuse(self, error: CloisterError) -> None:
        """Append the refusal."""
        reason = error.code[:64]
        log.info("session refused: %s task=%s", reason, self._record.task_id)
        self._store.record(dataclasses.replace(self._record, outcome="refused", reason=reason))

    def release(self, items: Sequence[JudgedItem], opened: OpenedSession) -> None:
        """Append the release, a line for each item of a slice, and what its receipt's countersignature will rest on; all
        are on disk before the answer leaves.
        """
        session = dataclasses.replace(self._record, outcome="released", reason=None)
        lines = [
            dataclasses.replace(
                session,
                outcome="released" if item.refused is None else "refused",
                reason=None if item.refused is None else item.refused[:64],
                dataset=item.dataset,
                order_hash=item.order_hash,
                policy_hash=item.policy_hash,
            )
            for item in items
        ]
        self._store.record(session, *lines, opened=opened)
        refused = sum(item.refused is not None for item in items)
        log.info("session released task=%s items=%d refused=%d", session.task_id, len(items), refused)
