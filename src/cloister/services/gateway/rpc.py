"""Kubo's RPC under ``/api/v0``, as far as a node without peers, keys and mutable names can answer it honestly.

POST only, fields and spelling as Kubo has them. What this node does not do is refused by name, with Kubo's error JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from cloister.errors import InputError, NotFound, TooLarge, quoted
from cloister.services.gateway.car import build_car
from cloister.services.gateway.dagjson import describe_block, describe_link
from cloister.services.gateway.streams import ndjson, octets
from cloister.services.gateway.tarball import build_tar, gzipped
from cloister.storage.cid import Cid, Codec
from cloister.storage.content import parse_reference
from cloister.storage.dagpb import parse_node
from cloister.storage.local import LocalStore
from cloister.storage.reading import Entry, load_entry
from cloister.version import __version__

Arg = Annotated[str, Query(max_length=4096)]
Args = Annotated[list[Arg], Query(max_length=64)]

REFERENCES_CAP: Final = 1_000_000
"""Most links that one ``refs`` follows."""

_PINS_CAP: Final = 10_000
"""Most pins in one answer that is not streamed."""

_PAGE: Final = 1000
_REPO_VERSION: Final = "16"
"""The layout that current Kubo nodes name; clients only compare it."""

_DIRECTORY, _FILE = 1, 2


class Rpc:
    """The calls that read. ``store`` gives the open store; ``identity`` names this process to clients that ask."""

    def __init__(self, store: Callable[[], LocalStore], identity: str, *, quota: int | None) -> None:
        self._store = store
        self._identity = identity
        self._quota = quota

    def add_routes(self, router: APIRouter) -> None:
        """Add every call; the last route refuses what is left, so nothing of ours may come behind it."""
        self._route_content(router)
        self._route_blocks(router)
        self._route_dags(router)
        self._route_pins(router)
        self._route_node(router)

        @router.post("/api/v0/{command:path}")
        def refuse(command: str) -> Response:
            raise NotFound(
                f"the command {quoted(command)} is not offered by this node",
                hint="it stores and gives out immutable content; it has no peers, keys, names or mutable files",
                code="not-supported",
            )

    def _route_content(self, router: APIRouter) -> None:
        @router.post("/api/v0/cat")
        def cat(
            arg: Args,
            offset: Annotated[int, Query(ge=0)] = 0,
            length: Annotated[int | None, Query(ge=0)] = None,
        ) -> Response:
            """The bytes of files, one after the other; offset and length count over all of them."""
            return octets(self._concatenated([self._store().find(one) for one in arg], offset, length))

        @router.post("/api/v0/get")
        def get(
            arg: Arg,
            compress: bool = False,
            level: Annotated[int, Query(alias="compression-level", ge=-1, le=9)] = -1,
        ) -> Response:
            """A TAR archive of a file or directory."""
            entry = self._store().find(arg)
            name = arg.rstrip("/").rpartition("/")[2]
            archive = build_tar(self._store(), entry, name)
            if compress:
                return octets(gzipped(archive, level=level), media_type="application/gzip")
            return octets(archive, media_type="application/x-tar")

        @router.post("/api/v0/ls")
        def ls(
            arg: Args,
            size: bool = True,
            stream: bool = False,
            resolve_type: Annotated[bool, Query(alias="resolve-type")] = True,
        ) -> Response:
            """What a directory holds."""
            look = size or resolve_type
            if stream:
                return ndjson(
                    {"Objects": [{"Hash": one, "Links": links}]}
                    for one in arg
                    for links in self._listed(one, look=look, each=True)
                )
            objects = [{"Hash": one, "Links": links} for one in arg for links in self._listed(one, look=look)]
            return JSONResponse({"Objects": objects})

        @router.post("/api/v0/files/stat")
        def files_stat(arg: Arg) -> dict[str, object]:
            """Only for ``/ipfs/`` paths: this node keeps no mutable files."""
            if not arg.startswith("/ipfs/"):
                raise NotFound(f"no mutable file {quoted(arg)}", hint="give a path under /ipfs/")
            entry = self._store().find(arg)
            return {
                "Hash": str(entry.cid),
                "Size": 0 if entry.is_directory else entry.size,
                "CumulativeSize": entry.total_size,
                "Blocks": len(entry.links),
                "Type": "directory" if entry.is_directory else "file",
            }

        @router.post("/api/v0/refs")
        def refs(
            arg: Args,
            recursive: bool = False,
            unique: bool = False,
            max_depth: Annotated[int, Query(alias="max-depth", ge=-1)] = -1,
        ) -> Response:
            """The links of blocks, one a line."""
            depth = max_depth if recursive else 1
            roots = [self._store().find(one).cid for one in arg]
            return ndjson({"Ref": str(cid), "Err": ""} for cid in self._references(roots, depth, unique=unique))

    def _concatenated(self, entries: list[Entry], offset: int, length: int | None) -> Iterator[bytes]:
        left = length
        for entry in entries:
            if entry.is_directory:
                raise InputError(f"{entry.cid} is a directory, not a file", hint="name a file in it: <cid>/<name>")
            start = min(offset, entry.size)
            offset -= start
            take = entry.size - start if left is None else min(left, entry.size - start)
            if left is not None:
                left -= take
            yield from self._store().open(entry.cid, offset=start, length=take)

    def _listed(self, reference: str, *, look: bool, each: bool = False) -> Iterator[list[dict[str, object]]]:
        """Rows of a directory, all in one list or each in its own; one empty list for a file."""
        entry = self._store().find(reference)
        if not entry.is_directory:
            yield []
            return
        rows = (self._row(link.name, link.cid, look=look) for link in entry.links)
        if each:
            yield from ([row] for row in rows)
        else:
            yield list(rows)

    def _row(self, name: str, cid: Cid, *, look: bool) -> dict[str, object]:
        row: dict[str, object] = {"Name": name, "Hash": str(cid), "Size": 0, "Type": 0, "Target": ""}
        if look:
            entry = load_entry(self._store(), cid)
            row["Type"] = _DIRECTORY if entry.is_directory else _FILE
            row["Size"] = 0 if entry.is_directory else entry.size
        return row

    def _references(self, roots: list[Cid], depth: int, *, unique: bool) -> Iterator[Cid]:
        """Walk links, parents first. Each block is read once on the way, however often it is linked."""
        seen: set[bytes] = set()
        waiting = [(cid, depth) for cid in reversed(roots)]
        told = 0
        while waiting:
            cid, left = waiting.pop()
            if left == 0:
                continue
            for link in load_entry(self._store(), cid).links:
                if unique and link.cid.raw in seen:
                    continue
                told += 1
                if told > REFERENCES_CAP:
                    raise TooLarge(f"content has more than {REFERENCES_CAP} links")
                yield link.cid
                if link.cid.raw not in seen:
                    seen.add(link.cid.raw)
                    waiting.append((link.cid, left - 1))

    def _route_blocks(self, router: APIRouter) -> None:
        @router.post("/api/v0/block/get")
        def block_get(arg: Arg) -> Response:
            entry = self._store().find(arg)
            return octets(iter((self._store().get_block(entry.cid),)))

        @router.post("/api/v0/block/stat")
        def block_stat(arg: Arg) -> dict[str, object]:
            entry = self._store().find(arg)
            return {"Key": str(entry.cid), "Size": entry.block_size}

        @router.post("/api/v0/object/stat")
        def object_stat(arg: Arg) -> dict[str, object]:
            """Sizes of one dag-pb block, as Kubo's older versions give them."""
            entry = self._store().find(arg)
            block = self._store().get_block(entry.cid)
            data = len(block if entry.cid.codec is Codec.RAW else parse_node(block).data or b"")
            return {
                "Hash": str(entry.cid),
                "NumLinks": len(entry.links),
                "BlockSize": len(block),
                "LinksSize": len(block) - data,
                "DataSize": data,
                "CumulativeSize": entry.total_size,
            }

    def _route_dags(self, router: APIRouter) -> None:
        @router.post("/api/v0/dag/get")
        def dag_get(arg: Arg, output_codec: Annotated[str, Query(alias="output-codec")] = "dag-json") -> Response:
            """One block as DAG-JSON."""
            if output_codec not in ("dag-json", "json"):
                raise InputError(f"output codec {quoted(output_codec)} is not supported", hint="dag-json is")
            cid = self._whole(arg)
            block = self._store().get_block(cid)
            cid.verify_block(block)
            return JSONResponse(describe_block(cid, block))

        @router.post("/api/v0/dag/resolve")
        def dag_resolve(arg: Arg) -> dict[str, object]:
            return {"Cid": describe_link(self._store().find(arg).cid), "RemPath": ""}

        @router.post("/api/v0/dag/export")
        def dag_export(arg: Arg) -> Response:
            """Everything under a CID as a CAR."""
            chunks = build_car(self._store(), self._whole(arg))
            return octets(chunks, media_type="application/vnd.ipld.car; version=1")

        @router.post("/api/v0/resolve")
        def resolve(arg: Arg) -> dict[str, str]:
            """The CID under a path."""
            if arg.startswith("/ipns/"):
                raise NotFound("this node resolves no names", hint="give a path under /ipfs/")
            return {"Path": f"/ipfs/{self._store().find(arg).cid}"}

    def _whole(self, arg: str) -> Cid:
        """A CID without a path: paths into blocks are another thing than paths into directories."""
        cid, path = parse_reference(arg)
        if path.strip("/"):
            raise InputError(f"paths into blocks are not supported: {quoted(arg)}", hint="resolve the path first")
        return cid

    def _route_pins(self, router: APIRouter) -> None:
        @router.post("/api/v0/pin/add")
        def pin_add(arg: Args, progress: bool = False) -> Response:
            """Everything stored here is kept, so this only proves that it is stored."""
            answer = {"Pins": [str(self._store().find(one).cid) for one in arg]}
            return ndjson([answer]) if progress else JSONResponse(answer)

        @router.post("/api/v0/pin/ls")
        def pin_ls(
            arg: Annotated[list[Arg] | None, Query(max_length=64)] = None,
            stream: bool = False,
            kind: Annotated[str, Query(alias="type", max_length=16)] = "all",
        ) -> Response:
            """What was put. All of it is pinned with what lies beneath."""
            if kind not in ("all", "recursive", "direct", "indirect"):
                raise InputError(f"invalid type {quoted(kind)}", hint="direct, indirect, recursive or all")
            cids = iter([str(self._store().find(one).cid) for one in arg]) if arg else self._pinned()
            if kind in ("direct", "indirect"):
                cids = iter(())
            if stream:
                return ndjson({"Type": "recursive", "Cid": cid} for cid in cids)
            keys: dict[str, object] = {}
            for cid in cids:
                if len(keys) >= _PINS_CAP:
                    raise TooLarge(f"more than {_PINS_CAP} pins", hint="ask with stream=true")
                keys[cid] = {"Type": "recursive", "Name": ""}
            return JSONResponse({"Keys": keys})

    def _pinned(self) -> Iterator[str]:
        after = ""
        while page := self._store().roots(after=after, limit=_PAGE):
            yield from (cid for cid, _ in page)
            after = Cid.parse(page[-1][0]).digest.hex()

    def _route_node(self, router: APIRouter) -> None:
        @router.post("/api/v0/version")
        def version() -> dict[str, str]:
            return {"Version": __version__, "Commit": "", "Repo": _REPO_VERSION, "System": "", "Golang": ""}

        @router.post("/api/v0/id")
        def identity() -> dict[str, object]:
            """This node is in no peer-to-peer network: its id names this process, it has neither key nor addresses."""
            return {
                "ID": self._identity,
                "PublicKey": "",
                "Addresses": [],
                "AgentVersion": f"cloister/{__version__}",
                "Protocols": [],
            }

        @router.post("/api/v0/repo/stat")
        def repo_stat() -> dict[str, Any]:
            return {
                "RepoSize": self._store().used(),
                "StorageMax": self._quota or 2**63 - 1,
                "NumObjects": self._store().count(),
                "RepoPath": "",
                "Version": f"fs-repo@{_REPO_VERSION}",
            }

        @router.post("/api/v0/repo/version")
        def repo_version() -> dict[str, str]:
            return {"Version": _REPO_VERSION}

        @router.post("/api/v0/swarm/peers")
        def swarm_peers() -> dict[str, list[object]]:
            """Nobody: content comes in by upload alone."""
            return {"Peers": []}
