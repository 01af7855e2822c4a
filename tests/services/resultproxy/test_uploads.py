"""Results over HTTP on a real chain: who may bring one, and what is taken."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from tests.services.resultproxy.desk import Desk, Job, archive, opened, serving
from tests.support.deployed import DeployedChain

from cloister.chain.contracts import ContributionAndResult
from cloister.protocol.codec import ZERO_ADDRESS, Bytes32, keccak256, to_hex
from cloister.protocol.results import build_results_location, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import NO_TAG
from cloister.services.resultproxy.signing_key import create_signing_key

STRANGER = PrivateKey(keccak256(b"a stranger"))
OTHER = Bytes32.from_raw(keccak256(b"another result"))


def test_a_result_comes_in_and_is_found(desk: Desk) -> None:
    job = desk.job()
    token = desk.token(job)
    assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 404
    assert desk.ask("GET", f"/v1/results/{job.task_id}/ipfshash")[0] == 404
    status, location = desk.upload(token, job.result(archive()))
    assert status == 200, location
    assert location.startswith("/ipfs/Qm")
    assert desk.read(location) == archive()
    assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 204
    assert desk.ask("HEAD", f"/v1/results/{job.task_id.upper().replace('0X', '0x')}", token=token)[0] == 204
    assert desk.ask("GET", f"/v1/results/{job.task_id}/ipfshash") == (200, location.removeprefix("/ipfs/"))


def test_an_array_of_bytes_is_the_same_archive(desk: Desk) -> None:
    job = desk.job()
    content = archive(size=70_000)
    spread = {"zip": list(content), **{k: v for k, v in job.result(content).items() if k != "zip"}}
    status, location = desk.upload(desk.token(job), spread)
    assert status == 200, location
    assert desk.read(location) == content


def test_one_authorization_brings_one_result(desk: Desk) -> None:
    job = desk.job()
    token = desk.token(job)
    first = desk.upload(token, job.result(archive("one")))
    assert first[0] == 200
    assert desk.upload(desk.token(job), job.result(archive("one"))) == first
    status, text = desk.upload(token, job.result(archive("two")))
    assert (status, json.loads(text)["code"]) == (409, "result-exists")
    assert desk.ask("GET", f"/v1/results/{job.task_id}/ipfshash")[1] == first[1].removeprefix("/ipfs/")


def test_a_task_that_was_leased_again_may_bring_its_result_again(desk: Desk) -> None:
    first = desk.job()
    again = dataclasses.replace(first, enclave=PrivateKey(keccak256(b"a second enclave")))
    assert desk.upload(desk.token(first), first.result(archive("one")))[0] == 200
    status, location = desk.upload(desk.token(again), again.result(archive("two")))
    assert status == 200
    assert desk.ask("GET", f"/v1/results/{first.task_id}/ipfshash")[1] == location.removeprefix("/ipfs/")


def test_uploads_of_one_authorization_at_once_agree(desk: Desk) -> None:
    job = desk.job()
    token = desk.token(job)
    answers: list[tuple[int, str]] = []

    def bring(n: int) -> None:
        answers.append(desk.upload(token, job.result(archive(f"number {n}"))))

    threads = [threading.Thread(target=bring, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(status for status, _ in answers) == [200, 409, 409, 409, 409, 409]


class TestTokens:
    def test_the_teebroker_may_authorize(self, desk: Desk) -> None:
        broker = PrivateKey(keccak256(b"the broker"))
        chain = desk.chain
        chain.send(chain.hub.set_teebroker(broker.address), chain.deployer)
        try:
            job = desk.job(pool_owner=broker)
            assert desk.ask_token(job)[0] == 200
        finally:
            chain.send(chain.hub.set_teebroker(ZERO_ADDRESS), chain.deployer)
        assert desk.ask_token(job)[0] == 401

    @pytest.mark.parametrize(
        "changes",
        [
            {"workerWallet": STRANGER.address},
            {"enclaveChallenge": STRANGER.address},
            {"enclaveChallenge": ZERO_ADDRESS},
            {"enclaveChallenge": None},
            {"signature": {"value": "0x" + "11" * 65}},
            {"signature": {"value": to_hex(STRANGER.sign_message(b"1" * 32))}},
        ],
    )
    def test_another_authorization_than_was_signed_is_none(self, desk: Desk, changes: dict[str, Any]) -> None:
        status, text = desk.ask_token(_shared_job(desk), **changes)
        assert (status, json.loads(text)["code"]) == (401, "unauthenticated")

    @pytest.mark.parametrize("header", [None, "0x", "Bearer x", "0x" + "00" * 65, "0x" + "11" * 64, "é"])
    def test_the_worker_signs_too(self, desk: Desk, header: str | None) -> None:
        assert desk.ask_token(_shared_job(desk), header=header)[0] == 401

    def test_a_worker_without_its_pools_word_gets_nothing(self, desk: Desk) -> None:
        own = dataclasses.replace(_shared_job(desk), pool_owner=desk.bazaar.worker)
        assert desk.ask_token(own)[0] == 401

    def test_a_pools_word_is_not_enough_without_the_worker(self, desk: Desk) -> None:
        job = _shared_job(desk)
        assert desk.ask_token(job, header=to_hex(STRANGER.sign_message(job.message)))[0] == 401

    def test_a_task_that_does_not_exist_or_was_not_begun_gets_none(self, desk: Desk) -> None:
        assert desk.ask_token(desk.job(initialize=False))[0] == 401
        assert desk.ask_token(dataclasses.replace(_shared_job(desk), deal_id=OTHER, index=0))[0] == 401

    @pytest.mark.parametrize(
        "changes",
        [
            {"chainTaskId": "0x12"},
            {"workerWallet": "me"},
            {"signature": "0x"},
            {"signature": {"value": 1}},
            {"signature": {"value": "0x11"}},
            {"dealId": "0x" + "11" * 32},
            {"taskIndex": 10**9},
            {"taskIndex": -1},
            {"more": 1},
        ],
    )
    def test_malformed_authorizations_are_named(self, desk: Desk, changes: dict[str, Any]) -> None:
        status, text = desk.ask_token(_shared_job(desk), **changes)
        assert status == 400
        assert json.loads(text)["error"]

    def test_a_body_has_a_cap(self, desk: Desk) -> None:
        status, _ = desk.ask("POST", "/v1/results/token", token="0x", body=b" " * 20_000)
        assert status == 413

    def test_only_our_live_tokens_for_this_hub_count(self, desk: Desk, tmp_path: Path) -> None:
        job = _shared_job(desk)
        good = desk.token(job)
        key = create_signing_key(tmp_path / "another.key").derive("tokens")
        claims = jwt.decode(good, options={"verify_signature": False})
        head, payload, _ = good.split(".")
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
        bad = [
            None,
            "",
            "x",
            "a.b.c",
            good[:-2],
            f"{head}.{payload}.",
            f"{none}.{payload}.",
            jwt.encode(claims, key, algorithm="HS256"),
            good + "x" * 3000,
        ]
        for token in bad:
            assert desk.upload(token, job.result(archive()))[0] == 401, token
            assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 401

    def test_a_token_ends(self, deployed: DeployedChain, tmp_path: Path) -> None:
        ahead = [0.0]
        with opened(
            deployed,
            tmp_path,
            label="results tokens end",
            clock=lambda: time.time() + ahead[0],
            max_head_age=10**6,
            upload_token_seconds=60,
        ) as desk:
            job = desk.job()
            token = desk.token(job)
            ahead[0] = 59
            assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 404
            ahead[0] = 61
            assert desk.upload(token, job.result(archive()))[0] == 401

    def test_a_chain_that_stands_still_is_not_believed(self, deployed: DeployedChain, tmp_path: Path) -> None:
        ahead = [0.0]
        with opened(deployed, tmp_path, label="results chain behind", clock=lambda: time.time() + ahead[0]) as desk:
            job = desk.job()
            ahead[0] = 500
            status, text = desk.ask_token(job)
            assert (status, json.loads(text)["code"]) == (503, "chain-behind")


class TestResults:
    @pytest.mark.parametrize(
        ("changes", "status", "says"),
        [
            ({"chainTaskId": OTHER}, 400, "another task"),
            ({"chainTaskId": "0x12"}, 400, "chainTaskId"),
            ({"dealId": OTHER}, 400, "deal and index"),
            ({"taskIndex": 10**6}, 400, "deal and index"),
            ({"deterministHash": OTHER}, 403, "signed by"),
            ({"deterministHash": ""}, 403, "not signed by its enclave"),
            ({"deterministHash": "0x" + "00" * 32}, 403, "not signed by its enclave"),
            ({"deterministHash": "0x11"}, 400, "deterministHash"),
            ({"deterministHash": 7}, 400, "deterministHash"),
            ({"enclaveSignature": "0x" + "00" * 65}, 403, "not signed by its enclave"),
            ({"enclaveSignature": None}, 403, "not signed by its enclave"),
            ({"enclaveSignature": "0x" + "11" * 65}, 403, ""),
            ({"enclaveSignature": "0x1122"}, 400, "enclaveSignature"),
            ({"zip": base64.b64encode(b"no archive").decode()}, 400, "not a ZIP"),
            ({"zip": ""}, 400, "not a ZIP"),
            ({"zip": []}, 400, "not a ZIP"),
            ({"zip": [80, 75, 3, 4, 256]}, 400, "array of bytes"),
            ({"zip": None}, 400, "not valid json"),
            ({"zip": base64.b64encode(archive(size=1024 * 1024)).decode()}, 413, "larger"),
        ],
    )
    def test_a_result_that_does_not_fit_its_authorization_is_refused(
        self, desk: Desk, changes: dict[str, Any], status: int, says: str
    ) -> None:
        job = _shared_job(desk)
        used = desk.store.used()
        got, text = desk.upload(desk.token(job), job.result(archive(), **changes))
        assert (got, says in json.loads(text)["error"]) == (status, True), text
        assert desk.store.used() == used
        assert desk.ask("GET", f"/v1/results/{job.task_id}/ipfshash")[0] == 404

    def test_a_signature_of_another_enclave_is_refused(self, desk: Desk) -> None:
        job = _shared_job(desk)
        forged = dataclasses.replace(job, enclave=STRANGER)
        assert desk.upload(desk.token(job), forged.result(archive()))[0] == 403

    def test_a_deal_and_index_may_be_left_out(self, desk: Desk) -> None:
        job = desk.job()
        result = job.result(archive(), dealId="0x" + "00" * 32, taskIndex=0)
        del result["cmd"]
        assert desk.upload(desk.token(job), result)[0] == 200

    def test_unsigned_results_need_the_operators_word(self, deployed: DeployedChain, tmp_path: Path) -> None:
        with opened(deployed, tmp_path, label="results unsigned", allow_unsigned_results=True) as desk:
            job = desk.job()
            half = job.result(archive(), enclaveSignature="0x")
            assert desk.upload(desk.token(job), half)[0] == 403
            empty = {"deterministHash": "0x" + "00" * 32, "enclaveSignature": "0x" + "00" * 65}
            assert desk.upload(desk.token(job), job.result(archive(), **empty))[0] == 200

    def test_a_finished_task_takes_nothing(self, desk: Desk) -> None:
        job = desk.job()
        token = desk.token(job)
        _finish(desk, job)
        status, text = desk.upload(token, job.result(archive()))
        assert (status, json.loads(text)["code"]) == (401, "task-not-active")
        assert desk.ask_token(job)[0] == 401

    def test_a_task_that_is_finished_while_its_result_comes_in_takes_nothing(self, desk: Desk) -> None:
        job = desk.job()
        token = desk.token(job)
        body = json.dumps(job.result(archive())).encode()
        with _sending(desk, token, len(body)) as peer:
            peer.sendall(body[:-10])
            time.sleep(0.2)
            _finish(desk, job)
            peer.sendall(body[-10:])
            assert b" 401 " in peer.recv(4096).partition(b"\r\n")[0]
        assert desk.ask("GET", f"/v1/results/{job.task_id}/ipfshash")[0] == 404

    def test_a_broken_upload_leaves_nothing(self, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
        job = desk.job()
        token = desk.token(job)
        body = json.dumps(job.result(archive(size=300_000))).encode()
        used = desk.store.used()
        with caplog.at_level(logging.INFO):
            with _sending(desk, token, len(body)) as peer:
                peer.sendall(body[:250_000])
                time.sleep(0.1)
            for _ in range(500):
                if any('"status": 499' in record.getMessage() for record in caplog.records):
                    break
                time.sleep(0.01)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert desk.upload(token, job.result(archive()))[0] == 200
        assert desk.store.used() < used + 10_000

    def test_a_slow_upload_is_not_followed_for_ever(self, deployed: DeployedChain, tmp_path: Path) -> None:
        with opened(deployed, tmp_path, label="results slow", rate_grace=0.1, min_rate=10**6) as desk:
            job = desk.job()
            body = json.dumps(job.result(archive())).encode()
            with _sending(desk, desk.token(job), len(body)) as peer:
                peer.sendall(body[:50])
                time.sleep(0.3)
                peer.sendall(body[50:60])
                told = b""
                while b"too slow" not in told and (more := peer.recv(4096)):  # head and body may come apart
                    told += more
            assert b" 400 " in told.partition(b"\r\n")[0]
            assert b"too slow" in told

    def test_agreed_results_come_in_after_the_reveal(self, desk: Desk) -> None:
        chain, bazaar = desk.chain, desk.bazaar
        app, data, _, request = bazaar.orders()
        pool = chain.workerpool_order(bazaar.pool_owner, bazaar.pool, trust=2)
        request = chain.request_order(
            bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpool=bazaar.pool, trust=2
        )
        deal_id, _ = bazaar.match((app, data, pool, request))
        chain.send(chain.hub.initialize(deal_id, 0), bazaar.worker)
        job = Job(deal_id, 0, bazaar.worker, bazaar.pool_owner, PrivateKey(keccak256(b"an enclave")))
        hashed, seal = (
            result_hash(job.task_id, job.digest),
            result_seal(job.worker.address, job.task_id, job.digest),
        )
        sign, authorization = bytes.fromhex(job.enclave_signature()[2:]), bazaar.pool_owner.sign_message(job.message)
        # With a trust of 2 one contribution is a consensus.
        chain.send(chain.hub.contribute(job.task_id, hashed, seal, job.challenge, sign, authorization), job.worker)
        chain.send(chain.hub.reveal(job.task_id, job.digest), job.worker)
        token = desk.token(job)
        dissent = dataclasses.replace(job, digest=OTHER)
        status, text = desk.upload(token, dissent.result(archive()))
        assert (status, json.loads(text)["code"]) == (403, "wrong-digest")
        assert desk.upload(token, job.result(archive()))[0] == 200


def test_what_was_acknowledged_outlives_the_process(deployed: DeployedChain, tmp_path: Path) -> None:
    with opened(deployed, tmp_path, label="results again") as desk:
        job = desk.job()
        token = desk.token(job)
        _, location = desk.upload(token, job.result(archive()))
    with serving(deployed, tmp_path) as (url, store):
        desk.url = url
        assert desk.ask("HEAD", f"/v1/results/{job.task_id}", token=token)[0] == 204
        assert b"".join(store.open(location)) == archive()


def test_a_deal_without_enclave_needs_no_enclave(desk: Desk) -> None:
    chain, bazaar = desk.chain, desk.bazaar
    deal_id, _ = bazaar.match(
        (
            chain.app_order(bazaar.app_owner, bazaar.app, tag=NO_TAG),
            None,
            chain.workerpool_order(bazaar.pool_owner, bazaar.pool, tag=NO_TAG),
            chain.request_order(bazaar.requester, bazaar.app, workerpool=bazaar.pool, tag=NO_TAG),
        )
    )
    chain.send(chain.hub.initialize(deal_id, 0), bazaar.worker)

    job = Job(deal_id, 0, bazaar.worker, bazaar.pool_owner, enclave=None)
    token = desk.token(job)
    assert desk.upload(token, job.result(archive()))[0] == 403
    assert desk.upload(token, job.result(archive(), enclaveSignature="0x"))[0] == 200


def _shared_job(desk: Desk) -> Job:
    """A task of this module's that never gets a result."""
    found: Job | None = getattr(desk, "shared", None)
    if found is None:
        found = desk.job()
        desk.shared = found  # type: ignore[attr-defined]
    return found


def _finish(desk: Desk, job: Job) -> None:
    chain = desk.chain
    results = build_results_location("ipfs", "/ipfs/QmResult")
    sign, authorization = bytes.fromhex(job.enclave_signature()[2:]), job.pool_owner.sign_message(job.message)
    item = ContributionAndResult(job.task_id, job.digest, results, b"", job.challenge, sign, authorization)
    chain.send(chain.hub.contribute_and_finalize(item), job.worker)


def _sending(desk: Desk, token: str, length: int) -> socket.socket:
    parts = urlsplit(desk.url)
    peer = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    head = f"POST /v1/results HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Length: {length}\r\n\r\n"
    peer.sendall(head.encode())
    return peer
