"""Everything one enclave session needs: people, a deal on a chain in memory, an enclave, and a real SMS behind real
HTTP.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.support.sms_ledger import MemoryLedger

from cloister.attestation.collateral import Collateral, simulated_collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.statement import SIMULATED_DOMAIN, build_payload, build_statement
from cloister.attestation.verifiers.simulated import build_platform_certificate, build_root
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, to_hex
from cloister.protocol.deals import Deal, Resource, deal_id
from cloister.protocol.eip712 import Domain, hub_domain
from cloister.protocol.orders import DatasetOrder, sign_order
from cloister.protocol.releases import Release, parse_release
from cloister.protocol.sessions import (
    SessionAnswer,
    SessionCall,
    SessionEvidence,
    SessionRequest,
    parse_session_answer,
    verify_session_answer,
)
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX
from cloister.protocol.tasks import Task, TaskStatus, task_id
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import Database, open_database
from cloister.services.sms.kek import create_local_kek
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Matched
from cloister.services.sms.part import build_sms_part
from cloister.services.sms.settings import SmsSettings
from cloister.storage.content import ContentStore

CHAIN_ID = 421614
HUB = Address("0x" + "b2" * 20)
APP = Address("0x" + "a1" * 20)
DATASET = Address("0x" + "d1" * 20)
POOL = Address("0x" + "e1" * 20)
MATCH_TRANSACTION = Bytes32("0x" + "77" * 32)
START = 1_790_000_000
MEASUREMENT = hashlib.sha256(b"agent").digest()
APP_DIGEST = Bytes32.from_raw(hashlib.sha256(b"bundle").digest())
DATASET_KEY = "AES256_GCM_HKDF_1MB:" + "A" * 44


def private_key(name: str) -> PrivateKey:
    """A key that is the same in every run."""
    return PrivateKey(hashlib.sha256(f"test {name}".encode()).digest())


class Clock:
    """A clock that tests move."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Platform:
    """A simulated machine and the root that vouches for it."""

    root_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        times = {"not_before": START - 1000, "not_after": START + 10**7}
        self.root = build_root(self.root_key, name="test root", serial=1, **times)
        self.certificate = build_platform_certificate(
            self.root_key, self.root, self.key.public_key(), name="machine", serial=2, **times
        )

    def evidence(
        self, report_data: bytes, *, issued_at: int, debug: bool = False, measurement: bytes = MEASUREMENT
    ) -> bytes:
        """What the machine signs."""
        statement = build_statement(
            measurement=measurement, report_data=report_data, issued_at=issued_at, debug=debug, svn=1
        )
        return build_payload(self.certificate, statement, self.key.sign(SIMULATED_DOMAIN + statement))

    def policy(self) -> EnclavePolicy:
        """Believe this machine's root and the one measurement."""
        return EnclavePolicy(
            kind=EvidenceKind.SIMULATED,
            roots=frozenset({hashlib.sha256(self.root).digest()}),
            measurements=frozenset({MEASUREMENT}),
        )


class Enclave:
    """The agent's two keys, born here."""

    def __init__(self) -> None:
        self.challenge = PrivateKey(os.urandom(32))
        self.hpke = HpkePrivateKey.generate(os.urandom)


class World:
    """A deal of one task, ready to run. Tests change attributes before they ask."""

    def __init__(
        self, folder: Path, *, database_url: str | None = None, settings: dict[str, Any] | None = None
    ) -> None:
        self.owner, self.requester = private_key("data owner"), private_key("requester")
        self.app_owner, self.pool_owner = private_key("app owner"), private_key("pool owner")
        self.worker, self.stranger = private_key("worker"), private_key("stranger")
        self.teebroker = private_key("teebroker")
        self.platform = Platform()
        self.attest: Callable[[bytes], Evidence] | None = None
        """Makes evidence for report data, of whatever kind; without it the simulated platform does."""
        self.clock = Clock(START)
        self.domain: Domain = hub_domain(CHAIN_ID, HUB)
        self.ledger = MemoryLedger(self.domain, Head(100, START))
        self.ledger.owners = {DATASET: self.owner.address, APP: self.app_owner.address, POOL: self.pool_owner.address}
        self.ledger.apps[APP] = AppEntry(self.app_owner.address, "/ipfs/QmApp", APP_DIGEST)
        self.ledger.datasets[DATASET] = DatasetEntry(self.owner.address, "/ipfs/QmData", Bytes32("0x" + "dc" * 32))
        self.settings = SmsSettings(
            **{
                "chain_id": CHAIN_ID,
                "hub": HUB,
                "teebroker": self.teebroker,
                "policy": self.platform.policy(),
                "collateral": simulated_collateral([self.platform.root]),
                **(settings or {}),
            }
        )
        self.folder = folder
        self.database: Database = open_database(database_url or folder / "sms.db")
        self.kek_path = folder / "kek"
        self.content: ContentStore | None = None
        self.order = self.sign(DatasetOrder(dataset=DATASET, volume=10, tag=TEE_TDX))
        self.make_deal()
        self._http = urllib3.PoolManager(retries=False)
        self.url = ""

    # --- the chain ---

    def sign(self, order: DatasetOrder, key: PrivateKey | None = None) -> DatasetOrder:
        """Sign a dataset order as the data owner, or somebody else."""
        return sign_order(order, key or self.owner, self.domain)

    def make_deal(self, *, dataset: Address = DATASET, **changes: Any) -> None:
        """Put a deal with one active task on the chain."""
        self.request_hash = Bytes32("0x" + "4e" * 32)
        self.deal_id = deal_id(self.request_hash, 0)
        self.task_id = task_id(self.deal_id, 0)
        data_owner = self.owner.address if dataset != ZERO_ADDRESS else ZERO_ADDRESS
        self.deal = dataclasses.replace(
            Deal(
                app=Resource(APP, self.app_owner.address, 0),
                dataset=Resource(dataset, data_owner, 0),
                workerpool=Resource(POOL, self.pool_owner.address, 0),
                trust=1,
                category=0,
                tag=TEE_TDX,
                requester=self.requester.address,
                beneficiary=self.requester.address,
                callback=ZERO_ADDRESS,
                params="{}",
                start_time=START,
                bot_first=0,
                bot_size=1,
                worker_stake=0,
                scheduler_reward_ratio=1,
                sponsor=self.requester.address,
            ),
            **changes,
        )
        self.task = Task(
            TaskStatus.ACTIVE, self.deal_id, 0, 300, START + 2100, 0, START + 3000, Bytes32("0x" + "00" * 32),
            0, 0, (), Bytes32("0x" + "00" * 32), b"", 0, b"",
        )  # fmt: skip
        self.put_on_chain()

    def put_on_chain(self) -> None:
        """Write deal, task and match as they stand in the attributes."""
        self.ledger.deals[self.deal_id] = self.deal
        self.ledger.tasks[self.task_id] = self.task
        self.ledger.matches[MATCH_TRANSACTION] = Matched(
            self.deal_id, self.order.hash(self.domain), self.request_hash, 90
        )

    def use_order(self, order: DatasetOrder) -> None:
        """Make ``order`` the one that was matched."""
        self.order = order
        self.put_on_chain()

    # --- the service ---

    @contextmanager
    def serving(self) -> Iterator[World]:
        """Run the SMS; may be entered again after it ended, on the same database."""
        part = build_sms_part(
            self.settings,
            database=self.database,
            kek=create_local_kek(self.kek_path),
            ledger=self.ledger,
            content=self.content,
            clock=self.clock,
        )
        with BackgroundServer(build_application([part])) as server:
            self.url = server.url
            yield self

    def ask(
        self, method: str, target: str, *, body: bytes | object = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One HTTP request; returns status and body."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = dict(headers or {})
        if raw is not None and not isinstance(body, bytes):
            headers.setdefault("content-type", "application/json")
        answer = self._http.request(method, self.url + target, body=raw, headers=headers)
        return answer.status, answer.data

    def set_secret(
        self, method: str, target: str, value: str | bytes, challenge: bytes, key: PrivateKey
    ) -> tuple[int, bytes]:
        """Set a secret the way iExec's clients do."""
        body = value if isinstance(value, bytes) else value.encode()
        headers = {"authorization": to_hex(key.sign_message(challenge)), "content-type": "text/plain"}
        return self.ask(method, target, body=body, headers=headers)

    # --- the enclave ---

    def nonce(self, task: Bytes32 | None = None) -> Bytes32:
        """Ask the SMS for a nonce."""
        status, body = self.ask("POST", "/enclave/v1/nonces", body={"task_id": task or self.task_id})
        assert status == 200, body
        return Bytes32(json.loads(body)["nonce"])

    def request(self, enclave: Enclave, nonce: Bytes32, **changes: Any) -> SessionRequest:
        """Build and sign a session request with honest evidence; ``changes`` replace single values before signing.

        ``evidence`` (keyword): values for ``Platform.evidence``; ``binding`` (keyword): values of the report binding.
        """
        evidence, binding = changes.pop("evidence", {}), changes.pop("binding", {})
        values: dict[str, Any] = {
            "chain_id": CHAIN_ID,
            "hub": HUB.raw,
            "sms": self.settings.identity.raw,
            "task_id": self.task_id.raw,
            "nonce": nonce.raw,
            "app_digest": APP_DIGEST.raw,
            "challenge": enclave.challenge.address.raw,
            "hpke_key_hash": hashlib.sha256(enclave.hpke.public.raw).digest(),
        }
        report_data = build_report_data(ReportBinding(**{**values, **binding}))
        if self.attest is None:
            payload = self.platform.evidence(report_data, **{"issued_at": int(self.clock.now), **evidence})
            made = Evidence(EvidenceKind.SIMULATED, payload)
        else:
            made = self.attest(report_data)
        request = SessionRequest(
            **{
                "task_id": self.task_id,
                "worker": self.worker.address,
                "nonce": nonce,
                "enclave_challenge": enclave.challenge.address,
                "hpke_public_key": enclave.hpke.public.raw,
                "app_digest": APP_DIGEST,
                "evidence": SessionEvidence(made.kind.value, made.payload),
                **changes,
            }
        )
        return request.signed_by(enclave.challenge)

    def call(self, request: SessionRequest, *, signer: PrivateKey | None = None, **changes: Any) -> SessionCall:
        """Add what the host adds."""
        message = scheduler_authorization(request.worker, request.task_id, request.enclave_challenge)
        values: dict[str, Any] = {
            "request": request,
            "scheduler_authorization": (signer or self.pool_owner).sign_message(message),
            "match_transaction": MATCH_TRANSACTION,
            "dataset_order": self.order if self.deal.has_dataset else None,
        }
        return SessionCall(**{**values, **changes})

    def open(self, call: SessionCall) -> tuple[int, dict[str, Any]]:
        """Send a session call."""
        status, body = self.ask("POST", "/enclave/v1/sessions", body=call.to_json())
        return status, json.loads(body)

    def run(self, **changes: Any) -> tuple[int, dict[str, Any], Enclave, SessionRequest]:
        """A whole session with a fresh enclave and nonce."""
        enclave = Enclave()
        request = self.request(enclave, self.nonce(), **changes)
        status, body = self.open(self.call(request))
        return status, body, enclave, request

    def refusal(self, **changes: Any) -> str:
        """Run a session that must be refused; returns the code."""
        status, body, _, _ = self.run(**changes)
        assert status in (403, 404), (status, body)
        return str(body["code"])

    def released(self, **changes: Any) -> Release:
        """Run a session that must succeed; returns what the enclave reads."""
        status, body, enclave, request = self.run(**changes)
        assert status == 200, body
        return self.unseal(parse_session_answer(body), enclave, request)

    def unseal(self, answer: SessionAnswer, enclave: Enclave, request: SessionRequest) -> Release:
        """Verify and open an answer, as the agent does."""
        verify_session_answer(answer, request, self.settings.identity)
        return parse_release(envelope.open(enclave.hpke, answer.sealed, request.context()))


NO_COLLATERAL = Collateral()
