"""Parts for the skeleton's tests: real parts with real routes, made to show one behaviour each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse

from cloister.errors import (
    CloisterError,
    Conflict,
    Denied,
    LocalError,
    NotFound,
    Unauthenticated,
    UnavailableError,
)
from cloister.services.part import Failure, body_cap

SECRET = "hunter2-this-must-not-leak"


class Item(BaseModel):
    name: str
    count: int


class Shelf:
    """Answers under ``/shelf`` in the default form."""

    name = "shelf"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.unready: CloisterError | Exception | None = None
        self.slow_entered = threading.Event()
        self.streamed = 0

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/shelf")
        errors: dict[str, Exception] = {
            "missing": NotFound("no such book", hint="look elsewhere"),
            "conflict": Conflict("taken already", code="taken"),
            "denied": Denied("not for you"),
            "unknown": Unauthenticated("who are you"),
            "busy": UnavailableError("come back later"),
            "bug": LocalError(f"our bug with {SECRET}"),
            "crash": RuntimeError(f"boom {SECRET}"),
        }

        @router.get("/fail/{kind}")
        def fail(kind: str) -> None:
            raise errors[kind]

        @router.post("/items")
        def add(item: Item) -> dict[str, Any]:
            return {"name": item.name, "count": item.count}

        @router.post("/small")
        @body_cap(10)
        async def small(request: Request) -> dict[str, int]:
            return {"size": len(await request.body())}

        @router.post("/stream")
        @body_cap(None)
        async def stream(request: Request) -> dict[str, int]:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                self.streamed = size
            return {"size": size}

        @router.get("/slow")
        def slow() -> dict[str, str]:
            self.slow_entered.set()
            time.sleep(0.5)
            return {"slow": "done"}

        @router.get("/broken-stream")
        def broken() -> StreamingResponse:
            def chunks() -> Iterator[bytes]:
                yield b"begun"
                raise RuntimeError("half-way")

            return StreamingResponse(chunks())

        @router.get("/named/{name}")
        def named(name: str) -> dict[str, str]:
            return {"name": name}

        return router

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> None:
        self.events.append("stop")

    def check_ready(self) -> None:
        if self.unready is not None:
            raise self.unready


class Bazaar(Shelf):
    """Answers under ``/bazaar`` with a body of its own form."""

    name = "bazaar"

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/bazaar")

        @router.get("/denied")
        def denied() -> None:
            raise Unauthenticated("secret reason")

        @router.get("/crash")
        def crash() -> None:
            raise RuntimeError(SECRET)

        @router.post("/items")
        def add(item: Item) -> dict[str, Any]:
            return {"name": item.name}

        return router

    def render_failure(self, failure: Failure) -> Response:
        status = 403 if failure.status == 401 else failure.status
        return JSONResponse({"ok": False, "error": failure.message}, status_code=status)


class Faulty(Shelf):
    """Does not start."""

    name = "faulty"

    def router(self) -> APIRouter:
        return APIRouter()

    def start(self) -> None:
        self.events.append("start")
        raise UnavailableError("no chain here")
