"""TPM 2.0 evidence of a machine with measured boot: a quote, the keys' certificates and the firmware's event log.

The numbered checks:

1. the payload has its one form (``tpm.payload``);
2. one trusted root issued both certificates, they are in force and not revoked, and the attestation key is in the TPM of
   that endorsement key (``tpm.certificates``);
3. the attestation key signed the quote, over exactly the registers given (``tpm.quoting``), and these are the ones asked;
4. the quote's extraData is the hash of the report data;
5. the app register was extended once, with the app digest given;
6. the event log accounts for every register of the boot.

It proves what was booted, not that memory is closed to the host: a software or a passed-through TPM is as honest as who
runs it. ``attestation.assurance`` tells people so.
"""

from __future__ import annotations

import hmac
from types import MappingProxyType

from cloister.attestation.claims import Attribute, Claims
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.tpm.boot import describe_boot
from cloister.attestation.tpm.certificates import verify_identity
from cloister.attestation.tpm.events import parse_event_log, verify_replay
from cloister.attestation.tpm.payload import (
    APP_PCR,
    BOOT_PCRS,
    QUOTED_PCRS,
    build_app_pcr,
    build_boot_measurement,
    build_qualifying_data,
    parse_tpm_payload,
)
from cloister.attestation.tpm.quoting import verify_quote
from cloister.attestation.tpm.structures import Quote
from cloister.errors import VerificationError


def verify_tpm(payload: bytes, collateral: Collateral, now: int) -> Claims:
    """Check a TPM's evidence; answer with what it says of the boot and the app. ``now``: unix seconds.

    ``measurement`` is ``build_boot_measurement``; ``registers`` are ``pcr0`` and so on; ``platform`` is the SHA-256 of the
    endorsement key.

    Raises:
        DecodeError, VerificationError: ``code`` names the check (``tpm.*`` list theirs); here ``quote-selection``,
            ``quote-binding`` (check 4), ``app-register-mismatch`` (5), ``event-log-mismatch`` (6).
    """
    given = parse_tpm_payload(payload)
    identity = verify_identity(given.ak_certificate, given.ek_certificate, collateral, now)
    quote = verify_quote(identity.attestation_key, given.attest, given.signature, given.pcrs)
    if quote.pcrs != QUOTED_PCRS:
        raise VerificationError("the quote selects other registers than the ones asked for", code="quote-selection")
    if not hmac.compare_digest(quote.extra_data, build_qualifying_data(given.report_data)):
        raise VerificationError("the quote is bound to other report data", code="quote-binding")
    if not hmac.compare_digest(given.pcrs[APP_PCR], build_app_pcr(given.app_digest)):
        raise VerificationError(
            "the app's register does not hold exactly the one app digest given", code="app-register-mismatch"
        )
    events = parse_event_log(given.event_log)
    verify_replay(events, {index: given.pcrs[index] for index in BOOT_PCRS})
    attributes: dict[str, Attribute] = {
        "crl_checked": identity.crl_checked,
        **describe_quote(quote),
        **describe_boot(events),
    }
    return Claims(
        kind=EvidenceKind.TPM,
        measurement=build_boot_measurement(given.pcrs),
        report_data=given.report_data,
        debug=False,
        root=identity.root,
        platform=identity.platform,
        app_digest=given.app_digest,
        registers=MappingProxyType({f"pcr{index}": given.pcrs[index] for index in quote.pcrs}),
        attributes=MappingProxyType(attributes),
    )


def describe_quote(quote: Quote) -> dict[str, Attribute]:
    """What a quote tells of its TPM: ``reset_count``, ``restart_count``, ``clock_safe``, ``firmware_version`` (hex)."""
    return {
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
        "clock_safe": quote.clock_safe,
        "firmware_version": f"{quote.firmware_version:016x}",
    }
