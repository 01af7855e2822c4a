"""The gateway's part: uploads by Kubo's RPC, and content under ``/ipfs``.

RPC paths and fields are those of Kubo's HTTP RPC API; ``/ipfs`` follows the IPFS path gateway specification: ranges,
ETags, immutable caching, ``?format=raw`` and ``?format=car`` for clients that verify. Content is served in a sandbox
of its own, because it shares an origin with services and anybody may upload.
"""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from cloister.errors import InputError
from cloister.services.descriptions import Description
from cloister.services.gateway.adding import Adding, AddOptions
from cloister.services.gateway.answers import content_response
from cloister.services.gateway.description import GATEWAY
from cloister.services.gateway.multipart import parse_boundary
from cloister.services.gateway.receiving import Receiving
from cloister.services.gateway.rpc import Rpc
from cloister.services.gateway.settings import GatewaySettings
from cloister.services.part import Failure, body_cap
from cloister.storage.cid import Cid, Codec
from cloister.storage.local import LocalStore

_KUBO_CODES = {400: 1, 403: 4, 405: 1, 413: 1, 416: 1, 429: 3}
"""Kubo's ``Code`` by our status: 1 is the client's fault, 3 too often, 4 forbidden; 0 is everything else."""


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
        """Both what Kubo's clients read (``Message``, ``Code``, ``Type``) and what ours read (``error``, ``code``)."""
        body = {
            "Message": failure.message,
            "Code": _KUBO_CODES.get(failure.status, 0),
            "Type": "error",
            "error": failure.message,
            "code": failure.code,
            "hint": failure.hint,
        }
        return JSONResponse(body, status_code=failure.status)

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return GATEWAY

    def router(self) -> APIRouter:
        router = APIRouter(tags=["gateway"])
        self._route_add(router)
        self._route_content(router)
        Rpc(lambda: self.store, self._identity, quota=self._settings.quota).add_routes(router)
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
            progress: bool = False,
            silent: bool = False,
            chunker: Annotated[str, Query(max_length=64)] = "",
            hash_name: Annotated[str, Query(alias="hash", max_length=64)] = "",
        ) -> Response:
            """Store the body's files and answer one line of JSON for each, then for their directories.

            Options that change neither the CID nor the answer (``pin``, ``quieter``, ``stream-channels`` …) are taken
            as they come.
            """
            _refuse_layouts(request)
            options = AddOptions.parse(
                cid_version=cid_version,
                raw_leaves=raw_leaves,
                only_hash=only_hash,
                wrap=wrap,
                chunker=chunker,
                hash_name=hash_name,
            )
            boundary = parse_boundary(request.headers.get("content-type"))
            follows = progress and not silent
            adding = Adding(self.store, options, boundary, max_files=self._settings.max_files, progress=follows)
            receiving = Receiving(request.stream(), adding, self._settings)
            return await (receiving.follow() if follows else receiving.answer(silent=silent))

    def _route_content(self, router: APIRouter) -> None:
        @router.api_route("/ipfs/{reference:path}", methods=["GET", "HEAD"])
        def content(
            request: Request,
            reference: str,
            form: Annotated[str, Query(alias="format", max_length=16)] = "",
            filename: Annotated[str, Query(max_length=255)] = "",
            download: bool = False,
        ) -> Response:
            """A file (also in part), a directory's page, or with ``format=raw|car|tar|dag-json`` another form of it."""
            return content_response(self.store, request, reference, form=form, filename=filename, download=download)


_LAYOUTS = ("trickle", "inline", "nocopy", "preserve-mode", "preserve-mtime", "mode", "mtime", "to-files")
"""Options that would give other CIDs than the builder here, or that need mutable files."""


def _refuse_layouts(request: Request) -> None:
    for name in _LAYOUTS:
        if request.query_params.get(name, "false").lower() not in ("false", "0", ""):
            raise InputError(f"the option {name} is not supported", hint="leave it out")
