"""The schema of protected data: a map of names to types, nested like the data.

    {"email": "string", "photos": {"cat": "image/png"}}      on the chain as compact JSON
    ["email:string", "photos.cat:image/png"]                 in the indexer

Types are those of iExec's DataProtector: bool, f64, i128, string (borsh), a media type for files, and boolean and
number from its older releases. Source: reference, DataProtector's data packing; subgraph SchemaEntry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from cloister.errors import DecodeError, InputError, TooLarge, quoted

Schema = dict[str, Any]
"""Name -> type (str) or nested Schema."""

VALUE_TYPES = frozenset({"bool", "f64", "i128", "string"})
LEGACY_TYPES = frozenset({"boolean", "number"})
OCTET_STREAM = "application/octet-stream"
MEDIA_TYPES = frozenset(
    {
        OCTET_STREAM,
        "application/pdf",
        "application/xml",
        "application/zip",
        "audio/midi",
        "audio/mpeg",
        "audio/x-wav",
        "image/bmp",
        "image/gif",
        "image/jpeg",
        "image/png",
        "image/webp",
        "video/mp4",
        "video/mpeg",
        "video/x-msvideo",
    }
)
INDEXED_TYPES = VALUE_TYPES | LEGACY_TYPES | MEDIA_TYPES

MAX_DEPTH = 64
"""Deepest nesting of a schema, and of the data under it."""
MAX_SCHEMA_TEXT = 1 << 20

HEAD_SIZE = 16
"""Bytes of a file that its media type is told from."""

_KEY = re.compile(r"[a-zA-Z0-9\-_]+", re.ASCII)
_NO_KEY = re.compile(r"[^a-zA-Z0-9\-_]", re.ASCII)
_MAGIC = (
    (b"%PDF", "application/pdf"),
    (b"<?xml ", "application/xml"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"PK\x07\x08", "application/zip"),
    (b"MThd", "audio/midi"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
)
_OTHER_BRANDS = (b"qt  ", b"heic", b"mif1", b"avif")
"""QuickTime and pictures: they share MP4's container."""
_RIFF = {b"WAVE": "audio/x-wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}


def detect_media_type(head: bytes) -> str:
    """Media type of a file from its first ``HEAD_SIZE`` bytes; octet-stream when none is known."""
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return _RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return OCTET_STREAM if head[8:12] in _OTHER_BRANDS else "video/mp4"
    return next((media for magic, media in _MAGIC if head.startswith(magic)), OCTET_STREAM)


def verify_key(key: object) -> str:
    """Give back a name of a data entry when it may be one. Raises InputError with the reference client's text."""
    if not isinstance(key, str):
        raise InputError(f"data is not valid: Unsupported key {quoted(key)}: names are strings")
    if key == "":
        raise InputError("data is not valid: Unsupported empty key")
    if not _KEY.fullmatch(key):
        raise InputError(
            "data is not valid: Unsupported special character in key",
            hint=f"{quoted(key)}: use letters, digits, '-' and '_'",
        )
    return key


def schema_name(part: str) -> str:
    """A file's name in a schema: ``table.parquet`` is ``table``, ``my photo.jpg`` is ``my_photo_jpg``."""
    return _NO_KEY.sub("_", part.removesuffix(".parquet") or part)


def build_schema(schema: Schema) -> str:
    """Write a schema as the compact JSON text that goes on the chain; names keep their order."""
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def parse_schema(text: str) -> Schema:
    """Read a schema from the chain.

    Unknown types and names are kept: the chain takes any text. Raises DecodeError when it is not a map of names to
    types, is nested deeper than 64, or repeats a name; TooLarge over 1 MiB.
    """
    if len(text) > MAX_SCHEMA_TEXT:
        raise TooLarge(f"a schema is at most {MAX_SCHEMA_TEXT} characters, not {len(text)}")
    if _nesting(text) > MAX_DEPTH:
        raise DecodeError(f"the schema is nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise DecodeError(f"the schema is not JSON: {quoted(text)}") from error
    _require_map(value)
    schema: Schema = value
    return schema


def _nesting(text: str) -> int:
    # Looked at before the JSON parser, which would run out of stack on 10^5 brackets.
    depth = deepest = 0
    for bracket in re.findall(r"[\[{}\]]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DecodeError("the schema repeats a name")
    return found


def _require_map(value: object) -> None:
    if not isinstance(value, dict):
        raise DecodeError(f"a schema maps names to types, this is {quoted(value)}")
    for item in value.values():
        if not isinstance(item, str):
            _require_map(item)


def schema_leaves(schema: Schema, prefix: str = "", depth: int = 1) -> Iterator[tuple[str, str]]:
    """Yield (dotted path, type) of every entry, in order. Raises InputError deeper than 64."""
    if depth > MAX_DEPTH:
        raise InputError(f"the schema is nested deeper than {MAX_DEPTH}")
    for key, item in schema.items():
        path = f"{prefix}{key}"
        if isinstance(item, str):
            yield path, item
        else:
            yield from schema_leaves(item, f"{path}.", depth + 1)


def schema_entries(schema: Schema) -> list[str]:
    """The entries that an indexer files under, "path:type"; leaves out unknown types and names outside the charset."""
    return [
        f"{path}:{kind}"
        for path, kind in schema_leaves(schema)
        if kind in INDEXED_TYPES and all(_KEY.fullmatch(part) for part in path.split("."))
    ]
