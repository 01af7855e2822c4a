"""A host and an SMS for one enclave at a time: real protocol, sealing and attestation code, no chain.

The SMS here appraises the agent's evidence as the real one does; what it does not do is look at a chain.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from tests.support.countersigner import countersign

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import parse_evidence
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.verify import appraise
from cloister.errors import CloisterError, NotFound
from cloister.generator.bundle import BuiltBundle, build_bundle
from cloister.generator.rehearsal.enclaves import ThrowawayPlatform
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.countersigning import CountersignRequest, verify_countersign_request
from cloister.protocol.releases import Release, ReleasedApp, ReleasedDataset, ResultFormat, build_release
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
from cloister.sealing.keys import ContentFormat, build_content_key, generate_content_key, seal_content
from cloister.services.sms.statements import OpenedSession, describe_session
from cloister.worker.addresses import Addresses
from cloister.worker.connecting import Connector
from cloister.worker.relay import RelayOutcome, RelayTask, run_relay
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec, Platform, Runtime

CHAIN_ID = 421614
HUB = Address("0x" + "11" * 20)
WORKER = Address("0x" + "22" * 20)
REQUESTER = Address("0x" + "33" * 20)
APP = Address("0x" + "44" * 20)
DATASET = Address("0x" + "55" * 20)
APP_LOCATION = "/ipfs/QmApp"
DATASET_LOCATION = "/ipfs/QmDataset"


class TestPlatform:
    """A simulated root and one machine under it."""

    __test__ = False

    def __init__(self) -> None:
        self._made = ThrowawayPlatform()
        self.collateral = self._made.collateral
        self.spec = EnclaveSpec(Platform("simulated", self._made.material))

    @property
    def policy(self) -> EnclavePolicy:
        """Trust the agent as it lies on disk now: its source may be edited while the tests run."""
        return self._made.policy()


class WorldPlatform(Protocol):
    """What enclaves run on, and what the SMS trusts of it."""

    @property
    def spec(self) -> EnclaveSpec: ...

    @property
    def collateral(self) -> Collateral: ...

    @property
    def policy(self) -> EnclavePolicy: ...


@dataclass
class World:
    """One task: what the SMS will release, what the host has, and what came out."""

    platform: WorldPlatform
    bundle: BuiltBundle
    release: Release
    content: dict[str, bytes]
    task_id: Bytes32
    sms: PrivateKey = field(default_factory=lambda: PrivateKey(os.urandom(32)))
    result: bytes = b""
    reports: list[str] = field(default_factory=list)
    updates: list[tuple[int, bytes]] = field(default_factory=list)
    requests: list[SessionRequest] = field(default_factory=list)
    tamper: Callable[[SessionAnswer, SessionRequest], SessionAnswer] = lambda answer, _: answer
    outcome: RelayOutcome | None = None
    opened: OpenedSession | None = None
    receipt_refusal: CloisterError | None = None
    countersigner: PrivateKey | None = None
    """Signs receipts in place of the SMS."""
    refusals: dict[str, CloisterError] = field(default_factory=dict)
    fetched: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    connector: Connector = field(default_factory=lambda: Connector(Addresses()))
    network: bool = True
    nonce_value: Bytes32 = field(default_factory=lambda: Bytes32.from_raw(os.urandom(32)))

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        assert task_id == self.task_id
        return NonceGrant(self.nonce_value, int(time.time()) + 300)

    def session(self, request: SessionRequest) -> SessionAnswer:
        self.requests.append(request)
        verify_session_signature(request)
        binding = ReportBinding(
            chain_id=CHAIN_ID,
            hub=HUB.raw,
            sms=self.sms.address.raw,
            task_id=self.task_id.raw,
            nonce=self.nonce_value.raw,
            app_digest=self.bundle.digest.raw,
            challenge=request.enclave_challenge.raw,
            hpke_key_hash=hashlib.sha256(request.hpke_public_key).digest(),
        )
        appraisal = appraise(
            parse_evidence(request.evidence.kind, request.evidence.payload),
            policy=self.platform.policy,
            expected_report_data=build_report_data(binding),
            expected_app_digest=self.bundle.digest.raw,
            now=int(time.time()),
            collateral=self.platform.collateral,
        )
        self.opened = describe_session(request, self.release, appraisal, self.platform.policy, self.platform.collateral)
        return self.tamper(self.answer(request, self.release), request)

    def countersign(self, request: CountersignRequest) -> bytes:
        assert self.opened is not None
        if self.receipt_refusal is not None:
            raise self.receipt_refusal
        verify_countersign_request(request)
        return countersign(
            self.opened.facts,
            request.receipt_digest.raw,
            self.countersigner or self.sms,
            chain_id=CHAIN_ID,
            hub=HUB.raw,
            issued_at=int(time.time()),
        )

    def answer(self, request: SessionRequest, release: Release) -> SessionAnswer:
        """Seal and sign a release for this request, as the SMS does."""
        sealed = envelope.seal(HpkePublicKey(request.hpke_public_key), build_release(release), request.context())
        message = scheduler_authorization(WORKER, self.task_id, request.enclave_challenge)
        proof = self.sms.sign_message(release_digest(request.context(), sealed))
        return SessionAnswer(sealed, self.sms.sign_message(message), self.sms.address, proof)

    def fetch(
        self, location: str, purpose: str, max_bytes: int, *, seconds: float, ahead: tuple[str, ...]
    ) -> Iterator[bytes]:
        self.fetched.append((location, ahead))
        if location in self.refusals:
            raise self.refusals[location]
        if location not in self.content:
            raise NotFound(f"no {purpose} at {location}")
        data = self.content[location]
        return (data[start : start + 100_000] for start in range(0, len(data), 100_000))

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        self.result = b"".join(chunks)
        assert len(self.result) == size

    def connect(self, host: str, port: int) -> socket.socket:
        return self.connector.connect(host, port)

    def report(self, status: str) -> None:
        self.reports.append(status)

    def progress(self, number: int, update: bytes) -> None:
        self.updates.append((number, update))

    def task(self) -> RelayTask:
        params_files = tuple(location for location in self.content if location.startswith("http"))
        return RelayTask(
            task_id=self.task_id,
            worker=WORKER,
            chain_id=CHAIN_ID,
            hub=HUB,
            sms=self.sms.address,
            app_location=APP_LOCATION,
            app_checksum=self.bundle.digest,
            dataset_location=DATASET_LOCATION if self.release.dataset else None,
            input_files=params_files,
            deadline=int(time.time()) + 60,
            bulk=self.release.bulk is not None,
            network=self.network,
        )

    def run(self, runtime: Runtime, process: EnclaveProcess | None = None) -> RelayOutcome:
        process = process or runtime.launch(self.platform.spec)
        self.outcome = run_relay(process, self.task(), self)
        return self.outcome

    def files(self, archive: bytes | None = None) -> dict[str, bytes]:
        """The files of the opened result archive."""
        with zipfile.ZipFile(io.BytesIO(self.result if archive is None else archive)) as opened:
            return {name: opened.read(name) for name in opened.namelist()}


def write_iapp(folder: Path, code: str, network: tuple[str, ...] = (), **resources: int) -> Path:
    """A source folder of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    limits = {"memory_mib": 256, "disk_mib": 16, "seconds": 20, "processes": 16} | resources
    (folder / "iapp.toml").write_text(
        'name = "tiny"\nversion = "1.0.0"\nentrypoint = "main.py"\nruntime = "python3"\npurposes = ["research"]\n'
        f"network = {list(network)}\n"
        "[resources]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items())
    )
    (folder / "main.py").write_text(code)
    return folder


def build_world(
    platform: WorldPlatform,
    folder: Path,
    code: str,
    *,
    data: bytes | None = None,
    data_format: ContentFormat = ContentFormat.AES256_GCM_HKDF_1MB,
    inputs: dict[str, bytes] | None = None,
    resources: dict[str, int] | None = None,
    network: tuple[str, ...] = (),
    **release: object,
) -> World:
    """Everything for one run of ``code``."""
    bundle = build_bundle(
        write_iapp(folder, code, network, **(resources or {})), folder.parent / f"{folder.name}.bundle"
    )
    content = {APP_LOCATION: bundle.path.read_bytes()} | (inputs or {})
    dataset = None
    if data is not None:
        key = generate_content_key(os.urandom, data_format)
        sealed = b"".join(seal_content(key, [data], entropy=os.urandom))
        content[DATASET_LOCATION] = sealed
        dataset = ReleasedDataset(
            DATASET,
            DATASET_LOCATION,
            Bytes32.from_raw(hashlib.sha256(sealed).digest()),
            build_content_key(key),
            Bytes32("0x" + "66" * 32),
            None,
        )
    task_id = Bytes32.from_raw(os.urandom(32))
    base = Release(
        task_id=task_id,
        deal_id=Bytes32("0x" + "77" * 32),
        index=1,
        bot_first=0,
        bot_size=2,
        chain_id=CHAIN_ID,
        hub=HUB,
        worker=WORKER,
        beneficiary=REQUESTER,
        requester=REQUESTER,
        callback=ZERO_ADDRESS,
        params="{}",
        app=ReleasedApp(APP, APP_LOCATION, bundle.digest),
        dataset=dataset,
        result_format=ResultFormat.PLAIN,
        result_public_key=None,
        deadline=int(time.time()) + 60,
    )
    return World(platform, bundle, replace(base, **release), content, task_id)


HELLO = """
import json, os
with open("/iexec_out/result.txt", "w") as f:
    f.write("hello")
with open("/iexec_out/computed.json", "w") as f:
    json.dump({"deterministic-output-path": "/iexec_out/result.txt"}, f)
"""
