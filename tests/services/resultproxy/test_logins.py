"""The older login: challenge, signature, token; and the key under which tokens are made."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.services.resultproxy.desk import Desk, archive, opened
from tests.support.deployed import DeployedChain

from cloister.errors import ConfigurationError
from cloister.protocol.authorization import build_challenge_header
from cloister.protocol.codec import Bytes32, keccak256
from cloister.protocol.eip712 import Domain, typed_data_digest
from cloister.protocol.signatures import PrivateKey
from cloister.services.database import open_database
from cloister.services.resultproxy.signing_key import create_signing_key, load_signing_key
from cloister.services.resultproxy.store import ResultStore
from cloister.services.resultproxy.tokens import UploadGrant

CHAIN = 421614
TYPES = {"Challenge": (("challenge", "string"),)}


def key(label: str) -> PrivateKey:
    return PrivateKey(keccak256(label.encode()))


def challenge(desk: Desk, address: str) -> dict[str, Any]:
    status, text = desk.ask("GET", f"/results/challenge?chainId={CHAIN}&address={address}")
    assert status == 200, text
    found: dict[str, Any] = json.loads(text)
    return found


def answer(typed: dict[str, Any], signer: PrivateKey) -> bytes:
    domain = Domain(typed["domain"]["name"], typed["domain"]["version"], int(typed["domain"]["chainId"]))
    digest = typed_data_digest(TYPES, "Challenge", domain, typed["message"])
    return build_challenge_header(digest, signer.sign_digest(digest), signer.address).encode()


def log_in(desk: Desk, body: bytes, query: str = f"?chainId={CHAIN}") -> tuple[int, str]:
    return desk.ask("POST", f"/results/login{query}", body=body, headers={"content-type": "text/plain"})


def test_a_signed_challenge_gives_a_token_that_reads_and_does_not_write(desk: Desk) -> None:
    requester = key("requester")
    typed = challenge(desk, requester.address)
    assert typed["domain"] == {"name": "iExec Result Repository", "version": "1", "chainId": str(CHAIN)}
    assert typed["primaryType"] == "Challenge"
    assert len(typed["message"]["challenge"].rpartition(" ")[2]) == 32
    status, token = log_in(desk, answer(typed, requester))
    assert status == 200
    assert token.count(".") == 2
    job = desk.job()
    assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 404
    assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=f"Bearer {token}")[0] == 404
    assert desk.upload(token, job.result(archive()))[0] == 401


def test_a_challenge_is_good_once_and_for_its_address(desk: Desk) -> None:
    owner, thief = key("owner"), key("thief")
    typed = challenge(desk, owner.address)
    assert log_in(desk, answer(typed, thief))[0] == 401
    good = answer(typed, owner)
    assert log_in(desk, b'"' + good + b'"', "")[0] == 200
    assert log_in(desk, good)[0] == 401
    assert challenge(desk, owner.address) != typed
    assert log_in(desk, answer(challenge(desk, owner.address), owner))[0] == 200


def test_of_many_answers_at_once_one_counts(desk: Desk) -> None:
    owner = key("racer")
    body = answer(challenge(desk, owner.address), owner)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(log_in(desk, body)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + 7 * [401]


@pytest.mark.parametrize("body", [b"", b"x", b"0x_0x_0x", b"\xff" * 40, b"_" * 1000])
def test_what_is_no_answer_is_refused(desk: Desk, body: bytes) -> None:
    assert log_in(desk, body)[0] == 401


def test_an_answer_has_a_cap(desk: Desk) -> None:
    assert log_in(desk, b"x" * 2000)[0] == 413


def test_another_chain_or_no_address_is_named(desk: Desk) -> None:
    for query, says in (("?chainId=1&address=0x", "chainId 1"), ("", "address is missing"), ("?address=me", "me")):
        status, text = desk.ask("GET", f"/results/challenge{query}")
        assert (status, says in json.loads(text)["error"]) == (400, True), text
    assert log_in(desk, b"", "?chainId=1")[0] == 400


def test_a_challenge_ends(deployed: DeployedChain, tmp_path: Path) -> None:
    ahead = [0.0]
    with opened(deployed, tmp_path, label="results challenge ends", clock=lambda: time.time() + ahead[0]) as desk:
        owner = key("late")
        body = answer(challenge(desk, owner.address), owner)
        ahead[0] = 301
        assert log_in(desk, body)[0] == 401


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "tokens.key"
    made = create_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert create_signing_key(path).derive("tokens") == made.derive("tokens") != made.derive("challenges")
    assert made.derive("tokens").hex() not in repr(made)
    assert path.read_text().strip() not in repr(made)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="mode 0644"):
        load_signing_key(path)
    for text in ("", "zz" * 32, "11" * 31):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(ConfigurationError, match=r"hex|32 bytes"):
            load_signing_key(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_signing_key(tmp_path / "absent")


def test_the_store_on_both_databases(database_url: str) -> None:
    database = open_database(database_url)
    database.upgrade("resultproxy")
    store = ResultStore(database)
    task, worker, enclave = key("t"), key("w").address, key("e").address
    grant = UploadGrant(Bytes32.from_raw(keccak256(task.address.raw)), worker, enclave)
    assert store.result_of(grant) is None
    assert store.newest(grant.task_id) is None
    assert store.record(grant, "QmA", 3, digest=None, now=1.0) == "QmA"
    assert store.record(grant, "QmB", 3, digest=None, now=2.0) == "QmA"
    other = UploadGrant(grant.task_id, enclave, worker)
    assert store.record(other, "QmC", 3, digest=grant.task_id, now=3.0) == "QmC"
    assert (store.result_of(grant), store.newest(grant.task_id)) == ("QmA", "QmC")
    assert store.logins(worker) == 0
    assert [store.use_login(worker, 0), store.use_login(worker, 0), store.use_login(worker, 1)] == [True, False, True]
    assert store.logins(worker) == 2
    database.close()
