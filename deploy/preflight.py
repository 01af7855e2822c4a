"""Names what a machine lacks and how to install it, before something fails half-way. Standard library only.

``--before`` checks what set-up itself needs; without it, what running an enclave needs. As root on Debian, bubblewrap is
installed on the spot; otherwise the command is named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

MINIMUM = (3, 11)


def missing_for_setup() -> list[str]:
    """What cannot be done without, each with the command that brings it."""
    problems = []
    if sys.version_info < MINIMUM:
        problems.append(
            f"Python {MINIMUM[0]}.{MINIMUM[1]} or later (this is {sys.version.split()[0]}): apt-get install python3.11"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        problems.append("Python's venv: apt-get install python3-venv")
    if shutil.which("npm") is None or shutil.which("node") is None:
        problems.append("Node.js with npm: apt-get install nodejs npm")
    return problems


def ensure_bubblewrap() -> list[str]:
    """Install bubblewrap when that is possible without asking."""
    if shutil.which("bwrap"):
        return []
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("installing bubblewrap (the sandbox that enclaves run in)")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "bubblewrap"]):
            if subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode:
                break
        if shutil.which("bwrap"):
            return []
    return ["bubblewrap, the sandbox that enclaves run in: sudo apt-get install bubblewrap"]


def main() -> int:
    """Report; 0 when nothing is missing."""
    problems = missing_for_setup() if "--before" in sys.argv else ensure_bubblewrap()
    for problem in problems:
        print(f"missing: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
