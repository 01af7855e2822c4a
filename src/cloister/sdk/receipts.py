"""Checking receipts: which roots and programs a network is known by, and the verdict."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass

from cloister.attestation.collateral import Collateral, simulated_collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.receipt import Receipt, VerifiedReceipt, parse_receipt, verify_receipt
from cloister.attestation.verifiers.simulated import build_root_fingerprint
from cloister.errors import DecodeError, NotFound
from cloister.sdk.home import network_folder
from cloister.transport import Http

FILE_NAME = "reference-values.json"
FILE_CAP = 256 * 1024
RECEIPT_YEARS = 100 * 365 * 86400
"""Appraisal of a receipt looks at the time the task started, so evidence need not be fresh today."""


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What evidence must rest on: trusted root certificates (DER) and measurements of programs, of one kind."""

    kind: EvidenceKind
    roots: tuple[bytes, ...]
    measurements: frozenset[bytes]

    def to_json(self) -> dict[str, object]:
        """As JSON: base64 certificates, hex measurements."""
        return {
            "kind": self.kind.value,
            "roots": [base64.b64encode(root).decode() for root in self.roots],
            "measurements": sorted(value.hex() for value in self.measurements),
        }

    @property
    def collateral(self) -> Collateral:
        """For the verifier."""
        return simulated_collateral(self.roots)

    @property
    def policy(self) -> EnclavePolicy:
        """For the verifier."""
        roots = frozenset(build_root_fingerprint(root) for root in self.roots)
        return EnclavePolicy(self.kind, roots, self.measurements)


def parse_reference_values(value: object) -> ReferenceValues:
    """Read reference values from JSON.

    Raises:
        DecodeError: another form, or a kind that is not known here.
    """
    try:
        given = dict(value)  # type: ignore[call-overload]  # anything else fails just below
        return ReferenceValues(
            kind=EvidenceKind(given["kind"]),
            roots=tuple(base64.b64decode(root, validate=True) for root in given["roots"]),
            measurements=frozenset(bytes.fromhex(text) for text in given["measurements"]),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise DecodeError("these are no reference values") from error


def load_reference_values(network: str) -> ReferenceValues:
    """The reference values of a network: pinned on this machine by name, or as the network itself says by URL.

    Raises:
        NotFound: nothing is pinned here.
    """
    if network.startswith(("http://", "https://")):
        return parse_reference_values(Http(network, max_response=FILE_CAP).json("GET", f"/-/{FILE_NAME}"))
    path = network_folder(network) / FILE_NAME
    if not path.exists():
        raise NotFound(
            f"no reference values for network {network} on this machine", hint="cloister up, or --network URL"
        )
    try:
        return parse_reference_values(json.loads(path.read_text()))
    except ValueError as error:
        raise DecodeError(f"{path} is damaged") from error


def check_receipt(encoded: bytes, values: ReferenceValues, *, result_digest: bytes | None = None) -> VerifiedReceipt:
    """Prove a receipt offline against reference values.

    Raises:
        DecodeError: it does not parse. VerificationError: a check fails. PolicyRejected: it rests on something else.
    """
    return verify_receipt(
        encoded,
        policy=values.policy,
        collateral=values.collateral,
        now=int(time.time()),
        expected_result_digest=result_digest,
    )


@dataclass(frozen=True, slots=True)
class ResultReceipt:
    """The receipt inside a result. It proves nothing until ``verify`` has answered."""

    encoded: bytes
    network: str
    result_digest: bytes

    @property
    def unverified(self) -> Receipt:
        """The receipt as it parses."""
        return parse_receipt(self.encoded)

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on this receipt."""
        return self.unverified.warning

    def verify(self) -> VerifiedReceipt:
        """Prove it, and that it is for the result digest on chain."""
        return check_receipt(self.encoded, load_reference_values(self.network), result_digest=self.result_digest)
