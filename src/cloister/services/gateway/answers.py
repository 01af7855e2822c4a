"""How content leaves the gateway: whole, in part, as a page, or as blocks (IPFS path gateway specification)."""

from __future__ import annotations

import hashlib
import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from fastapi import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from cloister.errors import InputError, quoted
from cloister.services.failures import CarriedError
from cloister.services.gateway.car import Scope, build_car
from cloister.services.gateway.dagjson import describe_block
from cloister.services.gateway.pages import build_page
from cloister.services.gateway.streams import ContentStream, begun
from cloister.services.gateway.tarball import build_tar
from cloister.storage.cid import Cid
from cloister.storage.content import parse_reference
from cloister.storage.local import LocalStore
from cloister.storage.reading import Entry, find_entry, read_file

_IMMUTABLE: Final = "public, max-age=29030400, immutable"
_RENDERED: Final = "public, max-age=604800, stale-while-revalidate=2678400"
"""For pages, whose look may change with a release, and as Kubo has it."""

_INDEX: Final = "index.html"
_RANGE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_SAFE_NAME: Final = re.compile(r"[^\w.()+ -]", re.ASCII)

_ACCEPTED: Final = (
    ("application/vnd.ipld.raw", "raw"),
    ("application/vnd.ipld.car", "car"),
    ("application/x-tar", "tar"),
    ("application/vnd.ipld.dag-json", "dag-json"),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A path that was followed: ``entry`` is at its end, ``roots`` are the CIDs on the way, the end included."""

    reference: str
    entry: Entry
    roots: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.reference.rstrip("/").rpartition("/")[2]

    def headers(self) -> dict[str, str]:
        return {
            "cache-control": _IMMUTABLE,
            "x-ipfs-path": "/ipfs/" + quote(self.reference),
            "x-ipfs-roots": ",".join(self.roots),
            "vary": "accept",
        }


def content_response(
    store: LocalStore, request: Request, reference: str, *, form: str, filename: str, download: bool
) -> Response:
    """Answer a GET or HEAD under ``/ipfs``.

    Raises:
        InputError: an unknown ``format``.
        CarriedError: 416 for a range outside the file.
        NotFound, VerificationError, DecodeError, UnavailableError: from the store.
    """
    place = _follow(store, reference)
    form = form or accepted_form(request.headers.get("accept", ""))
    if form not in ("", "json", "car") and form not in _FORMS:
        raise InputError(f"format {quoted(form)} is not supported", hint="raw, car, tar, dag-json or json")
    if form not in ("", "json"):
        return _form(store, request, place, form)
    if place.entry.is_directory:
        index = next((link.cid for link in place.entry.links if link.name == _INDEX), None)
        if form == "json" or index is None:
            return _listing(place, request, form)
        if not reference.endswith("/"):
            # Relative links of the page are meant from inside the directory.
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse("/ipfs/" + quote(reference) + "/" + query, status_code=301)
        place = _Place(f"{reference}{_INDEX}", find_entry(store, index), (*place.roots, str(index)))
        return _file(store, request, place, _INDEX, download=False, is_named=False)
    return _file(store, request, place, filename or place.name, download=download, is_named=bool(filename))


def _follow(store: LocalStore, reference: str) -> _Place:
    root, path = parse_reference(reference)
    entry = find_entry(store, root)
    roots = [str(root)]
    for name in path.split("/"):
        if name:
            entry = find_entry(store, entry.cid, name)
            roots.append(str(entry.cid))
    return _Place(reference, entry, tuple(roots))


def accepted_form(accept: str) -> str:
    """The form that an Accept header asks for; empty for a file as it is or a directory's page."""
    for kind, form in _ACCEPTED:
        if kind in accept:
            return form
    return "json" if accept.split(",")[0].strip().startswith("application/json") else ""


def _matches(request: Request, tag: str) -> bool:
    header = request.headers.get("if-none-match")
    if header is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in tags or "*" in tags


def _form(store: LocalStore, request: Request, place: _Place, form: str) -> Response:
    """The content as a CAR or in one of ``_FORMS``."""
    entry, headers = place.entry, place.headers()
    scope = _parse_scope(request) if form == "car" else Scope.ALL
    # The way that led to the content is in a CAR too, so another way is another answer.
    way = "" if form != "car" else f".{scope}.{hashlib.sha256(','.join(place.roots).encode()).hexdigest()[:16]}"
    headers["etag"] = tag = f'"{entry.cid}.{form}{way}"'
    if _matches(request, tag):
        return Response(status_code=304, headers=headers)
    is_head = request.method == "HEAD"
    if form == "car":
        return _car(store, place, headers, is_head=is_head, scope=scope)
    return _FORMS[form](store, place, headers, is_head=is_head)


def _parse_scope(request: Request) -> Scope:
    name = request.query_params.get("dag-scope", Scope.ALL)
    try:
        return Scope(name)
    except ValueError:
        raise InputError(f"dag-scope {quoted(name)} is not known", hint="block, entity or all") from None


def _raw(store: LocalStore, place: _Place, headers: dict[str, str], *, is_head: bool) -> Response:
    headers["content-disposition"] = f'attachment; filename="{place.entry.cid}.bin"'
    block = store.get_block(place.entry.cid)
    place.entry.cid.verify_block(block)
    headers["content-length"] = str(len(block))
    return Response(b"" if is_head else block, media_type="application/vnd.ipld.raw", headers=headers)


def _car(store: LocalStore, place: _Place, headers: dict[str, str], *, is_head: bool, scope: Scope) -> Response:
    headers["content-disposition"] = f'attachment; filename="{place.entry.cid}.car"'
    way = [Cid.parse(cid) for cid in place.roots[:-1]]
    chunks = iter(()) if is_head else build_car(store, place.entry.cid, way=way, scope=scope)
    media_type = "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    return ContentStream(begun(chunks), media_type=media_type, headers=headers)


def _tar(store: LocalStore, place: _Place, headers: dict[str, str], *, is_head: bool) -> Response:
    name = _SAFE_NAME.sub("_", place.name)
    headers["content-disposition"] = f'attachment; filename="{name}.tar"'
    chunks = iter(()) if is_head else build_tar(store, place.entry, place.name)
    return ContentStream(begun(chunks), media_type="application/x-tar", headers=headers)


def _dag_json(store: LocalStore, place: _Place, headers: dict[str, str], *, is_head: bool) -> Response:
    block = store.get_block(place.entry.cid)
    place.entry.cid.verify_block(block)
    body = JSONResponse(describe_block(place.entry.cid, block)).body
    headers["content-length"] = str(len(body))
    media_type = "application/vnd.ipld.dag-json"
    return Response(b"" if is_head else body, media_type=media_type, headers=headers)


_FORMS: Final[dict[str, Callable[..., Response]]] = {"raw": _raw, "tar": _tar, "dag-json": _dag_json}


def _file(store: LocalStore, request: Request, place: _Place, name: str, *, download: bool, is_named: bool) -> Response:
    entry, headers = place.entry, place.headers()
    headers["etag"] = tag = f'"{entry.cid}"'
    if _matches(request, tag):
        return Response(status_code=304, headers=headers)
    if is_named or download:
        safe = _SAFE_NAME.sub("_", name) or "file"
        kind = "attachment" if download else "inline"
        headers["content-disposition"] = f"{kind}; filename=\"{safe}\"; filename*=UTF-8''{quote(name, safe='')}"
    start, end, status = 0, entry.size, 200
    wanted = request.headers.get("range")
    condition = request.headers.get("if-range")
    if wanted is not None and (condition is None or condition == tag):
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
    chunks = iter(()) if request.method == "HEAD" else begun(read_file(store, entry, offset=start, length=end - start))
    return ContentStream(chunks, status_code=status, media_type=media_type, headers=headers)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Turn a Range header into start and end, or ``None`` to answer with everything (RFC 9110 section 14.2).

    Only one range is understood. Several, or other units, are ignored as the RFC allows: answers made of many ranges
    are a known way to ask for far more than the content has.

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


def _listing(place: _Place, request: Request, form: str) -> Response:
    entry, headers = place.entry, place.headers()
    headers["etag"] = tag = f'"dir-{entry.cid}{"." + form if form else ""}"'
    if _matches(request, tag):
        return Response(status_code=304, headers=headers)
    if form == "json":
        rows = [{"name": link.name, "cid": str(link.cid), "total_size": link.total_size} for link in entry.links]
        return JSONResponse({"cid": str(entry.cid), "entries": rows}, headers=headers)
    headers["cache-control"] = _RENDERED
    headers["content-security-policy"] = "sandbox allow-top-navigation; default-src 'none'; style-src 'unsafe-inline'"
    return Response(build_page(entry, place.reference), media_type="text/html", headers=headers)
