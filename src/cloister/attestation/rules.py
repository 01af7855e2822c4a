"""Rules that a data owner writes: JSON in, a policy out. They only narrow what the SMS's own policy accepts.

One enclave is an object with ``kind`` and its reference values::

    {"kind": "tdx", "measurements": ["<hex>", "set:release-1"],
     "registers": {"rtmr1": ["<hex>"], "rtmr2": "any"},
     "tcb": {"statuses": ["UpToDate"], "grace_days": 30, "min": {"<name>": 5}, "min_evaluation_number": 17},
     "advisories": {"allow": ["INTEL-SA-00289"], "deny": []}, "platforms": ["<hex>"], "vendors": ["intel"],
     "attributes": {"smt": false}, "min_svn": 1, "max_age": 600}

Only ``kind`` must be there, but without reference values an enclave is refused. Objects ``{"any_of": […]}`` and
``{"all_of": […]}`` combine them. The outermost one may also have ``version`` (1), ``sets`` (reference values by name) and
``distinct`` (``"platform"`` or ``"vendor"``: no two workers of one replicated task share it). ``"any"`` is the explicit
word for a check that is not wanted. There is no word for roots or for debug mode: neither is an owner's to loosen.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cloister.attestation.claims import VENDORS, TcbStatus
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import (
    DEFAULT_MAX_AGE,
    MEASUREMENT_SIZES,
    PLATFORM_SIZE,
    REQUIRED_REGISTERS,
    AllOf,
    AnyOf,
    AppraisalPolicy,
    EnclavePolicy,
    References,
    register_size,
)
from cloister.attestation.rule_values import NAME, Members, Place, load_object
from cloister.attestation.tcb import ANY, DAY, AdvisoryRule, Anything, TcbRule
from cloister.errors import TooLarge

VERSION: Final = 1
RULES_CAP: Final = 16 * 1024
"""Longest canonical JSON, in bytes."""
DEPTH_CAP: Final = 8
WIDTH_CAP: Final = 64
"""Most elements of one list or object."""
MAX_GRACE_DAYS: Final = 3650
_HASH_DOMAIN: Final = b"cloister/hardware-rules/v1"
_SET: Final = "set:"
_COUNT_MAX: Final = 2**32 - 1


class Distinct(StrEnum):
    """What no two workers of one replicated task may share."""

    PLATFORM = "platform"
    VENDOR = "vendor"


@dataclass(frozen=True, slots=True)
class Rules:
    """Parsed rules. ``node`` has no roots: ``policy`` puts them in. ``gaps``: paths of reference values that are missing;
    while there is one, what it stands in denies everything. Built by ``parse_rules`` only.
    """

    node: AppraisalPolicy
    canonical: str
    distinct: Distinct | None = None
    gaps: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the rules in the one spelling that is hashed and signed."""
        value: dict[str, object] = json.loads(self.canonical)
        return value

    @property
    def digest(self) -> bytes:
        """SHA-256 of the domain ``cloister/hardware-rules/v1`` and the canonical JSON."""
        return hashlib.sha256(_HASH_DOMAIN + self.canonical.encode()).digest()

    def policy(self, roots: Mapping[EvidenceKind, frozenset[bytes]]) -> AppraisalPolicy:
        """The policy over these roots (SHA-256 of DER by kind): those of the relying party, never the owner's."""
        return _rooted(self.node, roots)


def parse_rules(value: object) -> Rules:
    """Read rules from parsed JSON. Lists may come in any order and digits in any case; ``to_json`` has one spelling.

    Raises:
        DecodeError: an unknown or missing member, a wrong type or value, twice the same; the message names the path.
        TooLarge: over 16 KiB, wider than 64 or deeper than 8.
    """
    members = load_object(value, Place(""), width=WIDTH_CAP)
    members.version("version", VERSION)
    sets = _parse_sets(members)
    distinct = members.choice("distinct", Distinct, nullable=True)
    reader = _Reader(sets)
    node, form = reader.node(members, 1)
    reader.check_used()
    document: dict[str, object] = {"version": VERSION, **form}
    if sets:
        document["sets"] = {name: sorted(item.hex() for item in sets[name]) for name in sorted(sets)}
    if distinct is not None:
        document["distinct"] = distinct.value
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(canonical.encode()) > RULES_CAP:
        raise TooLarge(
            f"the rules have {len(canonical.encode())} bytes, the cap is {RULES_CAP}", code="rules-too-large"
        )
    return Rules(node, canonical, distinct, tuple(reader.gaps))


def _parse_sets(members: Members) -> dict[str, frozenset[bytes]]:
    found = members.member("sets")
    if found is None:
        return {}
    sets = {}
    for name in found.names():
        if NAME.fullmatch(name) is None:
            raise found.place.at(name).error("is no name of a set", "a-z, 0-9, . _ - and at most 64 characters")
        sets[name] = found.hex_set(name)
    return sets


@dataclass(slots=True)
class _Reader:
    """Reads nodes; remembers which sets were named."""

    sets: Mapping[str, frozenset[bytes]]
    used: set[str] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)

    def node(self, members: Members, depth: int) -> tuple[AppraisalPolicy, dict[str, object]]:
        """Return the policy of one object, and its canonical form."""
        if depth > DEPTH_CAP:
            raise TooLarge(f"{members.place.text} is nested deeper than {DEPTH_CAP}", code="rules-too-large")
        policy: AppraisalPolicy
        given = [name for name in ("any_of", "all_of", "kind") if members.has(name)]
        if len(given) != 1:
            raise members.place.error("needs exactly one of kind, any_of and all_of", 'such as {"kind": "tdx", …}')
        if given[0] == "kind":
            policy, form = self._enclave(members)
        else:
            children = [
                self.node(load_object(item, place, width=WIDTH_CAP), depth + 1)
                for place, item in members.items(given[0])
            ]
            policies = [child for child, _ in children]
            policy = AnyOf(policies) if given[0] == "any_of" else AllOf(policies)
            form = {given[0]: [part for _, part in children]}
        members.check_all_read()
        return policy, form

    def check_used(self) -> None:
        """Refuse a set that no rule names: it is a slip of the pen, and its owner believes that it counts."""
        idle = sorted(set(self.sets) - self.used)
        if idle:
            raise (
                Place("sets").at(idle[0]).error("is named by no rule", f'name it as "{_SET}{idle[0]}", or leave it out')
            )

    def _enclave(self, members: Members) -> tuple[EnclavePolicy, dict[str, object]]:
        kind = members.choice("kind", EvidenceKind)
        assert kind is not None  # noqa: S101 - node() saw it
        form: dict[str, object] = {"kind": kind.value}
        names: dict[bytes, str] = {}
        measurements: References = frozenset()
        if members.has("measurements"):
            size = MEASUREMENT_SIZES[kind]
            measurements, form["measurements"] = self._references(members, "measurements", size, names)
        else:
            self.gaps.append(members.place.at("measurements").path)
        registers: dict[str, References] = {}
        if (given := members.member("registers")) is not None:
            spelled: dict[str, object] = {}
            for name in given.names():
                registers[name], spelled[name] = self._references(given, name, register_size(kind, name), names)
            if spelled:
                form["registers"] = spelled
        place = members.place.at("registers")
        self.gaps += [place.at(name).path for name in REQUIRED_REGISTERS.get(kind, ()) if name not in registers]
        platforms = members.hex_set("platforms", size=PLATFORM_SIZE) if members.has("platforms") else None
        if platforms is not None:
            form["platforms"] = sorted(item.hex() for item in platforms)
        vendors = members.text_set("vendors", among=frozenset(VENDORS.values())) if members.has("vendors") else None
        if vendors is not None:
            form["vendors"] = sorted(vendors)
        tcb = _parse_tcb(members, form)
        advisories = _parse_advisories(members, form)
        attributes = _parse_attributes(members, form)
        numbers = {}
        for name, default, least in (("min_svn", 0, 0), ("max_age", DEFAULT_MAX_AGE, 1)):
            numbers[name] = members.count(name, default, least=least, most=_COUNT_MAX)
            if numbers[name] != default:
                form[name] = numbers[name]
        policy = EnclavePolicy(
            kind=kind,
            roots=frozenset(),
            measurements=measurements,
            registers=registers,
            platforms=platforms,
            vendors=vendors,
            tcb=tcb,
            advisories=advisories,
            attributes=attributes,
            names=names,
            **numbers,
        )
        return policy, form

    def _references(
        self, members: Members, name: str, size: int | None, names: dict[bytes, str]
    ) -> tuple[References, object]:
        """Reference values: ``"any"``, or a list of hex and names of sets."""
        if members.is_any(name):
            return ANY, ANY.value
        found: set[bytes] = set()
        spelled: set[str] = set()
        for place, text in members.texts(name):
            if text.startswith(_SET):
                called = text.removeprefix(_SET)
                if called not in self.sets:
                    raise place.error(f'names the set "{called[:64]}", which is not there', "add it to sets")
                self.used.add(called)
                values, entry = self.sets[called], text
                names.update(dict.fromkeys(values, called))
            else:
                value = place.hex(text)
                values, entry = frozenset({value}), value.hex()
            for value in values:
                place.check_size(value, size)
            if entry in spelled:
                raise place.error("stands there twice", "leave it out")
            spelled.add(entry)
            found |= values
        return frozenset(found), sorted(spelled)


def _parse_tcb(members: Members, form: dict[str, object]) -> TcbRule | None:
    given = members.member("tcb")
    if given is None:
        return None
    spelled: dict[str, object] = {}
    statuses = frozenset({TcbStatus.UP_TO_DATE})
    if given.has("statuses"):
        among = frozenset(status.value for status in TcbStatus if status is not TcbStatus.REVOKED)
        statuses = frozenset(TcbStatus(text) for text in given.text_set("statuses", among=among))
    spelled["statuses"] = sorted(statuses)
    days = given.count("grace_days", 0, least=0, most=MAX_GRACE_DAYS)
    if days:
        spelled["grace_days"] = days
    minimums: dict[str, int] = {}
    if (least := given.member("min")) is not None:
        minimums = {name: least.count(name, 0, least=0, most=_COUNT_MAX) for name in least.names()}
        spelled["min"] = minimums
    number = given.count("min_evaluation_number", -1, least=0, most=_COUNT_MAX)
    if number >= 0:
        spelled["min_evaluation_number"] = number
    given.check_all_read()
    form["tcb"] = spelled
    return TcbRule(statuses, days * DAY, minimums, number if number >= 0 else None)


def _parse_advisories(members: Members, form: dict[str, object]) -> AdvisoryRule:
    given = members.member("advisories")
    if given is None:
        return AdvisoryRule()
    spelled: dict[str, object] = {}
    allowed: frozenset[str] | Anything = frozenset()
    if given.is_any("allow"):
        allowed, spelled["allow"] = ANY, ANY.value
    elif given.has("allow"):
        allowed = given.text_set("allow")
        spelled["allow"] = sorted(allowed)
    denied = given.text_set("deny") if given.has("deny") else frozenset[str]()
    if denied:
        spelled["deny"] = sorted(denied)
    given.check_all_read()
    if spelled:
        form["advisories"] = spelled
    return AdvisoryRule(allowed, denied)


def _parse_attributes(members: Members, form: dict[str, object]) -> dict[str, frozenset[bool | int | str] | Anything]:
    given = members.member("attributes")
    if given is None:
        return {}
    found: dict[str, frozenset[bool | int | str] | Anything] = {}
    spelled: dict[str, object] = {}
    for name in given.names():
        if given.is_any(name):
            found[name], spelled[name] = ANY, ANY.value
            continue
        values = given.scalars(name)
        found[name] = frozenset(values)
        ordered = sorted(values, key=lambda value: (type(value).__name__, value))
        spelled[name] = ordered[0] if len(ordered) == 1 else ordered
    if spelled:
        form["attributes"] = spelled
    return found


def _rooted(node: AppraisalPolicy, roots: Mapping[EvidenceKind, frozenset[bytes]]) -> AppraisalPolicy:
    match node:
        case EnclavePolicy():
            return dataclasses.replace(node, roots=roots.get(node.kind, frozenset()))
        case AnyOf():
            return AnyOf(_rooted(child, roots) for child in node.policies)
        case AllOf():
            return AllOf(_rooted(child, roots) for child in node.policies)
