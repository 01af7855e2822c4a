"""Unpacking an iApp bundle inside the enclave, while its bytes arrive and before they are known to be the right ones.

A bundle is one POSIX ustar file: regular files only, ``manifest.json`` first, then ``src/`` (the iApp) and ``lib/``
(its unpacked dependencies). This reader knows nothing else of tar, so links, devices, sparse files and extended
headers cannot occur. Files go to a staging directory that the caller uses only when the digest of the whole stream
matched.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cloister.enclave.exact import ExactStream
from cloister.errors import CloisterError, DecodeError, InputError, TooLarge, VerificationError, quoted
from cloister.protocol.bundles import MANIFEST_CAP, MANIFEST_NAME, Manifest, parse_manifest

BLOCK = 512
MAX_BUNDLE = 2 << 30
MAX_FILES = 100_000
SOURCE_DIRECTORY = "src"
LIBRARY_DIRECTORY = "lib"
SOURCE_TARGET = "/app"
LIBRARY_TARGET = "/opt/iapp/lib"
"""Where the two lie in the sandbox; compiled code names these paths."""

_PIECE = 1 << 20
_OCTAL = re.compile(rb"[0-7]{1,11}[ \0]?")
_DRIVE = re.compile(r"[A-Za-z]:")
_ZERO_BLOCK = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Bundle:
    """An unpacked bundle whose digest matched. ``root`` holds ``src`` and perhaps ``lib``."""

    manifest: Manifest
    root: Path
    digest: bytes

    @property
    def source(self) -> Path:
        return self.root / SOURCE_DIRECTORY

    @property
    def library(self) -> Path:
        return self.root / LIBRARY_DIRECTORY


def unpack_bundle(
    chunks: Iterable[bytes],
    staging: Path,
    *,
    expected_digest: bytes,
    max_bytes: int = MAX_BUNDLE,
    max_files: int = MAX_FILES,
) -> Bundle:
    """Unpack ``chunks`` into ``staging``, a new directory, and prove that they are the bundle of ``expected_digest``
    (SHA-256).

    On any failure ``staging`` is removed.

    Raises:
        DecodeError: not a bundle. TooLarge: more bytes or files than allowed. VerificationError: another bundle.
    """
    staging.mkdir(mode=0o700)
    try:
        return _unpack(chunks, staging, expected_digest, max_bytes, max_files)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise DecodeError(f"the bundle does not unpack: {error.strerror or 'file error'}") from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _unpack(chunks: Iterable[bytes], staging: Path, expected: bytes, max_bytes: int, max_files: int) -> Bundle:
    stream = _HashedStream(chunks, max_bytes)
    manifest: Manifest | None = None
    problem: CloisterError | None = None
    try:
        for count, (name, size, executable) in enumerate(_members(stream)):
            if count >= max_files:
                raise TooLarge(f"a bundle holds at most {max_files} files")
            if manifest is None:
                manifest = _read_manifest(name, size, stream)
            else:
                _write_member(staging, name, size, executable, stream)
    except (DecodeError, OSError) as error:
        problem = error if isinstance(error, CloisterError) else DecodeError("a file of the bundle cannot be written")
        if isinstance(error, TooLarge):
            raise
    # Bytes that are not the bundle are called so, whatever else is wrong with them.
    stream.drain()
    if not hmac.compare_digest(stream.digest(), expected):
        raise VerificationError(
            f"the bundle has the digest {stream.digest().hex()} instead of {expected.hex()}", code="bundle-digest"
        )
    if problem is not None:
        raise problem
    if manifest is None:
        raise DecodeError("the bundle is empty")
    if not (staging / SOURCE_DIRECTORY / manifest.entrypoint).is_file():
        raise DecodeError(f"the entry point {quoted(manifest.entrypoint)} is not in the bundle")
    return Bundle(manifest, staging, expected)


def read_manifest(chunks: Iterable[bytes]) -> Manifest:
    """Read the manifest at the front of a bundle; of the rest nothing is proved.

    Raises:
        DecodeError: not a bundle.
    """
    stream = _HashedStream(chunks, MAX_BUNDLE)
    for name, size, _ in _members(stream):
        return _read_manifest(name, size, stream)
    raise DecodeError("the bundle is empty")


def check_member_name(name: str) -> str:
    """Return ``name`` when it is a plain relative path: no root, drive, parent, empty part, backslash or control
    character.

    Raises:
        DecodeError: anything else.
    """
    parts = name.split("/")
    if (
        not name
        or len(name.encode()) > 255
        or any(part in ("", ".", "..") for part in parts)
        or _DRIVE.match(name)
        or "\\" in name
        or not name.isprintable()
    ):
        raise DecodeError(f"bundle entry {quoted(name)} is not a plain relative path")
    return name


class _HashedStream(ExactStream):
    """A bundle's bytes, every one of them hashed."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int) -> None:
        super().__init__(chunks, max_bytes, "the bundle")
        self._hash = hashlib.sha256()

    def _hear(self, chunk: bytes) -> None:
        self._hash.update(chunk)

    def digest(self) -> bytes:
        return self._hash.digest()


def _members(stream: _HashedStream) -> Iterator[tuple[str, int, bool]]:
    """Yield name, size and executable bit; the caller reads the content before it asks for the next."""
    while True:
        header = stream.take(BLOCK)
        if header == _ZERO_BLOCK:
            while not stream.at_end():
                if stream.take(BLOCK) != _ZERO_BLOCK:
                    raise DecodeError("bytes follow the end of the bundle")
            return
        name, size, executable = _parse_header(header)
        yield name, size, executable
        padding = -size % BLOCK
        if any(stream.take(padding)):
            raise DecodeError("the padding of a bundle entry is not zero")


def _parse_header(header: bytes) -> tuple[str, int, bool]:
    if header[257:265] != b"ustar\x0000":
        raise DecodeError("a bundle entry is not in ustar format")
    if header[156:157] != b"0":
        raise DecodeError(f"a bundle entry has the type {quoted(header[156:157])}; only regular files are allowed")
    unsigned = sum(header) - sum(header[148:156]) + 8 * 0x20
    if _octal(header[148:156].replace(b"\x00", b" ").strip()) != unsigned:
        raise DecodeError("a bundle entry has a wrong header checksum")
    try:
        name = _text(header[0:100]).decode()
        prefix = _text(header[345:500]).decode()
    except UnicodeDecodeError as error:
        raise DecodeError("a bundle entry's name is not UTF-8") from error
    mode = _octal(header[100:108].rstrip(b"\x00 "))
    return check_member_name(f"{prefix}/{name}" if prefix else name), _octal(header[124:136]), bool(mode & 0o100)


def _text(field: bytes) -> bytes:
    return field.split(b"\x00", 1)[0]


def _octal(field: bytes) -> int:
    if not _OCTAL.fullmatch(field):
        raise DecodeError(f"a bundle entry holds the number {quoted(field)}")
    return int(field.rstrip(b" \x00"), 8)


def _read_manifest(name: str, size: int, stream: _HashedStream) -> Manifest:
    if name != MANIFEST_NAME:
        raise DecodeError(f"the bundle begins with {quoted(name)} instead of {MANIFEST_NAME}")
    if size > MANIFEST_CAP:
        raise TooLarge(f"the manifest has {size} bytes; the cap is {MANIFEST_CAP}")
    try:
        return parse_manifest(stream.take(size))
    except InputError as error:
        raise DecodeError(error.message) from error


def _write_member(staging: Path, name: str, size: int, executable: bool, stream: _HashedStream) -> None:
    if name.split("/")[0] not in (SOURCE_DIRECTORY, LIBRARY_DIRECTORY) or "/" not in name:
        raise DecodeError(f"bundle entry {quoted(name)} is neither in {SOURCE_DIRECTORY}/ nor in {LIBRARY_DIRECTORY}/")
    path = staging / name
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Exclusive: an entry that stands twice is refused. Nothing here can be a link, since none was ever made.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o555 if executable else 0o444)
    with os.fdopen(descriptor, "wb") as file:
        for piece in stream.pieces(size):
            file.write(piece)
