"""Settings of Compass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cloister.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CompassSettings:
    """``path`` is the JSON file that Compass serves; ``chain_id`` the chain that it must know.

    The file may describe more chains; all of them are served.
    """

    chain_id: int
    path: Path

    def __post_init__(self) -> None:
        if self.chain_id < 1:
            raise ConfigurationError(f"the chain id of Compass must be positive, not {self.chain_id}")
