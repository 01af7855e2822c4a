"""What all started enclaves are on this host: a child process, a socket, the child's words, and their end."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from typing import IO

from cloister.worker.runtimes.runtime import EnclaveSpec

_BUFFER = 4 << 20


class HostProcess:
    """Implements ``EnclaveProcess``; a runtime's own kind says how its words are kept, how it is ended and what is then to be
    given back.

    ``words``: the stream on which the child says what goes wrong. ``starter``: what started it and must live as long.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        spec: EnclaveSpec,
        *,
        words: IO[bytes] | None,
        starter: object,
    ) -> None:
        self._process = process
        self._channel = channel
        self._spec = spec
        self._starter = starter
        self._said = b""
        self._lock = threading.Lock()
        self._listener = threading.Thread(target=self._listen, args=(words,), name="enclave-words", daemon=True)
        self._listener.start()

    @property
    def channel(self) -> socket.socket:
        return self._channel

    @property
    def spec(self) -> EnclaveSpec:
        return self._spec

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def start_problem(self) -> str:
        """Why it did not start, in the child's own words."""
        self._listener.join(1.0)
        return self._said.decode(errors="replace").strip()

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._give_back()
        return code

    def kill(self) -> None:
        self._end()
        self._channel.close()
        self._give_back()

    def _listen(self, words: IO[bytes] | None) -> None:
        if words is None:
            return
        with words:
            while data := os.read(words.fileno(), 4096):
                self._said = self._keep(self._said, data)

    def _keep(self, said: bytes, data: bytes) -> bytes:
        """What is kept of ``said`` and the next words: the first of them, which tell why a sandbox could not be built."""
        return (said + data)[:2000]

    def _end(self) -> None:
        """End the child and all below it; may be called again."""
        self._process.kill()
        self._process.wait()

    def _give_back(self) -> None:
        """Free what it had of this host once it has ended; may be called again."""
        with self._lock:
            self._clean()

    def _clean(self) -> None:
        """One call at a time."""


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Two ends of a channel with room for large frames."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        widen(end)
    return ours, theirs


def widen(end: socket.socket) -> None:
    """Give a socket room for large frames, where the system allows it."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    except OSError:
        return
