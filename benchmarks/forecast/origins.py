"""Which forecasts are scored and what they cost: the same origins and targets for every model.

Rules:
1. An origin is a step with a known value, after the first quarter of the series; a target is known too.
2. A model is scored at every origin: equal n. What it gives that is not a number is an error, never left out.
3. The loss is the pinball loss (Koenker and Bassett, 1978), mean of the quantiles 0.5, 0.9 and 0.99.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forecasting.series import Grid

Values = NDArray[np.float64]
Whole = NDArray[np.int64]

QUANTILES = (0.5, 0.9, 0.99)
WARM_UP_SHARE = 0.25
SHIFT_LENGTH, SHIFT_SCORED = 48, 200


@dataclass(frozen=True, slots=True)
class Task:
    """One series at several horizons, in steps."""

    name: str
    grid: Grid
    steps: tuple[int, ...]

    @property
    def first(self) -> int:
        """The first origin."""
        return max(1, int(len(self.grid.values) * WARM_UP_SHARE))

    def origins(self, steps: int) -> Whole:
        """Where forecasts `steps` ahead are made and scored."""
        known = ~np.isnan(self.grid.values)
        places = np.arange(self.first, len(known) - steps)
        return places[known[places] & known[places + steps]]

    def filled(self) -> Values:
        """The values with the last known one in place of a missing one, for models that need them all."""
        values = self.grid.values.copy()
        known = np.flatnonzero(~np.isnan(values))
        places = np.maximum.accumulate(np.where(~np.isnan(values), np.arange(len(values)), known[0]))
        filled: Values = values[places]
        return filled


@dataclass(frozen=True, slots=True)
class Row:
    """What one model lost on one series at one horizon."""

    series: str
    horizon_s: float
    model: str
    pinball: float
    wape: float
    coverage90: float
    coverage99: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """The row as it is written."""
        return {name: getattr(self, name) for name in self.__slots__}


def pinball(actual: Values, forecasts: Values) -> Values:
    """The loss of each forecast, mean over QUANTILES: shapes (n,) and (n, 3) give (n,)."""
    error = actual[:, None] - forecasts
    level = np.asarray(QUANTILES)
    losses: Values = np.maximum(level * error, (level - 1) * error).mean(axis=1)
    return losses


def score(task: Task, steps: int, model: str, forecasts: Values) -> Row:
    """The row of one model. Raises ValueError for a forecast that is no number."""
    places = task.origins(steps)
    if forecasts.shape != (len(places), len(QUANTILES)) or not np.all(np.isfinite(forecasts)):
        raise ValueError(f"{model} on {task.name}, {steps} steps ahead: not a number for each of {len(places)} origins")
    actual = task.grid.values[places + steps]
    covered = (actual[:, None] <= forecasts + 1e-9).mean(axis=0)
    return Row(
        task.name,
        steps * task.grid.step_s,
        model,
        float(pinball(actual, forecasts).mean()),
        float(np.abs(actual - forecasts[:, 0]).sum() / max(float(actual.sum()), 1e-12)),
        float(covered[1]),
        float(covered[2]),
        len(places),
    )


def level_shifts(task: Task, steps: int) -> Iterator[int]:
    """Positions, in the origins of this horizon, at which the level changed by half or more and stayed changed.

    The medians of SHIFT_LENGTH values before and after differ by a factor of 1.5; each at least 200 origins apart.
    """
    places, values = task.origins(steps), task.grid.values
    last = -SHIFT_SCORED
    for position, place in enumerate(places.tolist()):
        if place < SHIFT_LENGTH or place + SHIFT_LENGTH > len(values) or position - last < SHIFT_SCORED:
            continue
        before = float(np.nanmedian(values[place - SHIFT_LENGTH : place]))
        after = float(np.nanmedian(values[place : place + SHIFT_LENGTH]))
        if max(before, after) > 1.5 * max(min(before, after), 1e-12):
            last = position
            yield position
