"""A throwaway SMS for one task: appraises, releases and countersigns by the code of the real one, and knows no chain.

What a chain or an owner would say is the rehearsal's to say: who asks, for which data, under which policy. Its root of
trust lives as long as the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from cloister.attestation.countersignature import Countersignature, LogProof, SessionFacts, build_countersignature
from cloister.attestation.evidence import parse_evidence
from cloister.attestation.receipt import VerifiedReceipt, verify_receipt
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.transparency import LogOrigin, build_head, hash_leaf
from cloister.attestation.verify import appraise
from cloister.errors import Denied
from cloister.generator.rehearsal.enclaves import ThrowawayPlatform
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.countersigning import CountersignRequest, verify_countersign_request
from cloister.protocol.policies import AccessPolicy, PolicyFacts, check_policy
from cloister.protocol.releases import Release, build_release
from cloister.protocol.sessions import (
    NonceGrant,
    SessionAnswer,
    SessionRequest,
    release_digest,
    verify_session_signature,
)
from cloister.protocol.signatures import PrivateKey
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePublicKey
from cloister.services.sms.statements import OpenedSession, describe_session

_NONCE_SECONDS = 300


class Broker:
    """The SMS of one task."""

    def __init__(
        self, platform: ThrowawayPlatform, key: PrivateKey, release: Release, access: AccessPolicy, purpose: str | None
    ) -> None:
        self._platform = platform
        self._policy = platform.policy()
        self._key = key
        self._release = release
        self._access = access
        self._purpose = purpose
        self._nonce: Bytes32 | None = None
        self._opened: OpenedSession | None = None

    @property
    def task_id(self) -> Bytes32:
        """The one task that it serves."""
        return self._release.task_id

    @property
    def address(self) -> Address:
        """Who it is."""
        return self._key.address

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        """The one nonce of the task."""
        if task_id != self._release.task_id:
            raise Denied("this is another task's broker", code="wrong-task")
        self._nonce = Bytes32.from_raw(os.urandom(32))
        return NonceGrant(self._nonce, int(time.time()) + _NONCE_SECONDS)

    def session(self, request: SessionRequest) -> SessionAnswer:
        """Appraise, ask the access policy, release.

        Raises:
            Denied, VerificationError, PolicyRejected, DecodeError: as an SMS refuses.
        """
        release, nonce = self._release, self._nonce
        self._nonce = None
        if nonce is None or request.nonce != nonce:
            raise Denied("the nonce is unknown or used", code="nonce-refused")
        verify_session_signature(request)
        if request.app_digest != release.app.checksum:
            raise Denied("the enclave runs another app", code="app-mismatch")
        binding = ReportBinding(
            chain_id=release.chain_id,
            hub=release.hub.raw,
            sms=self._key.address.raw,
            task_id=release.task_id.raw,
            nonce=nonce.raw,
            app_digest=release.app.checksum.raw,
            challenge=request.enclave_challenge.raw,
            hpke_key_hash=hashlib.sha256(request.hpke_public_key).digest(),
        )
        now = int(time.time())
        appraisal = appraise(
            parse_evidence(request.evidence.kind, request.evidence.payload),
            policy=self._policy,
            expected_report_data=build_report_data(binding),
            expected_app_digest=release.app.checksum.raw,
            now=now,
            collateral=self._platform.collateral,
        )
        check_policy(self._access, PolicyFacts(now, appraisal.kind.value, self._purpose, request.purposes))
        self._opened = describe_session(request, release, appraisal, self._policy, self._platform.collateral)
        sealed = envelope.seal(HpkePublicKey(request.hpke_public_key), build_release(release), request.context())
        message = scheduler_authorization(release.worker, release.task_id, request.enclave_challenge)
        return SessionAnswer(
            sealed,
            self._key.sign_message(message),
            self._key.address,
            self._key.sign_message(release_digest(request.context(), sealed)),
        )

    def countersign(self, request: CountersignRequest) -> bytes:
        """Countersign the receipt of the open session, with a log of one entry.

        Raises:
            Denied, VerificationError: another enclave asks, or nobody was released anything.
        """
        verify_countersign_request(request)
        opened = self._opened
        if opened is None or request.enclave_challenge.raw != opened.facts.challenge:
            raise Denied("there is no receipt to countersign for this enclave", code="countersignature-refused")
        origin = LogOrigin(self._release.chain_id, self._release.hub.raw, self._key.address.raw)
        entry, now = _entry(opened.facts), int(time.time())
        head = build_head(origin, 1, hash_leaf(entry), now, self._key.sign_message)
        statement = Countersignature(
            facts=opened.facts,
            receipt=request.receipt_digest.raw,
            origin=origin,
            issued_at=max(now, opened.facts.judgement.appraised_at),
            collateral=opened.collateral,
            log=LogProof(0, 1, entry, (), now, head.signature),
        )
        return build_countersignature(statement, self._key.sign_digest)

    def verify(self, receipt: bytes, result_digest: Bytes32) -> VerifiedReceipt:
        """Check a receipt offline, as its reader would.

        Raises:
            DecodeError, VerificationError, PolicyRejected: it does not hold.
        """
        return verify_receipt(
            receipt,
            policy=self._policy,
            collateral=self._platform.collateral,
            now=int(time.time()),
            expected_result_digest=result_digest.raw,
        )


def _entry(facts: SessionFacts) -> bytes:
    """The log's entry of a released session."""
    dataset = facts.dataset
    members = {
        "index": 0,
        "outcome": "released",
        "task_id": _hex(facts.task_id),
        "enclave_challenge": _hex(facts.challenge),
        "evidence_kind": facts.evidence_kind,
        "evidence_digest": facts.evidence_digest.hex(),
        "dataset": None if dataset is None else _hex(dataset.address),
        "order_hash": None if dataset is None else _hex(dataset.order_hash),
        "policy_hash": None if dataset is None else _hex(dataset.policy_hash),
    }
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def _hex(value: bytes | None) -> str | None:
    return None if value is None else "0x" + value.hex()
