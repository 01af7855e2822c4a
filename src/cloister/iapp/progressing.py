"""Progress that the requester sees while the iApp runs.

One JSON line a call, ``{"fraction":0.4,"message":"..."}``, of at most 512 bytes, to the descriptor that
``CLOISTER_PROGRESS_FD`` names. Without one nothing happens. The agent passes on at most one message a second, sealed to
the requester.
"""

from __future__ import annotations

import math
import os
import stat

from cloister.errors import InputError, quoted

DESCRIPTOR = "CLOISTER_PROGRESS_FD"
MAX_MESSAGE = 200
MAX_LINE = 512
"""Bytes of a line, its newline included: a pipe takes that many whole or not at all."""
_SLACK = 1e-6
"""How far beyond 1 a sum of fractions may have drifted."""


def progress(fraction: float | None = None, message: str = "") -> None:
    """Tell the requester how far this is: ``fraction`` from 0 to 1, ``message`` of at most 200 characters (cut there).

    Never waits: what nobody takes is lost. Raises InputError for a fraction that is none.
    """
    share = None if fraction is None else _check(fraction)
    line = _line(share, str(message))
    handle = os.environ.get(DESCRIPTOR, "")
    if not handle.isascii() or not handle.isdigit():
        return
    try:
        # An iApp that closed all its descriptors may have a file of its own at that number.
        if stat.S_ISFIFO(os.fstat(int(handle)).st_mode) or stat.S_ISSOCK(os.fstat(int(handle)).st_mode):
            os.set_blocking(int(handle), False)
            os.write(int(handle), line)
    except (OSError, OverflowError):
        # Full, closed, gone: progress is never worth an iApp's failure.
        return


def _check(fraction: float) -> float:
    try:
        share = float(fraction)
    except (TypeError, ValueError):
        share = math.nan
    if isinstance(fraction, (bool, str)) or not -_SLACK <= share <= 1 + _SLACK:
        raise InputError(f"a fraction of progress is a number from 0 to 1, got {quoted(fraction)}")
    return round(min(1.0, max(0.0, share)), 4)


def _line(fraction: float | None, message: str) -> bytes:
    import json

    shown = "".join(c if c.isprintable() else " " for c in message[:MAX_MESSAGE])
    while True:
        line = json.dumps({"fraction": fraction, "message": shown}, separators=(",", ":"), ensure_ascii=False)
        raw = line.encode(errors="replace") + b"\n"
        if len(raw) <= MAX_LINE:
            return raw
        shown = shown[: -max(1, (len(raw) - MAX_LINE) // 4)]
