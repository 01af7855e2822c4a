"""Names what a machine lacks and how to install it, before something fails half-way. Standard library only.

``--before`` checks what set-up itself needs; without it, what running an enclave needs; ``--tests`` what the tests want
besides. As root on Debian it is installed on the spot; otherwise the command is named.
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
    """Install the sandbox when that is possible without asking."""
    if _ensure("bwrap", "bubblewrap", "the sandbox that enclaves run in"):
        return []
    return ["bubblewrap, the sandbox that enclaves run in: sudo apt-get install bubblewrap"]


def ensure_test_tools() -> list[str]:
    """Install what single tests need when that is possible without asking. Without it those tests are skipped, by name."""
    tools = {
        "chromium": ("chromium", "the browser of one test"),
        "qemu-system-x86_64": ("qemu-system-x86", "virtual machines that are enclaves"),
        "swtpm": ("swtpm", "the TPM of virtual machines"),
        "podman": ("podman", "containers that are enclaves, and apps that are containers"),
        "runsc": ("runsc", "gVisor, the kernel of containers that are enclaves"),
    }
    for program, (package, purpose) in tools.items():
        if not _ensure(program, package, purpose):
            print(f"no {program}: its tests will be skipped (sudo apt-get install {package})", file=sys.stderr)
    return []


def _ensure(program: str, package: str, purpose: str) -> bool:
    if shutil.which(program):
        return True
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {package} ({purpose})")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        for command in (["apt-get", "update", "-qq"], install):
            if subprocess.run(command, stdout=subprocess.DEVNULL, env=environment, check=False).returncode:
                break
    return shutil.which(program) is not None


CHECKS = {"--before": missing_for_setup, "--tests": ensure_test_tools}


def main() -> int:
    """Report; 0 when nothing is missing."""
    problems = CHECKS.get(sys.argv[1] if len(sys.argv) > 1 else "", ensure_bubblewrap)()
    for problem in problems:
        print(f"missing: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
