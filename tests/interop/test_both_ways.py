"""One network, two kinds of clients: what iExec's JavaScript protects, grants, asks and runs, Python goes on with, and back.

Every person has one wallet that both use.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.interop.bundles import build_app
from tests.interop.conftest import APPS
from tests.interop.javascript import JavaScript, JavaScriptError, javascript
from tests.support.network import RUN_PRICE, LiveNetwork, wait_for

from cloister import DataProtector
from cloister.errors import Denied
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.deals import deal_id as derive_deal_id
from cloister.protocol.orders import OrderKind, RequestOrder, parse_order, sign_order
from cloister.protocol.tags import TEE
from cloister.protocol.tasks import task_id as derive_task_id
from cloister.sdk.apps import App
from cloister.sdk.bulk import BulkRequest
from cloister.sdk.results import Result

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(100))
DATA = {"yes": True, "num": 1.5, "big": -(2**100), "text": "héllo", "in": {"photo": PNG}}
SCHEMA = {"yes": "bool", "num": "f64", "big": "i128", "text": "string", "in": {"photo": "image/png"}}
READ = "--read yes:bool --read num:f64 --read big:i128 --read text:string --read in/photo:image/png"
FOUND = {
    "yes": True,
    "num": 1.5,
    "big": {"integer": str(-(2**100))},
    "text": "héllo",
    "in/photo": {"size": len(PNG), "sha256": hashlib.sha256(PNG).hexdigest(), "head": PNG[:16].hex()},
}


@dataclass(frozen=True, slots=True)
class Person:
    """A wallet with both clients."""

    py: DataProtector
    js: JavaScript

    @property
    def address(self) -> Address:
        """The wallet's address."""
        return self.py.connection.address


@pytest.fixture(scope="session")
def owner(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody with data."""
    yield from _person(live, tmp_path_factory.mktemp("owner"), stake="0")


@pytest.fixture(scope="session")
def requester(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody who pays for runs."""
    yield from _person(live, tmp_path_factory.mktemp("requester"), stake="1 RLC")


def _person(live: LiveNetwork, folder: Path, *, stake: str) -> Iterator[Person]:
    py = live.newcomer(stake=stake)
    with javascript(folder, live.network.description, py.connection.signer) as js:
        yield Person(py, js)


@pytest.fixture(scope="session")
def app(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The probe, deployed and offered by Python."""
    return _deploy(live, "probe", tmp_path_factory.mktemp("probe"))


def _deploy(live: LiveNetwork, name: str, folder: Path) -> App:
    developer = live.newcomer()
    bundle = folder / "app.bundle"
    bundle.write_bytes(build_app(APPS / name, folder))
    deployed = developer.apps.deploy(bundle, name=name)
    developer.apps.publish(deployed.address)
    return deployed


def _seen(result: Result | bytes) -> Any:
    return json.loads(result if isinstance(result, bytes) else result.read("result.json"))


def _process(person: Person, data: str, app: App, **options: Any) -> Any:
    wanted = {"protectedData": data, "app": app.address, "workerpoolMaxPrice": RUN_PRICE, "path": "result.json"}
    wanted |= {"workerpool": person.py.connection.network.workerpool}
    return person.js.start("processProtectedData", wanted | options)


def _wait_for_none(person: Person, data: Address) -> None:
    """Wait until neither client lists a grant on the data; the market reads the chain a moment later."""
    wait_for(f"{data} without grants", lambda: person.js.call("getGrantedAccess", protectedData=data)["count"] == 0)
    assert list(person.py.get_granted_access(protected_data=data)) == []


def test_javascript_protects_and_grants_python_lists_runs_and_opens(owner: Person, requester: Person, app: App) -> None:
    made = owner.js.call("protectData", data=DATA, name="from javascript")
    address = Address(made["address"])
    (found,) = requester.py.get_protected_data(address=address)
    assert (found.name, found.owner, found.schema) == ("from javascript", owner.address, SCHEMA)
    assert found.multiaddr == made["multiaddr"].replace("/p2p/", "/ipfs/")
    assert found.created == made["creationTimestamp"]
    assert address in {
        entry.address
        for entry in requester.py.get_protected_data(
            owner=owner.address, required_schema={"in": {"photo": "image/png"}}
        )
    }
    with pytest.raises(Denied):
        requester.py.process_protected_data(address, app=app, workerpool_max_price=RUN_PRICE)

    access = owner.js.call(
        "grantAccess",
        protectedData=address,
        authorizedApp=app.address,
        authorizedUser=requester.address,
        numberOfAccess=5,
        pricePerAccess=3,
    )
    (grant,) = requester.py.get_granted_access(protected_data=address)
    assert (grant.app, grant.user, grant.price, grant.remaining) == (app.address, requester.address, 3, 5)
    assert parse_order(OrderKind.DATASET, {k: v for k, v in access.items() if k != "remainingAccess"}) == grant.order

    pem = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    private = pem.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = pem.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    options: dict[str, Any] = {
        "app": app,
        "args": READ,
        "workerpool_max_price": RUN_PRICE,
        "data_max_price": 3,
        "wait": False,
    }
    native = requester.py.process_protected_data(address, **options)
    plain = requester.py.process_protected_data(address, **options, encrypt_result=False)
    sealed = requester.py.process_protected_data(address, **options, result_key=public)
    for run in (native, plain):
        assert _seen(run.result)["data"] == FOUND
        run.receipt.verify()
    sealed.wait()
    assert _seen(requester.py.get_result_from_completed_task(sealed.task_id, pem_private_key=private))["data"] == FOUND
    # What Python had sealed to an RSA key, and what it left open, JavaScript opens as well.
    for run, options in ((sealed, {"pemPrivateKey": private}), (plain, {})):
        opened = requester.js.call("getResultFromCompletedTask", taskId=run.task_id, path="result.json", **options)
        assert _seen(opened["result"])["data"] == FOUND
    assert owner.py.account.balances().stake == 9


def test_python_protects_and_grants_javascript_lists_runs_and_opens(owner: Person, requester: Person, app: App) -> None:
    native = owner.py.protect_data(DATA, name="native").address
    cbc = owner.py.protect_data(DATA, name="as iExec does", content_format="AES256_CBC").address
    for address, name in ((native, "native"), (cbc, "as iExec does")):
        (found,) = requester.js.call("getProtectedData", protectedDataAddress=address, requiredSchema={"big": "i128"})
        assert (found["name"], found["owner"], found["schema"]) == (name, owner.address.lower(), SCHEMA)
        grant = owner.py.grant_access(address, app=app, user=requester.address, accesses=3)
        answer = requester.js.call("getGrantedAccess", protectedData=address, authorizedUser=requester.address)
        assert [(one["salt"], one["remainingAccess"]) for one in answer["grantedAccess"]] == [(grant.order.salt, 3)]
        with pytest.raises(JavaScriptError, match="An access has been already granted"):
            owner.js.call(
                "grantAccess", protectedData=address, authorizedApp=app.address, authorizedUser=requester.address
            )
    # The format of the content means nothing to who asks for a run: the enclave opens either. One wallet deals in turn.
    runs = []
    for address, options in ((native, {}), (cbc, {}), (native, {"encryptResult": True})):
        done = _process(requester, address, app, args=READ, waitForResult=False, **options).result(60)
        runs.append((done, options))
    waits = [
        requester.js.start("waitForTaskCompletion", {"taskId": run["taskId"], "dealId": run["dealId"]})
        for run, _ in runs
    ]
    assert [wait.result(90)["status"] for wait in waits] == ["COMPLETED"] * 3
    for run, options in runs:
        pem = {"pemPrivateKey": run["pemPrivateKey"]} if options else {}
        opened = requester.js.call("getResultFromCompletedTask", taskId=run["taskId"], path="result.json", **pem)
        assert _seen(opened["result"])["data"] == FOUND
        # And Python opens what JavaScript asked for, with the key that JavaScript made.
        result = requester.py.get_result_from_completed_task(
            run["taskId"], pem_private_key=run.get("pemPrivateKey") if options else None
        )
        assert _seen(result)["data"] == FOUND
        requester.py.tasks.receipt(run["taskId"], result).verify()


def test_grants_of_one_are_revoked_in_the_other(owner: Person, requester: Person, app: App) -> None:
    ours, theirs = owner.py.protect_data({"a": "x"}, name="ours").address, owner.js.call("protectData", data={"a": "x"})
    theirs = Address(theirs["address"])
    made = {
        address: owner.py.grant_access(address, app=app, user=requester.address, allow_bulk=True)
        for address in (ours, theirs)
    }
    listed = owner.js.call("getGrantedAccess", protectedData=ours, bulkOnly=True)["grantedAccess"]
    revoked = owner.js.call("revokeOneAccess", listed[0])
    assert revoked["access"]["sign"] == "0x" + made[ours].order.sign.hex()
    _wait_for_none(requester, ours)
    revoked = owner.js.call("revokeAllAccess", protectedData=theirs)
    assert len(revoked) == 1
    _wait_for_none(requester, theirs)

    for address in (ours, theirs):
        owner.js.call("grantAccess", protectedData=address, authorizedApp=app.address, authorizedUser=ZERO_ADDRESS)
    (grant,) = owner.py.get_granted_access(protected_data=ours, app=app)
    assert grant.user is None
    owner.py.revoke_access(grant)
    assert [grant.protected_data for grant, _ in owner.py.revoke_all_access(theirs)] == [theirs]
    for address in (ours, theirs):
        _wait_for_none(owner, address)
        with pytest.raises(Denied):
            requester.py.process_protected_data(address, app=app, workerpool_max_price=RUN_PRICE)


def test_requests_of_one_are_matched_by_the_other(owner: Person, requester: Person, app: App) -> None:
    connection = requester.py.connection
    pool = connection.network.workerpool
    data = owner.py.protect_data({"a": "x"}, name="asked for").address
    grant = owner.py.grant_access(data, app=app, user=requester.address, accesses=2)
    (app_order,) = [record.order for record in requester.py.orders.list(OrderKind.APP, app=app.address)]
    (pool_order, *_) = [
        record.order
        for record in requester.py.orders.list(OrderKind.WORKERPOOL, workerpool=pool, category=0)
        if record.order.tag == app_order.tag
    ]
    request = {
        "app": app.address,
        "dataset": data,
        "workerpool": pool,
        "workerpoolmaxprice": int(RUN_PRICE),
        "category": 0,
        "tag": ["tee", "tdx"],
        "params": {"iexec_args": "--read a:string"},
    }

    # JavaScript asks, Python matches.
    signed = requester.js.call(
        "iexec.order.signRequestorder", requester.js.call("iexec.order.createRequestorder", request)
    )
    order = parse_order(OrderKind.REQUEST, signed)
    call = connection.hub.match_orders(app_order, grant.order, pool_order, order)
    receipt = connection.sender.send(call, intent=connection.sender.fresh_intent("match"))
    first = connection.hub.matched_deal(receipt)
    assert first == derive_deal_id(order.hash(connection.domain), 0)
    requester.py.wait_for_task_completion(derive_task_id(first, 0), deal_id=first, timeout=60)

    # Python asks, JavaScript matches.
    order = sign_order(
        RequestOrder(
            app=app.address,
            appmaxprice=0,
            dataset=data,
            datasetmaxprice=0,
            workerpool=pool,
            workerpoolmaxprice=RUN_PRICE,
            requester=requester.address,
            volume=1,
            tag=TEE,
            category=0,
            trust=0,
            beneficiary=requester.address,
            callback=ZERO_ADDRESS,
            params=json.dumps({"iexec_args": "--read a:string", "iexec_result_storage_provider": "ipfs"}),
            salt=Bytes32.from_raw(secrets.token_bytes(32)),
        ),
        connection.signer,
        connection.domain,
    )
    orders = {"apporder": app_order, "datasetorder": grant.order, "workerpoolorder": pool_order, "requestorder": order}
    dealt = requester.js.call("iexec.order.matchOrders", {name: one.to_json() for name, one in orders.items()})
    assert dealt["dealid"] == derive_deal_id(order.hash(connection.domain), 0)

    for deal in (first, Bytes32(dealt["dealid"])):
        task = derive_task_id(deal, 0)
        assert requester.py.wait_for_task_completion(task, deal_id=deal, timeout=60).status == "COMPLETED"
        assert _seen(requester.py.get_result_from_completed_task(task))["data"] == {"a": "x"}
        opened = requester.js.call("getResultFromCompletedTask", taskId=task, path="result.json")
        assert _seen(opened["result"])["data"] == {"a": "x"}
    _wait_for_none(requester, data)


def test_bulk_prepared_by_one_is_run_by_the_other(owner: Person, requester: Person, app: App) -> None:
    connection, grants = requester.py.connection, []
    for number in range(3):
        data = owner.py.protect_data({"n": f"{number}"}, name=f"bulk {number}")
        grants.append(owner.py.grant_access(data, app=app, user=requester.address, allow_bulk=True))
    made = owner.js.call("protectData", data={"n": "js"}, name="bulk js")
    user = {"authorizedApp": app.address, "authorizedUser": requester.address}
    theirs = owner.js.call("grantAccess", protectedData=made["address"], **user, allowBulk=True)
    accesses = requester.js.call("getGrantedAccess", **user, bulkOnly=True)["grantedAccess"]
    assert {one["salt"] for one in accesses} == {grant.order.salt for grant in grants} | {theirs["salt"]}

    by_js = requester.js.call(
        "prepareBulkRequest",
        bulkAccesses=[one for grant in grants for one in accesses if one["salt"] == grant.order.salt] + [theirs],
        app=app.address,
        workerpoolMaxPrice=int(RUN_PRICE),
        maxProtectedDataPerTask=2,
        args="--read n:string",
        encryptResult=True,
    )
    by_py = requester.py.prepare_bulk_request(
        [*grants, theirs],
        app=app,
        workerpool_max_price=RUN_PRICE,
        max_protected_data_per_task=2,
        args="--read n:string",
        encrypt_result=False,
    )
    with_own_keys = requester.py.prepare_bulk_request(
        grants, app=app, workerpool_max_price=RUN_PRICE, encrypt_result=False, purpose="research", private_files=[b"x"]
    )
    with pytest.raises(JavaScriptError, match='Unknown key "cloister_purpose, cloister_input_key" in params'):
        requester.js.call(
            "processBulkRequest", bulkRequest=with_own_keys.to_json(), workerpool=connection.network.workerpool
        )
    owner.js.call("revokeOneAccess", next(one for one in accesses if one["salt"] == grants[1].order.salt))

    runs = requester.py.process_bulk_request(by_js["bulkRequest"])
    dealt = requester.js.call(
        "processBulkRequest", bulkRequest=by_py.to_json(), workerpool=connection.network.workerpool
    )
    assert [run.index for run in runs] == [0, 1]
    assert sorted(task["bulkIndex"] for task in dealt["tasks"]) == [0, 1]
    for task in dealt["tasks"]:
        requester.py.wait_for_task_completion(task["taskId"], deal_id=task["dealId"], timeout=60)
    for run in runs:
        run.wait(60)

    data = [[grants[0].protected_data, grants[1].protected_data], [grants[2].protected_data, Address(made["address"])]]
    items = [[(data[0][0], True), (data[0][1], False)], [(data[1][0], True), (data[1][1], True)]]
    words = [["0", None], ["2", "js"]]

    def check(results: list[Result]) -> None:
        assert [[(item.protected_data, item.ok) for item in result.bulk_items()] for result in results] == items
        assert [[one["data"].get("n") for one in _seen(result)["bulk"]] for result in results] == words

    pem = by_js["pemPrivateKey"]
    check([requester.py.get_result_from_completed_task(run.task_id, pem_private_key=pem) for run in runs])
    order = sorted(dealt["tasks"], key=lambda task: task["bulkIndex"])
    check([requester.py.get_result_from_completed_task(task["taskId"]) for task in order])

    for request in (by_js["bulkRequest"], by_py.to_json()):
        status = requester.py.inspect_bulk_request(BulkRequest.parse(request))
        assert status.status == "FINISHED"
        assert [list(task.protected_data) for task in status.tasks] == data
        seen = requester.js.call("inspectBulkRequest", bulkRequest=request, detailed=True)
        assert (seen["bulkStatus"], seen["tasksCompletedCount"]) == ("FINISHED", 2)
        assert [
            {Address(one) for one in task["protectedDataAddresses"]}
            for task in sorted(seen["tasks"], key=lambda task: task["bulkIndex"])
        ] == [set(part) for part in data]


def test_ownership_goes_over_and_back(live: LiveNetwork, owner: Person, requester: Person) -> None:
    data = owner.js.call("protectData", data={"a": "x"}, name="wanders")["address"]
    requester_address = requester.address
    owner.js.call("transferOwnership", protectedData=data, newOwner=requester_address)
    assert [entry.owner for entry in owner.py.get_protected_data(address=data)] == [requester_address]
    requester.py.transfer_ownership(data, owner.address)
    (found,) = requester.js.call("getProtectedData", protectedDataAddress=data)
    assert Address(found["owner"]) == owner.address


def test_the_deserializer_reads_what_python_protects(
    live: LiveNetwork, owner: Person, requester: Person, tmp_path: Path
) -> None:
    app = _deploy(live, "deserializer", tmp_path)
    data = owner.py.protect_data(DATA | {"no": False, "empty": ""}, name="for node").address
    owner.py.grant_access(data, app=app, user=requester.address)
    kinds = ["yes:bool", "no:bool", "num:f64", "big:i128", "text:string", "empty:string", "in.photo:image/png"]
    wanted = [f"{mode}/{kind}" for mode in ("default", "borsh") for kind in kinds]
    done = _process(requester, data, app, args=" ".join(wanted)).result(90)
    found = _seen(done["result"])
    values = [True, False, 1.5, str(-(2**100)), "héllo", "", PNG.hex()]
    types = ["boolean", "boolean", "number", "bigint", "string", "string", "bytes"]
    assert found == dict(
        zip(wanted, [{"type": t, "value": v} for t, v in zip(types, values, strict=True)] * 2, strict=True)
    )
