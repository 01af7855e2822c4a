"""Running the flows: node scripts that use iExec's packages against a live network, a few at a time.

Every flow gets a context file of its own (mode 0600) with its own bank, and prints one JSON line for each check.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.network import ETHER, LiveNetwork

from cloister.protocol.signatures import PrivateKey
from cloister.protocol.units import parse_nrlc
from cloister.sdk.javascript import build_configuration

HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
PACKAGES = HERE / "node_modules"
SECONDS = 240
"""What one flow may take."""

_PARALLEL = 5
_BANK_RLC = parse_nrlc("25 RLC")
_OPERATORS = ("deployer", "scheduler")


def find_flows() -> list[str]:
    """Every flow as ``package/name``. Files whose name begins with ``_`` are shared parts."""
    found = (path.relative_to(CLIENTS) for path in CLIENTS.glob("*/*.mjs") if not path.name.startswith("_"))
    return sorted(str(path.with_suffix("")) for path in found)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a flow. ``methods`` are the public methods that it backs."""

    name: str
    ok: bool
    milliseconds: int
    error: str = ""

    @property
    def methods(self) -> tuple[str, ...]:
        """The names before the colon."""
        return tuple(name.strip() for name in self.name.partition(":")[0].split(","))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a flow said and how it ended."""

    flow: str
    code: int | None
    checks: tuple[Check, ...]
    values: Mapping[str, Any]
    noise: str

    @property
    def skipped(self) -> str:
        """Why the flow could not run here (it printed ``{"skip": why}``); empty when it ran."""
        return str(self.values.get("skip", ""))

    def problem(self) -> str:
        """Every check that did not pass, expected and actual as the script said them; empty when all passed."""
        broken = [f"✗ {check.name} ({check.milliseconds} ms)\n{check.error}" for check in self.checks if not check.ok]
        if self.code is None:
            last = self.checks[-1].name if self.checks else "none"
            broken.append(f"ended after {SECONDS} s; the last check was {last}")
        elif self.code != 0 and not broken:
            broken.append(f"ended with {self.code}")
        if not self.checks:
            broken.append("checked nothing")
        if not broken:
            return ""
        passed = sum(check.ok for check in self.checks)
        return f"{self.flow}: {passed} checks passed\n" + "\n".join(broken) + f"\n{self.noise[-4000:]}"


class Flows:
    """Runs flows against one network and keeps their outcomes."""

    def __init__(
        self, live: LiveNetwork, folder: Path, apps: Mapping[str, Mapping[str, str]], categories: Mapping[str, int]
    ) -> None:
        self._live = live
        self._folder = folder
        self._apps = apps
        self._categories = categories
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="flow")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="surface")
        self._surface: Future[dict[str, list[str]]] | None = None
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._futures: dict[str, Future[Outcome]] = {}
        (folder / "locks").mkdir()

    def start(self, flows: Iterable[str]) -> None:
        """Begin flows; each runs once."""
        with self._lock:
            for flow in flows:
                if flow not in self._futures:
                    self._futures[flow] = self._pool.submit(self.run, CLIENTS / f"{flow}.mjs", name=flow)

    def outcome(self, flow: str) -> Outcome:
        """Wait for a flow."""
        self.start([flow])
        return self._futures[flow].result()

    def start_surface(self) -> None:
        """Begin to ask the packages what they export, behind whatever else runs."""
        with self._lock:
            if self._surface is None:
                self._surface = self._aside.submit(_ask_surface)

    def surface(self) -> dict[str, list[str]]:
        """The public methods of each package."""
        self.start_surface()
        assert self._surface is not None
        return self._surface.result()

    def stop(self) -> None:
        """End what still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for process in self._running:
                process.kill()
        self._pool.shutdown(wait=True)
        self._aside.shutdown(wait=True)

    def run(self, script: Path, *, name: str = "", extra: Mapping[str, Any] | None = None) -> Outcome:
        """Run one script with a context of its own; ``extra`` members are added to it. Values that the script prints as
        ``{"value": name, ...}`` are kept.
        """
        folder = self._folder / f"{(name or script.stem).replace('/', '-')}-{secrets.token_hex(4)}"
        folder.mkdir()
        context = folder / "context.json"
        context.touch(mode=0o600)
        context.write_text(json.dumps(self._context(folder) | dict(extra or {})))
        code: int | None
        with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
            command = ["node", "--no-warnings", str(script), str(context)]
            process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=_environment(folder), text=True)
            with self._lock:
                self._running.add(process)
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            finally:
                with self._lock:
                    self._running.discard(process)
            out.seek(0)
            err.seek(0)
            return _read(name or script.stem, code, out.read(), err.read())

    def _context(self, folder: Path) -> dict[str, Any]:
        live, description = self._live, self._live.network.description
        return {
            "network": description.to_json(),
            "configuration": build_configuration(description),
            "bank": _hex(self._bank()),
            "operators": {role: _hex(live.connect(role).connection.signer) for role in _OPERATORS},
            "apps": self._apps,
            "app": self._apps["probe"],
            "categories": self._categories,
            "locks": str(self._folder / "locks"),
            "folder": str(folder),
            "cloister_home": str(live.home),
        }

    def _bank(self) -> PrivateKey:
        """A rich wallet, so that flows share no nonces."""
        key = PrivateKey(secrets.token_bytes(32))
        self._live.give(key.address, ether=1000 * ETHER, rlc=_BANK_RLC)
        return key


def _ask_surface() -> dict[str, list[str]]:
    command = ["nice", "node", "--no-warnings", str(HERE / "surface.mjs")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS)
    surface: dict[str, list[str]] = json.loads(done.stdout)
    return surface


def _hex(key: PrivateKey) -> str:
    return "0x" + key.unprotected_raw().hex()


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    return kept | {"HOME": str(folder), "NO_COLOR": "1"}


def _read(flow: str, code: int | None, stdout: str, stderr: str) -> Outcome:
    checks, values, noise = [], {}, []
    for line in stdout.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if isinstance(said, dict) and "check" in said:
            checks.append(Check(said["check"], bool(said["ok"]), said["ms"], said.get("error", "")))
        elif isinstance(said, dict) and "value" in said:
            values[said.pop("value")] = said
        elif isinstance(said, dict) and "skip" in said:
            values["skip"] = said["skip"]
        else:
            noise.append(line)
    return Outcome(flow, code, tuple(checks), values, "\n".join(noise) + stderr)


def missing() -> str:
    """What the flows lack on this machine; empty when nothing."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (PACKAGES / "iexec" / "package.json").is_file():
        return "iExec's packages are not installed: npm ci --ignore-scripts in tests/interop"
    return ""
