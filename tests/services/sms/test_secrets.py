"""iExec's REST, status by status (reference 3.2), and what a copied header or a copied row is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.sms_world import APP, DATASET, World

from cloister.errors import LocalError
from cloister.protocol import authorization
from cloister.protocol.authentication import sign_request
from cloister.protocol.codec import Address, to_hex
from cloister.protocol.signatures import PrivateKey
from cloister.services.sms.kek import load_local_kek
from cloister.services.sms.ledger import Head
from cloister.services.sms.store import SecretStore
from cloister.services.sms.vault import SecretKind, SecretName


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with World(tmp_path, database_url=database_url).serving() as running:
        yield running


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[World]:
    """On SQLite: for tests that edit rows or look into files."""
    with World(tmp_path).serving() as running:
        yield running


WEB3 = f"/secrets/web3?secretAddress={DATASET}"


def web2(owner: Address, name: str = "token") -> str:
    return f"/secrets/web2?ownerAddress={owner}&secretName={name}"


def set_web2(world: World, method: str, value: str, key: PrivateKey | None = None) -> int:
    owner = world.requester.address
    challenge = authorization.sms_web2_challenge(owner, "token", value)
    return world.set_secret(method, web2(owner), value, challenge, key or world.requester)[0]


def set_web3(world: World, value: str, key: PrivateKey | None = None) -> int:
    challenge = authorization.sms_web3_challenge(DATASET, value)
    return world.set_secret("POST", WEB3, value, challenge, key or world.owner)[0]


def test_dataset_secret(world: World) -> None:
    assert world.ask("HEAD", WEB3)[0] == 404
    assert set_web3(world, "key", world.stranger) == 401
    assert set_web3(world, "x" * 4097) == 413
    assert set_web3(world, "x" * 4096) == 204
    assert world.ask("HEAD", WEB3) == (204, b"")
    assert set_web3(world, "other") == 409
    same = "x" * 4096
    challenge = authorization.sms_web3_challenge(DATASET, same)
    status, body = world.set_secret("POST", WEB3, same, challenge, world.owner)
    assert (status, json.loads(body)["code"]) == (409, "already-set-same")


def test_dataset_secret_of_an_address_without_a_contract(world: World) -> None:
    nobody = Address("0x" + "5c" * 20)
    challenge = authorization.sms_web3_challenge(nobody, "key")
    assert world.set_secret("POST", f"/secrets/web3?secretAddress={nobody}", "key", challenge, world.owner)[0] == 401


def test_web2_secret(world: World) -> None:
    target = web2(world.requester.address)
    assert world.ask("HEAD", target)[0] == 404
    assert set_web2(world, "PUT", "one") == 404
    assert set_web2(world, "POST", "one", world.stranger) == 401
    assert set_web2(world, "POST", "one") == 204
    assert world.ask("HEAD", target)[0] == 204
    assert set_web2(world, "POST", "two") == 409
    assert set_web2(world, "PUT", "one") == 204
    assert set_web2(world, "PUT", "two") == 204
    assert set_web2(world, "PUT", "x" * 4097) == 413


def test_app_secret(world: World) -> None:
    target = f"/apps/{APP}/secrets"
    challenge = authorization.sms_app_challenge(APP, "value")
    assert world.ask("HEAD", target)[0] == 404
    status, body = world.set_secret("POST", target, "value", challenge, world.stranger)
    assert (status, json.loads(body)["data"]) == (401, None)
    assert isinstance(json.loads(body)["error"], list)
    assert world.set_secret("POST", target, "value", challenge, world.app_owner)[0] == 204
    assert world.ask("HEAD", target)[0] == 204
    status, body = world.set_secret("POST", target, "value", challenge, world.app_owner)
    assert (status, json.loads(body)["data"]) == (409, None)
    long = "x" * 4097
    challenge = authorization.sms_app_challenge(APP, long)
    assert world.set_secret("POST", target, long, challenge, world.app_owner)[0] == 413


def test_requester_secret(world: World) -> None:
    who = world.requester.address
    target = f"/requesters/{who}/secrets/my-name_1"
    challenge = authorization.requester_secret_challenge(who, "my-name_1", "value")
    assert world.ask("HEAD", target)[0] == 404
    assert world.set_secret("POST", target, "value", challenge, world.stranger)[0] == 401
    assert world.set_secret("POST", target, "value", challenge, world.requester)[0] == 204
    assert world.ask("HEAD", target)[0] == 204
    assert world.set_secret("POST", target, "value", challenge, world.requester)[0] == 409
    for name in ("a" * 65, "with.dot", "sp%20ace"):
        bad = f"/requesters/{who}/secrets/{name}"
        assert world.set_secret("POST", bad, "value", challenge, world.requester)[0] == 400
    long = "x" * 4097
    challenge = authorization.requester_secret_challenge(who, "long", long)
    assert world.set_secret("POST", f"/requesters/{who}/secrets/long", long, challenge, world.requester)[0] == 400


@pytest.mark.parametrize("header", ["", "0x", "0x" + "00" * 65, "Bearer x", "0x" + "ff" * 64, "\u00e9"])
def test_malformed_headers_read_like_wrong_signers(world: World, header: str) -> None:
    expected = world.set_secret("POST", WEB3, "v", authorization.sms_web3_challenge(DATASET, "v"), world.stranger)
    headers = {"authorization": header.encode("utf-8").decode("latin-1")}
    assert world.ask("POST", WEB3, body=b"v", headers=headers) == expected
    assert world.ask("POST", WEB3, body=b"v") == expected


def test_bad_addresses_and_bodies(world: World) -> None:
    assert world.ask("HEAD", "/secrets/web3?secretAddress=0x12")[0] == 400
    assert world.ask("HEAD", "/secrets/web3")[0] == 400
    assert set_web3(world, "") == 400
    assert world.ask("POST", WEB3, body=b"x" * 70_000)[0] == 413


def test_not_utf8_is_nobodys_secret(world: World) -> None:
    headers = {"authorization": to_hex(world.owner.sign_message(bytes(32)))}
    assert world.ask("POST", WEB3, body=b"\xff\xfe", headers=headers)[0] == 401


def test_replaying_an_older_value_does_not_roll_back(world: World) -> None:
    assert set_web2(world, "POST", "old") == 204
    assert set_web2(world, "PUT", "new") == 204
    assert set_web2(world, "PUT", "old") == 401


def test_replaying_a_set_after_erasure_is_refused(world: World) -> None:
    assert set_web2(world, "POST", "value") == 204
    owner = world.requester.address
    assert erase(world, web2(owner), world.stranger) == 403
    assert erase(world, web2(owner), world.requester) == 204
    assert world.ask("HEAD", web2(owner))[0] == 404
    assert set_web2(world, "POST", "value") == 401
    assert set_web2(world, "POST", "another") == 204


def erase(world: World, target: str, key: PrivateKey, nonce: bytes | None = None) -> int:
    header = sign_request(
        key,
        audience=world.settings.audience,
        method="DELETE",
        target=target,
        body=b"",
        issued_at=int(world.clock.now),
        nonce=nonce or key.address.raw[:16],
    )
    return world.ask("DELETE", target, headers={"authorization": header})[0]


def test_erasing_needs_a_fresh_signed_request(world: World) -> None:
    assert set_web2(world, "POST", "value") == 204
    target = web2(world.requester.address)
    assert world.ask("DELETE", target)[0] == 401
    assert erase(world, target, world.requester, b"n" * 16) == 204
    assert set_web2(world, "POST", "another") == 204
    assert erase(world, target, world.requester, b"n" * 16) == 401


def test_owner_checks_need_a_recent_chain(world: World) -> None:
    world.ledger.block = Head(100, int(world.clock.now) - 1000)
    assert set_web3(world, "key") == 503
    world.ledger.block = Head(100, int(world.clock.now))
    assert set_web3(world, "key") == 204


def test_tee_paths(world: World) -> None:
    assert world.ask("GET", "/tee/framework") == (200, b'"TDX"')
    status, body = world.ask("GET", "/tee/properties/TDX/v1")
    assert status == 200
    assert json.loads(body)["warning"] == "SIMULATED: not confidential against the host"
    assert world.ask("GET", "/tee/properties/TDX")[0] == 200
    assert world.ask("GET", "/tee/properties/TDX/v9")[0] == 404
    assert world.ask("GET", "/tee/properties/SCONE/v1")[0] == 409
    assert world.ask("POST", "/tee/challenges/0x00")[0] == 401
    assert world.ask("POST", "/tee/sessions", body={})[0] == 401


@pytest.fixture
def store(file_world: World) -> SecretStore:
    store = SecretStore(file_world.database, load_local_kek(file_world.kek_path))
    store.start()
    return store


def test_nothing_readable_lies_on_disk(file_world: World) -> None:
    assert set_web3(file_world, "a very recognisable secret") == 204
    for file in file_world.folder.iterdir():
        assert b"a very recognisable secret" not in file.read_bytes()


def tamper(file_world: World, statement: str) -> None:
    with file_world.database.session_scope() as session:
        session.connection().exec_driver_sql(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sms_secrets SET ciphertext = zeroblob(length(ciphertext))",
        "UPDATE sms_secrets SET version = version + 1",
        "UPDATE sms_secrets SET wrapped_key = zeroblob(length(wrapped_key))",
        "UPDATE sms_secrets SET nonce = zeroblob(12)",
    ],
)
def test_changed_rows_do_not_open(file_world: World, store: SecretStore, statement: str) -> None:
    assert set_web2(file_world, "POST", "value") == 204
    name = SecretName(SecretKind.WEB2, file_world.requester.address, "token")
    assert store.read(name) == b"value"
    tamper(file_world, statement)
    with pytest.raises(LocalError):
        store.read(name)


def test_a_row_moved_to_another_owner_does_not_open(file_world: World, store: SecretStore) -> None:
    assert set_web2(file_world, "POST", "value") == 204
    tamper(file_world, "UPDATE sms_secrets SET owner = '0x" + str(file_world.stranger.address)[2:] + "'")  # noqa: S608 - an address
    with pytest.raises(LocalError):
        store.read(SecretName(SecretKind.WEB2, file_world.stranger.address, "token"))


def test_the_key_file_is_guarded(file_world: World, tmp_path: Path) -> None:
    assert file_world.kek_path.stat().st_mode & 0o777 == 0o600
    file_world.kek_path.chmod(0o640)
    with pytest.raises(LocalError, match="mode 0640"):
        load_local_kek(file_world.kek_path)
    link = tmp_path / "link"
    link.symlink_to(file_world.kek_path)
    with pytest.raises(LocalError, match="cannot be read"):
        load_local_kek(link)


def test_another_key_file_opens_nothing(file_world: World, tmp_path: Path) -> None:
    assert set_web2(file_world, "POST", "value") == 204
    other = tmp_path / "other"
    other.write_text("00" * 32)
    other.chmod(0o600)
    with pytest.raises(LocalError, match="does not open"):
        SecretStore(file_world.database, load_local_kek(other)).start()


def test_keys_do_not_show_in_repr(file_world: World) -> None:
    shown: Callable[[object], str] = repr
    assert file_world.kek_path.read_text().strip() not in shown(load_local_kek(file_world.kek_path))
    assert to_hex(file_world.teebroker.unprotected_raw())[2:] not in shown(file_world.settings)
