"""Signed requests to a part of our own, over a real socket and a real database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3
from fastapi import APIRouter, Depends
from pydantic import BaseModel

from cloister.protocol.authentication import AuthenticatedRequest, sign_request
from cloister.protocol.signatures import PrivateKey
from cloister.services.application import BackgroundServer, build_application
from cloister.services.authentication import MAX_AGE, RequestAuthenticator
from cloister.services.database import Database, open_database

AUDIENCE = "vault:421614:0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
CALLER = PrivateKey(b"\x01" * 32)
ATTACKER = PrivateKey(b"\x02" * 32)


class Note(BaseModel):
    text: str


class Vault:
    """Tells each caller who they are."""

    name = "vault"

    def __init__(self, database: Database) -> None:
        self._authenticator = RequestAuthenticator(database, AUDIENCE, clock=lambda: self.now)
        self.now = time.time()

    def router(self) -> APIRouter:
        router = APIRouter()
        proven = Depends(self._authenticator)

        @router.post("/vault/{name}")
        def keep(name: str, note: Note, caller: AuthenticatedRequest = proven) -> dict[str, str]:
            return {"name": name, "text": note.text, "caller": str(caller.address)}

        return router

    def start(self) -> None:
        self._authenticator.start()

    def stop(self) -> None: ...

    def check_ready(self) -> None: ...


class Deck:
    def __init__(self, url: str, vault: Vault, database_url: str) -> None:
        self.url = url
        self.vault = vault
        self.database_url = database_url

    def sign(
        self,
        *,
        key: PrivateKey = CALLER,
        target: str = "/vault/a?x=%2F1",
        body: bytes = b'{"text": "hi"}',
        age: int = 0,
    ) -> str:
        return sign_request(
            key,
            audience=AUDIENCE,
            method="POST",
            target="/vault/a?x=%2F1",
            body=b'{"text": "hi"}',
            issued_at=int(self.vault.now) - age,
            nonce=os.urandom(16),
        )

    def ask(
        self, header: str | None, target: str = "/vault/a?x=%2F1", body: bytes = b'{"text": "hi"}'
    ) -> urllib3.BaseHTTPResponse:
        headers = {"content-type": "application/json"}
        if header is not None:
            headers["authorization"] = header
        return urllib3.request("POST", self.url + target, body=body, headers=headers, timeout=10, retries=False)


@pytest.fixture
def deck(database_url: str) -> Iterator[Deck]:
    database = open_database(database_url)
    vault = Vault(database)
    with BackgroundServer(build_application([vault])) as server:
        yield Deck(server.url, vault, database_url)
    database.close()


def test_a_signed_request_names_its_caller_once(deck: Deck) -> None:
    header = deck.sign()
    first = deck.ask(header)
    assert (first.status, first.json()) == (200, {"name": "a", "text": "hi", "caller": str(CALLER.address)})
    again = deck.ask(header)
    assert (again.status, again.json()["code"]) == (401, "replayed")


def test_what_was_not_signed_is_refused(deck: Deck) -> None:
    unsigned = deck.ask(None)
    assert (unsigned.status, unsigned.headers["www-authenticate"]) == (401, "Cloister")
    assert deck.ask(deck.sign(), body=b'{"text": "ho"}').status == 401
    assert deck.ask(deck.sign(), target="/vault/b?x=%2F1").status == 401
    assert deck.ask(deck.sign(), target="/vault/a?x=/1").status == 401
    assert deck.ask(deck.sign(age=MAX_AGE + 5)).status == 401
    forged = deck.sign(key=ATTACKER).split(".")
    forged[0] = f"Cloister {CALLER.address}"
    assert deck.ask(".".join(forged)).status == 401


def test_a_refused_request_does_not_spend_its_nonce(deck: Deck) -> None:
    header = deck.sign()
    assert deck.ask(header, body=b'{"text": "ho"}').status == 401
    assert deck.ask(header).status == 200


def test_a_replay_after_a_restart_is_refused(deck: Deck) -> None:
    header = deck.sign()
    assert deck.ask(header).status == 200
    database = open_database(deck.database_url)
    with BackgroundServer(build_application([Vault(database)])) as reborn:
        assert Deck(reborn.url, deck.vault, deck.database_url).ask(header).status == 401
    database.close()


def test_of_racing_copies_one_is_taken(deck: Deck) -> None:
    header = deck.sign()
    statuses: list[int] = []
    barrier = threading.Barrier(6)

    def race() -> None:
        barrier.wait()
        statuses.append(deck.ask(header).status)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 401, 401, 401, 401, 401]


def test_spent_nonces_are_forgotten_only_when_the_signature_is_too_old_anyway(deck: Deck) -> None:
    header = deck.sign()
    assert deck.ask(header).status == 200
    for _ in range(8):
        deck.vault.now += MAX_AGE / 2
        assert deck.ask(deck.sign()).status == 200
        assert deck.ask(header).status == 401
    database = open_database(deck.database_url)
    with database.read_scope() as session:
        from cloister.services.authentication import request_nonces

        assert len(session.execute(request_nonces.select()).all()) < 9
    database.close()
