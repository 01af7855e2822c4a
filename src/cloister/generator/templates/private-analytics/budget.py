"""The owner's rules, which lie beside the table: what may be asked, within which bounds, at which price in privacy.

    {"epsilon": 1.0, "minimum_group": 50,
     "columns": {"town":   {"keys": ["Bergen", "Oslo"]},                     text: may be grouped by
                 "income": {"lower": 0, "upper": 150000, "step": 100}}}      number: may be summed, in whole steps

What is not named here is not there. ``epsilon`` is what one run spends. Keys are the owner's list and not those in the table,
so an answer does not tell which occur.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from cloister.errors import InputError


@dataclass(frozen=True)
class Number:
    """A column of numbers. Everything is counted in whole steps, because noise on whole numbers can be exact."""

    lower: int
    upper: int
    step: float


@dataclass(frozen=True)
class Budget:
    """What one run may do."""

    epsilon: float
    minimum_group: int
    numbers: dict[str, Number]
    keys: dict[str, tuple[str, ...]]


def parse_budget(text: str) -> Budget:
    """Read ``budget.json``. Raises InputError: the owner has to mend it."""
    try:
        rules = json.loads(text)
        numbers, keys = {}, {}
        for name, rule in rules["columns"].items():
            if "keys" in rule:
                keys[name] = tuple(str(key) for key in rule["keys"])
            else:
                step = float(rule.get("step", 1))
                numbers[name] = Number(round(rule["lower"] / step), round(rule["upper"] / step), step)
        budget = Budget(float(rules["epsilon"]), int(rules["minimum_group"]), numbers, keys)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(f"budget.json does not read: {type(error).__name__} {error}") from error
    if not (math.isfinite(budget.epsilon) and budget.epsilon > 0):
        raise InputError("budget.json: epsilon must be more than 0")
    for name, number in numbers.items():
        if not (-(2**40) < number.lower < number.upper < 2**40 and number.step > 0):
            raise InputError(f"budget.json: the bounds of {name} must be lower < upper, with fewer than 2**40 steps")
    return budget
