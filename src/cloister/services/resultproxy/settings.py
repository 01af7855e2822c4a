"""Settings of the result proxy."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import ConfigurationError
from cloister.protocol.codec import Address


@dataclass(frozen=True, slots=True)
class ResultProxySettings:
    """What an operator decides. Sizes in bytes, times in seconds.

    ``max_result`` caps one archive. ``uploads`` is how many may come in at once; each holds a thread. ``min_rate`` is
    the slowest average, in bytes a second, at which an upload is followed once ``rate_grace`` seconds passed.
    ``allow_unsigned_results`` is the explicit word for taking a result of an enclave deal without its enclave's
    signature.
    """

    chain_id: int
    hub: Address
    max_result: int = 256 * 1024 * 1024
    uploads: int = 16
    min_rate: int = 4 * 1024
    rate_grace: float = 30.0
    upload_token_seconds: int = 3600
    login_token_seconds: int = 24 * 3600
    max_head_age: int = 120
    allow_unsigned_results: bool = False

    def __post_init__(self) -> None:
        for name in (
            "chain_id",
            "max_result",
            "uploads",
            "upload_token_seconds",
            "login_token_seconds",
            "max_head_age",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"the result proxy setting {name} must be positive")

    @property
    def audience(self) -> str:
        """What tokens of this proxy are good for."""
        return f"result-proxy:{self.chain_id}:{self.hub}"
