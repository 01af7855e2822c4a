"""A developer with a template and a live network: from ``iapp init`` to the opened result, all by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.support.network import LiveNetwork, environment
from tests.support.terminal import Answer, Terminal

from cloister import DataProtector

SECONDS = 600
"""Longest that one command may take: the first build of a large bundle downloads its packages."""


@dataclass(frozen=True)
class Result:
    """The files of an opened result."""

    folder: Path
    names: tuple[str, ...]

    def text(self, name: str) -> str:
        """One file."""
        return (self.folder / name).read_text("utf-8")

    def json(self, name: str) -> Any:
        """One file, parsed."""
        return json.loads(self.text(name))


@dataclass(frozen=True)
class Workshop:
    """``place`` is where projects are made."""

    live: LiveNetwork
    place: Path

    @property
    def terminal(self) -> Terminal:
        """The command line on this network."""
        return Terminal(self.live.home, SECONDS)

    def begin(self, template: str) -> Project:
        """``cloister iapp init --yes``."""
        folder = self.place / template
        made = self.terminal.json("iapp", "init", "my-app", "--template", template, "--folder", folder, "--yes")
        assert made["next"] == [f"cd {folder}", "cloister iapp test", "cloister iapp deploy"]
        return Project(self, folder)


@dataclass(frozen=True)
class Project:
    """A project, its developer, and somebody with data."""

    workshop: Workshop
    folder: Path

    @cached_property
    def owner(self) -> DataProtector:
        """Whose data it is."""
        return self.workshop.live.newcomer()

    @cached_property
    def requester(self) -> DataProtector:
        """Who deploys, asks and pays."""
        return self.workshop.live.newcomer(wallet="1 RLC")

    def _as(self, who: DataProtector, *arguments: object) -> Any:
        live = self.workshop.live
        return self.workshop.terminal.json(*arguments, "--network", live.name, "--as", live.key_file(who))

    def install(self) -> Path:
        """Its locked packages in a folder of their own, as ``pip install -r requirements.txt`` would have them."""
        site = self.folder.with_name(f"{self.folder.name}-site")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--target", site]
        subprocess.run([*command, "-r", self.folder / "requirements.txt"], check=True, timeout=SECONDS)
        return site

    def own_tests(self, site: Path | None = None) -> None:
        """The tests that come with the template pass, with its packages at hand."""
        # Plugins of this installation that the tests do not use take seconds to import.
        more = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | ({} if site is None else {"PYTHONPATH": str(site)})
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
            cwd=self.folder,
            env=environment(self.workshop.live.home) | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert " passed" in done.stdout

    def rehearse(self) -> dict[str, Any]:
        """``cloister iapp test``; what it says."""
        told: dict[str, Any] = self.workshop.terminal.json("iapp", "test", self.folder)
        assert told["ok"]
        assert told["receipt_verified"]
        print(
            f"{self.folder.name}: rehearsal {told['timings']['whole command']:.1f} s, app {told['seconds']:.1f} s, "
            f"bundle {told['app']['bundle_bytes'] / 1e6:.1f} MB, peak {told['peak_memory_bytes'] / 1e6:.0f} MB"
        )
        return told

    def deploy(self, *options: object) -> str:
        """``cloister iapp deploy``; the app's address."""
        return str(self._as(self.requester, "iapp", "deploy", self.folder, "--yes", *options)["address"])

    def protect(self, mock: str) -> str:
        """The owner protects a file or folder of ``mock/``; its address."""
        return str(self._as(self.owner, "data", "protect", self.folder / "mock" / mock)["address"])

    def grant(self, data: str, app: str, *options: object) -> None:
        """The owner grants ``app`` one access."""
        self._as(self.owner, "access", "grant", data, "--app", app, *options)

    def run(self, app: str, *options: object) -> Result:
        """``cloister iapp run``: the opened result."""
        folder = self.folder.with_name(f"{self.folder.name}-result")
        told = self._as(self.requester, "iapp", "run", app, "--budget", "0.1 RLC", "--output", folder, *options)
        assert told["failure"] is None
        return Result(folder, tuple(told["files"]))

    def refused_run(self, app: str, *options: object, code: int) -> Answer:
        """``cloister iapp run`` that must end with ``code``."""
        live = self.workshop.live
        who = ("--network", live.name, "--as", live.key_file(self.requester), "--json")
        return self.workshop.terminal.run("iapp", "run", app, "--budget", "0.1 RLC", *options, *who, code=code)
