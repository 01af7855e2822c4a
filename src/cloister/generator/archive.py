"""Writing the archive: the same files give the same bytes, whoever owns them and whatever their modes and times are."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloister.enclave.bundle import MAX_FILES
from cloister.errors import InputError, TooLarge, quoted
from cloister.files import sync_folder
from cloister.protocol.bundles import MANIFEST_NAME, Manifest, build_manifest
from cloister.protocol.codec import Bytes32

_LARGEST = 5
_EXECUTABLE = (b"#!", b"\x7fELF")
_HINT = "leave out what is not needed (exclude in iapp.toml); large data belongs into protected data or input files"


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on disk. ``digest`` is its SHA-256: the app's on-chain checksum."""

    path: Path
    digest: Bytes32
    size: int
    manifest: Manifest


def write_bundle(manifest: Manifest, members: Mapping[str, Path], output: Path, max_bytes: int) -> BuiltBundle:
    """Write the archive beside its final name, then rename: a bundle is whole or not there.

    A file is executable in it when its content is: a script that names its interpreter, or an ELF program. The modes of
    this machine do not count, since a checkout, an umask or another file system changes them.

    Raises:
        TooLarge: over ``max_bytes`` or 100,000 files. InputError: a file that cannot be read, or a path that is too long.
    """
    if len(members) + 1 > MAX_FILES:
        counts = Counter(_whole(name) for name in members)
        most = ", ".join(f"{quoted(name)} ({count})" for name, count in counts.most_common(_LARGEST))
        raise TooLarge(f"the bundle has {len(members) + 1} files; at most {MAX_FILES}: most are in {most}", hint=_HINT)
    sizes = {name: path.lstat().st_size for name, path in members.items()}
    check_size(sum(sizes.values()), max_bytes, sizes)
    output.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _write_archive(file, build_manifest(manifest), members)
            file.flush()
            size = file.tell()
            check_size(size, max_bytes, sizes)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(output)
        sync_folder(output.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return BuiltBundle(output, Bytes32.from_raw(digest), size, manifest)


def check_size(size: int, max_bytes: int, sizes: Mapping[str, int]) -> None:
    """Refuse a bundle over its cap, and name what takes most of it.

    Raises:
        TooLarge: over the cap.
    """
    if size <= max_bytes:
        return
    totals: Counter[str] = Counter()
    for name, count in sizes.items():
        totals[_whole(name)] += count
    largest = ", ".join(f"{quoted(name)} ({show_size(count)})" for name, count in totals.most_common(_LARGEST))
    raise TooLarge(f"the bundle has {size} bytes; at most {max_bytes}: the largest are {largest}", hint=_HINT)


def show_size(count: int) -> str:
    """A number of bytes for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _whole(name: str) -> str:
    """What a file is part of: a library's package, or itself."""
    parts = name.split("/")
    if parts[0] != "lib":
        return name
    depth = 2
    if parts[1:2] == ["node_modules"]:
        depth = 4 if len(parts) > 3 and parts[2].startswith("@") else 3
    return "/".join(parts[:depth])


def _write_archive(file: IO[bytes], manifest: bytes, members: Mapping[str, Path]) -> None:
    # The encoding is named: the default is that of the machine's locale.
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as archive:
        archive.addfile(_entry(MANIFEST_NAME, len(manifest), executable=False), io.BytesIO(manifest))
        for name in sorted(members):
            _add(archive, name, members[name])


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        with open(path, "rb", opener=_open_file) as content:
            front = content.read(4)
            content.seek(0)
            entry = _entry(name, os.fstat(content.fileno()).st_size, executable=front.startswith(_EXECUTABLE))
            archive.addfile(entry, content)
    except ValueError as error:
        raise InputError(f"{quoted(name)} is too long a path for a bundle", hint="at most 255 bytes") from error
    except OSError as error:
        reason = error.strerror or "it changed while it was read"
        raise InputError(f"{quoted(name)} cannot be read: {reason}") from error


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _entry(name: str, size: int, *, executable: bool) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    return entry
