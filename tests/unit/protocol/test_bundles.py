"""Manifests: which runtimes an app may name, and that one manifest has one spelling."""

from __future__ import annotations

import json

import pytest

from cloister.errors import CloisterError, InputError
from cloister.protocol.bundles import Language, Manifest, Resources, build_manifest, parse_manifest


@pytest.mark.parametrize(
    ("runtime", "entrypoint", "language"),
    [
        ("python3", "main.py", Language.PYTHON),
        ("python3.13", "main", Language.PYTHON),
        ("node", "main.js", Language.NODE),
        ("node20", "src/main.mjs", Language.NODE),
        ("node100", "main.cjs", Language.NODE),
        ("container", "", Language.CONTAINER),
    ],
)
def test_runtimes_that_a_manifest_may_name(runtime: str, entrypoint: str, language: Language) -> None:
    manifest = Manifest(
        "a", "1", entrypoint, runtime, Resources(memory_mib=64), ("b.example", "a.example"), ("research",)
    )
    assert manifest.language is language
    assert parse_manifest(build_manifest(manifest)) == manifest
    assert manifest.network == ("a.example:443", "b.example:443")


@pytest.mark.parametrize(
    ("runtime", "entrypoint"),
    [
        ("node0", "a.js"),
        ("container", "main.py"),
        ("container3", ""),
        ("python3", ""),
        ("node", ""),
        ("node20.1", "a.js"),
        ("nodejs", "a.js"),
        ("node1000", "a.js"),
        ("node", "a.py"),
        ("node", "a"),
        ("node", "../a.js"),
        ("node", "/a.js"),
        ("Node", "a.js"),
        ("deno", "a.js"),
        ("python2", "a.py"),
        ("", "a.py"),
    ],
)
def test_runtimes_that_it_may_not(runtime: str, entrypoint: str) -> None:
    with pytest.raises(InputError):
        Manifest("a", "1", entrypoint, runtime)
    document = json.loads(build_manifest(Manifest("a", "1", "a.py"))) | {"runtime": runtime, "entrypoint": entrypoint}
    with pytest.raises(CloisterError):
        parse_manifest(json.dumps(document).encode())
