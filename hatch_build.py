"""Compile the contracts into the package while it is built.

Every file under ``contracts/`` whose name starts with a capital is a deployable; the rest are modules and interfaces.
Each deployable becomes ``src/cloister/chain/artifacts/<Name>.json``, so that an installed package needs no compiler. A
contract is compiled again only when its own sources, the compiler or this file's format changed.

``python hatch_build.py`` does the same by hand, in a checkout whose environment has vyper.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FORMAT = 1
CODE_LIMIT = 24_576
"""EIP-170: no network takes longer runtime code."""

WORKERS = 2
"""Compilers at once; one takes about 200 MiB."""

ROOT = Path(__file__).resolve().parent
CONTRACTS = Path("contracts")
ARTIFACTS = Path("src", "cloister", "chain", "artifacts")


class ContractBuildHook(BuildHookInterface[Any]):
    """Put the artifacts in place before hatchling packs a wheel; an sdist carries the sources instead."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile for a wheel, editable or not."""
        if self.target_name != "wheel":
            return
        for name in build_artifacts(Path(self.root)):
            self.app.display_info(f"compiled contract {name}")
        build_data["pure_python"] = True


def build_artifacts(root: Path = ROOT) -> list[str]:
    """Bring every artifact up to date and drop those whose contract is gone; returns the names that were compiled.

    Raises:
        SystemExit: a contract does not compile, is too long to be deployed, or shares its name with another.
    """
    sources = find_deployables(root / CONTRACTS)
    target = root / ARTIFACTS
    target.mkdir(parents=True, exist_ok=True)
    for artifact in target.glob("*.json"):
        if artifact.stem not in sources:
            artifact.unlink()
    with ThreadPoolExecutor(WORKERS) as pool:
        # One process for each contract: the compiler is pure Python and would otherwise keep to one core.
        compiled = pool.map(lambda item: _compile_apart(root, item[1], target / f"{item[0]}.json"), sources.items())
        return [name for name, fresh in zip(sources, compiled, strict=True) if fresh]


def find_deployables(contracts: Path) -> dict[str, Path]:
    """Names and files of all deployables, in a stable order."""
    found: dict[str, Path] = {}
    for path in sorted(contracts.rglob("*.vy")):
        if not path.name[0].isupper():
            continue
        if path.stem in found:
            raise SystemExit(f"two contracts are called {path.stem}: {found[path.stem]} and {path}")
        found[path.stem] = path
    if not found:
        raise SystemExit(f"no contract found under {contracts}")
    return found


def _compile_apart(root: Path, source: Path, target: Path) -> bool:
    """Run this file as a child on one contract; true when something was compiled."""
    command = [sys.executable, str(Path(__file__).resolve()), "--one", str(root), str(source), str(target)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{source.name} does not compile:\n{done.stderr.strip()}")
    return done.stdout.strip() == "compiled"


def compile_contract(root: Path, source: Path, target: Path) -> bool:
    """Write the artifact of one contract unless it is up to date; true when it was compiled."""
    import vyper
    from vyper.compiler.input_bundle import FilesystemInputBundle
    from vyper.compiler.phases import CompilerData

    os.chdir(root)
    bundle = FilesystemInputBundle([root / CONTRACTS])
    data = CompilerData(bundle.load_file(source), input_bundle=bundle)
    mark = {"format": FORMAT, "compiler": f"vyper {vyper.__long_version__}", "source_digest": data.integrity_sum}
    if _is_current(target, mark):
        return False
    immutables = dict(_immutables(data.storage_layout.get("code_layout", {})))
    size = len(data.bytecode_runtime) + data.global_ctx.immutable_section_bytes
    if size > CODE_LIMIT:
        raise SystemExit(f"{source.name}: {size} bytes of code, a network takes at most {CODE_LIMIT}")
    artifact = {
        "name": source.stem,
        **mark,
        "evm_version": str(data.settings.evm_version),
        "deployed_size": size,
        "immutables": immutables,
        "abi": vyper.compiler.output.build_abi_output(data),
        "bytecode": "0x" + data.bytecode.hex(),
        "runtime": "0x" + data.bytecode_runtime.hex(),
    }
    # Written beside and renamed, so that a build that is killed leaves no half artifact.
    draft = target.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(json.dumps(artifact, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(target)
    return True


def _immutables(layout: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, int]]]:
    """Place and length of every immutable behind the runtime code; those of modules are called ``module.name``."""
    for name, item in layout.items():
        if isinstance(item.get("offset"), int):
            yield prefix + name, {"offset": item["offset"], "length": item["length"]}
        else:
            yield from _immutables(item, f"{prefix}{name}.")


def _is_current(target: Path, mark: dict[str, Any]) -> bool:
    try:
        existing = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(existing, dict) and all(existing.get(key) == value for key, value in mark.items())


def main(arguments: Sequence[str]) -> None:
    """Compile all contracts, or one as a child of the former."""
    if arguments and arguments[0] == "--one":
        root, source, target = map(Path, arguments[1:])
        print("compiled" if compile_contract(root, source, target) else "current")
        return
    names = build_artifacts()
    print(f"compiled {', '.join(names)}" if names else "all artifacts are up to date")


if __name__ == "__main__":
    main(sys.argv[1:])
