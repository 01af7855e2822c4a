"""Verdicts: what each rule of a policy says of one piece of evidence, as a tree. A refusal is read off the same tree that
an explanation draws, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloister.errors import LocalError, PolicyRejected

OTHER_KIND = "kind-not-allowed"
_MESSAGES = 4
"""How many refusals a message lists."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule and its answer.

    ``found`` is what the evidence says, ``wanted`` what would pass, both for people. A rule that fails has the ``code``
    and ``message`` of its refusal, and in ``remedy`` what would make it hold. ``marks`` is what must be said beside an
    acceptance: each begins with a stable word and a colon (``tcb-out-of-date: …``).
    """

    rule: str
    ok: bool
    found: str = ""
    wanted: str = ""
    code: str | None = None
    message: str = ""
    remedy: str | None = None
    marks: tuple[str, ...] = ()
    children: tuple[Verdict, ...] = ()

    def __post_init__(self) -> None:
        if self.ok == (self.code is not None):
            raise LocalError("a verdict has a code exactly when it fails")

    def require(self) -> Verdict:
        """Return the verdict when it holds.

        Raises:
            PolicyRejected: with the code of the first rule that fails.
        """
        if self.ok:
            return self
        raise PolicyRejected(self.message, code=self.code, hint=self.remedy)


def holds(rule: str, *, found: str = "", wanted: str = "", marks: tuple[str, ...] = ()) -> Verdict:
    """A rule that holds."""
    return Verdict(rule, True, found, wanted, marks=marks)


def fails(
    rule: str, code: str, message: str, *, found: str = "", wanted: str = "", remedy: str | None = None
) -> Verdict:
    """A rule that does not."""
    return Verdict(rule, False, found, wanted, code, message, remedy)


def judge_all(rule: str, children: Sequence[Verdict]) -> Verdict:
    """Holds when every child does, with the marks of all; else fails as the first child that does. Nothing to hold:
    fails.
    """
    if not children:
        return _empty(rule)
    failed = next((child for child in children if not child.ok), None)
    if failed is None:
        marks = tuple(dict.fromkeys(mark for child in children for mark in child.marks))
        return Verdict(rule, True, marks=marks, children=tuple(children))
    return Verdict(
        rule,
        False,
        code=failed.code,
        message=failed.message,
        remedy=failed.remedy,
        children=tuple(children),
    )


def judge_any(rule: str, children: Sequence[Verdict]) -> Verdict:
    """Holds when a child does, with the marks of one that has fewest; else fails as the children that tell most."""
    if not children:
        return _empty(rule)
    held = sorted((child for child in children if child.ok), key=lambda child: len(child.marks))
    if held:
        return Verdict(rule, True, marks=held[0].marks, children=tuple(children))
    # A refusal for another kind of evidence says nothing about this one.
    telling = [child for child in children if child.code != OTHER_KIND] or children
    return Verdict(
        rule,
        False,
        code=telling[0].code,
        message="; ".join(child.message for child in telling[:_MESSAGES]),
        remedy=telling[0].remedy,
        children=tuple(children),
    )


def _empty(rule: str) -> Verdict:
    return fails(rule, "no-policy", "no appraisal policy is set")
