"""Checking receipts: which roots and programs a network is known by, and the verdict."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.issuance import MAX_RECEIPT
from cloister.attestation.policy import AnyOf, AppraisalPolicy, EnclavePolicy
from cloister.attestation.receipt import Receipt, VerifiedReceipt, parse_receipt
from cloister.attestation.receipt import verify_receipt as verify_offline
from cloister.errors import CloisterError, DecodeError, NotFound
from cloister.sdk.home import load_description, network_folder

FILE_NAME = "reference-values.json"
FILE_CAP = 256 * 1024


@dataclass(frozen=True, slots=True)
class KindValues:
    """What evidence of one kind must rest on: trusted root certificates (DER), measurements of programs, and reference
    values of the kind's registers where it has any (``attestation.policy.REQUIRED_REGISTERS``).
    """

    kind: EvidenceKind
    roots: tuple[bytes, ...]
    measurements: frozenset[bytes]
    registers: Mapping[str, frozenset[bytes]] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """As JSON: base64 certificates, hex measurements."""
        registers = {name: sorted(value.hex() for value in values) for name, values in self.registers.items()}
        return {
            "kind": self.kind.value,
            "roots": [base64.b64encode(root).decode() for root in self.roots],
            "measurements": sorted(value.hex() for value in self.measurements),
            **({"registers": registers} if registers else {}),
        }

    @property
    def policy(self) -> EnclavePolicy:
        """For the verifier."""
        roots = frozenset(hashlib.sha256(root).digest() for root in self.roots)
        return EnclavePolicy(self.kind, roots, self.measurements, registers=self.registers)


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """What evidence of a network must rest on, for each kind that it accepts. None accepts nothing."""

    kinds: tuple[KindValues, ...]

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {"kinds": [values.to_json() for values in self.kinds]}

    @property
    def collateral(self) -> Collateral:
        """For the verifier: the trusted roots of every kind."""
        return Collateral(tuple((values.kind, root) for values in self.kinds for root in values.roots))

    @property
    def policy(self) -> AppraisalPolicy:
        """For the verifier."""
        policies = tuple(values.policy for values in self.kinds)
        return policies[0] if len(policies) == 1 else AnyOf(policies)


def reference_values_of(*kinds: KindValues) -> ReferenceValues:
    """The reference values of a network that accepts these kinds."""
    return ReferenceValues(tuple(kinds))


def parse_reference_values(value: object) -> ReferenceValues:
    """Read reference values from JSON.

    Raises:
        DecodeError: another form, or a kind that is not known here.
    """
    try:
        kinds = list(dict(value)["kinds"])  # type: ignore[call-overload]  # anything else fails just below
        return ReferenceValues(tuple(_parse_kind(dict(item)) for item in kinds))
    except CloisterError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DecodeError("these are no reference values", hint=f"a {FILE_NAME} of a network") from error


def _parse_kind(given: dict[str, object]) -> KindValues:
    roots, measurements, registers = given["roots"], given["measurements"], given.get("registers", {})
    if not isinstance(roots, list) or not isinstance(measurements, list) or not isinstance(registers, dict):
        raise TypeError("lists and an object")
    values = KindValues(
        kind=EvidenceKind(str(given["kind"])),
        roots=tuple(base64.b64decode(root, validate=True) for root in roots),
        measurements=frozenset(bytes.fromhex(text) for text in measurements),
        registers={str(name): frozenset(bytes.fromhex(text) for text in texts) for name, texts in registers.items()},
    )
    _ = values.policy  # sizes are told now, and not at the first receipt
    return values


def load_reference_values(network: str) -> ReferenceValues:
    """The reference values of a network: pinned on this machine by name, or by URL as the network's SMS signed them, which is
    held against the ``teebroker`` of its hub. Chain and hub are then those that the URL names; to trust no server in that,
    keep the values in a file.

    Raises:
        NotFound: nothing is pinned here. VerificationError: signed by another than the hub's SMS.
    """
    if network.startswith(("http://", "https://")):
        return _load_signed(network)
    path = network_folder(network) / FILE_NAME
    if not path.exists():
        raise NotFound(
            f"no reference values for network {network} on this machine",
            hint="cloister up, or --network URL, or --roots FILE",
        )
    return read_reference_values(path)


def _load_signed(url: str) -> ReferenceValues:
    from cloister.chain.contracts import Hub
    from cloister.chain.rpc import JsonRpc
    from cloister.sdk.collateral import load_signed_reference

    description = load_description(url)
    hub = Hub(JsonRpc(description.rpc_url), description.contracts.hub)
    broker = hub.contract("teebroker", block="latest")
    signed = load_signed_reference(url, chain_id=description.chain_id, hub=hub.address, sms=broker)
    return parse_reference_values(signed.values)


def read_reference_values(path: Path) -> ReferenceValues:
    """The reference values in a file.

    Raises:
        NotFound: there is no such file. DecodeError: it holds something else.
    """
    if not path.is_file():
        raise NotFound(f"no reference values at {path}")
    try:
        with path.open("rb") as file:
            return parse_reference_values(json.loads(file.read(FILE_CAP)))
    except ValueError as error:
        raise DecodeError(f"{path} is damaged, or holds no reference values") from error


def read_receipt(path: Path) -> bytes:
    """A receipt's bytes, at most one more than a receipt may have.

    Raises:
        NotFound: there is no such file.
    """
    if not path.is_file():
        raise NotFound(f"no receipt at {path}")
    with path.open("rb") as file:
        return file.read(MAX_RECEIPT + 1)


def check_receipt(encoded: bytes, values: ReferenceValues, *, result_digest: bytes | None = None) -> VerifiedReceipt:
    """Prove a receipt offline against reference values.

    Raises:
        DecodeError: it does not parse. VerificationError: a check fails. PolicyRejected: it rests on something else.
    """
    return verify_offline(
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
