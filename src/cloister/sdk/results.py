"""Opening results: download, decrypt with the requester's key, read the files, verify the receipt."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from cloister.datasets.archive import Archive
from cloister.errors import NotFound, VerificationError

RECEIPT_NAME = "receipt.cose"
IN_MEMORY = 8 << 20
"""Opened results up to this size stay in memory; larger ones lie in an unnamed temporary file, bytes."""
PIECE = 1 << 20
RESULT_CAP = 8 << 30
"""Largest sealed result that is downloaded, bytes."""


class Result:
    """An opened result: the files that the iApp wrote, and the receipt."""

    def __init__(self, chunks: Iterable[bytes], *, encrypted: bool) -> None:
        """Take the plaintext ZIP as chunks."""
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  (lives as long as the result)
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > RESULT_CAP:
                raise VerificationError(f"the result is larger than {RESULT_CAP} bytes")
            self._file.write(chunk)
        self._archive = Archive(self._file)
        self.encrypted = encrypted
        """Whether it travelled encrypted."""

    def names(self) -> list[str]:
        """Names of the files, receipt excluded."""
        return [name for name in self._archive.names() if name != RECEIPT_NAME]

    def read(self, name: str) -> bytes:
        """One file's bytes.

        Raises:
            NotFound: the result holds no such file.
        """
        try:
            return self._archive.read(name)
        except NotFound:
            raise NotFound(
                f'no "{name}" file found in the result', hint=f"it holds: {', '.join(self.names())}"
            ) from None

    def save(self, folder: Path) -> list[Path]:
        """Write all files and the receipt under ``folder``; returns their paths. Files of the same name are replaced."""
        written = []
        for name in self._archive.names():
            if name.endswith("/"):
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._archive.open(name) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, PIECE)
            written.append(path)
        return written
