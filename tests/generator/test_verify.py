"""Verifying: a deployed bundle is this source, or it is said exactly what differs."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.generator.wheels import add_wheel, offline_index, write_app
from tests.support.images import HandMade, entry, layer, symlink

from cloister.errors import DecodeError, NotFound, VerificationError
from cloister.generator.archive import BuiltBundle
from cloister.generator.bundle import build_bundle
from cloister.generator.interpreters import find_interpreter
from cloister.generator.locking import lock_folder
from cloister.generator.verify import (
    FileDifference,
    ManifestDifference,
    Verification,
    Where,
    compare_sides,
    open_side,
    verify_source,
)
from cloister.protocol.codec import Bytes32


def compare(folder: Path, deployed: BuiltBundle) -> Verification:
    outcome = verify_source(folder, deployed.digest, lambda: iter([deployed.path.read_bytes()]))
    json.dumps(outcome.to_json())
    return outcome


def test_the_same_source_is_proved_without_fetching(tmp_path: Path) -> None:
    deployed = build_bundle(write_app(tmp_path / "a"), tmp_path / "deployed.bundle")

    def never() -> Iterator[bytes]:
        pytest.fail("nothing needs to be fetched")

    outcome = verify_source(write_app(tmp_path / "b"), deployed.digest, never)
    assert outcome.matches
    assert outcome.digest == deployed.digest


def test_each_difference_is_named(tmp_path: Path) -> None:
    deployed_from = write_app(tmp_path / "a")
    (deployed_from / "backdoor.py").write_text("1")
    (deployed_from / "iapp.toml").write_text(
        (deployed_from / "iapp.toml").read_text() + 'network = ["evil.example"]\n[resources]\nseconds = 9\n'
    )
    deployed = build_bundle(deployed_from, tmp_path / "deployed.bundle")
    here = write_app(tmp_path / "b")
    (here / "main.py").write_text("print('hello!')\n")
    (here / "extra.txt").write_text("")
    outcome = compare(here, deployed)
    assert not outcome.matches
    assert not outcome.only_compiled_differ
    assert outcome.manifest_differences == (
        ManifestDifference("network", [], list(deployed.manifest.network)),
        ManifestDifference("resources.seconds", 300, 9),
    )
    changed = {item.name: item for item in outcome.files}
    assert list(changed) == ["src/backdoor.py", "src/extra.txt", "src/main.py"]
    assert changed["src/backdoor.py"] == FileDifference(
        "src/backdoor.py", Where.DEPLOYED, size_deployed=1, digest_deployed="6b86b273ff34fce1"
    )
    assert changed["src/extra.txt"].where is Where.HERE
    assert (changed["src/main.py"].size_here, changed["src/main.py"].size_deployed) == (16, 15)


def test_another_python_and_other_libraries_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = offline_index(tmp_path / "index", monkeypatch)
    add_wheel(index, "low", "1.0")
    add_wheel(index, "low", "2.0")
    app = write_app(tmp_path / "app", wanted="low==1.0\n")
    lock_folder(app)
    deployed = build_bundle(app, tmp_path / "deployed.bundle")
    other = relabelled(deployed, tmp_path / "other.bundle", "cpython 3.11.999")
    outcome = compare(app, other)
    assert outcome.only_compiled_differ
    assert outcome.compiler_deployed == "cpython 3.11.999"
    assert outcome.compiler_here == find_interpreter("python3").name
    assert "cpython 3.11.999 is not on this machine" in outcome.notes[0]

    (app / "requirements.in").write_text("low==2.0\n")
    lock_folder(app)
    outcome = compare(app, deployed)
    assert outcome.libraries == (("low", "2.0", "1.0"),)


@pytest.mark.nightly
def test_a_bundle_of_another_build_of_this_python_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = offline_index(tmp_path / "index", monkeypatch)
    add_wheel(index, "low", "1.0")
    app = write_app(tmp_path / "app", wanted="low==1.0\n")
    system = next((each for each in ("/usr/bin/python3.11", "/usr/bin/python3.12") if Path(each).exists()), None)
    found = None if system is None else elsewhere(system)
    if found is None:
        pytest.skip("there is no other build of this Python here")
    again = build_bundle(app, tmp_path / "again.bundle", compiler=found)
    assert again.digest != build_bundle(app).digest
    assert compare(app, again).matches
    assert compare(app, again).notes == (f"built with {found}",)


def elsewhere(path: str) -> str | None:
    """The name of the Python at ``path`` when it is of our minor version and another build of it."""
    asked = subprocess.run(
        [path, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=False
    )
    name = f"cpython {asked.stdout.strip()}"
    own = find_interpreter("python3")
    return name if name != own.name and name.startswith(own.name.rpartition(".")[0]) else None


def relabelled(built: BuiltBundle, path: Path, compiler: str) -> BuiltBundle:
    """The bundle as another Python would have built it, by its own word."""
    with tarfile.open(built.path) as source, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = f"{compiler}\n".encode() if member.name == "lib/.compiled-by" else content.read()
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return described(path, built)


def described(path: Path, built: BuiltBundle) -> BuiltBundle:
    digest = Bytes32.from_raw(hashlib.sha256(path.read_bytes()).digest())
    return BuiltBundle(path, digest, path.stat().st_size, built.manifest)


def test_storage_that_has_something_else_proves_nothing(tmp_path: Path) -> None:
    deployed = build_bundle(write_app(tmp_path / "a"), tmp_path / "deployed.bundle")
    here = write_app(tmp_path / "b")
    (here / "main.py").write_text("2")
    other = build_bundle(here, tmp_path / "other.bundle")
    with pytest.raises(VerificationError, match="storage does not hold what was deployed"):
        verify_source(here, deployed.digest, lambda: iter([other.path.read_bytes() + b"\0" * 512]))
    image = b"no bundle at all" * 100
    digest = Bytes32.from_raw(hashlib.sha256(image).digest())
    with pytest.raises(DecodeError, match="what is deployed is neither a bundle nor an image"):
        verify_source(here, digest, lambda: iter([image]))


def test_an_archive_written_otherwise_is_said_to_be_one(tmp_path: Path) -> None:
    app = write_app(tmp_path / "a")
    built = build_bundle(app, tmp_path / "deployed.bundle")
    shutil.copy(built.path, tmp_path / "longer.bundle")
    with (tmp_path / "longer.bundle").open("ab") as file:
        file.write(bytes(10240))
    outcome = compare(app, described(tmp_path / "longer.bundle", built))
    assert not outcome.matches
    assert (outcome.files, outcome.manifest_differences) == ((), ())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no iapp\.toml"):
        verify_source(tmp_path, Bytes32("0x" + "ab" * 32), lambda: iter([]))


def test_images_are_compared_file_by_file(tmp_path: Path) -> None:
    shared = entry("bin/tool", b"tool", mode=0o755)
    config = {"Cmd": ["/bin/tool"], "Env": ["A=1"]}
    here = HandMade([layer(shared, entry("app/main", b"one"), symlink("app/link", "main"))], config)
    deployed = HandMade(
        [layer(shared, entry("app/main", b"two"), symlink("app/link", "other")), layer(entry("app/backdoor", b"!"))],
        config | {"Env": ["A=2"]},
    )
    sides = [
        open_side([image.archive()], tmp_path / name, Bytes32.from_raw(image.digest))
        for name, image in (("here", here), ("deployed", deployed))
    ]
    outcome = compare_sides(*sides, Bytes32.from_raw(here.digest), Bytes32.from_raw(deployed.digest))
    assert not outcome.matches
    assert outcome.manifest_differences == (ManifestDifference("image.environment.A", "1", "2"),)
    assert {item.name: item.where for item in outcome.files} == {
        "/app/backdoor": Where.DEPLOYED,
        "/app/link": Where.BOTH,
        "/app/main": Where.BOTH,
    }
    json.dumps(outcome.to_json())
    with pytest.raises(VerificationError):
        open_side([here.archive()], tmp_path / "wrong", Bytes32.from_raw(deployed.digest))


def test_an_app_that_cannot_be_fetched_does_not_match_all_the_same(tmp_path: Path) -> None:
    def gone() -> Iterator[bytes]:
        raise NotFound("no content at /ipfs/Qm")

    outcome = verify_source(write_app(tmp_path / "a"), Bytes32("0x" + "ab" * 32), gone)
    assert not outcome.matches
    assert outcome.notes == ("what differs is not known: no content at /ipfs/Qm",)
