"""What an operator sets for a scheduler. Denies by default: no worker may lease until it is named."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import ConfigurationError
from cloister.protocol.codec import Address


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """Settings of one scheduler. Durations are in seconds.

    ``workers`` names who may lease; empty means nobody. ``any_worker`` is the explicit word for a pool that takes every
    worker
    that signs: attestation still guards the data, but a stranger's machine may then see sizes and times, and waste
    attempts.
    """

    chain_id: int
    hub: Address
    workerpools: tuple[Address, ...]
    workers: frozenset[Address] = frozenset()
    any_worker: bool = False
    from_block: int = 0
    """First block to read when the database is new: the block the hub was deployed in will do."""
    reorganisation_depth: int = 64
    """How many blocks before the checkpoint are read again at start."""
    lease_seconds: float = 30.0
    """A lease without a heartbeat for so long is lost."""
    confirm_seconds: float = 120.0
    """How long a contribution a worker reported may take to show on the chain before the task is leased again."""
    max_attempts: int = 5
    backoff_seconds: float = 1.0
    """Pause before a worker gets the same task again; doubles with every failed try."""
    backoff_cap: float = 60.0
    max_leases_per_worker: int = 64
    challenges_per_lease: int = 4
    """How many enclave keys one lease may get signed: a worker that was killed starts a new enclave."""
    deal_window: int = 256
    """How many unfinished tasks of one deal are held at a time."""
    poll_seconds: float = 0.05
    """Pause between looks at the chain."""
    batch_size: int = 64
    """Most tasks in one array transaction; the hub's own cap."""
    leader_seconds: float = 10.0
    """How long one of several replicas watches the chain and sends transactions before another may take over."""
    challenge_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not self.workerpools:
            raise ConfigurationError("a scheduler needs at least one workerpool", hint="name it in settings")
        for name in ("lease_seconds", "confirm_seconds", "backoff_seconds", "poll_seconds", "leader_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in ("max_attempts", "max_leases_per_worker", "challenges_per_lease", "deal_window", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.any_worker and self.workers:
            raise ConfigurationError("any_worker and a list of workers contradict each other")

    def backoff(self, attempts: int) -> float:
        """Pause after so many failed tries."""
        return float(min(self.backoff_cap, self.backoff_seconds * 2 ** min(max(attempts - 1, 0), 20)))
