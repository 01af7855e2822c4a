"""Programs of the host that runtimes start."""

from __future__ import annotations

import shutil

from cloister.errors import ConfigurationError


def find_program(program: str, package: str) -> str:
    """The path of a program; ``package`` is the Debian package that brings it.

    Raises:
        ConfigurationError: it is not installed.
    """
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(f"{program} is not installed", hint=f"apt-get install {package}")
    return found
