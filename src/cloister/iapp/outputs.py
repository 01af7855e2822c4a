"""Results: files in ``/iexec_out``, and ``computed.json`` that says which of them all workers must agree on.

``computed.json`` is right after every call, so a result is never lost for want of it; an iApp that fails later still
fails, by its exit code. Names are checked here as the enclave checks them in the end (reference 6.1), where the mistake is.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cloister.errors import InputError, NotFound, TooLarge, quoted
from cloister.iapp.content import build_content

COMPUTED_NAME = "computed.json"
RECEIPT_NAME = "receipt.cose"
BULK_NAME = "bulk.json"
MAX_NAME = 31
"""Longest name of a result file or folder, in characters."""
MAX_DEPTH = 16
MAX_CALLBACK = 16 << 10
_PATH, _CALLBACK = "deterministic-output-path", "callback-data"
_lock = threading.Lock()


def write(name: str | os.PathLike[str], content: object) -> Path:
    """Write the result file ``name`` (folders with slashes) whole or not at all; returns where it lies.

    ``str`` is written as UTF-8, bytes as they are, a ``Path`` is the file to copy; a pandas DataFrame or pyarrow Table goes by
    the suffix ``.csv`` or ``.parquet``; anything else becomes JSON with sorted keys (dicts, lists, numbers, dataclasses,
    arrays). The first file written is the one that all workers must agree on, unless ``deterministic`` says otherwise.

    Raises:
        InputError: a name or content that cannot be a result. NotFound: ``IEXEC_OUT`` is not set.
    """
    folder = _folder()
    relative = _check_name(folder, name)
    target = folder / relative
    _write(target, build_content(str(relative), content))
    _settle(folder, relative)
    return target


def output(name: str | os.PathLike[str]) -> Path:
    """Where a library that writes its own files may write ``name``: checked, its folder made. Counts as written.

    Raises:
        InputError: a name that cannot be a result's. NotFound: ``IEXEC_OUT`` is not set.
    """
    folder = _folder()
    relative = _check_name(folder, name)
    (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    _settle(folder, relative)
    return folder / relative


def deterministic(name: str | os.PathLike[str]) -> None:
    """Say which file or folder all workers must agree on: its hash is what goes on chain. It may be written later.

    Raises:
        InputError: a name that cannot be a result's. NotFound: ``IEXEC_OUT`` is not set.
    """
    folder = _folder()
    _update(folder, {_PATH: str(folder / _check_name(folder, name))})


def callback(data: bytes | bytearray | memoryview | str) -> None:
    """Give ``data`` to the contract that the request names: bytes (as ``eth_abi.encode`` gives) or 0x-prefixed hex.

    Raises:
        InputError: neither. TooLarge: over 16 KiB. NotFound: ``IEXEC_OUT`` is not set.
    """
    raw = _parse_hex(data) if isinstance(data, str) else data
    if not isinstance(raw, (bytes, bytearray, memoryview)):
        raise InputError(f"callback data is bytes or 0x-prefixed hex, not {quoted(type(data).__name__)}")
    raw = bytes(raw)
    if len(raw) > MAX_CALLBACK:
        raise TooLarge(f"callback data of {len(raw)} bytes is over the cap of {MAX_CALLBACK}")
    _update(_folder(), {_CALLBACK: "0x" + raw.hex()})


def _parse_hex(text: str) -> bytes:
    try:
        # bytes.fromhex would skip white space.
        return bytes.fromhex(text[2:]) if text.startswith("0x") and text.isalnum() else _refuse_hex(text)
    except ValueError:
        return _refuse_hex(text)


def _refuse_hex(text: str) -> bytes:
    raise InputError(f"callback data as text is 0x-prefixed hex, got {quoted(text)}")


def _folder() -> Path:
    folder = os.environ.get("IEXEC_OUT")
    if not folder:
        raise NotFound("IEXEC_OUT is not set: this is not running as a task; set it to a folder to try")
    return Path(folder)


def _check_name(folder: Path, name: str | os.PathLike[str]) -> PurePosixPath:
    """The path of a result relative to ``folder``."""
    text: object = os.fspath(name)
    if not isinstance(text, str) or not text or text.endswith("/"):
        raise InputError(f"{quoted(text)} is not the name of a result file")
    pure = PurePosixPath(text)
    root = PurePosixPath(folder.absolute())
    if ".." in pure.parts or (pure.is_absolute() and not pure.is_relative_to(root)):
        raise InputError(f"{quoted(text)} is not inside {root}: results lie there and nowhere else")
    relative = pure.relative_to(root) if pure.is_absolute() else pure
    if not relative.parts:
        raise InputError(f"{quoted(text)} is not the name of a result file")
    if len(relative.parts) > MAX_DEPTH:
        raise InputError(f"{quoted(text)} is nested deeper than {MAX_DEPTH} folders")
    for part in relative.parts:
        if not part.isprintable() or "\\" in part:
            raise InputError(f"the name {quoted(part)} has characters that no result may have in its name")
        if len(part) > MAX_NAME:
            raise InputError(f"the name {quoted(part)} has {len(part)} characters; a result's has at most {MAX_NAME}")
    if str(relative) in _own_names():
        raise InputError(f"{relative} is a name that the enclave writes itself: choose another")
    return relative


def _own_names() -> tuple[str, ...]:
    bulk = os.environ.get("IEXEC_BULK_SLICE_SIZE") or "0"
    return (COMPUTED_NAME, RECEIPT_NAME) if bulk == "0" else (COMPUTED_NAME, RECEIPT_NAME, BULK_NAME)


def _write(target: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write beside the target and rename: a reader, or the enclave in the end, sees a whole file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{os.urandom(6).hex()}.part"
        try:
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write(chunk)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise InputError(f"{quoted(str(target))} cannot be a file: a folder or a file is in its place") from error


def _settle(folder: Path, relative: PurePosixPath) -> None:
    """Make this the deterministic output, unless there is one."""
    with _lock:
        computed = _load(folder)
        if _PATH not in computed:
            _store(folder, {**computed, _PATH: str(folder / relative)})


def _update(folder: Path, changes: dict[str, str]) -> None:
    with _lock:
        _store(folder, {**_load(folder), **changes})


def _load(folder: Path) -> dict[str, object]:
    """What ``computed.json`` says so far; it is the only memory of this module, so processes agree too."""
    try:
        computed = json.loads((folder / COMPUTED_NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{COMPUTED_NAME} is there already and is not JSON") from error
    if not isinstance(computed, dict):
        raise InputError(f"{COMPUTED_NAME} is there already and is not a JSON object")
    return computed


def _store(folder: Path, computed: dict[str, object]) -> None:
    _write(folder / COMPUTED_NAME, [json.dumps(computed, sort_keys=True).encode()])
