"""docs/compatibility.md is true: it has every public method of every package, and each row is backed by a check that passed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.interop.flows import CLIENTS, Flows, find_flows

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "compatibility.md"
SECTIONS = {
    "iexec": "iexec 9.0.1",
    "iexec8": "iexec 8.24.0",
    "cli": "iexec CLI 9.0.1",
    "dataprotector2": "@iexec/dataprotector 2.0.0-beta.27",
    "dataprotector0": "@iexec/dataprotector 0.5.3",
    "deserializer": "@iexec/dataprotector-deserializer 0.1.1",
    "browser": "Browser",
}
"""Folder under ``clients/`` -> heading of the page."""

WORDS = ("works", "differs")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of the page."""

    method: str
    works: str
    note: str
    flows: tuple[str, ...]


def read_rows(heading: str) -> list[Row]:
    """The table under a heading."""
    _, found, rest = PAGE.read_text().partition(f"\n## {heading}\n")
    assert found, f"{PAGE.name} has no section {heading!r}"
    rows = []
    for line in rest.partition("\n## ")[0].splitlines():
        cells = [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[0] not in ("method", "command", "flow") and not set(cells[0]) <= {"-", ":"}:
            rows.append(
                Row(cells[0], cells[1], cells[2], tuple(name.strip() for name in cells[3].split(",") if name.strip()))
            )
    return rows


@pytest.mark.parametrize("package", [name for name in SECTIONS if name != "browser"])
def test_the_page_has_every_public_method_and_no_other(package: str, flows: Flows) -> None:
    methods = [row.method for row in read_rows(SECTIONS[package])]
    assert sorted(methods) == flows.surface()[package]


@pytest.mark.parametrize("package", SECTIONS)
def test_every_row_is_backed_by_a_check_that_passed(package: str, flows: Flows) -> None:
    rows = read_rows(SECTIONS[package])
    assert rows, f"no row under {SECTIONS[package]!r}"
    names = {flow if "/" in flow else f"{package}/{flow}" for row in rows for flow in row.flows}
    unknown = names - set(find_flows())
    assert not unknown, f"no such flow under {CLIENTS.name}/: {sorted(unknown)}"
    flows.start(sorted(names))
    passed = {name: {m for c in flows.outcome(name).checks if c.ok for m in c.methods} for name in names}
    if all(flows.outcome(name).skipped for name in names):
        pytest.skip(flows.outcome(next(iter(names))).skipped)
    wrong = [f"{row.method}: {row.works!r} is not one of {WORDS}" for row in rows if row.works not in WORDS]
    wrong += [f"{row.method}: a difference needs a note" for row in rows if row.works == "differs" and not row.note]
    for row in rows:
        shown = [flow if "/" in flow else f"{package}/{flow}" for flow in row.flows]
        wrong += [
            f"{row.method}: no passed check of this name in {flow}" for flow in shown if row.method not in passed[flow]
        ]
        wrong += [f"{row.method}: shown by no flow"] if not shown else []
    assert not wrong, "\n".join(wrong)


def test_the_versions_of_the_page_are_the_installed_ones() -> None:
    pins = json.loads((HERE / "package.json").read_text())["dependencies"]
    named = {"iexec": "iexec", "iexec8": "iexec8", "cli": "iexec", "dataprotector2": "@iexec/dataprotector"}
    named |= {"dataprotector0": "dataprotector0", "deserializer": "@iexec/dataprotector-deserializer"}
    for package, dependency in named.items():
        installed = json.loads((HERE / "node_modules" / dependency / "package.json").read_text())["version"]
        assert SECTIONS[package].endswith(f" {installed}")
        assert pins[dependency].removeprefix("npm:").rpartition("@")[2] == installed
