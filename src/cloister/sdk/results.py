"""Opening results: download, decrypt with the requester's key, read the files, verify the receipt."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cloister.datasets.archive import Archive
from cloister.errors import DecodeError, NotFound, VerificationError
from cloister.protocol.codec import Address, check_keys, parse_address, parse_json, parse_text, parse_uint

BULK_NAME = "bulk.json"
BULK_REPORT_CAP = 1 << 20
RECEIPT_NAME = "receipt.cose"
COMPUTED_NAME = "computed.json"
ERROR_NAME = "error.txt"
ERROR_CAP = 64 << 10
_ERROR = re.compile(r"\[IEXEC\] Errors occurred while computing the task \[error:\w+, causes:\[(?P<cause>\w+)\]\]\s*")
"""What an enclave writes of an app that failed (reference 6.1)."""
IN_MEMORY = 8 << 20
"""Opened results up to this size stay in memory; larger ones lie in an unnamed temporary file, bytes."""
PIECE = 1 << 20
RESULT_CAP = 8 << 30
"""Largest sealed result that is downloaded, bytes."""


@dataclass(frozen=True, slots=True)
class BulkItem:
    """What became of one protected data of a bulk slice. ``index`` counts from 1, as the iApp's variables do."""

    index: int
    protected_data: Address
    ok: bool
    cause: str | None = None
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an app failed: the named cause (``APP_COMPUTE_TIMEOUT``, …) and the enclave's own words."""

    cause: str
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


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

    def failure(self) -> Failure | None:
        """Why the app failed, where it did: the enclave then writes ``error.txt`` in place of all that the app wrote.

        The receipt has the same cause, signed.
        """
        if ERROR_NAME not in self._archive.names():
            return None
        found = _ERROR.fullmatch(self.read(ERROR_NAME)[:ERROR_CAP].decode(errors="replace"))
        if found is None:
            return None
        try:
            computed = parse_json(self.read(COMPUTED_NAME), cap=ERROR_CAP)
        except (DecodeError, NotFound):
            return None
        message = computed.get("error-message") if isinstance(computed, dict) else None
        return Failure(found["cause"], message if isinstance(message, str) else None)

    def bulk_items(self) -> tuple[BulkItem, ...]:
        """What became of each protected data of a bulk task, as its enclave reports it.

        Raises:
            NotFound: the task was no bulk task. DecodeError: the report does not read.
        """
        try:
            raw = self._archive.read(BULK_NAME)
        except NotFound:
            raise NotFound("this result is of no bulk task", hint="read() gives its files") from None
        value = parse_json(raw, cap=BULK_REPORT_CAP)
        if not isinstance(value, list):
            raise DecodeError(f"{BULK_NAME} is no list")
        return tuple(_parse_item(item) for item in value)

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


def open_rsa(chunks: Iterable[bytes], pem_private_key: str) -> Iterator[bytes]:
    """Open a result that is sealed as iExec's clients open it; yields the plaintext ZIP.

    Raises:
        InputError: the key is none. DecodeError, VerificationError: the result is not one sealed to it.
    """
    from cloister.sealing.rsa_results import open_result_rsa, parse_result_private_key

    key = parse_result_private_key(pem_private_key)
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as sealed:
        size = 0
        for chunk in chunks:
            size += len(chunk)
            if size > RESULT_CAP:
                raise VerificationError(f"the result is larger than {RESULT_CAP} bytes")
            sealed.write(chunk)
        sealed.seek(0)
        yield from open_result_rsa(key, sealed)


def _parse_item(value: object) -> BulkItem:
    given = check_keys("bulk item", value, required=("index", "dataset", "status"), optional=("cause", "message"))
    if given["status"] not in ("ok", "failed"):
        raise DecodeError("bulk item: status is neither ok nor failed")
    texts = [
        None if given.get(name) is None else parse_text(name, given[name], cap=1024) for name in ("cause", "message")
    ]
    return BulkItem(
        parse_uint("index", given["index"]),
        parse_address("dataset", given["dataset"]),
        given["status"] == "ok",
        *texts,
    )
