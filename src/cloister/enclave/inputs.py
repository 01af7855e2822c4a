"""Inputs: fetched through the host, proved by hash, opened inside the enclave only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from cloister.attestation.issuance import InputDigest
from cloister.enclave.bundle import BLOCK, Bundle, unpack_bundle
from cloister.enclave.causes import AppError, Cause, TaskError
from cloister.enclave.environment import input_file_name
from cloister.enclave.host import Fetched, HostChannel, HostRefused
from cloister.enclave.images.archive import MAX_ARCHIVE, looks_like_archive
from cloister.enclave.images.image import Image, unpack_image
from cloister.errors import CloisterError, InputError, NotFound, RemoteError, UnavailableError, VerificationError
from cloister.protocol.codec import Bytes32
from cloister.protocol.params import RequestParams
from cloister.protocol.releases import Release, ReleasedDataset
from cloister.sealing.checksum import verify_checksum
from cloister.sealing.keys import ContentFormat, ContentKey, open_content, parse_content_key
from cloister.sealing.private_files import open_private_file, parse_private_key

MAX_DATASET = 64 << 30
MAX_INPUT_FILE = 1 << 30
_SECONDS = 3600.0
_INPUT_SECONDS = 600.0
_READ = 1 << 20
INPUT_FILE_REFUSALS = frozenset({"not-found", "too-large", "private-address", "invalid-input", "input-file-refused"})
"""What a host answers of a file that it will not get the next time either."""


def fetch_app(host: HostChannel, location: str, digest: Bytes32, staging: Path) -> Bundle | Image:
    """Fetch and unpack the app, a bundle or the archive of a container image.

    Raises:
        TaskError: it cannot be had, or is not the app of ``digest``.
    """
    fetched = host.fetch(location, purpose="app", max_bytes=MAX_ARCHIVE, seconds=_SECONDS)
    try:
        # Which of the two is decided by the first bytes; a digest proves either.
        start, chunks = _begin(fetched, BLOCK)
        if looks_like_archive(start):
            return unpack_image(chunks, staging, expected_digest=digest.raw)
        return unpack_bundle(chunks, staging, expected_digest=digest.raw)
    except UnavailableError as error:
        raise TaskError(Cause.APP_IMAGE_DOWNLOAD_FAILED, _with_code(error)) from error
    except (RemoteError, InputError, NotFound) as error:
        raise TaskError(Cause.APP_IMAGE_REFUSED, _with_code(error)) from error
    except OSError as error:
        raise TaskError(Cause.APP_IMAGE_DOWNLOAD_FAILED, "the enclave has no room for the app") from error


def _with_code(error: CloisterError) -> str:
    """What is wrong with an image, by its name too: the cause is the same for all."""
    return f"{error.code}: {error.message}" if error.code.startswith("image-") else error.message


def _begin(chunks: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first ``size`` bytes, and all of them from the start."""
    source, held = iter(chunks), b""
    for chunk in source:
        held += chunk
        if len(held) >= size:
            break
    return held[:size], chain([held] if held else [], source)


def fetch_dataset(
    host: HostChannel,
    dataset: ReleasedDataset,
    directory: Path,
    name: str,
    *,
    seconds: float = _SECONDS,
    ahead: tuple[str, ...] = (),
) -> InputDigest:
    """Fetch, check and open protected data into ``directory/name``.

    Content in iExec's format proves nothing by itself, so all of the ciphertext is checked before any is opened. Native
    content is proved segment by segment and opened as it comes, and its checksum is settled before anyone uses it. Of
    data that fails nothing is left in ``directory``, and the channel is ready for the next question.

    Raises:
        TaskError: with the named cause. Where the ciphertext is the published one and still does not open, that is
        ``PRE_COMPUTE_DATASET_DECRYPTION_FAILED``: a host cannot choose such a ciphertext, so this tells it nothing.
    """
    key = parse_key(dataset)
    fetched = host.fetch(dataset.multiaddr, purpose="dataset", max_bytes=MAX_DATASET, seconds=seconds, ahead=ahead)
    path, sealed = directory / name, directory.parent / "dataset.sealed"
    try:
        digest = _open(fetched, key, dataset, path, sealed)
    except (CloisterError, OSError) as error:
        path.unlink(missing_ok=True)
        fetched.drain()
        raise _dataset_error(error) from error
    finally:
        sealed.unlink(missing_ok=True)
        key.wipe()
    return InputDigest(name, digest)


def _open(fetched: Fetched, key: ContentKey, dataset: ReleasedDataset, path: Path, sealed: Path) -> bytes:
    """Write the plaintext to ``path``; answers with its SHA-256."""
    checked = verify_checksum(fetched, dataset.checksum.raw, max_size=MAX_DATASET)
    if key.format is not ContentFormat.AES256_GCM_HKDF_1MB:
        _write(sealed, (bytes(chunk) for chunk in checked))
        with sealed.open("rb") as file:
            return _write(path, open_content(key, iter(lambda: file.read(_READ), b"")))
    try:
        return _write(path, open_content(key, checked))
    finally:
        # Whatever follows the last segment belongs to the checksum too; and a wrong checksum is the better reason.
        for _ in checked:
            pass


def _dataset_error(error: CloisterError | OSError) -> TaskError:
    match error:
        case OSError():
            return TaskError(Cause.PRE_COMPUTE_SAVING_PLAIN_DATASET_FAILED, "the enclave has no room for the data")
        case VerificationError(code="checksum-mismatch"):
            return TaskError(
                Cause.PRE_COMPUTE_INVALID_DATASET_CHECKSUM, "the protected data is not what its checksum says"
            )
        case VerificationError() | InputError():
            return TaskError(
                Cause.PRE_COMPUTE_DATASET_DECRYPTION_FAILED, "the protected data does not open with its key"
            )
        case HostRefused(code=UnavailableError.code):
            return TaskError(Cause.PRE_COMPUTE_DATASET_DOWNLOAD_FAILED, error.message, may_pass=True)
        case _:
            return TaskError(Cause.PRE_COMPUTE_DATASET_DOWNLOAD_FAILED, error.message)


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


def load_input_key(release: Release, params: RequestParams) -> ContentKey | None:
    """The key that opens the request's input files; None when they are public.

    Raises:
        AppError: the request names one that it did not give, or that is none. The message repeats nothing of it.
    """
    number = params.cloister_input_key
    if number is None:
        return None
    cause = Cause.PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED
    text = release.requester_secrets.get(str(number))
    if text is None:
        raise AppError(cause, f"secret {number}, the key of the private input files, was not given")
    try:
        return parse_private_key(text)
    except InputError as error:
        raise AppError(cause, f"secret {number} is no key for private input files") from error


def fetch_input_file(
    host: HostChannel,
    url: str,
    directory: Path,
    *,
    number: int = 1,
    key: ContentKey | None = None,
    seconds: float = _INPUT_SECONDS,
    ahead: tuple[str, ...] = (),
) -> InputDigest:
    """Fetch input file ``number`` (from 1) of the request into ``directory``. With a ``key`` it is private: opened as it
    comes, proved segment by segment. Nothing proves the content of a public one. The receipt holds the hash of the file as
    the iApp finds it.

    Raises:
        AppError: there is no such file for anyone: the requester named one that is missing, too large or not public; or a
            private one does not open. TaskError: it did not come this time.
    """
    name = input_file_name(url)
    fetched = host.fetch(url, purpose="input", max_bytes=MAX_INPUT_FILE, seconds=seconds, ahead=ahead)
    content = fetched if key is None else open_private_file(key, number, fetched)
    cause = Cause.PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED
    try:
        return InputDigest(name, _write(directory / name, content))
    except VerificationError as error:
        (directory / name).unlink()
        fetched.drain()
        message = f"input file {number} does not open with the request's key"
        raise AppError(Cause.PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED, message) from error
    except HostRefused as error:
        if error.code in INPUT_FILE_REFUSALS:
            raise AppError(cause, error.message) from error
        raise TaskError(cause, error.message) from error
    except (RemoteError, UnavailableError) as error:
        raise TaskError(cause, error.message) from error
    except OSError as error:
        raise TaskError(cause, "the enclave has no room for an input file") from error


def _write(path: Path, chunks: Iterable[bytes]) -> bytes:
    """Write ``chunks`` to a new file; answers with their SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
    path.chmod(0o444)
    return digest.digest()
