"""The words of ``iexec_args``, cut as a shell cuts them."""

from __future__ import annotations

import sys


def args() -> list[str]:
    """The request's arguments, as words."""
    return sys.argv[1:]
