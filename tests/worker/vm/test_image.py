"""The image: the same inputs give the same bytes, a lock admits nothing else, and nothing is in it that nobody needs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.machines import package_cache

from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DecodeError,
    NotFound,
    UnavailableError,
    VerificationError,
)
from cloister.worker.vm.builder import build_image
from cloister.worker.vm.image import INITRAMFS, MANIFEST, Image, load_image, parse_manifest
from cloister.worker.vm.packages import Package, fetch_packages, package_files


def build_elsewhere(folder: Path, lock: Path) -> dict[str, object]:
    """Build by the command in another folder, with another umask, time zone, locale and hash seed."""
    home = folder / "home"
    (home / "vm").mkdir(parents=True)
    (home / "vm" / "packages").symlink_to(package_cache())
    environment = os.environ | {
        "CLOISTER_HOME": str(home),
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "4711",
        "SOURCE_DATE_EPOCH": "1",
    }
    command = [sys.executable, "-m", "cloister.cli.main", "vm", "build", "--json", "--lock", str(lock)]
    done = subprocess.run(
        [*command, "--output", str(folder / "out" / "deep")],
        cwd=folder,
        env=environment,
        umask=0o077,
        capture_output=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_the_same_inputs_give_the_same_bytes_elsewhere(image: Image, tmp_path: Path) -> None:
    told = build_elsewhere(tmp_path, image.folder / MANIFEST)
    again = load_image(tmp_path / "out" / "deep")
    assert again.manifest.outputs == image.manifest.outputs
    assert again.digest == image.digest == told["digest"]
    for name in image.manifest.outputs:
        assert (again.folder / name).read_bytes() == (image.folder / name).read_bytes(), name
    assert str(tmp_path).encode() not in (again.folder / INITRAMFS).read_bytes()


def test_the_manifest_names_every_input(image: Image) -> None:
    manifest = image.manifest
    names = {package.name for package in manifest.packages}
    assert {"python3.11-minimal", "libc6", "bubblewrap", "ovmf"} <= names
    assert sum(name.startswith("linux-image-6.12.") for name in names) == 1
    assert "cloister/enclave/boot.py" in manifest.files
    assert any(name.startswith("cryptography/") for name in manifest.files)
    assert parse_manifest(manifest.build()) == manifest


def test_only_what_is_needed_is_in_it(image: Image) -> None:
    entries = read_cpio((image.folder / INITRAMFS).read_bytes())
    programs = {name.removeprefix("usr/bin/") for name in entries if name.startswith("usr/bin/")}
    assert programs == {"bwrap", "dash", "python3", "python3.11", "sh"}
    assert not [name for name in entries if name.startswith(("etc/", "usr/sbin/", "usr/share/", "home"))]
    modules = sorted(name for name in entries if name.endswith(".ko"))
    assert [name.rpartition("/")[2] for name in modules] == [
        "0-configfs.ko",
        "1-tsm.ko",
        "2-tdx-guest.ko",
        "3-sev-guest.ko",
    ]
    rooms = {name.split("/")[3] for name in entries if name.startswith("opt/cloister-agent/cloister/")}
    assert not rooms & {"services", "worker", "sdk", "chain", "network", "cli", "transport.py"}


def test_times_owners_and_order_are_constants(image: Image) -> None:
    entries = read_cpio((image.folder / INITRAMFS).read_bytes())
    assert list(entries) == sorted(entries, key=lambda name: name.split("/"))
    assert [fields["ino"] for fields in entries.values()] == list(range(1, len(entries) + 1))
    for name, fields in entries.items():
        assert (fields["uid"], fields["gid"], fields["mtime"]) == (0, 0, 0), name
        assert fields["mode"] & 0o6000 == 0, f"{name} changes the user"
        assert fields["mode"] & 0o022 == 0 or fields["mode"] & 0o170000 == 0o120000 or name == "tmp", name


def test_a_lock_with_another_package_is_refused_by_name(image: Image, tmp_path: Path) -> None:
    packages = tuple(
        dataclasses.replace(each, sha256="0" * 64) if each.name == "dash" else each for each in image.manifest.packages
    )
    with pytest.raises(CloisterError, match="dash") as caught:
        build_image(
            tmp_path / "out", cache=package_cache(), lock=dataclasses.replace(image.manifest, packages=packages)
        )
    assert isinstance(caught.value, VerificationError | NotFound)
    assert not (tmp_path / "out").exists()


def test_a_lock_with_another_agent_is_refused_by_name(image: Image, tmp_path: Path) -> None:
    files = {**image.manifest.files, "cloister/enclave/agent.py": "0" * 64}
    lock = dataclasses.replace(image.manifest, files=files)
    with pytest.raises(VerificationError, match=r"cloister/enclave/agent.py differs") as caught:
        build_image(tmp_path / "out", cache=package_cache(), lock=lock)
    assert caught.value.code == "lock-mismatch"


def test_a_version_that_is_gone_is_named(image: Image, tmp_path: Path) -> None:
    gone = Package("dash", "0.0.1-1", "1" * 64)
    with pytest.raises((NotFound, UnavailableError), match=r"dash 0\.0\.1-1"):
        fetch_packages([gone], tmp_path / "cache", lambda text: None)


def test_without_apt_it_is_said(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"apt-get|dpkg") as caught:
        build_image(tmp_path / "out", cache=tmp_path / "cache")
    assert caught.value.hint is not None
    assert "Debian 12" in caught.value.hint


def test_a_cached_package_that_was_changed_is_not_taken(image: Image, tmp_path: Path) -> None:
    package = next(each for each in image.manifest.packages if each.name == "dash")
    content = bytearray((package_cache() / f"{package.sha256}.deb").read_bytes())
    content[100] ^= 1
    (tmp_path / f"{package.sha256}.deb").write_bytes(content)
    try:
        found = fetch_packages([package], tmp_path, lambda text: None)
    except (NotFound, UnavailableError):
        return  # not to be had any more: refused as well
    with package_files(found[package]) as members:
        assert any(member.name == "./bin/dash" for member, _ in members)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"no package")
    with pytest.raises(VerificationError, match=r"x\.deb"), package_files(tmp_path / "x.deb") as members:
        list(members)


@pytest.mark.parametrize("part", ["OVMF_CODE.fd", "OVMF_VARS.fd", "vmlinuz", INITRAMFS])
def test_a_changed_part_is_named(image: Image, tmp_path: Path, part: str) -> None:
    for name in (*image.manifest.outputs, MANIFEST):
        if name != part:
            (tmp_path / name).symlink_to(image.folder / name)
    content = bytearray((image.folder / part).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / part).write_bytes(content)
    with pytest.raises(VerificationError, match=part) as caught:
        load_image(tmp_path)
    assert caught.value.code == "image-changed"


def test_a_missing_part_is_named(image: Image, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no image in"):
        load_image(tmp_path)
    (tmp_path / MANIFEST).write_bytes(image.manifest.build())
    with pytest.raises(NotFound, match=r"OVMF_CODE\.fd is missing"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"version":2,"command_line":"","packages":[],"files":{},"outputs":{},"python":""}',
        b'{"version":1,"command_line":"","packages":[1],"files":{},"outputs":{},"python":""}',
        b'{"version":1,"command_line":"","packages":[],"files":{"a":"b"},"outputs":{},"python":""}',
        b'{"version":1,"command_line":"","packages":[],"files":{},"outputs":{},"python":"","more":1}',
        b" " * (5 << 20),
    ],
)
def test_a_manifest_of_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_manifest(raw)


@pytest.mark.parametrize(
    ("name", "version", "sha256"),
    [
        ("-o Dir=/", "1", "0" * 64),
        ("dash", "1 --force", "0" * 64),
        ("dash", "1", "0" * 63),
        ("Dash", "1", "0" * 64),
        ("dash/evil", "1", "0" * 64),
    ],
)
def test_what_apt_could_take_for_an_option_is_no_package(name: str, version: str, sha256: str) -> None:
    with pytest.raises(VerificationError):
        Package(name, version, sha256)


def read_cpio(archive: bytes) -> dict[str, dict[str, int]]:
    """Read a "newc" archive: name -> fields, in its order."""
    names = ("ino", "mode", "uid", "gid", "nlink", "mtime", "size", "devmajor", "devminor", "rmaj", "rmin", "namesize")
    entries: dict[str, dict[str, int]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        values = [int(archive[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(12)]
        fields = dict(zip(names, values, strict=True))
        name = archive[at + 110 : at + 110 + fields["namesize"] - 1].decode()
        at = (at + 110 + fields["namesize"] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(archive)
            return entries
        entries[name] = fields
        at = (at + fields["size"] + 3) // 4 * 4
