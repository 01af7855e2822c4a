"""What an operator sets for a worker."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from cloister.errors import ConfigurationError, quoted
from cloister.protocol.codec import Address
from cloister.worker.addresses import Network
from cloister.worker.connecting import parse_connect_to


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker daemon. Durations are in seconds, sizes in bytes."""

    workerpool: Address
    state_folder: Path
    """Journal and work folders; survives restarts, belongs to one daemon at a time."""
    slots: int = 2
    """Most tasks at a time."""
    wait_seconds: int = 10
    """How long one long poll waits for a task."""
    stop_seconds: float = 20.0
    """How long a graceful stop lets made results reach the chain."""
    retry_seconds: float = 0.5
    """First pause after a part of the platform did not answer; doubles up to ``retry_cap``."""
    retry_cap: float = 15.0
    outage_seconds: float = 120.0
    """How long SMS, storage, chain or scheduler may stay away from a task that is not computed before it is given back."""
    platform_retries: int = 2
    """How often an enclave that failed for the platform's fault is started again under the same lease."""
    contribution_retries: int = 4
    """How often a refused contribution is sent again while the task is still open."""
    chain_poll: float = 0.1
    """Pause between looks at a task while others are awaited (trust over 1)."""
    max_result: int = 512 * 1024 * 1024
    min_free_disk: int = 256 * 1024 * 1024
    """No task is leased while the state folder's file system has less."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that are not public and that tasks may fetch from all the same, as ``127.0.0.0/8``. A requester chooses
    what is fetched, so whoever may ask this worker may then ask every server in them."""
    app_network: bool = True
    """Whether apps are run whose manifest names hosts to connect to. Others never connect anywhere."""
    connect_to: Mapping[str, str] = field(default_factory=dict)
    """Where such connections go instead, ``host:port`` -> ``host:port``, as curl's ``--connect-to``: for a proxy, a
    test server, a host that this machine knows by another name. These may be private addresses."""
    node_prefix: Path | None = None
    """The folder of a Node release (with ``bin/node``) for apps that ask for one; without it, Node is looked for in
    ``/usr`` and ``/usr/local``."""

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ConfigurationError(f"slots must be at least 1, not {self.slots}")
        for name in ("wait_seconds", "stop_seconds", "retry_seconds", "retry_cap", "outage_seconds", "chain_poll"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0, not {getattr(self, name)}")
        if self.max_result < 1:
            raise ConfigurationError(f"max_result must be at least 1 byte, not {self.max_result}")
        object.__setattr__(self, "allowed_networks", tuple(self.allowed_networks))
        object.__setattr__(self, "connect_to", MappingProxyType(dict(self.connect_to)))
        _ = self.networks, parse_connect_to(self.connect_to)

    @property
    def networks(self) -> tuple[Network, ...]:
        """``allowed_networks``, parsed.

        Raises:
            ConfigurationError: one of them is no network.
        """
        try:
            return tuple(ipaddress.ip_network(text) for text in self.allowed_networks)
        except ValueError as error:
            raise ConfigurationError(
                f"allowed_networks: {quoted(str(error))}", hint="write networks as 127.0.0.0/8 or fd00::/8"
            ) from error
