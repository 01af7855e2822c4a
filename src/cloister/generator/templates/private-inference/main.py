"""Applies a protected model to somebody's private rows. Neither sees the other's; only predictions leave the enclave.

The model is ``model.json`` in the protected data: numbers and names, so that nothing in it can run (a pickle could). The rows
are input file 1, a CSV file with a header.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cloister import iapp
from cloister.errors import CloisterError, InputError

MOST_ROWS = 100
DECIMALS = 1
"""Exact scores of a few chosen rows would give away the weights; tenths of a hundred rows a run make that a long way."""


@dataclass(frozen=True)
class Model:
    """A logistic regression on scaled columns, as the template private-training writes it."""

    columns: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    intercept: float
    classes: tuple[object, object]

    def predict(self, samples: np.ndarray) -> list[dict[str, object]]:
        """For each row its class and the chance, in tenths, that it is of the second class."""
        odds = (samples - self.mean) / self.scale @ self.weights + self.intercept
        chances = 1 / (1 + np.exp(-np.clip(odds, -50, 50)))
        return [
            {"class": self.classes[int(chance >= 0.5)], "chance": round(float(chance), DECIMALS)} for chance in chances
        ]


def parse_model(text: str) -> Model:
    """Read ``model.json``. Raises InputError: its owner has to mend it."""
    try:
        found = json.loads(text)
        columns = tuple(map(str, found["columns"]))
        mean, scale, weights = (np.array(found[name], dtype=float) for name in ("mean", "scale", "weights"))
        first, second = found["classes"]
        model = Model(columns, mean, scale, weights, float(found["intercept"]), (first, second))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.json does not read: {type(error).__name__}") from error
    shapes = {values.shape for values in (mean, scale, weights)}
    if shapes != {(len(columns),)} or not (np.isfinite([mean, scale, weights]).all() and (scale > 0).all()):
        raise InputError("model.json does not read: mean, scale and weights need one number for each column")
    return model


def parse_rows(lines: Iterable[str], columns: tuple[str, ...]) -> np.ndarray:
    """The model's columns of a CSV file, whatever their order. Raises InputError: who asks has to mend it."""
    reader = csv.DictReader(lines)
    if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise InputError(f"the input file has no column {', '.join(missing)}")
    rows = []
    for number, row in enumerate(reader, start=1):
        if number > MOST_ROWS:
            raise InputError(f"the input file has more than {MOST_ROWS} rows")
        try:
            rows.append([float(row[name]) for name in columns])
        except (TypeError, ValueError):
            raise InputError(f"row {number} of the input file has a cell that is no number") from None
    if not rows or not np.isfinite(rows).all():
        raise InputError("the input file has no rows, or a number that is not finite")
    return np.array(rows)


def main() -> None:
    """Read both sides, write the predictions."""
    model = parse_model(str(iapp.read("model.json", type="string")))
    with iapp.input(1).open(encoding="utf-8-sig", newline="") as lines:
        samples = parse_rows(lines, model.columns)
    iapp.write("predictions.json", model.predict(samples))


if __name__ == "__main__":
    try:
        main()
    except CloisterError as error:
        sys.exit(f"no prediction: {error.message}")
