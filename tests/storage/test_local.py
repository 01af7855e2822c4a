"""What only the local store promises: caps, quota, proofs against a damaged disk, and crashes at any step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.formula import content

from cloister.errors import ConfigurationError, TooLarge, UnavailableError, VerificationError
from cloister.storage.cid import Cid
from cloister.storage.local import INLINE_CAP, LocalStore
from cloister.storage.unixfs import CHUNK_SIZE, Layout

SIZE = 4 * CHUNK_SIZE + 5


def gather(into: bytearray, chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        into += chunk


def test_a_file_over_the_cap_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, max_file=SIZE)
    assert store.put(content(SIZE)).size == SIZE
    with pytest.raises(TooLarge, match=f"exceeds {SIZE} bytes"):
        store.put(content(SIZE + 1))
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_quota_counts_stored_content_once_and_frees_what_failed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, quota=2 * SIZE)
    store.put(content(SIZE))
    store.put(content(SIZE))
    assert store.used() == SIZE
    with pytest.raises(TooLarge) as caught:
        store.put([b"x" * (SIZE + 1)])
    assert caught.value.code == "quota"
    store.check_ready()
    store.put([b"x" * SIZE])
    assert store.used() == 2 * SIZE
    with pytest.raises(UnavailableError, match="quota"):
        store.check_ready()
    assert LocalStore(tmp_path).used() == 2 * SIZE


def test_racing_puts_do_not_pass_the_quota_together(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, quota=3 * SIZE)
    taken: list[bool] = []
    barrier = threading.Barrier(6)

    def race(number: int) -> None:
        barrier.wait()
        try:
            store.put([bytes([number]) * SIZE])
            taken.append(True)
        except TooLarge:
            taken.append(False)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) <= 3
    assert store.used() <= 3 * SIZE


@pytest.mark.parametrize("layout", [Layout(), Layout(1, raw_leaves=True)])
def test_a_flipped_bit_on_the_disk_is_met_at_its_leaf(tmp_path: Path, layout: Layout) -> None:
    store = LocalStore(tmp_path, layout=layout)
    stored = store.put(content(SIZE))
    path = store.content_path(stored.cid.digest)
    with path.open("r+b") as file:
        file.seek(2 * CHUNK_SIZE + 77)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    good = b"".join(content(SIZE))
    assert b"".join(store.open(stored.cid, length=2 * CHUNK_SIZE)) == good[: 2 * CHUNK_SIZE]
    assert b"".join(store.open(stored.cid, offset=3 * CHUNK_SIZE)) == good[3 * CHUNK_SIZE :]
    got = bytearray()
    with pytest.raises(VerificationError):
        gather(got, store.open(stored.cid))
    assert got == good[: 2 * CHUNK_SIZE]
    with pytest.raises(VerificationError):
        b"".join(store.open(stored.cid, offset=2 * CHUNK_SIZE, length=1))
    store.put(content(SIZE))  # what is stored again is whole again
    assert b"".join(store.open(stored.cid)) == good


def test_a_file_that_is_cut_or_gone_is_noticed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    stored = store.put(content(SIZE))
    path = store.content_path(stored.cid.digest)
    os.truncate(path, SIZE - 1)
    with pytest.raises(VerificationError):
        b"".join(store.open(stored.cid))
    path.unlink()
    with pytest.raises(UnavailableError, match="gone"):
        b"".join(store.open(stored.cid))


def test_small_content_lives_in_the_index_alone(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    small = store.put([b"x" * INLINE_CAP])
    assert list((tmp_path / "content").iterdir()) == []
    large = store.put([b"x" * (INLINE_CAP + 1)])
    assert len(list((tmp_path / "content").iterdir())) == 1
    for stored, size in ((small, INLINE_CAP), (large, INLINE_CAP + 1)):
        assert b"".join(store.open(stored.cid)) == b"x" * size


def test_content_is_written_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    size = 40 * CHUNK_SIZE
    store.put(content(size))
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size <= on_disk < size * 1.05 + 200_000


def test_leaves_that_repeat_or_are_shared_read_right(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    zeros = store.put([bytes(3 * CHUNK_SIZE)])
    mixed = store.put([b"a" * CHUNK_SIZE, bytes(CHUNK_SIZE), b"b" * CHUNK_SIZE])
    assert b"".join(store.open(zeros.cid)) == bytes(3 * CHUNK_SIZE)
    assert b"".join(store.open(mixed.cid)) == b"a" * CHUNK_SIZE + bytes(CHUNK_SIZE) + b"b" * CHUNK_SIZE


def test_roots_are_listed_in_pages(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put = {str(store.put([bytes([n])]).cid) for n in range(7)}
    seen: list[str] = []
    after = ""
    while page := store.roots(after=after, limit=3):
        seen += [cid for cid, _ in page]
        after = Cid.parse(page[-1][0]).digest.hex()
    assert set(seen) == put
    assert len(seen) == 7


def _slow_put(root: Path, started: multiprocessing.synchronize.Event) -> None:
    store = LocalStore(root)
    with store.writer() as writer:
        writer.write(bytes(3 * CHUNK_SIZE))
        started.set()
        time.sleep(60)


def test_a_killed_put_is_swept_at_the_next_start_and_a_living_one_is_not(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    store = LocalStore(tmp_path)
    kept = store.put(content(SIZE))
    started = spawning.Event()
    other = spawning.Process(target=_slow_put, args=(tmp_path, started))
    other.start()
    assert started.wait(30)
    LocalStore(tmp_path).close()
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join()
    LocalStore(tmp_path).close()
    assert list((tmp_path / "incoming").iterdir()) == []
    assert b"".join(store.open(kept.cid)) == b"".join(content(SIZE))


def test_content_moved_but_not_named_is_swept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    kept = store.put(content(SIZE))
    store.close()
    (tmp_path / "content" / ("ab" * 32)).write_bytes(b"a crash between rename and commit")
    reborn = LocalStore(tmp_path)
    assert [path.name for path in (tmp_path / "content").iterdir()] == [kept.cid.digest.hex()]
    assert b"".join(reborn.open(kept.cid)) == b"".join(content(SIZE))


def _kill_while_putting(root: Path, ready: multiprocessing.synchronize.Event) -> None:
    store = LocalStore(root)
    ready.set()
    for number in range(10_000):
        stored = store.put([number.to_bytes(4, "big") * (CHUNK_SIZE // 4), b"tail"])
        with (root.parent / "acknowledged").open("a") as log:
            log.write(f"{stored.cid} {number}\n")


def test_whatever_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    root = tmp_path / "store"
    for pause in (0.05, 0.21, 0.4):
        ready = spawning.Event()
        other = spawning.Process(target=_kill_while_putting, args=(root, ready))
        other.start()
        assert ready.wait(30)
        time.sleep(pause)
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join()
    store = LocalStore(root)
    lines = [line for line in (tmp_path / "acknowledged").read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert lines
    for line in lines:
        cid, number = line.split()
        assert b"".join(store.open(cid)) == int(number).to_bytes(4, "big") * (CHUNK_SIZE // 4) + b"tail"
    assert list((root / "incoming").iterdir()) == []


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    LocalStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="newer release"):
        LocalStore(tmp_path)
