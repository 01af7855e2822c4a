"""Claims: what a verifier read out of evidence whose signatures hold. They are facts, not yet a yes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from cloister.attestation.evidence import EvidenceKind

Attribute = bool | int | str


class TcbStatus(StrEnum):
    """How a platform's firmware stands to its vendor's list, in Intel's words; other vendors' are put in the same."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    TD_RELAUNCH_ADVISED = "TDRelaunchAdvised"
    """The platform is up to date again, but this TD was started before."""
    TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED = "TDRelaunchAdvisedConfigurationNeeded"
    REVOKED = "Revoked"


@dataclass(frozen=True, slots=True)
class Tcb:
    """The platform's level. ``out_of_date_since``: unix seconds of the day on which the vendor's list first had a newer
    level that counts as up to date; None when this one does, or when the list gives no day. ``versions`` are the raw
    numbers by name.
    """

    status: TcbStatus
    advisories: frozenset[str] = frozenset()
    out_of_date_since: int | None = None
    versions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Claims:
    """What the hardware said.

    ``measurement`` is the kind's main one (``policy.MEASUREMENT_SIZES``), ``registers`` every other by its vendor's name
    in lower case (``rtmr1``, ``mrsigner``, ``pcr9``). ``report_data`` has 64 bytes. ``root`` is the SHA-256 of the root
    certificate (DER). ``platform`` names the machine: equal for two pieces of evidence of one machine.
    ``issued_at``: unix seconds, None where the hardware has no clock and freshness rests on the nonce alone.
    ``app_digest``: the digest that was extended into the hardware before the app was loaded, None where the kind has
    only report data for it. ``tcb`` is None for kinds without a vendor's list; ``svn`` is theirs.
    ``attributes``: whatever else a policy may rule on (``vmpl``, ``migration_agent``, ``smt``).
    """

    kind: EvidenceKind
    measurement: bytes
    report_data: bytes
    debug: bool
    root: bytes
    platform: bytes
    svn: int = 0
    issued_at: int | None = None
    app_digest: bytes | None = None
    registers: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    tcb: Tcb | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def vendor(self) -> str:
        """Whose hardware signs: ``intel``, ``amd``, ``tpm`` or ``software``."""
        return VENDORS[self.kind]


VENDORS = {
    EvidenceKind.SIMULATED: "software",
    EvidenceKind.TDX: "intel",
    EvidenceKind.SGX: "intel",
    EvidenceKind.SNP: "amd",
    EvidenceKind.SNP_VTPM: "amd",
    EvidenceKind.TPM: "tpm",
}
