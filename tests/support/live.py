"""A socket.io client made of bytes, which behaves as badly as a test wants (Engine.IO 4, Socket.IO 5)."""

from __future__ import annotations

import base64
import json
import socket
import struct
import urllib.parse
from typing import Any

import urllib3

SEPARATOR = "\x1e"


class PollingClient:
    """Speaks by long polling. ``events`` waits for at least so many."""

    def __init__(self, url: str) -> None:
        self._http = urllib3.PoolManager(retries=False, timeout=20)
        self._base = f"{url}/ws/?EIO=4&transport=polling"
        opened = self.get()[0]
        assert opened[0] == "0"
        self.session: dict[str, Any] = json.loads(opened[1:])
        self._base += f"&sid={self.session['sid']}"
        self._events: list[tuple[str, Any]] = []
        self.post("40")
        assert self.get()[0].startswith("40")

    def get(self) -> list[str]:
        answer = self._http.request("GET", self._base)
        assert answer.status == 200, answer.data
        return answer.data.decode().split(SEPARATOR)

    def post(self, *packets: str) -> urllib3.BaseHTTPResponse:
        return self._http.request("POST", self._base, body=SEPARATOR.join(packets).encode())

    def join(self, topic: object, chain_id: object = 421614) -> dict[str, Any]:
        """Join and return the acknowledgement."""
        self.post("420" + json.dumps(["join", {"chainId": chain_id, "topic": topic}]))
        while True:
            for packet in self._sorted(self.get()):
                if packet.startswith("430"):
                    found: dict[str, Any] = json.loads(packet[3:])[0]
                    return found

    def events(self, count: int) -> list[tuple[str, Any]]:
        """Poll until there are ``count`` events, then return and forget all."""
        while len(self._events) < count:
            self._sorted(self.get())
        found, self._events = self._events, []
        return found

    def _sorted(self, packets: list[str]) -> list[str]:
        """Keep events, answer heartbeats, return the rest."""
        rest = []
        for packet in packets:
            if packet.startswith("42"):
                name, *payload = json.loads(packet[2:])
                self._events.append((name, payload[0]))
            elif packet == "2":
                self.post("3")
            else:
                rest.append(packet)
        return rest


class RawWebSocket:
    """A WebSocket of which the test reads as little as it likes."""

    def __init__(self, url: str, target: str = "/ws/?EIO=4&transport=websocket") -> None:
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(20)
        self.socket.connect((parts.hostname, parts.port))
        key = base64.b64encode(b"0123456789abcdef").decode()
        head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        self.socket.sendall(head.encode())
        self._rest = b""
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        first, _, self._rest = answer.partition(b"\r\n\r\n")
        self.status = int(first.split()[1])

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        return data

    def send(self, text: str | bytes, *, opcode: int = 1) -> None:
        """Send one message in one frame (masked with zeros)."""
        data = text.encode() if isinstance(text, str) else text
        length = bytes([128 + len(data)]) if len(data) < 126 else bytes([128 + 127]) + struct.pack(">Q", len(data))
        self.socket.sendall(bytes([128 + opcode]) + length + bytes(4) + data)

    def receive(self) -> str:
        """The next text message. Raises: EOFError when the server closes."""
        while True:
            head = self._take(2)
            size = head[1] & 127
            if size == 126:
                size = int.from_bytes(self._take(2), "big")
            elif size == 127:
                size = int.from_bytes(self._take(8), "big")
            data = self._take(size)
            if head[0] & 15 == 8:
                raise EOFError
            if head[0] & 15 == 1:
                return data.decode()

    def ends(self) -> bool:
        """Read until the server closes; False when it does not for a while."""
        try:
            while True:
                self.receive()
        except EOFError:
            return True
        except TimeoutError:
            return False

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += self._more()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def open(self, topic: str) -> None:
        """Connect and join a topic."""
        assert self.receive()[0] == "0"
        self.send("40")
        assert self.receive().startswith("40")
        self.send("420" + json.dumps(["join", {"chainId": 421614, "topic": topic}]))
        assert self.receive() == '430[{"ok":true}]'

    def close(self) -> None:
        self.socket.close()
