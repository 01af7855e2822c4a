"""Mock protected data on its way into a rehearsal: packed and sealed as ``protect_data`` does it, with throwaway keys."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from cloister.datasets.archive import Archive
from cloister.datasets.packing import pack
from cloister.errors import DecodeError, InputError, NotFound, TooLarge, quoted
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.releases import ReleasedDataset
from cloister.sealing.keys import build_content_key, generate_content_key, seal_content

JSON_CAP = 64 << 20
_PIECE = 1 << 20


def seal_mock_data(value: object, name: str, folder: Path) -> tuple[ReleasedDataset, Path]:
    """Pack and seal one protected data into ``folder``; answers with what an SMS would release of it, and the file.

    ``value``: a path (``packed_chunks`` says how it is read), or any object that can be protected.

    Raises:
        NotFound, InputError, DecodeError, TooLarge: it cannot be protected.
    """
    key = generate_content_key(os.urandom)
    path, digest = folder / f"{name}.sealed", hashlib.sha256()
    with path.open("wb") as file:
        for piece in seal_content(key, packed_chunks(value), entropy=os.urandom):
            digest.update(piece)
            file.write(piece)
    number = hashlib.sha256(f"cloister rehearsal {name}".encode()).digest()
    released = ReleasedDataset(
        address=Address("0x" + number[:20].hex()),
        multiaddr=f"/rehearsal/{name}",
        checksum=Bytes32.from_raw(digest.digest()),
        key=build_content_key(key),
        order_hash=Bytes32.from_raw(number),
    )
    return released, path


def packed_chunks(value: object) -> Iterable[bytes | bytearray | memoryview]:
    """The archive of ``value`` in chunks. A ``.zip`` is protected data already, a ``.json`` is an object; any other file or
    folder is packed as it is.
    """
    if not isinstance(value, Path):
        return pack(value).chunks
    if not value.exists():
        raise NotFound(f"there is no mock data at {quoted(str(value))}", hint="cloister iapp mock makes some")
    if value.suffix == ".zip":
        with value.open("rb") as file:
            try:
                Archive(file)
            except DecodeError as error:
                raise DecodeError(f"{quoted(str(value))} is no protected data: {error.message}") from error
        return read_pieces(value)
    if value.suffix == ".json":
        return pack(load_object(value)).chunks
    return pack(value).chunks


def load_object(path: Path, *, cap: int = JSON_CAP) -> dict[str, object]:
    """Read the object in a JSON file of at most ``cap`` bytes. Raises InputError, TooLarge."""
    if path.stat().st_size > cap:
        raise TooLarge(f"{quoted(str(path))} is larger than {cap} bytes")
    try:
        value = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{quoted(str(path))} is not JSON") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{quoted(str(path))} holds no object", hint='protected data is like {"email": "ada@example.org"}'
        )
    return value


def read_pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def find_path(given: str, folder: Path) -> Path:
    """A path as people write it: in ``folder``, or else from where they are. Raises NotFound."""
    for place in (folder / given, Path(given)):
        if place.exists():
            return place.resolve()
    raise NotFound(f"there is no {quoted(given)}", hint=f"looked in {folder} and here")


def input_location(number: int, path: Path) -> str:
    """The address under which a rehearsal serves a local input file; no such host will ever be."""
    return f"https://rehearsal.invalid/{number}/{quote(path.name)}"
