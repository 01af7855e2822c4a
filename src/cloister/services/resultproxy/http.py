"""The result proxy's routes (reference 3.4): ``/v1/results`` and the older ``/results/challenge``, ``/results/login``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, Header, Path, Request
from starlette.responses import PlainTextResponse, Response

from cloister.errors import InputError, NotFound, TooLarge, UnavailableError
from cloister.protocol.codec import Bytes32
from cloister.services.database import Database
from cloister.services.descriptions import Description
from cloister.services.part import body_cap
from cloister.services.resultproxy.authorizations import BODY_CAP
from cloister.services.resultproxy.description import RESULT_PROXY
from cloister.services.resultproxy.service import ResultService
from cloister.services.resultproxy.settings import ResultProxySettings
from cloister.services.resultproxy.tokens import UploadGrant

TaskPath = Annotated[str, Path(pattern="^0x[0-9a-fA-F]{64}$")]
Authorization = Annotated[str | None, Header(max_length=4096)]

_LOGIN_CAP = 1024
_MOST_WAITING = 64
"""Uploads that may wait for a place before others are told to come back later."""


class ResultProxyPart:
    """The result proxy as a part of an application."""

    name = "resultproxy"

    def __init__(self, settings: ResultProxySettings, *, database: Database, service: ResultService) -> None:
        self._settings = settings
        self._database = database
        self._service = service
        self._places = anyio.CapacityLimiter(settings.uploads)

    def start(self) -> None:
        """Bring the tables up to date."""
        self._database.upgrade("resultproxy")

    def stop(self) -> None:
        """Nothing to stop."""

    def check_ready(self) -> None:
        """Return when the database answers. Raises: UnavailableError."""
        self._database.check_ready()

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return RESULT_PROXY

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(tags=["resultproxy"])
        self._route_results(router)
        self._route_logins(router)
        return router

    def _route_results(self, router: APIRouter) -> None:
        service = self._service

        @router.post("/v1/results/token")
        @body_cap(BODY_CAP)
        async def token(request: Request, authorization: Authorization = None) -> Response:
            """A token for uploading one task's result."""
            body = await request.body()
            return PlainTextResponse(await anyio.to_thread.run_sync(service.issue_token, authorization, body))

        @router.post("/v1/results")
        @body_cap(None)
        async def upload(request: Request, authorization: Authorization = None) -> Response:
            """Store a result; answers its location."""
            grant = await anyio.to_thread.run_sync(service.admit, authorization)
            if self._places.statistics().tasks_waiting >= _MOST_WAITING:
                raise UnavailableError("too many results are coming in", hint="try again in a moment")
            return PlainTextResponse(
                await anyio.to_thread.run_sync(self._take, grant, request.stream(), limiter=self._places)
            )

        @router.head("/v1/results/{task_id}")
        def exists(task_id: TaskPath, authorization: Authorization = None) -> Response:
            """Whether a result was uploaded: 204 or 404."""
            service.check_reader(authorization)
            return Response(status_code=204 if service.find(Bytes32(task_id)) else 404)

        @router.get("/v1/results/{task_id}/ipfshash")
        def ipfs_hash(task_id: TaskPath) -> Response:
            """The CID of a task's result."""
            found = service.find(Bytes32(task_id))
            if found is None:
                raise NotFound(f"no result was uploaded for task {task_id.lower()}")
            return PlainTextResponse(found)

    def _route_logins(self, router: APIRouter) -> None:
        service = self._service

        @router.get("/results/challenge")
        def challenge(chainId: str | None = None, address: str | None = None) -> dict[str, object]:  # noqa: N803
            """A login challenge (typed data)."""
            return service.build_challenge(chainId, address)

        @router.post("/results/login")
        @body_cap(_LOGIN_CAP)
        async def login(request: Request, chainId: str | None = None) -> Response:  # noqa: N803
            """A token for a signed challenge."""
            answer = await request.body()
            return PlainTextResponse(await anyio.to_thread.run_sync(service.log_in, chainId, answer))

    def _take(self, grant: UploadGrant, stream: AsyncIterator[bytes]) -> str:
        return self._service.take(grant, self._received(stream))

    def _received(self, stream: AsyncIterator[bytes]) -> Iterator[bytes]:
        """The request's body for a thread, refused when it is too long or comes too slowly."""
        settings = self._settings
        # An array of bytes spells one in at most four characters, with a space or line break between.
        cap = 6 * settings.max_result + 64 * 1024
        started, received = time.monotonic(), 0

        async def receive() -> bytes | None:
            return await anext(stream, None)

        while (chunk := anyio.from_thread.run(receive)) is not None:
            received += len(chunk)
            if received > cap:
                raise TooLarge(f"the result is larger than {settings.max_result} bytes")
            elapsed = time.monotonic() - started
            if elapsed > settings.rate_grace and received < settings.min_rate * elapsed:
                raise InputError("the upload is too slow", code="timeout")
            yield chunk
