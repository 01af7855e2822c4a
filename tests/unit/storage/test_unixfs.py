"""The builder against vectors of other implementations, and properties of the block formats."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.formula import content

from cloister.errors import DecodeError, InputError, TooLarge
from cloister.storage.cid import Cid, Codec
from cloister.storage.dagpb import Link, Node, build_node, parse_node
from cloister.storage.unixfs import (
    CHUNK_SIZE,
    LINKS_PER_NODE,
    Built,
    FileBuilder,
    Kind,
    Layout,
    build_directory,
    parse_unixfs,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "storage"
LAYOUTS = {"v0": Layout(), "v1": Layout(1, raw_leaves=True)}


def load_vectors(name: str, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())[key]
    assert rows, f"no vectors in {name}"
    return rows


def build(size: int, layout: Layout, step: int = 1 << 20) -> Built:
    builder = FileBuilder(layout)
    for chunk in content(size, step):
        builder.write(chunk)
    return builder.finish()


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("row", load_vectors("unixfs.json", "files"), ids=lambda row: row["name"])
def test_files_get_the_cid_that_helia_gives(row: dict[str, Any], version: str) -> None:
    expected = row[version]
    built = build(row["size"], LAYOUTS[version])
    assert (str(built.cid), built.size, built.total_size) == (
        expected["cid"],
        expected["filesize"],
        expected["cumulative_size"],
    )


@pytest.mark.parametrize("row", load_vectors("kubo.json", "files"), ids=lambda row: row["name"])
def test_files_get_the_cid_that_kubo_published(row: dict[str, Any]) -> None:
    builder = FileBuilder(LAYOUTS[row["layout"]])
    builder.write(row["text"].encode())
    assert str(builder.finish().cid) == row["cid"]


def build_tree(entries: dict[str, Any], version: str) -> Built:
    layout = LAYOUTS[version]
    children: dict[str, Built] = {}
    for name, value in entries.items():
        children[name] = build_tree(value, version) if isinstance(value, dict) else build(value, layout)
    return build_directory(children, cid_version=layout.cid_version)[0]


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("row", load_vectors("unixfs.json", "directories"), ids=lambda row: row["name"])
def test_directories_get_the_cid_that_helia_gives(row: dict[str, Any], version: str) -> None:
    tree: dict[str, Any] = {}
    for path, size in row["entries"].items():
        *folders, name = path.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = size
    built = build_tree(tree, version)
    assert (str(built.cid), built.total_size) == (row[version]["cid"], row[version]["cumulative_size"])


@pytest.mark.parametrize("step", [256, 4096, CHUNK_SIZE - 256, CHUNK_SIZE, CHUNK_SIZE + 256, 3 * CHUNK_SIZE])
def test_how_the_stream_is_cut_does_not_matter(step: int) -> None:
    size = 5 * CHUNK_SIZE + 777
    assert build(size, Layout(), step) == build(size, Layout(), 1 << 22)


def test_a_third_level_is_built_and_every_node_is_seen_once_children_first() -> None:
    leaves = LINKS_PER_NODE * LINKS_PER_NODE + 1
    seen: dict[Cid, bytes] = {}

    def keep(cid: Cid, block: bytes) -> None:
        node = parse_node(block)
        assert all(link.cid in seen or link.cid.codec is Codec.RAW for link in node.links)
        seen[cid] = block

    builder = FileBuilder(Layout(1, raw_leaves=True), on_node=keep)
    chunk = bytes(CHUNK_SIZE)
    for _ in range(leaves - 1):
        builder.write(chunk)
    builder.write(b"x")
    root = builder.finish()
    top = parse_node(seen[root.cid])
    assert len(top.links) == 2
    assert parse_unixfs(top).block_sizes == (LINKS_PER_NODE**2 * CHUNK_SIZE, 1)
    lonely = parse_node(seen[top.links[1].cid])
    assert len(lonely.links) == 1
    assert len(parse_node(seen[lonely.links[0].cid]).links) == 1
    assert root.size == LINKS_PER_NODE**2 * CHUNK_SIZE + 1


cids = st.builds(
    lambda digest, raw: Cid(1, Codec.RAW, digest) if raw else Cid(0, Codec.DAG_PB, digest),
    st.binary(min_size=32, max_size=32),
    st.booleans(),
)
links = st.builds(Link, cids, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.integers(0, 2**63 - 1))


@given(st.lists(links, max_size=5), st.none() | st.binary(max_size=50))
def test_blocks_parse_to_what_was_built(given_links: list[Link], data: bytes | None) -> None:
    block = build_node(given_links, data)
    assert parse_node(block) == Node(tuple(given_links), data)


@given(st.binary(max_size=200))
def test_foreign_bytes_parse_or_raise_from_the_tree(block: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parse_unixfs(parse_node(block))


@given(st.binary(max_size=60))
def test_a_foreign_message_parses_or_raises_from_the_tree(message: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert parse_unixfs(Node((), message)).kind in Kind


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "not known"),
        (b"\x08\x09", "unixfs type 9"),
        (b"\x08\x02\x18\x05", "says it has 5"),
        (b"\x08\x02\x20\x05", "0 links and 1 sizes"),
        (b"\x08\x02\x4a\x00", "unexpected field 9"),
        (b"\x08\x02\x12\x05ab", "cut short"),
        (b"\x0a\x00", "unexpected field 1"),
    ],
)
def test_messages_that_lie_are_refused(message: bytes, text: str) -> None:
    with pytest.raises(DecodeError, match=text):
        parse_unixfs(Node((), message))


def test_blocks_over_the_cap_and_links_out_of_order_are_refused() -> None:
    with pytest.raises(TooLarge):
        parse_node(b"\x0a" + bytes(2 * 1024 * 1024 + 1))
    swapped = b"\x12\x00" + b"\x0a\x22\x12\x20" + bytes(32)
    with pytest.raises(DecodeError, match="out of order"):
        parse_node(b"\x12" + bytes([len(swapped)]) + swapped)
    with pytest.raises(DecodeError, match="names no block"):
        parse_node(b"\x12\x02\x12\x00")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256, "\ud800"])
def test_names_that_cannot_stand_in_a_directory_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a file name"):
        build_directory({name: Built(Cid(0, Codec.DAG_PB, bytes(32)), 0, 0)})


def test_a_directory_that_kubo_would_shard_is_refused() -> None:
    child = Built(Cid(0, Codec.DAG_PB, bytes(32)), 0, 0)
    build_directory({f"{i:05d}": child for i in range(6700)})
    with pytest.raises(TooLarge, match="does not fit one block"):
        build_directory({f"{i:05d}": child for i in range(6800)})
