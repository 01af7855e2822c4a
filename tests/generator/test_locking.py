"""Locks: what is wanted becomes exact versions with hashes, and what cannot be locked is refused by name."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.generator.wheels import add_sources, add_wheel, offline_index, write_app
from tests.support.node_lock import write_node_lock

from cloister.errors import CloisterError, Conflict, InputError, NotFound, UnavailableError
from cloister.generator.bundle import build_bundle
from cloister.generator.locking import lock_folder
from cloister.generator.requirements import load_lock


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return offline_index(tmp_path / "index", monkeypatch)


def test_a_lock_holds_versions_and_hashes_and_nothing_else(tmp_path: Path, index: Path) -> None:
    low = add_wheel(index, "low", "1.2")
    high = add_wheel(index, "high", "2.0", needs=["low<2"])
    add_wheel(index, "low", "2.0")
    app = write_app(tmp_path / "app", wanted="# ours\nHigh>=1  # the newest\n")
    lock = lock_folder(app)
    assert lock.packages == ("high==2.0", "low==1.2")
    text = lock.path.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "high==2.0 \\",
        f"    --hash=sha256:{high}",
        "low==1.2 \\",
        f"    --hash=sha256:{low}",
    ]
    assert str(tmp_path) not in text
    assert "://" not in text
    assert not lock_folder(app).changed
    (app / "requirements.in").write_text("\n   high >= 1\n")
    assert len(load_lock(app)) == 2, "neither comments nor spaces make a lock old"
    (app / "requirements.in").write_text("high>=1\nlow\n")
    with pytest.raises(InputError, match=r"requirements\.txt is older than requirements\.in") as stale:
        build_bundle(app)
    assert (stale.value.hint, stale.value.code) == ("cloister iapp lock", "lock-stale")


def test_what_was_never_locked_is_locked_and_said_so_and_never_again(tmp_path: Path, index: Path) -> None:
    add_wheel(index, "low", "1.0")
    app = write_app(tmp_path / "app", wanted="low\n")
    told: list[str] = []
    first = build_bundle(app, tell=told.append)
    (line,) = told
    assert line.startswith("locked 1 packages in ")
    lock = (app / "requirements.txt").read_bytes()
    add_wheel(index, "low", "1.1")
    assert build_bundle(app, tell=told.append).digest == first.digest
    assert told == [line]
    assert (app / "requirements.txt").read_bytes() == lock


REFUSED: dict[str, tuple[str, type[CloisterError], str]] = {
    "editable": ("-e .", InputError, "line 1: -e is an editable install"),
    "editable, long": ("low\n--editable=../x", InputError, "line 2: --editable=../x is an option of pip"),
    "index": ("--index-url https://user:hunter2@index.example/simple", InputError, "line 1: --index-url is an option"),
    "other file": ("-r more.txt", InputError, "-r is an option of pip"),
    "git": ("git+https://user:hunter2@git.example/a", InputError, "git.example/a is an address"),
    "named address": ("low @ https://a.example/low.whl", InputError, "is an address"),
    "file": ("low @ file:///x/low.whl", InputError, "is an address"),
    "path": ("./low", InputError, "./low is a path on this machine"),
    "wheel": ("low-1.0-py3-none-any.whl", InputError, "is a path on this machine"),
    "no requirement": ("low = 1", InputError, "low = 1 is no requirement"),
    "sources only": ("bare", InputError, "bare has no wheel for python3"),
    "no such package": ("nothing-of-the-sort", NotFound, "no package nothing-of-the-sort at the package index"),
    "no such version": ("low==9", NotFound, "no version of low==9 fits; the latest are 1.0, 2.0"),
    "contradiction": ("low<2\nlow>=2", Conflict, "the requirements contradict each other: The user requested low<2"),
    "contradiction below": ("high\nlow>=2", Conflict, r"contradict each other: .*high 1.0 depends on low<2"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.nightly] * (name == "contradiction below")) for name in REFUSED]
)
def test_what_cannot_be_locked_is_refused_by_name(tmp_path: Path, index: Path, name: str) -> None:
    wanted, error, text = REFUSED[name]
    if error is not InputError or name == "sources only":  # those alone reach pip
        add_wheel(index, "low", "1.0")
        add_wheel(index, "low", "2.0")
        add_wheel(index, "high", "1.0", needs=["low<2"])
        add_sources(index, "bare", "1.0")
    app = write_app(tmp_path / "app", wanted=wanted)
    with pytest.raises(error, match=text) as refused:
        lock_folder(app)
    assert refused.value.hint
    assert refused.value.code == "cannot-lock"
    assert "hunter2" not in refused.value.message
    assert not (app / "requirements.txt").exists()
    assert not (index / "it-ran").exists(), "nothing of a package runs"


HASH = "--hash=sha256:" + "0" * 64
LOCKS = {
    "no hash": ("low==1.0\n", "has no hashes: low==1.0 needs"),
    "weak hash": ("low==1.0 --hash=md5:" + "0" * 32, "has no hashes"),
    "one of two is weak": (f"low==1.0 {HASH} --hash=md5:" + "0" * 32, "has no hashes"),
    "range": (f"low>=1.0 {HASH}", "low>=1.0 is not one version"),
    "wild card": (f"low==1.* {HASH}", "is not one version"),
    "two versions": (f"low==1.0,==1.1 {HASH}", "is not one version"),
    "address": (f"low @ https://a.example/low.whl {HASH}", "is not one version"),
    "option": (f"--extra-index-url https://a.example\nlow==1.0 {HASH}", "--extra-index-url is an option of pip"),
    "another package": (f"high==1.0 {HASH}", "does not lock low"),
    "bytes": ("\udcff", "is not UTF-8"),
}


@pytest.mark.parametrize("name", list(LOCKS))
def test_a_lock_that_does_not_lock_is_refused(tmp_path: Path, name: str) -> None:
    content, text = LOCKS[name]
    app = write_app(tmp_path / "app", wanted="low\n")
    (app / "requirements.txt").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=re.escape(text)):
        build_bundle(app)


@pytest.mark.nightly
def test_settings_of_the_environment_change_nothing(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_wheel(index, "low", "1.0")
    app = write_app(tmp_path / "app", wanted="low\n")
    for name, value in {
        "PIP_NO_BINARY": ":all:",
        "PIP_USER": "1",
        "PIP_PREFIX": "/nowhere",
        "PIP_REQUIRE_VIRTUALENV": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    assert lock_folder(app).packages == ("low==1.0",)


def test_nothing_wanted_and_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = write_app(tmp_path / "app")
    with pytest.raises(NotFound, match=r"no requirements\.in"):
        lock_folder(app)
    (app / "requirements.in").write_text("# nothing yet\n")
    assert lock_folder(app).packages == ()
    assert build_bundle(app).manifest.runtime == "python3", "without libraries any Python will do"
    (app / "package.json").write_text("{}")
    (app / "iapp.toml").write_text('name = "tiny"\nversion = "1"\nentrypoint = "main.js"\nruntime = "node"\n')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="npm is not installed"):
        lock_folder(app)


def node_app(folder: Path) -> Path:
    folder.mkdir()
    (folder / "iapp.toml").write_text('name = "tiny"\nversion = "1"\nentrypoint = "main.js"\nruntime = "node"\n')
    (folder / "main.js").write_text("1;\n")
    (folder / "package.json").write_text('{"dependencies": {"a": "^1.0.0"}}')
    for place in ("a", "@s/dev"):
        package = folder / "node_modules" / place
        package.mkdir(parents=True)
        (package / "package.json").write_text('{"version": "1.0.0"}')
        (package / "index.js").write_text(f"// {place}\n")
    write_node_lock(folder)
    change_lock(folder, lambda packages: packages["node_modules/@s/dev"].update(dev=True))
    return folder


def change_lock(folder: Path, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    path = folder / "package-lock.json"
    lock = json.loads(path.read_text())
    change(lock["packages"])
    path.write_text(json.dumps(lock))


def test_packages_for_development_are_not_in_a_bundle(tmp_path: Path) -> None:
    app = node_app(tmp_path / "app")
    built = build_bundle(app)
    with tarfile.open(built.path) as archive:
        assert archive.getnames() == [
            "manifest.json",
            "lib/node_modules/a/index.js",
            "lib/node_modules/a/package.json",
            "src/main.js",
            "src/package.json",
        ]
    shutil.rmtree(app / "node_modules" / "@s")
    assert build_bundle(app).digest == built.digest, "npm install and npm ci --omit=dev give the same"


NODE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no lock": (lambda d: (d / "package-lock.json").unlink(), "not-found", "no package-lock.json"),
    "old lock": (lambda d: (d / "package.json").write_text('{"dependencies": {"a": "^2"}}'), "lock-stale", "is older"),
    "no integrity": (
        lambda d: change_lock(d, lambda p: p["node_modules/a"].pop("integrity")),
        "cannot-lock",
        "no integrity",
    ),
    "weak": (
        lambda d: change_lock(d, lambda p: p["node_modules/a"].update(integrity="sha1-AAAA")),
        "cannot-lock",
        "no integrity",
    ),
    "git": (
        lambda d: change_lock(d, lambda p: p["node_modules/a"].update(resolved="git+ssh://git@a.example/a.git#1")),
        "cannot-lock",
        "which is no released version",
    ),
    "file": (
        lambda d: (d / "package.json").write_text('{"dependencies": {"a": "file:../a"}}'),
        "cannot-lock",
        "file:../a",
    ),
    "repository": (
        lambda d: (d / "package.json").write_text('{"dependencies": {"a": "owner/a"}}'),
        "cannot-lock",
        "owner/a",
    ),
    "link": (
        lambda d: change_lock(d, lambda p: p.update({"node_modules/b": {"link": True}})),
        "cannot-lock",
        "is a link",
    ),
    "other version": (
        lambda d: (d / "node_modules/a/package.json").write_text('{"version": "1.0.1"}'),
        "lock-mismatch",
        "node_modules/a is version 1.0.1, the lock has 1.0.0",
    ),
    "not in the lock": (
        lambda d: ((d / "node_modules/c").mkdir(), (d / "node_modules/c/package.json").write_text("{}")),
        "lock-mismatch",
        "node_modules/c is not in the lock",
    ),
    "not installed": (lambda d: (d / "node_modules/a/package.json").unlink(), "not-found", "a is not installed"),
}


@pytest.mark.parametrize("name", list(NODE))
def test_a_node_lock_that_does_not_cover_is_refused(tmp_path: Path, name: str) -> None:
    spoil, code, text = NODE[name]
    app = node_app(tmp_path / "app")
    spoil(app)
    with pytest.raises(CloisterError, match=re.escape(text)) as refused:
        build_bundle(app)
    assert refused.value.code == code
    assert refused.value.hint
