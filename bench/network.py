"""A whole local network as its users meet it: time until it is ready, time of a task, memory when nothing happens.

The network is ``cloister up`` in processes of its own, with a home folder that is new; times count from starting the
program. A task is measured in this process by the SDK: a stdlib-only iApp that does next to nothing, on protected data
under a grant, result sealed to the requester and opened. "Request signed" is the moment the order books were read and
the request is about to be signed; what the call takes before that is a row of its own. Memory is PSS (shared pages are
counted once) of the network's process and everything it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.rows import Row
from cloister.generator.bundle import build_bundle
from cloister.network.children import die_with_parent
from cloister.sdk.data_protector import DataProtector
from cloister.sdk.processing import Run
from cloister.sdk.progress import Progress

NAME = "bench"
STARTS = 3
WARM_UP, RUNS = 3, 30
IDLE_SECONDS = 30.0
READY_BUDGET, LATENCY_BUDGET, MEMORY_BUDGET_MIB = 5.0, 1.5, 400.0
READY_TIMEOUT, TASK_TIMEOUT, STOP_TIMEOUT = 60, 60.0, 60
PRICE = "0.02 RLC"

SETTINGS = """name = "empty"
version = "1.0.0"
entrypoint = "main.py"
runtime = "python3"
"""
PROGRAM = """import json, os, pathlib
out = pathlib.Path(os.environ["IEXEC_OUT"])
(out / "result.txt").write_text("done")
(out / "computed.json").write_text(json.dumps({"deterministic-output-path": str(out / "result.txt")}))
"""


@dataclass
class Stages:
    """When what the SDK tells happened, in seconds of the monotonic clock."""

    marks: list[tuple[str, float]] = field(default_factory=list)

    def hear(self, progress: Progress) -> None:
        """Listen to the SDK."""
        name = progress.step + (" finished" if progress.finished else f" {progress.detail or ''}".rstrip())
        self.marks.append((name, time.perf_counter()))

    def first(self, name: str) -> float:
        """When a mark came first."""
        return next(at for mark, at in self.marks if mark == name)


@contextlib.contextmanager
def running_network(home: Path) -> Iterator[tuple[int, float]]:
    """``cloister up``; gives its process id and the seconds from starting the program until it said that it is ready."""
    command = [sys.executable, "-m", "cloister.cli.main", "up", "--json", "--name", NAME, "--port", "0"]
    environment = os.environ | {"CLOISTER_HOME": str(home)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--chain-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  (the child only calls prctl)
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        seconds = time.perf_counter() - began
        if not line.strip():
            raise RuntimeError(f"the network did not come up (exit {process.wait(READY_TIMEOUT)})")
        yield process.pid, seconds
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT)


def measure_starts(folder: Path) -> tuple[float, float]:
    """Medians of cold starts (an empty home each) and of the start after each."""
    cold, warm = [], []
    for number in range(STARTS):
        home = folder / f"start{number}"
        with running_network(home) as (_, seconds):
            cold.append(seconds)
        with running_network(home) as (_, seconds):
            warm.append(seconds)
    return statistics.median(cold), statistics.median(warm)


def descendants(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def memory_of(process: int) -> dict[str, float]:
    """PSS in MiB of the network's parts: services, chain, worker, enclave."""
    parts: dict[str, float] = {}
    for number in descendants(process):
        folder = Path("/proc") / str(number)
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            rollup = (folder / "smaps_rollup").read_text().splitlines()
            pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
            part = _part_of(command) if number != process else "services"
            parts[part] = parts.get(part, 0.0) + pss
    return parts


def processor_seconds(process: int) -> float:
    """What the network has used so far, all processes together."""
    ticks = 0
    for number in descendants(process):
        with contextlib.suppress(OSError):
            fields = (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _part_of(command: str) -> str:
    if "anvil" in command:
        return "chain"
    return "worker" if "serve worker" in command else "waiting enclave"


class Bench:
    """One app, one piece of protected data and a grant on a running network."""

    def __init__(self, folder: Path) -> None:
        source = folder / "empty"
        source.mkdir()
        (source / "iapp.toml").write_text(SETTINGS)
        (source / "main.py").write_text(PROGRAM)
        company = DataProtector.connect(NAME, wallet="company")
        self._app = company.apps.deploy(build_bundle(source).path, name="empty")
        company.apps.publish(self._app.address)
        owner = DataProtector.connect(NAME, wallet="hospital")
        self._data = owner.protect_data({"email": "someone@example.org"}, name="bench")
        self._stages = Stages()
        self._requester = DataProtector.connect(NAME, wallet="researcher", on_status=self._hear)
        owner.grant_access(self._data, app=self._app, user=self._requester.connection.address, accesses=1000)
        self._requester.account.deposit("10 RLC")

    def _hear(self, progress: Progress) -> None:
        self._stages.hear(progress)

    def run(self) -> dict[str, float]:
        """One task. Gives the seconds of each stage, as the requester sees them."""
        self._stages = stages = Stages()
        began = time.perf_counter()
        run: Run = self._requester.process_protected_data(
            self._data, app=self._app, workerpool_max_price=PRICE, timeout=TASK_TIMEOUT
        )
        if run.result.read("result.txt") != b"done":
            raise RuntimeError("the app's result is not what it wrote")
        ended = time.perf_counter()
        signed = stages.first("FETCH_ORDERS finished")
        matched = stages.first("REQUEST_TO_PROCESS_PROTECTED_DATA finished")
        completed = stages.first("TASK_EXECUTION finished")
        return {
            "latency": ended - signed,
            "read the order books": signed - began,
            "check and sign": stages.first("REQUEST_TO_PROCESS_PROTECTED_DATA") - signed,
            "match, mined": matched - stages.first("REQUEST_TO_PROCESS_PROTECTED_DATA"),
            "run, upload and contribute, mined": completed - matched,
            "download and open": ended - completed,
        }


def measure_tasks(folder: Path) -> list[Row]:
    """Latency of ``RUNS`` tasks, one after the other."""
    bench = Bench(folder)
    for _ in range(WARM_UP):
        bench.run()
    runs = [bench.run() for _ in range(RUNS)]
    latencies = sorted(run["latency"] for run in runs)
    rows = [
        Row("task latency, request signed to result opened, p50", statistics.median(latencies), "s", LATENCY_BUDGET),
        Row("task latency, p95", latencies[int(0.95 * (RUNS - 1) + 0.5)], "s"),
    ]
    stages = [name for name in runs[0] if name != "latency"]
    return rows + [Row(f"task, {name}, p50", statistics.median(run[name] for run in runs), "s") for name in stages]


def memory_rows(process: int, when: str, budget: float | None) -> list[Row]:
    """One row for all, one for each part."""
    parts = memory_of(process)
    rows = [Row(f"memory of the network, {when}", sum(parts.values()), "MiB", budget)]
    return rows + [Row(f"memory, {when}, {part}", size, "MiB") for part, size in sorted(parts.items())]


def measure() -> list[Row]:
    """Rows for starts, tasks and memory."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as name:
        folder = Path(name)
        cold, warm = measure_starts(folder)
        rows = [
            Row("network ready, cold", cold, "s", READY_BUDGET),
            Row("network ready, again", warm, "s", READY_BUDGET),
        ]
        home = folder / "home"
        os.environ["CLOISTER_HOME"] = str(home)
        with running_network(home) as (process, _):
            before = processor_seconds(process)
            time.sleep(IDLE_SECONDS)
            share = 100 * (processor_seconds(process) - before) / IDLE_SECONDS
            rows += memory_rows(process, "idle", MEMORY_BUDGET_MIB)
            rows.append(Row("processor use of the network, idle, of one core", share, "%"))
            rows += measure_tasks(folder)
            time.sleep(IDLE_SECONDS)
            rows += memory_rows(process, f"idle after {WARM_UP + RUNS} tasks", None)
    return rows
