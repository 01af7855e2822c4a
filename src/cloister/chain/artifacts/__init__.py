"""The compiled contracts that this package was built with.

The JSON files beside this module are written by the build (``hatch_build.py``) and are not kept in version control.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from cloister.errors import ConfigurationError, quoted

_NAME = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Artifact:
    """One compiled contract.

    Attributes:
        name: the contract's name, as in its file name.
        abi: list of ABI entries, as the compiler writes them.
        bytecode: init code; constructor arguments are appended to it, ABI-encoded.
        runtime: code on chain without its immutables, which follow it there.
        immutables: place of each immutable behind ``runtime``, as ``name -> (offset, length)`` in bytes.
        deployed_size: bytes on chain, immutables included.
        compiler: name and version of the compiler.
        source_digest: SHA-256, in hex, over the contract's source and all it imports.
    """

    name: str
    abi: list[dict[str, Any]]
    bytecode: bytes
    runtime: bytes
    immutables: Mapping[str, tuple[int, int]]
    deployed_size: int
    compiler: str
    source_digest: str


@cache
def load_artifact(name: str) -> Artifact:
    """Load the artifact of one contract, for instance ``Hub``. Treat the returned ABI as read-only: it is shared.

    Raises:
        ConfigurationError: the package was built without it, or by another version of the build.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"no contract is called {quoted(name)}")
    hint = "run `python hatch_build.py` in a source checkout (it needs vyper), or install the package again"
    try:
        text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigurationError(f"the contract {name} was not compiled into this package", hint=hint) from error
    try:
        fields = json.loads(text)
        if fields["format"] != _FORMAT:
            raise ConfigurationError(f"the artifact of {name} has format {quoted(fields['format'])}", hint=hint)
        return Artifact(
            name=fields["name"],
            abi=fields["abi"],
            bytecode=bytes.fromhex(fields["bytecode"][2:]),
            runtime=bytes.fromhex(fields["runtime"][2:]),
            immutables=MappingProxyType(
                {key: (place["offset"], place["length"]) for key, place in fields["immutables"].items()}
            ),
            deployed_size=fields["deployed_size"],
            compiler=fields["compiler"],
            source_digest=fields["source_digest"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"the artifact of {name} is damaged", hint=hint) from error
