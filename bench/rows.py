"""A measured figure beside its budget."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Better = Literal["less", "more"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``budget`` None: reported without a budget. ``better`` says on which side of the budget is good.

    A value that is not a number was not measured: a budget is then not met.
    """

    name: str
    value: float
    unit: str
    budget: float | None = None
    better: Better = "less"

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; None without one."""
        if self.budget is None:
            return None
        return self.value <= self.budget if self.better == "less" else self.value >= self.budget

    def to_json(self) -> dict[str, Any]:
        """As a line of ``bench/latest.json``."""
        fields = asdict(self)
        del fields["better"]
        # JSON has no NaN.
        return fields | {"value": None if math.isnan(self.value) else self.value, "met": self.met}
