"""Verdicts for people and for machines: which rule refused, what was found, what would pass."""

from __future__ import annotations

from collections.abc import Iterator

from cloister.attestation.verdicts import Verdict

HOLDS = "✓"
FAILS = "✗"
_INDENT = "  "
_SHOWN = 180
"""A SHA-384 in hex with its name fits."""


def explain(verdict: Verdict) -> list[str]:
    """Draw the tree, one rule a line, with what would make a failed rule hold on a line of its own."""
    return list(_lines(verdict, 0))


def build_verdict_json(verdict: Verdict) -> dict[str, object]:
    """The tree as JSON members; every member is always there."""
    return {
        "rule": verdict.rule,
        "ok": verdict.ok,
        "found": verdict.found or None,
        "wanted": verdict.wanted or None,
        "code": verdict.code,
        "message": verdict.message or None,
        "remedy": verdict.remedy,
        "marks": list(verdict.marks),
        "children": [build_verdict_json(child) for child in verdict.children],
    }


def _lines(verdict: Verdict, depth: int) -> Iterator[str]:
    indent = _INDENT * depth
    sign = HOLDS if verdict.ok else FAILS
    if verdict.children:
        yield f"{indent}{sign} {verdict.rule}"
        for child in verdict.children:
            yield from _lines(child, depth + 1)
        return
    parts = [f"{indent}{sign} {verdict.rule}"]
    if verdict.found:
        parts.append(f": {_short(verdict.found)}")
    if not verdict.ok and verdict.wanted:
        parts.append(f"; wanted: {_short(verdict.wanted)}")
    elif verdict.wanted and verdict.wanted != verdict.found:
        parts.append(f" (wanted: {_short(verdict.wanted)})")
    if verdict.code is not None:
        parts.append(f" [{verdict.code}]")
    yield "".join(parts)
    for mark in verdict.marks:
        yield f"{indent}{_INDENT}! {mark}"
    if verdict.remedy is not None:
        yield f"{indent}{_INDENT}→ {verdict.remedy}"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
