"""The log's tree against a naive model, its proofs, and every way in which they must not hold."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.attestation.transparency import (
    EMPTY_ROOT,
    MAX_SIZE,
    LogOrigin,
    build_head,
    check_path,
    consistency_ranges,
    fold_ranges,
    fold_root,
    frontier,
    grow,
    hash_leaf,
    inclusion_ranges,
    nodes_of,
    verify_consistency,
    verify_head,
    verify_inclusion,
)
from cloister.errors import DecodeError, LocalError, VerificationError
from cloister.protocol.signatures import PrivateKey

# Inputs and roots of the reference implementation of certificate transparency (RFC 6962): its test of Merkle trees.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def model(entries: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + model(entries[:split]) + model(entries[split:])).digest()


def model_path(index: int, entries: list[bytes]) -> list[bytes]:
    """RFC 9162 section 2.1.3.1."""
    if len(entries) == 1:
        return []
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if index < split:
        return [*model_path(index, entries[:split]), model(entries[split:])]
    return [*model_path(index - split, entries[split:]), model(entries[:split])]


def model_consistency(first: int, entries: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 9162 section 2.1.4.1."""
    if first == len(entries):
        return [] if whole else [model(entries)]
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if first <= split:
        return [*model_consistency(first, entries[:split], whole), model(entries[split:])]
    return [*model_consistency(first - split, entries[split:], whole=False), model(entries[:split])]


MANY = [b"entry %d" % number for number in range(300)]
NODES = grow(0, {}, [hash_leaf(entry) for entry in MANY])


def root_of(size: int) -> bytes:
    return fold_root(size, {node: NODES[node] for node in frontier(size)})


def inclusion(index: int, size: int) -> tuple[bytes, ...]:
    ranges = inclusion_ranges(index, size)
    return fold_ranges(ranges, {node: NODES[node] for node in nodes_of(ranges)})


def consistency(first: int, second: int) -> tuple[bytes, ...]:
    ranges = consistency_ranges(first, second)
    return fold_ranges(ranges, {node: NODES[node] for node in nodes_of(ranges)})


def test_known_roots() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    nodes = grow(0, {}, [hash_leaf(leaf) for leaf in LEAVES])
    for size, root in enumerate(ROOTS, 1):
        assert fold_root(size, nodes).hex() == root
        assert model(LEAVES[:size]).hex() == root


@given(st.lists(st.integers(0, 90), max_size=6))
@settings(max_examples=40)
def test_any_way_of_appending_gives_one_tree(batches: list[int]) -> None:
    nodes: dict[tuple[int, int], bytes] = {}
    size = 0
    for batch in batches:
        batch = min(batch, len(MANY) - size)
        known = {node: nodes[node] for node in frontier(size)}
        nodes |= grow(size, known, [hash_leaf(entry) for entry in MANY[size : size + batch]])
        size += batch
    assert nodes == grow(0, {}, [hash_leaf(entry) for entry in MANY[:size]])
    assert fold_root(size, nodes) == model(MANY[:size])


@given(st.integers(1, 300), st.data())
@settings(max_examples=150)
def test_proofs_are_the_models_and_hold(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    root = root_of(size)
    path = inclusion(index, size)
    assert list(path) == model_path(index, MANY[:size])
    verify_inclusion(MANY[index], index, size, path, root)
    proof = consistency(first, size)
    assert list(proof) == model_consistency(first, MANY[:size])
    verify_consistency(first, size, proof, root_of(first), root)
    verify_consistency(0, size, (), EMPTY_ROOT, root)


@given(st.integers(2, 300), st.data())
@settings(max_examples=150)
def test_a_changed_proof_does_not_hold(size: int, data: st.DataObject) -> None:
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    root, path, proof = root_of(size), list(inclusion(index, size)), list(consistency(first, size))

    def changed(pieces: list[bytes]) -> list[bytes]:
        match data.draw(st.sampled_from(["flip", "drop", "add", "length"] if pieces else ["add"])):
            case "flip":
                place = data.draw(st.integers(0, len(pieces) - 1))
                return [bytes([p[0] ^ 1]) + p[1:] if n == place else p for n, p in enumerate(pieces)]
            case "drop":
                return pieces[:-1]
            case "length":
                return [*pieces[:-1], pieces[-1] + b"\x00"]
            case _:
                return [*pieces, bytes(32)]

    with pytest.raises(VerificationError):
        verify_inclusion(MANY[index], index, size, changed(path), root)
    with pytest.raises(VerificationError):
        verify_inclusion(MANY[index] + b"!", index, size, path, root)
    with pytest.raises(VerificationError):
        verify_inclusion(MANY[index], (index + 1) % size, size, path, root)
    with pytest.raises(VerificationError) as split:
        verify_consistency(first, size, changed(proof), root_of(first), root)
    assert split.value.code == "log-split"
    with pytest.raises(VerificationError):
        verify_consistency(first, size, proof, bytes(32), root)
    with pytest.raises(VerificationError):
        verify_consistency(first, size, proof, root_of(first), bytes(32))


def test_every_rewritten_history_is_noticed() -> None:
    """Whatever entry of the past is another, no proof joins the two logs."""
    for place in range(20):
        other = [*MANY[:place], b"rewritten", *MANY[place + 1 : 33]]
        nodes = grow(0, {}, [hash_leaf(entry) for entry in other])
        with pytest.raises(VerificationError, match="two stories"):
            verify_consistency(
                20, 33, fold_ranges(consistency_ranges(20, 33), nodes), root_of(20), fold_root(33, nodes)
            )


def test_a_shrunk_log_is_named() -> None:
    with pytest.raises(VerificationError, match="entries were taken away") as shrunk:
        verify_consistency(5, 4, (), root_of(5), root_of(4))
    assert shrunk.value.code == "log-shrunk"


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0), (2**53, 2**54), (0, MAX_SIZE + 1)], ids=str)
def test_no_place_outside_a_log(index: int, size: int) -> None:
    with pytest.raises(VerificationError):
        verify_inclusion(b"", index, size, [bytes(32)] * 53, bytes(32))


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_no_proof_is_made_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(LocalError):
        inclusion_ranges(index, size)


@pytest.mark.parametrize(("first", "second"), [(-1, 5), (-2, -1), (3, MAX_SIZE + 1)])
def test_no_consistency_of_impossible_sizes(first: int, second: int) -> None:
    with pytest.raises(VerificationError):
        verify_consistency(first, second, [bytes(32)] * 3, bytes(32), bytes(32))
    with pytest.raises(LocalError):
        consistency_ranges(0, 5)


def test_a_path_is_a_list_of_hashes() -> None:
    assert check_path([bytes(32)]) == (bytes(32),)
    for path in (None, b"", [b"short"], ["0x"], [bytes(32)] * 129):
        with pytest.raises(DecodeError):
            check_path(path)


KEY = PrivateKey(b"\x07" * 32)
ORIGIN = LogOrigin(421614, b"\x01" * 20, KEY.address.raw)
HEAD = build_head(ORIGIN, 8, bytes.fromhex(ROOTS[7]), 1_800_000_000, KEY.sign_message)


def test_a_signed_head_holds() -> None:
    assert verify_head(HEAD, ORIGIN) is HEAD


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size": 9}, "log-head-signature"),
        ({"root": bytes(32)}, "log-head-signature"),
        ({"timestamp": 1}, "log-head-signature"),
        ({"signature": bytes(65)}, "log-head-signature"),
        ({"signature": HEAD.signature[:64]}, "log-head-signature"),
        ({"signature": HEAD.signature[:64] + b"\x1d"}, "log-head-signature"),
        ({"origin": replace(ORIGIN, chain_id=1)}, "log-origin"),
        ({"origin": replace(ORIGIN, hub=bytes(20))}, "log-origin"),
        ({"origin": replace(ORIGIN, sms=bytes(20))}, "log-origin"),
    ],
)
def test_a_changed_head_does_not(change: dict[str, object], code: str) -> None:
    with pytest.raises(VerificationError) as refusal:
        verify_head(replace(HEAD, **change), ORIGIN)  # type: ignore[arg-type]
    assert refusal.value.code == code


def test_a_head_of_another_log_is_not_one_of_this_even_when_its_sms_signs() -> None:
    other = replace(ORIGIN, chain_id=1)
    moved = replace(build_head(other, 8, HEAD.root, HEAD.timestamp, KEY.sign_message), origin=ORIGIN)
    with pytest.raises(VerificationError, match="not signed by the sms"):
        verify_head(moved, ORIGIN)


@pytest.mark.parametrize("values", [(-1, bytes(32), 0), (2**53, bytes(32), 0), (0, bytes(31), 0), (0, bytes(32), -1)])
def test_no_head_is_made_of_impossible_values(values: tuple[int, bytes, int]) -> None:
    with pytest.raises(LocalError):
        build_head(ORIGIN, *values, KEY.sign_message)
    with pytest.raises(LocalError):
        LogOrigin(-1, bytes(20), bytes(20))
