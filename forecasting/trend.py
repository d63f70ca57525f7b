"""A damped line through the recent past, with the spread that its own past errors show.

Rules:
1. Points are (time in s, value); unknown moments are left out, never filled with zero.
2. The median never falls below zero; a rise is damped and capped by what was ever seen, since a line through a
   step overshoots.
3. The spread at a horizon grows with the scatter around the line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

DAMPING = 0.5
RISE_CAP = 1.5
HALF_LIFE_S = 6.0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The median and one high quantile of a value at a horizon."""

    median: float
    high: float


def forecast(
    points: Sequence[tuple[float, float]], now_s: float, horizon_s: float, quantile: float
) -> Quantiles | None:
    """Forecast the value at `now_s + horizon_s`; None without points. Linear in their number.

    Least squares of value over time, where a point's weight halves with every HALF_LIFE_S of its age, the slope
    multiplied by DAMPING; `high` adds the normal quantile of the residuals' weighted standard deviation.
    """
    if not points:
        return None
    last = points[-1][1]
    if len(points) < 3:
        return Quantiles(last, last)
    ages = [at_s - now_s for at_s, _ in points]
    values = [value for _, value in points]
    weights = [0.5 ** (-age / HALF_LIFE_S) for age in ages]
    slope, level = _line(ages, values, weights)
    residuals = [value - (level + slope * age) for age, value in zip(ages, values, strict=True)]
    spread = math.sqrt(_mean([residual * residual for residual in residuals], weights))
    ceiling = RISE_CAP * max(values)
    median = min(max(0.0, level + DAMPING * slope * horizon_s), ceiling)
    high = min(max(median, median + NormalDist().inv_cdf(quantile) * spread), ceiling)
    return Quantiles(median, high)


def _line(ages: Sequence[float], values: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Slope, and the value at age 0."""
    mean_age, mean_value = _mean(ages, weights), _mean(values, weights)
    variance = _mean([(age - mean_age) ** 2 for age in ages], weights)
    if variance == 0:
        return 0.0, mean_value
    products = [(age - mean_age) * (value - mean_value) for age, value in zip(ages, values, strict=True)]
    slope = _mean(products, weights) / variance
    return slope, mean_value - slope * mean_age


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
