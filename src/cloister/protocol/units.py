"""Amounts and durations: one small type per quantity.

RLC has 9 decimals on chain; its smallest unit is the nRLC. All arithmetic is in whole nRLC.
"""

from __future__ import annotations

import re
from typing import Final, Self

from cloister.errors import InputError, quoted
from cloister.protocol.codec import check_uint

RLC_DECIMALS: Final = 9
NRLC_PER_RLC: Final = 10**RLC_DECIMALS
INFINITE_VOLUME: Final = 2**53 - 1
"""The volume that stands for no limit: the largest integer of JavaScript (reference 1.7)."""

_AMOUNT: Final = re.compile(r"([0-9]{1,78})(?:\.([0-9]{1,78}))? ?([nN]?RLC|[nN]?rlc)?")


class Nrlc(int):
    """An amount of RLC in its smallest unit, 0..2^256-1."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        return super().__new__(cls, check_uint("amount", value))


class Seconds(int):
    """A duration in whole seconds, 0..2^256-1."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        return super().__new__(cls, check_uint("seconds", value))


def parse_nrlc(value: str | int) -> Nrlc:
    """Read an amount: ``"0.1 RLC"``, ``"5 nRLC"``, ``"5"`` or ``5`` (both nRLC).

    Raises:
        InputError: another form, a part of an nRLC, or out of range.
    """
    if isinstance(value, int):
        return Nrlc(value)
    match = _AMOUNT.fullmatch(str(value).strip())
    if match is None:
        raise InputError(
            f"cannot read the amount {quoted(value)}", hint='write "0.1 RLC", "5 nRLC" or a whole number of nRLC'
        )
    whole, fraction, unit = match.group(1), match.group(2) or "", (match.group(3) or "nRLC").lower()
    decimals = RLC_DECIMALS if unit == "rlc" else 0
    fraction = fraction.rstrip("0")
    if len(fraction) > decimals:
        raise InputError(
            f"the amount {quoted(value)} is not a whole number of nRLC", hint="1 RLC is 1,000,000,000 nRLC"
        )
    return Nrlc(int(whole) * 10**decimals + int(fraction.ljust(decimals, "0") or "0"))


def format_rlc(amount: int) -> str:
    """Write an amount of nRLC for people: ``"0.1 RLC"``, ``"12 RLC"``."""
    whole, rest = divmod(Nrlc(amount), NRLC_PER_RLC)
    fraction = f"{rest:0{RLC_DECIMALS}d}".rstrip("0")
    return f"{whole}.{fraction} RLC" if fraction else f"{whole} RLC"
