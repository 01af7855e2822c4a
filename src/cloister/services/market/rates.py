"""How many requests one address of the network may send."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

LIMIT = 100
WINDOW = 60.0
_MAX_PEERS = 50_000


class RateLimiter:
    """Allows ``limit`` requests in any ``window`` seconds per IP address; loopback is exempt. Safe between threads.

    It remembers a bounded number of peers and forgets the one that was quiet longest.
    """

    def __init__(self, clock: Callable[[], float], *, limit: int = LIMIT, window: float = WINDOW) -> None:
        self._clock = clock
        self._limit = limit
        self._window = window
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, host: str | None) -> bool:
        """Count one request of ``host`` and tell whether it may pass."""
        if is_loopback(host):
            return True
        now, key = self._clock(), host or "unknown"
        with self._lock:
            times = self._seen.pop(key, None) or deque()
            self._seen[key] = times
            if len(self._seen) > _MAX_PEERS:
                self._seen.popitem(last=False)
            while times and times[0] <= now - self._window:
                times.popleft()
            if len(times) >= self._limit:
                return False
            times.append(now)
            return True


def is_loopback(host: str | None) -> bool:
    """Whether a peer is this machine itself, also as an IPv4 address written in IPv6."""
    if host is None:
        return False
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
