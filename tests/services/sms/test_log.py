"""The transparency log and countersigned receipts, over HTTP and on both databases."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.support.sms_world import CHAIN_ID, DATASET, DATASET_KEY, HUB, START, Enclave, World

from cloister.attestation.countersignature import verify_countersignature, verify_log_proof
from cloister.attestation.transparency import fold_root, grow, hash_leaf
from cloister.clients.sms import SmsClient
from cloister.errors import CloisterError, Conflict, Denied, InputError, NotFound, VerificationError
from cloister.protocol import authorization
from cloister.protocol.codec import Address, Bytes32, canonical_json, keccak256
from cloister.protocol.countersigning import CountersignRequest
from cloister.services import sms
from cloister.services.database import open_database
from cloister.services.sms.log_store import LogStore
from cloister.services.sms.store import ReleaseRecord, SessionStore

RECEIPT = Bytes32("0x" + "5e" * 32)
OTHER = Bytes32("0x" + "5f" * 32)
LINE = ReleaseRecord(at=START, outcome="refused", reason="nonce-refused", task_id=Bytes32("0x" + "01" * 32))


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with World(tmp_path, database_url=database_url).serving() as running:
        challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
        running.set_secret("POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, challenge, running.owner)
        yield running


def client(world: World) -> SmsClient:
    return SmsClient(world.url, chain_id=CHAIN_ID, hub=HUB, clock=world.clock)


def read_log(world: World) -> list[dict[str, Any]]:
    """Every entry, proven to make the signed head's root."""
    head = client(world).log_head(world.settings.identity)
    if head.size == 0:
        return []
    entries = client(world).log_entries(0, head.size)
    nodes = grow(0, {}, [hash_leaf(entry) for entry in entries])
    assert fold_root(len(entries), nodes) == head.root
    assert all(canonical_json(json.loads(entry)) == entry for entry in entries)
    return [json.loads(entry) for entry in entries]


def opened(world: World) -> Enclave:
    status, body, enclave, _ = world.run()
    assert status == 200, body
    return enclave


def wish(world: World, enclave: Enclave, digest: Bytes32 = RECEIPT) -> CountersignRequest:
    return CountersignRequest(world.task_id, enclave.challenge.address, digest).signed_by(enclave.challenge)


def test_every_outcome_is_an_entry_that_proves_itself(world: World) -> None:
    empty = client(world).log_head(world.settings.identity)
    assert (empty.size, empty.root) == (0, hashlib.sha256(b"").digest())
    enclave = opened(world)
    assert world.refusal(evidence={"debug": True}) == "debug-enabled"
    opened(world)
    log = read_log(world)
    assert [(entry["index"], entry["outcome"], entry["reason"]) for entry in log] == [
        (0, "released", None),
        (1, "refused", "debug-enabled"),
        (2, "released", None),
    ]
    assert log[0]["enclave_challenge"] == enclave.challenge.address
    assert log[0]["order_hash"] == world.order.hash(world.domain)
    assert log[0]["at"] == START
    rows = list(client(world).releases(DATASET, world.owner))
    assert [row["log_index"] for row in rows] == [entry["index"] for entry in log if entry["dataset"] == DATASET]
    sms_client, head = client(world), client(world).log_head(world.settings.identity)
    assert len(sms_client.log_inclusion(1, 3)) == 2
    assert len(sms_client.log_consistency(2, 3)) == 1
    assert head.timestamp == START
    with pytest.raises(VerificationError):
        sms_client.log_head(world.stranger.address)


def test_what_the_log_does_not_have_is_refused(world: World) -> None:
    world.refusal(evidence={"debug": True})
    heard = {}
    for target in (
        "entries?start=0&end=257",
        "entries?start=1&end=1",
        "entries?start=-1&end=1",
        "entries?start=0",
        "entries?start=5&end=6",
        "inclusion?index=0&size=2",
        "inclusion?index=1&size=1",
        "inclusion?index=0&size=9007199254740992",
        "consistency?first=0&second=1",
        "consistency?first=1&second=2",
        "consistency?first=2&second=1",
    ):
        heard[target], body = world.ask("GET", f"/log/v1/{target}")
        assert heard[target] != 200 or json.loads(body)["entries"] == []
    assert list(heard.values()) == [400, 400, 400, 400, 200, 404, 400, 400, 400, 404, 400], heard
    with pytest.raises(NotFound):
        client(world).log_inclusion(0, 5)
    with pytest.raises(InputError):
        client(world).log_entries(0, 0)


def test_a_receipt_is_countersigned_once_for_the_enclave_that_was_released_to(world: World) -> None:
    first, enclave = opened(world), opened(world)
    asked = wish(world, enclave)
    given = client(world).countersign(asked)
    statement = verify_countersignature(given, sms=world.settings.identity.raw)
    assert statement.receipt == RECEIPT.raw
    assert statement.facts.task_id == world.task_id.raw
    assert statement.facts.challenge == enclave.challenge.address.raw
    assert statement.facts.dataset is not None
    assert statement.facts.dataset.address == DATASET.raw
    assert statement.facts.judgement.appraised_at == START
    assert (statement.log.index, statement.log.size) == (1, 2)
    verify_log_proof(statement)
    world.clock.now += 3600
    assert client(world).countersign(asked) == given, "the same receipt again has the same answer"
    with pytest.raises(Denied, match="no receipt to countersign"):
        client(world).countersign(wish(world, enclave, OTHER))
    late = client(world).countersign(wish(world, first, OTHER))
    assert verify_countersignature(late, sms=world.settings.identity.raw).log.index == 0


def test_nobody_else_has_a_receipt_countersigned_and_all_hear_one_text(world: World) -> None:
    enclave = opened(world)
    refused = Enclave()
    world.open(world.call(world.request(refused, world.nonce(), evidence={"debug": True})))
    sound = wish(world, enclave)
    key = world.stranger
    forged = CountersignRequest(world.task_id, enclave.challenge.address, RECEIPT, key.sign_message(sound.digest()))
    undomained = canonical_json(
        {"task_id": world.task_id, "enclave_challenge": enclave.challenge.address, "receipt_digest": RECEIPT}
    )
    calls = {
        "another signer": forged,
        "a changed digest": CountersignRequest(sound.task_id, sound.enclave_challenge, OTHER, sound.signature),
        "a session that was refused": wish(world, refused),
        "an enclave without a session": wish(world, Enclave()),
        "another task": CountersignRequest(OTHER, enclave.challenge.address, RECEIPT).signed_by(enclave.challenge),
        "without the domain": CountersignRequest(
            sound.task_id, sound.enclave_challenge, RECEIPT, enclave.challenge.sign_message(keccak256(undomained))
        ),
        "no signature": CountersignRequest(sound.task_id, sound.enclave_challenge, RECEIPT, bytes(65)),
    }
    heard = {
        name: world.ask("POST", "/enclave/v1/countersignatures", body=call.to_json()) for name, call in calls.items()
    }
    assert {status for status, _ in heard.values()} == {403}, heard
    assert len({body for _, body in heard.values()}) == 1
    assert client(world).countersign(sound)
    for malformed in (b"", b"[]", b"{}", b'{"task_id":"0x"}', b" " * 5000):
        status, _ = world.ask("POST", "/enclave/v1/countersignatures", body=malformed)
        assert status in (400, 413)


def test_a_restarted_sms_countersigns_what_it_released_before(tmp_path: Path, database_url: str) -> None:
    stopped = World(tmp_path, database_url=database_url)
    with stopped.serving() as world:
        challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
        world.set_secret("POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, challenge, world.owner)
        enclave = opened(world)
        head = client(world).log_head(world.settings.identity)
    with stopped.serving() as world:
        again = client(world).log_head(world.settings.identity)
        assert (again.size, again.root) == (head.size, head.root)
        assert verify_countersignature(client(world).countersign(wish(world, enclave)), sms=world.settings.identity.raw)


def test_a_release_whose_session_cannot_be_kept_leaves_nothing_behind(world: World) -> None:
    """Record, log and session are one transaction: the keys stay here when one of them fails."""
    if world.database.dialect != "sqlite":
        refuse = (
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'full'; END $$",
            "CREATE TRIGGER full_disk BEFORE INSERT ON sms_sessions FOR EACH ROW EXECUTE FUNCTION full_disk()",
        )
    else:
        refuse = ("CREATE TRIGGER full_disk BEFORE INSERT ON sms_sessions BEGIN SELECT RAISE(FAIL, 'full'); END",)
    with world.database.engine.begin() as connection:
        for statement in refuse:
            connection.execute(text(statement))
    status, body, enclave, _ = world.run()
    assert status >= 500 or status == 409, body
    assert "sealed" not in body
    assert [entry["outcome"] for entry in read_log(world)] == ["refused"]
    with pytest.raises(Denied):
        client(world).countersign(wish(world, enclave))


def test_the_database_refuses_to_change_the_log(world: World) -> None:
    opened(world)
    for statement in (
        "UPDATE sms_log_entries SET entry = '{}'",
        "DELETE FROM sms_log_entries",
        "UPDATE sms_log_nodes SET level = 9",
        "DELETE FROM sms_log_nodes",
    ):
        with pytest.raises(DBAPIError), world.database.engine.begin() as connection:
            connection.execute(text(statement))
    assert len(read_log(world)) == 1


def test_many_writers_and_two_replicas_leave_no_gap(database_url: str) -> None:
    replicas = [open_database(database_url), open_database(database_url)]
    replicas[0].upgrade("sms")
    given: list[int] = []
    failures: list[CloisterError] = []

    def write(number: int) -> None:
        store = SessionStore(replicas[number % 2])
        for round_ in range(6):
            try:
                given.extend(store.record(*[LINE] * (1 + (number + round_) % 3)))
            except CloisterError as error:
                failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(given) == list(range(len(given)))
    store = LogStore(replicas[1])
    size, root = store.root()
    entries = store.entries(0, size)
    assert size == len(given) == len(entries)
    assert [json.loads(entry)["index"] for entry in entries] == list(range(size))
    assert fold_root(size, grow(0, {}, [hash_leaf(entry.encode()) for entry in entries])) == root
    with replicas[0].read_scope() as session:
        ids = list(session.execute(text('SELECT release_id FROM sms_log_entries ORDER BY "index"')).scalars())
    assert ids == sorted(ids), "the record and the log have one order"
    for database in replicas:
        database.close()


def test_the_record_of_an_earlier_release_is_taken_into_the_log(database_url: str, tmp_path: Path) -> None:
    database = open_database(database_url)
    versions = Path(str(sms.__path__[0])) / "migrations" / "versions"
    (tmp_path / "before" / "versions").mkdir(parents=True)
    for name in ("v0001_secrets_and_sessions.py", "v0002_challenges.py"):
        shutil.copy(versions / name, tmp_path / "before" / "versions" / name)
    database.upgrade("sms", folder=tmp_path / "before")
    insert = text(
        "INSERT INTO sms_releases (at, outcome, reason, task_id, dataset, simulated)"
        " VALUES (:at, 'refused', :reason, :task_id, :dataset, :simulated)"
    )
    rows = [
        {"at": START + n, "reason": f"r{n}", "task_id": str(OTHER), "dataset": str(DATASET), "simulated": n % 2}
        for n in range(21)
    ]
    with database.engine.begin() as connection:
        connection.execute(insert, rows)
    database.upgrade("sms")
    database.upgrade("sms")
    store = LogStore(database)
    size, root = store.root()
    entries = [json.loads(entry) for entry in store.entries(0, 256)]
    assert [(entry["index"], entry["at"], entry["reason"]) for entry in entries] == [
        (n, START + n, f"r{n}") for n in range(21)
    ]
    assert (entries[1]["simulated"], entries[2]["simulated"], entries[0]["app"]) == (True, False, None)
    hashed = [hash_leaf(entry.encode()) for entry in store.entries(0, 256)]
    assert fold_root(size, grow(0, {}, hashed)) == root
    # What comes behind has the same form, and the tree goes on.
    (index,) = SessionStore(database).record(LINE)
    assert index == 21
    assert set(json.loads(store.entries(21, 22)[0])) == set(entries[0])
    size, root = store.root()
    hashed.append(hash_leaf(store.entries(21, 22)[0].encode()))
    assert fold_root(size, grow(0, {}, hashed)) == root
    (row, *_) = SessionStore(database).releases(Address(DATASET), after=20)
    assert row["log_index"] == 20
    database.close()


def test_a_session_gets_one_receipt_whoever_is_first(world: World) -> None:
    enclave = opened(world)
    answers: list[bytes] = []
    refusals: list[CloisterError] = []

    def ask(digest: Bytes32) -> None:
        try:
            answers.append(client(world).countersign(wish(world, enclave, digest)))
        except (Denied, Conflict) as error:
            refusals.append(error)

    digests = [RECEIPT, OTHER] * 4
    threads = [threading.Thread(target=ask, args=(digest,)) for digest in digests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == len(refusals) == 4
    assert len(set(answers)) == 1
