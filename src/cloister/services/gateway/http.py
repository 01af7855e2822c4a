"""The gateway's routes: Kubo's RPC under ``/api/v0`` (POST only, as there) and content under ``/ipfs``.

RPC paths and fields are those of Kubo's HTTP RPC API; ``/ipfs`` follows the IPFS path gateway specification: ranges,
ETags, immutable caching, ``?format=raw`` and ``?format=car`` for clients that verify. Content is served in a sandbox
of its own, because it shares an origin with services and anybody may upload.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Annotated

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from cloister.errors import InputError, NotFound, quoted
from cloister.services.gateway.adding import Added, Adding, AddOptions
from cloister.services.gateway.answers import block_response, content_response, ndjson
from cloister.services.gateway.multipart import parse_boundary
from cloister.services.gateway.settings import GatewaySettings
from cloister.services.part import Failure, body_cap
from cloister.storage.cid import Cid, Codec
from cloister.storage.local import LocalStore
from cloister.version import __version__

_BATCH = 1024 * 1024
"""Bytes gathered before a thread is asked to store them: each hand-over costs as much as hashing 100 KiB."""

Arg = Annotated[str, Query(max_length=4096)]


class GatewayPart:
    """The gateway as a part of an application; owns its store."""

    name = "gateway"

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._opened: LocalStore | None = None
        self._identity = str(Cid.of_block(os.urandom(32), version=0, codec=Codec.DAG_PB))

    @property
    def store(self) -> LocalStore:
        """The open store; the part must have started."""
        if self._opened is None:
            raise RuntimeError("the gateway has not started")
        return self._opened

    def start(self) -> None:
        settings = self._settings
        self._opened = LocalStore(settings.root, max_file=settings.max_file, quota=settings.quota)

    def stop(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def check_ready(self) -> None:
        self.store.check_ready()

    def render_failure(self, failure: Failure) -> Response:
        """Both what Kubo's clients read (``Message``) and what ours read (``error``, ``code``, ``hint``)."""
        body = {
            "Message": failure.message,
            "Code": 0,
            "Type": "error",
            "error": failure.message,
            "code": failure.code,
            "hint": failure.hint,
        }
        return JSONResponse(body, status_code=failure.status)

    def router(self) -> APIRouter:
        router = APIRouter(tags=["gateway"])
        self._route_add(router)
        self._route_reads(router)
        self._route_node(router)
        self._route_content(router)
        return router

    def _route_add(self, router: APIRouter) -> None:
        @router.post("/api/v0/add")
        @body_cap(None)
        async def add(
            request: Request,
            cid_version: Annotated[int, Query(alias="cid-version", ge=0, le=1)] = 0,
            raw_leaves: Annotated[bool | None, Query(alias="raw-leaves")] = None,
            only_hash: Annotated[bool, Query(alias="only-hash")] = False,
            wrap: Annotated[bool, Query(alias="wrap-with-directory")] = False,
            trickle: bool = False,
            inline: bool = False,
            nocopy: bool = False,
            chunker: Annotated[str, Query(max_length=64)] = "",
            hash_name: Annotated[str, Query(alias="hash", max_length=64)] = "",
        ) -> Response:
            """Store the body's files and answer one line of JSON for each, then for their directories."""
            if trickle or inline or nocopy:
                raise InputError("trickle, inline and nocopy are not supported")
            options = AddOptions.parse(
                cid_version=cid_version,
                raw_leaves=raw_leaves,
                only_hash=only_hash,
                wrap=wrap,
                chunker=chunker,
                hash_name=hash_name,
            )
            boundary = parse_boundary(request.headers.get("content-type"))
            adding = Adding(self.store, options, boundary, max_files=self._settings.max_files)
            return ndjson(_added_line(one) for one in await self._receive(request, adding))

    async def _receive(self, request: Request, adding: Adding) -> list[Added]:
        """Hand the body over in batches, storing one while the next comes in; in any end nothing half stored stays."""
        started = time.monotonic()
        received = 0
        batch: list[bytes] = []
        gathered = 0
        storing: asyncio.Task[None] | None = None
        try:
            async for chunk in request.stream():
                received += len(chunk)
                elapsed = time.monotonic() - started
                if elapsed > self._settings.rate_grace and received < self._settings.min_rate * elapsed:
                    raise InputError("the upload is too slow", code="timeout")
                batch.append(chunk)
                gathered += len(chunk)
                if gathered >= _BATCH:
                    if storing is not None:
                        await storing
                    storing = asyncio.create_task(anyio.to_thread.run_sync(adding.feed, b"".join(batch)))
                    batch, gathered = [], 0
            if storing is not None:
                await storing
            await anyio.to_thread.run_sync(adding.feed, b"".join(batch))
            return await anyio.to_thread.run_sync(adding.finish)
        finally:
            with anyio.CancelScope(shield=True):
                if storing is not None:
                    await asyncio.gather(storing, return_exceptions=True)
                await anyio.to_thread.run_sync(adding.abort)

    def _route_reads(self, router: APIRouter) -> None:
        @router.post("/api/v0/cat")
        def cat(
            arg: Arg,
            offset: Annotated[int, Query(ge=0)] = 0,
            length: Annotated[int | None, Query(ge=0)] = None,
        ) -> Response:
            chunks = self.store.open(arg, offset=offset, length=length)
            return StreamingResponse(chunks, media_type="application/octet-stream", headers={"x-stream-output": "1"})

        @router.post("/api/v0/block/get")
        def block_get(arg: Arg) -> Response:
            return block_response(self.store, self.store.find(arg))

        @router.post("/api/v0/block/stat")
        def block_stat(arg: Arg) -> dict[str, object]:
            entry = self.store.find(arg)
            return {"Key": str(entry.cid), "Size": entry.block_size}

        @router.post("/api/v0/files/stat")
        def files_stat(arg: Arg) -> dict[str, object]:
            """Only for ``/ipfs/`` paths: this node keeps no mutable files."""
            if not arg.startswith("/ipfs/"):
                raise NotFound(f"no mutable file {quoted(arg)}", hint="give a path under /ipfs/")
            entry = self.store.find(arg)
            return {
                "Hash": str(entry.cid),
                "Size": 0 if entry.is_directory else entry.size,
                "CumulativeSize": entry.total_size,
                "Blocks": len(entry.links),
                "Type": "directory" if entry.is_directory else "file",
            }

    def _route_node(self, router: APIRouter) -> None:
        @router.post("/api/v0/version")
        def version() -> dict[str, str]:
            return {"Version": __version__, "Commit": "", "Repo": "cloister", "System": "", "Golang": ""}

        @router.post("/api/v0/id")
        def identity() -> dict[str, object]:
            """This node is in no peer-to-peer network: its id names this process, and it has neither key nor addresses."""
            return {
                "ID": self._identity,
                "PublicKey": "",
                "Addresses": [],
                "AgentVersion": f"cloister/{__version__}",
                "Protocols": [],
            }

        @router.post("/api/v0/pin/add")
        def pin_add(arg: Annotated[list[Arg], Query(max_length=64)]) -> dict[str, list[str]]:
            """Everything stored here is kept, so this only proves that it is stored."""
            return {"Pins": [str(self.store.find(one).cid) for one in arg]}

        @router.post("/api/v0/pin/ls")
        def pin_ls(arg: Annotated[list[Arg] | None, Query(max_length=64)] = None, stream: bool = False) -> Response:
            """What was put; the first thousand when none is named."""
            named = [str(self.store.find(one).cid) for one in arg or ()]
            cids = named or [cid for cid, _ in self.store.roots()]
            if stream:
                return ndjson({"Cid": cid, "Type": "recursive"} for cid in cids)
            return JSONResponse({"Keys": {cid: {"Type": "recursive", "Name": ""} for cid in cids}})

    def _route_content(self, router: APIRouter) -> None:
        @router.api_route("/ipfs/{reference:path}", methods=["GET", "HEAD"])
        def content(
            request: Request,
            reference: str,
            form: Annotated[str, Query(alias="format", max_length=16)] = "",
            filename: Annotated[str, Query(max_length=255)] = "",
            download: bool = False,
        ) -> Response:
            """A file (also in part), a directory's listing, or with ``format=raw|car`` the blocks themselves."""
            entry = self.store.find(reference)
            wanted = form or _accepted_form(request.headers.get("accept", ""))
            return content_response(
                self.store, entry, request, reference, form=wanted, filename=filename, download=download
            )


def _accepted_form(accept: str) -> str:
    for kind, form in (("application/vnd.ipld.raw", "raw"), ("application/vnd.ipld.car", "car")):
        if kind in accept:
            return form
    return "json" if accept.split(",")[0].strip().startswith("application/json") else ""


def _added_line(added: Added) -> dict[str, str]:
    return {"Name": added.name, "Hash": str(added.built.cid), "Size": str(added.built.total_size)}
