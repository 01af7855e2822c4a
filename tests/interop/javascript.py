"""iExec's JavaScript clients as a test in Python uses them: one Node process for each person, calls by name."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.interop.flows import CLIENTS

from cloister.protocol.networks import NetworkDescription
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.javascript import build_configuration

HANDS = CLIENTS / "dataprotector2" / "_hands.mjs"
SECONDS = 90
"""What one call may take."""


class JavaScriptError(Exception):
    """What the client threw: the name of its class, its message and its cause's message."""

    def __init__(self, kind: str, message: str, cause: str | None) -> None:
        super().__init__(f"{kind}: {message} ({cause})")
        self.kind = kind
        self.message = message
        self.cause = cause


class JavaScript:
    """DataProtector and ``iexec`` of one wallet. ``bytes`` and integers beyond 2**53 go there and back."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._count = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, method: str, *params: Any) -> Future[Any]:
        """Call a method without waiting for it."""
        future: Future[Any] = Future()
        with self._lock:
            self._count += 1
            self._waiting[self._count] = future
            line = json.dumps({"id": self._count, "method": method, "params": _told(list(params))})
            assert self._process.stdin is not None
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        return future

    def call(self, method: str, *params: Any, **options: Any) -> Any:
        """Call a method; ``options`` make the one object that most methods take.

        Raises:
            JavaScriptError: what the client threw.
        """
        return self.start(method, *params, *([options] if options else [])).result(SECONDS)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line, object_hook=_heard)
            future = self._waiting.pop(said["id"])
            if "error" in said:
                error = said["error"]
                future.set_exception(JavaScriptError(error["class"], error["message"], error.get("cause")))
            else:
                future.set_result(said.get("value"))
        for future in self._waiting.values():
            future.set_exception(RuntimeError("node ended"))


@contextmanager
def javascript(folder: Path, description: NetworkDescription, key: PrivateKey) -> Iterator[JavaScript]:
    """The clients of one wallet, until the end."""
    context = folder / f"{key.address.lower()}.json"
    context.touch(mode=0o600)
    raw = "0x" + key.unprotected_raw().hex()
    context.write_text(json.dumps({"configuration": build_configuration(description), "key": raw}))
    with (folder / f"{key.address.lower()}.log").open("w") as log:
        process = subprocess.Popen(
            ["node", "--no-warnings", str(HANDS), str(context)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield JavaScript(process)
        finally:
            process.kill()
            process.communicate()


def _told(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53 - 1:
        return {"$bigint": str(value)}
    if isinstance(value, dict):
        return {name: _told(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_told(item) for item in value]
    return value


def _heard(value: dict[str, Any]) -> Any:
    if set(value) == {"$hex"}:
        return bytes.fromhex(value["$hex"])
    if set(value) == {"$bigint"}:
        return int(value["$bigint"])
    return value
