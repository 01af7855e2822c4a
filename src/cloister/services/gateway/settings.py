"""Settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``root`` is the store's directory. Sizes in bytes; ``quota`` caps everything stored, ``None`` leaves it to the
    disk.

    ``min_rate`` is the slowest average, in bytes a second, at which an upload is followed once ``rate_grace``
    seconds passed.
    """

    root: Path
    max_file: int = 16 * 1024**3
    quota: int | None = None
    max_files: int = 10_000
    min_rate: int = 4 * 1024
    rate_grace: float = 30.0

    def __post_init__(self) -> None:
        if self.max_file < 1 or self.max_files < 1 or (self.quota is not None and self.quota < 1):
            raise ConfigurationError("max_file, max_files and quota of the gateway are at least 1")
