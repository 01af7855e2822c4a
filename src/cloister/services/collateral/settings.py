"""Settings of the collateral service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.attestation.collateral import Collateral
from cloister.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CollateralSettings:
    """What an operator decides. Times in seconds.

    ``trust`` names the roots under which documents are kept; its documents are not read. A piece is asked for again
    ``refresh_seconds`` after it came, at the latest ``ahead_seconds`` before it is over; after a failure first after
    ``backoff_seconds``, then twice as long each time up to ``max_backoff_seconds``. ``bundle`` is a file that is taken in at
    the start and whenever it changes. ``unknown_per_minute`` bounds how often strangers' evidence makes us ask vendors for
    something that is not kept.
    """

    trust: Collateral
    refresh_seconds: int = 6 * 3600
    ahead_seconds: int = 7 * 86400
    backoff_seconds: float = 60.0
    max_backoff_seconds: float = 3600.0
    tick_seconds: float = 30.0
    unknown_per_minute: int = 30
    max_pieces: int = 20_000
    bundle: Path | None = None

    def __post_init__(self) -> None:
        for name in (
            *("refresh_seconds", "backoff_seconds", "max_backoff_seconds", "tick_seconds"),
            *("unknown_per_minute", "max_pieces"),
        ):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"the collateral setting {name} must be positive")
        if self.ahead_seconds < 0:
            raise ConfigurationError("the collateral setting ahead_seconds must not be negative")
