"""Access policies: what a data owner adds to a grant beyond price, count and whom.

The policy's hash stands in the ``salt`` of the dataset order: 4 bytes of tag, then the first 28 bytes of the hash. So
the owner's one signature covers order and policy, iExec's contract and clients see a normal order, and an SMS that
meets the tag without the policy refuses. The policy's own ``nonce`` keeps two grants of one policy apart (equal
orders would share one count) and keeps its content from being guessed from the salt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, InputError, PolicyRejected, VerificationError, quoted
from cloister.protocol.codec import (
    Bytes32,
    canonical_json,
    check_keys,
    check_uint,
    parse_hex,
    parse_json,
    parse_uint,
    to_hex,
)
from cloister.protocol.params import check_purpose

VERSION: Final = 1
HARDWARE_VERSION: Final = 2
"""Version of a policy that has hardware rules; one without them keeps version 1, its spelling and its hash."""
LOGS_VERSION: Final = 3
"""Version of a policy that allows logs, with hardware rules or without; every other keeps its version."""
SALT_TAG: Final = bytes.fromhex("636c6f31")
"""ASCII ``clo1``."""
NONCE_LENGTH: Final = 16
LIST_CAP: Final = 32
HARDWARE_CAP: Final = 16 * 1024
"""Longest hardware rules in bytes of canonical JSON."""
POLICY_CAP: Final = HARDWARE_CAP + 8 * 1024
_HASH_DOMAIN: Final = b"cloister/access-policy/v1"
_TIME_MAX: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """When, for what, on which hardware and with how much output protected data may be used.

    Times are unix seconds: usable when ``valid_from <= now < valid_until``; None leaves that side open. Empty
    ``purposes`` allow any purpose. Empty ``enclaves`` leave the kind of evidence to the SMS's own appraisal; kinds that
    are named must be met as well. ``max_result_bytes`` bounds what one task may put out. ``nonce`` is 16 random bytes.
    ``hardware``: rules for the evidence as canonical JSON of an object; ``attestation.rules`` says what they mean, and
    whoever releases a key must judge them (``PolicyCleared.hardware``). ``logs``: whoever runs the app may read what it
    prints, in the sealed result.

    Raises:
        InputError: times that never hold, a malformed name, an empty or oversized list, rules that are no canonical JSON.
    """

    nonce: bytes
    valid_from: int | None = None
    valid_until: int | None = None
    purposes: tuple[str, ...] = ()
    enclaves: tuple[str, ...] = ()
    max_result_bytes: int | None = None
    hardware: str | None = None
    logs: bool = False

    def __post_init__(self) -> None:
        if len(self.nonce) != NONCE_LENGTH:
            raise InputError(f"a policy nonce has {NONCE_LENGTH} bytes")
        for name in ("valid_from", "valid_until", "max_result_bytes"):
            if (value := getattr(self, name)) is not None:
                check_uint(name, value, maximum=_TIME_MAX)
        if self.valid_from is not None and self.valid_until is not None and self.valid_from >= self.valid_until:
            raise InputError(f"the policy is never valid: from {self.valid_from} until {self.valid_until}")
        object.__setattr__(self, "purposes", _check_names("purposes", self.purposes))
        object.__setattr__(self, "enclaves", _check_names("enclaves", self.enclaves))
        if self.hardware is not None:
            _check_hardware(self.hardware)

    def to_json(self) -> dict[str, object]:
        """Return the policy as JSON members; every member of its version is always there."""
        members: dict[str, object] = {
            "version": _version(hardware=self.hardware is not None, logs=self.logs),
            "nonce": to_hex(self.nonce),
            "valid_from": self.valid_from,
            "valid_until": self.valid_until,
            "purposes": list(self.purposes),
            "enclaves": list(self.enclaves),
            "max_result_bytes": self.max_result_bytes,
        }
        if self.hardware is not None:
            members["hardware"] = parse_json(self.hardware)
        if self.logs:
            members["logs"] = True
        return members

    def hash(self) -> Bytes32:
        """Return SHA-256 of the domain ``cloister/access-policy/v1`` and the canonical JSON."""
        return Bytes32.from_raw(hashlib.sha256(_HASH_DOMAIN + canonical_json(self.to_json())).digest())


def _version(*, hardware: bool, logs: bool) -> int:
    """The least version that says it all: a policy that says no more than before has the hash that it had."""
    if logs:
        return LOGS_VERSION
    return HARDWARE_VERSION if hardware else VERSION


def _check_hardware(text: str) -> None:
    try:
        value = parse_json(text, cap=HARDWARE_CAP)
    except DecodeError as error:
        raise InputError(f"the hardware rules cannot be read: {error.message}") from error
    if not isinstance(value, dict) or canonical_json(value).decode("utf-8") != text:
        raise InputError("the hardware rules are not the canonical json of an object")


def _check_names(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Check a list of names and sort it: a list that is hashed has one order."""
    names = tuple(sorted({check_purpose(value) for value in values}))
    if len(names) > LIST_CAP:
        raise InputError(f"{name}: more than {LIST_CAP}")
    return names


def _parse_names(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > LIST_CAP:
        raise DecodeError(f"{name}: expected a list of at most {LIST_CAP} names")
    names = _check_names(name, value)
    if list(names) != value:
        raise DecodeError(f"{name}: expected sorted names, each once")
    return names


def parse_policy(value: object) -> AccessPolicy:
    """Read a policy from parsed JSON. Only the spelling that ``to_json`` writes is accepted: it is what was hashed.

    Raises:
        DecodeError, InputError: a missing, unknown or unreadable member.
    """
    keys = ("version", "nonce", "valid_from", "valid_until", "purposes", "enclaves", "max_result_bytes")
    given = check_keys("policy", value, required=keys, optional=["hardware", "logs"])
    wanted = _version(hardware="hardware" in given, logs="logs" in given)
    if given["version"] != wanted or isinstance(given["version"], bool):
        raise DecodeError(f"policy: version {quoted(given['version'])} is not {wanted}")
    hardware = None
    if "hardware" in given:
        if not isinstance(given["hardware"], dict):
            raise DecodeError("policy: hardware is no object")
        hardware = canonical_json(given["hardware"]).decode("utf-8")
    if given.get("logs", True) is not True:
        raise DecodeError("policy: logs is there and not true")
    numbers: dict[str, int | None] = {}
    for name in ("valid_from", "valid_until", "max_result_bytes"):
        number = given[name]
        numbers[name] = None if number is None else parse_uint(name, number, maximum=_TIME_MAX)
    return AccessPolicy(
        nonce=parse_hex(given["nonce"], length=NONCE_LENGTH),
        purposes=_parse_names("purposes", given["purposes"]),
        enclaves=_parse_names("enclaves", given["enclaves"]),
        hardware=hardware,
        logs="logs" in given,
        **numbers,
    )


def policy_salt(policy: AccessPolicy) -> Bytes32:
    """Return the salt of a dataset order that is bound to the policy."""
    return Bytes32.from_raw(SALT_TAG + policy.hash().raw[:28])


def salt_names_policy(salt: Bytes32) -> bool:
    """Whether an order with this salt must not be honoured without its policy."""
    return salt.raw.startswith(SALT_TAG)


def verify_policy_salt(policy: AccessPolicy, salt: Bytes32) -> AccessPolicy:
    """Return the policy when it is the one that the order's salt names.

    Raises:
        VerificationError: another policy, or a salt without a policy.
    """
    if policy_salt(policy) != salt:
        raise VerificationError(f"policy {policy.hash()} is not the one of salt {salt}", code="wrong-policy")
    return policy


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What is known at the moment of key release.

    ``now`` is unix seconds. ``purpose`` is what the signed request says the run is for (``cloister_purpose``);
    ``app_purposes`` is what the app's measured manifest says it is for; ``enclave`` the kind of evidence appraised.
    """

    now: int
    enclave: str
    purpose: str | None = None
    app_purposes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyCleared:
    """Proof that the policy allows the use at ``now``, and what binds the enclave. Built only by ``check_policy``.

    ``hardware``: rules that the evidence must still meet before anything is released; None where there are none. ``logs``:
    whoever runs the app may read what it prints.
    """

    policy_hash: Bytes32
    now: int
    max_result_bytes: int | None
    hardware: str | None = None
    logs: bool = False


def check_policy(policy: AccessPolicy, facts: PolicyFacts) -> PolicyCleared:
    """Decide whether protected data may be used now.

    Where a policy names purposes, the request must name one of them and the app must be made for it: a requester cannot
    give an app a purpose that its author did not.

    Raises:
        PolicyRejected: with the code ``not-yet-valid``, ``no-longer-valid``, ``purpose-missing``, ``purpose-refused``,
            ``app-purpose-refused`` or ``enclave-refused``.
    """
    if policy.valid_from is not None and facts.now < policy.valid_from:
        raise PolicyRejected(f"access opens at {policy.valid_from}, it is {facts.now}", code="not-yet-valid")
    if policy.valid_until is not None and facts.now >= policy.valid_until:
        raise PolicyRejected(f"access ended at {policy.valid_until}, it is {facts.now}", code="no-longer-valid")
    if policy.purposes:
        allowed = ", ".join(policy.purposes)
        if facts.purpose is None:
            raise PolicyRejected("the request names no purpose", code="purpose-missing", hint=f"allowed: {allowed}")
        if facts.purpose not in policy.purposes:
            raise PolicyRejected(
                f"purpose {quoted(facts.purpose)} is not allowed", code="purpose-refused", hint=f"allowed: {allowed}"
            )
        if facts.purpose not in facts.app_purposes:
            raise PolicyRejected(
                f"the app is not made for the purpose {quoted(facts.purpose)}", code="app-purpose-refused"
            )
    if policy.enclaves and facts.enclave not in policy.enclaves:
        raise PolicyRejected(f"enclaves of the kind {quoted(facts.enclave)} are not allowed", code="enclave-refused")
    return PolicyCleared(policy.hash(), facts.now, policy.max_result_bytes, policy.hardware, policy.logs)
