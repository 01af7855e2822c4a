"""Storing and reading content: the local store, and the gateway service over loopback, beside the disk's own speed.

Each size runs in a process of its own, which tells its peak memory. Content is new at every put, because what is stored
already would be recognised only after it was written. "Plain" writes the same pieces to a file and calls fsync.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.rows import Row
from cloister.services.application import BackgroundServer, build_application
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings
from cloister.storage.content import ContentStore
from cloister.storage.kubo import KuboStore
from cloister.storage.local import LocalStore

MIB = 1 << 20
SIZES = (64, 1024)
"""In MiB."""
PUT_BUDGET = 500.0
MEMORY_BUDGET_MIB = 128.0
SMALL = 200


def pieces(count: int, salt: int) -> Iterator[bytes]:
    """``count`` MiB that are like no other."""
    base = os.urandom(MIB - 16)
    for number in range(count):
        yield salt.to_bytes(8, "big") + number.to_bytes(8, "big") + base


def plain_write(path: Path, count: int) -> float:
    """MiB a second of writing and fsync alone."""
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for piece in pieces(count, 0):
            file.write(piece)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return count / seconds


def put_and_get(store: ContentStore, count: int, salt: int) -> tuple[float, float]:
    """MiB a second of a put and of reading it back, proofs included."""
    began = time.perf_counter()
    stored = store.put(pieces(count, salt))
    written = time.perf_counter()
    received = sum(len(chunk) for chunk in store.open(stored.cid))
    ended = time.perf_counter()
    if received != count * MIB:
        raise RuntimeError(f"read {received} bytes of {count * MIB}")
    return count / (written - began), count / (ended - written)


def run(count: int, folder: Path) -> None:
    """In a child process: measure one size and print what was found."""
    rounds = 5 if count < 256 else 2
    found: dict[str, float] = {"plain": 0.0, "put": 0.0, "get": 0.0}
    local = LocalStore(folder / "local")
    for salt in range(1, rounds + 1):  # sides alternate, the best of each counts
        found["plain"] = max(found["plain"], plain_write(folder / "plain", count))
        put, get = put_and_get(local, count, salt)
        found["put"], found["get"] = max(found["put"], put), max(found["get"], get)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    for number in range(SMALL):
        local.put([number.to_bytes(100, "big")])
    found["small"] = (time.perf_counter() - began) / SMALL * 1000
    local.close()
    with BackgroundServer(build_application([GatewayPart(GatewaySettings(folder / "gateway"))])) as server:
        found["gateway put"], found["gateway get"] = put_and_get(KuboStore(server.url), count, 0)
    print(json.dumps(found))


def measure() -> list[Row]:
    """Rows for every size; the budgets are those of the local store."""
    rows: list[Row] = []
    for count in SIZES:
        folder = Path(tempfile.mkdtemp(prefix="cloister-bench-"))
        try:
            done = subprocess.run(
                [sys.executable, "-m", "bench.storage", str(count), str(folder)],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        found = json.loads(done.stdout.splitlines()[-1])
        size = f"{count} MiB" if count < 1024 else f"{count // 1024} GiB"
        rows += [
            Row(f"store {size}, local", found["put"], "MiB/s", PUT_BUDGET, "more"),
            Row(f"store {size}, local, over write and fsync alone", found["put"] / found["plain"], "ratio"),
            Row(f"read {size}, local, every leaf proven", found["get"], "MiB/s", PUT_BUDGET, "more"),
            Row(f"store and read {size}, local, peak memory", found["memory"], "MiB", MEMORY_BUDGET_MIB),
            Row(f"store {size}, gateway and client in one process", found["gateway put"], "MiB/s"),
            Row(f"read {size}, gateway and client in one process", found["gateway get"], "MiB/s"),
        ]
        if count == SIZES[0]:
            rows.append(Row("store 100 bytes, local, durable", found["small"], "ms"))
    return rows


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]))
