"""Bulk slices in a real agent: what is read, what fails alone, and what the result and the receipt say of it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.enclave.world import World

from cloister.attestation.receipt import BulkUse, DatasetUse, parse_receipt, verify_receipt
from cloister.errors import Denied, NotFound, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.releases import BulkItem, RefusedDataset, ReleasedDataset
from cloister.sealing.keys import ContentFormat, build_content_key, generate_content_key, seal_content
from cloister.worker.downloads import Downloads, Wanted
from cloister.worker.hosting import HostServices
from cloister.worker.patience import CalledOff, Patience
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

READ_ALL = """
import json, os
size = int(os.environ["IEXEC_BULK_SLICE_SIZE"])
names = [os.environ[f"IEXEC_DATASET_{i}_FILENAME"] for i in range(1, size + 1)]
paths = [os.path.join(os.environ["IEXEC_IN"], name) for name in names]
seen = [open(path).read() if os.path.exists(path) else None for path in paths]
more = f"IEXEC_DATASET_{size + 1}_FILENAME" in os.environ
out = {"seen": seen, "names": names, "in": sorted(os.listdir("/iexec_in")), "more": more}
json.dump(out, open("/iexec_out/out.json", "w"))
open("/iexec_out/bulk.json", "w").write('[{"index":1,"status":"ok"}]')
json.dump({"deterministic-output-path": "/iexec_out/out.json"}, open("/iexec_out/computed.json", "w"))
print("what I saw", seen)
"""


def address(number: int) -> Address:
    return Address("0x" + f"{number:02x}" * 20)


class Slice:
    """Builds the items of a slice, and what storage has of them."""

    def __init__(self) -> None:
        self.items: list[BulkItem] = []
        self.content: dict[str, bytes] = {}

    def add(
        self,
        plain: bytes,
        *,
        to: Address | None = None,
        format_: ContentFormat = ContentFormat.AES256_GCM_HKDF_1MB,
        key: str | None = None,
        spoil: Callable[[bytes], bytes] = lambda sealed: sealed,
    ) -> ReleasedDataset:
        number = len(self.items) + 1
        content_key = generate_content_key(os.urandom, format_)
        sealed = b"".join(seal_content(content_key, [plain], entropy=os.urandom))
        location = f"/ipfs/QmItem{number}"
        self.content[location] = spoil(sealed)
        item = ReleasedDataset(
            to or address(number),
            location,
            Bytes32.from_raw(hashlib.sha256(sealed).digest()),
            key or build_content_key(content_key),
            Bytes32("0x" + f"{number:02x}" * 32),
            None,
        )
        self.items.append(item)
        return item


def bulk_world(world: Make, items: Slice, code: str = READ_ALL, **options: object) -> World:
    params = json.dumps({"bulk_cid": "QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi"} | options.pop("params", {}))  # type: ignore[operator]
    task = world(code, bulk=tuple(items.items), params=params, **options)
    task.content |= items.content
    return task


def test_each_item_is_read_or_fails_alone(world: Make, runtime: BubblewrapRuntime) -> None:
    items = Slice()
    native = items.add(b"native")
    items.add(b"as iExec's clients write it", format_=ContentFormat.AES256_CBC)
    items.items.append(RefusedDataset(address(3), "order-closed", "the grant was revoked"))
    items.add(b"damaged", spoil=lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]))
    other = build_content_key(generate_content_key(os.urandom))
    items.add(b"x" * 3_000_000, key=other)
    items.add(
        b"wrong key, iExec's format",
        format_=ContentFormat.AES256_CBC,
        key=build_content_key(generate_content_key(os.urandom, ContentFormat.AES256_CBC)),
    )
    items.add(b"gone")
    del items.content["/ipfs/QmItem7"]
    items.add(b"no key at all", key="nonsense")
    items.add(b"cut short", spoil=lambda sealed: sealed[: len(sealed) // 2])
    items.add(b"the last")
    task = bulk_world(world, items)
    outcome = task.run(runtime)
    files = task.files()
    out = json.loads(files["out.json"])
    assert out["seen"] == [
        "native",
        "as iExec's clients write it",
        None,
        None,
        None,
        None,
        None,
        None,
        None,
        "the last",
    ]
    assert out["names"] == [item.address.lower() for item in items.items]
    assert out["in"] == sorted(address(number).lower() for number in (1, 2, 10)), "no partial plaintext is left"
    assert not out["more"]
    report = json.loads(files["bulk.json"])
    assert [(item["index"], item["dataset"], item["status"]) for item in report] == [
        (number, str(address(number)), "ok" if number in (1, 2, 10) else "failed") for number in range(1, 11)
    ]
    assert {item["index"]: item["cause"] for item in report if item["cause"]} == {
        3: "order-closed",
        4: "PRE_COMPUTE_INVALID_DATASET_CHECKSUM",
        5: "PRE_COMPUTE_DATASET_DECRYPTION_FAILED",
        6: "PRE_COMPUTE_DATASET_DECRYPTION_FAILED",
        7: "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED",
        8: "PRE_COMPUTE_DATASET_DECRYPTION_FAILED",
        9: "PRE_COMPUTE_INVALID_DATASET_CHECKSUM",
    }
    assert report[2]["message"] == "the grant was revoked"
    assert "stdout.txt" not in files
    assert outcome.logs is not None
    assert "native" not in str(outcome.logs)
    assert outcome.cause is None
    claims = verify_receipt(
        files["receipt.cose"],
        policy=task.platform.policy,
        collateral=task.platform.collateral,
        now=int(time.time()),
        expected_result_digest=outcome.result_digest.raw,
    ).claims
    assert claims.dataset is None
    assert claims.bulk is not None
    assert native.order_hash is not None
    assert claims.bulk[0] == BulkUse(
        native.address.raw,
        DatasetUse(native.address.raw, native.checksum.raw, native.order_hash.raw, None),
        hashlib.sha256(b"native").digest(),
    )
    assert claims.bulk[2] == BulkUse(address(3).raw, None, None, "order-closed")
    assert claims.bulk[4].released is not None
    assert claims.bulk[4].cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"
    assert [item.name for item in claims.inputs] == [address(number).lower() for number in (1, 2, 10)]


def test_a_dataset_that_stands_twice_is_fetched_once(world: Make, runtime: BubblewrapRuntime) -> None:
    items = Slice()
    first = items.add(b"once")
    items.add(b"another")
    items.items.append(replace(first, order_hash=Bytes32("0x" + "ee" * 32)))
    other = items.add(b"same address, other content", to=first.address)
    task = bulk_world(world, items)
    task.run(runtime)
    assert json.loads(task.files()["out.json"])["seen"] == ["once", "another", "once", "once"]
    assert [location for location, _ in task.fetched].count(first.multiaddr) == 1
    assert other.multiaddr not in [location for location, _ in task.fetched]
    report = json.loads(task.files()["bulk.json"])
    assert [item["status"] for item in report] == ["ok", "ok", "ok", "failed"]
    assert report[3]["cause"] == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


def test_a_failed_app_and_a_missing_input_file_still_report_the_slice(world: Make, runtime: BubblewrapRuntime) -> None:
    items = Slice()
    items.add(b"one")
    items.items.append(RefusedDataset(address(2), "restriction", "not for you"))
    task = bulk_world(world, items, code="raise SystemExit(3)")
    assert task.run(runtime).cause == "APP_COMPUTE_FAILED"
    assert [item["status"] for item in json.loads(task.files()["bulk.json"])] == ["ok", "failed"]
    url = "https://example.org/gone.csv"
    task = bulk_world(world, items, params={"iexec_input_files": [url]}, inputs={url: b""})
    task.refusals[url] = NotFound(f"{url} is not there")
    assert task.run(runtime).cause == "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    files = task.files()
    assert files["error.txt"] == (
        b"[IEXEC] Errors occurred while computing the task "
        b"[error:DATA_DOWNLOAD_FAILED, causes:[PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED]]\n"
    )
    assert url in json.loads(files["computed.json"])["error-message"]
    assert [item["status"] for item in json.loads(files["bulk.json"])] == ["ok", "failed"]
    assert parse_receipt(files["receipt.cose"]).claims.bulk is not None


def test_storage_that_is_away_for_one_item_or_for_all(world: Make, runtime: BubblewrapRuntime) -> None:
    items = Slice()
    for number in range(3):
        items.add(b"%d" % number)
    task = bulk_world(world, items)
    task.refusals["/ipfs/QmItem2"] = UnavailableError("storage does not answer")
    task.run(runtime)
    assert json.loads(task.files()["out.json"])["seen"] == ["0", None, "2"]
    assert [item["message"] for item in json.loads(task.files()["bulk.json"])] == [
        None,
        "storage does not answer",
        None,
    ]
    task = bulk_world(world, items)
    for item in items.items:
        assert isinstance(item, ReleasedDataset)
        task.refusals[item.multiaddr] = UnavailableError("storage does not answer")
    with pytest.raises(EnclaveFailed, match="none of 3 protected data could be had") as failure:
        task.run(runtime)
    assert failure.value.cause == "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
    assert task.result == b""


@pytest.mark.parametrize("data_format", list(ContentFormat))
def test_an_item_that_is_too_large_for_the_enclave_fails_alone(
    world: Make, runtime: BubblewrapRuntime, data_format: ContentFormat
) -> None:
    items = Slice()
    items.add(b"before")
    items.add(bytes(30 << 20), format_=data_format)
    items.add(b"behind")
    task = bulk_world(world, items)
    small = replace(task.platform.spec, scratch_bytes=16 << 20)
    task.run(runtime, runtime.launch(small))
    assert json.loads(task.files()["out.json"])["seen"] == ["before", None, "behind"]
    assert json.loads(task.files()["bulk.json"])[1]["cause"] == "PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED"


@pytest.mark.parametrize("bulk", [True, False])
def test_release_and_request_must_agree_on_bulk(world: Make, runtime: BubblewrapRuntime, bulk: bool) -> None:
    items = Slice()
    items.add(b"one")
    task = bulk_world(world, items)
    task.release = replace(task.release, params="{}") if bulk else replace(task.release, bulk=None)
    with pytest.raises(EnclaveFailed, match="differ in being of bulk"):
        task.run(runtime)


def test_hundred_items_are_announced_ahead(world: Make, runtime: BubblewrapRuntime) -> None:
    """The host is told of the next ones, so they can come side by side; each byte of the hundred arrives."""
    items = Slice()
    for number in range(100):
        items.add(b"item %d" % number)
    task = bulk_world(world, items)
    task.run(runtime)
    assert json.loads(task.files()["out.json"])["seen"] == [f"item {number}" for number in range(100)]
    asked = [entry for entry in task.fetched if entry[0] != "/ipfs/QmApp"]
    assert [location for location, _ in asked] == [f"/ipfs/QmItem{number}" for number in range(1, 101)]
    assert asked[0][1] == tuple(f"/ipfs/QmItem{number}" for number in range(2, 9))
    assert asked[-1][1] == ()


class Store:
    """Fetches that take their time; ``gates`` hold single ones."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.gates: dict[str, threading.Event] = {}
        self.lock = threading.Lock()
        self.now = self.most = 0

    def fetch(self, wanted: Wanted) -> Iterator[bytes]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.gates.get(wanted.location, _OPEN).wait(20)
            time.sleep(self.seconds)
            yield wanted.location.encode()
        finally:
            with self.lock:
                self.now -= 1


_OPEN = threading.Event()
_OPEN.set()


def wanted(number: int) -> Wanted:
    return Wanted(f"/ipfs/{number}", "dataset", 100)


def test_downloads_run_side_by_side_and_within_bounds() -> None:
    store = Store(0.05)
    downloads = Downloads(store.fetch, threading.Event())
    every = [wanted(number) for number in range(40)]
    for position, item in enumerate(every):
        got = b"".join(downloads.read(item, seconds=20, ahead=tuple(every[position + 1 : position + 20])))
        assert got == item.location.encode()
    downloads.close()
    assert 2 <= store.most <= 8


def test_a_download_that_stands_still_is_given_up_in_time_and_the_others_are_not() -> None:
    store = Store()
    store.gates["/ipfs/1"] = gate = threading.Event()
    downloads = Downloads(store.fetch, off := threading.Event())
    with pytest.raises(UnavailableError, match="took too long"):
        list(downloads.read(wanted(1), seconds=0.7, ahead=(wanted(2),)))
    assert list(downloads.read(wanted(2), seconds=5)) == [b"/ipfs/2"]
    off.set()
    with pytest.raises(CalledOff):
        list(downloads.read(wanted(1), seconds=20))
    gate.set()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(Denied("private", code="private-address"), Denied), (UnavailableError("away"), UnavailableError)],
)
def test_errors_of_a_download_reach_its_reader(error: Exception, kind: type[Exception]) -> None:
    def fetch(_: Wanted) -> Iterator[bytes]:
        yield b"a"
        raise error

    downloads = Downloads(fetch, threading.Event())
    reader = downloads.read(wanted(1), seconds=5)
    assert next(reader) == b"a"
    with pytest.raises(kind):
        next(reader)


class AwayFetcher:
    """Storage that has the second item and never answers for the others."""

    def __init__(self) -> None:
        self.tries: dict[str, int] = {}

    def fetch(self, location: str, purpose: str, max_bytes: int) -> Iterator[bytes]:
        assert purpose == "dataset"
        self.tries[location] = self.tries.get(location, 0) + 1
        if location != "/ipfs/2":
            raise UnavailableError("storage does not answer")
        yield b"here"


def services_over(fetcher: object, sms: object = None) -> HostServices:
    """A host of which only storage and SMS are asked."""
    off = threading.Event()
    return HostServices(
        lease=None,  # type: ignore[arg-type]
        folder=None,  # type: ignore[arg-type]
        scheduler=None,  # type: ignore[arg-type]
        sms=sms,  # type: ignore[arg-type]
        hub=None,  # type: ignore[arg-type]
        fetcher=fetcher,  # type: ignore[arg-type]
        connector=None,  # type: ignore[arg-type]
        patience=lambda: Patience(0.05, 0.1, time.monotonic() + 1.0, off),
        heard=lambda _: None,
    )


def test_an_outage_is_waited_out_once_for_all_items() -> None:
    fetcher = AwayFetcher()
    services = services_over(fetcher)
    assert b"".join(services.fetch("/ipfs/2", "dataset", 10, seconds=20)) == b"here"
    for number in range(3, 9):
        with pytest.raises(UnavailableError):
            list(services.fetch(f"/ipfs/{number}", "dataset", 10, seconds=20))
    assert fetcher.tries["/ipfs/3"] > 3, "the outage was waited for"
    assert fetcher.tries["/ipfs/8"] == 1, "and not again for each"
    services.close()


class WearySms:
    """Takes the nonce, is away, and then knows it no more."""

    def __init__(self, answers: list[Exception]) -> None:
        self.answers = answers

    def open_session(self, _: object) -> None:
        raise self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        (
            [UnavailableError("the chain is behind", code="chain-behind"), Denied("used", code="nonce-refused")],
            UnavailableError,
            "the chain is behind",
        ),
        ([Denied("used", code="nonce-refused")], Denied, "used"),
        ([UnavailableError("away"), Denied("revoked", code="order-closed")], Denied, "revoked"),
    ],
)
def test_the_reason_before_a_used_nonce_is_the_one_that_counts(
    answers: list[Exception], kind: type[Exception], words: str
) -> None:
    services = services_over(AwayFetcher(), WearySms(answers))
    with pytest.raises(kind, match=words):
        services._open_session(None)  # type: ignore[arg-type]  # no word of the call is read
    assert not answers
