"""Outputs: what the iApp left in ``/iexec_out``, checked, hashed, archived and sealed.

The iApp is over and all its processes are dead, so nothing changes while this reads. Names, kinds, counts and sizes are
still its choice and are refused by name where they are not plain.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cloister.enclave.causes import AppError, Cause, TaskError
from cloister.enclave.environment import OUTPUT_DIRECTORY
from cloister.errors import CloisterError, DecodeError, quoted
from cloister.protocol.codec import Bytes32, parse_hex, parse_json
from cloister.protocol.releases import Release, ResultFormat
from cloister.protocol.results import callback_digest, directory_digest
from cloister.sealing.envelope import HpkePublicKey
from cloister.sealing.iexec import seal_result_rsa
from cloister.sealing.results import seal_result

COMPUTED_NAME = "computed.json"
ERROR_NAME = "error.txt"
RECEIPT_NAME = "receipt.cose"
MAX_NAME = 31
"""Longest name of a result file (reference 6.1)."""
MAX_DEPTH = 16
MAX_COMPUTED = 1 << 20
MAX_CALLBACK = 16 << 10
_READ = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One file of the result. ``name`` is relative to ``/iexec_out``; ``open`` gives its bytes."""

    name: str
    size: int
    sha256: bytes
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files of a result, by name, and what ``computed.json`` says of them."""

    files: dict[str, OutputFile]
    digest: Bytes32
    callback: bytes
    cause: Cause | None = None

    def files_digest(self) -> bytes:
        """SHA-256 over name and SHA-256 of every file, in the order of the names."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            raw = name.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw + self.files[name].sha256)
        return digest.digest()


def collect_outputs(
    handle: int, release: Release, *, max_bytes: int, max_files: int, replaced: frozenset[str] = frozenset()
) -> Outputs:
    """Check and hash all that lies under the directory ``handle``. Files whose names are in ``replaced`` are left out:
    the enclave writes its own.

    Raises:
        AppError: links, devices, odd names, too much of anything, or no usable ``computed.json``.
    """
    files: dict[str, OutputFile] = {}
    left = max_bytes
    for name, size in _walk(handle, "", max_files):
        left -= size
        if left < 0:
            raise AppError(Cause.APP_OUTPUT_SIZE_EXCEEDED, f"the result is larger than {max_bytes} bytes")
        if name == RECEIPT_NAME:
            raise AppError(Cause.APP_OUTPUT_NAME_REFUSED, f"{RECEIPT_NAME} is the enclave's own name")
        if name not in replaced:
            files[name] = _hashed(name, size, _opener(handle, name))
    path, callback = _read_computed(files)
    if not release.callback.is_zero:
        if callback is None:
            raise AppError(Cause.POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED, f"{COMPUTED_NAME} has no callback-data")
        return Outputs(files, callback_digest(callback), callback)
    return Outputs(files, _digest_of(path, files), b"")


def build_error_outputs(error: AppError, release: Release) -> Outputs:
    """The result of an iApp that failed: ``error.txt`` with the named cause, so that the task completes (reference
    6.1).
    """
    status = "DATA_DOWNLOAD_FAILED" if error.cause.startswith("PRE_COMPUTE_") else "COMPUTE_FAILED"
    text = f"[IEXEC] Errors occurred while computing the task [error:{status}, causes:[{error.cause}]]\n".encode()
    computed = {"deterministic-output-path": f"{OUTPUT_DIRECTORY}/{ERROR_NAME}", "error-message": quoted(error.message)}
    files = {
        ERROR_NAME: memory_file(ERROR_NAME, text),
        COMPUTED_NAME: memory_file(COMPUTED_NAME, json.dumps(computed).encode()),
    }
    if release.callback.is_zero:
        return Outputs(files, Bytes32.from_raw(files[ERROR_NAME].sha256), b"", error.cause)
    # The hub takes a callback task only with data whose hash is the digest: there is none to give.
    return Outputs(files, callback_digest(b""), b"", error.cause)


def memory_file(name: str, content: bytes) -> OutputFile:
    """A result file that the enclave itself made."""
    return OutputFile(name, len(content), hashlib.sha256(content).digest(), lambda: io.BytesIO(content))


def _walk(handle: int, prefix: str, max_files: int, depth: int = 0) -> Iterator[tuple[str, int]]:
    """Every file below ``handle`` in the order of the names. Refuses what is neither a plain file nor a folder."""
    if depth > MAX_DEPTH:
        raise AppError(Cause.APP_OUTPUT_NAME_REFUSED, f"the result's folders are nested deeper than {MAX_DEPTH}")
    count = 0
    with os.scandir(handle) as entries:
        found = []
        for entry in entries:
            found.append((entry.name, entry.stat(follow_symlinks=False)))
            if len(found) > max_files:
                raise _too_many(max_files)
    for name, status in sorted(found, key=lambda item: item[0]):
        relative = prefix + _check_name(name)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            try:
                for item in _walk(below, f"{relative}/", max_files - count, depth + 1):
                    count += 1
                    yield item
            finally:
                os.close(below)
        elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            count += 1
            yield relative, status.st_size
        else:
            raise AppError(Cause.APP_OUTPUT_NOT_A_FILE, f"{quoted(relative)} is neither a plain file nor a folder")
        if count > max_files:
            raise _too_many(max_files)


def _too_many(max_files: int) -> AppError:
    return AppError(Cause.APP_OUTPUT_FILES_EXCEEDED, f"the result has more than {max_files} files")


def _check_name(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise AppError(Cause.APP_OUTPUT_NAME_REFUSED, "the name of a result file is not UTF-8") from None
    if not name.isprintable() or "\\" in name:
        raise AppError(Cause.APP_OUTPUT_NAME_REFUSED, f"the name of a result file is refused: {quoted(name)}")
    if len(name) > MAX_NAME:
        raise AppError(
            Cause.POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME,
            f"the name of a result file is longer than {MAX_NAME} characters: {quoted(name)}",
        )
    return name


def _opener(handle: int, name: str) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle), "rb")

    return opened


def _hashed(name: str, size: int, opener: Callable[[], IO[bytes]]) -> OutputFile:
    try:
        with opener() as file:
            digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]  # any binary file will do
    except OSError as error:
        raise AppError(Cause.APP_OUTPUT_NOT_A_FILE, f"{quoted(name)} cannot be read") from error
    return OutputFile(name, size, digest, opener)


def _read_computed(files: dict[str, OutputFile]) -> tuple[str, bytes | None]:
    """Read ``computed.json``: the deterministic path relative to ``/iexec_out`` ("" is all of it), and the callback
    data.
    """
    file = files.get(COMPUTED_NAME)
    if file is None:
        raise AppError(Cause.POST_COMPUTE_COMPUTED_FILE_NOT_FOUND, f"the iApp wrote no {COMPUTED_NAME}")
    try:
        if file.size > MAX_COMPUTED:
            raise DecodeError(f"it is larger than {MAX_COMPUTED} bytes")
        with file.open() as content:
            value = parse_json(content.read(), cap=MAX_COMPUTED)
        if not isinstance(value, dict):
            raise DecodeError("it is no object")
        data = value.get("callback-data")
        callback = None if data is None else parse_hex(data, cap=MAX_CALLBACK)
        path = value.get("deterministic-output-path", OUTPUT_DIRECTORY if callback is not None else None)
        if not isinstance(path, str):
            raise DecodeError("it has no deterministic-output-path")
    except CloisterError as error:
        raise AppError(
            Cause.POST_COMPUTE_COMPUTED_FILE_NOT_FOUND, f"{COMPUTED_NAME} cannot be used: {error.message}"
        ) from error
    return _relative(path), callback


def _relative(path: str) -> str:
    pure = PurePosixPath(path)
    if not pure.is_absolute():
        pure = PurePosixPath(OUTPUT_DIRECTORY) / pure
    if ".." in pure.parts or not pure.is_relative_to(OUTPUT_DIRECTORY):
        raise AppError(Cause.POST_COMPUTE_RESULT_FILE_NOT_FOUND, f"{quoted(path)} is not inside {OUTPUT_DIRECTORY}")
    relative = str(pure.relative_to(OUTPUT_DIRECTORY))
    return "" if relative == "." else relative


def _digest_of(path: str, files: dict[str, OutputFile]) -> Bytes32:
    """The digest of a file is its SHA-256; of a folder, that of the files directly in it (reference 5.4)."""
    if path in files:
        return Bytes32.from_raw(files[path].sha256)
    prefix = f"{path}/" if path else ""
    direct = {
        name: file.sha256 for name, file in files.items() if name.startswith(prefix) and "/" not in name[len(prefix) :]
    }
    if not direct:
        raise AppError(Cause.POST_COMPUTE_RESULT_FILE_NOT_FOUND, f"there is no {quoted(path)} in {OUTPUT_DIRECTORY}")
    return directory_digest(direct)


def write_archive(outputs: Outputs, extra: dict[str, bytes], target: IO[bytes]) -> None:
    """Write ``iexec_out.zip``: every file at its name, then what the enclave adds. Same files, same bytes."""
    files = outputs.files | {name: memory_file(name, content) for name, content in extra.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = files[name].size
            with files[name].open() as source, archive.open(entry, "w") as sink:
                while piece := source.read(_READ):
                    sink.write(piece)


def seal_archive(release: Release, archive: IO[bytes], *, entropy: Callable[[int], bytes]) -> Iterator[bytes]:
    """Close the archive as the release says: not at all, to a native key, or as iExec's clients open it.

    Raises:
        TaskError: the key is not one.
    """
    chunks = iter(lambda: archive.read(_READ), b"")
    match release.result_format:
        case ResultFormat.PLAIN:
            return chunks
        case ResultFormat.HPKE:
            return seal_result(
                _load_hpke(_public_key(release)),
                chunks,
                content_key=entropy(32),
                salt=entropy(32),
                nonce_prefix=entropy(7),
                context=release.task_id.raw,
            )
        case ResultFormat.RSA:
            return seal_result_rsa(_load_rsa(_public_key(release)), chunks, aes_key=entropy(32), iv=entropy(16))


def _public_key(release: Release) -> bytes:
    if release.result_public_key is None:
        raise TaskError(Cause.POST_COMPUTE_ENCRYPTION_PUBLIC_KEY_MISSING, "the release has no public key")
    return release.result_public_key


def _load_hpke(raw: bytes) -> HpkePublicKey:
    try:
        return HpkePublicKey(raw)
    except DecodeError as error:
        raise TaskError(Cause.POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY, error.message) from error


def _load_rsa(der: bytes) -> RSAPublicKey:
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TaskError(Cause.POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY, "the result key does not parse") from error
    if not isinstance(key, RSAPublicKey):
        raise TaskError(Cause.POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY, "the result key is not an RSA key")
    return key


def write_sealed(chunks: Iterator[bytes], path: Path) -> tuple[int, bytes]:
    """Write the sealed result to ``path``; answers with its size and SHA-256.

    Raises:
        TaskError: it cannot be sealed.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
    except (CloisterError, OSError) as error:
        reason = error.message if isinstance(error, CloisterError) else "the enclave has no room for the result"
        raise TaskError(Cause.POST_COMPUTE_ENCRYPTION_FAILED, reason) from error
    return size, digest.digest()
