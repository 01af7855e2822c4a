"""Attester for a machine that measured its boot into a TPM 2.0, discrete, firmware or emulated.

The TPM was enrolled before: its attestation key lies at a persistent handle, both certificates in NV. This module only
extends the app's register, reads registers and certificates, and asks for a quote. What ran before this program stands
in the boot registers and the firmware's event log; the verifier judges it.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.tpm.payload import (
    APP_PCR,
    MAX_EVENT_LOG,
    QUOTED_PCRS,
    build_app_pcr,
    build_qualifying_data,
    build_tpm_payload,
)
from cloister.enclave.attesters.tpm_commands import DIGEST_SIZE, extend_pcr, quote_pcrs, read_nv, read_pcrs
from cloister.enclave.attesters.transceivers import Transceiver
from cloister.errors import LocalError, RemoteError, UnavailableError, VerificationError

AK_HANDLE = 0x81010002
"""The attestation key, persistent in the range of the endorsement hierarchy (TCG Registry of Reserved TPM 2.0 Handles)."""
EK_CERTIFICATE_INDEX = 0x01C0000A
"""ECC P-256 endorsement key certificate (TCG EK Credential Profile, section 2.2.1.5)."""
AK_CERTIFICATE_INDEX = 0x01800002
"""The attestation key's, in the range that the registry leaves to the TPM's owner (0x01800000 to 0x01bfffff)."""
EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
_UNTOUCHED = bytes(DIGEST_SIZE)
_ATTEMPTS = 3


class TpmAttester:
    """Implements ``Attester``. Not safe to use from several threads."""

    __slots__ = ("_app", "_event_log", "_tpm")

    def __init__(self, tpm: Transceiver, event_log: Path = EVENT_LOG) -> None:
        self._tpm = tpm
        self._event_log = event_log
        self._app: bytes | None = None

    def measure_app(self, digest: bytes) -> None:
        """Extend PCR 15, which must be as the boot left it: all zero."""
        if len(digest) != DIGEST_SIZE:
            raise LocalError(f"an app digest has {DIGEST_SIZE} bytes, not {len(digest)}")
        if self._app is not None:
            if not hmac.compare_digest(self._app, digest):
                raise VerificationError("another app was measured in this enclave before", code="app-register-used")
            return
        if self._read_app_register() != _UNTOUCHED:
            raise VerificationError(
                f"PCR {APP_PCR} is not as the boot leaves it: something was measured there before the app",
                code="app-register-used",
                hint="start the machine anew: each of its lives has one app",
            )
        extend_pcr(self._tpm, APP_PCR, digest)
        if self._read_app_register() != build_app_pcr(digest):
            raise VerificationError(f"PCR {APP_PCR} does not hold the app's digest alone", code="app-register-used")
        self._app = bytes(digest)

    def _read_app_register(self) -> bytes:
        return read_pcrs(self._tpm, (APP_PCR,))[APP_PCR]

    def attest(self, report_data: bytes, *, now: int) -> Evidence:
        """Quote boot and app registers. ``now`` is not used: a TPM has its own clock, and freshness is the nonce's."""
        if self._app is None:
            raise LocalError("the app is measured before evidence is asked for")
        event_log = self._read_event_log()
        qualifying = build_qualifying_data(report_data)
        for _ in range(_ATTEMPTS):
            pcrs = read_pcrs(self._tpm, QUOTED_PCRS)
            attest, signature = quote_pcrs(self._tpm, AK_HANDLE, qualifying, QUOTED_PCRS)
            digest = hashlib.sha256(b"".join(pcrs[index] for index in sorted(pcrs))).digest()
            # TPMS_QUOTE_INFO ends with the digest: a register that moved between the two commands shows here.
            if attest.endswith(digest):
                break
        else:
            raise UnavailableError("the TPM's registers do not stand still")
        payload = build_tpm_payload(
            ak_certificate=read_nv(self._tpm, AK_CERTIFICATE_INDEX),
            ek_certificate=read_nv(self._tpm, EK_CERTIFICATE_INDEX),
            attest=attest,
            signature=signature,
            pcrs=dict(pcrs),
            event_log=event_log,
            report_data=report_data,
            app_digest=self._app,
        )
        return Evidence(EvidenceKind.TPM, payload)

    def _read_event_log(self) -> bytes:
        """The firmware's log, which explains the boot registers; nothing stands for it."""
        try:
            with self._event_log.open("rb") as file:
                content = file.read(MAX_EVENT_LOG + 1)
        except OSError as error:
            raise UnavailableError(
                f"the boot's event log {self._event_log} is not readable: {error.strerror}",
                hint="the firmware must measure the boot, and securityfs must be mounted",
            ) from error
        if len(content) > MAX_EVENT_LOG:
            raise RemoteError(
                f"the boot's event log is over the cap of {MAX_EVENT_LOG} bytes", code="event-log-too-large"
            )
        return content
