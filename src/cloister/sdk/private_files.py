"""Files that only the enclave may read: sealed here, stored like any content, their key a requester secret.

Every request has a key of its own, so what was sealed for one task opens in no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cloister.errors import InputError, NotFound, TooLarge, quoted
from cloister.protocol.params import INPUT_FILE_CAP, INPUT_FILES_CAP
from cloister.sdk.connection import Connection
from cloister.sdk.progress import Listener, Progress, counted
from cloister.sealing.keys import ContentFormat, build_content_key, generate_content_key, sealed_content_size
from cloister.sealing.pipeline import run_ahead
from cloister.sealing.private_files import seal_private_file

PrivateFile = Path | str | bytes | bytearray | memoryview
"""A file by its path, or the content itself."""
_READ = 1 << 20


class PrivateFiles:
    """Seals and stores the private files of one request."""

    def __init__(self, connection: Connection, listener: Listener) -> None:
        self._connection = connection
        self._tell = listener

    def send(self, files: Sequence[PrivateFile]) -> tuple[tuple[str, ...], str]:
        """Seal and upload ``files`` in constant memory: (their URLs in the same order, the text of their key).

        Raises:
            NotFound, InputError: no such file. TooLarge: one that no worker would fetch, or too many.
            UnavailableError: storage is down.
        """
        if isinstance(files, (str, bytes, bytearray, memoryview, Path)):
            raise InputError("private_files is a list of paths or of bytes", hint="private_files=[Path('data.csv')]")
        if len(files) > INPUT_FILES_CAP:
            raise TooLarge(f"{len(files)} private files are over the cap of {INPUT_FILES_CAP}")
        sizes = [_check_size(number, file) for number, file in enumerate(files, start=1)]
        key = generate_content_key(os.urandom)
        gateway = self._connection.network.services.gateway.rstrip("/")
        urls = []
        for number, (file, size) in enumerate(zip(files, sizes, strict=True), start=1):
            sealed = run_ahead(seal_private_file(key, number, _chunks(file), entropy=os.urandom))
            stored = self._connection.store.put(counted(sealed, "UPLOAD_PRIVATE_FILE", size, self._tell))
            self._tell(Progress("UPLOAD_PRIVATE_FILE", finished=True, detail=str(stored.cid)))
            urls.append(f"{gateway}/ipfs/{stored.cid}")
        text = build_content_key(key)
        key.wipe()
        return tuple(urls), text


def _check_size(number: int, file: PrivateFile) -> int:
    """Bytes that the file takes once sealed."""
    if isinstance(file, (bytes, bytearray, memoryview)):
        plain, shown = memoryview(file).nbytes, f"private file {number}"
    elif isinstance(file, (str, Path)):
        path, shown = Path(file), f"private file {quoted(str(file))}"
        if path.is_dir():
            raise InputError(f"{shown} is a folder", hint="give its files, or an archive of them")
        if not path.is_file():
            raise NotFound(f"{shown} is not there")
        plain = path.stat().st_size
    else:
        raise InputError(f"private file {number} is a path or bytes, not {quoted(type(file).__name__)}")
    size = sealed_content_size(ContentFormat.AES256_GCM_HKDF_1MB, plain)
    if size > INPUT_FILE_CAP:
        raise TooLarge(
            f"{shown} is {size} bytes once sealed; workers fetch at most {INPUT_FILE_CAP}",
            hint="protect larger data: cloister data protect",
        )
    return size


def _chunks(file: PrivateFile) -> Iterable[bytes | memoryview]:
    if isinstance(file, (bytes, bytearray, memoryview)):
        return (memoryview(file).cast("B"),)
    return _read(Path(file))


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as opened:
            while piece := opened.read(_READ):
                yield piece
    except OSError as error:
        raise InputError(f"private file {quoted(str(path))} cannot be read") from error
