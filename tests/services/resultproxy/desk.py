"""What tests of the result proxy share: the service on a socket, a deal with many tasks, workers and enclaves."""

from __future__ import annotations

import base64
import io
import itertools
import json
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from tests.support.anvil import CHAIN_ID
from tests.support.deployed import Bazaar, DeployedChain

from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, keccak256, to_hex
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import task_id as task_id_of
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import open_database
from cloister.services.resultproxy.ledger import ChainResultLedger
from cloister.services.resultproxy.part import build_result_proxy_part
from cloister.services.resultproxy.settings import ResultProxySettings
from cloister.services.resultproxy.signing_key import create_signing_key
from cloister.storage.local import LocalStore

TASKS = 40


def archive(text: str = "the result", *, size: int = 0) -> bytes:
    """A ZIP archive with one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr(zipfile.ZipInfo("result.txt"), text + "." * size)
    return file.getvalue()


@dataclass
class Job:
    """One task, a worker with an authorization for it, and an enclave."""

    deal_id: Bytes32
    index: int
    worker: PrivateKey
    pool_owner: PrivateKey
    enclave: PrivateKey | None
    digest: Bytes32 = field(default_factory=lambda: Bytes32.from_raw(keccak256(b"a result")))

    @property
    def task_id(self) -> Bytes32:
        return task_id_of(self.deal_id, self.index)

    @property
    def challenge(self) -> Address:
        return self.enclave.address if self.enclave else ZERO_ADDRESS

    @property
    def message(self) -> bytes:
        return scheduler_authorization(self.worker.address, self.task_id, self.challenge)

    def authorization(self, **changes: Any) -> dict[str, Any]:
        return {
            "chainTaskId": self.task_id,
            "dealId": self.deal_id,
            "taskIndex": self.index,
            "workerWallet": self.worker.address,
            "enclaveChallenge": self.challenge,
            "signature": {"value": to_hex(self.pool_owner.sign_message(self.message))},
            **changes,
        }

    def enclave_signature(self) -> str:
        hashed = result_hash(self.task_id, self.digest)
        seal = result_seal(self.worker.address, self.task_id, self.digest)
        signer = self.enclave or self.worker
        return to_hex(signer.sign_message(enclave_message(hashed, seal)))

    def result(self, content: bytes, **changes: Any) -> dict[str, Any]:
        return {
            "chainTaskId": self.task_id,
            "dealId": self.deal_id,
            "taskIndex": self.index,
            "image": "image",
            "cmd": None,
            "zip": base64.b64encode(content).decode(),
            "deterministHash": self.digest,
            "enclaveSignature": self.enclave_signature(),
            **changes,
        }


class Desk:
    """The service, and a deal whose tasks are handed out one after the other."""

    def __init__(self, chain: DeployedChain, bazaar: Bazaar, deal_id: Bytes32, url: str, store: LocalStore) -> None:
        self.chain, self.bazaar, self.deal_id, self.url, self.store = chain, bazaar, deal_id, url, store
        self._indexes = itertools.count()

    def job(self, *, initialize: bool = True, **changes: Any) -> Job:
        index = next(self._indexes)
        if initialize:
            self.chain.send(self.chain.hub.initialize(self.deal_id, index), self.bazaar.worker)
        enclave = PrivateKey(keccak256(b"enclave" + self.deal_id.raw + bytes([index])))
        return Job(
            **{
                "deal_id": self.deal_id,
                "index": index,
                "worker": self.bazaar.worker,
                "pool_owner": self.bazaar.pool_owner,
                "enclave": enclave,
                **changes,
            }
        )

    def ask(self, method: str, path: str, *, token: str | None = None, **more: Any) -> tuple[int, str]:
        headers = {"authorization": token} if token is not None else {}
        answer = urllib3.request(
            method, self.url + path, headers=headers | more.pop("headers", {}), timeout=20, retries=False, **more
        )
        return answer.status, answer.data.decode()

    def ask_token(self, job: Job, *, header: str | None = "", **changes: Any) -> tuple[int, str]:
        signature = to_hex(job.worker.sign_message(job.message)) if header == "" else header
        body = json.dumps(job.authorization(**changes)).encode()
        return self.ask("POST", "/v1/results/token", token=signature, body=body)

    def token(self, job: Job) -> str:
        status, text = self.ask_token(job)
        assert status == 200, text
        return text

    def upload(self, token: str | None, result: dict[str, Any]) -> tuple[int, str]:
        return self.ask("POST", "/v1/results", token=token, body=json.dumps(result).encode())

    def read(self, location: str) -> bytes:
        return b"".join(self.store.open(location))


@contextmanager
def opened(
    chain: DeployedChain, folder: Path, *, label: str, clock: Any = time.time, **settings: Any
) -> Iterator[Desk]:
    bazaar = Bazaar(chain, label)
    deal_id, _ = bazaar.match(bazaar.orders(volume=TASKS))
    with serving(chain, folder, clock=clock, **settings) as (url, store):
        yield Desk(chain, bazaar, deal_id, url, store)


@contextmanager
def serving(
    chain: DeployedChain, folder: Path, *, clock: Any = time.time, **settings: Any
) -> Iterator[tuple[str, LocalStore]]:
    """The service over the files in ``folder``."""
    configured = ResultProxySettings(chain_id=CHAIN_ID, hub=chain.deployment.hub, **settings)
    database, store = open_database(folder / "resultproxy.db"), LocalStore(folder / "content")
    part = build_result_proxy_part(
        configured,
        database=database,
        ledger=ChainResultLedger(chain.rpc, chain.deployment.hub, max_head_age=configured.max_head_age, clock=clock),
        content=store,
        signing_key=create_signing_key(folder / "tokens.key"),
        clock=clock,
    )
    with BackgroundServer(build_application([part])) as server:
        yield server.url, store
    store.close()
    database.close()
