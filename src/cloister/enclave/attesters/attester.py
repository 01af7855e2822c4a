"""The one interface of the hardware: have report data signed."""

from __future__ import annotations

from typing import Protocol

from cloister.attestation.evidence import Evidence


class Attester(Protocol):
    """A platform that can be asked for evidence about this very enclave."""

    def attest(self, report_data: bytes, *, now: int) -> Evidence:
        """Have 64 bytes of report data signed at ``now`` (unix seconds).

        Raises:
            UnavailableError: the platform does not answer.
        """
        ...
