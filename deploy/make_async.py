"""Writes ``src/cloister/sdk/asynchronous.py`` from the synchronous SDK.

The twin cannot drift: the tests write it again and compare.

Every method runs in a thread; an iterator becomes an async iterator, one item at a time. ``--check`` only compares.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SDK = ROOT / "src" / "cloister" / "sdk"
TARGET = SDK / "asynchronous.py"
TWINS = {"Account": "account", "IApps": "apps", "Orders": "orders", "Tasks": "tasks", "DataProtector": "data_protector"}
"""Class -> its module, in the order in which the twins are written."""

HEADER = '''"""The SDK for asyncio: the same names and meanings as the synchronous one, each call in a thread.

Written by ``deploy/make_async.py`` from the synchronous classes; change those, then run ``make async``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

{imports}

T = TypeVar("T")
_END = object()


async def _each(items: Iterator[T]) -> AsyncIterator[T]:
    while True:
        item = await asyncio.to_thread(next, items, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]  # the sentinel is not a T

'''


def build() -> str:
    """The source of the twin, formatted."""
    imports: list[str] = []
    classes: list[str] = []
    for name, module in TWINS.items():
        tree = ast.parse((SDK / f"{module}.py").read_text())
        imports += _imports(tree)
        node = next(item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name)
        local = [item.name for item in tree.body if isinstance(item, ast.ClassDef) and not item.name.startswith("_")]
        imports.append(f"from cloister.sdk.{module} import {', '.join(local)}")
        classes.append(_twin(node))
    source = HEADER.format(imports="\n".join(dict.fromkeys(imports))) + "\n".join(classes)
    ruff = Path(sys.executable).with_name("ruff")
    fixed = subprocess.run(
        [ruff, "check", "--quiet", "--fix", "--select", "I,F401", "--stdin-filename", TARGET, "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    ).stdout
    return subprocess.run(
        [ruff, "format", "--stdin-filename", TARGET, "-"],
        input=fixed,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout


def _imports(tree: ast.Module) -> list[str]:
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module not in ("__future__", "typing"):
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module == "typing":
            names = [alias for alias in node.names if alias.name not in ("TYPE_CHECKING", "TypeVar")]
            if names:
                lines.append(ast.unparse(ast.ImportFrom("typing", names, 0)))
    return lines


def _twin(node: ast.ClassDef) -> str:
    summary = (ast.get_docstring(node) or "").splitlines()[0]
    lines = [f"class Async{node.name}:", f'    """{summary} For asyncio."""', ""]
    lines += [f"    def __init__(self, twin: {node.name}) -> None:", "        self._twin = twin", ""]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
            lines += _method(node.name, item)
    return "\n".join(lines) + "\n"


def _method(owner: str, node: ast.FunctionDef) -> list[str]:
    decorators = [ast.unparse(item) for item in node.decorator_list]
    returns = ast.unparse(node.returns) if node.returns else "None"
    documentation = f'        """{(ast.get_docstring(node) or "").splitlines()[0]}"""'
    if "property" in decorators:
        if returns in TWINS:
            return [
                "    @property",
                f"    def {node.name}(self) -> Async{returns}:",
                documentation,
                f"        return Async{returns}(self._twin.{node.name})",
                "",
            ]
        return [
            "    @property",
            f"    def {node.name}(self) -> {returns}:",
            documentation,
            f"        return self._twin.{node.name}",
            "",
        ]
    if "classmethod" in decorators:
        arguments = ast.unparse(node.args)
        lines = ["    @classmethod", f"    async def {node.name}({arguments}) -> Async{owner}:", documentation]
        return [*lines, f"        return cls(await asyncio.to_thread({owner}.{node.name}{_passed(node.args)}))", ""]
    if "staticmethod" in decorators:
        return []
    arguments = ast.unparse(node.args)
    if returns.startswith("Iterator["):
        item = returns.removeprefix("Iterator[").removesuffix("]")
        lines = [f"    async def {node.name}({arguments}) -> AsyncIterator[{item}]:", documentation]
        lines += [f"        items = await asyncio.to_thread(self._twin.{node.name}{_passed(node.args)})"]
        return [*lines, "        async for item in _each(items):", "            yield item", ""]
    lines = [f"    async def {node.name}({arguments}) -> {returns}:", documentation]
    return [*lines, f"        return await asyncio.to_thread(self._twin.{node.name}{_passed(node.args)})", ""]


def _passed(arguments: ast.arguments) -> str:
    """The arguments again, as a call passes them on, each after a comma."""
    passed = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)[1:]]
    passed += [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        passed.append(f"**{arguments.kwarg.arg}")
    return "".join(f", {item}" for item in passed)


def main() -> int:
    """Write, or with ``--check`` compare: 1 when they differ."""
    source = build()
    if "--check" in sys.argv:
        same = TARGET.exists() and TARGET.read_text() == source
        print("the async twin is up to date" if same else "the async twin differs: run make async")
        return 0 if same else 1
    TARGET.write_text(source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
