"""A series on a regular grid: from points as they come to values of which each is known, or not.

Rules:
1. Missing is NaN on the grid and never zero; what is partial is missing too, and counted apart.
2. Points out of order are sorted; of two at one moment the later given wins; NaN, infinite, negative and above
   VALUE_MAX are missing.
3. Whether a zero is idleness or a hole is said by the caller, or by the series itself: where the positive values
   never come near zero and zeros are few, a zero among them is a hole.
4. A value far below all of the last day is partial (a scrape that saw a part of the fleet) for PARTIAL_STEPS at most;
   what stays low is then true. The rule looks back only, so that a replay sees what a live series saw.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

Zeros = Literal["idle", "missing", "auto"]

PARTIAL_SHARE = 0.1
PARTIAL_STEPS = 12
LOOK_BACK = 144
NEAR_ZERO_SHARE, NEAR_ZERO_QUANTILE, HOLES_MAX = 0.2, 0.02, 0.2
POINTS_MAX = 1_000_000
VALUE_MAX = 1e30
"""Above, sums and squares of values would leave what a float can hold."""


class SeriesError(ValueError):
    """A series of which nothing can be said: one line with what was found, expected, and the remedy."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Values at `start_s + i * step_s`; NaN is missing. `partial` and `refused` count what was taken out."""

    start_s: float
    step_s: float
    values: Values
    partial: int = 0
    refused: int = 0
    zeros_missing: bool = False

    @property
    def end_s(self) -> float:
        """The moment of the last value."""
        return self.start_s + (len(self.values) - 1) * self.step_s


def regular(points: Iterable[tuple[float, float]], step_s: float | None = None, zeros: Zeros = "auto") -> Grid:
    """Points (time in s, value) on a grid of `step_s`, by default their median distance; means where two share a step.

    Raises SeriesError without a single usable point, and where the grid would hold more than POINTS_MAX values.
    """
    import numpy as np

    at_s, values, refused = _usable(points)
    step = _median_step(at_s) if step_s is None else step_s
    if not (math.isfinite(step) and step > 0):
        raise SeriesError(f"step {step_s}: expected a number of seconds above 0")
    size = round((at_s[-1] - at_s[0]) / step) + 1
    if size > POINTS_MAX:
        raise SeriesError(
            f"{len(at_s)} points over {at_s[-1] - at_s[0]:g} s at steps of {step:g} s: expected at most {POINTS_MAX} "
            "steps; give a longer step or a shorter history"
        )
    place = np.rint((np.asarray(at_s) - at_s[0]) / step).astype(int)
    sums, counts = np.zeros(size), np.zeros(size)
    np.add.at(sums, place, np.asarray(values))
    np.add.at(counts, place, 1.0)
    grid = np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
    holes = zeros == "missing" or (zeros == "auto" and _zeros_are_holes(grid))
    if holes:
        grid = np.where(grid == 0, np.nan, grid)
    kept, partial = without_partial(grid)
    if np.all(np.isnan(kept)):
        raise SeriesError("every value is missing; expected at least one known value")
    return Grid(float(at_s[0]), float(step), kept, partial, refused, holes)


def rates(points: Iterable[tuple[float, float]], gap_s: float = math.inf) -> list[tuple[float, float]]:
    """Samples of a counter as rates per second, each at the end of its interval.

    A counter that falls was reset: what it shows has come since (as Prometheus reads it). An interval longer than
    `gap_s` gives no rate: when its increase came is unknown.
    """
    at_s, values, _ = _usable(points)
    found: list[tuple[float, float]] = []
    for i in range(1, len(at_s)):
        spent_s = at_s[i] - at_s[i - 1]
        if spent_s <= gap_s:
            fell = values[i] < values[i - 1]
            found.append((at_s[i], (values[i] if fell else values[i] - values[i - 1]) / spent_s))
    return found


def without_partial(values: Values) -> tuple[Values, int]:
    """The values with partial ones missing, and how many those are."""
    import numpy as np

    kept = values.copy()
    sieve = Sieve()
    count = 0
    for i, value in enumerate(values.tolist()):
        if sieve.is_partial(value):
            kept[i] = np.nan
            count += 1
    return kept, count


class Sieve:
    """Tells partial values as they come: far below the least of the last LOOK_BACK known values, for a while."""

    def __init__(self, recent: Sequence[float] = (), run: int = 0) -> None:
        self.recent = list(recent)
        self.run = run

    def is_partial(self, value: float) -> bool:
        """Whether this value, the next one, is partial; a missing one (NaN) is not."""
        if math.isnan(value):
            return False
        if self.run < PARTIAL_STEPS and len(self.recent) >= PARTIAL_STEPS and value < PARTIAL_SHARE * self._least():
            self.run += 1
            return True
        if self.run >= PARTIAL_STEPS:
            self.recent.clear()
        self.run = 0
        self.recent.append(value)
        if len(self.recent) > LOOK_BACK:
            del self.recent[0]
        return False

    def _least(self) -> float:
        return min(self.recent)


def _usable(points: Iterable[tuple[float, float]]) -> tuple[list[float], list[float], int]:
    """Times and values in order, one value a moment, and how many points were refused. Raises SeriesError."""
    known: dict[float, float] = {}
    refused = 0
    for at_s, value in points:
        if math.isfinite(at_s) and 0 <= value <= VALUE_MAX:
            known[at_s] = value
        else:
            refused += 1
    if not known:
        why = f"none of {refused} points is a number of at least 0 at a moment" if refused else "no points"
        raise SeriesError(f"{why}; expected at least one known value")
    ordered = sorted(known)
    return ordered, [known[at_s] for at_s in ordered], refused


def _median_step(at_s: Sequence[float]) -> float:
    """The median distance of neighbours; 1 s for a single point, of which any step is true."""
    distances = sorted(later - earlier for earlier, later in pairwise(at_s))
    return distances[len(distances) // 2] if distances else 1.0


def _zeros_are_holes(values: Values) -> bool:
    import numpy as np

    positive = values[values > 0]
    if len(positive) == 0 or np.count_nonzero(values == 0) > HOLES_MAX * len(values):
        return False
    return bool(np.quantile(positive, NEAR_ZERO_QUANTILE) > NEAR_ZERO_SHARE * np.median(positive))
