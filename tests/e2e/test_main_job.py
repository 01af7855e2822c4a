"""The job the system is for, in Python: protect, publish, grant, run, open, be paid, verify, revoke, be refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.network import RUN_PRICE, LiveNetwork, changes, result_digest

from cloister import DataProtector
from cloister.errors import CloisterError, Denied, NotFound, VerificationError
from cloister.protocol.orders import OrderKind
from cloister.protocol.units import parse_nrlc
from cloister.sdk.apps import App
from cloister.sdk.receipts import check_receipt, load_reference_values
from cloister.sdk.results import RECEIPT_NAME


def test_everybody_gets_what_is_theirs_and_a_revoked_grant_is_refused(live: LiveNetwork, bundle: Path) -> None:
    owner, developer = live.newcomer(), live.newcomer()
    requester = live.newcomer(wallet="2 RLC", stake="0.5 RLC")
    connection = owner.connection

    data = owner.protect_data({"email": "alice@example.org", "age": 41, "nested": {"ok": True}}, name="contact")
    assert data.owner == connection.address
    assert connection.datasets.owner_of_entry(data.address, block="latest") == connection.address
    assert data.schema == {"email": "string", "age": "i128", "nested": {"ok": "bool"}}
    stored = b"".join(connection.store.open(data.multiaddr))
    assert "0x" + hashlib.sha256(stored).hexdigest() == data.checksum
    assert b"alice@example.org" not in stored

    app = developer.apps.deploy(bundle, name="probe")
    assert app.checksum.raw == hashlib.sha256(bundle.read_bytes()).digest()
    assert developer.apps.deploy(bundle, name="probe") == app, "the same app again is the same app"
    developer.apps.publish(app.address, price="0.03 RLC")
    grant = owner.grant_access(
        data,
        app=app,
        user=requester.connection.address,
        price="0.05 RLC",
        accesses=2,
        until=datetime.now(UTC) + timedelta(days=1),
        purposes=["research"],
    )
    assert (grant.protected_data, grant.app, grant.price, grant.remaining) == (
        data.address,
        app.address,
        parse_nrlc("0.05 RLC"),
        2,
    )

    people = (owner, developer, requester, "worker", "scheduler")
    before = live.balances(*people)
    run = requester.process_protected_data(
        data,
        app=app,
        args="look 'two words' --flag",
        data_max_price="0.05 RLC",
        app_max_price="0.03 RLC",
        workerpool_max_price="0.02 RLC",
        purpose="research",
        timeout=60,
    )
    after = live.balances(*people)
    answer = json.loads(run.result.read("answer.json"))
    assert answer["args"] == ["two words", "--flag"]
    assert answer["task"] == run.task_id
    assert answer["data"] == {"email": "alice@example.org", "age": 41, "nested/ok": True}
    assert run.result.encrypted
    assert run.result.names() == ["answer.json", "computed.json"]

    total = parse_nrlc("0.1 RLC")
    got_owner, got_developer, paid, got_worker, got_pool = changes(before, after)
    assert (got_owner, got_developer, -paid) == (parse_nrlc("0.05 RLC"), parse_nrlc("0.03 RLC"), total)
    assert got_worker + got_pool == RUN_PRICE
    assert got_worker > 0
    assert after[2].locked == 0
    assert after[2].stake == parse_nrlc("0.4 RLC")

    verified = run.receipt.verify()
    assert verified.claims.binding.task_id == run.task_id.raw
    assert verified.claims.result_digest == result_digest(live, run.task_id).raw
    assert verified.claims.dataset is not None
    assert verified.claims.dataset.address == data.address.raw
    assert "SIMULATED" in (verified.warning or "")

    transaction = owner.revoke_access(grant)
    assert connection.hub.is_closed(grant.order_hash, block="latest")
    assert owner.revoke_access(grant) == transaction, "revoking twice is one transaction"
    held = requester.account.balances()
    with pytest.raises(Denied, match=f"{requester.connection.address} may not use {data.address}") as refused:
        requester.process_protected_data(
            data,
            app=app,
            data_max_price="0.05 RLC",
            app_max_price="0.03 RLC",
            workerpool_max_price="0.02 RLC",
            purpose="research",
        )
    assert refused.value.code == "no-grant"
    assert refused.value.hint == "ask its owner for a grant: cloister access grant"
    assert requester.account.balances() == held, "refused before money or gas moved"


def test_a_receipt_with_any_byte_changed_does_not_verify(
    live: LiveNetwork, requester: DataProtector, app: object
) -> None:
    run = requester.process_protected_data(None, app=app, workerpool_max_price="0.02 RLC", timeout=60)  # type: ignore[arg-type]
    encoded = run.result.read(RECEIPT_NAME)
    values = load_reference_values(live.name)
    assert load_reference_values(live.network.description.origin) == values, "as the SMS of the hub signed them"
    check_receipt(encoded, values, result_digest=result_digest(live, run.task_id).raw)
    for position in range(0, len(encoded), max(1, len(encoded) // 60)):
        forged = bytearray(encoded)
        forged[position] ^= 1
        with pytest.raises(CloisterError) as caught:
            check_receipt(bytes(forged), values)
        assert caught.value.message
        assert "bug" not in caught.value.message
    with pytest.raises(VerificationError):
        check_receipt(encoded, values, result_digest=bytes(32))


@pytest.mark.parametrize("kind", ["bytes", "file", "directory", "table"])
def test_every_kind_of_value_arrives_unchanged(
    kind: str, live: LiveNetwork, owner: DataProtector, requester: DataProtector, app: object, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 1000
    value: object
    match kind:
        case "bytes":
            value, expected = content, {None: content}
        case "file":
            value = tmp_path / "scan.bin"
            value.write_bytes(content)
            expected = {"scan.bin": content}
        case "directory":
            value = tmp_path / "study"
            (value / "deep").mkdir(parents=True)
            (value / "deep" / "a.txt").write_bytes(b"first")
            (value / "b.txt").write_bytes(content)
            expected = {"deep/a.txt": b"first", "b.txt": content}
        case _:
            pandas = pytest.importorskip("pandas")
            pytest.importorskip("pyarrow")
            value, expected = pandas.DataFrame({"age": [41, 42], "name": ["alice", "bob"]}), None
    data = owner.protect_data(value, name=f"kind {kind}")
    owner.grant_access(data, app=app, user=requester.connection.address)  # type: ignore[arg-type]
    run = requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC", timeout=60)  # type: ignore[arg-type]
    seen = json.loads(run.result.read("answer.json"))["data"]
    if expected is None:
        (name,) = seen
        assert name.endswith(".parquet")
        assert seen[name]["head"].startswith(b"PAR1".hex())
        return
    assert {(entry["size"], entry["sha256"]) for entry in seen.values()} == {
        (len(part), hashlib.sha256(part).hexdigest()) for part in expected.values()
    }
    if kind == "directory":
        assert set(seen) == set(expected)


def test_what_exists_is_found_and_filtered(
    live: LiveNetwork, owner: DataProtector, data: object, app: object, requester: DataProtector
) -> None:
    other = live.newcomer()
    mine = other.protect_data({"diagnosis": "C50"}, name="other")
    address = other.connection.address

    def listed(**filters: object) -> list[str]:
        return [entry.address for entry in live.connect(None).get_protected_data(**filters)]  # type: ignore[arg-type]

    from tests.support.network import wait_for

    wait_for("the indexer", lambda: mine.address in listed())
    assert listed(owner=address) == [mine.address]
    assert listed(address=mine.address) == [mine.address]
    assert mine.address in listed(required_schema={"diagnosis": "string"})
    assert mine.address not in listed(required_schema={"email": "string"})
    assert mine.address not in listed(created_after=2**31)
    shown = live.connect(None).get_protected_data(address=mine.address)[0]
    assert (shown.name, shown.owner, shown.schema, shown.checksum) == (
        "other",
        address,
        {"diagnosis": "string"},
        mine.checksum,
    )

    grants = [
        other.grant_access(mine, app=app, price=price, user=user)  # type: ignore[arg-type]
        for price, user in ((5, None), (3, requester.connection.address))
    ]
    found = list(other.get_granted_access())
    assert [grant.order_hash for grant in found] == [grants[1].order_hash, grants[0].order_hash], "cheapest first"
    anyone = list(other.get_granted_access(protected_data=mine, user=live.newcomer().connection.address))
    assert [grant.order_hash for grant in anyone] == [grants[0].order_hash]
    strict = list(other.get_granted_access(protected_data=mine, user=requester.connection.address, user_strict=True))
    assert [grant.order_hash for grant in strict] == [grants[1].order_hash]

    records = list(other.orders.list(OrderKind.DATASET, dataset=mine.address, app="any", requester="any"))
    assert {record.order_hash for record in records} == {grant.order_hash for grant in grants}
    assert other.orders.show(OrderKind.DATASET, grants[0].order_hash).remaining == 1
    revoked = other.revoke_all_access(mine, user=requester.connection.address)
    assert {grant.order_hash for grant, _ in revoked} == {grant.order_hash for grant in grants}
    wait_for("the market", lambda: not list(other.get_granted_access()))
    assert other.orders.show(OrderKind.DATASET, grants[0].order_hash).status == "canceled"

    company = live.connect("company")
    assert app in list(company.apps.list())
    assert company.apps.show(app.address) == app  # type: ignore[attr-defined]
    assert list(live.newcomer().apps.list()) == []


def test_a_budget_takes_the_cheapest_orders_and_deposits_what_is_missing(live: LiveNetwork, app: App) -> None:
    requester = live.newcomer(wallet="1 RLC")
    before = requester.account.balances()
    with pytest.raises(NotFound, match=r"the cheapest costs 0\.02 RLC, you allow 0\.01 RLC"):
        requester.process_protected_data(None, app=app, budget="0.01 RLC")
    owner = live.newcomer()
    data = owner.protect_data({"a": "b"}, name="dear")
    owner.grant_access(data, app=app, user=requester.connection.address, price="0.04 RLC")
    with pytest.raises(NotFound, match=r"the cheapest orders cost 0\.06 RLC together, your budget is 0\.05 RLC"):
        requester.process_protected_data(data, app=app, budget="0.05 RLC")
    assert requester.account.balances() == before, "nothing moved"
    run = requester.process_protected_data(data, app=app, budget="0.06 RLC", timeout=60)
    assert "answer.json" in run.result.names()
    after = requester.account.balances()
    assert (before.wallet - after.wallet, after.stake, after.locked) == (parse_nrlc("0.06 RLC"), 0, 0)
