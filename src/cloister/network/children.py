"""Child processes that do not outlive us, also when we are killed -9."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before its program: have the kernel send it ``number`` when the thread that started it ends.

    So start children from a thread that lives as long as they may.
    """
    parent = os.getpid()

    def tie() -> None:
        with contextlib.suppress(OSError, AttributeError):
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before the tie was made
            os._exit(1)

    return tie


def stop_process(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a child to stop; after ``seconds`` end its whole session."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=5)
