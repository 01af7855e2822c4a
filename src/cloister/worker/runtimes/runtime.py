"""The interface of a runtime: start an agent, talk to it, end it."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Platform:
    """What an enclave's attester needs of its host. ``material`` may hold a key (simulated): it goes over the channel
    only.
    """

    kind: str
    material: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EnclaveSpec:
    """What an enclave may take of this host. ``scratch_bytes``: memory for ciphertext, plaintext and results
    together.
    """

    platform: Platform
    scratch_bytes: int = 8 << 30


class EnclaveProcess(Protocol):
    """A started enclave. Its agent says ``ready`` on ``channel`` and waits there for one task, as long as need be."""

    @property
    def channel(self) -> socket.socket:
        """The host's end of the channel. Closed by ``kill``."""
        ...

    @property
    def spec(self) -> EnclaveSpec: ...

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None when it still runs after ``timeout`` seconds."""
        ...

    def start_problem(self) -> str:
        """Why it ended before it was ready, in the machine's own words; empty when there are none."""
        ...

    def kill(self) -> None:
        """End it and everything in it, at once. May be called again, and from any thread."""
        ...


class Runtime(Protocol):
    """Starts enclaves. Safe to use from several threads."""

    @property
    def quick(self) -> bool:
        """Whether a start costs so little that the next enclave may be started while another one computes."""
        ...

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        """Start an enclave; it is killed when this process dies.

        Raises:
            ConfigurationError: this host cannot start one; the hint says what to install or allow.
            UnavailableError: it did not start this time.
        """
        ...

    def close(self) -> None:
        """Let go of what starts them; enclaves that still run may end with it."""
        ...
