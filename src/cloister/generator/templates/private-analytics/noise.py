"""Noise by OpenDP: each measurement is a chain whose loss of privacy OpenDP itself works out.

Two tables are neighbours when one has one row more (symmetric distance 1): a person is one row. All numbers are whole, so the
noise is exact discrete Laplace noise and the pitfalls of floating point do not arise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import opendp.prelude as dp
from budget import Number

dp.enable_features("contrib")
SPACE = dp.vector_domain(dp.atom_domain(T="i64")), dp.symmetric_distance()


@dataclass(frozen=True)
class Measurement:
    """A function of rows with noise. ``spent``: what one use costs; ``off_by``: what it is off by at most, 95 times of 100."""

    measure: Callable[[list[int]], int]
    spent: float
    off_by: float


def make_count(epsilon: float) -> Measurement:
    """How many rows there are."""
    return _make(SPACE >> dp.t.then_count(), epsilon)


def make_sum(number: Number, epsilon: float) -> Measurement:
    """The sum of a column in steps, every row clamped to the owner's bounds."""
    return _make(SPACE >> dp.t.then_clamp((number.lower, number.upper)) >> dp.t.then_sum(), epsilon)


def total_spent(measurements: Iterable[Measurement]) -> float:
    """Basic composition: what is measured on the same rows adds up."""
    return sum(measurement.spent for measurement in measurements)


def _make(transformation: dp.Transformation, epsilon: float) -> Measurement:
    """Add as little noise as ``epsilon`` allows."""
    scale = dp.binary_search_param(
        lambda found: transformation >> dp.m.then_laplace(found), d_in=1, d_out=epsilon, T=float
    )
    measurement = transformation >> dp.m.then_laplace(scale)
    return Measurement(measurement, measurement.map(1), dp.laplacian_scale_to_accuracy(scale, 0.05))
