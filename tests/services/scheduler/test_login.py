"""Logs for the requester alone, with the login that iExec's clients use (reference 3.6), byte by byte over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from sqlalchemy import select
from tests.services.scheduler.deals import key_of
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.scheduler_world import CHAIN_ID, World

from cloister.errors import Unauthenticated
from cloister.protocol.authorization import SCHEDULER_CHALLENGE, build_challenge_header, challenge_digest
from cloister.protocol.codec import Bytes32, to_hex
from cloister.protocol.signatures import PrivateKey
from cloister.services.database import Database
from cloister.services.scheduler.logins import SLOTS, Logins
from cloister.services.scheduler.tables import challenges

NOW = 6_000_000.0


class Visitor:
    """A client of iExec's kind."""

    def __init__(self, url: str, key: PrivateKey) -> None:
        self._url, self._key, self._pool = url, key, urllib3.PoolManager(retries=False, timeout=10)

    def get(self, target: str, login: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {} if login is None else {"Authorization": login}
        answer = self._pool.request("GET", self._url + target, headers=headers)
        return answer.status, json.loads(answer.data)

    def challenge(self, chain_id: int = CHAIN_ID) -> tuple[int, dict[str, Any]]:
        return self.get(f"/tasks/logs/challenge?chainId={chain_id}&address={self._key.address}")

    def login(self) -> str:
        status, told = self.challenge()
        assert status == 200
        assert told["domain"] == {"name": "iExec Core", "version": "1", "chainId": str(CHAIN_ID)}
        assert told["primaryType"] == "Challenge"
        digest = challenge_digest(SCHEDULER_CHALLENGE, CHAIN_ID, told["message"]["challenge"])
        return f"{to_hex(digest)}_{to_hex(self._key.sign_digest(digest))}_{self._key.address}"


@pytest.fixture
def task(deployed: DeployedChain, tmp_path: Path) -> Iterator[tuple[World, Bytes32]]:  # noqa: F811
    """A task with logs, at a running scheduler."""
    world = World(deployed, "login", tmp_path)
    with world.scheduler() as client:
        world.match(dataset=False)
        (lease,) = world.take(client)
        world.calls(client).give_logs(lease.lease_id, stdout="out", stderr="err")
        yield world, lease.task_id


def test_who_reads_logs(task: tuple[World, Bytes32]) -> None:
    world, identifier = task
    target = f"/tasks/{identifier}/logs"
    requester, stranger = Visitor(world.url, world.bazaar.requester), Visitor(world.url, world.bazaar.app_owner)
    login = requester.login()
    status, told = requester.get(target, login)
    assert status == 200
    assert told == {
        "chainTaskId": identifier,
        "computeLogsList": [{"walletAddress": world.workers[0].address, "stdout": "out", "stderr": "err"}],
    }
    status, told = requester.get(target, login)
    assert status == 401, "a login is good once"

    status, told = stranger.get(target, stranger.login())
    assert status == 403
    assert f"only task requester {world.bazaar.requester.address} can access replicates logs" in json.dumps(told)
    assert stranger.get(target)[0] == 401
    digest, signature, _ = stranger.login().split("_")
    assert stranger.get(target, f"{digest}_{signature}_{world.bazaar.requester.address}")[0] == 401
    # A challenge that was given to somebody else, signed by the requester's own key.
    theirs = stranger.login().split("_")[0]
    signed = to_hex(world.bazaar.requester.sign_digest(bytes.fromhex(theirs[2:])))
    assert requester.get(target, f"{theirs}_{signed}_{world.bazaar.requester.address}")[0] == 401
    for broken in ("", "x", "0x_0x_0x", login + "_", "0x" + "00" * 32 + "_0x" + "11" * 65 + "_" + login.split("_")[2]):
        assert requester.get(target, broken)[0] == 401, broken
    unknown = f"/tasks/{Bytes32('0x' + '77' * 32)}/logs"
    assert requester.get(unknown, requester.login())[0] == 404
    assert requester.challenge(chain_id=5)[0] == 400


def test_everybody_sees_the_state(task: tuple[World, Bytes32]) -> None:
    world, identifier = task
    status, told = Visitor(world.url, world.bazaar.app_owner).get(f"/tasks/{identifier}")
    assert status == 200
    assert told["currentStatus"] in ("RECEIVED", "INITIALIZING", "INITIALIZED", "RUNNING")
    assert told["dateStatusList"][0].keys() == {"status", "date"}
    (replicate,) = told["replicates"]
    assert replicate["walletAddress"] == world.workers[0].address
    assert replicate["statusUpdateList"][0]["status"] == "CREATED"
    assert "out" not in json.dumps(told["replicates"])


class TestLogins:
    """The rules of a challenge, on both databases."""

    @pytest.fixture
    def requester(self) -> PrivateKey:
        return key_of("requester")

    def answer(self, typed: dict[str, Any], key: PrivateKey) -> str:
        digest = challenge_digest(SCHEDULER_CHALLENGE, CHAIN_ID, typed["message"]["challenge"])
        return build_challenge_header(digest, key.sign_digest(digest), key.address)

    def open(self, database: Database, label: str = "pool owner") -> Logins:
        return Logins(database, key_of(label), chain_id=CHAIN_ID, seconds=300)

    def test_asking_writes_nothing_and_many_may_be_under_way(self, database: Database, requester: PrivateKey) -> None:
        logins = self.open(database)
        asked = [logins.issue(requester.address, now=NOW) for _ in range(SLOTS)]
        assert len({str(each) for each in asked}) == SLOTS
        with database.read_scope() as session:
            assert session.execute(select(challenges)).all() == []
        for each in (asked[0], asked[-1]):
            assert logins.take(self.answer(each, requester), now=NOW).address == requester.address

    def test_a_challenge_lives_for_minutes_and_is_good_once_among_replicas(
        self, database: Database, requester: PrivateKey
    ) -> None:
        one, two = self.open(database), self.open(database)
        answer = self.answer(one.issue(requester.address, now=NOW), requester)
        two.take(answer, now=NOW + 149)
        for replica in (one, two):
            with pytest.raises(Unauthenticated):
                replica.take(answer, now=NOW + 150)
        late = self.answer(one.issue(requester.address, now=NOW), requester)
        with pytest.raises(Unauthenticated):
            one.take(late, now=NOW + 301)

    def test_what_was_used_is_forgotten_when_it_can_no_longer_be_used(
        self, database: Database, requester: PrivateKey
    ) -> None:
        logins = self.open(database)
        for at in (NOW, NOW + 1000):
            logins.take(self.answer(logins.issue(requester.address, now=at), requester), now=at)
        with database.read_scope() as session:
            assert len(session.execute(select(challenges)).all()) == 1

    def test_another_schedulers_challenge_is_none(self, database: Database, requester: PrivateKey) -> None:
        foreign = self.open(database, "another owner").issue(requester.address, now=NOW)
        with pytest.raises(Unauthenticated):
            self.open(database).take(self.answer(foreign, requester), now=NOW)
