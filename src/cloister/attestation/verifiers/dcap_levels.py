"""Since when a platform is out of date, as Intel's lists have it.

A list of TCB levels runs from the best to the worst; a platform matches the first whose numbers it reaches. Three lists
rule: the platform's (TCB info), the quoting enclave's (QE identity) and, for TDX, the TDX module's (TCB info).

The rule: for every list whose matched level is out of date, take the levels above it that are not themselves out of date
or revoked; the earliest ``tcbDate`` among them is the day from which a newer level that counts as up to date was on the
list. The earliest of these days over the three lists is the platform's. When a list that is out of date gives no such
day, nothing is known, and the answer is None: no grace can be counted from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.attestation.verifiers.dcap_collateral import parse_date

_BAD = ("OutOfDate", "Revoked")


def find_out_of_date_day(lists: Sequence[tuple[Sequence[object], int | None]]) -> int | None:
    """Unix seconds of the day, or None. ``lists``: each one's levels (Intel's JSON) and the index of the matched one.

    Raises:
        DecodeError: a level's date is none.
    """
    days = []
    for levels, matched in lists:
        if matched is None or not _is_bad(levels[matched]):
            continue
        better = [_parse_day(level) for level in levels[:matched] if not _is_bad(level)]
        if not better:
            return None
        days.append(min(better))
    return min(days, default=None)


def find_platform_level(levels: Sequence[object], numbers: object) -> int | None:
    """Index of the level with exactly these ``numbers`` (the ``tcb`` that the library matched)."""
    wanted = _numbers(numbers)
    return next((i for i, level in enumerate(levels) if _numbers(_member(level, "tcb")) == wanted), None)


def find_version_level(levels: Sequence[object], isvsvn: int) -> int | None:
    """Index of the first level of a QE or TDX module whose version ``isvsvn`` reaches."""
    for index, level in enumerate(levels):
        floor = _member(_member(level, "tcb"), "isvsvn")
        if isinstance(floor, int) and isvsvn >= floor:
            return index
    return None


def find_module_levels(identities: object, major: int) -> Sequence[object]:
    """The levels of the TDX module ``major``; empty when the list does not name it."""
    for identity in as_list(identities):
        if _member(identity, "id") == f"TDX_{major:02X}":
            return as_list(_member(identity, "tcbLevels"))
    return ()


def as_list(value: object) -> Sequence[object]:
    """``value`` if it is a list, else an empty one."""
    return value if isinstance(value, list) else ()


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _numbers(tcb: object) -> tuple[object, ...]:
    components = (_member(tcb, "sgxtcbcomponents"), _member(tcb, "tdxtcbcomponents"))
    return (_member(tcb, "pcesvn"), *(tuple(_member(c, "svn") for c in as_list(listed)) for listed in components))


def _is_bad(level: object) -> bool:
    return str(_member(level, "tcbStatus")).startswith(_BAD)


def _parse_day(level: object) -> int:
    return parse_date(_member(level, "tcbDate"), "list of TCB levels")
