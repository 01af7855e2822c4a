"""One suite for every store: a local directory, and a node's RPC and gateway over a real socket."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.storage.conftest import Stage
from tests.support.formula import content

from cloister.errors import DecodeError, InputError, NotFound, TooLarge
from cloister.storage.cid import Cid
from cloister.storage.unixfs import CHUNK_SIZE

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "storage" / "unixfs.json").read_text())
ABSENT = "QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi"


@pytest.mark.parametrize("row", VECTORS["files"], ids=lambda row: row["name"])
def test_content_gets_its_cid_and_comes_back(stage: Stage, row: dict[str, Any]) -> None:
    stored = stage.store.put(content(row["size"]))
    assert (str(stored.cid), stored.size) == (row[stage.version]["cid"], row["size"])
    stat = stage.store.stat(stored.cid)
    assert (stat.size, stat.kind) == (row["size"], "file")
    assert b"".join(stage.store.open(str(stored.cid))) == b"".join(content(row["size"]))


SIZE = 3 * CHUNK_SIZE + 100
RANGES = [
    (0, 0),
    (0, 1),
    (SIZE - 1, 1),
    (SIZE, None),
    (SIZE, 0),
    (CHUNK_SIZE - 1, 2),
    (CHUNK_SIZE, CHUNK_SIZE),
    (5, 2 * CHUNK_SIZE),
    (2 * CHUNK_SIZE + 7, None),
    (SIZE - 5, 500),
]


def test_ranges(stage: Stage) -> None:
    whole = b"".join(content(SIZE))
    stored = stage.store.put([whole])
    for offset, length in RANGES:
        got = b"".join(stage.store.open(stored.cid, offset=offset, length=length))
        assert got == whole[offset : None if length is None else offset + length], (offset, length)
    for offset, length in ((SIZE + 1, None), (-1, None), (0, -1)):
        with pytest.raises(InputError, match="outside"):
            stage.store.open(stored.cid, offset=offset, length=length)


def test_a_range_deep_in_a_two_level_tree(stage: Stage) -> None:
    size = 45 * 1024 * 1024 + 3
    stored = stage.store.put(content(size))
    whole = b"".join(content(size))
    for offset, length in ((174 * CHUNK_SIZE - 3, 6), (size - 4, 4), (100 * CHUNK_SIZE, 10)):
        assert b"".join(stage.store.open(stored.cid, offset=offset, length=length)) == whole[offset : offset + length]


def test_directories_nest_and_paths_resolve(stage: Stage) -> None:
    one = stage.store.put([b"1"])
    two = stage.store.put(content(CHUNK_SIZE + 1))
    inner = stage.store.put_directory({"two": two.cid})
    folder = stage.store.put_directory({"one": one.cid})
    outer = stage.store.put_directory({"x": folder.cid, "é %": one.cid, "y": inner.cid})
    assert b"".join(stage.store.open(f"{outer.cid}/x/one")) == b"1"
    assert b"".join(stage.store.open(f"/ipfs/{outer.cid}/y/two")) == b"".join(content(CHUNK_SIZE + 1))
    assert b"".join(stage.store.open(f"{outer.cid}/é %")) == b"1"
    assert stage.store.stat(outer.cid).kind == "directory"
    for path in ("nothing", "x/nothing", "x/one/deeper"):
        with pytest.raises(NotFound):
            stage.store.open(f"{outer.cid}/{path}")
    with pytest.raises(InputError, match="is a directory"):
        stage.store.open(outer.cid)
    with pytest.raises(InputError, match="climbs"):
        stage.store.open(f"{outer.cid}/x/../x/one")


def test_an_empty_directory_is_that_of_everybody(stage: Stage) -> None:
    row = next(row for row in VECTORS["directories"] if row["name"] == "empty directory")
    assert str(stage.store.put_directory({}).cid) == row[stage.version]["cid"]


def test_content_that_is_not_there(stage: Stage) -> None:
    with pytest.raises(NotFound):
        stage.store.open(ABSENT)
    with pytest.raises(NotFound):
        stage.store.stat(Cid.parse(ABSENT))
    with pytest.raises(NotFound):
        stage.store.put_directory({"a": Cid.parse(ABSENT)})
    with pytest.raises(DecodeError):
        stage.store.open("not a cid")


def test_the_callers_cap_is_met_before_the_first_byte(stage: Stage) -> None:
    stored = stage.store.put([b"x" * 1000])
    with pytest.raises(TooLarge, match="1000 bytes, more than 999"):
        stage.store.open(stored.cid, cap=999)
    assert len(b"".join(stage.store.open(stored.cid, cap=1000))) == 1000
    assert len(b"".join(stage.store.open(stored.cid, cap=999, length=999))) == 999


def files_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for folder in ("incoming", "content") for path in (root / folder).iterdir()}


def test_a_put_whose_source_breaks_leaves_nothing(stage: Stage) -> None:
    before = files_in(stage.root)

    def breaking() -> Iterator[bytes]:
        yield os.urandom(3 * CHUNK_SIZE)
        raise ZeroDivisionError("the source broke")

    with pytest.raises(ZeroDivisionError):
        stage.store.put(breaking())
    for _ in range(200):
        if files_in(stage.root) == before:
            return
        threading.Event().wait(0.02)  # a server learns of a broken upload a moment later
    pytest.fail(f"left behind: {files_in(stage.root) - before}")


def test_putting_twice_is_putting_once(stage: Stage) -> None:
    first = stage.store.put(content(SIZE))
    before = files_in(stage.root)
    assert stage.store.put(content(SIZE)) == first
    assert files_in(stage.root) == before


def test_many_puts_and_reads_at_once(stage: Stage) -> None:
    sizes = [0, 10, CHUNK_SIZE, CHUNK_SIZE + 1, SIZE, SIZE]
    failures: list[object] = []

    def work(size: int) -> None:
        for _ in range(3):
            stored = stage.store.put(content(size))
            if b"".join(stage.store.open(stored.cid)) != b"".join(content(size)):
                failures.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
