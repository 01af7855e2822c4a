"""Protecting data: pack a file, encrypt it and take its checksum, beside AES-256-GCM and SHA-256 of as many bytes.

Each size runs in a process of its own, which tells its peak memory. The plain side encrypts and hashes pieces of 1 MiB
that lie in memory; ours reads a file besides, and takes the CRC-32 that ZIP wants. Runs alternate; the best of each
side counts. Ours is two threads, so the ratio is told twice: of elapsed time as it runs, and of processor time on one
core, which other work on the machine does not disturb; the budget is for the latter. The file of 8 GiB is sparse but
for a random piece in every 256 MiB. Every file is in the page cache when the clock starts: disks are not measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.rows import Row
from cloister.datasets.packing import pack
from cloister.sealing.checksum import ChecksumStream
from cloister.sealing.keys import generate_content_key, seal_content
from cloister.sealing.pipeline import run_ahead

MIB = 1 << 20
SIZES = (1 * MIB, 64 * MIB, 100 * MIB, 1024 * MIB, 8192 * MIB)
SPARSE_FROM = 2048 * MIB
NEEDED_DISK = 20 << 30
MEMORY_BUDGET_MIB = 128.0
RATIO_BUDGET = 0.60
SECONDS_BUDGETS = {100 * MIB: 10.8 / 40, 1024 * MIB: 218 / 80}
"""The reference client's measured seconds over the factor asked for."""
SMALL_ENTRIES, SMALL_BUDGET = 1000, 0.5
PIECES = 64


def protect(path: Path) -> int:
    """The protect path up to the upload: sealed bytes to nowhere, hashed. Gives their number."""
    key = generate_content_key(os.urandom)
    sealed = ChecksumStream(run_ahead(seal_content(key, pack(path).chunks, entropy=os.urandom)))
    with Path(os.devnull).open("wb", buffering=0) as nowhere:
        for chunk in sealed:
            nowhere.write(chunk)
    if len(sealed.digest) != hashlib.sha256().digest_size:
        raise RuntimeError("the content was not hashed")
    return sealed.size


def plain(size: int, pieces: list[bytes]) -> None:
    """AES-256-GCM and SHA-256 of ``size`` bytes, a MiB at a time."""
    cipher, digest = AESGCM(os.urandom(32)), hashlib.sha256()
    for number in range(size // MIB):
        digest.update(cipher.encrypt(number.to_bytes(12, "big"), pieces[number % len(pieces)], None))


def make_file(path: Path, size: int) -> None:
    """Random bytes; sparse for the largest."""
    with path.open("wb") as file:
        if size >= SPARSE_FROM:
            file.truncate(size)
            for start in range(0, size, 256 * MIB):
                file.seek(start)
                file.write(os.urandom(MIB))
            return
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))


def run_size(path: Path, *, one_core: bool) -> None:
    """In a child process: measure one file, print seconds of both sides and the peak memory of ours."""
    if one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clock = time.process_time if one_core else time.perf_counter
    size = path.stat().st_size
    rounds = 2 if size >= SPARSE_FROM else 4 if size > 256 * MIB else 16
    _warm(path)
    ours = [_seconds(lambda: protect(path), clock) for _ in range(rounds)]
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    pieces = [os.urandom(MIB) for _ in range(PIECES)]
    theirs = []
    for _ in range(rounds):
        theirs.append(_seconds(lambda: plain(size, pieces), clock))
        if rounds > 1:
            ours.append(_seconds(lambda: protect(path), clock))
    json.dump({"ours": min(ours), "plain": min(theirs), "peak_mib": int(peak.split()[1]) / 1024}, sys.stdout)


def _warm(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(MIB):
            pass


def _seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    begun = clock()
    run()
    return clock() - begun


def _child(path: Path, *, one_core: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.protect", str(path), "one" if one_core else "all"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _name(size: int) -> str:
    return f"{size // MIB} MiB" if size < 1024 * MIB else f"{size // (1024 * MIB)} GiB"


def _measure_size(size: int, folder: Path) -> list[Row]:
    if size >= SPARSE_FROM and shutil.disk_usage(folder).free < NEEDED_DISK:
        return [Row(f"protect {_name(size)}: skipped, less than 20 GiB of disk are free", float("nan"), "")]
    path = folder / "content"
    make_file(path, size)
    try:
        both, single = _child(path, one_core=False), _child(path, one_core=True)
    finally:
        path.unlink()
    name = _name(size)
    ratio_budget = RATIO_BUDGET if size >= 64 * MIB else None  # below, making threads and keys weighs more
    return [
        Row(f"protect {name}", both["ours"], "s", SECONDS_BUDGETS.get(size)),
        Row(f"protect {name}, throughput", size / MIB / both["ours"], "MiB/s"),
        Row(f"protect {name}, AES-GCM + SHA-256 alone = 1", both["plain"] / both["ours"], "", None, "more"),
        Row(f"protect {name}, same, one core", single["plain"] / single["ours"], "", ratio_budget, "more"),
        Row(f"protect {name}, peak memory", both["peak_mib"], "MiB", MEMORY_BUDGET_MIB),
    ]


def _measure_small() -> Row:
    value = {f"entry-{number}": {"text": f"value {number}", "number": number} for number in range(SMALL_ENTRIES // 2)}
    best = min(_seconds(lambda: [len(chunk) for chunk in pack(value).chunks]) for _ in range(5))
    return Row(f"pack {SMALL_ENTRIES:,} small entries", best, "s", SMALL_BUDGET)


def measure(sizes: tuple[int, ...] = SIZES) -> list[Row]:
    """Rows for every size in bytes, and for many small entries."""
    rows = [_measure_small()]
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            rows += _measure_size(size, Path(folder))
    return rows


if __name__ == "__main__":
    run_size(Path(sys.argv[1]), one_core=sys.argv[2] == "one")
