"""Bulk release over HTTP: every item of a slice by itself, and nothing of it where the slice itself cannot be believed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.sms_bulk import BulkWorld, Contributor
from tests.support.sms_world import APP, DATASET, DATASET_KEY, POOL, START, private_key

from cloister.errors import NotFound, UnavailableError, VerificationError
from cloister.protocol.authentication import sign_request
from cloister.protocol.codec import UINT256_MAX, ZERO_ADDRESS, Address, Bytes32, canonical_json
from cloister.protocol.orders import DatasetOrder, verify_order_signature
from cloister.protocol.policies import AccessPolicy, policy_salt
from cloister.protocol.releases import BULK_CAP, RefusedDataset, Release, ReleasedDataset
from cloister.protocol.sessions import FINAL_REFUSALS
from cloister.protocol.tags import GPU, SCONE, TEE, TEE_TDX
from cloister.protocol.units import INFINITE_VOLUME
from cloister.services.sms.bulk import ROOT_CAP, SLICE_CAP, BulkSource, StoredBulk, load_slice
from cloister.services.sms.ledger import DatasetEntry
from cloister.services.sms.slices import ITEM_CAP
from cloister.storage.content import ContentStore
from cloister.storage.local import LocalStore

REVOKED = 1


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[BulkWorld]:
    with BulkWorld(tmp_path, database_url=database_url).serving() as running:
        assert isinstance(running, BulkWorld)
        running.push_keys()
        yield running


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[BulkWorld]:
    """On SQLite, for tests that no database can decide differently."""
    with BulkWorld(tmp_path).serving() as running:
        assert isinstance(running, BulkWorld)
        running.push_keys()
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BulkWorld]:
    """One for all tests that leave keys and chain as they are."""
    with BulkWorld(tmp_path_factory.mktemp("steady")).serving() as running:
        assert isinstance(running, BulkWorld)
        running.push_keys()
        yield running


def causes(release: Release) -> list[str | None]:
    """The cause of each refused item, None for a released one."""
    assert release.bulk is not None
    return [item.cause if isinstance(item, RefusedDataset) else None for item in release.bulk]


def outcome(world: BulkWorld, *orders: object) -> list[str | None]:
    """Run a session whose slice is these orders."""
    world.offer([orders])
    return causes(world.released())


def lines(world: BulkWorld, person: Contributor) -> list[dict[str, Any]]:
    """What a data owner reads in the record."""
    target = f"/data/{person.dataset}/releases"
    header = sign_request(
        person.owner,
        audience=world.settings.audience,
        method="GET",
        target=target,
        body=b"",
        issued_at=int(world.clock.now),
        nonce=os.urandom(16),
    )
    status, body = world.ask("GET", target, headers={"authorization": header})
    assert status == 200, body
    return list(json.loads(body)["releases"])


def final_refusal(world: BulkWorld) -> str:
    """Run a session that is refused for good; returns the code."""
    status, body, _, _ = world.run()
    assert (status, body["final"]) == (403, True), body
    assert body["code"] in FINAL_REFUSALS
    return str(body["code"])


# --- what is released ---


def test_every_granted_item_is_released_in_the_order_of_the_slice(world: BulkWorld) -> None:
    world.offer([world.orders])
    release = world.released()
    assert release.dataset is None
    assert release.bulk is not None
    for item, person in zip(release.bulk, world.contributors, strict=True):
        assert isinstance(item, ReleasedDataset)
        entry = world.ledger.datasets[person.dataset]
        assert (item.address, item.key) == (person.dataset, DATASET_KEY)
        assert (item.multiaddr, item.checksum) == (entry.location, entry.checksum)
        assert item.order_hash == person.order.hash(world.domain)


def test_a_task_gets_the_slice_of_its_own_index(world: BulkWorld) -> None:
    first, second, third = world.orders
    for index, expected in enumerate([[first, second], [third]]):
        world.offer([[first, second], [third]], index=index)
        release = world.released()
        assert release.bulk is not None
        assert [item.address for item in release.bulk] == [order.dataset for order in expected]


def test_one_bad_item_stops_no_other_and_the_record_tells_each_owner(world: BulkWorld) -> None:
    bad = world.contributors[REVOKED]
    world.ledger.closed.add(bad.order.hash(world.domain))
    assert outcome(world, *world.orders) == [None, "order-closed", None]
    for person in world.contributors:
        (line,) = lines(world, person)
        refused = person is bad
        assert (line["outcome"], line["reason"]) == (("refused", "order-closed") if refused else ("released", None))
        assert line["order_hash"] == person.order.hash(world.domain)
        assert (line["task_id"], line["requester"]) == (world.task_id, world.requester.address)
        assert (line["app"], line["simulated"], line["block"]) == (APP, True, 100)


def test_the_session_has_a_line_of_its_own(file_world: BulkWorld) -> None:
    file_world.offer([file_world.orders])
    file_world.released()
    with file_world.database.read_scope() as session:
        rows = session.connection().exec_driver_sql("SELECT dataset, outcome FROM sms_releases ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [(None, "released")] + [
        (person.dataset, "released") for person in file_world.contributors
    ]


def test_a_refused_session_releases_no_item(file_world: BulkWorld) -> None:
    file_world.offer([file_world.orders], iexec_secrets={"1": "nobody-set-it"})
    assert file_world.refusal() == "requester-secret-missing"
    assert [lines(file_world, person) for person in file_world.contributors] == [[], [], []]


def test_all_items_are_read_at_one_block(file_world: BulkWorld) -> None:
    file_world.offer([file_world.orders])
    file_world.ledger.blocks_read.clear()
    file_world.released()
    assert set(file_world.ledger.blocks_read) == {100}


# --- what spoils one item ---


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"datasetprice": 1}, "bulk-price"),
        ({"volume": INFINITE_VOLUME - 2}, "bulk-volume"),
        ({"volume": INFINITE_VOLUME - 1}, None),
        ({"volume": INFINITE_VOLUME + 1}, None),
        ({"tag": TEE | SCONE}, None),
        ({"tag": TEE_TDX | GPU}, "tag-refused"),
        ({"apprestrict": APP}, None),
        ({"apprestrict": POOL}, "restriction"),
        ({"workerpoolrestrict": POOL}, None),
        ({"workerpoolrestrict": APP}, "restriction"),
        ({"requesterrestrict": private_key("requester").address}, None),
        ({"requesterrestrict": private_key("stranger").address}, "restriction"),
    ],
    ids=str,
)
def test_terms_of_an_order(steady: BulkWorld, values: dict[str, Any], cause: str | None) -> None:
    first, _, third = steady.orders
    assert outcome(steady, first, steady.regrant(1, **values), third) == [None, cause, None]


def test_members_of_a_group_are_admitted(file_world: BulkWorld) -> None:
    group = Address("0x" + "99" * 20)
    order = file_world.regrant(0, apprestrict=group)
    assert outcome(file_world, order) == ["restriction"]
    file_world.ledger.groups[group] = {APP}
    assert outcome(file_world, order) == [None]


def test_signatures(file_world: BulkWorld) -> None:
    first, second, third = file_world.orders
    forged = file_world.sign(first, file_world.stranger)
    unsigned = dataclasses.replace(second, sign=b"")
    assert outcome(file_world, forged, unsigned, third) == ["order-signature", "order-signature", None]
    file_world.ledger.presigned[second.hash(file_world.domain)] = file_world.contributors[1].owner.address
    assert outcome(file_world, forged, unsigned, third) == ["order-signature", None, None]


def test_the_previous_owner_grants_nothing(file_world: BulkWorld) -> None:
    person = file_world.contributors[0]
    entry = file_world.ledger.datasets[person.dataset]
    file_world.ledger.datasets[person.dataset] = dataclasses.replace(entry, owner=file_world.stranger.address)
    assert outcome(file_world, *file_world.orders) == ["order-signature", None, None]
    sold = file_world.sign(person.order, file_world.stranger)
    assert outcome(file_world, sold) == [None]


def test_a_grant_revoked_between_match_and_release_is_refused(file_world: BulkWorld) -> None:
    file_world.offer([file_world.orders])
    assert causes(file_world.released()) == [None, None, None]
    file_world.ledger.closed.add(file_world.orders[0].hash(file_world.domain))
    assert causes(file_world.released()) == ["order-closed", None, None]


def test_a_dataset_that_nobody_registered(file_world: BulkWorld) -> None:
    del file_world.ledger.datasets[file_world.contributors[2].dataset]
    assert outcome(file_world, *file_world.orders) == [None, None, "dataset-unknown"]


def test_the_hub_has_the_last_word(file_world: BulkWorld) -> None:
    file_world.ledger.objections[file_world.contributors[0].dataset] = "a rule of a later hub"
    file_world.offer([file_world.orders])
    release = file_world.released()
    assert causes(release) == ["hub-refused", None, None]
    assert release.bulk is not None
    refused = release.bulk[0]
    assert isinstance(refused, RefusedDataset)
    assert "a rule of a later hub" in refused.message


def test_a_dataset_named_twice_is_released_once(file_world: BulkWorld) -> None:
    first, second, _ = file_world.orders
    again = file_world.regrant(0, salt=Bytes32("0x" + "07" * 32))
    assert outcome(file_world, first, second, again, first) == [None, None, "bulk-duplicate", "bulk-duplicate"]
    file_world.ledger.closed.add(first.hash(file_world.domain))
    assert outcome(file_world, first, second, again) == ["order-closed", None, "bulk-duplicate"]


def test_a_key_that_is_missing_or_erased(file_world: BulkWorld) -> None:
    late = file_world.make_contributor("somebody without a key")
    assert outcome(file_world, file_world.orders[0], late.order) == [None, "dataset-key-missing"]
    file_world.push_key(late)
    assert outcome(file_world, file_world.orders[0], late.order) == [None, None]


def test_an_item_that_would_crowd_out_others_is_refused(file_world: BulkWorld) -> None:
    heavy = file_world.make_contributor("somebody with a long key")
    file_world.push_key(heavy, "k" * ITEM_CAP)
    assert outcome(file_world, file_world.orders[0], heavy.order) == [None, "bulk-item-too-large"]
    far = file_world.contributors[1].dataset
    file_world.ledger.datasets[far] = dataclasses.replace(file_world.ledger.datasets[far], location="x" * 100_000)
    assert outcome(file_world, *file_world.orders) == [None, "bulk-item-too-large", None]


def put_policy(world: BulkWorld, policy: AccessPolicy) -> None:
    target, body = f"/policies/{policy.hash()}", canonical_json(policy.to_json())
    header = sign_request(
        world.owner,
        audience=world.settings.audience,
        method="PUT",
        target=target,
        body=body,
        issued_at=int(world.clock.now),
        nonce=os.urandom(16),
    )
    assert world.ask("PUT", target, body=body, headers={"authorization": header})[0] == 204


def test_logs_need_the_word_of_every_owner_in_the_slice(file_world: BulkWorld) -> None:
    """Abuse 64: one who did not allow it is enough; one whose data is not released does not count."""
    world = file_world
    silent, ended = AccessPolicy(bytes(16)), AccessPolicy(b"e" * 16, valid_until=START)
    allowing = AccessPolicy(bytes(16), logs=True)
    for policy in (silent, ended, allowing):
        put_policy(world, policy)

    def with_policy(index: int, policy: AccessPolicy) -> DatasetOrder:
        return world.regrant(index, salt=policy_salt(policy))

    for others, logs in (
        ([with_policy(1, allowing), with_policy(2, allowing)], True),
        ([with_policy(1, allowing), with_policy(2, silent)], False),
        ([with_policy(1, allowing), world.orders[2]], False),
        ([with_policy(1, allowing), with_policy(2, ended)], True),
    ):
        world.offer([[with_policy(0, allowing), *others]])
        assert world.released().logs is logs
    world.offer([[with_policy(0, ended), with_policy(1, ended)]])
    assert not world.released().logs


def test_access_policies_hold_item_by_item(file_world: BulkWorld) -> None:
    world = file_world
    ended = AccessPolicy(bytes(16), valid_until=START)
    missing = AccessPolicy(b"m" * 16)
    tight, loose = AccessPolicy(bytes(16), max_result_bytes=900), AccessPolicy(bytes(16), max_result_bytes=5000)
    purpose = AccessPolicy(bytes(16), purposes=("research",), max_result_bytes=1)
    for policy in (ended, tight, loose, purpose):
        put_policy(world, policy)

    def with_policy(index: int, policy: AccessPolicy) -> DatasetOrder:
        return world.regrant(index, salt=policy_salt(policy))

    world.offer([[with_policy(0, tight), with_policy(1, loose), world.orders[2]]])
    release = world.released()
    assert causes(release) == [None, None, None]
    assert release.max_result_bytes == 900
    assert release.bulk is not None
    assert [item.policy_hash for item in release.bulk if isinstance(item, ReleasedDataset)] == [
        tight.hash(),
        loose.hash(),
        None,
    ]
    world.offer([[with_policy(0, ended), with_policy(1, missing), with_policy(2, purpose)]])
    release = world.released()
    assert causes(release) == ["no-longer-valid", "policy-missing", "purpose-missing"]
    assert release.max_result_bytes == world.settings.max_result_bytes
    assert not release.logs
    world.offer([[with_policy(2, purpose), with_policy(0, loose)]], cloister_purpose="research")
    release = world.released(purposes=("research",))
    assert (causes(release), release.max_result_bytes) == ([None, None], 1)


@pytest.mark.parametrize(
    ("element", "dataset"),
    [
        (None, ZERO_ADDRESS),
        (7, ZERO_ADDRESS),
        ("0x" + "d1" * 20, ZERO_ADDRESS),
        ([], ZERO_ADDRESS),
        ({}, ZERO_ADDRESS),
        ({"dataset": str(DATASET)}, DATASET),
        ({"dataset": ["0x"]}, ZERO_ADDRESS),
        ({"dataset": "0x12"}, ZERO_ADDRESS),
    ],
    ids=str,
)
def test_an_element_that_is_no_order_spoils_only_itself(steady: BulkWorld, element: object, dataset: Address) -> None:
    first, second, _ = steady.orders
    steady.offer([[first, element, second]])
    release = steady.released()
    assert causes(release) == [None, "order-malformed", None]
    assert release.bulk is not None
    assert release.bulk[1].address == dataset


# --- any change of one order refuses exactly that item ---

_NUMBERS = st.integers(0, UINT256_MAX).map(str)
_ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
_WORDS = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
_SIGNATURES = st.binary(max_size=70).map(lambda raw: "0x" + raw.hex())
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "dataset": _ADDRESSES,
    "datasetprice": _NUMBERS,
    "volume": _NUMBERS,
    "tag": _WORDS,
    "apprestrict": _ADDRESSES,
    "workerpoolrestrict": _ADDRESSES,
    "requesterrestrict": _ADDRESSES,
    "salt": _WORDS,
    "sign": _SIGNATURES,
}
_JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=80), st.lists(st.integers(), max_size=3))
_MUTATIONS = st.one_of(
    *(st.tuples(st.just(name), values) for name, values in _FIELDS.items()),
    st.tuples(st.sampled_from(sorted(_FIELDS)), _JUNK),
    st.tuples(st.text(min_size=1, max_size=12), _JUNK),
    st.tuples(st.sampled_from(sorted(_FIELDS)), st.just(...)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 2), mutation=_MUTATIONS)
def test_any_change_of_one_order_refuses_exactly_that_item(
    steady: BulkWorld, index: int, mutation: tuple[str, Any]
) -> None:
    name, value = mutation
    offered = [dict(order.to_json()) for order in steady.orders]
    changed = offered[index]
    if value is ...:
        changed.pop(name)
        # Without a signature an order parses; it is then not signed.
    else:
        assume(str(changed.get(name)).lower() != str(value).lower())
        changed[name] = value
        if name == "sign" and isinstance(value, str):
            assume(not still_signed(steady, index, value))
    steady.offer([offered])
    refused = [cause is not None for cause in causes(steady.released())]
    assert refused == [at == index for at in range(3)]


def still_signed(world: BulkWorld, index: int, sign: str) -> bool:
    """Whether another spelling of the signature is as good as the first."""
    person = world.contributors[index]
    try:
        order = dataclasses.replace(person.order, sign=bytes.fromhex(sign[2:]))
        verify_order_signature(order, person.owner.address, world.domain)
    except (ValueError, VerificationError):
        return False
    return True


# --- what spoils the whole slice ---


def test_a_deal_with_a_dataset_and_a_slice_is_refused(steady: BulkWorld) -> None:
    root = steady.put([steady.put([steady.orders[0].to_json()])])
    steady.ask_for(root, dataset=DATASET)
    assert final_refusal(steady) == "bulk-with-dataset"


def test_a_root_without_the_index_is_refused_for_good(steady: BulkWorld) -> None:
    steady.offer([steady.orders], index=1)
    assert final_refusal(steady) == "bulk-index-missing"


@pytest.mark.parametrize(
    "root",
    [
        b"",
        b"{}",
        b"[]",
        b"[1]",
        b"[null]",
        b'["not a cid"]',
        b'["/ipfs/QmSomething"]',
        b'["Qm"',
        b"\xff\xfe",
        b"[" * 5000,
        b'["' + b"a" * ROOT_CAP + b'"]',
    ],
    ids=lambda root: repr(root[:16]),
)
def test_a_malformed_root_is_refused_for_good(steady: BulkWorld, root: bytes) -> None:
    steady.ask_for(steady.put(root))
    assert final_refusal(steady) == "bulk-root-malformed"


def slice_of_too_many(world: BulkWorld) -> bytes:
    return json.dumps([world.orders[0].to_json()] * (BULK_CAP + 1)).encode()


@pytest.mark.parametrize(
    "document",
    [
        lambda _: b"",
        lambda _: b"{}",
        lambda _: b"[]",
        lambda _: b"[NaN]",
        lambda _: b'[{"dataset":"0x1","dataset":"0x2"}]',
        lambda _: b"[" + b" " * SLICE_CAP + b"]",
        slice_of_too_many,
    ],
    ids=["nothing", "object", "empty", "nan", "twice", "too large", "too many"],
)
def test_a_malformed_slice_is_refused_for_good(steady: BulkWorld, document: Callable[[BulkWorld], bytes]) -> None:
    steady.ask_for(steady.put([steady.put(document(steady))]))
    assert final_refusal(steady) == "bulk-slice-malformed"


def test_a_directory_is_no_slice(steady: BulkWorld) -> None:
    stored = steady.files.put([b"x"])
    folder = str(steady.files.put_directory({"a": stored.cid}).cid)
    steady.ask_for(folder)
    assert final_refusal(steady) == "bulk-root-malformed"
    steady.ask_for(steady.put([folder]))
    assert final_refusal(steady) == "bulk-slice-malformed"


def test_content_that_does_not_come_may_come_later(file_world: BulkWorld, tmp_path: Path) -> None:
    elsewhere = LocalStore(tmp_path / "elsewhere")
    slice_cid = str(elsewhere.put([json.dumps([file_world.orders[0].to_json()]).encode()]).cid)
    root = str(elsewhere.put([json.dumps([slice_cid]).encode()]).cid)
    file_world.ask_for(root)
    for missing in (root, slice_cid):
        status, body, _, _ = file_world.run()
        assert (status, body["code"], body["final"]) == (503, "bulk-not-found", False)
        file_world.files.put(elsewhere.open(missing))
    assert causes(file_world.released()) == [None]


def test_an_sms_without_storage_says_so(tmp_path: Path) -> None:
    world = BulkWorld(tmp_path)
    world.content = None
    with world.serving():
        world.offer([world.orders])
        assert final_refusal(world) == "bulk-not-served"


def test_a_slice_of_the_greatest_length(tmp_path: Path) -> None:
    world = BulkWorld(tmp_path, size=BULK_CAP)
    with world.serving():
        world.push_keys()
        assert outcome(world, *world.orders) == [None] * BULK_CAP


# --- reading from storage ---


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "content")


class Wayward:
    """A store whose ``open`` does as it is told; the rest is the real one's."""

    def __init__(self, store: ContentStore, chunks: Callable[[], Iterator[bytes]]) -> None:
        self.put, self.put_directory, self.stat = store.put, store.put_directory, store.stat
        self._chunks = chunks

    def open(
        self, cid: object, *, offset: int = 0, length: int | None = None, cap: int | None = None
    ) -> Iterator[bytes]:
        return self._chunks()


def test_a_source_reads_whole_files_up_to_the_cap(store: LocalStore) -> None:
    source: BulkSource = StoredBulk(store)
    raw = bytes(range(256)) * 3000
    cid = str(store.put([raw]).cid)
    assert source.read(cid, cap=len(raw)) == raw


@pytest.mark.parametrize("error", [NotFound("absent"), VerificationError("other bytes"), UnavailableError("away")])
def test_what_storage_does_not_give_is_asked_again(store: LocalStore, error: Exception) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"["
        raise error

    cid = str(store.put([b"x"]).cid)
    with pytest.raises(UnavailableError):
        StoredBulk(Wayward(store, chunks)).read(cid, cap=100)


def test_a_slow_store_is_not_waited_for(store: LocalStore) -> None:
    now = [0.0]

    def chunks() -> Iterator[bytes]:
        for _ in range(1000):
            now[0] += 7
            yield b" "

    source = StoredBulk(Wayward(store, chunks), seconds=20, clock=lambda: now[0])
    with pytest.raises(UnavailableError, match="too slowly"):
        source.read(str(store.put([b"x"]).cid), cap=10_000)
    assert now[0] < 40


def test_a_slice_is_read_from_a_version_1_cid_too(tmp_path: Path) -> None:
    world = BulkWorld(tmp_path)
    single = json.dumps([world.orders[0].to_json()]).encode()
    cid = world.files.put([single]).cid
    raw_leaf = str(type(cid).of_block(single))
    assert raw_leaf.startswith("bafk")

    class Blocks:
        def read(self, cid: str, *, cap: int) -> bytes:
            return {"root": json.dumps([raw_leaf]).encode(), raw_leaf: single}[cid]

    assert load_slice(Blocks(), "root", 0) == (world.orders[0],)


def test_an_unreadable_location_is_told_as_it_stands(file_world: BulkWorld) -> None:
    person = file_world.contributors[0]
    checksum = Bytes32("0x" + "01" * 32)
    file_world.ledger.datasets[person.dataset] = DatasetEntry(person.owner.address, "", checksum)
    assert outcome(file_world, *file_world.orders) == ["location-unreadable", None, None]
