"""Compiling contracts into the package, and loading them from it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from vyper.utils import keccak256 as vyper_keccak256

from cloister.chain import artifacts
from cloister.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
COUNTER = """
#pragma version 0.4.3
import words
initializes: words
owner: immutable(address)
@deploy
def __init__(first: uint256):
    owner = msg.sender
    words.__init__(first)
@external
@view
def value() -> uint256:
    return words.value
"""
WORDS = """
#pragma version 0.4.3
value: uint256
limit: immutable(uint256)
@deploy
def __init__(first: uint256):
    self.value = first
    limit = 9
"""


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "contracts" / "deep"
    folder.mkdir(parents=True)
    (folder / "Counter.vy").write_text(COUNTER)
    (folder / "words.vy").write_text(WORDS)
    return tmp_path


def artifact_of(project: Path, name: str = "Counter") -> dict[str, object]:
    path = project / "src" / "cloister" / "chain" / "artifacts" / f"{name}.json"
    loaded: dict[str, object] = json.loads(path.read_text())
    return loaded


class TestBuild:
    def test_compiles_what_changed_and_only_that(self, build: ModuleType, project: Path) -> None:
        assert build.build_artifacts(project) == ["Counter"]
        first = artifact_of(project)
        assert build.build_artifacts(project) == []
        (project / "contracts" / "Other.vy").write_text("#pragma version 0.4.3\n")
        assert build.build_artifacts(project) == ["Other"]
        words = project / "contracts" / "deep" / "words.vy"
        words.write_text(WORDS.replace("limit = 9", "limit = 10"))
        assert build.build_artifacts(project) == ["Counter"]
        assert artifact_of(project)["source_digest"] != first["source_digest"]
        (project / "contracts" / "Other.vy").unlink()
        assert build.build_artifacts(project) == []
        assert not (project / "src/cloister/chain/artifacts/Other.json").exists()

    def test_artifact(self, build: ModuleType, project: Path) -> None:
        build.build_artifacts(project)
        artifact = artifact_of(project)
        assert artifact["name"] == "Counter"
        assert {entry["type"] for entry in artifact["abi"]} == {"constructor", "function"}  # type: ignore[attr-defined]
        assert str(artifact["compiler"]).startswith("vyper 0.4.3")
        selector = vyper_keccak256(b"value()")[:4].hex()
        assert selector in str(artifact["runtime"])
        assert str(artifact["runtime"])[2:] in str(artifact["bytecode"])
        assert artifact["immutables"] == {
            "owner": {"offset": 32, "length": 32},
            "words.limit": {"offset": 0, "length": 32},
        }
        assert artifact["deployed_size"] == len(str(artifact["runtime"])) // 2 - 1 + 64

    def test_a_damaged_artifact_is_made_again(self, build: ModuleType, project: Path) -> None:
        build.build_artifacts(project)
        path = project / "src/cloister/chain/artifacts/Counter.json"
        for text in ("", "[]", '{"format": 0}', path.read_text()[:100]):
            path.write_text(text)
            assert build.build_artifacts(project) == ["Counter"]

    def test_refusals(self, build: ModuleType, project: Path, tmp_path: Path) -> None:
        (project / "contracts" / "Broken.vy").write_text("#pragma version 0.4.3\nx: nonsense\n")
        with pytest.raises(SystemExit, match=r"Broken\.vy does not compile"):
            build.build_artifacts(project)
        (project / "contracts" / "Broken.vy").rename(project / "contracts" / "Counter.vy")
        with pytest.raises(SystemExit, match="two contracts are called Counter"):
            build.build_artifacts(project)
        with pytest.raises(SystemExit, match="no contract found"):
            build.find_deployables(tmp_path / "empty")

    def test_a_contract_that_no_network_takes(self, build: ModuleType, project: Path) -> None:
        body = f'@external\ndef long() -> Bytes[30000]:\n    return x"{"ab" * 24600}"\n'
        (project / "contracts" / "Counter.vy").unlink(missing_ok=True)
        (project / "contracts" / "Long.vy").write_text("#pragma version 0.4.3\n" + body)
        with pytest.raises(SystemExit, match="a network takes at most 24576"):
            build.build_artifacts(project)
        assert not (project / "src/cloister/chain/artifacts/Long.json").exists()


class TestLoad:
    def test_all_contracts_of_the_package(self, build: ModuleType) -> None:
        for name in build.find_deployables(ROOT / "contracts"):
            artifact = artifacts.load_artifact(name)
            assert artifact.name == name
            assert artifact.runtime
            assert artifact.runtime in artifact.bytecode
            end = max((at + size for at, size in artifact.immutables.values()), default=0)
            assert artifact.deployed_size == len(artifact.runtime) + end

    @pytest.mark.parametrize("name", ["", "hub", "../Hub", "Hub.json", "Hub\n", "/etc/passwd", "H" * 65])
    def test_no_such_name(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="no contract is called"):
            artifacts.load_artifact(name)

    def test_missing(self) -> None:
        with pytest.raises(ConfigurationError, match="Nothing was not compiled") as caught:
            artifacts.load_artifact("Nothing")
        assert "hatch_build" in str(caught.value.hint)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "damaged"),
            ("[]", "damaged"),
            ('{"format": 1}', "damaged"),
            ('{"format": 2}', "format 2"),
            ('{"format": 1, "name": "X", "abi": [], "bytecode": "0xzz", "runtime": "0x"}', "damaged"),
        ],
    )
    def test_damaged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
        (tmp_path / "Damaged.json").write_text(text)
        monkeypatch.setattr(artifacts.resources, "files", lambda _name: tmp_path)
        with pytest.raises(ConfigurationError, match=message):
            artifacts.load_artifact("Damaged")
