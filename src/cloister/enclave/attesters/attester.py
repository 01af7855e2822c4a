"""The one interface of the hardware: take the app's digest in, have report data signed."""

from __future__ import annotations

from typing import Protocol

from cloister.attestation.evidence import Evidence


class Attester(Protocol):
    """A platform that can be asked for evidence about this very enclave."""

    def measure_app(self, digest: bytes) -> None:
        """Take in the 32-byte digest of the app, before the app is unpacked or loaded.

        Hardware with a register for it extends the register, so that no later program can take it back; other kinds have
        the digest in their report data alone and do nothing here. The same digest again does nothing; an enclave has
        one app.

        Raises:
            VerificationError: the register was used before, by whatever ran ahead of this program.
            UnavailableError: the platform does not answer. RemoteError: it answers with an error or with nonsense.
        """
        ...

    def attest(self, report_data: bytes, *, now: int) -> Evidence:
        """Have 64 bytes of report data signed at ``now`` (unix seconds). ``measure_app`` comes first.

        Raises:
            UnavailableError: the platform does not answer. RemoteError: it answers with an error or with nonsense.
        """
        ...
