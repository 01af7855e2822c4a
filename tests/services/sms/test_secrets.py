"""iExec's REST, status by status (reference 3.2), and what a copied header or a copied row is worth."""

from __future__ import annotations

import json
import re
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


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests that set nothing."""
    with World(tmp_path_factory.mktemp("steady")).serving() as running:
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
    for other in ("scone", "GRAMINE", "tdx2"):
        assert world.ask("GET", f"/tee/properties/{other}")[0] == 409
        assert world.ask("GET", f"/tee/properties/{other}/v9")[0] == 409
    assert world.ask("GET", "/tee/properties/tdx/v1")[0] == 200


@pytest.mark.parametrize("path", ["/admin/backup", "/admin/replicate-backup", "/admin/restore-backup", "/admin"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_administered_over_http(steady: World, method: str, path: str) -> None:
    assert steady.ask(method, path, headers={"x-api-key": "any"})[0] == 404


def shout(target: str) -> str:
    """The same target with the hex of its addresses in upper case."""
    return re.sub("0x([0-9a-fA-F]{40})", lambda found: "0x" + found[1].upper(), target)


@pytest.mark.parametrize("spell", [str.lower, shout], ids=["lower", "upper"])
@pytest.mark.parametrize("family", ["web3", "web2", "app", "requester"])
def test_addresses_are_read_in_any_case(file_world: World, family: str, spell: Callable[[str], str]) -> None:
    world = file_world
    who = world.requester.address
    target, challenge, key = {
        "web3": (WEB3, authorization.sms_web3_challenge(DATASET, "v"), world.owner),
        "web2": (web2(who, "t"), authorization.sms_web2_challenge(who, "t", "v"), world.requester),
        "app": (f"/apps/{APP}/secrets", authorization.sms_app_challenge(APP, "v"), world.app_owner),
        "requester": (
            f"/requesters/{who}/secrets/t",
            authorization.requester_secret_challenge(who, "t", "v"),
            world.requester,
        ),
    }[family]
    path, _, query = target.partition("?")
    # Names of parameters and parts of paths keep their case; only addresses are spelled anew.
    spelled = re.sub("0x[0-9a-fA-F]{40}", lambda found: spell(found[0]), path) + (
        "?" + re.sub("0x[0-9a-fA-F]{40}", lambda found: spell(found[0]), query) if query else ""
    )
    assert world.set_secret("POST", spelled, "v", challenge, key)[0] == 204
    for spelling in (target, spelled):
        assert world.ask("HEAD", spelling) == (204, b"")
        status, body = world.set_secret("POST", spelling, "v", challenge, key)
        assert (status, json.loads(body)["code"]) == (409, "already-set-same")


@pytest.mark.parametrize("bad", ["0x12", "0x" + "g1" * 20, "d1" * 20, "0x" + "d1" * 21, "alice.eth", "%20", ""])
def test_what_is_no_address_is_refused_by_name(steady: World, bad: str) -> None:
    for target in (
        f"/secrets/web3?secretAddress={bad}",
        f"/secrets/web2?ownerAddress={bad}&secretName=t",
        f"/apps/{bad or '%20'}/secrets",
        f"/requesters/{bad or '%20'}/secrets/t",
    ):
        assert steady.ask("HEAD", target)[0] == 400
        assert steady.set_secret("POST", target, "v", bytes(32), steady.owner)[0] == 400


def test_every_family_wants_a_signature_of_the_right_account(file_world: World) -> None:
    """401 without a header, with one that does not parse, of another account, over another value or name."""
    world = file_world
    who = world.requester.address
    right = {
        WEB3: (world.owner, authorization.sms_web3_challenge(DATASET, "v")),
        web2(who): (world.requester, authorization.sms_web2_challenge(who, "token", "v")),
        f"/apps/{APP}/secrets": (world.app_owner, authorization.sms_app_challenge(APP, "v")),
        f"/requesters/{who}/secrets/t": (world.requester, authorization.requester_secret_challenge(who, "t", "v")),
    }
    others = [challenge for _, challenge in right.values()]
    for target, (key, challenge) in right.items():
        in_a_list = not target.startswith("/secrets/")
        for headers in (
            {},
            {"authorization": "0x12"},
            {"authorization": to_hex(key.sign_message(challenge))[2:]},
            {"authorization": to_hex(key.sign_digest(challenge))},
            {"authorization": to_hex(world.stranger.sign_message(challenge))},
            *({"authorization": to_hex(key.sign_message(other))} for other in others if other != challenge),
        ):
            status, body = world.ask("POST", target, body=b"v", headers={**headers, "content-type": "text/plain"})
            assert status == 401, (target, headers)
            error = json.loads(body)["error"]
            assert error == (["this account is not allowed to set the secret"] if in_a_list else error)
            assert world.ask("HEAD", target)[0] == 404
        assert world.set_secret("POST", target, "w", challenge, key)[0] == 401
        assert world.set_secret("POST", target, "v", challenge, key)[0] == 204


def test_the_challenges_are_the_references(file_world: World) -> None:
    """Signatures over the reference's own vectors are accepted, so the bytes that are signed are the reference's."""
    anybody = Address("0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A")
    app = Address("0x" + "11" * 20)
    assert to_hex(authorization.sms_web3_challenge(app, "foo")).startswith("0x58e8f38c16f91371")
    assert to_hex(authorization.sms_app_challenge(app, "foo")).startswith("0x48026ecc83184e9b")
    assert to_hex(authorization.sms_web2_challenge(anybody, "key", "foo")).startswith("0xad219cfcb8531d99")
    file_world.ledger.owners[app] = file_world.app_owner.address
    web3 = bytes.fromhex("58e8f38c16f91371e2bc997e23d4ffb50a3ff99dea2dc6c9235968a4445fa3ac")
    developer = bytes.fromhex("48026ecc83184e9b9d9275c289b9e5deab9d3f94f6f38e4b780d0b226163171e")
    assert (
        file_world.set_secret("POST", f"/secrets/web3?secretAddress={app}", "foo", web3, file_world.app_owner)[0] == 204
    )
    assert file_world.set_secret("POST", f"/apps/{app}/secrets", "foo", developer, file_world.app_owner)[0] == 204


def test_limits_of_each_family(file_world: World) -> None:
    world = file_world
    who = world.requester.address
    for length, statuses in ((4096, (204, 204, 204, 204)), (4097, (413, 413, 413, 400))):
        # Characters count as bytes of UTF-8.
        value = "é" * (length // 2) + "x" * (length % 2)
        assert len(value.encode()) == length
        # Names differ because the two families sign the same bytes, and a signature is good for one secret.
        account, name = f"a{length}", f"r{length}"
        attempts = (
            (WEB3, authorization.sms_web3_challenge(DATASET, value), world.owner),
            (web2(who, account), authorization.sms_web2_challenge(who, account, value), world.requester),
            (f"/apps/{APP}/secrets", authorization.sms_app_challenge(APP, value), world.app_owner),
            (
                f"/requesters/{who}/secrets/{name}",
                authorization.requester_secret_challenge(who, name, value),
                world.requester,
            ),
        )
        found = tuple(world.set_secret("POST", target, value, challenge, key)[0] for target, challenge, key in attempts)
        assert found == statuses


def test_empty_and_unreadable_bodies(file_world: World) -> None:
    world = file_world
    who = world.requester.address
    empty = authorization.sms_web2_challenge(who, "token", "")
    assert world.set_secret("POST", web2(who), b"", empty, world.requester)[0] == 400
    assert world.set_secret("PUT", web2(who), b"", empty, world.requester)[0] in (400, 404)
    assert world.set_secret("POST", web2(who), b"\xff", empty, world.requester)[0] == 401
    assert world.ask("HEAD", web2(who))[0] == 404


def test_a_body_is_the_secret_whatever_its_type_says(file_world: World) -> None:
    world = file_world
    who = world.requester.address
    value = '{"a": 1}'
    challenge = authorization.sms_web2_challenge(who, "token", value)
    for kind, name in (("application/json", "token"), ("text/plain;charset=UTF-8", "other"), ("", "third")):
        challenge = authorization.sms_web2_challenge(who, name, value)
        headers = {"authorization": to_hex(world.requester.sign_message(challenge)), "content-type": kind}
        assert world.ask("POST", web2(who, name), body=value.encode(), headers=headers)[0] == 204


def test_putting_the_same_value_changes_nothing(file_world: World, store: SecretStore) -> None:
    world = file_world
    assert set_web2(world, "POST", "one") == 204
    for _ in range(3):
        assert set_web2(world, "PUT", "one") == 204
    assert store.read(SecretName(SecretKind.WEB2, world.requester.address, "token")) == b"one"
    assert set_web2(world, "PUT", "one", world.stranger) == 401


def test_only_accounts_secrets_can_be_replaced(steady: World) -> None:
    who = steady.requester.address
    for target in (WEB3, f"/apps/{APP}/secrets", f"/requesters/{who}/secrets/t"):
        assert steady.ask("PUT", target, body=b"v")[0] == 405


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
