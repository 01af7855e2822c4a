"""Standing policies: what a data owner demands of every enclave that gets the data, whatever a grant says.

The owner signs EIP-712 typed data under the hub's domain. ``policy`` is the hash of the hardware rules, zero for none;
versions of one owner only grow, so that an older word of theirs never replaces a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, VerificationError, quoted
from cloister.protocol.codec import (
    ZERO_BYTES32,
    Address,
    Bytes32,
    check_keys,
    check_uint,
    parse_address,
    parse_hex,
    parse_uint,
    parse_word,
    to_hex,
)
from cloister.protocol.eip712 import Domain, Types, typed_data_digest
from cloister.protocol.policies import HARDWARE_CAP
from cloister.protocol.signatures import PrivateKey, recover_address

TYPE: Final = "DataPolicy"
TYPES: Final[Types] = {
    TYPE: (("dataset", "address"), ("policy", "bytes32"), ("version", "uint256"), ("issuedAt", "uint256"))
}
SIGNATURE_CAP: Final = 2048
"""Longest signature in bytes: contracts that own data may need long ones."""
PUT_CAP: Final = HARDWARE_CAP + 8 * 1024
"""Longest body of a request that sets a policy, in bytes."""
_NUMBER_MAX: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class DataPolicy:
    """What is signed. ``issued_at`` is unix seconds."""

    dataset: Address
    policy: Bytes32
    version: int
    issued_at: int

    def __post_init__(self) -> None:
        check_uint("version", self.version, maximum=_NUMBER_MAX)
        check_uint("issued_at", self.issued_at, maximum=_NUMBER_MAX)

    @property
    def lifted(self) -> bool:
        """Whether it says that nothing is demanded any more."""
        return self.policy == ZERO_BYTES32

    def digest(self, domain: Domain) -> Bytes32:
        """Return the 32 bytes that the owner signs."""
        message: dict[str, object] = {
            "dataset": self.dataset,
            "policy": self.policy,
            "version": self.version,
            "issuedAt": self.issued_at,
        }
        return Bytes32.from_raw(typed_data_digest(TYPES, TYPE, domain, message))


@dataclass(frozen=True, slots=True)
class SignedDataPolicy:
    """A statement, the rules that it names (parsed JSON, None when it lifts them) and the owner's signature."""

    statement: DataPolicy
    rules: dict[str, object] | None
    signature: bytes

    def to_json(self) -> dict[str, object]:
        """As the body that sets it."""
        return {
            "policy": self.rules,
            "version": self.statement.version,
            "issued_at": self.statement.issued_at,
            "signature": to_hex(self.signature),
        }


@dataclass(frozen=True, slots=True)
class DataPolicyBody:
    """The body of a request that sets a policy, before its rules are read and hashed."""

    rules: dict[str, object] | None
    version: int
    issued_at: int
    signature: bytes


def parse_data_policy_body(value: object) -> DataPolicyBody:
    """Read the body that ``SignedDataPolicy.to_json`` writes.

    Raises:
        DecodeError: a missing, unknown or unreadable member.
    """
    given = check_keys("data policy", value, required=("policy", "version", "issued_at", "signature"))
    rules = given["policy"]
    if rules is not None and not isinstance(rules, dict):
        raise DecodeError(f"data policy: policy is no object: {quoted(rules)}")
    return DataPolicyBody(
        rules,
        parse_uint("version", given["version"], maximum=_NUMBER_MAX),
        parse_uint("issued_at", given["issued_at"], maximum=_NUMBER_MAX),
        parse_hex(given["signature"], cap=SIGNATURE_CAP),
    )


def parse_shown_data_policy(value: object, dataset: Address) -> SignedDataPolicy:
    """Read what the SMS shows of a dataset's policy. Neither signature nor hash is checked here.

    Raises:
        DecodeError: a missing, unknown or unreadable member, or another dataset's.
    """
    names = ("dataset", "owner", "hash", "policy", "version", "issued_at", "signature")
    given = dict(check_keys("data policy", value, required=names))
    shown, _, policy = parse_address("dataset", given.pop("dataset")), given.pop("owner"), given.pop("hash")
    if shown != dataset:
        raise DecodeError(f"the policy is of {shown}, not of {dataset}")
    body = parse_data_policy_body(given)
    statement = DataPolicy(dataset, parse_word("hash", policy), body.version, body.issued_at)
    return SignedDataPolicy(statement, body.rules, body.signature)


def sign_data_policy(
    statement: DataPolicy, rules: dict[str, object] | None, key: PrivateKey, domain: Domain
) -> SignedDataPolicy:
    """Sign a statement whose ``policy`` is the hash of ``rules``."""
    return SignedDataPolicy(statement, rules, key.sign_digest(statement.digest(domain).raw))


def verify_data_policy(signed: SignedDataPolicy, owner: Address, domain: Domain) -> SignedDataPolicy:
    """Return the policy when ``owner``, an account without code, signed it. Contracts are the chain's to judge.

    Raises:
        VerificationError: somebody else signed it, or nobody.
    """
    signer = recover_address(signed.statement.digest(domain).raw, signed.signature)
    if signer != owner:
        raise VerificationError("the policy is not signed by the data's owner", code="wrong-signer")
    return signed
