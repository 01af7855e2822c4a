"""What tests of the gateway share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from tests.support.formula import content

from cloister.services.gateway.http import GatewayPart
from cloister.storage.unixfs import CHUNK_SIZE

MAX_FILE = 4 * 1024 * 1024
SIZE = 2 * CHUNK_SIZE + 50
DATA = b"".join(content(SIZE))


@dataclass
class Desk:
    url: str
    part: GatewayPart
    root: Path

    def ask(self, method: str, path: str, **more: Any) -> urllib3.BaseHTTPResponse:
        return urllib3.request(method, self.url + path, timeout=20, retries=False, redirect=False, **more)

    def add(self, files: list[tuple[str, bytes]], query: str = "", kind: str = "application/octet-stream") -> Any:
        fields = [("file", (name.replace("/", "%2F"), data, kind)) for name, data in files]
        return self.ask("POST", f"/api/v0/add?stream-channels=true&progress=false{query}", fields=fields)

    def added(self, files: list[tuple[str, bytes]], query: str = "") -> list[dict[str, str]]:
        answer = self.add(files, query)
        assert answer.status == 200, answer.data
        assert "application/json" in answer.headers["content-type"]
        return [json.loads(line) for line in answer.data.decode().splitlines()]
