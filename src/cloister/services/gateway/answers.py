"""How content leaves the gateway: whole, in part, as a listing or as blocks (IPFS path gateway specification)."""

from __future__ import annotations

import html
import json
import mimetypes
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from fastapi import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cloister.errors import InputError
from cloister.services.failures import CarriedError
from cloister.services.gateway.car import build_car
from cloister.storage.local import LocalStore
from cloister.storage.reading import Entry, read_file

_IMMUTABLE: Final = "public, max-age=29030400, immutable"
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_SAFE_NAME: Final = re.compile(r"[^\w.()+ -]", re.ASCII)


def ndjson(rows: Iterable[dict[str, str]]) -> Response:
    """One JSON object a line."""
    body = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
    return Response(body, media_type="application/json", headers={"x-chunked-output": "1"})


def block_response(store: LocalStore, entry: Entry) -> Response:
    """The bytes of one block."""
    headers = {
        "content-disposition": f'attachment; filename="{entry.cid}.bin"',
        "etag": f'"{entry.cid}.raw"',
        "cache-control": _IMMUTABLE,
    }
    return Response(store.get_block(entry.cid), media_type="application/vnd.ipld.raw", headers=headers)


def content_response(
    store: LocalStore, entry: Entry, request: Request, reference: str, *, form: str, filename: str, download: bool
) -> Response:
    """Answer a GET or HEAD under ``/ipfs``.

    Raises:
        InputError: an unknown ``format``.
        CarriedError: 416 for a range outside the file.
        VerificationError, UnavailableError: from the store.
    """
    if form not in ("", "raw", "car", "json"):
        raise InputError(f"format {form!r} is not supported", hint="raw, car or json")
    tag = f'"{entry.cid}"' if not form else f'"{entry.cid}.{form}"'
    headers = {
        "etag": tag,
        "cache-control": _IMMUTABLE,
        "x-ipfs-path": "/ipfs/" + quote(reference),
        "x-ipfs-roots": str(entry.cid),
        "vary": "accept",
    }
    if _matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    if form == "raw":
        response = block_response(store, entry)
        response.headers.update(headers)
        return response
    if form == "car":
        headers["content-disposition"] = f'attachment; filename="{entry.cid}.car"'
        media_type = "application/vnd.ipld.car; version=1; order=dfs; dups=n"
        chunks = iter(()) if request.method == "HEAD" else build_car(store, entry.cid)
        return StreamingResponse(chunks, media_type=media_type, headers=headers)
    if entry.is_directory:
        return _listing(entry, reference, headers, form)
    name = filename or reference.rpartition("/")[2]
    if filename or download:
        safe = _SAFE_NAME.sub("_", name) or "file"
        headers["content-disposition"] = f'{"attachment" if download else "inline"}; filename="{safe}"'
    return _file(store, entry, request, name, headers)


def _matches(header: str | None, tag: str) -> bool:
    if header is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in tags or "*" in tags


def _file(store: LocalStore, entry: Entry, request: Request, name: str, headers: dict[str, str]) -> Response:
    start, end, status = 0, entry.size, 200
    wanted = request.headers.get("range")
    condition = request.headers.get("if-range")
    if wanted is not None and (condition is None or condition == headers["etag"]):
        found = parse_range(wanted, entry.size)
        if found is not None:
            (start, end), status = found, 206
            headers["content-range"] = f"bytes {start}-{end - 1}/{entry.size}"
    headers |= {
        "accept-ranges": "bytes",
        "content-length": str(end - start),
        # No script, form or frame of uploaded content acts in this origin's name.
        "content-security-policy": "sandbox; default-src 'self' data: 'unsafe-inline'; script-src 'none'",
    }
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    chunks = iter(()) if request.method == "HEAD" else read_file(store, entry, offset=start, length=end - start)
    return StreamingResponse(chunks, status_code=status, media_type=media_type, headers=headers)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Turn a Range header into start and end, or ``None`` to answer with everything (RFC 9110 section 14.2).

    Only one range is understood; several, or other units, are ignored as the RFC allows.

    Raises:
        CarriedError: 416, the range lies outside.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), size if not last else min(int(last) + 1, size)
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        error = InputError(f"range lies outside content of {size} bytes", code="range-not-satisfiable")
        raise CarriedError(416, error, headers={"content-range": f"bytes */{size}"})
    return start, end


def _listing(entry: Entry, reference: str, headers: dict[str, str], form: str) -> Response:
    if form == "json":
        rows = [{"name": link.name, "cid": str(link.cid), "total_size": link.total_size} for link in entry.links]
        return JSONResponse({"cid": str(entry.cid), "entries": rows}, headers=headers)
    headers |= {
        # Paths below are relative to this page's own, whatever slash it was asked with.
        "content-security-policy": "sandbox allow-top-navigation; default-src 'none'; style-src 'unsafe-inline'",
        "etag": f'"dir-{entry.cid}"',
    }
    title = html.escape(f"/ipfs/{reference}")
    return Response("".join(_page(entry, reference, title)), media_type="text/html", headers=headers)


def _page(entry: Entry, reference: str, title: str) -> Iterator[str]:
    yield f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1><table>"
    base = "/ipfs/" + quote(reference.rstrip("/"))
    for link in entry.links:
        place = f"{base}/{quote(link.name, safe='')}"
        yield f'<tr><td><a href="{place}">{html.escape(link.name)}</a><td>{link.total_size}<td>{link.cid}'
    yield "</table>"
