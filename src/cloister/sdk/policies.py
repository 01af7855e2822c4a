"""Hardware rules of data owners: read from a file, explained on evidence, signed as a standing policy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.rules import RULES_CAP, Rules, parse_rules
from cloister.attestation.verdicts import Verdict
from cloister.errors import DecodeError, Denied, InputError, NotFound, VerificationError
from cloister.protocol.codec import ZERO_BYTES32, Address, Bytes32, parse_json
from cloister.protocol.data_policies import DataPolicy, SignedDataPolicy, sign_data_policy, verify_data_policy
from cloister.sdk.connection import Connection

if TYPE_CHECKING:
    from cloister.sdk.evidence import Exhibit

RulesGiven = Rules | Mapping[str, Any]
_FILE_CAP = 4 * RULES_CAP
"""Longest file: people write spaces, and the rules themselves are capped by the parser."""


@dataclass(frozen=True, slots=True)
class StandingPolicy:
    """What the present owner of data demands of every enclave; ``rules`` is None where they lifted it."""

    dataset: Address
    owner: Address
    policy_hash: Bytes32
    rules: dict[str, object] | None
    version: int
    issued_at: int

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {
            "protected_data": self.dataset,
            "owner": self.owner,
            "hash": self.policy_hash,
            "policy": self.rules,
            "version": self.version,
            "issued_at": self.issued_at,
        }


class Policies:
    """Standing policies over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def set(self, protected_data: str, rules: RulesGiven | None) -> StandingPolicy:
        """Sign rules that bind every later release of the data's key; None lifts them.

        Raises:
            NotFound: no such data. Denied: the wallet does not own it. InputError, DecodeError: unusable rules.
        """
        connection, dataset = self._connection, Address(protected_data)
        owner = self._owner(dataset)
        if owner != connection.address:
            raise Denied(f"{dataset} belongs to {owner}, not to {connection.address}", hint="use its owner's wallet")
        parsed = None if rules is None else check_rules(rules)
        try:
            version = self.show(dataset).version + 1
        except NotFound:
            version = 1
        statement = DataPolicy(dataset, rules_hash(parsed), version, int(time.time()))
        document = None if parsed is None else parsed.to_json()
        signed = sign_data_policy(statement, document, connection.signer, connection.domain)
        connection.sms.put_data_policy(signed)
        return StandingPolicy(dataset, owner, statement.policy, document, version, statement.issued_at)

    def show(self, protected_data: str) -> StandingPolicy:
        """The policy of the data's present owner, proven to be signed by them.

        Raises:
            NotFound: they set none. DecodeError, VerificationError: the service shows something else.
        """
        connection, dataset = self._connection, Address(protected_data)
        signed = connection.sms.data_policy(dataset)
        owner = self._owner(dataset)
        parsed = None if signed.rules is None else parse_rules(signed.rules)
        if rules_hash(parsed) != signed.statement.policy:
            raise DecodeError("the service shows other rules than those that were signed")
        try:
            verify_data_policy(signed, owner, connection.domain)
        except VerificationError:
            if not connection.rpc.code(owner, block="latest"):
                raise
            # A contract owns the data: the service asked it (ERC-1271) when the policy was set.
        statement = signed.statement
        return StandingPolicy(dataset, owner, statement.policy, signed.rules, statement.version, statement.issued_at)

    def _owner(self, dataset: Address) -> Address:
        owner = self._connection.datasets.owner_of_entry(dataset, block="latest")
        if owner is None:
            raise NotFound(f"no protected data at {dataset}", hint="check the address, and the network")
        return owner


def load_rules(path: Path) -> Rules:
    """Read rules from a JSON file.

    Raises:
        NotFound: no such file. DecodeError, TooLarge: it holds no rules; the message names the path inside it.
    """
    from cloister.sdk.evidence import load_file

    return parse_rules(parse_json(load_file(path, _FILE_CAP), cap=_FILE_CAP))


def check_rules(rules: RulesGiven) -> Rules:
    """Read rules that shall bind: those that could never be met are refused here, before they lock data away.

    Raises:
        DecodeError, TooLarge: they do not parse. InputError: reference values are missing.
    """
    parsed = rules if isinstance(rules, Rules) else parse_rules(rules)
    if parsed.gaps:
        raise InputError(
            f"reference values are missing, so nothing would ever pass: {', '.join(parsed.gaps[:4])}",
            hint='give the values, or the word "any" to leave them to the network',
        )
    return parsed


def rules_hash(rules: Rules | None) -> Bytes32:
    """What an owner signs: the hash of the rules, zero where there are none."""
    return ZERO_BYTES32 if rules is None else Bytes32.from_raw(rules.digest)


def judge_exhibit(rules: Rules, exhibit: Exhibit) -> Verdict:
    """Judge evidence by rules, over the roots with which it is verified.

    Raises:
        DecodeError, VerificationError: the evidence itself does not hold.
    """
    claims = exhibit.claims()
    roots: dict[EvidenceKind, frozenset[bytes]] = {claims.kind: frozenset({claims.root})}
    return rules.policy(roots).judge(claims, exhibit.at)


__all__ = ["Policies", "SignedDataPolicy", "StandingPolicy", "check_rules", "judge_exhibit", "load_rules", "rules_hash"]
