"""Inputs: fetched through the host, proved by hash, opened inside the enclave only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cloister.attestation.issuance import InputDigest
from cloister.enclave.bundle import MAX_BUNDLE, Bundle, unpack_bundle
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.environment import input_file_name
from cloister.enclave.host import HostChannel
from cloister.errors import CloisterError, DecodeError, InputError, RemoteError, UnavailableError, VerificationError
from cloister.protocol.codec import Bytes32
from cloister.protocol.releases import ReleasedDataset
from cloister.sealing.checksum import verify_checksum
from cloister.sealing.keys import ContentFormat, ContentKey, open_content, parse_content_key

MAX_DATASET = 64 << 30
MAX_INPUT_FILE = 1 << 30
_SECONDS = 3600.0
_INPUT_SECONDS = 600.0
_READ = 1 << 20


def fetch_bundle(host: HostChannel, location: str, digest: Bytes32, staging: Path) -> Bundle:
    """Fetch and unpack the app.

    Raises:
        TaskError: it cannot be had, or is not the app of ``digest``.
    """
    chunks = host.fetch(location, purpose="app", max_bytes=MAX_BUNDLE, seconds=_SECONDS)
    try:
        return unpack_bundle(chunks, staging, expected_digest=digest.raw)
    except UnavailableError as error:
        raise TaskError(Cause.APP_IMAGE_DOWNLOAD_FAILED, error.message) from error
    except (RemoteError, InputError) as error:
        raise TaskError(Cause.APP_IMAGE_REFUSED, error.message) from error


def fetch_dataset(host: HostChannel, dataset: ReleasedDataset, directory: Path, name: str) -> InputDigest:
    """Fetch, check and open protected data into ``directory/name``.

    Content in iExec's format proves nothing by itself, so all of the ciphertext is checked first; to tell a padding
    fault from a checksum fault would make the host an oracle. Native content is proved segment by segment and opened
    as it comes, and its checksum is settled before anyone uses it.

    Raises:
        TaskError: with the named cause.
    """
    path = directory / name
    key = parse_key(dataset)
    fetched = host.fetch(dataset.multiaddr, purpose="dataset", max_bytes=MAX_DATASET, seconds=_SECONDS)
    checked = verify_checksum(fetched, dataset.checksum.raw, max_size=MAX_DATASET)
    sealed = directory.parent / "dataset.sealed"
    try:
        if key.format is ContentFormat.AES256_GCM_HKDF_1MB:
            digest = _write(path, open_content(key, checked))
            # Whatever follows the last segment belongs to the checksum too.
            for _ in checked:
                pass
        else:
            _write(sealed, (bytes(chunk) for chunk in checked))
            with sealed.open("rb") as file:
                digest = _write(path, open_content(key, iter(lambda: file.read(_READ), b"")))
    except UnavailableError as error:
        raise TaskError(Cause.PRE_COMPUTE_DATASET_DOWNLOAD_FAILED, error.message) from error
    except DecodeError as error:
        raise TaskError(Cause.PRE_COMPUTE_DATASET_DOWNLOAD_FAILED, error.message) from error
    except VerificationError as error:
        raise TaskError(
            Cause.PRE_COMPUTE_INVALID_DATASET_CHECKSUM, "the protected data is not what its checksum and key say"
        ) from error
    except OSError as error:
        raise TaskError(Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE, "the enclave has no room for the data") from error
    finally:
        sealed.unlink(missing_ok=True)
        key.wipe()
    return InputDigest(name, digest)


def parse_key(dataset: ReleasedDataset) -> ContentKey:
    """Read the data key of a release.

    Raises:
        TaskError: it is not one. The message repeats nothing of it.
    """
    try:
        return parse_content_key(dataset.key)
    except CloisterError as error:
        raise TaskError(
            Cause.PRE_COMPUTE_DATASET_DECRYPTION_FAILED, "the key of the protected data is malformed"
        ) from error


def fetch_input_file(host: HostChannel, url: str, directory: Path) -> InputDigest:
    """Fetch a public input file into ``directory``. Nothing proves its content; the receipt holds its hash.

    Raises:
        TaskError: it cannot be had.
    """
    name = input_file_name(url)
    path = directory / name
    if path.exists():
        # The same URL twice is one file.
        return InputDigest(name, _hash(path))
    try:
        digest = _write(path, host.fetch(url, purpose="input", max_bytes=MAX_INPUT_FILE, seconds=_INPUT_SECONDS))
    except (RemoteError, UnavailableError, OSError) as error:
        message = error.message if isinstance(error, CloisterError) else "the enclave has no room for an input file"
        raise TaskError(Cause.PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED, message) from error
    return InputDigest(name, digest)


def _write(path: Path, chunks: Iterable[bytes]) -> bytes:
    """Write ``chunks`` to a new file; answers with their SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    path.chmod(0o444)
    return digest.digest()


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
