"""The same source gives the same digest, whoever builds it, where, and with what around it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.generator.wheels import add_wheel, offline_index, write_app

from cloister.errors import InputError, NotFound, TooLarge
from cloister.generator.bundle import build_bundle
from cloister.generator.interpreters import find_interpreter
from cloister.generator.locking import lock_folder

BUILD = """
import sys
from pathlib import Path
from cloister.generator.bundle import build_bundle
print(build_bundle(Path(sys.argv[1])).digest)
"""


def build_elsewhere(folder: Path, umask: int, **environment: str) -> str:
    """Build in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        env=os.environ | environment,
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_of_the_building_machine_is_in_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = offline_index(tmp_path / "index", monkeypatch)
    code = "X = {'a', 'b', 'c'}\ndef f(x):\n    return x in {'q', 'w', 'e'}\n"
    add_wheel(index, "low", "1.0", code=code)
    first = write_app(tmp_path / "one", wanted="low\n")
    lock_folder(first)
    (first / "pkg").mkdir()
    (first / "pkg" / "grüße.txt").write_bytes(b"one\r\ntwo\n")
    (first / "pkg" / "run").write_bytes(b"#!/bin/sh\n")
    here = str(build_bundle(first).digest)

    second = tmp_path / "a b" / "elsewhere"
    shutil.copytree(first, second)
    for name in ("tests", "mock", "input", "output", ".cloister", "pkg/__pycache__", ".git", "pkg/.vscode", "build"):
        (second / name).mkdir(exist_ok=True)
        (second / name / "x.py").write_text("noise")
    for name in ("README.md", "Containerfile", "requirements.in~", "pkg/.DS_Store", "pkg/a.swp", "#main.py#", ".env"):
        (second / name).write_text("noise")
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
    (tmp_path / "home").mkdir()
    odd = {"HOME": str(tmp_path / "home"), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "5"}
    # The oldest locale there is: names of files are not text to it.
    odd |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert build_elsewhere(second, 0o077, **odd) == here
    (second / "pkg" / "grüße.txt").write_bytes(b"one\ntwo\n")
    assert str(build_bundle(second).digest) != here, "line ends are content"


def test_what_is_executable_is_told_by_content(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    (app / "main.py").chmod(0o755)
    (app / "tool").write_bytes(b"\x7fELF...")
    (app / "tool").chmod(0o600)
    (app / "run").write_text("#!/bin/sh\n")
    with tarfile.open(build_bundle(app).path) as archive:
        modes = {member.name: member.mode for member in archive}
        assert {member.mtime for member in archive} == {0}
        assert {(member.uid, member.gid, member.uname) for member in archive} == {(0, 0, "")}
    assert modes == {
        "manifest.json": 0o644,
        "src/main.py": 0o644,
        "src/run": 0o755,
        "src/tool": 0o755,
    }


@pytest.mark.nightly
def test_another_python_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [f"python3.{minor}" for minor in range(8, 20) if minor != sys.version_info[1]]
    here = []
    for name in others:
        try:
            here.append(find_interpreter(name))
        except NotFound:
            continue
    usable = [
        each
        for each in here
        if subprocess.run([each.path, "-m", "pip", "--version"], check=False, capture_output=True).returncode == 0
    ]
    if not usable:
        pytest.skip("there is one Python with pip here")
    index = offline_index(tmp_path / "index", monkeypatch)
    add_wheel(index, "low", "1.0")
    app = write_app(tmp_path / "app", wanted="low\n", runtime=usable[-1].runtime)
    lock_folder(app)
    one = build_bundle(app, tmp_path / "one.bundle")
    assert one.manifest.runtime == usable[-1].runtime
    assert f"# For {usable[-1].runtime} on " in (app / "requirements.txt").read_text()
    with tarfile.open(one.path) as archive:
        compiler = archive.extractfile("lib/.compiled-by")
        assert compiler is not None
        assert compiler.read().decode() == usable[-1].name + "\n"
    app2 = tmp_path / "app2"
    shutil.copytree(app, app2)
    assert build_bundle(app2).digest == one.digest


OVER: dict[str, tuple[Callable[[Path], object], str]] = {
    "one": (lambda d: (d / "weights.bin").write_bytes(bytes(300_000)), r"src/weights.bin \(293.0 KiB\)"),
    "many": (
        lambda d: [(d / f"{n}.bin").write_bytes(bytes(40_000 + n)) for n in range(9)],
        "src/8.bin .*src/7.bin .*src/6.bin .*src/5.bin .*src/4.bin",
    ),
}


@pytest.mark.parametrize("name", list(OVER))
def test_over_the_cap_the_largest_are_named(tmp_path: Path, name: str) -> None:
    fill, text = OVER[name]
    app = write_app(tmp_path / "app")
    fill(app)
    with pytest.raises(TooLarge, match=r"at most 200000: the largest are " + text) as refused:
        build_bundle(app, max_bytes=200_000)
    assert "exclude in iapp.toml" in (refused.value.hint or "")
    assert not (app / "build").exists()


def test_names_that_no_bundle_holds(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    odd = Path(os.fsdecode(os.fsencode(app) + b"/bad\xff.py"))
    odd.write_text("1")
    with pytest.raises(InputError, match="is not UTF-8"):
        build_bundle(app)
