"""Bundles: the same source gives the same bytes, and nothing else unpacks."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.enclave.world import HELLO, World, write_iapp

from cloister.enclave.bundle import Bundle, unpack_bundle
from cloister.errors import (
    CloisterError,
    DecodeError,
    InputError,
    NotFound,
    TooLarge,
    UnavailableError,
    VerificationError,
)
from cloister.generator.bundle import build_bundle, load_manifest
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime


def test_same_source_same_bytes(tmp_path: Path) -> None:
    first = write_iapp(tmp_path / "a", HELLO + "X = {'a', 'b', 'c', 'd'}\ndef f(x):\n    return x in {'q', 'w', 'e'}\n")
    (first / "pkg").mkdir()
    (first / "pkg" / "data.bin").write_bytes(bytes(1000))
    (first / "pkg" / "m.py").write_text("Y = 'interned', 'interned'\n")
    one = build_bundle(first, tmp_path / "one.bundle")
    second = tmp_path / "b" / "elsewhere"
    second.parent.mkdir()
    first.rename(second)
    for path in second.rglob("*"):
        os.utime(path, (1, 1))
    (second / "__pycache__").mkdir()
    (second / "__pycache__" / "stale.pyc").write_bytes(b"old")
    (second / ".git").mkdir()
    (second / ".git" / "HEAD").write_text("noise")
    two = build_bundle(second)
    assert two.path == second / "build" / "tiny.bundle"
    assert one.digest == two.digest
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.digest.raw == hashlib.sha256(one.path.read_bytes()).digest()
    assert build_bundle(second).digest == two.digest, "the last build is no part of the next"


def test_it_unpacks_and_names_itself(tmp_path: Path) -> None:
    built = build_bundle(write_iapp(tmp_path / "a", HELLO), tmp_path / "one.bundle")
    with tarfile.open(built.path) as archive:
        names = archive.getnames()
    assert names[0] == "manifest.json"
    assert names[1:] == sorted(names[1:])
    bundle = unpack(built.path.read_bytes(), tmp_path / "out")
    assert bundle.manifest == built.manifest == load_manifest(built.path)
    assert (bundle.source / "main.py").read_text() == HELLO
    assert [path.name for path in bundle.source.iterdir()] == ["main.py"], "the author's code is not compiled"


def unpack(data: bytes, staging: Path, *, chunk: int = 100, expected: bytes | None = None, **caps: int) -> Bundle:
    chunks = (data[start : start + chunk] for start in range(0, len(data), chunk))
    return unpack_bundle(chunks, staging, expected_digest=expected or hashlib.sha256(data).digest(), **caps)


MANIFEST = (
    b'{"entrypoint":"main.py","manifest_version":1,"name":"tiny","network":[],"purposes":[],"resources":{"disk_mib":1,'
    b'"memory_mib":1,"processes":1,"seconds":1},"runtime":"python3","version":"1"}'
)


def archive(*entries: tarfile.TarInfo | tuple[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:  # noqa: A002
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            tar.addfile(info, io.BytesIO(entry[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


FRONT = ("manifest.json", MANIFEST)
MAIN = ("src/main.py", b"pass")


def broken(position: int, value: bytes) -> bytes:
    data = bytearray(archive(FRONT, MAIN))
    data[position : position + len(value)] = value
    return bytes(data)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "only zeros": lambda: bytes(10240),
    "not a tar": lambda: b"PK\x03\x04" * 200,
    "cut in a header": lambda: archive(FRONT, MAIN)[:700],
    "cut in a file": lambda: archive(FRONT, ("src/main.py", bytes(5000)))[:3000],
    "manifest not first": lambda: archive(MAIN, FRONT),
    "no manifest": lambda: archive(MAIN),
    "manifest twice": lambda: archive(FRONT, FRONT, MAIN),
    "manifest too large": lambda: archive(("manifest.json", MANIFEST + b" " * 70_000), MAIN),
    "manifest of another version": lambda: archive(
        ("manifest.json", MANIFEST.replace(b'manifest_version":1', b'manifest_version":2')), MAIN
    ),
    "entry point outside": lambda: archive(("manifest.json", MANIFEST.replace(b"main.py", b"../m.py")), MAIN),
    "entry point missing": lambda: archive(FRONT, ("src/other.py", b"")),
    "parent": lambda: archive(FRONT, MAIN, ("src/../../evil", b"x")),
    "parent in the middle": lambda: archive(FRONT, MAIN, ("src/a/../../../evil", b"x")),
    "absolute": lambda: archive(FRONT, MAIN, ("/evil", b"x")),
    "drive letter": lambda: archive(FRONT, MAIN, ("C:/evil", b"x")),
    "backslash": lambda: archive(FRONT, MAIN, ("src/..\\evil", b"x")),
    "control character": lambda: archive(FRONT, MAIN, ("src/a\nb", b"x")),
    "dot": lambda: archive(FRONT, MAIN, ("src/./a", b"x")),
    "double slash": lambda: archive(FRONT, MAIN, ("src//a", b"x")),
    "outside src and lib": lambda: archive(FRONT, MAIN, ("etc/a", b"x")),
    "src as a file": lambda: archive(FRONT, ("src", b"x")),
    "file as a folder": lambda: archive(FRONT, MAIN, ("src/main.py/a", b"x")),
    "twice": lambda: archive(FRONT, MAIN, ("src/main.py", b"other")),
    "symlink": lambda: archive(FRONT, MAIN, special("src/link", tarfile.SYMTYPE, "/etc")),
    "symlink, then through it": lambda: archive(
        FRONT, MAIN, special("src/l", tarfile.SYMTYPE, "/tmp"), ("src/l/a", b"x")
    ),
    "hard link": lambda: archive(FRONT, MAIN, special("src/link", tarfile.LNKTYPE, "src/main.py")),
    "device": lambda: archive(FRONT, MAIN, special("src/null", tarfile.CHRTYPE)),
    "block device": lambda: archive(FRONT, MAIN, special("src/sda", tarfile.BLKTYPE)),
    "pipe": lambda: archive(FRONT, MAIN, special("src/pipe", tarfile.FIFOTYPE)),
    "folder entry": lambda: archive(FRONT, MAIN, special("src/d", tarfile.DIRTYPE)),
    "sparse file": lambda: archive(FRONT, MAIN, special("src/s", tarfile.GNUTYPE_SPARSE)),
    "extended header": lambda: archive(FRONT, MAIN, ("src/" + "é" * 120, b"x"), format=tarfile.PAX_FORMAT),
    "long name header": lambda: archive(FRONT, MAIN, ("src/" + "x" * 200, b"x"), format=tarfile.GNU_FORMAT),
    "wrong header checksum": lambda: broken(1024 + 5, b"X"),
    "size in base 256": lambda: broken(124, b"\x80" + bytes(10) + b"\x05"),
    "negative size": lambda: broken(124, b"-0000000001\0"),
    "size of 8 GiB": lambda: broken(124, b"77777777777\0"),
    "padding that is not zero": lambda: broken(512 + len(MANIFEST), b"x"),
    "bytes behind the end": lambda: archive(FRONT, MAIN) + b"x" * 512,
    "name that is not UTF-8": lambda: broken(1024, b"src/\xff"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_bundle_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DecodeError):
        unpack(HOSTILE[name](), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_other_bytes_are_called_so_whatever_else_is_wrong(tmp_path: Path) -> None:
    for data in (archive(FRONT, MAIN), b"rubbish" * 1000):
        with pytest.raises(VerificationError, match="instead of"):
            unpack(data, tmp_path / "out", expected=bytes(32))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("caps", [{"max_bytes": 5000}, {"max_files": 1}])
def test_caps(tmp_path: Path, caps: dict[str, int]) -> None:
    with pytest.raises(TooLarge):
        unpack(archive(FRONT, MAIN), tmp_path / "out", **caps)
    assert not (tmp_path / "out").exists()


def test_endless_body_is_refused_at_the_cap(tmp_path: Path) -> None:
    def endless() -> object:
        while True:
            yield bytes(1 << 16)

    with pytest.raises(TooLarge):
        unpack_bundle(endless(), tmp_path / "out", expected_digest=bytes(32), max_bytes=1 << 20)  # type: ignore[arg-type]


def settings(folder: Path, **changes: str) -> None:
    lines = {"name": '"tiny"', "version": '"1"', "entrypoint": '"main.py"', "runtime": '"python3"'} | changes
    (folder / "iapp.toml").write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))


SOURCES: dict[str, tuple[Callable[[Path], object], type[CloisterError], str]] = {
    "no settings": (lambda d: (d / "iapp.toml").unlink(), NotFound, "no iapp.toml"),
    "settings that do not parse": (lambda d: (d / "iapp.toml").write_text("name ="), InputError, "does not parse"),
    "unknown setting": (lambda d: settings(d, naem='"x"'), InputError, "unknown setting naem"),
    "name as a number": (lambda d: settings(d, name="1"), InputError, "name must be a text"),
    "missing entry point": (lambda d: (d / "main.py").unlink(), NotFound, "entry point main.py is not in"),
    "absolute entry point": (lambda d: settings(d, entrypoint='"/etc/passwd"'), InputError, "entrypoint"),
    "entry point above": (lambda d: settings(d, entrypoint='"../main.py"'), InputError, "entrypoint"),
    "unknown resource": (lambda d: settings(d, resources="{ gpu = 1 }"), InputError, "resources may hold"),
    "memory of 0": (lambda d: settings(d, resources="{ memory_mib = 0 }"), InputError, "memory_mib"),
    "memory as text": (lambda d: settings(d, resources='{ memory_mib = "1" }'), InputError, "memory_mib"),
    "symlink": (lambda d: (d / "link").symlink_to("/etc/passwd"), InputError, "link is a symbolic link"),
    "symlinked folder": (lambda d: (d / "etc").symlink_to("/etc"), InputError, "etc is a symbolic link"),
    "symlink below": (lambda d: ((d / "p").mkdir(), (d / "p/l").symlink_to("x")), InputError, "symbolic link"),
    "pipe below": (lambda d: ((d / "p").mkdir(), os.mkfifo(d / "p/f")), InputError, "neither a file nor a folder"),
    "odd name": (lambda d: (d / "a\\b").write_text("x"), InputError, "not a plain relative path"),
    "no hashes": (lambda d: (d / "requirements.txt").write_text("six==1.16.0\n"), InputError, "has no hashes"),
    "runtime that is not here": (lambda d: settings(d, runtime='"python3.99"'), NotFound, "python3.99"),
}


@pytest.mark.parametrize("name", list(SOURCES))
def test_source_that_cannot_be_bundled(tmp_path: Path, name: str) -> None:
    spoil, error, text = SOURCES[name]
    folder = write_iapp(tmp_path / "a", HELLO)
    spoil(folder)
    with pytest.raises(error, match=text):
        build_bundle(folder, tmp_path / "out.bundle")
    assert not (tmp_path / "out.bundle").exists()


def test_bundle_over_the_cap(tmp_path: Path) -> None:
    folder = write_iapp(tmp_path / "a", HELLO)
    (folder / "weights.bin").write_bytes(bytes(100_000))
    with pytest.raises(TooLarge, match=r"at most 50000: the largest are src/weights.bin \(97.7 KiB\), src/main.py"):
        build_bundle(folder, tmp_path / "out.bundle", max_bytes=50_000)
    assert list(tmp_path.glob("*.bundle")) == []


def wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make pip find nothing but a wheel with a script and no dependencies. Returns its SHA-256."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    path = folder / "tinylib-1.0-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w") as file:
        for name, text in {
            "tinylib/__init__.py": "VALUE = 41 + 1\n",
            "tinylib-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinylib\nVersion: 1.0\n",
            "tinylib-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "tinylib-1.0.dist-info/entry_points.txt": "[console_scripts]\ntiny = tinylib:main\n",
        }.items():
            file.writestr(zipfile.ZipInfo(name), text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(text)}")
        file.writestr("tinylib-1.0.dist-info/RECORD", "\n".join([*record, "tinylib-1.0.dist-info/RECORD,,", ""]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_locked_dependencies_are_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_iapp(tmp_path / "a", "")
    digest = wheel(tmp_path, monkeypatch)
    (folder / "requirements.txt").write_text(f"tinylib==1.0 --hash=sha256:{digest}\n")
    one = build_bundle(folder, tmp_path / "one.bundle")
    two = build_bundle(folder, tmp_path / "two.bundle")
    assert one.digest == two.digest
    bundle = unpack(one.path.read_bytes(), tmp_path / "out")
    names = {path.relative_to(bundle.library).as_posix() for path in bundle.library.rglob("*") if path.is_file()}
    assert {"tinylib/__init__.py", "tinylib-1.0.dist-info/METADATA"} <= names
    assert not any(name.startswith("bin/") or name.endswith("RECORD") for name in names)
    compiled = next((bundle.library / "tinylib" / "__pycache__").iterdir()).read_bytes()
    assert compiled[4:8] == b"\x01\0\0\0", "a hash that is not checked, so no time is"
    assert (bundle.library / ".compiled-by").read_text() == f"cpython {platform.python_version()}\n"
    assert bundle.manifest.runtime == f"python3.{sys.version_info[1]}", "libraries are for one version"


def test_the_enclave_imports_what_is_in_the_bundle(
    tmp_path: Path, runtime: BubblewrapRuntime, world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iapp").mkdir()
    digest = wheel(tmp_path, monkeypatch)
    (tmp_path / "iapp" / "requirements.txt").write_text(f"tinylib==1.0 --hash=sha256:{digest}\n")
    task = world(HELLO.replace('"hello"', "__import__('tinylib').__file__ + str(__import__('tinylib').VALUE)"))
    assert task.run(runtime).cause is None
    assert task.files()["result.txt"] == b"/opt/iapp/lib/tinylib/__init__.py42"


def test_excluded_dependency_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_iapp(tmp_path / "a", "")
    digest = wheel(tmp_path, monkeypatch)
    (folder / "requirements.txt").write_text(f"tinylib==1.0 --hash=sha256:{digest}\n")
    (folder / "iapp.toml").write_text('exclude = ["*/METADATA"]\n' + (folder / "iapp.toml").read_text())
    with tarfile.open(build_bundle(folder, tmp_path / "one.bundle").path) as built:
        names = built.getnames()
    assert "lib/tinylib/__init__.py" in names
    assert "lib/tinylib-1.0.dist-info/METADATA" not in names


def test_dependency_with_another_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_iapp(tmp_path / "a", "")
    wheel(tmp_path, monkeypatch)
    (folder / "requirements.txt").write_text(f"tinylib==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(UnavailableError, match="does not match its hash"):
        build_bundle(folder, tmp_path / "one.bundle")
