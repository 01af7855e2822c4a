"""A kept bundle is used again exactly as long as nothing changed that it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.generator.conftest import Project
from tests.generator.wheels import add_wheel, offline_index, write_app

from cloister.enclave.bundle import MAX_BUNDLE
from cloister.errors import InputError, TooLarge
from cloister.generator.bundle import build_bundle
from cloister.generator.rehearsal import Stage, rehearse
from cloister.generator.rehearsal.bundle import load_bundle, source_key
from cloister.generator.rehearsal.files import fingerprint


def _edit(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + "\n# changed\n")


CHANGES: dict[str, Callable[[Path], object]] = {
    "code": _edit("main.py"),
    "settings": _edit("iapp.toml"),
    "dependencies": lambda folder: (folder / "requirements.txt").write_text("# none\n"),
    "wanted dependencies": lambda folder: (folder / "requirements.in").write_text("# none\n"),
    "a new file": lambda folder: (folder / "model.bin").write_bytes(b"1"),
    "a file deep down": lambda folder: ((folder / "a" / "b").mkdir(parents=True), (folder / "a/b/c").write_text("1")),
    "a file gone": lambda folder: (folder / "gone.py").unlink(),
    "a file renamed": lambda folder: (folder / "gone.py").rename(folder / "here.py"),
    "a link": lambda folder: (folder / "link").symlink_to("main.py"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_what_a_bundle_is_made_of_is_seen(project: Project, change: Callable[[Path], object]) -> None:
    folder = project("")
    (folder / "gone.py").write_text("")
    before, looked = source_key(folder, "python3"), fingerprint(folder)
    change(folder)
    assert source_key(folder, "python3") != before
    assert fingerprint(folder) != looked


def test_the_runtime_counts_and_mock_data_does_not(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project("", run="args = 'x'")
    before, image = source_key(folder, "python3"), source_key(folder, "container")
    assert source_key(folder, "node") != before
    (folder / "README.md").write_text("words")
    assert source_key(folder, "python3") == before
    assert source_key(folder, "container") != image
    image = source_key(folder, "container")
    monkeypatch.setenv("CLOISTER_BUILD_ARGS", "VERSION=2")
    assert source_key(folder, "container") != image
    monkeypatch.delenv("CLOISTER_BUILD_ARGS")
    (folder / "mock" / "run.toml").write_text("args = 'y'")
    (folder / ".cloister").mkdir()
    (folder / ".cloister" / "x").write_text("")
    assert source_key(folder, "python3") == before


def test_the_second_time_the_kept_bundle_is_used_and_it_is_the_one_that_a_build_makes(project: Project) -> None:
    folder = project("")
    first = load_bundle(folder)
    written = first.path.stat().st_mtime_ns
    again = load_bundle(folder)
    assert (again.path, again.digest, again.size) == (first.path, first.digest, first.size)
    assert again.path.stat().st_mtime_ns == written
    assert again.manifest == first.manifest
    assert build_bundle(folder, folder / "build" / "x").digest == first.digest


def test_a_damaged_bundle_is_built_anew_and_old_ones_go(project: Project) -> None:
    folder = project("")
    first = load_bundle(folder)
    first.path.write_bytes(b"damaged")
    assert load_bundle(folder).digest == first.digest
    assert first.path.stat().st_size == first.size
    for number in range(5):
        (folder / "main.py").write_text(f"print({number})")
        load_bundle(folder)
    kept = list((folder / ".cloister" / "bundles").glob("*.bundle"))
    assert len(kept) == 3


@pytest.mark.nightly
def test_libraries_are_installed_again_only_when_the_lock_changes_and_the_bundle_is_the_one_of_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = offline_index(tmp_path / "index", monkeypatch)
    add_wheel(index, "low", "1.0")
    folder = write_app(tmp_path / "app", wanted="low\n")
    first = load_bundle(folder)
    (installed,) = (folder / ".cloister" / "libraries").glob("*/lib")
    (folder / "main.py").write_text("import low\nprint(low)\n")
    for wheel in index.iterdir():
        wheel.unlink()  # whoever installs again fails
    again = load_bundle(folder)
    assert again.digest != first.digest
    assert again.manifest.runtime == first.manifest.runtime
    add_wheel(index, "low", "1.0")
    assert build_bundle(folder, folder / "build" / "x").digest == again.digest
    touched = next(path for path in installed.rglob("*.py"))
    touched.write_text("print('touched')")
    (folder / "main.py").write_text("import low\n")
    third = load_bundle(folder)
    assert build_bundle(folder, folder / "build" / "x").digest == third.digest


def test_a_folder_that_keeps_nothing_is_told(project: Project) -> None:
    folder = project("")
    (folder / ".cloister").write_text("in the way")
    with pytest.raises(InputError, match="nothing can be kept in"):
        load_bundle(folder)


@pytest.mark.nightly
def test_a_bundle_over_the_cap_is_refused_before_anything_runs(project: Project, stage: Stage) -> None:
    folder = project("")
    with (folder / "model.bin").open("wb") as file:
        file.truncate(MAX_BUNDLE + 1)
    with pytest.raises(TooLarge, match="at most"):
        rehearse(folder, stage=stage)
