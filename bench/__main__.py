"""``make bench``: run every bench in a process of its own, print one table beside the budgets, write ``bench/latest.json``.

``python -m bench gas protect`` runs only those. A bench is a module with ``measure() -> list[Row]``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row

BENCHES = ("gas", "startup", "protect", "storage", "market", "attestation", "iapp", "network", "walk")
LATEST = Path(__file__).parent / "latest.json"
TIMEOUT_SECONDS = 1800
FAILED = ": failed"


def run_one(name: str) -> list[Row]:
    """Measure in a fresh process, so that no bench warms or fattens another."""
    program = (
        "import importlib, json, sys\n"
        f"rows = importlib.import_module('bench.{name}').measure()\n"
        "json.dump([dict(name=r.name, value=r.value, unit=r.unit, budget=r.budget, better=r.better) for r in rows], sys.stdout)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            timeout=TIMEOUT_SECONDS,
            check=True,
            cwd=LATEST.parents[1],
        )
    except subprocess.SubprocessError as error:
        print(f"bench {name}: {error}"[:500], file=sys.stderr)
        return [Row(f"{name}{FAILED}", math.nan, "", 0.0)]
    return [Row(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def machine() -> str:
    """What it ran on, in one line."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    date = time.strftime("%Y-%m-%d", time.gmtime())
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {date}, load before {load:.1f}"


def show(rows: list[Row]) -> None:
    """Print the table."""
    width = max(len(row.name) for row in rows)
    print(f"\n{'what':<{width}}  {'measured':>14}  {'budget':>16}  met")
    for row in rows:
        sign = "<=" if row.better == "less" else ">="
        budget = (
            ""
            if row.budget is None
            else f"{sign} {row.budget:,.4g}"
            if row.budget < 1000
            else f"{sign} {row.budget:,.0f}"
        )
        value = f"{row.value:,.0f}" if abs(row.value) >= 1000 else f"{row.value:.4g}"
        met = {True: "yes", False: "NO", None: ""}[row.met]
        print(f"{row.name:<{width}}  {value + ' ' + row.unit:>14}  {budget:>16}  {met}")


def main() -> int:
    """Run the named benches (default: all)."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no bench named {', '.join(unknown)}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    print(machine())
    rows: list[Row] = []
    for name in names:
        print(f"measuring {name} …", flush=True)
        rows += run_one(name)
    show(rows)
    LATEST.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")
    missed = [row.name for row in rows if row.met is False]
    print(f"\n{len(rows)} rows, {len(missed)} over budget" + (f": {'; '.join(missed)}" if missed else ""))
    # A budget that is missed is a finding; a bench that does not run is a fault.
    return int(any(row.name.endswith(FAILED) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
