"""Results: what a worker commits to, what the enclave signs, and where a result lies (reference 5.3, 5.4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import Address, Bytes32, keccak256, parse_json

RESULTS_CAP: Final = 4 * 1024
"""Longest ``results`` that is read, in bytes."""


def result_hash(task_id: Bytes32, digest: Bytes32) -> Bytes32:
    """Return what workers compare: ``keccak256(task id || digest)``."""
    return Bytes32.from_raw(keccak256(task_id.raw + digest.raw))


def result_seal(worker: Address, task_id: Bytes32, digest: Bytes32) -> Bytes32:
    """Return what proves that this worker knew the digest: ``keccak256(worker || task id || digest)``."""
    return Bytes32.from_raw(keccak256(worker.raw + task_id.raw + digest.raw))


def enclave_message(hashed: Bytes32, seal: Bytes32) -> bytes:
    """Return the 32 bytes that the enclave key personal_signs: ``keccak256(result hash || result seal)``."""
    return keccak256(hashed.raw + seal.raw)


def file_digest(chunks: Iterable[bytes]) -> Bytes32:
    """Return the digest of a result that is one file: its SHA-256, streamed."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return Bytes32.from_raw(digest.digest())


def directory_digest(files: Mapping[str, bytes]) -> Bytes32:
    """Return the digest of a result that is a directory.

    ``files`` maps the name of each direct file (directories inside are not looked at) to its SHA-256; the digest is
    keccak256 of these in the order of the names.

    Raises:
        InputError: no files, or a digest that has not 32 bytes.
    """
    if not files:
        raise InputError("a result directory without files has no digest")
    if any(len(digest) != 32 for digest in files.values()):
        raise InputError("a file digest has 32 bytes")
    return Bytes32.from_raw(keccak256(b"".join(files[name] for name in sorted(files))))


def callback_digest(callback_data: bytes) -> Bytes32:
    """Return the digest of a result that goes to a contract: keccak256 of the bytes the contract receives."""
    return Bytes32.from_raw(keccak256(callback_data))


@dataclass(frozen=True, slots=True)
class ResultsLocation:
    """Where a result lies: ``ipfs``, ``dropbox``, ``ethereum``, or ``none`` when nothing readable was said."""

    storage: str
    location: str | None = None


def build_results_location(storage: str, location: str) -> bytes:
    """Write ``task.results`` with the very spaces that iExec's worker writes."""
    if not storage or not location:
        raise InputError("a results location names a storage and a location")
    return f'{{ "storage": {json.dumps(storage)}, "location": {json.dumps(location)} }}'.encode()


def parse_results_location(results: bytes) -> ResultsLocation:
    """Read ``task.results``; empty or unreadable results mean storage ``none``, as iExec's clients have it.

    A worker wrote them, and a task is no less final for being badly described.
    """
    if not results or len(results) > RESULTS_CAP:
        return ResultsLocation("none")
    try:
        value = parse_json(results)
    except DecodeError:
        return ResultsLocation("none")
    if not isinstance(value, dict) or not isinstance(value.get("storage"), str):
        return ResultsLocation("none")
    location = value.get("location")
    return ResultsLocation(value["storage"], location if isinstance(location, str) else None)


def downloadable_location(results: ResultsLocation) -> str:
    """Return the location of a result that can be fetched from IPFS.

    Raises:
        InputError: nothing was uploaded, another storage, or no location (iExec's texts).
    """
    if results.storage == "none":
        raise InputError("No result uploaded for this task")
    if results.storage != "ipfs":
        raise InputError(f"Task result stored on {quoted(results.storage)}, download not supported")
    if not results.location:
        raise InputError("Missing location key in task results, download not supported")
    return results.location
