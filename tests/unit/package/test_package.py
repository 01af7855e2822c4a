"""The package declares what it imports, and its public names are there."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import cloister

ROOT = Path(__file__).parents[3]
IMPORT_NAMES = {
    "pycryptodome": "Crypto",
    "dcap-qvl": "dcap_qvl",
    "eth-abi": "eth_abi",
    "graphql-core": "graphql",
    "prometheus-client": "prometheus_client",
    "pyjwt": "jwt",
    "python-socketio": "socketio",
    "scikit-learn": "sklearn",
}
BROUGHT_BY = {"starlette": "fastapi", "anyio": "fastapi", "h11": "uvicorn", "engineio": "python-socketio"}
"""Imported by name, but part of what another package is."""


def declared() -> set[str]:
    """Import names of everything that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = [re.split(r"[\[=<>~! ]", line, maxsplit=1)[0] for line in lines]
    return {IMPORT_NAMES.get(name, name) for name in names}


def imported() -> dict[str, Path]:
    """Top-level names that the package imports, with one file that does. Templates are projects with their own packages."""
    found: dict[str, Path] = {}
    templates = ROOT / "src" / "cloister" / "generator" / "templates"
    for path in (ROOT / "src" / "cloister").rglob("*.py"):
        if templates in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], path)
    return found


def test_every_import_is_declared() -> None:
    known = declared() | set(BROUGHT_BY) | set(sys.stdlib_module_names) | {"cloister", "__future__"}
    assert {name: path.name for name, path in imported().items() if name not in known} == {}


def test_everything_declared_is_imported() -> None:
    optional = {"psycopg", "pyarrow", "pandas", "wsproto"}  # by URL, by pandas itself, by uvicorn when it is told to
    assert declared() - set(imported()) - optional == set()


def test_public_names_are_there() -> None:
    for name in cloister.__all__:
        assert getattr(cloister, name) is not None


def test_version_is_that_of_the_changelog() -> None:
    assert f"## {cloister.__version__}" in (ROOT / "CHANGELOG.md").read_text()
