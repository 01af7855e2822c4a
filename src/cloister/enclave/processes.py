"""The processes of a sandbox as its parent sees them: who they are and how much memory they hold together."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def tree_of(root: int) -> list[int]:
    """``root`` and all its descendants that are alive. A process that dies meanwhile is left out."""
    children: dict[int, list[int]] = {}
    for name in (entry.name for entry in _PROC.iterdir()):
        if name.isdigit():
            parent = _parent(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


def _parent(pid: str) -> int | None:
    try:
        stat = (_PROC / pid / "stat").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    fields = stat[stat.rfind(b")") + 2 :].split()
    return int(fields[1]) if len(fields) > 1 and fields[0] != b"Z" else None


def resident_bytes(pids: list[int]) -> int:
    """Sum of resident memory. Pages shared between them count once for each, so it is never too small."""
    total = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            total += int((_PROC / str(pid) / "statm").read_bytes().split()[1])
    return total * _PAGE


def proportional_bytes(pids: list[int]) -> int:
    """Sum of memory where a page shared by n processes counts 1/n for each. Slow; where the kernel hides it, resident
    memory.
    """
    total = 0
    for pid in pids:
        try:
            rollup = (_PROC / str(pid) / "smaps_rollup").read_bytes()
        except ProcessLookupError:
            continue
        except OSError:
            total += resident_bytes([pid])
            continue
        for line in rollup.splitlines():
            if line.startswith(b"Pss:"):
                total += int(line.split()[1]) * 1024
                break
    return total


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each; those that are gone are gone."""
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)
