"""How far a platform's firmware may be behind its vendor's list: status, grace, least versions, advisories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import Final

from cloister.attestation.claims import Tcb, TcbStatus
from cloister.attestation.verdicts import Verdict, fails, holds, judge_all
from cloister.errors import ConfigurationError, quoted

DAY: Final = 86_400
EVALUATION_NUMBER: Final = "tcb_evaluation_data_number"
"""Name under which the DCAP verifiers tell the number of Intel's evaluation."""
_LISTED: Final = 8
"""How many advisories a text names."""


class Anything(Enum):
    """The explicit word for a check that is not wanted. It is never a default."""

    ANY = "any"


ANY: Final = Anything.ANY


@dataclass(frozen=True, slots=True)
class TcbRule:
    """The floor of a platform's level.

    ``statuses``: accepted ones; every one but UpToDate is marked. ``grace``: seconds for which a platform that has fallen
    out of date is still accepted, and marked, counted from the day on which a newer level was on the vendor's list; where
    the list gives no day there is no grace. A platform that is out of date and wrongly configured has grace only where
    ConfigurationNeeded is accepted. ``minimums``: least version by name. ``min_evaluation_number``: oldest of Intel's
    evaluations whose list counts.
    """

    statuses: frozenset[TcbStatus] = frozenset({TcbStatus.UP_TO_DATE})
    grace: int = 0
    minimums: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    min_evaluation_number: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "statuses", frozenset(self.statuses))
        object.__setattr__(self, "minimums", MappingProxyType(dict(self.minimums)))
        if TcbStatus.REVOKED in self.statuses:
            raise ConfigurationError("the tcb status Revoked cannot be accepted")
        if self.grace < 0:
            raise ConfigurationError(f"a grace of {self.grace} seconds is negative")
        for name, least in (*self.minimums.items(), (EVALUATION_NUMBER, self.min_evaluation_number or 0)):
            if least < 0:
                raise ConfigurationError(f"the least version {least} of {quoted(name)} is negative")

    def judge(self, tcb: Tcb | None, now: int) -> Verdict:
        """Judge a level at ``now`` (unix seconds)."""
        if tcb is None:
            text = "the evidence names no tcb level"
            return fails("tcb", "tcb-unknown", text, found="none", wanted=self._accepted())
        least = dict(self.minimums)
        if self.min_evaluation_number is not None:
            least[EVALUATION_NUMBER] = max(self.min_evaluation_number, least.get(EVALUATION_NUMBER, 0))
        versions = [_judge_version(name, tcb.versions.get(name), least[name]) for name in sorted(least)]
        return judge_all("tcb", (self._judge_status(tcb, now), *versions))

    def _judge_status(self, tcb: Tcb, now: int) -> Verdict:
        status, wanted = tcb.status, self._accepted()
        if status in self.statuses:
            marks = () if status is TcbStatus.UP_TO_DATE else (f"tcb-status: {status}",)
            return holds("tcb status", found=status, wanted=wanted, marks=marks)
        since = tcb.out_of_date_since
        if not self._may_be_late(status):
            return fails(
                "tcb status",
                "tcb-out-of-date" if status.startswith("OutOfDate") else "tcb-status",
                f"the platform's tcb is {status}",
                found=status,
                wanted=wanted,
                remedy=_status_remedy(status),
            )
        if since is None:
            return fails(
                "tcb status",
                "tcb-out-of-date",
                f"the platform's tcb is {status}, and its vendor's list gives no day from which to count a grace",
                found=status,
                wanted=wanted,
                remedy="update the platform's firmware",
            )
        found = f"{status} since {date(since)}"
        if self.grace and now - since <= self.grace:
            until = date(since + self.grace)
            return holds(
                "tcb status",
                found=found,
                wanted=f"{wanted}; grace until {until}",
                marks=(f"tcb-out-of-date: since {date(since)}, in grace until {until}",),
            )
        ended = f", grace of {_days(self.grace)} ended {date(since + self.grace)}" if self.grace else ""
        return fails(
            "tcb status",
            "tcb-out-of-date",
            f"the platform's tcb is {found}{ended}",
            found=found,
            wanted=wanted,
            remedy=f"update the platform's firmware, or grace_days >= {-(-(now - since) // DAY)}",
        )

    def _may_be_late(self, status: TcbStatus) -> bool:
        match status:
            case TcbStatus.OUT_OF_DATE:
                return True
            case TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED:
                return TcbStatus.CONFIGURATION_NEEDED in self.statuses
            case _:
                return False

    def _accepted(self) -> str:
        names = " or ".join(status.value for status in TcbStatus if status in self.statuses) or "nothing"
        return f"{names}, {_days(self.grace)} of grace" if self.grace else names


@dataclass(frozen=True, slots=True)
class AdvisoryRule:
    """Which of the vendor's security advisories may stand against a platform. ``denied`` wins over ``allowed``; by default
    none is allowed. Those that are let pass are marked.
    """

    allowed: frozenset[str] | Anything = frozenset()
    denied: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.allowed, Anything):
            object.__setattr__(self, "allowed", frozenset(self.allowed))
        object.__setattr__(self, "denied", frozenset(self.denied))

    def judge(self, tcb: Tcb | None) -> Verdict:
        """Judge the advisories of a level; a level that is not known has none to judge."""
        standing = frozenset() if tcb is None else tcb.advisories
        refused = standing & self.denied
        code, verb = "advisory-denied", "denied"
        if not refused and not isinstance(self.allowed, Anything):
            refused, code, verb = standing - self.allowed, "advisory-not-allowed", "not allowed"
        found, wanted = _list(standing) or "none", self._accepted()
        if refused:
            text = f"the security advisories {_list(refused)} stand against the platform and are {verb}"
            remedy = "update the platform's firmware and settings"
            if code == "advisory-not-allowed":
                remedy += f", or allow {_list(refused)}"
            return fails("advisories", code, text, found=found, wanted=wanted, remedy=remedy)
        marks = (f"advisories: {_list(standing)}",) if standing else ()
        return holds("advisories", found=found, wanted=wanted, marks=marks)

    def _accepted(self) -> str:
        allowed = "any" if isinstance(self.allowed, Anything) else _list(self.allowed) or "none"
        return f"{allowed}, but not {_list(self.denied)}" if self.denied else allowed


def date(moment: int) -> str:
    """The day of a moment (unix seconds), in UTC; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(moment, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return str(moment)


def _judge_version(name: str, version: int | None, least: int) -> Verdict:
    rule, wanted = f"tcb version {name}", f"at least {least}"
    code = "tcb-evaluation-too-low" if name == EVALUATION_NUMBER else "tcb-version-too-low"
    if version is None:
        return fails(rule, "tcb-version-unknown", f"the evidence tells no version of {quoted(name)}", wanted=wanted)
    if version < least:
        text = f"{name} is {version}, the policy wants at least {least}"
        remedy = "update the platform's firmware" if code == "tcb-version-too-low" else "fetch newer collateral"
        return fails(rule, code, text, found=str(version), wanted=wanted, remedy=remedy)
    return holds(rule, found=str(version), wanted=wanted)


def _status_remedy(status: TcbStatus) -> str:
    if status is TcbStatus.REVOKED:
        return "use another platform: its vendor revoked this one"
    if status is TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED:
        return f'update the platform\'s firmware and settings, or add "{status}" to tcb.statuses'
    return f'change what the platform\'s vendor asks for, or add "{status}" to tcb.statuses'


def _days(seconds: int) -> str:
    days, rest = divmod(seconds, DAY)
    if rest:
        return f"{seconds} seconds"
    return f"{days} day" if days == 1 else f"{days} days"


def _list(names: frozenset[str]) -> str:
    shown = sorted(names)
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return ", ".join(quoted(name) for name in shown[:_LISTED]) + more
