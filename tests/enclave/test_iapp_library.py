"""The in-app library where it is made for: in the sandbox, with a bundle that brings nothing else along."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.enclave.test_bulk import Slice, bulk_world
from tests.enclave.world import DATASET, World

from cloister.datasets.packing import pack
from cloister.protocol.codec import Address, keccak256
from cloister.protocol.progress import ProgressMessage, parse_message, parse_update
from cloister.protocol.releases import RefusedDataset
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

EVERYTHING = """
import sys
from cloister import iapp

size = int(iapp.args()[1])
iapp.progress(0.1, "reading")
assert iapp.read("person.age", type="i128") == 41
(item,) = iapp.items()
with iapp.data() as data, data.open("photo") as photo:
    first = photo.read(4)
iapp.deterministic("answer.json")
iapp.write("notes/log.txt", f"{iapp.secret()} {iapp.app_secret()}")
iapp.write("answer.json", {
    "args": iapp.args(),
    "name": iapp.read("person.name"),
    "photo": first.hex(),
    "item": [item.index, item.address, item.available],
    "input": iapp.input().read_text(),
    "task": [iapp.task.index, iapp.task.size, iapp.task.deal],
})
iapp.callback(size.to_bytes(32, "big"))
iapp.progress(1, "done")
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"cloister", "pandas", "cryptography"}))
"""

ITEMS = """
from cloister import iapp
iapp.write("ages.json", [item.read("age") if item.available else item.cause for item in iapp.items()])
"""

LATE = """
from cloister import iapp
iapp.write("first.txt", "so far so good")
iapp.read("anything")
"""


def test_an_app_that_uses_all_of_it(world: Make, runtime: BubblewrapRuntime) -> None:
    data = b"".join(pack({"person": {"name": "Ada", "age": 41}, "photo": b"\x89PNG....."}).chunks)
    url = "https://example.org/rates"
    params = {"iexec_args": "--size 7", "iexec_input_files": [url], "iexec_secrets": {"1": "a"}}
    task = world(
        EVERYTHING,
        data=data,
        inputs={url: b"1 2 3"},
        params=json.dumps(params),
        requester_secrets={"1": "s1"},
        app_secret="s2",
        callback=Address("0x" + "99" * 20),
    )
    outcome = task.run(runtime)
    files = task.files()
    assert outcome.cause is None, files
    assert set(files) >= {"answer.json", "notes/log.txt", "computed.json", "receipt.cose"}
    assert json.loads(files["answer.json"]) == {
        "args": ["--size", "7"],
        "name": "Ada",
        "photo": "89504e47",
        "item": [1, DATASET.lower(), True],
        "input": "1 2 3",
        "task": [1, 2, "0x" + "77" * 32],
    }
    assert files["notes/log.txt"] == b"s1 s2"
    assert json.loads(files["computed.json"]) == {
        "callback-data": "0x" + "07".rjust(64, "0"),
        "deterministic-output-path": "/iexec_out/answer.json",
    }
    number, update = task.updates[-1]
    assert parse_message(parse_update(update).content) == ProgressMessage(1.0, "done")
    assert number == len(task.updates)
    assert outcome.results_callback == (7).to_bytes(32, "big")
    assert outcome.result_digest.raw == keccak256(outcome.results_callback)


def test_the_items_of_a_slice(world: Make, runtime: BubblewrapRuntime) -> None:
    items = Slice()
    items.add(b"".join(pack({"age": 41}).chunks))
    items.items.append(RefusedDataset(DATASET, "order-closed", "the grant was revoked"))
    items.add(b"damaged", spoil=lambda sealed: sealed[:-1])
    items.add(b"".join(pack({"age": 7}).chunks))
    task = bulk_world(world, items, ITEMS)
    assert task.run(runtime).cause is None
    files = task.files()
    assert json.loads(files["ages.json"]) == [41, "order-closed", "PRE_COMPUTE_INVALID_DATASET_CHECKSUM", 7]
    assert [item["cause"] for item in json.loads(files["bulk.json"])][1:3] == json.loads(files["ages.json"])[1:3]


def test_an_app_that_fails_after_its_first_file_has_failed(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(LATE)
    outcome = task.run(runtime)
    assert outcome.cause == "APP_COMPUTE_FAILED"
    assert set(task.files()) >= {"error.txt", "computed.json", "receipt.cose"}
    assert "first.txt" not in task.files()
    assert "NotFound: this task was given no protected data" in str(outcome.logs)
