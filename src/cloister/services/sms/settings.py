"""Settings of the SMS."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloister.attestation.collateral import Collateral, CollateralSource
from cloister.attestation.policy import AppraisalPolicy
from cloister.errors import ConfigurationError
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey


@dataclass(frozen=True, slots=True)
class SmsSettings:
    """What an operator decides.

    ``teebroker`` is the SMS's attestation key; its address is the SMS's identity in report data and the hub's
    ``teebroker``. ``policy`` says which evidence is believed, ``collateral`` names the trusted roots and gives the vendors'
    documents, always the same ones or from a collateral service; without
    reference values or roots everything is denied, and simulated evidence is believed only when a simulated root is
    named here. Times are in seconds. ``public_url`` is this service's address as workers reach it, for answers that
    name it; without one they name the address that the caller used.
    """

    chain_id: int
    hub: Address
    teebroker: PrivateKey = field(repr=False)
    policy: AppraisalPolicy
    collateral: CollateralSource = field(default_factory=Collateral)
    nonce_lifetime: int = 300
    max_head_age: int = 120
    max_rollback: int = 32
    max_result_bytes: int = 50 * 1024 * 1024
    public_url: str | None = None

    def __post_init__(self) -> None:
        for name in ("chain_id", "nonce_lifetime", "max_head_age", "max_result_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"the SMS setting {name} must be positive")
        if self.max_rollback < 0:
            raise ConfigurationError("the SMS setting max_rollback must not be negative")

    @property
    def identity(self) -> Address:
        """The SMS's address."""
        return self.teebroker.address

    @property
    def audience(self) -> str:
        """What signed requests to this SMS are addressed to."""
        return f"sms:{self.chain_id}:{self.hub}"
